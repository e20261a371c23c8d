"""Latency: from the instant for which a movement was intended until Redis shows its effect, at fixed rates."""

import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice, product
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench import probing, sending
from bench.companions import Companion, start_together
from bench.drain import (
    READ_SECONDS_MAX,
    Running,
    onhand_running,
    produce,
    versions,
)
from bench.fresh import Addresses, FreshServers, fresh_servers
from bench.generate import RULES_PATH, LoadConfig, movements
from bench.healing import PREFIX, wait_until_fresh
from bench.prepared import prepare
from bench.probes import UNKNOWN, Sheet, draw_up, mapped
from bench.probing import Probed, ProbingPlan
from bench.provenance import Provenance, now_text, provenance
from bench.quantiles import Quantiles, ms, quantiles_ms
from bench.sending import LINGER_MS, NS, Schedule, SendingPlan, Sent
from bench.servers import free_port
from schemas.settings import Settings

PROBES_PER_SECOND: Final = 100
WARM_UP_SECONDS: Final = 10.0
AFTER_SECONDS_MAX: Final = 30.0
QUARTERS: Final = 4
LOCATIONS: Final = 4

RATE_SHARE_MIN: Final = 0.99  # of the rate asked for; a sender below it did not keep its schedule
SEND_LATE_MS_MAX: Final = 10.0  # at the 99th percentile
RESOLUTION_MS_MAX: Final = 5.0  # at the 99th percentile, or
RESOLUTION_SHARE_MAX: Final = 0.05  # of the 99th percentile of what is measured


class LatencyRun(msgspec.Struct, frozen=True):
    """One rate, as one JSON line; every figure is in milliseconds since the intended instant but those named otherwise.

    A probe that was not seen counts with the time that it was waited for: where `probes_unseen` is not 0, figures of
    the latency are lower bounds. A run is not `valid` where the measuring, not the flow, was too slow; `faults` say
    why. A flow that is too slow is no fault: its latency grows by the quarter, and lag is left at the end.
    """

    rate: int
    seconds: float
    skus: int
    dataset: str
    valid: bool
    faults: list[str]
    latency_ms: Quantiles
    latency_ms_p50_by_quarter: list[float]
    warm_up_seconds: float
    warm_up_latency_ms: Quantiles
    probes_unseen: int
    sent_per_second: float
    send_late_ms: Quantiles
    send_late_ms_max: float  # of all messages, warm-up among them
    acknowledged_ms: Quantiles
    lag_seconds_at_end: float
    lag_movements_at_end: int  # as many as the probes say that stand for them
    resolution_ms: Quantiles  # how long a seen probe may have been visible before it was seen
    question_rounds_per_second: float
    questions_per_second: float
    reader_cpu_share: float  # of one core
    sender_cpu_share: float
    versions: dict[str, str]
    provenance: Provenance
    started_at: str


class LatencyConfig(NamedTuple):
    """How long and with what skew; the opening stock is read before, and the first `warm_up_seconds` are told apart."""

    seconds: float = 60.0
    skus: int = 20_000
    zipf_exponent: float = 0.0
    hot_share: float = 0.0
    warm_up_seconds: float = WARM_UP_SECONDS

    def load(self, rate: int) -> LoadConfig:
        """The opening stock, and as many movements as are sent at `rate`."""
        return LoadConfig(
            movements=self.skus * LOCATIONS + self.count(rate),
            skus=self.skus,
            locations=LOCATIONS,
            zipf_exponent=self.zipf_exponent,
            hot_share=self.hot_share,
            movements_per_second=rate,
            end_markers=False,
        )

    def count(self, rate: int) -> int:
        """How many movements are sent at `rate`."""
        return self.warm_up_count(rate) + round(rate * self.seconds)

    def warm_up_count(self, rate: int) -> int:
        """How many of them are the warm-up's."""
        return round(rate * self.warm_up_seconds)


class Measured(NamedTuple):
    """What was sent, and how probes stand for it: one for `every` movements."""

    movements: int
    warm_up_movements: int
    every: int
    after_seconds_max: float


class Figures(NamedTuple):
    """What the sheet of a run says; without the warm-up where nothing else is said."""

    latency_ms: Quantiles
    p50_by_quarter: list[float]
    warm_up_latency_ms: Quantiles
    probes_unseen: int
    sent_per_second: float
    send_late_ms: Quantiles
    acknowledged_ms: Quantiles
    lag_seconds_at_end: float
    lag_movements_at_end: int
    resolution_ms: Quantiles


def latency(
    config: LatencyConfig, rates: Sequence[int], seed: int, runs: int, servers: FreshServers = fresh_servers
) -> Iterator[LatencyRun]:
    """Measures every rate `runs` times, the rates in turn, each time on servers of its own."""
    for number, rate in product(range(runs), rates):
        started_at = now_text()
        with (
            tempfile.TemporaryDirectory(prefix="onhand-latency-") as directory,
            servers(config.load(rate).partitions) as addresses,
        ):
            yield _Measuring(config, rate, addresses, Path(directory), seed + number).run(started_at)


class _Measuring:
    """One run."""

    def __init__(self, config: LatencyConfig, rate: int, addresses: Addresses, directory: Path, seed: int) -> None:
        self._config = config
        self._rate = rate
        self._kafka, self._redis_url = addresses
        self._directory = directory
        self._seed = seed
        self._count = config.count(rate)
        self._every = max(1, rate // PROBES_PER_SECOND)

    def run(self, started_at: str) -> LatencyRun:
        """Opening stock, then movements by the schedule, then what came of them."""
        load, random = self._config.load(self._rate), Random(self._seed)  # repeatable on purpose
        stream = movements(load, random)
        produce(self._kafka, list(islice(stream, load.opening_count)))
        prepare(self._directory, stream)
        draw_up(self._directory, self._count, self._every, random)
        more = {"ONHAND_METRICS__LISTEN": f"127.0.0.1:{free_port()}"}
        with onhand_running(self._kafka, self._redis_url, "latency", RULES_PATH, more) as running:
            wait_until_fresh(self._redis_url, running)
            schedule, sent, probed = self._measure(running)
            running.drain()
        figures = figures_of(mapped(self._directory), schedule, self._plan())
        return self._told(figures, sent, probed, started_at)

    def _measure(self, running: Running) -> tuple[Schedule, Sent, Probed]:
        config = self._config
        seconds_max = config.warm_up_seconds + config.seconds + AFTER_SECONDS_MAX + READ_SECONDS_MAX
        sending_plan = SendingPlan(self._kafka, self._rate, self._count, AFTER_SECONDS_MAX)
        probing_plan = ProbingPlan(self._redis_url, PREFIX, self._rate, self._count, AFTER_SECONDS_MAX)
        with (
            Companion(sending, sending_plan, self._directory, Sent) as sender,
            Companion(probing, probing_plan, self._directory, Probed) as reader,
        ):
            sender.wait_ready()
            reader.wait_ready()
            start_ns = start_together([sender, reader])
            probed = reader.result(seconds_max, running.check_alive)
            sent = sender.result(seconds_max, running.check_alive)
        return Schedule(start_ns, self._rate), sent, probed

    def _plan(self) -> Measured:
        config, rate = self._config, self._rate
        return Measured(self._count, config.warm_up_count(rate), self._every, AFTER_SECONDS_MAX)

    def _told(self, figures: Figures, sent: Sent, probed: Probed, started_at: str) -> LatencyRun:
        config, load = self._config, self._config.load(self._rate)
        faults = faults_of(figures, self._rate)
        if sent.count - sent.unacknowledged < self._count:
            taken = sent.count - sent.unacknowledged
            faults.append(f"{sent.count} of {self._count} messages were sent in time, {taken} taken by Kafka")
        return LatencyRun(
            rate=self._rate,
            seconds=config.seconds,
            skus=config.skus,
            dataset=load.dataset,
            valid=not faults,
            faults=faults,
            latency_ms=figures.latency_ms,
            latency_ms_p50_by_quarter=figures.p50_by_quarter,
            warm_up_seconds=config.warm_up_seconds,
            warm_up_latency_ms=figures.warm_up_latency_ms,
            probes_unseen=figures.probes_unseen,
            sent_per_second=figures.sent_per_second,
            send_late_ms=figures.send_late_ms,
            send_late_ms_max=ms(sent.late_ns_max),
            acknowledged_ms=figures.acknowledged_ms,
            lag_seconds_at_end=figures.lag_seconds_at_end,
            lag_movements_at_end=figures.lag_movements_at_end,
            resolution_ms=figures.resolution_ms,
            question_rounds_per_second=round(probed.rounds / probed.seconds, 1),
            questions_per_second=round(probed.questions / probed.seconds, 1),
            reader_cpu_share=round(probed.cpu_seconds / probed.seconds, 3),
            sender_cpu_share=round(sent.cpu_seconds / sent.seconds, 3),
            versions=versions(),
            provenance=provenance(self._settings(load)),
            started_at=started_at,
        )

    def _settings(self, load: LoadConfig) -> dict[str, str]:
        shipped = Settings()
        return {
            "snapshot_seconds": f"{shipped.state.snapshot_seconds:g}",
            "lanes": str(shipped.state.lanes),
            "partitions": str(load.partitions),
            "workers": "1",
            "producer_linger_ms": str(LINGER_MS),
            "seed": str(self._seed),
            "movements_per_probe": str(self._every),
            "redis_appendonly": "yes",
        }


def figures_of(sheet: Sheet, schedule: Schedule, measured: Measured) -> Figures:
    """Latencies count from when a movement was due, not when it was sent; that of an unseen probe until the end."""
    end_ns = schedule.due_ns(measured.movements)
    give_up_ns = end_ns + round(measured.after_seconds_max * NS)
    number, seen_ns, sent_ns = sheet["message"], sheet["seen_ns"], sheet["sent_ns"]
    due_ns = schedule.start_ns + number * NS // schedule.rate
    is_seen = seen_ns != UNKNOWN
    latency_ns = np.where(is_seen, seen_ns, give_up_ns) - due_ns
    counts = number >= measured.warm_up_movements
    is_behind = ~is_seen | (seen_ns > end_ns)
    acknowledged_ns, was_sent = sheet["acknowledged_ns"], counts & (sent_ns != UNKNOWN)
    return Figures(
        latency_ms=_quantiles(latency_ns[counts]),
        p50_by_quarter=[_quantiles(quarter).p50 for quarter in np.array_split(latency_ns[counts], QUARTERS)],
        warm_up_latency_ms=_quantiles(latency_ns[~counts]),
        probes_unseen=int(np.count_nonzero(~is_seen)),
        sent_per_second=_rate(number[was_sent], sent_ns[was_sent]),
        send_late_ms=_quantiles((sent_ns - due_ns)[was_sent]),
        acknowledged_ms=_quantiles((acknowledged_ns - due_ns)[counts & (acknowledged_ns != UNKNOWN)]),
        lag_seconds_at_end=round((end_ns - int(due_ns[is_behind].min(initial=end_ns))) / NS, 3),
        lag_movements_at_end=int(np.count_nonzero(is_behind)) * measured.every,
        resolution_ms=_quantiles((seen_ns - sheet["unseen_ns"])[counts & is_seen]),
    )


def _quantiles(values_ns: NDArray[np.int64]) -> Quantiles:
    return quantiles_ms(values_ns.tolist())


def _rate(numbers: NDArray[np.int64], sent_ns: NDArray[np.int64]) -> float:
    """Messages a second between the first and the last probe; 0 where there are fewer than two."""
    if len(numbers) < 2 or sent_ns[-1] <= sent_ns[0]:  # noqa: PLR2004  # a rate needs two
        return 0.0
    return round(int(numbers[-1] - numbers[0]) * NS / int(sent_ns[-1] - sent_ns[0]), 1)


def faults_of(figures: Figures, rate: int) -> list[str]:
    """Why the figures say nothing about the flow; empty where they do."""
    faults = []
    if figures.sent_per_second < RATE_SHARE_MIN * rate:
        faults.append(f"the sender sent {figures.sent_per_second:g} a second instead of {rate}")
    if figures.send_late_ms.p99 > SEND_LATE_MS_MAX:
        faults.append(f"the sender was {figures.send_late_ms.p99:g} ms behind its schedule (p99)")
    if figures.resolution_ms.p99 > max(RESOLUTION_MS_MAX, RESOLUTION_SHARE_MAX * figures.latency_ms.p99):
        faults.append(f"the reader looked only every {figures.resolution_ms.p99:g} ms (p99)")
    return faults
