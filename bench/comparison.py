"""Comparison: one job on several engines in turn, each timed and each checked by the oracle."""

import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import msgspec
from confluent_kafka.admin import AdminClient, NewTopic

from bench.drain import (
    READ_SECONDS_MAX,
    Raw,
    Running,
    Timing,
    expectation,
    onhand_running,
    produce,
    program_running,
    read_numbers,
    read_topic,
    records_in,
    renew_outputs,
    settings_of,
    timed,
    versions,
)
from bench.fresh import fresh_servers
from bench.generate import RULES_PATH, LoadConfig, end_markers, partition_of
from bench.generate import movements as generated_movements
from bench.oracle import Oracle
from bench.peers.options import CROSSINGS
from bench.peers.stock import Crossing
from bench.provenance import Provenance, now_text, provenance
from bench.retail import movements as retail_movements
from bench.retail import read_lines
from bench.servers import CHECKOUT
from schemas.outputs import Threshold
from schemas.topics import THRESHOLDS

ONHAND: Final = "onhand"
VERSIONS_SECONDS_MAX: Final = 60.0
UNDER_WAY_SECONDS_MAX: Final = 20.0
decode_crossing: Final = msgspec.json.Decoder(Crossing).decode
VERSIONS_PROGRAM: Final = (
    "import importlib.metadata as m, json, platform, sys; "
    "print(json.dumps({'python': platform.python_version()} | {name: m.version(name) for name in sys.argv[1:]}))"
)


class Peer(NamedTuple):
    """Another engine: the module that does the job on it, and the packages that its figures depend on."""

    module: str
    packages: tuple[str, ...]


PEERS: Final = {
    "loop": Peer("bench.peers.loop", ("confluent-kafka", "msgspec", "redis", "hiredis")),
    "bytewax": Peer("bench.peers.bytewax_flow", ("bytewax", "confluent-kafka", "msgspec", "redis", "hiredis")),
    "quix": Peer(
        "bench.peers.quix_flow", ("quixstreams", "rocksdict", "confluent-kafka", "msgspec", "redis", "hiredis")
    ),
}
ENGINES: Final = (ONHAND, *PEERS)


class ComparisonRun(msgspec.Struct):
    """One run of one engine, as one JSON line."""

    engine: str
    dataset: str
    movements: int
    movements_per_second: int
    cpu_seconds_per_million: float
    memory_mib_max: int
    wrong_skus: int
    missing_crossings: int
    extra_crossings: int
    processes: int
    versions: dict[str, str]
    started_at: str
    provenance: Provenance

    @property
    def differs(self) -> bool:
        """Whether anything is not as the oracle has it."""
        return bool(self.wrong_skus or self.missing_crossings or self.extra_crossings)


@dataclass(frozen=True, slots=True)
class Backlog:
    """Messages to drain, what they are called, and the settings that they were made with."""

    dataset: str
    messages: list[Raw]
    partitions: int
    settings: dict[str, str]

    @property
    def ends(self) -> list[str]:
        """The SKU of each partition's last message."""
        return [key.decode() for _, key, _ in end_markers(LoadConfig(partitions=self.partitions))]


Step = tuple[str, str, int]  # level before, level after, units that may be sold
Crossings = dict[tuple[str, str], list[Step]]  # by SKU and channel, in their order


@dataclass(frozen=True, slots=True)
class Results:
    """What is shown of each SKU in the end, with its version, and every crossing on the way there."""

    numbers: dict[str, dict[str, int]]
    crossings: Crossings


class Differences(NamedTuple):
    """How far a run's results are from those expected."""

    wrong_skus: int
    missing_crossings: int
    extra_crossings: int


@dataclass(frozen=True, slots=True)
class Stage:
    """The servers on which every engine works in turn."""

    bootstrap_servers: str
    redis_url: str
    partitions: int
    ends: list[str]


def generated_backlog(config: LoadConfig, seed: int) -> Backlog:
    """Movements of the generator, an end marker behind each partition."""
    messages = list(generated_movements(config, Random(seed)))  # repeatable on purpose
    return Backlog(config.dataset, messages, config.partitions, settings_of(config, seed))


def retail_backlog(lines: Path, movements_max: int, partitions: int = 8) -> Backlog:
    """Movements of real sales lines, the first so many, an end marker behind each partition; ticks are left out."""
    messages: list[Raw] = []
    for key, payload in retail_movements(read_lines(lines)):
        if len(messages) == movements_max:
            break
        if key:
            messages.append((partition_of(key, partitions), key, payload))
    messages.extend(end_markers(LoadConfig(partitions=partitions)))
    return Backlog("retail", messages, partitions, {"lines": lines.name, "movements": str(movements_max)})


def compare(
    backlog: Backlog, pythons: Mapping[str, Path], engines: Sequence[str], runs: int
) -> Iterator[ComparisonRun]:
    """Measures `runs` drains of the same backlog by each engine, in turn; `pythons` are the peers' interpreters.

    Each run has a fresh group, fresh topics out and an empty Redis. Raises BenchError where one does not end in time.
    """
    with stage(backlog) as where:
        yield from in_turn(where, backlog, pythons, engines, runs)


def in_turn(
    where: Stage, backlog: Backlog, pythons: Mapping[str, Path], engines: Sequence[str], runs: int
) -> Iterator[ComparisonRun]:
    """As `compare`, on servers that hold the backlog already."""
    expected = expected_results(expectation(backlog.messages))
    about = provenance({**backlog.settings, "partitions": str(backlog.partitions), "runs": str(runs)})
    crossings = sum(map(len, expected.crossings.values()))
    of_engine = {engine: versions_of(engine, pythons) for engine in engines}
    for number in range(runs):
        for engine in engines:
            started_at = now_text()
            renew(where)
            timing = run_engine(engine, pythons, where, f"{engine}-{number}", crossings)
            found = differences(expected, read_results(engine, where))
            yield judged(engine, backlog, timing, found, of_engine[engine], started_at, about)


@contextmanager
def stage(backlog: Backlog) -> Iterator[Stage]:
    """A broker that holds the backlog and a Redis, gone afterwards."""
    with fresh_servers(backlog.partitions) as (bootstrap_servers, redis_url):
        produce(bootstrap_servers, backlog.messages)
        yield Stage(bootstrap_servers, redis_url, backlog.partitions, backlog.ends)


def renew(where: Stage) -> None:
    """An empty Redis, and empty topics out for onhand and for its peers."""
    renew_outputs(where.bootstrap_servers, where.redis_url, where.partitions)
    admin = AdminClient({"bootstrap.servers": where.bootstrap_servers})
    made = admin.create_topics([NewTopic(CROSSINGS, where.partitions, replication_factor=1)])
    made[CROSSINGS].result(READ_SECONDS_MAX)


def run_engine(engine: str, pythons: Mapping[str, Path], where: Stage, group: str, crossings: int) -> Timing:
    """One drain by one engine; when the clock has stopped, crossings that are under way may still arrive."""
    if engine == ONHAND:
        program = onhand_running(where.bootstrap_servers, where.redis_url, group, RULES_PATH)
    else:
        program = peer_running(engine, pythons[engine], where, group)
    return timed(program, where.redis_url, where.ends, lambda: await_crossings(engine, where, crossings))


def await_crossings(engine: str, where: Stage, count: int) -> None:
    """Until so many are in Kafka, or for as long as one could still be under way: what is missing then is missing."""
    deadline = time.monotonic() + UNDER_WAY_SECONDS_MAX
    while records_in(where.bootstrap_servers, crossings_topic(engine)) < count and time.monotonic() < deadline:
        time.sleep(0.05)


def crossings_topic(engine: str) -> str:
    """Where an engine tells its crossings."""
    return THRESHOLDS.name if engine == ONHAND else CROSSINGS


@contextmanager
def peer_running(engine: str, python: Path, where: Stage, group: str, state: Path | None = None) -> Iterator[Running]:
    """A peer's program as a process of its own, with its state in `state`, else in a directory that goes with it."""
    with tempfile.TemporaryDirectory(prefix=f"onhand-{engine}-") as directory:
        kept = Path(directory, "state") if state is None else state
        kept.mkdir(exist_ok=True)
        options = {
            "bootstrap-servers": where.bootstrap_servers,
            "redis-url": where.redis_url,
            "group": group,
            "rules": str(RULES_PATH),
            "state": str(kept),
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        command = [str(python), "-m", PEERS[engine].module, *words]
        with program_running(engine, command, {"PYTHONPATH": str(CHECKOUT)}, Path(directory)) as running:
            yield running


def versions_of(engine: str, pythons: Mapping[str, Path]) -> dict[str, str]:
    """Of everything that an engine's figures depend on."""
    if engine == ONHAND:
        return versions()
    command = [str(pythons[engine]), "-c", VERSIONS_PROGRAM, *PEERS[engine].packages]
    done = subprocess.run(command, check=True, capture_output=True, timeout=VERSIONS_SECONDS_MAX)
    return msgspec.json.decode(done.stdout, type=dict[str, str])


def expected_results(oracle: Oracle) -> Results:
    """What the oracle says must come of the backlog."""
    return Results(_shown(oracle.redis(incarnation=0)), by_channel(map(_told, oracle.crossings)))


def read_results(engine: str, where: Stage) -> Results:
    """What an engine has left in Redis and Kafka."""
    values = read_topic(where.bootstrap_servers, crossings_topic(engine))
    told = (_told(THRESHOLDS.decode(value)) for value in values) if engine == ONHAND else map(decode_crossing, values)
    return Results(read_shown(where), by_channel(told))


def read_shown(where: Stage) -> dict[str, dict[str, int]]:
    """The channels and the version of each SKU in Redis."""
    return _shown(read_numbers(where.redis_url))


def _told(threshold: Threshold) -> Crossing:
    """A threshold record of onhand with what the benchmark asks for."""
    channel = threshold.channel or f"@{threshold.location}"
    return Crossing(threshold.id, threshold.sku, channel, threshold.from_, threshold.to, threshold.sellable)


def _shown(numbers: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """The channels and the version, of all that a hash holds."""
    own = {"@incarnation", "@as_of"}  # fields that onhand alone writes
    return {sku: {name: value for name, value in fields.items() if name not in own} for sku, fields in numbers.items()}


def by_channel(crossings: Iterable[Crossing]) -> Crossings:
    """The steps of each SKU and channel, in their order."""
    steps: Crossings = defaultdict(list)
    for crossing in crossings:
        steps[crossing.sku, crossing.channel].append((crossing.from_, crossing.to, crossing.sellable))
    return dict(steps)


def differences(expected: Results, found: Results) -> Differences:
    """Every SKU that shows something else, and every step too few or too many."""
    skus = expected.numbers.keys() | found.numbers.keys()
    wrong = sum(expected.numbers.get(sku) != found.numbers.get(sku) for sku in skus)
    missing = extra = 0
    for place in expected.crossings.keys() | found.crossings.keys():
        wanted, told = expected.crossings.get(place, []), found.crossings.get(place, [])
        common = _common(wanted, told)
        missing += len(wanted) - common
        extra += len(told) - common
    return Differences(wrong, missing, extra)


def _common(wanted: list[Step], told: list[Step]) -> int:
    """How many steps are in both, in the same order: their longest common subsequence."""
    if wanted == told:
        return len(wanted)
    lengths = [0] * (len(told) + 1)
    for step in wanted:
        before, lengths = lengths, [0]
        for place, other in enumerate(told):
            lengths.append(before[place] + 1 if step == other else max(before[place + 1], lengths[place]))
    return lengths[-1]


def judged(
    engine: str,
    backlog: Backlog,
    timing: Timing,
    found: Differences,
    of_engine: dict[str, str],
    started_at: str,
    about: Provenance,
) -> ComparisonRun:
    """The run's line."""
    count = len(backlog.messages)
    return ComparisonRun(
        engine=engine,
        dataset=backlog.dataset,
        movements=count,
        movements_per_second=timing.per_second(count),
        cpu_seconds_per_million=timing.cpu_seconds_per_million(count),
        memory_mib_max=timing.memory_mib_max,
        wrong_skus=found.wrong_skus,
        missing_crossings=found.missing_crossings,
        extra_crossings=found.extra_crossings,
        processes=1,
        versions=of_engine,
        started_at=started_at,
        provenance=about,
    )
