"""`onhand doctor`: what is not as it should be, and what to do about it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from bench.servers import KafkaBroker, RedisServer
from tests.cli.command import NOWHERE, assert_failed_in_one_line, onhand


@pytest.fixture
def settings(
    kafka: KafkaBroker, topic: Callable[..., str], redis: Redis, redis_server: RedisServer, tmp_path: Path
) -> dict[str, str]:
    """A set-up without a fault: a topic of movements, an empty Redis, rules; outputs to files."""
    assert redis.dbsize() == 0
    (tmp_path / "rules.toml").write_text("[channels.web]\n")
    return {
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "redis.url": redis_server.url,
        "input.topic": topic(
            2, {"message.timestamp.type": "LogAppendTime", "retention.ms": "-1", "retention.bytes": "-1"}
        ),
        "output.kind": "jsonl",
    }


def checks(settings: dict[str, str], cwd: Path, code: int) -> dict[str, dict[str, str]]:
    """What the doctor found, by subject."""
    done = onhand("doctor", "--json", cwd=cwd, settings=settings)
    assert done.returncode == code, done.stdout + done.stderr
    return {check["subject"]: check for check in json.loads(done.stdout)["checks"]}


def test_nothing_to_do_is_exit_code_0(settings: dict[str, str], tmp_path: Path) -> None:
    """Everything that a first run needs is there."""
    assert onhand("topics", "create", cwd=tmp_path, settings=settings).returncode == 0
    done = onhand("doctor", cwd=tmp_path, settings=settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[0].split() == ["CHECKED", "FOUND"]
    assert all(line.startswith("ok") for line in done.stdout.splitlines()[1:])


def test_a_missing_topic_is_a_finding(settings: dict[str, str], tmp_path: Path) -> None:
    """With the command that makes it."""
    found = checks(settings | {"input.topic": "missing"}, tmp_path, 3)["missing"]
    assert (found["result"], found["found"]) == ("finding", "is missing")
    assert "onhand topics create" in found["advice"]


def test_a_topic_with_other_settings_is_a_finding(
    settings: dict[str, str], topic: Callable[..., str], tmp_path: Path
) -> None:
    """With the command that sets them right."""
    name = topic(1, {"retention.ms": "-1"})
    found = checks(settings | {"input.topic": name}, tmp_path, 3)[name]
    assert found["found"] == "message.timestamp.type is CreateTime, should be LogAppendTime"
    assert found["advice"].endswith("--add-config message.timestamp.type=LogAppendTime")


def test_a_redis_that_may_evict_is_a_finding(settings: dict[str, str], redis: Redis, tmp_path: Path) -> None:
    """An evicted SKU would read as never seen."""
    redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        found = checks(settings, tmp_path, 3)["Redis memory"]
    finally:
        redis.config_set("maxmemory-policy", "noeviction")
    assert "noeviction" in found["advice"]


def test_a_user_that_may_not_run_scripts_is_a_finding(settings: dict[str, str], redis: Redis, tmp_path: Path) -> None:
    """Told before the first run, with what to allow."""
    redis.acl_setuser("reader", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-@scripting"])
    try:
        url = settings["redis.url"].replace("redis://", "redis://reader:pw@")
        found = checks(settings | {"redis.url": url}, tmp_path, 3)["Redis scripts"]
    finally:
        redis.acl_deluser("reader")
    assert "ACL SETUSER" in found["advice"]


def test_a_flow_that_stands_still_is_a_finding(settings: dict[str, str], redis: Redis, tmp_path: Path) -> None:
    """Its last health is old."""
    redis.hset("avail:@health", mapping={"watermark_ms": 1, "lag_seconds": "0.0", "written_ms": 1})
    assert checks(settings, tmp_path, 3)["numbers"]["found"].startswith("stale: ")


def test_wrong_rules_are_a_finding(settings: dict[str, str], tmp_path: Path) -> None:
    """With their first line, and the command that lists all."""
    (tmp_path / "rules.toml").write_text("[channels.web]\nshare_percent = 101\n")
    found = checks(settings, tmp_path, 3)["rules"]
    assert found["found"].startswith("rules.toml:2: error: ")
    assert "onhand check" in found["advice"]


def test_one_server_out_of_reach_is_a_finding_and_the_other_is_still_looked_at(
    settings: dict[str, str], tmp_path: Path
) -> None:
    """One thing down hides nothing else."""
    found = checks(settings | {"kafka.bootstrap_servers": NOWHERE}, tmp_path, 3)
    assert found["Kafka"]["result"] == "unreachable"
    assert found["Redis version"]["result"] == "ok"


def test_nothing_in_reach_is_exit_code_1(settings: dict[str, str], tmp_path: Path) -> None:
    """Then nothing could be checked."""
    nowhere = {"kafka.bootstrap_servers": NOWHERE, "redis.url": f"redis://{NOWHERE}"}
    done = onhand("doctor", cwd=tmp_path, settings=settings | nowhere)
    assert "nothing could be checked" in assert_failed_in_one_line(done, 1)


def test_a_state_that_no_flow_can_go_on_from_is_a_finding(settings: dict[str, str], tmp_path: Path) -> None:
    """A new one is fine, and so is a whole one; where a part is gone, it says which."""
    assert "is new" in checks(settings, tmp_path, 0)["state"]["found"]
    assert onhand("recovery", "create", cwd=tmp_path, settings=settings).returncode == 0
    assert "incarnation" in checks(settings, tmp_path, 0)["state"]["found"]
    (tmp_path / "state" / "part-2.sqlite3").unlink()
    found = checks(settings, tmp_path, 3)["state"]
    assert (found["result"], "part-2" in found["found"], "backup" in found["advice"]) == ("finding", True, True)
