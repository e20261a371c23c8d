"""Healing: what a flow under load takes to be right again after a fault, and what memory it needs all the while."""

import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from random import Random
from types import TracebackType
from typing import Final, Literal, NamedTuple, Self, get_args

import msgspec
import psutil
from confluent_kafka import Producer
from redis import Redis
from redis.exceptions import RedisError

from bench.drain import MEBIBYTE, BenchError, Raw, Running, create_topics, onhand_running, produce, versions, wait_until
from bench.generate import RULES_PATH, LoadConfig, movements
from bench.provenance import Provenance, now_text, provenance
from bench.servers import KafkaBroker, RedisServer
from schemas.topics import MOVEMENTS
from sinks.redis_keys import Health, read_health

PREFIX: Final = "avail:"
PARTITIONS: Final = 8
HEAL_SECONDS_MAX: Final = 300.0
FRESH_SECONDS: Final = 1.0  # a flow that is no further behind has caught up
SLICE_SECONDS: Final = 0.01
MEMORY_EVERY_SECONDS: Final = 1.0
AWAY_SECONDS: Final = 60.0

Fault = Literal["kill", "flush", "redis-away", "backlog", "nothing"]
FAULTS: Final[dict[str, Fault]] = {name: name for name in get_args(Fault)}


class HealingRun(msgspec.Struct):
    """One fault, as one JSON line; memory is that of the supervisor and its workers together, in MiB.

    The first is that at the fault, or when a quarter of a backlog is read; the others are of the time since.
    """

    fault: Fault
    movements_per_second: int  # sent, without a look at how they are taken; of a backlog: read
    snapshot_seconds: float
    skus: int
    seconds: float  # until right again, or a backlog is read
    lag_seconds_max: float
    memory_mib_first: int
    memory_mib_median: int
    memory_mib_max: int
    versions: dict[str, str]
    started_at: str
    provenance: Provenance


class HealingConfig(NamedTuple):
    """How hard a flow is worked; `settle_seconds` is how long it runs before the fault."""

    rate: int = 10_000
    skus: int = 20_000
    snapshot_seconds: float = 10.0
    settle_seconds: float = 10.0
    backlog: int = 5_000_000


def healing(config: HealingConfig, fault: Fault, seed: int, runs: int) -> Iterator[HealingRun]:
    """Measures `runs` faults of one kind, each on servers of its own."""
    for number in range(runs):
        started_at = now_text()
        with ExitStack() as stack:
            kafka = stack.enter_context(KafkaBroker())
            redis = stack.enter_context(RedisServer({"appendonly": "no"}))
            create_topics(kafka.bootstrap_servers, PARTITIONS)
            bench = _Bench(config, kafka.bootstrap_servers, redis, Random(seed + number), stack)
            seconds, rate = bench.backlog() if fault == "backlog" else (bench.heal(fault), config.rate)
            yield bench.result(fault, seconds, rate, started_at)


class _Bench:
    """One run: the load, the flow, and whoever looks at both."""

    def __init__(self, config: HealingConfig, kafka: str, redis: RedisServer, random: Random, stack: ExitStack) -> None:
        self._config = config
        self._kafka = kafka
        self._redis = redis
        self._random = random
        self._stack = stack
        self._client = stack.enter_context(Redis.from_url(redis.url, socket_timeout=5.0))
        self._memory: list[int] = []
        self._struck: int | None = None  # how much of `_memory` is of the time before the fault
        self._lag_max = 0.0

    def heal(self, fault: Fault) -> float:
        """Seconds from the fault, or its end, until the flow is right again."""
        opening = list(movements(self._load(0), self._random))
        produce(self._kafka, opening)
        running = self._running()
        self._until(lambda: self._skus() >= self._config.skus and self._is_fresh(0), running, "opening stock read")
        with _Sending(self._kafka, self._load(1 << 40), self._random, self._config.rate):
            self._rest(self._config.settle_seconds, running)
            self._struck = len(self._memory) - 1
            since_ms = self._strike(fault, running)
            begun = time.monotonic()
            self._until(lambda: self._is_right(fault, since_ms), running, f"right again after {fault}")
            seconds = time.monotonic() - begun
        running.drain()
        return seconds

    def backlog(self) -> tuple[float, int]:
        """Seconds in which a backlog is read, and how many movements of it in a second."""
        count = 0
        for piece in pieces(movements(self._load(self._config.backlog), self._random), 100_000):
            produce(self._kafka, piece)
            count += len(piece)
        running = self._running()
        begun, since_ms = time.monotonic(), now_ms()
        self._until(lambda: self._is_fresh(since_ms), running, "the backlog read", 3600.0)
        seconds = time.monotonic() - begun
        running.drain()
        return seconds, round(count / seconds)

    def result(self, fault: Fault, seconds: float, rate: int, started_at: str) -> HealingRun:
        """The run as one line."""
        since = len(self._memory) // 4 if self._struck is None else self._struck
        settled = self._memory[max(0, since) :] or [0]
        return HealingRun(
            fault=fault,
            movements_per_second=rate,
            snapshot_seconds=self._config.snapshot_seconds,
            skus=self._config.skus,
            seconds=round(seconds, 2),
            lag_seconds_max=round(self._lag_max, 2),
            memory_mib_first=settled[0],
            memory_mib_median=round(statistics.median(settled)),
            memory_mib_max=max(settled),
            versions=versions(),
            started_at=started_at,
            provenance=provenance({name: str(value) for name, value in self._config._asdict().items()}),
        )

    def _load(self, count: int) -> LoadConfig:
        """`count` movements after the opening stock; days of the stream pass, so that ids are forgotten."""
        config = self._config
        opening = config.skus * 4
        return LoadConfig(
            movements=opening + count if count < 1 << 40 else count,
            skus=config.skus,
            partitions=PARTITIONS,
            end_markers=False,
            movements_per_second=max(1, config.skus // 10_000),
        )

    def _running(self) -> Running:
        more = {
            "ONHAND_STATE__SNAPSHOT_SECONDS": str(self._config.snapshot_seconds),
            "ONHAND_METRICS__LISTEN": "",
        }
        return self._stack.enter_context(onhand_running(self._kafka, self._redis.url, "healing", RULES_PATH, more))

    def _strike(self, fault: Fault, running: Running) -> int:
        """Lets the fault happen; from when on (wall clock, ms) healing counts."""
        if fault == "kill":
            worker = psutil.Process(running.process.pid).children()[0]
            os.kill(worker.pid, signal.SIGKILL)
        elif fault == "flush":
            self._client.flushall()
        elif fault == "nothing":
            self._rest(AWAY_SECONDS, running)
        else:
            self._redis.freeze()
            self._rest(AWAY_SECONDS, running)
            self._redis.thaw()
        return now_ms()

    def _is_right(self, fault: Fault, since_ms: int) -> bool:
        """After a flush every SKU is there again; after the others nothing is behind."""
        return self._skus() >= self._config.skus if fault == "flush" else self._is_fresh(since_ms)

    def _is_fresh(self, since_ms: int) -> bool:
        """Whether what was sent before `since_ms` is readable, and the flow keeps up."""
        try:
            health = read_health(self._client, PREFIX)
        except RedisError:
            return False
        if health is None or health.lag_seconds is None:
            return False
        self._lag_max = max(self._lag_max, health.lag_seconds)
        return is_fresh(health, since_ms)

    def _skus(self) -> int:
        try:
            return int(self._client.dbsize())
        except RedisError:
            return 0

    def _until(
        self, true: Callable[[], bool], running: Running, what: str, seconds_max: float = HEAL_SECONDS_MAX
    ) -> None:
        looked = 0.0

        def look() -> bool:
            nonlocal looked
            running.check_alive()
            if time.monotonic() - looked > MEMORY_EVERY_SECONDS:
                looked = time.monotonic()
                self._memory.append(_memory_mib(running.process.pid))
            time.sleep(0.02)
            return true()

        wait_until(look, seconds_max, what)

    def _rest(self, seconds: float, running: Running) -> None:
        end = time.monotonic() + seconds
        self._until(lambda: time.monotonic() > end, running, "a rest", seconds + 10)


class _Sending:
    """Sends movements at a rate, whatever becomes of them, in a thread of its own."""

    def __init__(self, kafka: str, load: LoadConfig, random: Random, rate: int) -> None:
        self._messages = movements(load, random)
        self._skip = load.skus * load.locations  # opening stock, sent before
        self._rate = rate
        self._producer = Producer({"bootstrap.servers": kafka, "linger.ms": 5, "queue.buffering.max.messages": 200_000})
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(30)
        if self._producer.flush(30):
            raise BenchError("Kafka did not take the load")

    def _run(self) -> None:
        for _ in range(self._skip):
            next(self._messages)
        begun, sent = time.monotonic(), 0
        while not self._stopping.wait(SLICE_SECONDS):
            due = int((time.monotonic() - begun) * self._rate)
            for _ in range(due - sent):
                partition, key, payload = next(self._messages)
                self._producer.produce(MOVEMENTS.name, payload, key, partition)
            sent = due
            self._producer.poll(0)


def is_fresh(health: Health | None, since_ms: int) -> bool:
    """Whether what was sent before `since_ms` (wall clock) is readable, and the flow keeps up."""
    if health is None or health.lag_seconds is None:
        return False
    return health.lag_seconds < FRESH_SECONDS and health.watermark_ms >= since_ms


def wait_until_fresh(redis_url: str, running: Running) -> None:
    """Returns when everything sent until now can be read."""
    since_ms = now_ms()

    def fresh() -> bool:
        running.check_alive()
        return is_fresh(read_health(client, PREFIX), since_ms)

    with Redis.from_url(redis_url) as client:
        wait_until(fresh, HEAL_SECONDS_MAX, "the opening stock in Redis")


def now_ms() -> int:
    """The wall clock, as the health in Redis goes by."""
    return time.time_ns() // 1_000_000


def pieces(messages: Iterator[Raw], size: int) -> Iterator[list[Raw]]:
    """All messages, `size` at a time."""
    piece: list[Raw] = []
    for message in messages:
        piece.append(message)
        if len(piece) == size:
            yield piece
            piece = []
    if piece:
        yield piece


def _memory_mib(pid: int) -> int:
    """Resident memory of the command and its workers; one that ends meanwhile counts nothing."""
    total = 0
    try:
        supervisor = psutil.Process(pid)
        for process in (supervisor, *supervisor.children()):
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        return total // MEBIBYTE
    return total // MEBIBYTE
