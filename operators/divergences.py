"""Divergences: where a system says something else than its movements add up to, opened, changed and closed."""

from typing import Any, Final, Literal, NamedTuple

from schemas.outputs import Divergence, OpenDivergence, divergence_id
from schemas.times import format_ms

Key = tuple[str, str, str]  # SKU, location, system: at most one is open for each
CORRECTED: Final = "corrected"
AGREES: Final = "agrees"


class Finding(NamedTuple):
    """What a system said of a quantity, and what it was compared with."""

    of: str
    stated: int
    derived: int
    time_ms: int
    reason: str
    evidence: list[str]


class _Open(NamedTuple):
    finding: Finding
    opened_ms: int


class Divergences:
    """All open divergences of a lane; `collect` tells what one record changed about them."""

    def __init__(self) -> None:
        self._open: dict[Key, _Open] = {}
        self._of_sku: dict[str, list[Key]] = {}  # what is open of each
        self._before: dict[Key, _Open | None] = {}  # of keys met since the last collect
        self._settled: dict[Key, Finding] = {}
        self._corrected: dict[Key, Finding] = {}

    def diverges(self, key: Key, finding: Finding) -> None:
        """The system disagrees; what it said before is replaced, unless it says the same again."""
        known = self._remember(key)
        if known is None:
            self._open[key] = _Open(finding, finding.time_ms)
            self._of_sku.setdefault(key[0], []).append(key)
        elif not _says_the_same(known.finding, finding):
            self._open[key] = _Open(finding, known.opened_ms)

    def agrees(self, key: Key, of: str, quantity: int, derived: int, time_ms: int) -> None:
        """The system agrees about `of`; an open divergence about something else stays."""
        known = self._remember(key)
        if known is not None and known.finding.of == of:
            self._close(key)
            self._settled[key] = Finding(of, quantity, derived, time_ms, AGREES, [])

    def corrected(self, key: Key, finding: Finding) -> None:
        """The system disagreed and was believed; `finding` names what was adjusted."""
        if self._remember(key) is not None:
            self._close(key)
        self._settled[key] = self._corrected[key] = finding

    def open_of(self, sku: str) -> list[OpenDivergence]:
        """What is open about `sku`, the oldest first."""
        return [
            OpenDivergence(
                location=location,
                system=system,
                of=known.finding.of,
                stated=known.finding.stated,
                derived=known.finding.derived,
                reason=known.finding.reason,
                evidence=known.finding.evidence,
                opened_at=format_ms(known.opened_ms),
            )
            for key in self._of_sku.get(sku, ())
            for known in [self._open[key]]
            for _, location, system in [key]
        ]

    def collect(self, version: int) -> list[Divergence]:
        """The net transitions since the last call, as of the record with offset `version`."""
        events = [event for key, before in self._before.items() for event in self._events(key, before, version)]
        self._before.clear()
        self._settled.clear()
        self._corrected.clear()
        return events

    def dump(self) -> list[Any]:
        """What is open, as plain values."""
        return [[list(key), list(known.finding), known.opened_ms] for key, known in self._open.items()]

    def load(self, dumped: list[Any]) -> None:
        """Replaces everything."""
        self._open = {
            (sku, location, system): _Open(Finding(*finding), opened_ms)
            for (sku, location, system), finding, opened_ms in dumped
        }
        for key in self._open:
            self._of_sku.setdefault(key[0], []).append(key)

    def _close(self, key: Key) -> None:
        del self._open[key]
        mine = self._of_sku[key[0]]
        mine.remove(key)
        if not mine:
            del self._of_sku[key[0]]

    def _remember(self, key: Key) -> _Open | None:
        known = self._open.get(key)
        self._before.setdefault(key, known)
        return known

    def _events(self, key: Key, before: _Open | None, version: int) -> list[Divergence]:
        after = self._open.get(key)
        if after is not None:
            if before is None:
                return [_record(key, "opened", after.finding, after.opened_ms, version)]
            after = self._open[key] = after._replace(opened_ms=before.opened_ms)  # its closing was never told
            if _says_the_same(before.finding, after.finding):
                return []
            return [_record(key, "changed", after.finding, after.opened_ms, version)]
        if before is not None:
            return [_record(key, "closed", self._settled[key], before.opened_ms, version)]
        if (corrected := self._corrected.get(key)) is not None:
            return [_record(key, event, corrected, corrected.time_ms, version) for event in ("opened", "closed")]
        return []


def _says_the_same(one: Finding, other: Finding) -> bool:
    """Whether a reader would learn nothing new; time and evidence alone are no news."""
    return one._replace(time_ms=0, evidence=[]) == other._replace(time_ms=0, evidence=[])


def _record(
    key: Key, event: Literal["opened", "changed", "closed"], finding: Finding, opened_ms: int, version: int
) -> Divergence:
    sku, location, system = key
    return Divergence(
        id=divergence_id(sku, location, system, event, version),
        event=event,
        sku=sku,
        location=location,
        system=system,
        of=finding.of,
        stated=finding.stated,
        derived=finding.derived,
        time=format_ms(finding.time_ms),
        reason=finding.reason,
        evidence=finding.evidence,
        opened_at=format_ms(opened_ms),
    )
