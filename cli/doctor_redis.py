"""What `onhand doctor` looks at in Redis: its version, settings and speed, and how fresh its numbers are."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from redis import Redis
from redis.exceptions import NoPermissionError, RedisError

from cli.configuration import Configuration
from cli.connections import redis_client, without_password
from cli.failures import CliError, one_line
from cli.findings import Check
from cli.get import freshness
from sinks.redis_keys import health_key, read_health

REDIS_VERSION_MIN: Final = (6, 2)
PINGS: Final = 21
PING_MS_MAX: Final = 5.0


def redis_checks(configuration: Configuration) -> list[Check]:
    """The server, its settings, what it lets us do, and how fresh its numbers are."""
    prefix = configuration.settings.redis.prefix
    looks: dict[str, Callable[[Redis], Check]] = {
        "version": _version,
        "memory": _memory,
        "role": _role,
        "latency": _latency,
        "scripts": partial(_scripts, health_key(prefix)),
        "numbers": partial(_numbers, prefix),
    }
    try:
        with redis_client(configuration) as client:
            client.ping()
            return [_looked(name, look, client) for name, look in looks.items()]
    except CliError as error:
        return [Check("Redis", "unreachable", without_password(configuration.settings.redis.url), one_line(error))]


def _looked(name: str, look: Callable[[Redis], Check], client: Redis) -> Check:
    """What `look` found; a command that this user may not use is a finding too."""
    try:
        return look(client)
    except NoPermissionError as error:
        return Check(f"Redis {name}", "finding", one_line(error), "allow it with ACL SETUSER")


def _version(client: Redis) -> Check:
    info = client.info("server")
    text = str(info["redis_version"])
    if tuple(int(part) for part in text.split(".")[:2]) < REDIS_VERSION_MIN:
        return Check("Redis version", "finding", text, "upgrade it: 6.2 is the oldest that is known to work")
    valkey = info.get("valkey_version")
    return Check("Redis version", "ok", f"{text} (Valkey {valkey})" if valkey else text)


def _memory(client: Redis) -> Check:
    policy = str(client.info("memory")["maxmemory_policy"])
    if policy != "noeviction":
        found = f"maxmemory-policy {policy}: SKUs may vanish and read as 0"
        return Check("Redis memory", "finding", found, "CONFIG SET maxmemory-policy noeviction, and in redis.conf")
    return Check("Redis memory", "ok", "maxmemory-policy noeviction")


def _role(client: Redis) -> Check:
    role = str(client.info("replication")["role"])
    if role != "master":
        return Check("Redis role", "finding", "a replica: writes are refused", "let redis.url name the primary")
    return Check("Redis role", "ok", "primary")


def _latency(client: Redis) -> Check:
    times_ms = []
    for _ in range(PINGS):
        begun = time.perf_counter()
        client.ping()
        times_ms.append((time.perf_counter() - begun) * 1000)
    median_ms = statistics.median(times_ms)
    found = f"{median_ms:.2f} ms for a PING (median of {PINGS})"
    if median_ms > PING_MS_MAX:
        return Check("Redis latency", "finding", found, "bring onhand and Redis closer; SLOWLOG shows what blocks it")
    return Check("Redis latency", "ok", found)


def _scripts(health: str, client: Redis) -> Check:
    """Scripts may run and read our keys; that they may write shows with the first write."""
    try:
        client.eval("return redis.call('HGET', KEYS[1], '@version')", 1, health)
    except NoPermissionError:
        raise
    except RedisError as error:
        return Check("Redis scripts", "finding", one_line(error), "allow EVAL, EVALSHA and SCRIPT LOAD for this user")
    return Check("Redis scripts", "ok", "may run and read")


def _numbers(prefix: str, client: Redis) -> Check:
    """Fresh, or nothing has run yet; a flow that once ran and stands still is a finding."""
    told = read_health(client, prefix)
    state = freshness(told, round(time.time() * 1000))
    if state.fresh or told is None:
        return Check("numbers", "ok", state.text if told else "no run has written yet")
    return Check("numbers", "finding", state.text, "start `onhand run availability`, or look into its log")
