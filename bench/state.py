"""State: what a position takes in memory and in a snapshot, and how long a state takes to be kept and to be back."""

import gc
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple, NoReturn

import msgspec
import psutil
from redis import Redis

from bench.drain import HOUR_MS, BenchError, Running, onhand_running, versions, wait_until
from bench.generate import RULES_PATH, LoadConfig, benchmark_rules, movements
from bench.healing import PREFIX, now_ms
from bench.kernel import memory_bytes
from bench.processes import Start, fresh
from bench.provenance import Provenance, now_text, provenance
from bench.servers import RedisServer
from flows.availability import Sinks, availability_flow
from flows.bases import FileBases
from flows.board import Board
from flows.running import run_flow
from flows.store import FORMAT, PARTS, Meta, create, lane_snapshots
from operators.keeping import LANES_A_BASE, BaseTurns, Keeping
from operators.lane import Lane, LaneSettings, warm_up
from operators.lane_step import LaneHooks, LaneMaking
from operators.route import route
from operators.rules import RuleBook
from operators.snapshots import unpack
from schemas.batches import Batch, Origin
from schemas.movements import Received, encode
from schemas.settings import StateSettings
from schemas.times import format_ms
from sinks.nowhere import NowhereSink
from sinks.redis_availability import RedisAvailabilitySink
from sources.jsonl import JsonlSource
from sources.pace import Surroundings

LANES: Final = StateSettings().lanes
LOCATIONS: Final = 4
SKU: Final = "SKU-000001"
INCARNATION: Final = 1
FIRST_BASES_EPOCHS: Final = LANES_A_BASE + 2  # all lanes have a base by then
CALM_BATCH: Final = 100
NEVER_SECONDS: Final = 86_400.0  # one epoch, so that only its end is a snapshot
IN_FLIGHT_BYTES_MAX: Final = 4 << 20
SECONDS_MAX: Final = 7200.0
RESUME_SECONDS_MAX: Final = 600.0
BYTES_PER_POSITION_MAX: Final = 4000  # with the snapshot beside it; to refuse what this machine cannot hold


class StateRun(msgspec.Struct):
    """One size, as one JSON line; seconds are wall clock, `bytes_per_position` are those that memory has grown by."""

    engine: str
    positions: int
    skus: int
    movements: int
    bytes_per_position: int
    snapshot_bytes_per_position: int
    snapshot_bytes: int
    snapshot_seconds: float  # packing all lanes: movements wait for it
    commit_seconds: float  # from the first lane packed until all of it is on disk and the flow has ended
    restore_seconds: float  # Lane.restore of all lanes, their bytes in memory
    resume_seconds: float  # from the start of `onhand run availability` until a new movement is seen in Redis
    calm_snapshot_seconds: float  # packing all lanes at the end of an epoch in which each was given little: the median,
    calm_snapshot_seconds_max: float  # the longest,
    calm_snapshot_bytes: int  # and what such an epoch's rows hold, the median
    versions: dict[str, str]
    started_at: str
    provenance: Provenance


class StateConfig(NamedTuple):
    """How large a state, and how it came to be: opening stock first, so at least one movement for each position."""

    positions: int
    movements_per_position: int = 3
    seed: int = 1
    calm_epochs: int = 24
    calm_movements: int = 10_000  # in each of them

    @property
    def load(self) -> LoadConfig:
        """The movements that make it."""
        return LoadConfig(
            movements=self.positions * self.movements_per_position,
            skus=self.positions // LOCATIONS,
            locations=LOCATIONS,
            partitions=1,
            end_markers=False,
        )


class Calm(NamedTuple):
    """What packing took at the end of each epoch of a calm flow, and the bytes of its rows."""

    seconds: list[float]
    bytes_: list[int]


class Built(NamedTuple):
    """What the process that made a state saw of it."""

    grown_bytes: int
    positions: int
    snapshot_bytes: int
    snapshot_seconds: float
    commit_seconds: float


def state(config: StateConfig, runs: int) -> Iterator[StateRun]:
    """Measures `runs` states of the same size, each in fresh processes; BenchError where this machine is too small."""
    free = psutil.virtual_memory().available
    if config.positions * BYTES_PER_POSITION_MAX > free:
        raise BenchError(f"{config.positions:,} positions may not fit into the {free >> 20:,} MiB that are free")
    with TemporaryDirectory(prefix="onhand-state-") as folder:
        for number in range(runs):
            file = Path(folder, "movements.jsonl")
            write_movements(config, file)
            yield _measured(config, file, Path(folder, f"state-{number}"))


def write_movements(config: StateConfig, file: Path) -> None:
    """The movements, a line each, written as they are made."""
    with file.open("wb") as lines:
        lines.writelines(payload + b"\n" for _, _, payload in movements(config.load, Random(config.seed)))


def _measured(config: StateConfig, file: Path, store: Path) -> StateRun:
    started_at = now_text()
    with RedisServer({"appendonly": "no"}) as redis:
        built = fresh(build, SECONDS_MAX, str(file), str(store), redis.url)
        restore_seconds = fresh(restore, SECONDS_MAX, str(store))
        calm = fresh(calm_epochs, SECONDS_MAX, config, str(store))
        resume_seconds = resume(config, file, store, redis.url)
    return StateRun(
        engine="onhand",
        positions=built.positions,
        skus=config.load.skus,
        movements=config.load.movements,
        bytes_per_position=built.grown_bytes // built.positions,
        snapshot_bytes_per_position=built.snapshot_bytes // built.positions,
        snapshot_bytes=built.snapshot_bytes,
        snapshot_seconds=round(built.snapshot_seconds, 3),
        commit_seconds=round(built.commit_seconds, 3),
        restore_seconds=round(restore_seconds, 3),
        resume_seconds=round(resume_seconds, 3),
        calm_snapshot_seconds=round(median(calm.seconds), 3),
        calm_snapshot_seconds_max=round(max(calm.seconds), 3),
        calm_snapshot_bytes=round(median(calm.bytes_)),
        versions=versions(),
        started_at=started_at,
        provenance=provenance({name: str(value) for name, value in config._asdict().items()}),
    )


def build(_: Start, file: str, store: str, redis_url: str) -> Built:
    """Lets the real flow read the file to its end, in this process, and looks at it before and after.

    As in a worker, compiled loops are loaded before anything is read.
    """
    meta = Meta(format=FORMAT, lanes=LANES, incarnation=INCARNATION, parts=PARTS, created=now_text())
    create(Path(store), meta)
    watch, board = _Watch(), Board.make(1)
    hooks = LaneHooks(
        sent=lambda _, bytes_: board.sent(0, bytes_),
        applied=lambda _, bytes_: board.applied(0, 0, bytes_),
        snapshotted=watch.snapshotted,
        monotonic=time.monotonic,
        worked=time.thread_time,
    )
    around = Surroundings(is_full=lambda slot: board.in_flight(slot) > IN_FLIGHT_BYTES_MAX, wakes=True)
    source = JsonlSource(file, now_ms=now_ms, draining=lambda: False, around=around)
    redis = RedisAvailabilitySink(redis_url, PREFIX, now_ms, lanes=LANES, incarnation=INCARNATION)
    making = LaneMaking(RuleBook(benchmark_rules()), _lane_settings(), now_ms, durable=True, hooks=hooks)
    nowhere: Any = NowhereSink()
    flow = availability_flow(source, Sinks(redis, *repeat(nowhere, len(Sinks._fields) - 1)), making)
    warm_up()
    before_bytes = memory_bytes()
    run_flow(flow, snapshot_seconds=NEVER_SECONDS, store=Path(store))
    return watch.built(before_bytes, time.monotonic())


class _Watch:
    """Looks at the lanes of a flow when the only epoch ends."""

    def __init__(self) -> None:
        self._full_bytes = 0
        self._began = 0.0
        self._seconds = 0.0
        self._bytes: dict[int, int] = {}
        self._positions: dict[int, int] = {}

    def snapshotted(self, lane: int, bytes_: int, positions: int, seconds: float) -> None:
        """A lane was packed; when it is the first one, memory holds the state and that lane's blob, and little else."""
        if not self._bytes:
            self._began = time.monotonic() - seconds
            gc.collect()
            self._full_bytes = memory_bytes() - bytes_
        self._bytes[lane] = bytes_
        self._positions[lane] = positions
        self._seconds += seconds

    def built(self, before_bytes: int, ended: float) -> Built:
        """All that was seen."""
        return Built(
            self._full_bytes - before_bytes,
            sum(self._positions.values()),
            sum(self._bytes.values()),
            self._seconds,
            ended - self._began,
        )


def restore(_: Start, store: str) -> float:
    """Seconds that `Lane.restore` takes for all lanes of the store; reading them from it is not counted."""
    rules, settings, lanes, seconds = RuleBook(benchmark_rules()), _lane_settings(), [], 0.0
    for number, blob in lane_snapshots(Path(store)):
        begun = time.perf_counter()
        lanes.append(Lane.restore(number, blob, rules, settings))
        seconds += time.perf_counter() - begun
    if len(lanes) != LANES:
        raise BenchError(f"{len(lanes)} of {LANES} lanes are in the store")
    return seconds


def calm_epochs(_: Start, config: StateConfig, store: str) -> Calm:
    """Restores all lanes and gives them little, epoch after epoch, as a flow with bases beside its store does.

    The first epochs are left out: in these every lane begins its first base.
    """
    chance, made = Random(config.seed), (RuleBook(benchmark_rules()), _lane_settings())
    turns, calm = BaseTurns(), Calm([], [])
    with TemporaryDirectory(prefix="bases-", dir=Path(store).parent) as folder, FileBases(Path(folder), _fail) as bases:
        blobs = dict(lane_snapshots(Path(store)))
        lanes = {number: Lane.restore(number, blob, *made) for number, blob in blobs.items()}
        origin = Origin(*unpack(blobs[0])["origins"][0])  # of the file: all SKUs are at home there
        keepings = {number: Keeping(lane, bases, turns) for number, lane in lanes.items()}
        for epoch in range(FIRST_BASES_EPOCHS + config.calm_epochs):
            for batch in _calm_batches(config, origin, epoch, chance):
                for number, part in route(batch, LANES):
                    keepings[number].given([part])
                    lanes[number].apply([part])
            begun = time.perf_counter()
            bytes_ = sum(len(keeping.snapshot()) for keeping in keepings.values())
            seconds = time.perf_counter() - begun
            while bases.bytes_waiting:  # an epoch lasts for seconds, and at its end these are on disk
                time.sleep(0.01)
            if epoch >= FIRST_BASES_EPOCHS:
                calm.seconds.append(seconds)
                calm.bytes_.append(bytes_)
    return calm


def _calm_batches(config: StateConfig, origin: Origin, epoch: int, chance: Random) -> Iterator[Batch]:
    """One epoch's movements of any SKUs, in pieces as a reader that keeps up has them."""
    first = config.load.movements + epoch * config.calm_movements
    for begin in range(first, first + config.calm_movements, CALM_BATCH):
        offsets = list(range(begin, begin + CALM_BATCH))
        skus = [f"SKU-{chance.randint(1, config.load.skus):06}" for _ in offsets]
        payloads = [encode(_movement_behind(config, offset, sku)) for offset, sku in zip(offsets, skus, strict=True)]
        keys: list[bytes | None] = [sku.encode() for sku in skus]
        yield Batch(origin, offsets, [-1] * CALM_BATCH, keys, list(payloads))


def _fail(name: str, error: OSError) -> NoReturn:
    raise BenchError(f"the base {name} cannot be written: {error}")


def resume(config: StateConfig, file: Path, store: Path, redis_url: str) -> float:
    """Seconds from a real start on the store until a reader sees a movement that came since.

    A file has to be read up to where it goes on, which a log need not: so the lines that are in the state are emptied.
    """
    line = config.load.movements
    file.write_bytes(b"\n" * line + _one_more(config) + b"\n")
    more = {
        "ONHAND_INPUT__KIND": "jsonl",
        "ONHAND_INPUT__TOPIC": str(file),
        "ONHAND_OUTPUT__KIND": "none",
        "ONHAND_STATE__PATH": str(store),
        "ONHAND_METRICS__LISTEN": "",
    }
    begun = time.perf_counter()
    with (
        Redis.from_url(redis_url) as client,
        onhand_running("", redis_url, "state", RULES_PATH, more) as running,
    ):
        wait_until(_sees(client, running, line), RESUME_SECONDS_MAX, "the movement after the start")
        return time.perf_counter() - begun


def _sees(client: Redis, running: Running, version: int) -> Callable[[], bool]:
    """Whether Redis shows the record at `version`; a flow that is through with its file ends."""

    def seen() -> bool:
        has_ended = running.process.poll() is not None
        if client.hget(f"{PREFIX}{SKU}", "@version") == str(version).encode():
            return True
        if has_ended:
            running.check_alive()
        return False

    return seen


def _one_more(config: StateConfig) -> bytes:
    """A movement behind all others."""
    return encode(_movement_behind(config, config.load.movements, SKU))


def _movement_behind(config: StateConfig, number: int, sku: str) -> Received:
    """The movement of that number, where the state ends with the one before `config.load.movements`."""
    load = config.load
    time_ms = load.start_ms + number * 1000 // load.movements_per_second
    return Received(id=f"more-{number}", source="bench", sku=sku, location="dc-1", quantity=1, time=format_ms(time_ms))


def _lane_settings() -> LaneSettings:
    return LaneSettings(LANES, incarnation=INCARNATION, dedupe_ms=72 * HOUR_MS)
