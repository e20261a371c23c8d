"""Quantiles: what a list of latencies says, by nearest rank, so that every figure is one that was measured."""

from collections.abc import Sequence

import msgspec

NS_PER_MS = 1_000_000


class Quantiles(msgspec.Struct, frozen=True):
    """Of `count` values in milliseconds; all zero where there is none."""

    count: int
    p50: float
    p99: float
    p999: float
    max: float


def quantiles_ms(values_ns: Sequence[int]) -> Quantiles:
    """The quantiles of nanoseconds, in milliseconds to the microsecond."""
    ordered = sorted(values_ns)
    if not ordered:
        return Quantiles(0, 0.0, 0.0, 0.0, 0.0)
    p50, p99, p999, most = (ms(nearest_rank(ordered, per_mille)) for per_mille in (500, 990, 999, 1000))
    return Quantiles(len(ordered), p50, p99, p999, most)


def nearest_rank(ordered: Sequence[int], per_mille: int) -> int:
    """The smallest of the `ordered` values that at least `per_mille` thousandths of them do not exceed (1 to 1000)."""
    return ordered[-(-per_mille * len(ordered) // 1000) - 1]


def ms(value_ns: int) -> float:
    """Nanoseconds as milliseconds, to the microsecond."""
    return round(value_ns / NS_PER_MS, 3)
