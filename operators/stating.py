"""Stating: counts and statements, each judged as of its own time."""

from typing import Any, Final, NamedTuple

from operators.causes import Cause, Sightings
from operators.divergences import CORRECTED, Divergences, Finding
from operators.last_facts import LastFacts
from operators.positions import available_units
from operators.statements import Statement, Waiting, is_within, may_correct
from operators.stock import Stock
from schemas.movements import Counted, Movement, Stated
from schemas.outputs import Divergence, OpenDivergence
from schemas.rules import SourceRules
from schemas.times import duration_ms, format_ms

COUNT_TOO_OLD: Final = "count_too_old"
_HELD: Final = ("on_hand", "reserved", "allocated", "quarantined")
_NO_RULE: Final = SourceRules()


class Correction(NamedTuple):
    """A statement that was believed: the SKU it changed, and who said so."""

    sku: int
    source: str
    id: str


class Stating:
    """What systems say of a lane's positions, compared with what their movements add up to."""

    def __init__(self, stock: Stock, facts: LastFacts) -> None:
        self._stock = stock
        self._facts = facts
        self._waiting = Waiting()
        self._divergences = Divergences()
        self.sightings = Sightings()

    def note_movement(self, sku: int, movement: Movement, time_ms: int) -> None:
        """A plain movement was applied; it may explain a divergence."""
        position = self._stock.position(sku, movement.location)
        self.sightings.note(position, movement, self._stock.book(sku).sources.get(movement.source))
        if movement.sequence is not None:
            self.sightings.sequences.note(position, movement.source, movement.sequence)
        self._waiting.note_movement(sku, movement.location, time_ms)

    def count(self, sku: int, counted: Counted, time_ms: int) -> bool:
        """Applies a count; False where it is older than what the position remembers, which opens a divergence."""
        known = self._stock.position(sku, counted.location)
        key = (counted.sku, counted.location, counted.source)
        if known >= 0 and time_ms < self._stock.history.horizon_ms(known):
            evidence = [f"history begins {format_ms(self._stock.history.horizon_ms(known))}"]
            derived = self._stock.value(known, counted.of)
            finding = Finding(counted.of, counted.quantity, derived, time_ms, COUNT_TOO_OLD, evidence)
            self._divergences.diverges(key, finding)
            return False
        position = self._stock.reach(sku, counted.location, time_ms)
        value = counted.quantity
        if counted.of == "on_hand" and not counted.includes_picked:
            value += max(0, self._stock.value_at(position, "picked", time_ms))
        self._stock.count(position, counted.of, time_ms, value)
        if counted.sequence is not None:
            self.sightings.sequences.note(position, counted.source, counted.sequence)
        self._divergences.agrees(key, counted.of, counted.quantity, counted.quantity, time_ms)
        return True

    def is_too_old(self, sku: int, stated: Stated, time_ms: int) -> bool:
        """Whether the position no longer remembers the statement's time."""
        position = self._stock.position(sku, stated.location)
        return position >= 0 and time_ms < self._stock.history.horizon_ms(position)

    def state(self, sku: int, stated: Stated, time_ms: int, home: int, clock_ms: int) -> list[Correction]:
        """Judges a statement at once where its grace is over, or keeps it; returns what it corrected."""
        rule = self._stock.book(sku).sources.get(stated.source, _NO_RULE)
        statement = Statement(sku, stated, time_ms, duration_ms(rule.grace))
        if statement.due_ms <= clock_ms:
            return self._judge(statement)
        self._waiting.add(home, statement)
        return []

    def judge_due(self, home: int, clock_ms: int) -> list[Correction]:
        """Judges the statements whose grace is over now that the clock of `home` shows `clock_ms`."""
        return [
            correction for statement in self._waiting.take_due(home, clock_ms) for correction in self._judge(statement)
        ]

    def waits_for(self, sku: int) -> bool:
        """Whether a statement about `sku` waits for its grace."""
        return self._waiting.has(sku)

    def waiting_skus(self) -> list[int]:
        """The SKUs of which a statement waits."""
        return self._waiting.skus()

    def open_of(self, sku: int) -> list[OpenDivergence]:
        """The systems that disagree about `sku` now."""
        return self._divergences.open_of(self._stock.names[sku])

    def collect(self, version: int) -> list[Divergence]:
        """What the record with offset `version` changed about divergences."""
        return self._divergences.collect(version)

    def dump(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "waiting": self._waiting.dump(),
            "divergences": self._divergences.dump(),
            "sightings": self.sightings.dump(),
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Replaces everything."""
        self._waiting.load(dumped["waiting"])
        self._divergences.load(dumped["divergences"])
        self.sightings.load(dumped["sightings"])

    def _judge(self, statement: Statement) -> list[Correction]:
        position = self._stock.position(statement.sku, statement.location)
        if position >= 0 and statement.time_ms < self._stock.history.horizon_ms(position):
            return []  # nobody knows any more what was there
        derived = 0 if position < 0 else self._derived(position, statement)
        key = (self._stock.names[statement.sku], statement.location, statement.system)
        sources = self._stock.book(statement.sku).sources
        rule = sources.get(statement.system)
        if is_within(statement.quantity, derived, rule or _NO_RULE):
            self._divergences.agrees(key, statement.of, statement.quantity, derived, statement.time_ms)
            return []
        difference = statement.quantity - derived
        if may_correct(statement.system, statement.location, sources):
            quantity = "on_hand" if statement.of == "available" else statement.of
            self._stock.move(statement.sku, statement.location, {quantity: +1}, difference, statement.time_ms)
            cause = Cause(CORRECTED, [f"{quantity} adjusted by {difference:+d}"])
            self._divergences.corrected(key, _finding(statement, derived, cause))
            return [Correction(statement.sku, statement.system, statement.id)]
        of_stock = statement.of in ("on_hand", "available")
        recent = [seen for seen in self._facts.sightings(statement.sku) if seen.location == statement.location]
        cause = self.sightings.cause_of(
            recent, position, statement.system, difference, statement.late, rule, of_stock=of_stock
        )
        self._divergences.diverges(key, _finding(statement, derived, cause))
        return []

    def _derived(self, position: int, statement: Statement) -> int:
        """What the movements add up to at the statement's time."""
        if statement.of != "available":
            return self._stock.value_at(position, statement.of, statement.time_ms)
        on_hand, reserved, allocated, quarantined = (
            self._stock.value_at(position, quantity, statement.time_ms) for quantity in _HELD
        )
        if statement.basis == "on_shelf":
            return on_hand - max(0, quarantined)
        return available_units(on_hand, reserved, allocated, quarantined)


def _finding(statement: Statement, derived: int, cause: Cause) -> Finding:
    return Finding(statement.of, statement.quantity, derived, statement.time_ms, cause.reason, cause.evidence)
