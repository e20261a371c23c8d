"""Causes: why a statement probably differs from what the movements add up to."""

from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np

from operators.columns import Columns, IndexedNames, Pairs
from operators.last_facts import Sighting
from operators.plain import KIND_NAMES
from operators.sequences import Sequences
from schemas.movements import PLAIN_KINDS, Movement
from schemas.rules import SourceRules

_PLAIN_NAMES: Final = frozenset(str(kind.__struct_config__.tag) for kind in PLAIN_KINDS)
_HEARD: Final[dict[str, type[np.generic]]] = {"source": np.int32, "position": np.int32, "kinds": np.int64}
_BITS: Final = (*KIND_NAMES, *sorted(_PLAIN_NAMES.difference(KIND_NAMES)))  # of `kinds`; compiled loops set the first


class Cause(NamedTuple):
    """The name of the likely cause, and what speaks for it."""

    reason: str
    evidence: list[str]


UNKNOWN: Final = Cause("unknown", [])


class Sightings:
    """What was heard at each position and from whom, as far as causes need it.

    `sources` are the names of sources; of those whose kinds are known, each position has a row of `heard`: which kinds.
    """

    def __init__(self) -> None:
        self.sources = IndexedNames()
        self.heard = Columns(_HEARD)
        self.rows = Pairs(self.heard, "source", "position")
        self.sequences = Sequences()

    def note(self, position: int, movement: Movement, rule: SourceRules | None) -> None:
        """A plain movement was applied; `rule` is its source's."""
        if rule is not None and rule.kinds is not None:
            self._note(position, movement.source, [str(movement.__struct_config__.tag)])

    def cause_of(  # what a cause is looked for with
        self,
        recent: list[Sighting],
        position: int,
        system: str,
        difference: int,
        late: int,
        rule: SourceRules | None,
        *,
        of_stock: bool,
    ) -> Cause:
        """The first cause that applies to a statement of `system` that is `difference` units above what was derived.

        `recent` are the latest movements at the position; `rule` is the system's; `late` counts the movements that
        arrived after the statement although they were dated before it; `of_stock`: whether the statement's quantity
        moves with on_hand.
        """
        if missing := self.sequences.evidence(position):
            return Cause("gap", missing)
        if of_stock and (repeated := _repeated(recent, difference)):
            return Cause("duplicate_source", [repeated])
        if late:
            return Cause("late", [f"{late} movement{'s' if late > 1 else ''} arrived late"])
        if unheard := self._unheard(position, system, rule):
            return Cause("missing_kind", [f"never heard: {', '.join(unheard)}"])
        return UNKNOWN

    def dump(self) -> dict[str, Any]:
        """Everything, as plain values."""
        columns = (self.heard[name].tolist() for name in ("position", "source", "kinds"))
        return {
            "kinds": [
                [position, self.sources[source], _kinds_of(kinds)]
                for position, source, kinds in zip(*columns, strict=True)
            ],
            "sequences": self.sequences.dump(),
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Adds what was dumped, where nothing is yet."""
        for position, source, kinds in dumped["kinds"]:
            self._note(position, source, kinds)
        self.sequences.load(dumped["sequences"])

    def _note(self, position: int, source: str, kinds: list[str]) -> None:
        row = self.rows.add(self.sources.add(source), position)
        for kind in kinds:
            self.heard.cells["kinds"][row] |= 1 << _BITS.index(kind)

    def _unheard(self, position: int, system: str, rule: SourceRules | None) -> list[str]:
        if rule is None or rule.kinds is None:
            return []
        row = self.rows.row(self.sources.row(system), position)
        heard = _kinds_of(self.heard.cells["kinds"][row]) if row >= 0 else []
        return sorted(_PLAIN_NAMES & set(rule.kinds).difference(heard))


@lru_cache(maxsize=1024)
def _kinds_of(bits: int) -> list[str]:
    """The names of kinds, sorted; not to be changed."""
    return sorted(kind for bit, kind in enumerate(_BITS) if bits >> bit & 1)


def _repeated(recent: list[Sighting], difference: int) -> str | None:
    """The same thing told by two sources, where taking one away would explain the difference."""
    for index, one in enumerate(recent):
        for other in recent[index + 1 :]:
            reference = _shared_reference(one, other)
            if reference and one.on_hand == -difference and one.source != other.source:
                return f"{reference} {one.kind} by {one.source} and {other.source}"
    return None


def _shared_reference(one: Sighting, other: Sighting) -> str | None:
    if (one.kind, one.quantity, one.on_hand) != (other.kind, other.quantity, other.on_hand):
        return None
    if one.order is not None and one.order == other.order:
        return f"order {one.order}"
    if one.document is not None and one.document == other.document:
        return f"document {one.document}"
    return None
