"""`onhand load`: movements at a rate, repeatable by a seed, into whatever is configured as input."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import cast

from confluent_kafka import Consumer, TopicPartition
from redis import Redis

from bench.servers import KafkaBroker, RedisServer
from cli.pacing import Pace
from tests.cli.command import assert_failed_in_one_line, onhand, started, wait_until

FEW = ("--movements", "200", "--skus", "10", "--locations", "2")


def test_into_a_kafka_topic(kafka: KafkaBroker, topic: Callable[..., str], tmp_path: Path) -> None:
    """All of them and the ticks, which go into every partition."""
    name = topic(3)
    settings = {"kafka.bootstrap_servers": kafka.bootstrap_servers, "input.topic": name}
    done = onhand("load", *FEW, cwd=tmp_path, settings=settings)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"203 messages to {name}: 200 movements in ")
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "counts"})
    ends = [consumer.get_watermark_offsets(TopicPartition(name, number), timeout=20)[1] for number in range(3)]
    consumer.close()
    assert sum(ends) == 203
    assert min(ends) > 1


def test_into_a_redis_stream(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> None:
    """An entry per message with payload and key, as the source reads them."""
    settings = {"redis.url": redis_server.url, "input.kind": "redis_stream", "input.topic": "moves"}
    assert onhand("load", *FEW, cwd=tmp_path, settings=settings).returncode == 0
    entries = [cast("dict[bytes, bytes]", fields) for _, fields in redis.xrange("moves") or ()]
    assert len(entries) == 201
    assert set(entries[0]) == {b"payload"}
    assert json.loads(entries[1][b"payload"])["sku"].encode() == entries[1][b"key"]


def test_the_same_seed_and_start_give_the_same_lines(tmp_path: Path) -> None:
    """Duplicates and late ones too."""
    arguments = ("load", *FEW, "--start", "2026-01-01T00:00:00Z", "--duplicates", "10", "--late", "10", "--to")
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        assert onhand(*arguments, name, "--seed", seed, cwd=tmp_path).returncode == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()
    bodies = [json.loads(line) for line in (tmp_path / "a").read_text().splitlines()]
    ids = [(body["source"], body["id"]) for body in bodies if "id" in body]
    assert len(ids) == 200 + len(ids) - len(set(ids))
    assert len(set(ids)) < len(ids)
    assert min(body["time"] for body in bodies) < "2026-01-01"


def test_a_later_load_is_no_duplicate_of_an_earlier_one(tmp_path: Path) -> None:
    """Ids begin with the start time."""
    for start in ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"):
        assert onhand("load", *FEW, "--start", start, "--to", start[-3:-1], cwd=tmp_path).returncode == 0
    ids = [
        {json.loads(line).get("id") for line in (tmp_path / name).read_text().splitlines()} - {None}
        for name in ("00", "01")
    ]
    assert len(ids[0]) == len(ids[1]) == 200
    assert not ids[0] & ids[1]


def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    """With a summary and exit code 130; what was due is there."""
    with started("load", "--rate", "50", "--to", "lines", cwd=tmp_path) as load:
        wait_until(lambda: (tmp_path / "lines").exists() and (tmp_path / "lines").stat().st_size > 1000)
        load.send_signal(signal.SIGINT)
        assert load.wait(20) == 130
    errors = (tmp_path / "err").read_text()
    assert " messages to lines: " in errors
    assert "Traceback" not in errors


def test_a_topic_that_is_missing_is_told_with_what_to_do(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Nothing is made by being named."""
    settings = {"kafka.bootstrap_servers": kafka.bootstrap_servers, "input.topic": "no-such-topic"}
    assert "onhand topics create" in assert_failed_in_one_line(onhand("load", cwd=tmp_path, settings=settings), 1)


def test_the_pace_is_kept_whatever_a_message_takes() -> None:
    """The n-th is due n / rate seconds after the first; one that is late makes no later one later."""
    now_seconds, naps = [0.0], []

    def sleep(seconds: float) -> None:
        naps.append(round(seconds, 3))
        now_seconds[0] += seconds

    pace = Pace(10, clock=lambda: now_seconds[0], sleep=sleep)
    for taken_seconds in (0.0, 0.25, 0.0, 0.0, 0.0):
        pace.wait()
        now_seconds[0] += taken_seconds
    assert naps == [0.1, 0.05]
    assert pace.summary() == ", at most 150 ms behind schedule"
