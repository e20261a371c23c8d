"""One partition by the oracle: its clock, its rules from generation to generation, and its trust in locations."""

from collections import defaultdict
from typing import Any, Literal, NamedTuple

import msgspec

from bench.oracle_article import Article
from bench.oracle_offers import holds
from bench.oracle_planning import has_come, minute_of
from schemas.movements import LocationTrusted, RulesChanged
from schemas.outputs import Divergence, divergence_id
from schemas.rule_changes import document_of, merged, rules_of_document
from schemas.rules import CategoryFile, Rules
from schemas.times import format_ms

HEARTBEATS = "heartbeats"
FULL_TRUST = 100

Change = Literal["refused", "unchanged", "changed"]


class Assembly(NamedTuple):
    """The pieces of a change that have arrived so far."""

    generation: int
    since: int
    parts: int
    pieces: tuple[str, ...]

    def is_continued_by(self, record: RulesChanged) -> bool:
        """Whether the record is the next piece of this change."""
        same = (record.generation, record.since, record.parts) == (self.generation, self.since, self.parts)
        return same and record.part == len(self.pieces) + 1


class Partition:
    """What one partition has said that concerns the SKUs at home in it."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.document = document_of(rules)
        self.generation = 1
        self.is_from_file = True
        self.clock_ms = 0
        self.trust: dict[str, int] = {}
        self.articles: dict[str, Article] = {}  # at home here, in the order in which they were met
        self.pending: dict[str, Article] = {}  # changed from elsewhere, not yet shown
        self.waiting: dict[str, Article] = {}  # with requests or statements that wait for the clock
        self._assembly: Assembly | None = None
        self._silent_since: dict[str, int] = {}
        self._by_minute: defaultdict[int, list[Article]] = defaultdict(list)

    def welcome(self, article: Article) -> None:
        """A SKU is at home here."""
        self.articles[article.sku] = article
        self._by_minute[minute_of(article.sku)].append(article)

    def moment_ms(self, article: Article) -> int:
        """What the demand for a SKU is judged by: the clock, or its newest record."""
        return max(self.clock_ms, article.newest_ms)

    # Clock

    def move_clock(self, time_ms: int) -> int:
        """A tick; returns what the clock showed before."""
        before = self.clock_ms
        self.clock_ms = max(before, time_ms)
        return before

    def in_force(self, clock_ms: int) -> list[int]:
        """Indices of the exceptions that hold when the clock shows `clock_ms`."""
        return [index for index, rule in enumerate(self.rules.rules) if holds(rule, clock_ms)]

    def to_plan(self, before_ms: int) -> dict[str, Article]:
        """The SKUs whose minute of the day the clock has passed."""
        minutes = [minute for minute in self._by_minute if has_come(minute, before_ms, self.clock_ms)]
        return {article.sku: article for minute in minutes for article in self._by_minute[minute]}

    # Trust

    def believe(self, record: LocationTrusted, offset: int, time_ms: int) -> Divergence | None:
        """A location is believed more or less than before; the divergence tells of it."""
        before, now = self.trust.get(record.location, FULL_TRUST), record.trust_percent
        self.trust[record.location] = now
        event: Literal["opened", "changed", "closed"] = "changed"
        if before == FULL_TRUST:
            event = "opened"
            self._silent_since[record.location] = time_ms
        elif now == FULL_TRUST:
            event = "closed"
        return Divergence(
            id=divergence_id(f"@{record.location}", record.location, HEARTBEATS, event, offset),
            event=event,
            sku=None,
            location=record.location,
            system=HEARTBEATS,
            of="trust_percent",
            stated=now,
            derived=FULL_TRUST,
            time=format_ms(time_ms),
            reason="heard" if event == "closed" else "silent",
            evidence=[f"last heard {record.last_heard}"] if record.last_heard is not None else [],
            opened_at=format_ms(self._silent_since[record.location]),
        )

    # Rules

    def change_rules(self, record: RulesChanged) -> Change:
        """A whole change, or a piece of one; with the last piece the new rules are in force."""
        known, self._assembly = self._assembly, None
        if record.part == record.parts == 1:
            return self._adopt(record, _object(bytes(record.changes)))
        is_next = record.part == 1 or (known is not None and known.is_continued_by(record))
        if not is_next or record.part > record.parts:
            self._assembly = known
            return "refused"
        pieces = known.pieces if known is not None and record.part > 1 else ()
        piece = _text(bytes(record.changes))
        is_last = record.part == record.parts
        if piece is None:
            self._assembly = known if record.part > 1 and not is_last else None
            return "refused"
        if is_last:
            return self._adopt(record, _object("".join((*pieces, piece)).encode()))
        self._assembly = Assembly(record.generation, record.since, record.parts, (*pieces, piece))
        return "unchanged"

    def _adopt(self, record: RulesChanged, patch: dict[str, Any] | None) -> Change:
        """Make the patched rules the partition's own, if they may be."""
        if patch is None or record.generation < self.generation:
            return "refused"
        is_again = record.generation == self.generation and not self.is_from_file
        if record.since not in (0, self.generation) and not is_again:
            return "refused"
        rules = _sound(merged(self.document if record.since else {}, patch))
        if rules is None:
            return "refused"
        document = document_of(rules)
        if is_again:
            return "unchanged" if document == self.document else "refused"
        self.generation, self.is_from_file = record.generation, False
        if document == self.document:
            return "unchanged"
        self.rules, self.document = rules, document
        return "changed"


def _sound(document: dict[str, Any]) -> Rules | None:
    """The rules in a document, or None where they cannot be used: a lane reads no files."""
    rules, complaints = rules_of_document(document)
    if any(complaint.severity == "error" for complaint in complaints):
        return None
    return None if any(isinstance(members, CategoryFile) for members in rules.categories.values()) else rules


def _object(text: bytes) -> dict[str, Any] | None:
    value = _value(text)
    return value if isinstance(value, dict) else None


def _text(raw: bytes) -> str | None:
    value = _value(raw)
    return value if isinstance(value, str) else None


def _value(text: bytes) -> object:
    """The JSON value in `text`, None where it is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
