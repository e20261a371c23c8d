"""Levels and crossings: in stock, low or out, with hysteresis."""

from typing import Final, NamedTuple

from schemas.outputs import Level

LEVELS: Final[tuple[Level, ...]] = ("out_of_stock", "low_stock", "in_stock")
OUT_OF_STOCK, LOW_STOCK, IN_STOCK = range(3)


class Standing(NamedTuple):
    """Where something stands: its level as an index of LEVELS, and whether it has recovered since it was last low."""

    level: int
    recovered: bool


START = Standing(OUT_OF_STOCK, recovered=False)


def standing_after(before: Standing, units: int, low_stock_at: int, recovered_at: int) -> Standing:
    """≤ `low_stock_at` is not recovered, ≥ `recovered_at` is, in between stays as it was; 0 or less is out of stock."""
    recovered = before.recovered
    if units <= low_stock_at:
        recovered = False
    elif units >= recovered_at:
        recovered = True
    if units <= 0:
        return Standing(OUT_OF_STOCK, recovered)
    return Standing(IN_STOCK if recovered else LOW_STOCK, recovered)


def threshold_crossed(before: int, after: int, low_stock_at: int, recovered_at: int) -> int:
    """The number of units whose crossing made the level change."""
    if after == IN_STOCK:
        return recovered_at
    return low_stock_at if (before, after) == (IN_STOCK, LOW_STOCK) else 0
