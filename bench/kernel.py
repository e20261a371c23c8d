"""Kernel: raw JSON in memory through route and lanes, without any I/O, beside decoding the same bytes alone."""

import gc
import time
from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

import msgspec
import psutil

from bench.drain import HOUR_MS, Raw, as_batches, settings_of, versions
from bench.generate import LoadConfig, benchmark_rules, movements
from bench.provenance import Provenance, now_text, provenance
from operators.lane import Lane, LaneSettings, warm_up
from operators.route import route
from operators.rules import RuleBook
from schemas.batches import Batch
from schemas.movements import Record

LANES: Final = 64
BATCH_MESSAGES: Final = 5000
PREFIX: Final = "avail:"
SKUS_MAX: Final = 1_000_000


class KernelRun(msgspec.Struct):
    """One run, as one JSON line; times are CPU seconds of one process."""

    engine: str
    dataset: str
    movements: int
    movements_per_second: int
    decoding_per_second: int
    times_decoding: float
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
    batches = [part for batch in as_batches(messages) for part in cut(batch)]
    told = provenance(settings_of(config, seed))
    for number in range(runs):
        run = measured(config.dataset, messages, batches, told)
        # Memory that a run gives back stays with the process, so only the first one is seen to take it.
        yield run if number == 0 else msgspec.structs.replace(run, bytes_per_position=None)


def cut(batch: Batch) -> Iterator[Batch]:
    """A log in batches as a source gives them."""
    for start in range(0, len(batch.offsets), BATCH_MESSAGES):
        end = start + BATCH_MESSAGES
        lists = (batch.offsets, batch.timestamps, batch.keys, batch.payloads)
        offsets, timestamps, keys, payloads = (values[start:end] for values in lists)
        yield Batch(batch.origin, offsets, timestamps, keys, payloads)  # type: ignore[arg-type]  # mypy joins their types


def measured(dataset: str, messages: Sequence[Raw], batches: Sequence[Batch], told: Provenance) -> KernelRun:
    """One run: decoding alone, then route and lanes, then a snapshot of all lanes."""
    started_at = now_text()
    decoding_seconds = decode_all(messages)
    gc.collect()
    before_bytes = memory_bytes()
    lanes, seconds = run_lanes(batches)
    gc.collect()
    grown_bytes = memory_bytes() - before_bytes
    begun = time.process_time()
    blobs = [lane.snapshot() for lane in lanes]
    snapshot_seconds = time.process_time() - begun
    positions = sum(lane.position_count for lane in lanes)
    return KernelRun(
        engine="onhand",
        dataset=dataset,
        movements=len(messages),
        movements_per_second=round(len(messages) / seconds),
        decoding_per_second=round(len(messages) / decoding_seconds),
        times_decoding=round(seconds / decoding_seconds, 2),
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


def decode_all(messages: Sequence[Raw]) -> float:
    """CPU seconds that msgspec takes to decode every payload into our types."""
    decode = msgspec.json.Decoder(Record).decode
    begun = time.process_time()
    for _, _, payload in messages:
        decode(payload)
    return time.process_time() - begun


def run_lanes(batches: Sequence[Batch]) -> tuple[list[Lane], float]:
    """New lanes after all batches, told as a flow tells them, and the CPU seconds that it took."""
    settings = LaneSettings(LANES, incarnation=1, dedupe_ms=72 * HOUR_MS)
    rules = RuleBook(benchmark_rules())
    lanes = [Lane(number, rules, settings) for number in range(LANES)]
    tellers = [lane.teller(PREFIX) for lane in lanes]
    begun = time.process_time()
    for batch in batches:
        for number, part in route(batch, LANES):
            lanes[number].apply([part], teller=tellers[number])
    for lane, teller in zip(lanes, tellers, strict=True):
        lane.tell(teller, SKUS_MAX)
    return lanes, time.process_time() - begun
