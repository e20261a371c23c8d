"""Figures: the median of runs with their smallest and largest, as people read it."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

NOT_MEASURED = "–"


class Spread(NamedTuple):
    """What several runs say about one thing."""

    median: float
    smallest: float
    largest: float

    def text(self, digits: int) -> str:
        """`21,000 (20,500–21,400)`, or one number where all runs agree."""
        median, smallest, largest = (f"{value:,.{digits}f}" for value in self)
        return median if smallest == median == largest else f"{median} ({smallest}–{largest})"


def spread_of(values: Sequence[float]) -> Spread | None:
    """Of `values`; None where there is none."""
    return Spread(statistics.median(values), min(values), max(values)) if values else None


def told(spread: Spread | None, digits: int) -> str:
    """As a cell of a table."""
    return NOT_MEASURED if spread is None else spread.text(digits)
