"""`onhand get`: what a channel would read now, with version and age."""

import json
import time
from pathlib import Path

import pytest
from redis import Redis

from bench.servers import RedisServer
from cli.get import duration, freshness
from sinks.redis_keys import Health
from tests.cli.command import NOWHERE, assert_failed_in_one_line, onhand

AVAILABILITY = {
    "@incarnation": 7, "@version": 4711, "@as_of": 1_795_000_000_000, "web": 3, "b2b": 9,
}  # fmt: skip


@pytest.fixture
def settings(redis: Redis, redis_server: RedisServer) -> dict[str, str]:
    """A Redis in which one SKU stands."""
    redis.hset("avail:SKU-1", items=[text for pair in AVAILABILITY.items() for text in pair])
    return {"redis.url": redis_server.url}


def health(redis: Redis, written_ms: int, lag: str = "0.200") -> None:
    """Write a health as a run does."""
    redis.hset(
        "avail:@health",
        mapping={"incarnation": 7, "watermark_ms": written_ms, "lag_seconds": lag, "written_ms": written_ms},
    )


def test_all_channels_with_version_and_age(settings: dict[str, str], tmp_path: Path) -> None:
    """Into a pipe the table is aligned lines."""
    done = onhand("get", "SKU-1", cwd=tmp_path, settings=settings)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[:3] == ["CHANNEL  MAY SELL", "b2b      9", "web      3"]
    assert lines[3].startswith("SKU-1: version 4711, as of 2026-11-18T11:06:40.000Z (")
    assert lines[4].startswith("stale: no run has written yet")


def test_an_account_without_a_value_reads_its_channels(settings: dict[str, str], tmp_path: Path) -> None:
    """b2b/acme falls back to b2b."""
    done = onhand("get", "SKU-1", "--channel", "b2b/acme", "--json", cwd=tmp_path, settings=settings)
    assert json.loads(done.stdout)["channels"] == {"b2b/acme": 9}


def test_json_holds_version_age_and_health(redis: Redis, settings: dict[str, str], tmp_path: Path) -> None:
    """Everything that the lines say, for a machine."""
    health(redis, round(time.time() * 1000))
    told = json.loads(onhand("get", "SKU-1", "--json", cwd=tmp_path, settings=settings).stdout)
    assert (told["known"], told["incarnation"], told["version"]) == (True, 7, 4711)
    assert told["as_of"] == "2026-11-18T11:06:40.000Z"
    assert told["age_seconds"] >= 0
    assert told["health"]["fresh"] is True
    assert told["health"]["lag_seconds"] == 0.2


def test_an_unknown_sku_is_0_and_no_error(settings: dict[str, str], tmp_path: Path) -> None:
    """Never seen is an answer."""
    done = onhand("get", "SKU-9", "--channel", "web", cwd=tmp_path, settings=settings)
    assert done.returncode == 0
    assert done.stdout.startswith("SKU-9: never seen, treat as 0\n")


def test_redis_out_of_reach_is_told_in_one_line(tmp_path: Path) -> None:
    """What is wrong and what to do, with exit code 1 and no password."""
    done = onhand("get", "SKU-1", cwd=tmp_path, settings={"redis.url": f"redis://me:secret@{NOWHERE}/0"})
    line = assert_failed_in_one_line(done, 1)
    assert line.startswith(f"onhand: Redis at redis://…@{NOWHERE}/0 does not answer")
    assert "secret" not in line


@pytest.mark.parametrize("url", ["http://x", "localhost:6379"])
def test_an_address_that_is_none_is_a_configuration_error(url: str, tmp_path: Path) -> None:
    """redis.url is checked where it is used."""
    assert "redis.url" in assert_failed_in_one_line(onhand("get", "X", cwd=tmp_path, settings={"redis.url": url}), 2)


def test_a_hash_of_somebody_else_is_told(redis: Redis, settings: dict[str, str], tmp_path: Path) -> None:
    """Another program under the same prefix is no availability."""
    redis.hset("avail:SKU-2", "colour", "blue")
    line = assert_failed_in_one_line(onhand("get", "SKU-2", cwd=tmp_path, settings=settings), 1)
    assert "is redis.prefix right?" in line


@pytest.mark.parametrize(
    ("told", "fresh", "text"),
    [
        (None, False, "stale: no run has written yet"),
        (Health(7, 0, 0.0, 99_000), True, "fresh: last written 1.0 s ago, 0.0 s behind its input"),
        (Health(7, 0, 0.0, 70_000), False, "stale: last written 30.0 s ago"),
        (Health(7, 0, 61.0, 99_000), False, "stale: last written 1.0 s ago, 61.0 s behind"),
        (Health(7, 0, None, 99_000), False, "stale: last written 1.0 s ago, unknown lag"),
    ],
)
def test_numbers_are_fresh_while_a_run_writes_and_keeps_up(told: Health | None, text: str, *, fresh: bool) -> None:
    """A SKU quiet for days is not stale, a flow that stands still is."""
    found = freshness(told, 100_000)
    assert found.fresh is fresh
    assert found.text.startswith(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.44, "0.4 s"), (119, "119.0 s"), (720, "12 min"), (10_800, "3 h"), (1_296_000, "15 days")]
)
def test_a_span_of_time_reads_as_people_say_it(seconds: float, text: str) -> None:
    """One figure and its unit."""
    assert duration(seconds) == text
