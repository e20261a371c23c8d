"""Drain: a backlog in Kafka through `onhand run availability` to Redis, timed and checked by the oracle."""

import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
import psutil
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from redis import Redis

from bench.generate import RULES_PATH, LoadConfig, benchmark_rules, end_markers, movements
from bench.oracle import Oracle, fold
from bench.provenance import Provenance, now_text, provenance
from bench.servers import KafkaBroker, RedisServer
from schemas.batches import Batch, Origin
from schemas.outputs import Threshold
from schemas.topics import DEAD_LETTERS, MOVEMENTS, ONE_PARTITION, THRESHOLDS, TOPICS, Topic
from sinks.tether import tethered

DRAIN_SECONDS_MAX: Final = 1800.0
STOP_SECONDS_MAX: Final = 60.0
READ_SECONDS_MAX: Final = 60.0
PRODUCER_QUEUE_MESSAGES: Final = 200_000
LINGER_MS: Final = 20
HOUR_MS: Final = 3_600_000
MEBIBYTE: Final = 1 << 20
REDIS_OPTIONS: Final = {"maxmemory-policy": "noeviction"}  # and an append-only file

Raw = tuple[int, bytes, bytes]  # partition, key, payload


class BenchError(RuntimeError):
    """A run that gives no figure: what went wrong, and where to look."""


class DrainRun(msgspec.Struct):
    """One run, as one JSON line."""

    engine: str
    dataset: str
    movements: int
    movements_per_second: int
    cpu_seconds_per_million: float
    memory_mib_max: int
    wrong_skus: int
    missing_crossings: int
    extra_crossings: int
    dead_letters: int
    processes: int
    versions: dict[str, str]
    started_at: str
    provenance: Provenance

    @property
    def differs(self) -> bool:
        """Whether anything is not as the oracle has it."""
        return bool(self.wrong_skus or self.missing_crossings or self.extra_crossings or self.dead_letters)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left in Redis and Kafka."""

    channels: dict[str, dict[str, int]]
    crossings: list[Threshold]
    dead_letters: int


@dataclass(frozen=True, slots=True)
class Running:
    """A process of an engine, and the file that it writes its log to."""

    process: subprocess.Popen[bytes]
    log: Path
    name: str = "onhand"

    def check_alive(self) -> None:
        """Raises BenchError with the end of its log where it has ended."""
        if self.process.poll() is not None:
            raise BenchError(f"{self.name} ended with exit code {self.process.returncode}: {self.log_tail()}")

    def log_tail(self) -> str:
        """The last of what it said."""
        return self.log.read_text(errors="replace")[-2000:]

    def drain(self) -> None:
        """Ends it as a user would; raises BenchError where it does not end well."""
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(STOP_SECONDS_MAX) != 0:
            raise BenchError(f"{self.name} ended with exit code {self.process.returncode}: {self.log_tail()}")


@dataclass(frozen=True, slots=True)
class Timing:
    """What a run took, first key in Redis to last end marker."""

    seconds: float
    cpu_seconds: float
    memory_bytes_max: int

    @property
    def memory_mib_max(self) -> int:
        """Of all its processes together, in MiB."""
        return self.memory_bytes_max // MEBIBYTE

    def per_second(self, movements: int) -> int:
        """How many of so many movements went through in a second."""
        return round(movements / self.seconds)

    def cpu_seconds_per_million(self, movements: int) -> float:
        """What a million of them would have taken at that."""
        return round(self.cpu_seconds * 1_000_000 / movements, 2)


def drain(config: LoadConfig, seed: int, runs: int) -> Iterator[DrainRun]:
    """Measures `runs` drains of the same backlog, each with a fresh group, fresh topics out and an empty Redis."""
    messages = list(movements(config, Random(seed)))  # repeatable on purpose
    expected = expectation(messages)
    with ExitStack() as stack:
        kafka = stack.enter_context(KafkaBroker())
        redis_server = stack.enter_context(RedisServer(REDIS_OPTIONS))
        create_topics(kafka.bootstrap_servers, config.partitions)
        produce(kafka.bootstrap_servers, messages)
        for number in range(runs):
            started_at = now_text()
            renew_outputs(kafka.bootstrap_servers, redis_server.url, config.partitions)
            ends = [key.decode() for _, key, _ in end_markers(config)]
            timing = run_onhand(kafka.bootstrap_servers, redis_server.url, ends, f"drain-{number}")
            outcome = read_outcome(kafka.bootstrap_servers, redis_server.url)
            told = provenance(settings_of(config, seed))
            yield judge(config.dataset, len(messages), timing, outcome, expected, started_at, told)


def settings_of(config: LoadConfig, seed: int) -> dict[str, str]:
    """What makes the same movements again."""
    named = {
        "movements": config.movements,
        "skus": config.skus,
        "zipf": config.zipf_exponent,
        "hot_share": config.hot_share,
        "seed": seed,
    }
    return {name: str(value) for name, value in named.items()}


def expectation(messages: Sequence[Raw]) -> Oracle:
    """What the oracle makes of the messages, partition by partition."""
    return fold(as_batches(messages), benchmark_rules(), dedupe_ms=72 * HOUR_MS)


def as_batches(messages: Sequence[Raw]) -> Iterator[Batch]:
    """The messages as a log of each partition, one batch each."""
    logs: dict[int, tuple[list[bytes | None], list[bytes | None]]] = {}
    for partition, key, payload in messages:
        keys, payloads = logs.setdefault(partition, ([], []))
        keys.append(key or None)
        payloads.append(payload)
    for partition, (keys, payloads) in sorted(logs.items()):
        origin = Origin("bench", "bench", partition, MOVEMENTS.name)
        yield Batch(origin, list(range(len(keys))), [-1] * len(keys), keys, payloads)


def create_topics(bootstrap_servers: str, partitions: int) -> None:
    """Every topic, with the settings that onhand gives it."""
    _create(AdminClient({"bootstrap.servers": bootstrap_servers}), TOPICS, partitions)


def _create(admin: AdminClient, topics: Iterable[Topic[Any, Any]], partitions: int) -> None:
    wanted = [
        NewTopic(
            topic.name,
            num_partitions=1 if topic in ONE_PARTITION else partitions,
            replication_factor=1,
            config=dict(topic.config),
        )
        for topic in topics
    ]
    for made in admin.create_topics(wanted).values():
        made.result(READ_SECONDS_MAX)


def renew_outputs(bootstrap_servers: str, redis_url: str, partitions: int) -> None:
    """Empties Redis and makes the topics out anew, whatever they are, so that each run starts from nothing."""
    with Redis.from_url(redis_url) as client:
        client.flushall()
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    outputs = [topic for topic in TOPICS if topic is not MOVEMENTS]
    found = admin.list_topics(timeout=10).topics
    names = {name for name in found if name != MOVEMENTS.name and not name.startswith("__")}
    for deleted in admin.delete_topics(list(names)).values():
        deleted.result(READ_SECONDS_MAX)
    wait_until(lambda: not names & set(admin.list_topics(timeout=10).topics), READ_SECONDS_MAX, "old topics to go")
    _create(admin, outputs, partitions)


def producer_settings(bootstrap_servers: str, linger_ms: int, queue_messages_max: int) -> dict[str, Any]:
    """Of a producer that loses nothing and says nothing."""
    return {
        "bootstrap.servers": bootstrap_servers,
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": linger_ms,
        "log_level": 2,
        "queue.buffering.max.messages": queue_messages_max,
    }


def produce(bootstrap_servers: str, messages: Sequence[Raw]) -> None:
    """Writes the backlog, each message to the partition it names; raises BenchError where one was not taken."""
    producer = Producer(producer_settings(bootstrap_servers, LINGER_MS, PRODUCER_QUEUE_MESSAGES))
    failures: list[str] = []

    def delivered(error: object, _message: Message) -> None:
        if error is not None:
            failures.append(str(error))

    for partition, key, payload in messages:
        while len(producer) >= PRODUCER_QUEUE_MESSAGES - 1:
            producer.poll(0.05)
        producer.produce(MOVEMENTS.name, payload, key or None, partition, on_delivery=delivered)
        producer.poll(0)
    if producer.flush(READ_SECONDS_MAX) or failures:
        raise BenchError(f"Kafka did not take the backlog: {failures[:1]}")


@contextmanager
def onhand_running(
    bootstrap_servers: str,
    redis_url: str,
    group: str,
    rules: Path,
    more: Mapping[str, str] | None = None,
    workers: int = 1,
) -> Iterator[Running]:
    """`onhand run availability` as a process of its own, with its log in a file; ended on the way out.

    `more` are further settings as environment variables.
    """
    with tempfile.TemporaryDirectory(prefix="onhand-drain-") as directory:
        settings = {
            "ONHAND_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
            "ONHAND_KAFKA__GROUP": group,
            "ONHAND_REDIS__URL": redis_url,
            "ONHAND_RULES__PATH": str(rules),
            "ONHAND_STATE__PATH": str(Path(directory, "state")),
            **(more or {}),
        }
        command = [str(Path(sys.executable).with_name("onhand")), "run", "availability", "--workers", str(workers)]
        with program_running("onhand", command, settings, Path(directory)) as running:
            yield running


@contextmanager
def program_running(
    name: str, command: Sequence[str], settings: Mapping[str, str], directory: Path
) -> Iterator[Running]:
    """A program as a process of its own in `directory`, with its log in a file there; ended on the way out.

    `settings` are set on top of this process's environment variables.
    """
    log = directory / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            tethered(list(command)), cwd=directory, env=os.environ | settings, stdout=output, stderr=output
        )
    try:
        yield Running(process, log, name)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def run_onhand(bootstrap_servers: str, redis_url: str, ends: list[str], group: str) -> Timing:
    """One drain of the real flow."""
    return timed(onhand_running(bootstrap_servers, redis_url, group, RULES_PATH), redis_url, ends)


def timed(
    program: AbstractContextManager[Running],
    redis_url: str,
    ends: list[str],
    before_it_ends: Callable[[], None] = lambda: None,
) -> Timing:
    """One drain by a program that is started here, from the first key in Redis to the last end marker."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with Redis.from_url(redis_url) as client, program as running:
        wait_until(lambda: _begun(client, running), DRAIN_SECONDS_MAX, "the first key in Redis")
        began = time.perf_counter()
        wait_until(lambda: _ended(client, running, ends), DRAIN_SECONDS_MAX, "the last end marker in Redis")
        seconds = time.perf_counter() - began
        before_it_ends()
        memory_bytes = _peak_memory_bytes(running.process.pid)
        running.drain()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timing(seconds, cpu_seconds, memory_bytes)


def wait_until(condition: Callable[[], bool], seconds_max: float, what: str) -> None:
    """Polls `condition` each 5 ms; raises BenchError when `seconds_max` have passed."""
    deadline = time.monotonic() + seconds_max
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {seconds_max:.0f} s")
        time.sleep(0.005)


def _begun(client: Redis, running: Running) -> bool:
    running.check_alive()
    return int(client.dbsize()) > 0


def _ended(client: Redis, running: Running, ends: list[str]) -> bool:
    running.check_alive()
    return int(client.exists(*[f"avail:{sku}" for sku in ends])) == len(ends)


def _peak_memory_bytes(pid: int) -> int:
    """Of the command and its workers together."""
    family = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return sum(map(_peak_bytes, family))


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def read_outcome(bootstrap_servers: str, redis_url: str) -> Outcome:
    """Everything that a run left behind."""
    channels = read_numbers(redis_url)
    crossings = [THRESHOLDS.decode(value) for value in read_topic(bootstrap_servers, THRESHOLDS.name)]
    dead_letters = sum(1 for _ in read_topic(bootstrap_servers, DEAD_LETTERS.name))
    return Outcome(channels, crossings, dead_letters)


def read_numbers(redis_url: str) -> dict[str, dict[str, int]]:
    """The hash of each SKU in Redis, without the incarnation of the state."""
    with Redis.from_url(redis_url, decode_responses=True) as client:
        return dict(_channels(client))


def _channels(client: Redis) -> Iterator[tuple[str, dict[str, int]]]:
    keys = [key for key in client.scan_iter("avail:*", count=5000) if not key.startswith("avail:@")]
    for start in range(0, len(keys), 1000):
        with client.pipeline(transaction=False) as pipeline:
            for key in keys[start : start + 1000]:
                pipeline.hgetall(key)
            for key, fields in zip(keys[start : start + 1000], pipeline.execute(), strict=True):
                found = {name: int(value) for name, value in fields.items() if name != "@incarnation"}
                yield key.removeprefix("avail:"), found


def read_topic(bootstrap_servers: str, name: str) -> Iterator[bytes]:
    """All values of a topic, partition by partition; raises BenchError where they do not come."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": "drain-check", "enable.auto.commit": False}
    )
    try:
        for partition in consumer.list_topics(name, timeout=10).topics[name].partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=10)
            consumer.assign([TopicPartition(name, partition, low)])
            yield from _read_partition(consumer, low, high)
    finally:
        consumer.close()


def records_in(bootstrap_servers: str, name: str) -> int:
    """How many records a topic has."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "drain-check", "log_level": 2})
    try:
        partitions = consumer.list_topics(name, timeout=10).topics[name].partitions
        marks = [consumer.get_watermark_offsets(TopicPartition(name, place), timeout=10) for place in partitions]
        return sum(high - low for low, high in marks)
    finally:
        consumer.close()


def _read_partition(consumer: Consumer, low: int, high: int) -> Iterator[bytes]:
    position, deadline = low, time.monotonic() + READ_SECONDS_MAX
    while position < high:
        for message in consumer.consume(10_000, 0.5):
            if message.error():
                raise BenchError(str(message.error()))
            position = int(message.offset() or 0) + 1
            yield message.value() or b""
        if time.monotonic() > deadline:
            raise BenchError(f"read up to {position} of {high} within {READ_SECONDS_MAX:.0f} s")


def judge(  # what a run was, took and left
    dataset: str,
    count: int,
    timing: Timing,
    outcome: Outcome,
    expected: Oracle,
    started_at: str,
    told: Provenance,
) -> DrainRun:
    """The run's figures, and every difference from the oracle counted."""
    wanted = {sku: _without_incarnation(fields) for sku, fields in expected.redis(incarnation=0).items()}
    wrong = sum(1 for sku in wanted.keys() | outcome.channels.keys() if wanted.get(sku) != outcome.channels.get(sku))
    wanted_ids = {crossing.id: crossing for crossing in expected.crossings}
    found_ids = {crossing.id: crossing for crossing in outcome.crossings}
    missing = sum(1 for id_, crossing in wanted_ids.items() if found_ids.get(id_) != crossing)
    return DrainRun(
        engine="onhand",
        dataset=dataset,
        movements=count,
        movements_per_second=timing.per_second(count),
        cpu_seconds_per_million=timing.cpu_seconds_per_million(count),
        memory_mib_max=timing.memory_mib_max,
        wrong_skus=wrong,
        missing_crossings=missing,
        extra_crossings=len(found_ids.keys() - wanted_ids.keys()),
        dead_letters=outcome.dead_letters,
        processes=1,
        versions=versions(),
        started_at=started_at,
        provenance=told,
    )


def _without_incarnation(fields: dict[str, int]) -> dict[str, int]:
    return {name: value for name, value in fields.items() if name != "@incarnation"}


def versions() -> dict[str, str]:
    """Of everything that a figure depends on."""
    packages = ("onhand", "bytewax", "confluent-kafka", "msgspec", "numba", "numpy", "redis", "hiredis")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
