"""`onhand rebuild redis`: Redis as it was, from the topic alone, whatever comes in between."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer
from redis import Redis

from bench.drain import Raw
from bench.generate import LoadConfig
from bench.servers import KafkaBroker
from cli import rebuild
from schemas.outputs import Availability, ChannelAvailability
from schemas.topics import MOVEMENTS
from tests.cli.command import (
    NOWHERE,
    ONHAND,
    assert_failed_in_one_line,
    environment,
    onhand,
    wait_until,
)
from tests.cli.filled import Servers, fill, generated, hashes_of, publish, running, servers_with_topics

MANY = 60_000
INCARNATION = 1_795_000_000

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def filled() -> Iterator[Servers]:
    """A system that a run has filled and left."""
    with servers_with_topics() as servers:
        fill(servers, generated())
        yield servers


@pytest.fixture(scope="module")
def large() -> Iterator[Servers]:
    """A topic with so many SKUs that a rebuild takes a while, and no flow."""
    with servers_with_topics() as servers:
        publish(servers, (availability(f"SKU-{number:06}", number) for number in range(MANY)))
        yield servers


def availability(sku: str, version: int, incarnation: int = INCARNATION, promised: int = 3) -> Availability:
    """A record as a flow writes it."""
    channels = {"web": ChannelAvailability(promised, promised, "in_stock")}
    return Availability(sku, incarnation, version, "2026-11-21T09:00:00.123Z", 1, channels, {})


def rebuilt(servers: Servers, folder: Path) -> dict[str, int]:
    """What a rebuild that ends well says of itself."""
    done = onhand("rebuild", "redis", "--json", cwd=folder, settings=servers.settings)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def counts(summary: dict[str, int]) -> tuple[int, int, int]:
    """Records written, refused, and left out."""
    return summary["written"], summary["refused"], summary["older"]


@contextmanager
def rebuilding(servers: Servers, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A rebuild as a process, from the moment at which it has written something."""
    process = subprocess.Popen(
        [ONHAND, "rebuild", "redis", "--json"],
        cwd=folder,
        env=environment(servers.settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with servers.client() as client:
            wait_until(lambda: has_written(client))
        yield process
    finally:
        process.kill()
        process.communicate()


def has_written(client: Redis) -> bool:
    """Whether a rebuild that is under way has kept that it has written something."""
    done = client.hget("avail:@rebuild", "done")
    return done is not None and json.loads(done)["refilled"]["written"] > 0


def test_help_ends_with_examples(tmp_path: Path) -> None:
    """Whoever asks for help gets lines that can be copied."""
    shown = onhand("rebuild", "redis", "--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert all(f"  {example}\n" in shown.stdout for example in rebuild.EXAMPLES)
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_what_was_flushed_is_as_it_was(filled: Servers, tmp_path: Path) -> None:
    """Every hash equals the one from before, and a second time nothing is newer."""
    with filled.client() as client:
        before = hashes_of(client)
        client.flushall()
        first = rebuilt(filled, tmp_path)
        assert hashes_of(client) == before
        second = rebuilt(filled, tmp_path)
        assert hashes_of(client) == before
        assert client.exists("avail:@rebuild") == 0
    assert len(before) > 500
    assert first["written"] >= len(before)
    assert counts(second) == (0, first["written"] + first["refused"], 0)


def test_a_channel_sees_that_what_was_refilled_has_no_age(filled: Servers, tmp_path: Path) -> None:
    """Redis knows which state wrote the numbers, so that a new one draws a greater; that they are fresh nobody says."""
    with filled.client() as client:
        client.flushall()
        incarnation = rebuilt(filled, tmp_path)["incarnation"]
        assert client.hgetall("avail:@health") == {b"incarnation": str(incarnation).encode()}
        assert {fields[b"@incarnation"] for fields in hashes_of(client).values()} == {str(incarnation).encode()}


def test_only_the_newest_state_is_written(tmp_path: Path) -> None:
    """A SKU that only an older state knew does not come back; of several records the newest version counts."""
    with servers_with_topics() as servers:
        records = [
            availability("GONE", 900, incarnation=INCARNATION - 1),
            availability("KEPT", 900, incarnation=INCARNATION - 1, promised=1),
            availability("KEPT", 8, promised=8),
            availability("KEPT", 7, promised=7),
        ]
        publish(servers, [*records, ("TAKEN-BACK", None)])
        done = onhand("rebuild", "redis", cwd=tmp_path, settings=servers.settings)
        assert done.returncode == 0, done.stderr
        assert "1 SKUs written, 0 refused" in done.stdout
        assert f"2 records left out: states before {INCARNATION} wrote them" in done.stdout
        with servers.client() as client:
            assert {key: fields[b"web"] for key, fields in hashes_of(client).items()} == {b"avail:KEPT": b"8"}


def test_one_that_was_killed_goes_on_where_it_was(large: Servers, tmp_path: Path) -> None:
    """What was written before is not written again, and in the end everything is there."""
    with large.client() as client:
        client.flushall()
        with rebuilding(large, tmp_path) as process:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        kept = json.loads(client.hget("avail:@rebuild", "done") or "{}")["refilled"]["records"]
        written = hashes_of(client)
        assert 0 < kept <= len(written) < MANY
        first_written = min(written)  # published in the order of their names
        client.delete(first_written)  # it would be there again if all were read again

        done = onhand("rebuild", "redis", "--json", cwd=tmp_path, settings=large.settings)

        assert done.returncode == 0, done.stderr
        assert f"going on behind the {kept} records" in done.stderr
        assert json.loads(done.stdout)["records"] == MANY
        assert len(hashes_of(client)) == MANY - 1
        assert client.exists(first_written, "avail:@rebuild") == 0


def test_one_that_lost_what_it_had_written_begins_again(large: Servers, tmp_path: Path) -> None:
    """FLUSHALL in the middle leaves no gap."""
    with large.client() as client:
        client.flushall()
        with rebuilding(large, tmp_path) as process:
            client.flushall()
            out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "beginning again" in err
        assert json.loads(out)["records"] == MANY
        assert len(hashes_of(client)) == MANY


def test_what_was_kept_of_another_log_is_not_gone_on_with(filled: Servers, tmp_path: Path) -> None:
    """A topic that was made anew, and what nobody can read, is read from its beginning."""
    done = {"cluster": "another", "topic": "one", "refilled": {"incarnation": 9_999_999_999}}
    for kept in (json.dumps(done), "not ours"):
        with filled.client() as client:
            client.flushall()
            client.hset("avail:@rebuild", mapping={"run": "before", "done": kept})
            rebuilt(filled, tmp_path)
            assert len(hashes_of(client)) > 500


def test_of_two_the_later_one_goes_on(large: Servers, tmp_path: Path) -> None:
    """The first says so and ends with 1."""
    with large.client() as client:
        client.flushall()
        with rebuilding(large, tmp_path) as process:
            client.hset("avail:@rebuild", "run", "the other")
            _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "another `onhand rebuild redis` has taken over" in err


def test_beside_a_flow_no_reader_sees_a_step_back(tmp_path: Path) -> None:
    """While stock moves and rebuilds write what the topic holds, no SKU shows an older version, nor none."""
    messages = generated(3, LoadConfig(movements=40_000, skus=200, partitions=4, end_markers=False))
    ended = threading.Event()
    with servers_with_topics() as servers:
        produce_some(servers, messages[:3000])
        with running(servers) as process, servers.client() as client:
            watch = Watch(servers, sorted(hashes_of(client)))
            load = threading.Thread(target=produce_some, args=(servers, messages[3000:], 1000, ended))
            with watch:
                load.start()
                summaries = [rebuilt(servers, tmp_path) for _ in range(3)]
                assert load.is_alive()
                ended.set()
                load.join()
            process.drain()
    assert watch.looks > 100
    assert watch.moves > 100
    assert watch.steps_back == []
    assert sum(summary["refused"] for summary in summaries) > 100


def produce_some(
    servers: Servers, messages: list[Raw], rate: int | None = None, ended: threading.Event | None = None
) -> None:
    """Writes movements, at most so many a second, to their end or until that is told."""
    producer = Producer({"bootstrap.servers": servers.kafka, "linger.ms": 5})
    for number, (partition, key, payload) in enumerate(messages):
        if rate and number % 50 == 0:
            time.sleep(50 / rate)
        if ended is not None and ended.is_set():
            break
        producer.produce(MOVEMENTS.name, payload, key or None, partition)
        producer.poll(0)
    assert producer.flush(30) == 0


class Watch:
    """A reader that looks at SKUs again and again, and notes which went back."""

    def __init__(self, servers: Servers, keys: list[bytes]) -> None:
        self.looks = 0
        self.moves = 0
        self.steps_back: list[tuple[bytes, object, object]] = []
        self._servers = servers
        self._seen: dict[bytes, tuple[int, ...]] = dict.fromkeys(keys, ())
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with self._servers.client() as client:
            while not self._stopping.is_set():
                self.looks += 1
                with client.pipeline(transaction=False) as pipeline:
                    for key in self._seen:
                        pipeline.hmget(key, "@incarnation", "@version")
                    answers = pipeline.execute()
                for key, answer in zip(list(self._seen), answers, strict=True):
                    self._note(key, tuple(int(text) for text in answer if text is not None))

    def _note(self, key: bytes, now: tuple[int, ...]) -> None:
        if now < self._seen[key]:
            self.steps_back.append((key, self._seen[key], now))
        self.moves += now > self._seen[key] and self._seen[key] != ()
        self._seen[key] = now


def test_a_record_that_cannot_be_read_is_told_and_the_others_are_written(tmp_path: Path) -> None:
    """Exit code 1 with the first one's place; nothing is left over to go on with."""
    with servers_with_topics() as servers:
        publish(servers, [availability("GOOD", 5), ("BAD", b"{not json"), ("OTHER", msgspec.json.encode({"a": 1}))])
        done = onhand("rebuild", "redis", cwd=tmp_path, settings=servers.settings)
        line = assert_failed_in_one_line(done, 1)
        assert "2 records cannot be read, the first is inventory.availability/" in line
        with servers.client() as client:
            assert list(hashes_of(client)) == [b"avail:GOOD"]
            assert client.exists("avail:@rebuild") == 0


def test_an_empty_topic_rebuilds_nothing(tmp_path: Path) -> None:
    """Exit code 1, since that is not what anybody wants."""
    with servers_with_topics() as servers:
        done = onhand("rebuild", "redis", cwd=tmp_path, settings=servers.settings)
    assert "inventory.availability holds nothing" in assert_failed_in_one_line(done, 1)


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ({"kafka.bootstrap_servers": NOWHERE}, 1, "Kafka at 127.0.0.1:9 does not answer"),
        ({"redis.url": f"redis://{NOWHERE}/0"}, 1, "Redis at redis://127.0.0.1:9/0 does not answer"),
        ({"redis.url": "embedded"}, 1, "the embedded Redis is there while `onhand run availability` runs"),
        ({"output.kind": "none"}, 2, 'output.kind is "none", so there is no topic'),
        ({"output.kind": "jsonl"}, 2, 'output.kind is "jsonl", so there is no topic'),
    ],
)
def test_what_is_missing_is_told_in_one_line(
    settings: dict[str, str], code: int, said: str, filled: Servers, tmp_path: Path
) -> None:
    """Whose fault it is, and what to do."""
    done = onhand("rebuild", "redis", cwd=tmp_path, settings=filled.settings | settings)
    assert said in assert_failed_in_one_line(done, code)


def test_without_the_topic_the_line_says_how_it_is_made(filled: Servers, tmp_path: Path) -> None:
    """A broker that has no topics yet."""
    with KafkaBroker() as empty:
        settings = filled.settings | {"kafka.bootstrap_servers": empty.bootstrap_servers}
        done = onhand("rebuild", "redis", cwd=tmp_path, settings=settings)
    line = assert_failed_in_one_line(done, 1)
    assert "there is no topic inventory.availability" in line
    assert "`onhand topics create`" in line
