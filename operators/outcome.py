"""Outcome: what one activation of a lane leaves behind, while it is being collected, and what made it happen."""

from typing import NamedTuple

from schemas.batches import Mark
from schemas.outputs import (
    Availability,
    Cause,
    DeadLetter,
    Divergence,
    Replenishment,
    Reservation,
    RulesInForce,
    ShadowDifference,
    Threshold,
)
from schemas.records import Records


class Happening(NamedTuple):
    """A record that changed something: where it stands, when it happened, its home's clock, and its name as a cause."""

    origin: int  # row
    offset: int
    time_ms: int
    clock_ms: int
    cause: Cause
    correlation: str | None
    traceparent: str | None


class Outcome:
    """Records to send, in the order in which they came to be."""

    __slots__ = (
        "applied", "dead_letters", "divergences", "duplicates", "is_plain", "marks", "misplaced", "replenishments",
        "reservations", "rules", "shadow", "thresholds", "touched",
    )  # fmt: skip

    def __init__(self) -> None:
        # SKU rows to publish, in the order they were met; the record where it must not show what came later
        self.touched: dict[int, Availability | None] = {}
        self.is_plain = True  # nothing went row by row, so all that was touched is still plain
        self.thresholds: list[Threshold | Records] = []
        self.divergences: list[Divergence] = []
        self.reservations: list[Reservation] = []
        self.replenishments: list[Replenishment] = []
        self.shadow: list[ShadowDifference] = []
        self.rules: list[RulesInForce] = []
        self.dead_letters: list[DeadLetter] = []
        self.marks: list[Mark] = []
        self.applied = 0
        self.duplicates = 0
        self.misplaced = 0
