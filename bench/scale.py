"""Scale: the kernel in several processes at once; the drain with several workers, and what servers spend on it."""

import http.client
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Final, Literal, NamedTuple

import msgspec
import psutil
from redis import Redis

from bench.drain import (
    REDIS_OPTIONS,
    BenchError,
    DrainRun,
    Raw,
    Timing,
    as_batches,
    create_topics,
    expectation,
    judge,
    onhand_running,
    produce,
    read_outcome,
    renew_outputs,
    settings_of,
    timed,
    versions,
)
from bench.generate import RULES_PATH, LoadConfig, end_markers, movements
from bench.kernel import Kernel, cut, in_turn
from bench.oracle import Oracle
from bench.processes import Start, at_once
from bench.provenance import Provenance, now_text, provenance
from bench.servers import KafkaBroker, RedisServer, free_port
from operators.lane import warm_up
from schemas.topics import MOVEMENTS

SHARE_SECONDS_MAX: Final = 3600.0
METRICS_SECONDS_MAX: Final = 10.0
SETTLE_SECONDS: Final = 0.5
MILLION: Final = 1_000_000
WRITTEN: Final = "onhand_redis_skus_written_total"

Part = Literal["kernel", "drain"]
PARTS: Final[tuple[Part, ...]] = ("kernel", "drain")


class ScaledKernel(msgspec.Struct):
    """The kernel in so many processes at once, as one JSON line; the rate is that of all together, by wall clock."""

    part: Literal["kernel"]
    processes: int
    dataset: str
    movements: int
    movements_per_second: int
    cpu_seconds_per_million: float
    versions: dict[str, str]
    started_at: str
    provenance: Provenance


class ScaledDrain(msgspec.Struct):
    """A drain by so many workers, as one JSON line, and what a movement costs each part of it.

    Bytes of the broker are those of the movements read and of the records written, as they lie in its logs.
    """

    part: Literal["drain"]
    processes: int
    dataset: str
    movements: int
    movements_per_second: int
    cpu_seconds_per_million: float
    memory_mib_max: int
    redis_cpu_seconds_per_million_skus: float
    skus_written_per_movement: float
    redis_bytes_per_movement: float
    broker_cpu_seconds_per_million: float
    broker_bytes_per_movement: float
    wrong_skus: int
    missing_crossings: int
    extra_crossings: int
    dead_letters: int
    versions: dict[str, str]
    started_at: str
    provenance: Provenance

    @property
    def differs(self) -> bool:
        """Whether anything is not as the oracle has it."""
        return bool(self.wrong_skus or self.missing_crossings or self.extra_crossings or self.dead_letters)


class ScaleConfig(NamedTuple):
    """Which movements, in how many processes."""

    load: LoadConfig
    processes: Sequence[int] = (1, 2)
    seed: int = 1


class Share(NamedTuple):
    """What one of several processes did: from when to when (a clock that all share), and its CPU seconds."""

    movements: int
    began: float
    ended: float
    cpu_seconds: float


class Spent(NamedTuple):
    """What servers have spent since they began."""

    redis_cpu_seconds: float
    redis_bytes: int
    broker_cpu_seconds: float
    broker_bytes: int  # written into the logs

    def since(self, before: "Spent") -> "Spent":
        """The difference."""
        return Spent(*(late - early for late, early in zip(self, before, strict=True)))  # type: ignore[arg-type]  # as they are


def scale(config: ScaleConfig, parts: Iterable[Part], runs: int) -> Iterator[ScaledKernel | ScaledDrain]:
    """Measures each number of processes `runs` times, in turn."""
    if "kernel" in parts:
        for _ in range(runs):
            for processes in config.processes:
                yield scaled_kernel(config, processes)
    if "drain" in parts:
        yield from scaled_drains(config, runs)


def scaled_kernel(config: ScaleConfig, processes: int) -> ScaledKernel:
    """The same movements, by partition, in so many processes at once."""
    started_at = now_text()
    arguments = [(config.load, config.seed, processes, place) for place in range(processes)]
    shares = at_once(share, arguments, SHARE_SECONDS_MAX)
    count = sum(one.movements for one in shares)
    seconds = max(one.ended for one in shares) - min(one.began for one in shares)
    return ScaledKernel(
        part="kernel",
        processes=processes,
        dataset=config.load.dataset,
        movements=count,
        movements_per_second=round(count / seconds),
        cpu_seconds_per_million=round(sum(one.cpu_seconds for one in shares) * MILLION / count, 2),
        versions=versions(),
        started_at=started_at,
        provenance=provenance(settings_of(config.load, config.seed)),
    )


def share(start: Start, load: LoadConfig, seed: int, processes: int, place: int) -> Share:
    """Those partitions that are `place` modulo `processes`: generated, and once all processes are ready, applied."""
    own = [message for message in movements(load, Random(seed)) if message[0] % processes == place]
    batches = in_turn([list(cut(batch)) for batch in as_batches(own)])
    kernel = Kernel()
    warm_up()
    start()
    began = time.monotonic()
    cpu_seconds = kernel.apply(batches) + kernel.tell()
    return Share(len(own), began, time.monotonic(), cpu_seconds)


def scaled_drains(config: ScaleConfig, runs: int) -> Iterator[ScaledDrain]:
    """Drains of the same backlog with each number of workers in turn, on the same servers."""
    messages = list(movements(config.load, Random(config.seed)))
    expected = expectation(messages)
    with ExitStack() as stack:
        kafka = stack.enter_context(KafkaBroker())
        redis = stack.enter_context(RedisServer(REDIS_OPTIONS))
        create_topics(kafka.bootstrap_servers, config.load.partitions)
        produce(kafka.bootstrap_servers, messages)
        servers = _Servers(kafka, redis)
        for number in range(runs):
            for workers in config.processes:
                yield _scaled_drain(config, servers, messages, expected, workers, f"scale-{number}-{workers}")


class _Servers:
    """The broker and the Redis of all drains, and what they spend."""

    def __init__(self, kafka: KafkaBroker, redis: RedisServer) -> None:
        self.kafka = kafka
        self.redis = redis

    def spent(self) -> Spent:
        """Up to now."""
        with Redis.from_url(self.redis.url) as client:
            told = client.info("stats")
        redis_bytes = int(told["total_net_input_bytes"]) + int(told["total_net_output_bytes"])
        return Spent(_cpu_seconds(self.redis.pid), redis_bytes, _cpu_seconds(self.kafka.pid), self.log_bytes())

    def log_bytes(self, topic: str = "") -> int:
        """How long the logs are of all topics that are ours, or of one; what the broker is deleting counts nothing."""
        partitions = (self.kafka.directory / "data").glob(f"{topic or 'inventory.'}*")
        return sum(map(_log_bytes, partitions))


def _log_bytes(partition: Path) -> int:
    try:
        return sum(log.stat().st_size for log in partition.glob("*.log"))
    except FileNotFoundError:
        return 0


def _cpu_seconds(pid: int | None) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _scaled_drain(  # what is drained by how many, and what has to come out
    config: ScaleConfig, servers: _Servers, messages: Sequence[Raw], expected: Oracle, workers: int, group: str
) -> ScaledDrain:
    started_at = now_text()
    kafka, redis_url = servers.kafka.bootstrap_servers, servers.redis.url
    renew_outputs(kafka, redis_url, config.load.partitions)
    ends = [key.decode() for _, key, _ in end_markers(config.load)]
    port, written = free_port(), []
    more = {"ONHAND_METRICS__LISTEN": f"127.0.0.1:{port}"}
    program = onhand_running(kafka, redis_url, group, RULES_PATH, more, workers)
    before = servers.spent()
    timing = timed(program, redis_url, ends, lambda: written.append(settled(lambda: skus_written(port, workers))))
    spent = servers.spent().since(before)
    read_bytes = servers.log_bytes(MOVEMENTS.name)
    judged = _judged(config, messages, expected, timing, servers, started_at)
    return told(judged, spent._replace(broker_bytes=spent.broker_bytes + read_bytes), workers, written[0])


def _judged(
    config: ScaleConfig,
    messages: Sequence[Raw],
    expected: Oracle,
    timing: Timing,
    servers: _Servers,
    started_at: str,
) -> DrainRun:
    outcome = read_outcome(servers.kafka.bootstrap_servers, servers.redis.url)
    origin = provenance(settings_of(config.load, config.seed))
    return judge(config.load.dataset, len(messages), timing, outcome, expected, started_at, origin)


def told(run: DrainRun, spent: Spent, processes: int, skus: int) -> ScaledDrain:
    """A drain as this benchmark tells it: `skus` are those that were written to Redis, repeats among them."""
    if not skus:
        raise BenchError("no SKU was written: look at the log of the run")
    return ScaledDrain(
        part="drain",
        processes=processes,
        dataset=run.dataset,
        movements=run.movements,
        movements_per_second=run.movements_per_second,
        cpu_seconds_per_million=run.cpu_seconds_per_million,
        memory_mib_max=run.memory_mib_max,
        redis_cpu_seconds_per_million_skus=round(spent.redis_cpu_seconds * MILLION / skus, 2),
        skus_written_per_movement=round(skus / run.movements, 3),
        redis_bytes_per_movement=round(spent.redis_bytes / run.movements, 1),
        broker_cpu_seconds_per_million=round(spent.broker_cpu_seconds * MILLION / run.movements, 2),
        broker_bytes_per_movement=round(spent.broker_bytes / run.movements, 1),
        wrong_skus=run.wrong_skus,
        missing_crossings=run.missing_crossings,
        extra_crossings=run.extra_crossings,
        dead_letters=run.dead_letters,
        versions=run.versions,
        started_at=run.started_at,
        provenance=run.provenance,
    )


def settled(count: Callable[[], int]) -> int:
    """The count once it stands still: answers of the last writes are taken a moment after they can be read."""
    before, now = -1, count()
    while now != before:
        time.sleep(SETTLE_SECONDS)
        before, now = now, count()
    return now


def skus_written(port: int, workers: int) -> int:
    """How many SKUs all workers have written to Redis, as their metrics tell; BenchError where one does not."""
    return sum(_told_by(port + worker) for worker in range(workers))


def _told_by(port: int) -> int:
    try:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=METRICS_SECONDS_MAX)
        client.request("GET", "/metrics")
        text = client.getresponse().read().decode()
    except OSError as error:
        raise BenchError(f"a worker does not tell its metrics at port {port}: {error}") from error
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == WRITTEN:
            return round(float(value))
    raise BenchError(f"the metrics of a worker have no {WRITTEN}")
