"""`onhand run availability`: from movements to what `onhand get` shows, how it drains, what forbids its start."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from redis import Redis

from bench.servers import KafkaBroker, RedisServer
from tests.cli.command import NOWHERE, assert_failed_in_one_line, onhand, started, wait_until

RULES = '[channels.web]\nlocations = ["dc-1"]\nlow_stock_at = 2\n'


def movement(number: int, kind: str, quantity: int, sku: str = "SKU-1") -> str:
    """A line of JSON."""
    fields = {"id": str(number), "source": "wms", "kind": kind, "sku": sku, "location": "dc-1", "quantity": quantity}
    return json.dumps(fields | {"time": "2026-11-01T00:00:00Z"}) + "\n"


MOVEMENTS = movement(1, "received", 10) + movement(2, "shipped", 3) + "not json\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with rules."""
    (tmp_path / "rules.toml").write_text(RULES)
    return tmp_path


def records(path: Path) -> list[dict[str, object]]:
    """What a JSONL file holds."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_file_in_and_files_out_beside_redis(folder: Path, redis: Redis, redis_server: RedisServer) -> None:
    """The end of the file ends the run; every output has its file."""
    (folder / "movements.jsonl").write_text(MOVEMENTS)
    (folder / "onhand.toml").write_text(
        f'[redis]\nurl = "{redis_server.url}"\n[input]\nkind = "jsonl"\ntopic = "movements.jsonl"\n'
        '[output]\nkind = "jsonl"\npath = "out"\n'
    )
    done = onhand("run", "availability", cwd=folder)
    assert done.returncode == 0, done.stderr
    start = json.loads(done.stderr.splitlines()[0])
    assert start["event"] == "availability runs"
    assert (start["reads"], start["writes"], start["lanes"]) == ("jsonl movements.jsonl", "jsonl in out", 64)
    assert start["incarnation"] == int(redis.hget("avail:SKU-1", "@incarnation") or 0)
    assert redis.hget("avail:SKU-1", "web") == b"7"
    assert [letter["reason"] for letter in records(folder / "out" / "inventory.dead-letters.jsonl")] == ["not_json"]
    assert [crossing["to"] for crossing in records(folder / "out" / "inventory.thresholds.jsonl")] == ["in_stock"]


def test_a_later_run_has_a_greater_incarnation(folder: Path, redis: Redis, redis_server: RedisServer) -> None:
    """Even where the clock went back: what an earlier state wrote must not be refused a newer one."""
    redis.hset("avail:@health", "incarnation", 5_000_000_000)
    settings = {"redis.url": redis_server.url, "input.kind": "jsonl", "input.topic": "-", "output.kind": "none"}
    done = onhand("run", "availability", cwd=folder, settings=settings, stdin=MOVEMENTS)
    assert done.returncode == 0, done.stderr
    assert redis.hget("avail:SKU-1", "@incarnation") == b"5000000001"


def test_an_embedded_redis_outlives_the_run_for_other_commands(folder: Path) -> None:
    """While it runs they find it, afterwards they read what it left."""
    settings = {"redis.url": "embedded", "input.kind": "jsonl", "input.topic": "-", "output.kind": "none"}
    assert_failed_in_one_line(onhand("get", "SKU-1", cwd=folder, settings=settings), 1)
    told = ["get", "SKU-1", "--json"]
    with started("run", "availability", cwd=folder, settings=settings) as run:
        assert run.stdin is not None
        run.stdin.write(MOVEMENTS.encode())
        run.stdin.flush()
        wait_until(lambda: '"web":7' in onhand(*told, cwd=folder, settings=settings).stdout)
        second = onhand("run", "availability", cwd=folder, settings=settings)
        assert "another run serves the embedded Redis" in assert_failed_in_one_line(second, 1)
        run.send_signal(signal.SIGTERM)
        assert run.wait(20) == 0
    after = json.loads(onhand(*told, cwd=folder, settings=settings).stdout)
    assert after["channels"] == {"web": 7}
    explained = json.loads(onhand("explain", "SKU-1", "--json", cwd=folder, settings=settings).stdout)
    assert explained["current"]
    assert explained["promised"] == {"web": 7}
    shown = json.loads(onhand("rules", "show", "--json", cwd=folder, settings=settings).stdout)
    assert (shown["in_force"]["generation"], shown["latest"], shown["behind"]) == (1, None, [])
    assert sorted(path.name for path in (folder / "state").iterdir()) == ["redis.saved"]


def test_shadow_rules_tell_what_would_differ_and_sell_nothing(
    folder: Path, redis: Redis, redis_server: RedisServer
) -> None:
    """Their differences have a file of their own; channels read what the rules say."""
    (folder / "movements.jsonl").write_text(MOVEMENTS)
    (folder / "shadow.toml").write_text(RULES + "safety_units = 2\n")
    settings = {
        "redis.url": redis_server.url, "input.kind": "jsonl", "input.topic": "movements.jsonl", "output.kind": "jsonl",
        "rules.shadow_path": "shadow.toml",
    }  # fmt: skip
    done = onhand("run", "availability", cwd=folder, settings=settings)
    assert done.returncode == 0, done.stderr
    assert redis.hget("avail:SKU-1", "web") == b"7"
    told = records(folder / "out" / "inventory.shadow.jsonl")[-1]
    assert (told["sku"], told["channels"]) == ("SKU-1", {"web": {"promised": 7, "shadow": 5}})
    assert records(folder / "out" / "inventory.replenishments.jsonl") == []


def test_proposals_have_a_file_of_their_own(folder: Path, redis: Redis, redis_server: RedisServer) -> None:
    """From demand that is in the log, at a tick that is in the log."""
    assert redis.dbsize() == 0
    (folder / "rules.toml").write_text(RULES + "[replenishment]\nlead_time_days = 2\n")
    lines = movement(1, "received", 10) + movement(2, "shipped", 9)
    (folder / "movements.jsonl").write_text(lines + '{"kind": "tick", "time": "2026-11-03T00:00:00Z"}\n')
    settings = {
        "redis.url": redis_server.url, "input.kind": "jsonl", "input.topic": "movements.jsonl", "output.kind": "jsonl",
    }  # fmt: skip
    done = onhand("run", "availability", cwd=folder, settings=settings)
    assert done.returncode == 0, done.stderr
    (proposal,) = records(folder / "out" / "inventory.replenishments.jsonl")
    assert (proposal["event"], proposal["sku"], proposal["location"]) == ("proposed", "SKU-1", "dc-1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_on_kafka_drains_at_the_first_signal(
    number: signal.Signals,
    folder: Path,
    kafka: KafkaBroker,
    topic: Callable[..., str],
    redis: Redis,
    redis_server: RedisServer,
) -> None:
    """Everything read is written, ticks too, offsets are committed, exit code 0."""
    name = topic(2, {"message.timestamp.type": "LogAppendTime"})
    settings = {
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group": f"group-{name}",
        "input.topic": name,
        "redis.url": redis_server.url,
        "metrics.listen": "127.0.0.1:0",  # the default port may belong to a run of a test beside this one
    }
    assert onhand("topics", "create", "--partitions", "2", cwd=folder, settings=settings).returncode in (0, 3)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for line in MOVEMENTS.splitlines():
        producer.produce(name, line.encode(), b"SKU-1", 0)
    assert producer.flush(20) == 0
    with started("run", "availability", cwd=folder, settings=settings) as run:
        wait_until(lambda: redis.hget("avail:SKU-1", "web") == b"7")
        wait_until(lambda: ends(kafka, name)[1] > 0)
        run.send_signal(number)
        assert run.wait(20) == 0, (folder / "err").read_text()
    events = [json.loads(line)["event"] for line in (folder / "err").read_text().splitlines()]
    assert events == ["availability runs", "rules pushed", "health and metrics are served", "draining", "ended"]
    with consuming(kafka, settings["kafka.group"]) as consumer:
        committed = consumer.committed([TopicPartition(name, 0)], timeout=20)
    assert committed[0].offset >= 3  # the movements, and what ticks were read behind them


def ends(kafka: KafkaBroker, name: str) -> list[int]:
    """Where both partitions end."""
    with consuming(kafka, "ends") as consumer:
        return [consumer.get_watermark_offsets(TopicPartition(name, number), timeout=20)[1] for number in range(2)]


@contextmanager
def consuming(kafka: KafkaBroker, group: str) -> Iterator[Consumer]:
    """A consumer that joins no group."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group})
    try:
        yield consumer
    finally:
        consumer.close()


def test_a_second_signal_ends_it_at_once(folder: Path) -> None:
    """Also while it waits for a Redis that does not answer."""
    with RedisServer() as server:
        settings = {"redis.url": server.url, "input.kind": "jsonl", "input.topic": "-", "output.kind": "none"}
        with (
            Redis.from_url(server.url) as client,
            started("run", "availability", cwd=folder, settings=settings) as run,
        ):
            wait_until(lambda: client.exists("avail:@health"))
            server.freeze()
            assert run.stdin is not None
            run.stdin.write(MOVEMENTS.encode())
            run.stdin.flush()
            time.sleep(0.5)  # until it has been read
            run.send_signal(signal.SIGTERM)
            wait_until(lambda: "draining" in (folder / "err").read_text())
            time.sleep(0.2)
            assert run.poll() is None
            run.send_signal(signal.SIGTERM)
            assert run.wait(5) == 130
            server.thaw()


def test_redis_out_of_reach_at_the_start_is_told_in_one_line(folder: Path) -> None:
    """Exit code 1, and nothing of Bytewax's own words."""
    settings = {"redis.url": f"redis://{NOWHERE}/0", "input.kind": "jsonl", "input.topic": "-", "output.kind": "none"}
    done = onhand("run", "availability", cwd=folder, settings=settings)
    assert NOWHERE in assert_failed_in_one_line(done, 1)


def test_kafka_out_of_reach_at_the_start_is_told_in_one_line(folder: Path, redis_server: RedisServer) -> None:
    """After its bounded wait."""
    settings = {"redis.url": redis_server.url, "kafka.bootstrap_servers": NOWHERE}
    done = onhand("run", "availability", cwd=folder, settings=settings)
    assert NOWHERE in assert_failed_in_one_line(done, 1)
    assert len([line for line in done.stderr.splitlines() if not line.startswith("{")]) == 1


def test_a_topic_that_is_missing_is_told_with_what_to_do(
    folder: Path, kafka: KafkaBroker, redis_server: RedisServer
) -> None:
    """`onhand topics create` makes it."""
    settings = {
        "redis.url": redis_server.url,
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "input.topic": "no-such-topic",
        "output.kind": "none",
    }
    line = assert_failed_in_one_line(onhand("run", "availability", cwd=folder, settings=settings), 1)
    assert "no topic no-such-topic" in line
    assert "onhand topics create" in line


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        (None, "rules.toml: error: there is no such file"),
        ("[channels.web]\nshare_percent = 101\n", "rules.toml:2: error: channels.web.share_percent: "),
        ("[channels.web\n", "rules.toml:1: error: "),
    ],
)
def test_wrong_rules_forbid_the_start(rules: str | None, complaint: str, tmp_path: Path) -> None:
    """Exit code 2, every complaint with its line."""
    if rules is not None:
        (tmp_path / "rules.toml").write_text(rules)
    done = onhand("run", "availability", cwd=tmp_path)
    assert_failed_in_one_line(done, 2)
    assert done.stderr.startswith(complaint)


def test_wrong_shadow_rules_forbid_the_start(folder: Path) -> None:
    """As wrong rules do, with every complaint and its line."""
    (folder / "shadow.toml").write_text("[channels.web]\nshare_percent = 101\nsafety_units = -1\n")
    done = onhand("run", "availability", cwd=folder, settings={"rules.shadow_path": "shadow.toml"})
    assert_failed_in_one_line(done, 2)
    assert [line.split(" ")[0] for line in done.stderr.splitlines()[:2]] == ["shadow.toml:2:", "shadow.toml:3:"]


def test_an_input_file_that_is_missing_is_told_in_one_line(folder: Path, redis_server: RedisServer) -> None:
    """What Bytewax wraps is unwrapped."""
    settings = {"redis.url": redis_server.url, "input.kind": "jsonl", "input.topic": "absent", "output.kind": "none"}
    done = onhand("run", "availability", cwd=folder, settings=settings)
    assert "absent cannot be read" in assert_failed_in_one_line(done, 1)
