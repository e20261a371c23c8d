"""Reorder points: those that were worked out last, for compiled loops, which only ask whether they are reached."""

from typing import Final, NamedTuple

import numpy as np

from operators.columns import Array, grown, record_of
from operators.plain import NO_LEVEL

_POINT: Final = record_of(
    [
        ("reorder_at", np.int64),
        ("units", np.int64),
        *((name, np.int32) for name in ("class_", "day", "stock_day", "stock_days", "edits")),
        ("has_stock", np.int8),
    ]
)


class DemandState(NamedTuple):
    """What the demand of a position follows from: as long as all of it is the same, so is the demand."""

    day: int  # it is that of the days before
    has_stock: bool
    stock_day: int
    stock_days: int
    edits: int
    units: int


class ReorderPoints:
    """By position, some of the first ones: a reorder point, and what it holds for."""

    def __init__(self) -> None:
        self.table: Array = np.zeros(0, _POINT)
        self.moves = 0

    def note(self, position: int, class_: int, state: DemandState, reorder_at: int | None) -> None:
        """A SKU of this class of rules buys at `reorder_at`, None: never, as long as `state` is this."""
        if position >= len(self.table):
            self.table = grown(self.table, position + 1)
            self.moves += 1
        point = self.table[position]
        point["reorder_at"] = NO_LEVEL if reorder_at is None else reorder_at
        point["class_"] = class_ + 1
        for name, value in state._asdict().items():
            point[name] = value

    def forget(self) -> None:
        """Other rules are in force, so classes are others."""
        self.table["class_"] = 0
