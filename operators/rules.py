"""Rules: which numbers hold for a SKU, a channel and a location at a time (SKU > category > location > default)."""

import re
from collections import OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from operators.reorder import Planning, planning_of
from schemas.rule_changes import digest_of, document_of, merged, rules_of_document
from schemas.rules import (
    ACCOUNT_SEPARATOR,
    CHANNEL_FIELDS,
    REPLENISHMENT_FIELDS,
    CategoryFile,
    ChannelRules,
    LocationRules,
    ReplenishmentRules,
    Rule,
    Rules,
    Table,
)

SUPPLIER_LOW_STOCK_AT: Final = 9
DYNAMIC: Final = -1  # safety units that follow from demand and lead time
BOOKS_KEPT_MAX: Final = 16
_DYNAMIC_WORD: Final = "dynamic"


class ResolvedChannel(NamedTuple):
    """What holds for one SKU and channel once every rule has been applied; `safety_units` may be DYNAMIC."""

    name: str
    locations: frozenset[str] | None  # None: all that are no suppliers
    share_percent: int
    safety_units: int
    safety_percent: int
    low_stock_at: int
    recovered_at: int
    cap_units: int | None
    backorder_units: int
    commitment_only: bool
    sell: bool
    priority: int = 0


class PlaceRules(NamedTuple):
    """What holds for one SKU at one location; `safety_units` may be DYNAMIC."""

    is_supplier: bool
    safety_units: int
    low_stock_at: int | None  # None: the position has no level
    planning: Planning
    is_planned: bool  # whether purchases are proposed


class SkuRules:
    """What holds for one SKU: its channels in the order of the file, and what holds at each location.

    One object serves all SKUs that the same rules concern; `==` asks whether two say the same.
    """

    def __init__(
        self, channels: tuple[ResolvedChannel, ...], named: frozenset[str], in_force: tuple[Rule, ...], rules: Rules
    ) -> None:
        self.channels = channels
        self.named = named  # accounts that a rule names, so that they have a field
        self.in_force = in_force  # the weakest first
        self._rules = rules
        self._of_places = tuple(rule for rule in in_force if rule.channel is None and _is_about_places(rule))
        self._places: dict[str, PlaceRules] = {}
        self.is_dynamic = any(rule.safety_units == _DYNAMIC_WORD for rule in in_force)
        self.is_planned = rules.replenishment is not None or any(map(_is_about_planning, self._of_places))

    def at(self, location: str) -> PlaceRules:
        """What holds for the SKU at `location`."""
        place = self._places.get(location)
        if place is None:
            place = self._places[location] = self._place(location)
        return place

    def table_of(self, channel: str) -> ChannelRules:
        """The channel's own table."""
        return self._rules.channels[channel]

    def location_table_of(self, location: str) -> LocationRules | None:
        """The location's own table, None where it has none."""
        return self._rules.locations.get(location)

    def place_of(self, rule: Rule) -> int:
        """Which of the [[rules]] this is, from 0."""
        return next(place for place, other in enumerate(self._rules.rules) if other is rule)

    def draws_on(self, channel: ResolvedChannel, location: str) -> bool:
        """Whether the channel sells from `location`; by default from all that are no suppliers."""
        return location in channel.locations if channel.locations is not None else not self.at(location).is_supplier

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SkuRules):
            return NotImplemented
        mine, theirs = self._rules, other._rules
        return (
            self.channels == other.channels
            and self.named == other.named
            and self._of_places == other._of_places
            and mine.locations == theirs.locations
            and mine.replenishment == theirs.replenishment
        )

    __hash__ = object.__hash__  # of the object: a cache's key is this very one

    def _place(self, location: str) -> PlaceRules:
        table = self._rules.locations.get(location, LocationRules())
        safety: int = table.safety_units
        low_stock_at = table.low_stock_at
        if low_stock_at is None and table.kind == "supplier":
            low_stock_at = SUPPLIER_LOW_STOCK_AT
        numbers: dict[str, Any] = {}
        for rule in self._of_places:
            if rule.location not in (None, location):
                continue
            numbers.update(_given(rule, REPLENISHMENT_FIELDS))
            if rule.location is None:
                continue
            if rule.safety_units is not None:
                safety = DYNAMIC if rule.safety_units == _DYNAMIC_WORD else int(rule.safety_units)
            if rule.low_stock_at is not None:
                low_stock_at = rule.low_stock_at
        defaults = self._rules.replenishment or ReplenishmentRules()
        planning = planning_of(**{**_given(defaults, REPLENISHMENT_FIELDS), **numbers})
        is_supplier = table.kind == "supplier"
        is_planned = not is_supplier and (self._rules.replenishment is not None or bool(numbers))
        return PlaceRules(is_supplier, safety, low_stock_at, planning, is_planned)


class _Exception(NamedTuple):
    """A rule with its time span in ms since 1970, `valid_to_ms` excluded."""

    rule: Rule
    valid_from_ms: int
    valid_to_ms: int


_ALWAYS_MS: Final = 2**63 - 1
_NOBODY: Final = frozenset[str]()


class RuleBook:
    """A set of rules, resolved on demand; equal answers are one object, so that SKUs share them."""

    def __init__(self, rules: Rules, document: dict[str, Any] | None = None) -> None:
        self.rules = rules
        self.document = document_of(rules) if document is None else document
        self.digest = digest_of(self.document)
        self.sources = rules.sources
        self._channels = rules.channels
        self._by_sku: dict[str, list[int]] = {}
        self._patterns: list[tuple[re.Pattern[str], list[int]]] = []
        self._anywhere: list[int] = []
        self._exceptions = [_with_span(rule) for rule in rules.rules]
        self._index(rules)
        self._resolved: dict[tuple[tuple[int, ...], frozenset[str], frozenset[str]], SkuRules] = {}
        self._next: OrderedDict[tuple[str, bool], RuleBook | str] = OrderedDict()
        self._stored: OrderedDict[str, RuleBook] = OrderedDict()
        self.moments_ms = sorted(_moments(self._exceptions))

    def resolve(self, sku: str, clock_ms: int, accounts: frozenset[str] = frozenset()) -> SkuRules:
        """What holds for `sku` when its home's clock shows `clock_ms`; `accounts` are looked at beside those named."""
        places = self._matching(sku) if self._exceptions else ()
        in_force, named = places, _NOBODY
        if places:
            in_force = tuple(place for place in places if self._holds(place, clock_ms))
            named = frozenset(account for place in places if (account := self._account_named(place)) is not None)
        key = (in_force, named, accounts)
        resolved = self._resolved.get(key)
        if resolved is None:
            resolved = self._resolved[key] = self._apply(in_force, named, accounts)
        return resolved

    def knows_channel(self, channel: str) -> bool:
        """Whether the rules have a table for `channel`."""
        return channel in self._channels

    def preference(self, channel: str) -> tuple[str, ...] | None:
        """The channel's locations in the order in which requests draw on them; None: all that are no suppliers."""
        return self._channels[channel].locations

    def changes_between(self, before_ms: int, after_ms: int) -> bool:
        """Whether a rule begins or ends to hold when a clock goes from `before_ms` to `after_ms`."""
        return any(before_ms < moment_ms <= after_ms for moment_ms in self.moments_ms)

    def changed_by(self, patch: dict[str, Any], *, is_complete: bool) -> "RuleBook | str":
        """The book after a merge patch, or after a complete set; what is wrong with it where it may not be used.

        The same change gives the same book again: every lane and partition of a process asks for it.
        """
        key = (digest_of(patch), is_complete)
        known = self._next.get(key)
        if known is None:
            known = self._next[key] = self._made_by({} if is_complete else self.document, patch)
            if len(self._next) > BOOKS_KEPT_MAX:
                self._next.popitem(last=False)
        return known

    def stored(self, document: dict[str, Any]) -> "RuleBook":
        """The book of a document that was in force before: it was checked then, and one object serves all lanes."""
        digest = digest_of(document)
        if digest == self.digest:
            return self
        known = self._stored.get(digest)
        if known is None:
            known = self._stored[digest] = RuleBook(msgspec.convert(document, Rules), document)
            if len(self._stored) > BOOKS_KEPT_MAX:
                self._stored.popitem(last=False)
        return known

    def _made_by(self, document: dict[str, Any], patch: dict[str, Any]) -> "RuleBook | str":
        after = merged(document, patch)
        rules, complaints = rules_of_document(after)
        for complaint in complaints:
            if complaint.severity == "error":
                return f"{complaint.path}: {complaint.message}"
        book = RuleBook(rules)
        return self if book.digest == self.digest else book

    def _index(self, rules: Rules) -> None:
        """Places of the rules by what they concern, so that what is more particular can be applied later."""
        for place, rule in enumerate(rules.rules):
            if rule.category is not None:
                members = rules.categories[rule.category]
                if isinstance(members, CategoryFile):
                    raise TypeError(f"the file of category {rule.category!r} was not read")
                for member in members:
                    self._index_member(member, place)
            elif rule.sku is not None:
                self._by_sku.setdefault(rule.sku, []).append(place)
            else:
                self._anywhere.append(place)

    def _index_member(self, member: str, place: int) -> None:
        if "*" not in member:
            self._by_sku.setdefault(member, []).append(place)
            return
        pattern = re.compile(".*".join(map(re.escape, member.split("*"))), re.DOTALL)
        self._patterns.append((pattern, [place]))

    def _matching(self, sku: str) -> tuple[int, ...]:
        """Places of the rules that concern `sku`, in the order in which they are applied, each once."""
        found = set(self._by_sku.get(sku, ()))
        for pattern, places in self._patterns:
            if pattern.fullmatch(sku):
                found.update(places)
        named = sorted(place for place in found if self._exceptions[place].rule.sku is not None)
        return (*self._anywhere, *sorted(found.difference(named)), *named)

    def _holds(self, place: int, clock_ms: int) -> bool:
        exception = self._exceptions[place]
        return exception.valid_from_ms <= clock_ms < exception.valid_to_ms

    def _account_named(self, place: int) -> str | None:
        """An account is shown for a SKU where a rule names it."""
        channel = self._exceptions[place].rule.channel
        return channel if channel is not None and ACCOUNT_SEPARATOR in channel else None

    def _apply(self, in_force: tuple[int, ...], named: frozenset[str], accounts: frozenset[str]) -> SkuRules:
        exceptions = tuple(self._exceptions[place].rule for place in in_force)
        channels = tuple(
            _resolved_channel(name, rule, exceptions)
            for name, rule in self._channels.items()
            if ACCOUNT_SEPARATOR not in name or name in named or name in accounts
        )
        return SkuRules(channels, named, exceptions, self.rules)


def concerns_channel(rule: Rule, channel: str) -> bool:
    """Whether the numbers of `rule` are the channel's: it names no location, and no other channel."""
    return rule.location is None and rule.channel in (None, channel)


def _resolved_channel(name: str, defaults: ChannelRules, exceptions: tuple[Rule, ...]) -> ResolvedChannel:
    """The channel's own numbers with those of the exceptions over them, the later the stronger."""
    numbers = {field: getattr(defaults, field) for field in CHANNEL_FIELDS}
    for rule in exceptions:
        if concerns_channel(rule, name):
            numbers.update(_given(rule, CHANNEL_FIELDS))
    if numbers["safety_units"] == _DYNAMIC_WORD:
        numbers["safety_units"] = DYNAMIC
    lowest = numbers["low_stock_at"] + 1
    recovered_at = numbers.pop("recovered_at")
    locations = None if defaults.locations is None else frozenset(defaults.locations)
    return ResolvedChannel(
        name, locations, recovered_at=max(lowest, recovered_at or 0), priority=defaults.priority, **numbers
    )


def _given(table: Table, fields: Iterable[str]) -> dict[str, Any]:
    """Those of `fields` that the table says something about."""
    return {field: value for field in fields if (value := getattr(table, field)) is not None}


def _is_about_planning(rule: Rule) -> bool:
    return bool(_given(rule, REPLENISHMENT_FIELDS))


def _is_about_places(rule: Rule) -> bool:
    return rule.location is not None or _is_about_planning(rule)


def _with_span(rule: Rule) -> _Exception:
    return _Exception(
        rule,
        0 if rule.valid_from is None else _since_1970_ms(rule.valid_from),
        _ALWAYS_MS if rule.valid_to is None else _since_1970_ms(rule.valid_to),
    )


def _since_1970_ms(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _moments(exceptions: list[_Exception]) -> set[int]:
    moments_ms = {exception.valid_from_ms for exception in exceptions}
    moments_ms.update(exception.valid_to_ms for exception in exceptions)
    return moments_ms - {0, _ALWAYS_MS}
