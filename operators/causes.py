"""Causes: why a statement probably differs from what the movements add up to."""

from typing import Any, Final, NamedTuple

from operators.last_facts import Sighting
from operators.sequences import Sequences
from schemas.movements import PLAIN_KINDS, Movement
from schemas.rules import SourceRules

_PLAIN_NAMES: Final = frozenset(str(kind.__struct_config__.tag) for kind in PLAIN_KINDS)


class Cause(NamedTuple):
    """The name of the likely cause, and what speaks for it."""

    reason: str
    evidence: list[str]


UNKNOWN: Final = Cause("unknown", [])


class Sightings:
    """What was heard at each position and from whom, as far as causes need it."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[int, str], set[str]] = {}  # by position and source, where a source's kinds are known
        self.sequences = Sequences()

    def note(self, position: int, movement: Movement, rule: SourceRules | None) -> None:
        """A plain movement was applied; `rule` is its source's."""
        if rule is not None and rule.kinds is not None:
            kind = str(movement.__struct_config__.tag)
            self._kinds.setdefault((position, movement.source), set()).add(kind)

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
        return {
            "kinds": [[*key, sorted(kinds)] for key, kinds in self._kinds.items()],
            "sequences": self.sequences.dump(),
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Replaces everything."""
        self._kinds = {(position, source): set(kinds) for position, source, kinds in dumped["kinds"]}
        self.sequences.load(dumped["sequences"])

    def _unheard(self, position: int, system: str, rule: SourceRules | None) -> list[str]:
        if rule is None or rule.kinds is None:
            return []
        return sorted(_PLAIN_NAMES & set(rule.kinds) - self._kinds.get((position, system), set()))


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
