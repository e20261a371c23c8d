"""Causes: why a statement probably differs from what the movements add up to."""

from typing import Any, Final, NamedTuple

from operators.positions import effect_of, signed_units
from operators.sequences import Sequences
from schemas.movements import PLAIN_KINDS, Movement
from schemas.rules import SourceRules

RECENT_MAX: Final = 8
_PLAIN_NAMES: Final = frozenset(str(kind.__struct_config__.tag) for kind in PLAIN_KINDS)


class Cause(NamedTuple):
    """The name of the likely cause, and what speaks for it."""

    reason: str
    evidence: list[str]


UNKNOWN: Final = Cause("unknown", [])


class _Sighting(NamedTuple):
    """What a duplicate from another source would repeat, and what it did to on_hand."""

    position: int
    kind: str
    quantity: int
    order: str | None
    document: str | None
    source: str
    on_hand: int


class Sightings:
    """What was heard lately of each SKU and from whom, as far as causes need it."""

    def __init__(self) -> None:
        self._recent: dict[int, list[_Sighting]] = {}  # by SKU, the latest 8
        self._kinds: dict[tuple[int, str], set[str]] = {}  # by position and source, where a source's kinds are known
        self.sequences = Sequences()

    def note(self, sku: int, position: int, movement: Movement, rule: SourceRules | None) -> None:
        """A plain movement was applied; `rule` is its source's."""
        kind = str(movement.__struct_config__.tag)
        on_hand = effect_of(movement).here.get("on_hand", 0) * signed_units(movement)
        recent = self._recent.setdefault(sku, [])
        recent.append(
            _Sighting(position, kind, movement.quantity, movement.order, movement.document, movement.source, on_hand)
        )
        del recent[:-RECENT_MAX]
        if rule is not None and rule.kinds is not None:
            self._kinds.setdefault((position, movement.source), set()).add(kind)

    def cause_of(  # what a cause is looked for with
        self,
        sku: int,
        position: int,
        system: str,
        difference: int,
        late: int,
        rule: SourceRules | None,
        *,
        of_stock: bool,
    ) -> Cause:
        """The first cause that applies to a statement of `system` that is `difference` units above what was derived.

        `rule` is the system's; `late` counts the movements that arrived after the statement although they were dated
        before it; `of_stock`: whether the statement's quantity moves with on_hand.
        """
        if missing := self.sequences.evidence(position):
            return Cause("gap", missing)
        if of_stock and (repeated := self._repeated(sku, position, difference)):
            return Cause("duplicate_source", [repeated])
        if late:
            return Cause("late", [f"{late} movement{'s' if late > 1 else ''} arrived late"])
        if unheard := self._unheard(position, system, rule):
            return Cause("missing_kind", [f"never heard: {', '.join(unheard)}"])
        return UNKNOWN

    def dump(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "recent": [[sku, [list(sighting) for sighting in recent]] for sku, recent in self._recent.items()],
            "kinds": [[*key, sorted(kinds)] for key, kinds in self._kinds.items()],
            "sequences": self.sequences.dump(),
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Replaces everything."""
        self._recent = {sku: [_Sighting(*sighting) for sighting in recent] for sku, recent in dumped["recent"]}
        self._kinds = {(position, source): set(kinds) for position, source, kinds in dumped["kinds"]}
        self.sequences.load(dumped["sequences"])

    def _repeated(self, sku: int, position: int, difference: int) -> str | None:
        """The same thing told by two sources, where taking one away would explain the difference."""
        here = [sighting for sighting in self._recent.get(sku, ()) if sighting.position == position]
        for index, one in enumerate(here):
            for other in here[index + 1 :]:
                reference = _shared_reference(one, other)
                if reference and one.on_hand == -difference and one.source != other.source:
                    return f"{reference} {one.kind} by {one.source} and {other.source}"
        return None

    def _unheard(self, position: int, system: str, rule: SourceRules | None) -> list[str]:
        if rule is None or rule.kinds is None:
            return []
        return sorted(_PLAIN_NAMES & set(rule.kinds) - self._kinds.get((position, system), set()))


def _shared_reference(one: _Sighting, other: _Sighting) -> str | None:
    if (one.kind, one.quantity, one.on_hand) != (other.kind, other.quantity, other.on_hand):
        return None
    if one.order is not None and one.order == other.order:
        return f"order {one.order}"
    if one.document is not None and one.document == other.document:
        return f"document {one.document}"
    return None
