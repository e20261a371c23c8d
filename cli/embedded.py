"""`redis.url = "embedded"`: a server of a run's own, which other commands find, and whose content outlives the run.

In the folder `state.path`, `redis.url` names the server while it runs, and `redis.saved` holds what it held at the end.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from redis import Redis
from redis.exceptions import RedisError

from cli.configuration import Configuration
from cli.failures import CliError
from sinks.redis_server import EmbeddedRedis

EMBEDDED: Final = "embedded"
URL_FILE: Final = "redis.url"
SAVED_FILE: Final = "redis.saved"
KEYS_AT_ONCE: Final = 1000
ANSWER_SECONDS_MAX: Final = 5.0

Hashes = list[tuple[bytes, dict[bytes, bytes]]]  # key, and its fields


def is_embedded(configuration: Configuration) -> bool:
    """Whether the settings ask for a server of our own."""
    return configuration.settings.redis.url == EMBEDDED


@contextmanager
def serving_redis(configuration: Configuration) -> Iterator[EmbeddedRedis]:
    """A server with what the last run left, for this run; its content is saved at the end.

    CliError where another run serves the same state, or its folder cannot be written.
    """
    folder = configuration.at(configuration.settings.state.path)
    if running_url(folder) is not None:
        raise CliError(f"another run serves the embedded Redis of {folder}; end it, or set another state.path")
    with EmbeddedRedis() as server, Redis.from_url(server.url, socket_timeout=ANSWER_SECONDS_MAX) as client:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / URL_FILE).write_text(server.url, encoding="utf-8")
        except OSError as error:
            raise CliError(f"{folder} cannot be written ({error.strerror}): correct state.path") from error
        restore(client, folder / SAVED_FILE)
        try:
            yield server
        finally:
            redis = configuration.settings.redis
            save(client, (redis.prefix, redis.explain_prefix), folder / SAVED_FILE)
            (folder / URL_FILE).unlink(missing_ok=True)


@contextmanager
def reading_redis(configuration: Configuration) -> Iterator[str]:
    """The address of the running server, or of one started to read what the last run left; CliError without either."""
    folder = configuration.at(configuration.settings.state.path)
    url = running_url(folder)
    if url is not None:
        yield url
        return
    if not (folder / SAVED_FILE).exists():
        raise CliError(f"no run has left anything in {folder}: begin with `onhand run availability` or `onhand demo`")
    with EmbeddedRedis() as server:
        with Redis.from_url(server.url, socket_timeout=ANSWER_SECONDS_MAX) as client:
            restore(client, folder / SAVED_FILE)
        yield server.url


def running_url(folder: Path) -> str | None:
    """The address of the server that serves the state in `folder`, None where none answers."""
    try:
        url = (folder / URL_FILE).read_text(encoding="utf-8")
        with Redis.from_url(url, socket_timeout=ANSWER_SECONDS_MAX) as client:
            client.ping()
    except (OSError, ValueError, RedisError):
        return None
    return url


def save(client: Redis, prefixes: Iterable[str], path: Path) -> None:
    """Write all hashes under `prefixes` to `path`, at once."""
    found = (client.scan_iter(f"{_literal(prefix)}*", KEYS_AT_ONCE, "HASH") for prefix in prefixes)
    keys = list(dict.fromkeys(key for keys in found for key in keys))  # a scan may tell one twice
    hashes: Hashes = []
    for start in range(0, len(keys), KEYS_AT_ONCE):
        chunk = keys[start : start + KEYS_AT_ONCE]
        pipeline = client.pipeline(transaction=False)
        for key in chunk:
            pipeline.hgetall(key)
        hashes += zip(chunk, pipeline.execute(), strict=True)
    unfinished = path.with_suffix(".new")
    unfinished.write_bytes(msgspec.msgpack.encode(hashes))
    unfinished.replace(path)


def restore(client: Redis, path: Path) -> None:
    """Put back what `save` wrote, if there is any; CliError where it is damaged."""
    if not path.exists():
        return
    try:
        hashes = msgspec.msgpack.decode(path.read_bytes(), type=Hashes)
    except msgspec.DecodeError as error:
        raise CliError(f"{path} is damaged; remove it and run again") from error
    for start in range(0, len(hashes), KEYS_AT_ONCE):
        pipeline = client.pipeline(transaction=False)
        for key, fields in hashes[start : start + KEYS_AT_ONCE]:
            pipeline.hset(key, items=[text for pair in fields.items() for text in pair])
        pipeline.execute()


def _literal(text: str) -> str:
    """`text` as a pattern of Redis that means nothing but itself."""
    return "".join(f"\\{character}" if character in "*?[]^\\" else character for character in text)
