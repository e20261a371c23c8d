"""Model: what one movement costs, as measured with one process, and so how fast N processes are and what ends that.

Whoever does something for every movement has a limit of its own: the seconds that it has in a second, divided by the
seconds that a movement takes of them. The flow is as fast as the smallest limit:

    workers  = processes / worker seconds            (each process has a core of its own)
    redis    = 1 / (Redis seconds × SKU writes)      (it works in one thread; both per movement)
    broker   = broker cores / broker seconds
    network  = link bytes per second / bytes         (of the busier server, what goes in and what comes out together)
    machine  = cores / all three seconds together    (only where all share the cores of one machine)

What it leaves out: that processes send each other movements (in Kafka's partition of one, for a lane of another), that
lanes do not divide evenly among many processes, and that cores which share caches and memory are slower together. So it
is an upper bound, and the report shows how far two real processes are below it.
"""

import statistics
from collections.abc import Sequence
from typing import Final, NamedTuple

from bench.lines import ReportError, Run

MILLION: Final = 1_000_000
LINK_BYTES_PER_SECOND: Final = 10_000_000_000 / 8  # 10 Gbit/s
PROCESSES_PREDICTED: Final = (8, 32, 64)


class Costs(NamedTuple):
    """What a movement costs, each the median of a field of the drains with one process in `scale.jsonl`."""

    worker_seconds_per_million: float  # cpu_seconds_per_million: supervisor and worker
    redis_seconds_per_million_skus: float  # redis_cpu_seconds_per_million_skus: the server, per SKU written
    skus_written_per_movement: float  # skus_written_per_movement: a batch writes a SKU once
    broker_seconds_per_million: float  # broker_cpu_seconds_per_million
    redis_bytes_per_movement: float  # redis_bytes_per_movement: in and out
    broker_bytes_per_movement: float  # broker_bytes_per_movement: movements out, records in

    @property
    def redis_seconds_per_million(self) -> float:
        """Of the Redis server, per million movements."""
        return self.redis_seconds_per_million_skus * self.skus_written_per_movement


FIELDS: Final = dict(
    zip(
        Costs._fields,
        (
            "cpu_seconds_per_million",
            "redis_cpu_seconds_per_million_skus",
            "skus_written_per_movement",
            "broker_cpu_seconds_per_million",
            "redis_bytes_per_movement",
            "broker_bytes_per_movement",
        ),
        strict=True,
    )
)


class Place(NamedTuple):
    """Where it runs: all on the `shared_cores` of one machine, else the workers, Redis and the broker on their own."""

    broker_cores: int
    shared_cores: int | None = None


class Prediction(NamedTuple):
    """Movements a second of so many processes: the limits by name, and the smallest of them."""

    processes: int
    limits: dict[str, float]

    @property
    def limit(self) -> str:
        """What ends it."""
        return min(self.limits, key=lambda name: self.limits[name])

    @property
    def movements_per_second(self) -> float:
        """What comes out."""
        return self.limits[self.limit]

    @property
    def next_limit(self) -> tuple[str, float]:
        """What would end it if the first limit were lifted."""
        rest = {name: rate for name, rate in self.limits.items() if name != self.limit}
        name = min(rest, key=lambda name: rest[name])
        return name, rest[name]


def costs_of(runs: Sequence[Run]) -> Costs:
    """The medians of `runs`, drains with one process; ReportError where there is none."""
    medians = {name: _median(runs, field) for name, field in FIELDS.items()}
    return Costs(**medians)


def _median(runs: Sequence[Run], field: str) -> float:
    numbers = [number for run in runs if (number := run.number(field)) is not None]
    if not numbers:
        raise ReportError(f"no run says {field}: measure the drain with one process")
    return statistics.median(numbers)


def predict(costs: Costs, processes: int, place: Place) -> Prediction:
    """How fast `processes` are at `place`."""
    limits = {
        "workers": processes * _rate(costs.worker_seconds_per_million),
        "Redis": _rate(costs.redis_seconds_per_million),
        "broker": place.broker_cores * _rate(costs.broker_seconds_per_million),
        "network": LINK_BYTES_PER_SECOND / max(costs.redis_bytes_per_movement, costs.broker_bytes_per_movement),
    }
    if place.shared_cores is not None:
        together = costs.worker_seconds_per_million + costs.redis_seconds_per_million + costs.broker_seconds_per_million
        limits["machine"] = place.shared_cores * _rate(together)
    return Prediction(processes, limits)


def _rate(seconds_per_million: float) -> float:
    return MILLION / seconds_per_million
