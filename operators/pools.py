"""Pools: what a channel may draw from, over the positions of a SKU."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Spare(NamedTuple):
    """What one position gives to a pool: units beyond its safety stock, and units that it owes (both ≥ 0)."""

    location: int  # row of the location
    units: int
    shortfall: int


class Pool(NamedTuple):
    """`units` that may be sold, and the `shortfall` of positions that owe more than they hold (both ≥ 0)."""

    units: int
    shortfall: int


def spare_of(location: int, available: int, safety_units: int) -> Spare:
    """max(0, available − safety) and max(0, −available)."""
    over = available - safety_units
    return Spare(location, max(over, 0), -available if available < 0 else 0)


def pool_of(spares: Iterable[Spare], draws: Sequence[bool]) -> Pool:
    """The sums over the locations that are drawn on: a debt at one takes nothing from another."""
    units = shortfall = 0
    for location, spare_units, owed in spares:
        if draws[location]:
            units += spare_units
            shortfall += owed
    return Pool(units, shortfall)
