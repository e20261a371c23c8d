"""Rules: which numbers hold for a SKU, a channel and a location at a time (SKU > category > channel default)."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from schemas.rules import ACCOUNT_SEPARATOR, CHANNEL_FIELDS, CategoryFile, ChannelRules, Rule, Rules

FIRST_GENERATION: Final = 1
SUPPLIER_LOW_STOCK_AT: Final = 9


class ResolvedChannel(NamedTuple):
    """What holds for one SKU and channel once every rule has been applied."""

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


class SkuRules(NamedTuple):
    """What holds for one SKU: its channels in the order of the file, and the positions' own safety stocks."""

    channels: tuple[ResolvedChannel, ...]
    named: frozenset[str]  # accounts that a rule names, so that they have a field
    safety_units: dict[str, int]  # by location, where a rule names one
    low_stock_at: dict[str, int]  # by location, where a rule names one


class _Exception(NamedTuple):
    """A rule with its time span in ms since 1970, `valid_to_ms` excluded."""

    rule: Rule
    valid_from_ms: int
    valid_to_ms: int


_ALWAYS_MS: Final = 2**63 - 1


class RuleBook:
    """The rules of a file, resolved on demand; equal answers are one object, so that SKUs share them."""

    def __init__(self, rules: Rules) -> None:
        self.generation = FIRST_GENERATION
        self.sources = rules.sources
        self._channels = rules.channels
        self._locations = rules.locations
        self._by_sku: dict[str, list[int]] = {}
        self._patterns: list[tuple[re.Pattern[str], list[int]]] = []
        self._exceptions = [_with_span(rule) for rule in rules.rules]
        self._index(rules)
        self._resolved: dict[tuple[tuple[int, ...], frozenset[str], frozenset[str]], SkuRules] = {}
        self.moments_ms = sorted(_moments(self._exceptions))

    def resolve(self, sku: str, clock_ms: int, accounts: frozenset[str] = frozenset()) -> SkuRules:
        """What holds for `sku` when its home's clock shows `clock_ms`; `accounts` are looked at beside those named."""
        places = self._matching(sku)
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

    def priority(self, channel: str) -> int:
        """Who is served first when commitments exceed the pool: the higher."""
        return self._channels[channel].priority

    def preference(self, channel: str) -> tuple[str, ...] | None:
        """The channel's locations in the order in which requests draw on them; None: all that are no suppliers."""
        return self._channels[channel].locations

    def low_stock_at(self, resolved: SkuRules, location: str) -> int | None:
        """The threshold of a position at `location`, None where it has no level."""
        units = resolved.low_stock_at.get(location)
        rule = self._locations.get(location)
        if units is not None or rule is None:
            return units
        if rule.low_stock_at is None and rule.kind == "supplier":
            return SUPPLIER_LOW_STOCK_AT
        return rule.low_stock_at

    def draws_on(self, locations: frozenset[str] | None, location: str) -> bool:
        """Whether a channel with these `locations` sells from `location`; by default from all that are no suppliers."""
        if locations is not None:
            return location in locations
        rule = self._locations.get(location)
        return rule is None or rule.kind != "supplier"

    def safety_units(self, resolved: SkuRules, location: str) -> int:
        """Units of a SKU with the rules `resolved` that stay unsold at `location`."""
        units = resolved.safety_units.get(location)
        if units is not None:
            return units
        rule = self._locations.get(location)
        return 0 if rule is None else rule.safety_units

    def changes_between(self, before_ms: int, after_ms: int) -> bool:
        """Whether a rule begins or ends to hold when a clock goes from `before_ms` to `after_ms`."""
        return any(before_ms < moment_ms <= after_ms for moment_ms in self.moments_ms)

    def _index(self, rules: Rules) -> None:
        """Categories before SKUs, so that what is more particular is applied later."""
        for place, rule in enumerate(rules.rules):
            if rule.category is not None:
                members = rules.categories[rule.category]
                if isinstance(members, CategoryFile):
                    raise TypeError(f"the file of category {rule.category!r} was not read")
                for member in members:
                    self._index_member(member, place)
        for place, rule in enumerate(rules.rules):
            if rule.sku is not None:
                self._by_sku.setdefault(rule.sku, []).append(place)

    def _index_member(self, member: str, place: int) -> None:
        if "*" not in member:
            self._by_sku.setdefault(member, []).append(place)
            return
        pattern = re.compile(".*".join(map(re.escape, member.split("*"))), re.DOTALL)
        self._patterns.append((pattern, [place]))

    def _matching(self, sku: str) -> tuple[int, ...]:
        """Places of the rules that concern `sku`, in the order in which they are applied, each once."""
        exact = self._by_sku.get(sku, [])
        if not self._patterns:
            return tuple(dict.fromkeys(exact))
        by_pattern = [place for pattern, places in self._patterns if pattern.fullmatch(sku) for place in places]
        categories = sorted({*by_pattern, *(place for place in exact if self._exceptions[place].rule.sku is None)})
        return (*categories, *(place for place in exact if self._exceptions[place].rule.sku is not None))

    def _holds(self, place: int, clock_ms: int) -> bool:
        exception = self._exceptions[place]
        return exception.valid_from_ms <= clock_ms < exception.valid_to_ms

    def _account_named(self, place: int) -> str | None:
        """An account is shown for a SKU where a rule names it."""
        channel = self._exceptions[place].rule.channel
        return channel if channel is not None and ACCOUNT_SEPARATOR in channel else None

    def _apply(self, in_force: tuple[int, ...], named: frozenset[str], accounts: frozenset[str]) -> SkuRules:
        exceptions = [self._exceptions[place].rule for place in in_force]
        channels = tuple(
            _resolved_channel(name, rule, exceptions)
            for name, rule in self._channels.items()
            if ACCOUNT_SEPARATOR not in name or name in named or name in accounts
        )
        at_locations = [rule for rule in exceptions if rule.location is not None]
        safety = {str(rule.location): rule.safety_units for rule in at_locations if isinstance(rule.safety_units, int)}
        low = {str(rule.location): rule.low_stock_at for rule in at_locations if rule.low_stock_at is not None}
        return SkuRules(channels, named, safety, low)


def _resolved_channel(name: str, defaults: ChannelRules, exceptions: list[Rule]) -> ResolvedChannel:
    """The channel's own numbers with those of the exceptions over them, the later the stronger."""
    numbers = {field: getattr(defaults, field) for field in CHANNEL_FIELDS}
    for rule in exceptions:
        if rule.location is None and rule.channel in (None, name):
            numbers.update((field, value) for field in CHANNEL_FIELDS if (value := getattr(rule, field)) is not None)
    lowest = numbers["low_stock_at"] + 1
    recovered_at = numbers.pop("recovered_at")
    locations = None if defaults.locations is None else frozenset(defaults.locations)
    return ResolvedChannel(name, locations, recovered_at=max(lowest, recovered_at or 0), **numbers)


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
