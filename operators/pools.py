"""Pools: what a channel may draw from, over the positions of a SKU."""

from collections.abc import Iterable
from typing import NamedTuple


class Spare(NamedTuple):
    """One position as a pool sees it: its location, available units and the units that stay there for safety."""

    location: str
    available: int
    safety_units: int


class Pool(NamedTuple):
    """`units` that may be sold, and the `shortfall` of positions that owe more than they hold (both ≥ 0)."""

    units: int
    shortfall: int


def pool_of(positions: Iterable[Spare]) -> Pool:
    """Σ max(0, available − safety), and Σ max(0, −available): a debt at one location takes nothing from another."""
    units = shortfall = 0
    for _, available, safety_units in positions:
        units += max(0, available - safety_units)
        shortfall += max(0, -available)
    return Pool(units, shortfall)
