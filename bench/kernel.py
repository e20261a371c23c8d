"""Kernel: raw JSON in memory through route and lanes, without any I/O, beside decoding the same bytes alone."""

import gc
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from random import Random
from typing import Final, NamedTuple, cast

import msgspec
import psutil

from bench.drain import HOUR_MS, Raw, as_batches, settings_of, versions
from bench.generate import LoadConfig, benchmark_rules, movements
from bench.provenance import Provenance, now_text, provenance
from operators.lane import Lane, LaneSettings, warm_up
from operators.route import packed, route
from operators.rules import RuleBook
from schemas.batches import Batch
from schemas.movements import Record
from schemas.packed import Numbers, Texts

LANES: Final = 64
BATCH_MESSAGES: Final = 20_000  # half of a drain's movements come in as many or more
PREFIX: Final = "avail:"
SKUS_MAX: Final = 1_000_000


class KernelRun(msgspec.Struct):
    """One run, as one JSON line; times are CPU seconds of one process.

    First comes the opening stock, when every SKU is new; what is after it is told apart as steady.
    """

    engine: str
    dataset: str
    movements: int
    movements_per_second: int
    decoding_per_second: int
    times_decoding: float
    opening_movements_per_second: int | None  # None: there were none
    steady_movements_per_second: int | None
    steady_times_decoding: float | None
    positions: int
    bytes_per_position: int | None  # None: not measured in this run
    snapshot_bytes_per_position: int
    snapshot_seconds: float
    versions: dict[str, str]
    started_at: str
    provenance: Provenance


def kernel(config: LoadConfig, seed: int, runs: int) -> Iterator[KernelRun]:
    """Measures `runs` times the same movements, each with new lanes."""
    warm_up()
    messages = list(movements(config, Random(seed)))
    phases = phases_of(messages, config.opening_count)
    told = provenance(settings_of(config, seed))
    for number in range(runs):
        run = measured(config.dataset, messages, phases, told)
        # Memory that a run gives back stays with the process, so only the first one is seen to take it.
        yield run if number == 0 else msgspec.structs.replace(run, bytes_per_position=None)


class Phases(NamedTuple):
    """Batches as a source gives them, of all partitions in turn: the opening stock's, then the others."""

    opening: Sequence[Batch]
    steady: Sequence[Batch]


def phases_of(messages: Sequence[Raw], opening_count: int) -> Phases:
    """The messages in batches; the first `opening_count` are opening stock."""
    opening = Counter(partition for partition, _, _ in messages[:opening_count])
    logs = [(batch, opening[batch.origin.partition]) for batch in as_batches(messages)]
    return Phases(
        in_turn([list(cut(batch, 0, count)) for batch, count in logs]),
        in_turn([list(cut(batch, count, len(batch.offsets))) for batch, count in logs]),
    )


def in_turn(logs: Iterable[Sequence[Batch]]) -> list[Batch]:
    """One batch of each log after the other, as long as there are any."""
    return [batch for batch in chain.from_iterable(zip_longest(*logs)) if batch is not None]


def cut(batch: Batch, first: int = 0, last: int | None = None) -> Iterator[Batch]:
    """A log, or a piece of it, in batches as the Kafka source gives them: in packed columns."""
    until = len(batch.offsets) if last is None else last
    for start in range(first, until, BATCH_MESSAGES):
        end = min(start + BATCH_MESSAGES, until)
        lists = (batch.offsets, batch.timestamps, batch.keys, batch.payloads)
        offsets, timestamps, keys, payloads = (values[start:end] for values in lists)
        yield _packed(Batch(batch.origin, offsets, timestamps, keys, payloads))  # type: ignore[arg-type]  # mypy joins their types


def _packed(batch: Batch) -> Batch:
    columns = packed(batch).arrays
    return Batch(
        batch.origin,
        Numbers(columns.offsets),
        Numbers(columns.timestamps),
        Texts(columns.keys, columns.key_ends),
        Texts(columns.payloads, columns.payload_ends),
    )


def measured(dataset: str, messages: Sequence[Raw], phases: Phases, told: Provenance) -> KernelRun:
    """One run: each batch decoded alone, then through route and lanes; at the end a snapshot of all lanes."""
    started_at = now_text()
    gc.collect()
    gc.freeze()  # what was made for the run is no more looked at than what a worker holds when it begins
    before_bytes = memory_bytes()
    kernel_ = Kernel()
    opening, steady = beside_decoding(kernel_, phases.opening), beside_decoding(kernel_, phases.steady)
    steady_seconds = steady.applying + kernel_.tell()
    seconds, decoding_seconds = opening.applying + steady_seconds, opening.decoding + steady.decoding
    lanes = kernel_.lanes
    gc.unfreeze()
    gc.collect()
    grown_bytes = memory_bytes() - before_bytes
    begun = time.process_time()
    blobs = [lane.snapshot() for lane in lanes]
    snapshot_seconds = time.process_time() - begun
    positions = sum(lane.position_count for lane in lanes)
    steady_rate = _rate(phases.steady, steady_seconds)
    return KernelRun(
        engine="onhand",
        dataset=dataset,
        movements=len(messages),
        movements_per_second=round(len(messages) / seconds),
        decoding_per_second=round(len(messages) / decoding_seconds),
        times_decoding=round(seconds / decoding_seconds, 2),
        opening_movements_per_second=_rate(phases.opening, opening.applying),
        steady_movements_per_second=steady_rate,
        steady_times_decoding=None if steady_rate is None else round(steady_seconds / steady.decoding, 2),
        positions=positions,
        bytes_per_position=grown_bytes // positions,
        snapshot_bytes_per_position=sum(map(len, blobs)) // positions,
        snapshot_seconds=round(snapshot_seconds, 3),
        versions=versions(),
        started_at=started_at,
        provenance=told,
    )


def memory_bytes() -> int:
    """What this process has in memory."""
    return int(psutil.Process().memory_info().rss)


class Kernel:
    """New lanes, told as a flow tells them; the CPU seconds that things take."""

    def __init__(self) -> None:
        settings = LaneSettings(LANES, incarnation=1, dedupe_ms=72 * HOUR_MS)
        rules = RuleBook(benchmark_rules())
        self.lanes = [Lane(number, rules, settings) for number in range(LANES)]
        self._tellers = [lane.teller(PREFIX) for lane in self.lanes]

    def apply(self, batches: Iterable[Batch]) -> float:
        """Seconds to route and apply them, and to write what Redis is told."""
        begun = time.process_time()
        for batch in batches:
            for number, part in route(batch, LANES):
                self.lanes[number].apply([part], teller=self._tellers[number])
        return time.process_time() - begun

    def tell(self) -> float:
        """Seconds to write what the topic is told."""
        begun = time.process_time()
        for lane, teller in zip(self.lanes, self._tellers, strict=True):
            lane.tell(teller, SKUS_MAX)
        return time.process_time() - begun


class Spent(NamedTuple):
    """CPU seconds that the same batches took."""

    applying: float
    decoding: float


def beside_decoding(kernel_: Kernel, batches: Iterable[Batch]) -> Spent:
    """Each batch is applied, and right before it msgspec decodes its payloads into our types.

    Taken apart from each other, a minute in which the machine does something else, too, would be one side's alone.
    """
    decode, applying, decoding = msgspec.json.Decoder(Record).decode, 0.0, 0.0
    for batch in batches:
        payloads = cast("list[bytes]", list(batch.payloads))  # as who decodes one after the other has them
        begun = time.process_time()
        for payload in payloads:
            decode(payload)
        decoding += time.process_time() - begun
        applying += kernel_.apply([batch])
    return Spent(applying, decoding)


def _rate(batches: Sequence[Batch], seconds: float) -> int | None:
    count = sum(len(batch.offsets) for batch in batches)
    return round(count / seconds) if count else None
