"""Statements: what a system says a quantity is, kept until everything that was under way could have arrived."""

from collections import Counter
from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import Any, Final

from schemas.movements import Stated
from schemas.rules import SourceRules

PERCENT: Final = 100
_STATED: Final = "stated"


class Statement:
    """One statement that waits; `late` counts movements that arrived after it, dated at or before its time."""

    __slots__ = ("basis", "due_ms", "id", "late", "location", "of", "quantity", "sku", "system", "time_ms")

    def __init__(self, sku: int, stated: Stated, time_ms: int, grace_ms: int) -> None:
        self.sku = sku
        self.location = stated.location
        self.system = stated.source
        self.id = stated.id
        self.of = stated.of
        self.basis = stated.basis
        self.quantity = stated.quantity
        self.time_ms = time_ms
        self.due_ms = time_ms + grace_ms
        self.late = 0

    def as_list(self) -> list[Any]:
        """All attributes in the order of their names."""
        return [getattr(self, name) for name in self.__slots__]

    @classmethod
    def from_list(cls, values: list[Any]) -> "Statement":
        """The statement that `as_list` wrote down."""
        statement = cls.__new__(cls)
        for name, value in zip(cls.__slots__, values, strict=True):
            setattr(statement, name, value)
        return statement


class Waiting:
    """The statements of each home origin that are not due yet."""

    def __init__(self) -> None:
        self._by_place: dict[tuple[int, str], list[Statement]] = {}  # by SKU and location, in the order of arrival
        self._due: dict[int, list[tuple[int, int, Statement]]] = {}  # by home: a heap of (due, arrival, statement)
        self._arrivals = 0
        self._of_sku: Counter[int] = Counter()

    def has(self, sku: int) -> bool:
        """Whether one of `sku` is waiting."""
        return sku in self._of_sku

    def skus(self) -> list[int]:
        """The SKUs of which any is waiting."""
        return list(self._of_sku)

    def add(self, home: int, statement: Statement) -> None:
        """Keeps `statement` until the clock of `home` reaches its due time."""
        self._arrivals += 1
        heappush(self._due.setdefault(home, []), (statement.due_ms, self._arrivals, statement))
        self._by_place.setdefault((statement.sku, statement.location), []).append(statement)
        self._of_sku[statement.sku] += 1

    def note_movement(self, sku: int, location: str, time_ms: int) -> None:
        """A movement of `time_ms` arrived: late for every statement that speaks of its time."""
        for statement in self._by_place.get((sku, location), ()):
            statement.late += time_ms <= statement.time_ms

    def take_due(self, home: int, clock_ms: int) -> Iterator[Statement]:
        """Removes and gives the statements whose time has come, in the order (due, arrival)."""
        heap = self._due.get(home, [])
        while heap and heap[0][0] <= clock_ms:
            _, _, statement = heappop(heap)
            place = (statement.sku, statement.location)
            self._by_place[place].remove(statement)
            if not self._by_place[place]:
                del self._by_place[place]
            self._of_sku[statement.sku] -= 1
            if not self._of_sku[statement.sku]:
                del self._of_sku[statement.sku]
            yield statement

    def dump(self) -> list[Any]:
        """Everything, as plain values."""
        return [
            [home, arrival, statement.as_list()] for home, heap in self._due.items() for _, arrival, statement in heap
        ]

    def load(self, dumped: list[Any]) -> None:
        """Replaces everything."""
        self._arrivals = max((arrival for _, arrival, _ in dumped), default=0)
        for home, arrival, values in sorted(dumped, key=lambda row: row[1]):
            statement = Statement.from_list(values)
            self._due.setdefault(home, []).append((statement.due_ms, arrival, statement))
            self._by_place.setdefault((statement.sku, statement.location), []).append(statement)
            self._of_sku[statement.sku] += 1
        for heap in self._due.values():
            heapify(heap)


def is_within(stated: int, derived: int, rule: SourceRules) -> bool:
    """Whether the two differ by no more than the source's tolerance, in units or in percent of what it says."""
    return abs(stated - derived) <= max(rule.tolerance_units, stated * rule.tolerance_percent // PERCENT)


def may_correct(source: str, location: str, sources: Mapping[str, SourceRules]) -> bool:
    """Whether a statement of `source` adjusts `location`: its rule says so, and nobody of more authority may."""
    rule = sources.get(source)
    if rule is None or not _corrects(rule, location):
        return False
    return all(other.authority <= rule.authority for other in sources.values() if _corrects(other, location))


def _corrects(rule: SourceRules, location: str) -> bool:
    speaks = rule.kinds is None or _STATED in rule.kinds
    return rule.corrects and speaks and (rule.locations is None or location in rule.locations)
