"""`onhand rules push` and `show`: what is pushed, what is refused, and what is said of it."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from redis import Redis

from bench.drain import read_topic
from bench.servers import KafkaBroker, RedisServer
from schemas.topics import GENERATIONS, HEARTBEATS
from sinks.redis_keys import read_partitions_held
from sinks.rule_log import KafkaRuleLog
from tests.cli.command import NOWHERE, assert_failed_in_one_line, onhand, started, wait_until

RULES = "[channels.web]\nlow_stock_at = 2\n"
CHANGED = "[channels.web]\nlow_stock_at = 2\nsafety_units = 4\n"
STREAM = "movements"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with rules, and others beside them."""
    (tmp_path / "rules.toml").write_text(RULES)
    (tmp_path / "changed.toml").write_text(CHANGED)
    (tmp_path / "broken.toml").write_text("[channels.web]\nsafety_units = -4\nshare_percent = 101\n")
    return tmp_path


@pytest.fixture
def settings(redis: Redis, redis_server: RedisServer) -> dict[str, str]:
    """A stream of movements in an empty Redis."""
    assert redis.dbsize() == 0
    return {
        "redis.url": redis_server.url, "input.kind": "redis_stream", "input.topic": STREAM, "output.kind": "none",
    }  # fmt: skip


def receive(redis: Redis, sku: str, units: int) -> None:
    """Units that arrive, as an entry of the stream."""
    body = {"id": sku, "source": "wms", "kind": "received", "sku": sku, "location": "dc-1", "quantity": units}
    redis.xadd(STREAM, {"payload": msgspec.json.encode(body | {"time": "2026-11-01T00:00:00Z"})})


@contextmanager
def flow(folder: Path, settings: dict[str, str], redis: Redis) -> Iterator[None]:
    """A running flow, once it has told which rules hold; it drains at the end."""
    began_ms = time.time_ns() // 1_000_000
    with started("run", "availability", cwd=folder, settings=settings) as run:
        wait_until(lambda: int(redis.hget("avail:@health", "written_ms") or 0) > began_ms, 60)
        yield
        run.send_signal(signal.SIGTERM)
        assert run.wait(60) == 0, (folder / "err").read_text()


def entries(redis: Redis, stream: str) -> list[dict[str, Any]]:
    """The payloads of a stream that are no ticks."""
    found: Any = redis.xrange(stream)
    bodies = [msgspec.json.decode(fields[b"payload"]) for _, fields in found]
    return [body for body in bodies if body.get("kind") != "tick"]


def test_a_push_changes_what_channels_read_and_is_shown(folder: Path, settings: dict[str, str], redis: Redis) -> None:
    """Numbers of a running flow, with one line that says in how many partitions, after how long."""
    receive(redis, "A", 10)
    with flow(folder, settings, redis):
        wait_until(lambda: redis.hget("avail:A", "web") == b"10")
        done = onhand("rules", "push", "changed.toml", cwd=folder, settings=settings)
        assert done.returncode == 0, done.stderr
        changed, in_force = done.stdout.splitlines()
        assert changed == "changed: channels.web.safety_units"
        assert in_force.startswith("generation 2 in force in 1 of 1 partitions after ")
        wait_until(lambda: redis.hget("avail:A", "web") == b"6")
        again = onhand("rules", "push", "changed.toml", cwd=folder, settings=settings)
        assert (again.returncode, again.stdout, again.stderr) == (
            0, "nothing to change: generation 2 has these rules\n", "",
        )  # fmt: skip
        shown = onhand("rules", "show", cwd=folder, settings=settings)
        lines = shown.stdout.splitlines()
        assert lines[0].split("  ")[0] == "PARTITION"
        assert lines[1].split()[:2] == ["0", "2"]
        assert lines[2] == "generation 2:"
        assert json.loads("\n".join(lines[3:])) == {"channels": {"web": {"low_stock_at": 2, "safety_units": 4}}}
        assert (shown.returncode, shown.stderr) == (0, "")
    assert [found["generation"] for found in entries(redis, GENERATIONS.name)] == [1, 2]


def test_a_start_says_what_became_of_the_file(folder: Path, settings: dict[str, str], redis: Redis) -> None:
    """New, as it was, or changed: one line each."""
    said = []
    for text in (RULES, RULES, CHANGED):
        (folder / "rules.toml").write_text(text)
        with flow(folder, settings, redis):
            pass
        events = [json.loads(line) for line in (folder / "err").read_text().splitlines()]
        said += [(event["event"], event["generation"]) for event in events if "generation" in event]
    assert said == [("rules pushed", 1), ("rules hold", 1), ("rules have changed, pushed", 2)]


def test_large_rules_are_pushed_as_what_changed(folder: Path, settings: dict[str, str], redis: Redis) -> None:
    """In many records where that is large; every partition is known to go by the generation before."""
    members = json.dumps([f"SKU-{number:06}" for number in range(20_000)])
    large = f'{RULES}[categories]\nmany = {members}\n[[rules]]\ncategory = "many"\nsafety_units = %s\n'
    receive(redis, "SKU-000007", 10)
    with flow(folder, settings, redis):
        for generation, units in ((2, 3), (3, 5)):
            (folder / "large.toml").write_text(large % units)
            report = json.loads(onhand("rules", "push", "large.toml", "--json", cwd=folder, settings=settings).stdout)
            assert (report["pushed"], report["generation"], report["in_force"]) == (True, generation, 1)
            wait_until(lambda units=units: redis.hget("avail:SKU-000007", "web") == str(10 - units).encode())  # type: ignore[misc]  # bound now
    told = [record for record in entries(redis, STREAM) if record["kind"] == "rules"]
    by_generation = {number: [record for record in told if record["generation"] == number] for number in (2, 3)}
    assert len(by_generation[2]) > 10
    assert {record["since"] for record in by_generation[2]} == {1}
    assert [record["since"] for record in by_generation[3]] == [2]


def test_a_silent_location_of_a_stream_goes_down_and_comes_back(
    folder: Path, settings: dict[str, str], redis: Redis
) -> None:
    """Also by rules that were pushed after the start; a restart does not believe it in between."""
    (folder / "changed.toml").write_text(RULES + '[locations.dc-1]\nstale_after = "2s"\n')
    receive(redis, "A", 10)
    with flow(folder, settings, redis):
        beat = ("heartbeat", "dc-1", "--source", "wms")
        assert onhand(*beat, cwd=folder, settings=settings).returncode == 0
        time.sleep(5)
        assert redis.hget("avail:A", "web") == b"10"
        assert onhand("rules", "push", "changed.toml", cwd=folder, settings=settings).returncode == 0
        wait_until(lambda: redis.hget("avail:A", "web") == b"0")
    (folder / "rules.toml").write_text((folder / "changed.toml").read_text())
    silenced = len(entries(redis, STREAM))
    with flow(folder, settings, redis):
        wait_until(lambda: redis.hget("avail:A", "web") == b"0")
        wait_until(lambda: any(record["kind"] == "location" for record in entries(redis, STREAM)[silenced:]))
        later = [record for record in entries(redis, STREAM)[silenced:] if record["kind"] == "location"]
        assert [(record["location"], record["trust_percent"]) for record in later] == [("dc-1", 0)]
        assert onhand(*beat, cwd=folder, settings=settings).returncode == 0
        wait_until(lambda: redis.hget("avail:A", "web") == b"10")
    assert len(entries(redis, HEARTBEATS.name)) == 2


@pytest.fixture
def movements(kafka: KafkaBroker) -> Iterator[dict[str, str]]:
    """A broker of all tests, with a topic of movements that nobody reads, and an empty Redis of its own."""
    name = f"movements-{time.monotonic_ns()}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.create_topics([NewTopic(name, 2, 1)])[name].result(20)
    with RedisServer() as server:
        yield {"kafka.bootstrap_servers": kafka.bootstrap_servers, "redis.url": server.url, "input.topic": name}


def test_a_push_that_no_flow_reads_is_in_the_log_all_the_same(
    folder: Path, movements: dict[str, str], kafka: KafkaBroker
) -> None:
    """Exit code 1, with what will happen; without waiting for it, 0."""
    late = onhand("rules", "push", "--wait", "0.3", cwd=folder, settings=movements)
    assert "generation 1 in force in 0 of 2 partitions" in late.stdout
    line = assert_failed_in_one_line(late, 1)
    assert "is in the log but not in force everywhere within 0.3 s; it will be as soon as" in line
    again = onhand("rules", "push", "--wait", "0.3", cwd=folder, settings=movements)
    assert (again.returncode, again.stdout) == (0, "nothing to change: generation 1 has these rules\n")
    assert "in force in 0 of 2 partitions; where that does not change" in again.stderr
    done = onhand("rules", "push", "changed.toml", "--wait", "0", cwd=folder, settings=movements)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "generation 2 is in the log of 2 partitions"
    log = [json.loads(value) for value in read_topic(kafka.bootstrap_servers, movements["input.topic"])]
    assert [(record["kind"], record["generation"]) for record in log] == [("rules", 1), ("rules", 2)] * 2
    shown = onhand("rules", "show", cwd=folder, settings=movements)
    assert "no flow has told which rules hold" in shown.stdout
    assert "generation 2 was pushed" in shown.stderr
    assert shown.stderr.strip().endswith("is not in force yet in partitions 0, 1")
    told = json.loads(onhand("rules", "show", "--json", cwd=folder, settings=movements).stdout)
    assert (told["in_force"], told["latest"]["generation"], told["behind"]) == (None, 2, [0, 1])


def test_a_partition_that_lags_is_named(folder: Path, movements: dict[str, str]) -> None:
    """What holds elsewhere does not hide it."""
    assert onhand("rules", "push", "--wait", "0", cwd=folder, settings=movements).returncode == 0
    with Redis.from_url(movements["redis.url"]) as client:
        held = {"generation": 1, "digest": "d", "offset": 5, "time": None}
        client.hset(
            "avail:@rules",
            mapping={
                "@incarnation": "1", "generation": "1", "document": "{}", "1": json.dumps(held),
            },
        )  # fmt: skip
        assert list(read_partitions_held(client, "avail:")) == [1]
    shown = onhand("rules", "show", cwd=folder, settings=movements)
    assert shown.stdout.splitlines()[1].split()[:2] == ["1", "1"]
    assert shown.stderr.strip().endswith("is not in force yet in partition 0")


def test_showing_rules_makes_nothing(folder: Path, tmp_path: Path) -> None:
    """A look at a Kafka without the topic of generations leaves it without."""
    with KafkaBroker() as kafka, RedisServer() as server:
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        settings = {"kafka.bootstrap_servers": kafka.bootstrap_servers, "redis.url": server.url}
        shown = onhand("rules", "show", cwd=folder, settings=settings)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert GENERATIONS.name not in admin.list_topics(timeout=10).topics
    assert tmp_path == folder


def test_a_broken_file_is_not_pushed_and_every_fault_is_told(
    folder: Path, settings: dict[str, str], redis: Redis
) -> None:
    """As `onhand check` tells them, exit code 2, nothing written."""
    done = onhand("rules", "push", "broken.toml", cwd=folder, settings=settings)
    assert_failed_in_one_line(done, 2)
    checked = onhand("check", "broken.toml", cwd=folder, settings=settings)
    assert done.stderr.splitlines()[:2] == checked.stdout.splitlines()[:2]
    assert [line.split(" ")[0] for line in done.stderr.splitlines()[:2]] == ["broken.toml:2:", "broken.toml:3:"]
    assert redis.dbsize() == 0


@pytest.mark.parametrize("url", ["embedded", "redis"])
def test_a_file_of_movements_takes_no_push(folder: Path, settings: dict[str, str], url: str) -> None:
    """It has the control records that stand in it."""
    mine = settings | {"input.kind": "jsonl"} | ({"redis.url": url} if url == "embedded" else {})
    line = assert_failed_in_one_line(onhand("rules", "push", cwd=folder, settings=mine), 2)
    assert "a file takes no rules from outside" in line


@pytest.mark.parametrize("what", ["push", "show"])
@pytest.mark.parametrize(
    "nowhere",
    [
        {"redis.url": f"redis://{NOWHERE}/0"},
        {"input.kind": "kafka", "input.topic": "inventory.movements", "kafka.bootstrap_servers": NOWHERE},
    ],
)
def test_a_server_out_of_reach_is_told_in_one_line(
    folder: Path, settings: dict[str, str], nowhere: dict[str, str], what: str
) -> None:
    """With its address, after seconds."""
    assert NOWHERE in assert_failed_in_one_line(onhand("rules", what, cwd=folder, settings=settings | nowhere), 1)


def test_a_topic_that_is_missing_is_told_before_anything_is_claimed(folder: Path, movements: dict[str, str]) -> None:
    """`onhand topics create` makes it; the number stays free."""
    missing = movements | {"input.topic": "no-such-movements"}
    line = assert_failed_in_one_line(onhand("rules", "push", cwd=folder, settings=missing), 1)
    assert "onhand topics create" in line
    kafka = movements["kafka.bootstrap_servers"]
    assert list(KafkaRuleLog(kafka, "no-such-movements", {}).generations()) == []
