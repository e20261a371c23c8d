"""Statements by the oracle: what a system says, what its movements add up to, and what may lie behind a difference."""

from itertools import combinations
from typing import Literal

from bench.oracle_article import Article, Finding, Position, Waiting, available, signs
from schemas import movements as m
from schemas.movements import PLAIN_KINDS, Movement
from schemas.outputs import Divergence, divergence_id
from schemas.rules import Rules, SourceRules
from schemas.times import duration_ms, format_ms

Event = Literal["opened", "changed", "closed"]
EVIDENCE_MAX = 5
_PLAIN = {str(kind.__struct_config__.tag) for kind in PLAIN_KINDS}


class Judgement:
    """What one record did to the divergences of one SKU: how each was before, and how those that are gone ended."""

    def __init__(self, article: Article) -> None:
        self._article = article
        self._before: dict[tuple[str, str], Finding | None] = {}
        self._endings: dict[tuple[str, str], Finding] = {}

    def found(self, place: str, system: str, finding: Finding) -> None:
        """A system says what is not so."""
        known = self._remember(place, system)
        if known is None:
            self._article.findings[place, system] = finding
        elif _says(known) != _says(finding):
            self._article.findings[place, system] = finding._replace(opened_ms=known.opened_ms)

    def agreed(self, place: str, system: str, of: str, units: tuple[int, int], time_ms: int) -> None:
        """A system is right (or counted) about `of`: (stated, derived) units."""
        known = self._remember(place, system)
        if known is not None and known.of == of:
            del self._article.findings[place, system]
            self._endings[place, system] = Finding(of, *units, time_ms, "agrees", (), known.opened_ms)

    def corrected(self, place: str, system: str, finding: Finding) -> None:
        """A system says what was not so, and now is."""
        known = self._remember(place, system)
        self._article.findings.pop((place, system), None)
        opened_ms = known.opened_ms if known is not None else finding.opened_ms
        self._endings[place, system] = finding._replace(opened_ms=opened_ms)

    def divergences(self, version: int) -> list[Divergence]:
        """The records of what is different now."""
        return [
            _record(self._article.sku, key, event, finding, version)
            for key, before in self._before.items()
            for event, finding in self._events(key, before)
        ]

    def _remember(self, place: str, system: str) -> Finding | None:
        known = self._article.findings.get((place, system))
        self._before.setdefault((place, system), known)
        return known

    def _events(self, key: tuple[str, str], before: Finding | None) -> list[tuple[Event, Finding]]:
        now = self._article.findings.get(key)
        if now is not None and before is not None:
            now = self._article.findings[key] = now._replace(opened_ms=before.opened_ms)
            return [("changed", now)] if _says(now) != _says(before) else []
        if now is not None:
            return [("opened", now)]
        if before is not None:
            return [("closed", self._endings[key]._replace(opened_ms=before.opened_ms))]
        ending = self._endings.get(key)
        if ending is None or ending.reason != "corrected":
            return []
        return [("opened", ending), ("closed", ending)]


def grace_ms(rules: Rules, source: str) -> int:
    """How long after its time a statement of `source` is judged."""
    return duration_ms(rules.sources[source].grace) if source in rules.sources else 0


def judge(article: Article, statement: Waiting, rules: Rules, judgement: Judgement) -> bool:
    """Compare a statement with its position as it was then; whether the position was corrected."""
    fact, time_ms = statement.fact, statement.time_ms
    if article.too_old_for(fact.location, time_ms):
        return False
    then = article.places.get(fact.location, Position()).all_at(time_ms)
    derived = _derived(fact, then)
    if abs(fact.quantity - derived) <= _tolerance(fact, rules.sources.get(fact.source)):
        judgement.agreed(fact.location, fact.source, fact.of, (fact.quantity, derived), time_ms)
        return False
    if _corrects(rules, fact.source, fact.location):
        quantity = "on_hand" if fact.of == "available" else fact.of
        position = article.position(fact.location)
        before = position.available
        position.move(quantity, time_ms, fact.quantity - derived)
        position.reach(time_ms, before)
        evidence = (f"{quantity} adjusted by {fact.quantity - derived:+d}",)
        finding = Finding(fact.of, fact.quantity, derived, time_ms, "corrected", evidence, time_ms)
        judgement.corrected(fact.location, fact.source, finding)
        return True
    cause = _likely_cause(article, statement, fact.quantity - derived, rules)
    judgement.found(fact.location, fact.source, Finding(fact.of, fact.quantity, derived, time_ms, *cause, time_ms))
    return False


def too_old_count(article: Article, fact: m.Counted, time_ms: int, judgement: Judgement) -> None:
    """A count from a time that the position has forgotten."""
    position = article.places[fact.location]
    evidence = (f"history begins {format_ms(position.newest_ms - article.as_of_window_ms)}",)
    derived = position.now[fact.of]
    finding = Finding(fact.of, fact.quantity, derived, time_ms, "count_too_old", evidence, time_ms)
    judgement.found(fact.location, fact.source, finding)


def _says(finding: Finding) -> tuple[str, int, int, str]:
    return finding.of, finding.stated, finding.derived, finding.reason


def _derived(fact: m.Stated, then: dict[str, int]) -> int:
    if fact.of != "available":
        return then[fact.of]
    return available(then) if fact.basis == "salable" else then["on_hand"] - max(0, then["quarantined"])


def _tolerance(fact: m.Stated, source: SourceRules | None) -> int:
    if source is None:
        return 0
    return max(source.tolerance_units, fact.quantity * source.tolerance_percent // 100)


def _corrects(rules: Rules, name: str, place: str) -> bool:
    """Whether the word of a source changes what is there: no other that corrects at this location outranks it."""
    source = rules.sources.get(name)
    if source is None or not _may_correct(source, place):
        return False
    others = [other for key, other in rules.sources.items() if key != name and _may_correct(other, place)]
    return all(other.authority <= source.authority for other in others)


def _may_correct(source: SourceRules, place: str) -> bool:
    may_state = source.kinds is None or "stated" in source.kinds
    return source.corrects and may_state and (source.locations is None or place in source.locations)


# Likely causes


def _likely_cause(article: Article, statement: Waiting, difference: int, rules: Rules) -> tuple[str, tuple[str, ...]]:
    """(reason, evidence): the first that applies."""
    fact = statement.fact
    if evidence := _missing(article, fact.location):
        return "gap", evidence
    if fact.of in ("on_hand", "available") and (evidence := _told_twice(article, fact.location, difference)):
        return "duplicate_source", evidence
    if late := article.late.get(statement.number, 0):
        return "late", (f"{late} movement{'s' if late > 1 else ''} arrived late",)
    if evidence := _never_heard(article, fact, rules):
        return "missing_kind", evidence
    return "unknown", ()


def _missing(article: Article, location: str) -> tuple[str, ...]:
    missing = [
        f"sequence {number} of {source} missing"
        for place, source in sorted(article.numbering)
        if place == location
        for number in sorted(article.numbering[place, source].missing)
    ]
    return tuple(missing[:EVIDENCE_MAX])


def _told_twice(article: Article, place: str, difference: int) -> tuple[str, ...]:
    """Two sources told of the same thing, and without one of them the difference would not be there."""
    here = [movement for movement in article.recent if movement.location == place]
    for first, second in combinations(here, 2):
        paper = _same_paper(first, second)
        if paper and difference == -signs(first).get("on_hand", 0) * first.quantity:
            kind = first.__struct_config__.tag
            return (f"{paper} {kind} by {first.source} and {second.source}",)
    return ()


def _same_paper(first: Movement, second: Movement) -> str | None:
    """The order or document under which two sources told of the same thing."""
    if first.source == second.source or type(first) is not type(second) or _moved(first) != _moved(second):
        return None
    if first.order is not None and first.order == second.order:
        return f"order {first.order}"
    if first.document is not None and first.document == second.document:
        return f"document {first.document}"
    return None


def _moved(movement: Movement) -> tuple[int, bool]:
    return movement.quantity, movement.reversal


def _never_heard(article: Article, fact: m.Stated, rules: Rules) -> tuple[str, ...]:
    kinds = rules.sources[fact.source].kinds if fact.source in rules.sources else None
    heard = {kind for place, source, kind in article.heard if (place, source) == (fact.location, fact.source)}
    silent = {kind for kind in kinds or () if kind in _PLAIN} - heard
    return (f"never heard: {', '.join(sorted(silent))}",) if silent else ()


def _record(sku: str, key: tuple[str, str], event: Event, finding: Finding, version: int) -> Divergence:
    place, system = key
    return Divergence(
        id=divergence_id(sku, place, system, event, version),
        event=event,
        sku=sku,
        location=place,
        system=system,
        of=finding.of,
        stated=finding.stated,
        derived=finding.derived,
        time=format_ms(finding.time_ms),
        reason=finding.reason,
        evidence=list(finding.evidence),
        opened_at=format_ms(finding.opened_ms),
    )
