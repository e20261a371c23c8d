"""Homes: what holds in each partition besides the rules of SKUs, as compiled loops want it."""

from collections.abc import Callable
from typing import Final

import numpy as np

from operators.columns import Array, IndexedNames
from operators.compiling import Held, hold
from operators.plain import KIND_NAMES, Home
from operators.rules import RuleBook
from operators.trust import Trust
from schemas.rules import SourceRules

_EVERY_KIND: Final = (1 << len(KIND_NAMES)) - 1


class Homes:
    """Who may say what in a partition, and how much it believes locations; made anew where something has changed.

    `sources` and `locations` are all names that the lane knows. `has_changed` is called whenever sources may have come.
    """

    def __init__(
        self, sources: IndexedNames, locations: IndexedNames, trust: Trust, has_changed: Callable[[], None]
    ) -> None:
        self._sources = sources
        self._locations = locations
        self._trust = trust
        self._has_changed = has_changed
        self._known: dict[int, tuple[tuple[RuleBook, int, int, int], Held[Home]]] = {}

    def of(self, origin: int, book: RuleBook) -> Held[Home]:
        """What holds in the partition with this row, which goes by `book`."""
        known = self._known.get(origin)
        if known is None or known[0] != self._as_of(book):
            made = hold(self._made(origin, book))
            known = self._known[origin] = self._as_of(book), made
        return known[1]

    def _as_of(self, book: RuleBook) -> tuple[RuleBook, int, int, int]:
        return book, self._sources.moves, len(self._locations), self._trust.changes

    def _made(self, origin: int, book: RuleBook) -> Home:
        for name in book.sources:
            self._sources.add(name)
        self._has_changed()
        rules = [book.sources.get(name) for name in self._sources]
        kinds = [0 if rule is None else _kinds(rule) for rule in rules]
        noted = [rule is not None and rule.kinds is not None for rule in rules]
        trusts = self._trust.percents(origin, self._locations)
        return Home(
            int(not book.sources),
            self._sources.table,
            np.array(kinds, np.int64),
            np.array(noted, np.int8),
            self._places(rules),
            np.array(trusts, np.int64),
        )

    def _places(self, rules: list[SourceRules | None]) -> Array:
        table = [[rule is not None and _may_speak_of(location, rule) for location in self._locations] for rule in rules]
        return np.array(table, np.int8).reshape(len(rules), len(self._locations))


def _may_speak_of(location: str, rule: SourceRules) -> bool:
    return rule.locations is None or location in rule.locations


def _kinds(rule: SourceRules) -> int:
    """A bit for each of KIND_NAMES that the source may say."""
    if rule.kinds is None:
        return _EVERY_KIND
    return sum(1 << bit for bit, kind in enumerate(KIND_NAMES) if kind in rule.kinds)
