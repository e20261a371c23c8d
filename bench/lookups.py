"""Look-ups: how long a channel waits for numbers in Redis, while nothing is written, at a rate, and flat out."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final, NamedTuple, cast, get_args

import msgspec
from redis import Redis

from bench import looking, sending
from bench.companions import Companion, start_together
from bench.drain import (
    DRAIN_SECONDS_MAX,
    Running,
    onhand_running,
    produce,
    versions,
    wait_until,
)
from bench.fresh import Addresses, FreshServers, fresh_servers
from bench.generate import RULES_PATH, LoadConfig, end_markers, movements, partition_of
from bench.healing import PARTITIONS, PREFIX, pieces, wait_until_fresh
from bench.looking import Kind, Looked, LookingPlan, times_in
from bench.prepared import prepare
from bench.probes import draw_up
from bench.provenance import Provenance, now_text, provenance
from bench.quantiles import Quantiles, quantiles_ms
from bench.sending import SendingPlan, Sent
from bench.servers import free_port
from sinks.redis_keys import VERSION, availability_key, last_incarnation

IDLE: Final = "idle"
DRAIN: Final = "drain"
CHANNEL: Final = "web"
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
LOOKS_PER_SECOND: Final[dict[Kind, int]] = {"one": 1000, "twenty": 500}  # of each reader
BACKLOG_PER_SECOND: Final = 800_000  # movements for each second of one kind: more than is drained during both
PIECE: Final = 100_000
SAMPLE_SKUS: Final = 200  # whose versions tell how far the flow is
SENDING_SPARE_SECONDS: Final = 30.0  # for companions to start; the sender is ended when the look-ups are
RESULT_SPARE_SECONDS: Final = 60.0


class Looks(msgspec.Struct, frozen=True):
    """Look-ups of one kind (one SKU, or twenty in a pipeline) during one kind of writing."""

    writer: str
    kind: Kind
    latency_ms: Quantiles
    missing: int  # answers without a number, of SKUs that all have one
    looks_per_second: float  # of all readers
    reader_cpu_share: float  # of one core, for each reader
    written_movements_per_second: float  # that the numbers in Redis came on meanwhile


class LookupsRun(msgspec.Struct, frozen=True):
    """One run, as one JSON line; not `valid` where the backlog was too short or a number was missing (`faults`)."""

    seconds: float
    skus: int
    readers: int
    backlog: int
    valid: bool
    faults: list[str]
    looks: list[Looks]
    versions: dict[str, str]
    provenance: Provenance
    started_at: str


class LookupsConfig(NamedTuple):
    """`writers` are `idle`, `drain` or movements a second; `seconds` are of each kind during each writer."""

    seconds: float = 20.0
    skus: int = 20_000
    readers: int = 1
    writers: Sequence[str] = (IDLE, DRAIN)
    backlog: int = 0  # 0: as long as is needed

    @property
    def backlog_movements(self) -> int:
        """How many movements the writer drains."""
        return self.backlog or round(BACKLOG_PER_SECOND * self.seconds)

    @property
    def in_turn(self) -> list[str]:
        """The writers, a drain last: the others wait until everything is read."""
        return sorted(self.writers, key=lambda writer: writer == DRAIN)


def lookups(config: LookupsConfig, seed: int, runs: int, servers: FreshServers = fresh_servers) -> Iterator[LookupsRun]:
    """Measures `runs` times, each time all writers in turn on servers of their own."""
    for number in range(runs):
        started_at = now_text()
        with servers(PARTITIONS) as addresses, Redis.from_url(addresses.redis_url) as client:
            yield _Measuring(config, addresses, client, seed + number).run(started_at)


class _Measuring:
    """One run: its writers, and its readers."""

    def __init__(self, config: LookupsConfig, addresses: Addresses, client: Redis, seed: int) -> None:
        self._config = config
        self._kafka, self._redis_url = addresses
        self._client = client
        self._seed = seed
        self._load = LoadConfig(movements=1 << 40, skus=config.skus, partitions=PARTITIONS, end_markers=False)
        self._stream = movements(self._load, Random(seed))  # repeatable on purpose
        self._ends = list(end_markers(replace(self._load, movements=config.backlog_movements)))
        self._skus = [f"SKU-{number:06d}" for number in range(1, config.skus + 1)]
        self._faults: list[str] = []

    def run(self, started_at: str) -> LookupsRun:
        """Opening stock, then every writer in turn."""
        produce(self._kafka, list(islice(self._stream, self._load.opening_count)))
        looks: list[Looks] = []
        for writer in self._config.in_turn:
            with self._writing(writer) as running:
                looks += [self._looks(writer, kind, running) for kind in KINDS]
                if writer == DRAIN and self._is_drained():
                    self._faults.append("the backlog was drained before the look-ups ended: give a longer one")
                running.drain()
        return self._told(looks, started_at)

    @contextmanager
    def _writing(self, writer: str) -> Iterator[Running]:
        """The flow while it writes as `writer` says."""
        if writer == DRAIN:
            self._produce_backlog()
        before = last_incarnation(self._client, PREFIX)
        more = {"ONHAND_METRICS__LISTEN": f"127.0.0.1:{free_port()}"}
        with onhand_running(self._kafka, self._redis_url, f"lookups-{writer}", RULES_PATH, more) as running:
            if writer == DRAIN:
                wait_until(lambda: self._has_begun(running, before), DRAIN_SECONDS_MAX, "the first write of the drain")
                yield running
                return
            wait_until_fresh(self._redis_url, running)
            if writer == IDLE:
                yield running
                return
            with self._sending(int(writer)):
                yield running

    def _produce_backlog(self) -> None:
        for piece in pieces(islice(self._stream, self._config.backlog_movements), PIECE):
            produce(self._kafka, piece)
        produce(self._kafka, self._ends)

    @contextmanager
    def _sending(self, rate: int) -> Iterator[None]:
        """A sender at `rate`, ended on the way out."""
        count = round(rate * (len(KINDS) * self._config.seconds + SENDING_SPARE_SECONDS))
        with tempfile.TemporaryDirectory(prefix="onhand-lookups-") as name:
            prepare(Path(name), islice(self._stream, count))
            draw_up(Path(name), count, count, Random(self._seed))
            with Companion(sending, SendingPlan(self._kafka, rate, count, 0.0), Path(name), Sent) as sender:
                sender.wait_ready()
                start_together([sender])
                yield

    def _looks(self, writer: str, kind: Kind, running: Running) -> Looks:
        """All readers at once, one kind of look-up."""
        with ExitStack() as stack:
            directories = [
                Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onhand-lookups-")))
                for _ in range(self._config.readers)
            ]
            readers = [
                stack.enter_context(Companion(looking, self._plan(kind, number), directory, Looked))
                for number, directory in enumerate(directories)
            ]
            for reader in readers:
                reader.wait_ready()
            before, began = self._applied(), time.monotonic()
            start_together(readers)
            seconds_max = self._config.seconds + RESULT_SPARE_SECONDS
            looked = [reader.result(seconds_max, running.check_alive) for reader in readers]
            written_per_second = (self._applied() - before) / (time.monotonic() - began)
            times_ns = [time_ns for directory in directories for time_ns in times_in(directory)]
        return self._looks_told(writer, kind, times_ns, looked, written_per_second)

    def _plan(self, kind: Kind, number: int) -> LookingPlan:
        rate = LOOKS_PER_SECOND[kind]
        count = round(rate * self._config.seconds)
        return LookingPlan(self._redis_url, PREFIX, self._skus, CHANNEL, kind, rate, count, self._seed + number)

    def _looks_told(
        self, writer: str, kind: Kind, times_ns: Sequence[int], looked: Sequence[Looked], written_per_second: float
    ) -> Looks:
        missing, seconds = sum(one.missing for one in looked), max(one.seconds for one in looked)
        if missing:
            self._faults.append(f"{missing} answers without a number ({writer}, {kind})")
        if not written_per_second and writer != IDLE:
            self._faults.append(f"nothing was written meanwhile ({writer}, {kind})")
        return Looks(
            writer=writer,
            kind=kind,
            latency_ms=quantiles_ms(times_ns),
            missing=missing,
            looks_per_second=round(len(times_ns) / seconds, 1),
            reader_cpu_share=round(sum(one.cpu_seconds for one in looked) / len(looked) / seconds, 3),
            written_movements_per_second=round(written_per_second, 1),
        )

    def _has_begun(self, running: Running, before: int) -> bool:
        """Whether it has told of its incarnation, which it does ahead of its first write."""
        running.check_alive()
        return last_incarnation(self._client, PREFIX) > before

    def _applied(self) -> int:
        """How far the numbers are, in records of all partitions: the greatest version of each, among some SKUs."""
        newest: dict[int, int] = {}
        with self._client.pipeline(transaction=False) as pipeline:
            for sku in self._skus[:SAMPLE_SKUS]:
                pipeline.hget(availability_key(PREFIX, sku), VERSION)
            answers = cast("list[bytes | None]", pipeline.execute())
        for sku, answer in zip(self._skus, answers, strict=False):
            partition = partition_of(sku.encode(), PARTITIONS)
            newest[partition] = max(newest.get(partition, 0), int(answer or 0))
        return sum(newest.values())

    def _is_drained(self) -> bool:
        keys = [availability_key(PREFIX, key.decode()) for _, key, _ in self._ends]
        return int(self._client.exists(*keys)) == len(keys)

    def _told(self, looks: list[Looks], started_at: str) -> LookupsRun:
        config = self._config
        settings = {
            "looks_per_second_one": str(LOOKS_PER_SECOND["one"]),
            "looks_per_second_twenty": str(LOOKS_PER_SECOND["twenty"]),
            "seed": str(self._seed),
            "channel": CHANNEL,
            "partitions": str(PARTITIONS),
            "workers": "1",
            "redis_appendonly": "yes",
        }
        return LookupsRun(
            seconds=config.seconds,
            skus=config.skus,
            readers=config.readers,
            backlog=config.backlog_movements if DRAIN in config.writers else 0,
            valid=not self._faults,
            faults=self._faults,
            looks=looks,
            versions=versions(),
            provenance=provenance(settings),
            started_at=started_at,
        )
