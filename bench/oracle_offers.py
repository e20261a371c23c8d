"""What channels may sell of a SKU by the oracle: rules laid over one another, pools, contracts and the formula."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from msgspec import structs

from bench.oracle_article import Article, Policy
from bench.oracle_demand import dynamic_safety, figures
from schemas.rules import (
    ACCOUNT_SEPARATOR,
    CHANNEL_FIELDS,
    REPLENISHMENT_FIELDS,
    CategoryFile,
    ChannelRules,
    ReplenishmentRules,
    Rule,
    Rules,
)

SUPPLIER_LOW_STOCK_AT = 9

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Market(NamedTuple):
    """What a SKU's channels compete for."""

    policy: Policy
    spare: dict[str, int]  # above its safety stock, by location
    dynamic: dict[str, int]  # safety stock that follows from demand, by location, where a rule asks for it
    own: dict[str, int]  # by channel with an open contract: what the pools hold of it


class Terms(NamedTuple):
    """What a channel has to give of a SKU."""

    sellable: int
    promised: int
    backorder_room: int
    overcommitted: int


def policy_for(sku: str, rules: Rules, clock_ms: int) -> Policy:
    """What holds for each of the SKU's channels and locations when its clock shows `clock_ms`."""
    exceptions = concerning(sku, rules)
    in_force = [index for index in exceptions if holds(rules.rules[index], clock_ms)]
    holding = [rules.rules[index] for index in in_force]
    of_places = [(rule.location, rule) for rule in holding if rule.location is not None]
    return Policy(
        rules=rules,
        exceptions=exceptions,
        in_force=in_force,
        named=named(rules, exceptions),
        channels={channel: _channel_rules(channel, rules, holding) for channel in rules.channels},
        dynamic_channels={channel for channel in rules.channels if _is_dynamic(channel, holding)},
        safety={place: rule.safety_units for place, rule in of_places if rule.safety_units is not None},
        low={place: rule.low_stock_at for place, rule in of_places if rule.low_stock_at is not None},
        buying=[rule for rule in holding if any(getattr(rule, field) is not None for field in REPLENISHMENT_FIELDS)],
    )


def concerning(sku: str, rules: Rules) -> list[int]:
    """Indices of the exceptions for `sku`: those for a location alone, those of its categories, then its own."""
    anywhere = [index for index, rule in enumerate(rules.rules) if rule.sku is None and rule.category is None]
    by_category = [index for index, rule in enumerate(rules.rules) if _in_category(sku, rule.category, rules)]
    return anywhere + by_category + [index for index, rule in enumerate(rules.rules) if rule.sku == sku]


def named(rules: Rules, exceptions: list[int]) -> list[str]:
    """A SKU's channels: all, but of the accounts only those that an exception of the SKU names."""
    by_exception = {rules.rules[index].channel for index in exceptions}
    return [channel for channel in rules.channels if ACCOUNT_SEPARATOR not in channel or channel in by_exception]


def is_planned(policy: Policy, place: str) -> bool:
    """Whether purchases are proposed for the position at `place`."""
    if place in policy.rules.locations and policy.rules.locations[place].kind == "supplier":
        return False
    return policy.rules.replenishment is not None or any(rule.location in (None, place) for rule in policy.buying)


def buying_terms(policy: Policy, place: str) -> ReplenishmentRules:
    """When and how much to buy at `place`: the table, with the exceptions laid over it, weakest first."""
    terms = policy.rules.replenishment or ReplenishmentRules()
    for rule in policy.buying:
        if rule.location in (None, place):
            said = {field: getattr(rule, field) for field in REPLENISHMENT_FIELDS}
            terms = structs.replace(terms, **{field: value for field, value in said.items() if value is not None})
    return terms


def holds(rule: Rule, clock_ms: int) -> bool:
    """Whether an exception is in force."""
    begun = rule.valid_from is None or rule.valid_from - _EPOCH <= timedelta(milliseconds=clock_ms)
    ended = rule.valid_to is not None and rule.valid_to - _EPOCH <= timedelta(milliseconds=clock_ms)
    return begun and not ended


def looked_at(article: Article, policy: Policy) -> list[str]:
    """Channels whose level is kept: those with a field, and those that ever had a contract."""
    if not article.contracts:
        return policy.named
    return [channel for channel in policy.rules.channels if channel in policy.named or channel in article.contracts]


def has_field(article: Article, channel: str, policy: Policy) -> bool:
    """Whether readers are shown a number for the channel."""
    return channel in policy.named or article.contracts[channel].committed > 0


def market(article: Article, policy: Policy, trust: dict[str, int], moment_ms: int) -> Market:
    """What is there for all channels together, as far as its locations are trusted."""
    dynamic = {}
    if policy.is_dynamic:
        dynamic = {
            place: dynamic_safety(figures(position, moment_ms), buying_terms(policy, place))
            for place, position in article.places.items()
        }
    spare = {
        place: max(0, _trusted(at.available, trust.get(place, 100)) - _safety(policy, place, dynamic))
        for place, at in article.places.items()
    }
    return Market(policy, spare, dynamic, _own_units(article, policy.rules, spare) if article.contracts else {})


def terms(article: Article, channel: str, there: Market) -> Terms:
    """PRODUCT.md, "What a channel may sell"."""
    rules = there.policy.rules
    rule = there.policy.channels[channel]
    own = there.own.get(channel, 0)
    overcommitted = max(0, article.contracts[channel].open) - own if channel in article.contracts else 0
    if not rule.sell:
        return Terms(0, 0, 0, overcommitted)
    if rule.commitment_only:
        return Terms(own, _capped(own, rule), 0, overcommitted)
    pool = short = claimed = kept = 0
    for place, units in there.spare.items():
        if sells_from(channel, place, rules):
            pool += units
            short += max(0, -article.places[place].available)
            kept += there.dynamic.get(place, 0)
    for other in there.own:
        if _share(article, channel, other, rules):
            claimed += article.contracts[other].open
    free = max(0, pool - claimed)
    units = kept if channel in there.policy.dynamic_channels else rule.safety_units
    safety = max(units, -(-rule.safety_percent * free // 100))
    sellable = own + max(0, free * rule.share_percent // 100 - safety)
    room = max(0, rule.backorder_units - article.owed.get(channel, 0) - short)
    return Terms(sellable, _capped(sellable + room, rule), room, overcommitted)


def _trusted(available: int, percent: int) -> int:
    """What of a position counts: a debt in full."""
    return available * percent // 100 if available > 0 else available


def _own_units(article: Article, rules: Rules, spare: dict[str, int]) -> dict[str, int]:
    """What the pools hold of each channel's open contract, the channel of highest priority first."""
    claiming = [channel for channel in rules.channels if channel in article.contracts]
    claiming = [channel for channel in claiming if article.contracts[channel].open > 0]
    own: dict[str, int] = {}
    for channel in sorted(claiming, key=lambda channel: -rules.channels[channel].priority):
        pool = sum(units for place, units in spare.items() if sells_from(channel, place, rules))
        before = sum(units for other, units in own.items() if _share(article, channel, other, rules))
        own[channel] = min(article.contracts[channel].open, max(0, pool - before))
    return own


def places_of(article: Article, channel: str, rules: Rules) -> list[str]:
    """The SKU's locations that the channel sells from, in the order in which it takes from them."""
    listed = rules.channels[channel].locations
    if listed is not None:
        return [place for place in dict.fromkeys(listed) if place in article.places]
    return [place for place in sorted(article.places) if sells_from(channel, place, rules)]


def sells_from(channel: str, place: str, rules: Rules) -> bool:
    """Whether the channel may sell what is at `place`."""
    listed = rules.channels[channel].locations
    if listed is not None:
        return place in listed
    return place not in rules.locations or rules.locations[place].kind != "supplier"


def low_stock_at(policy: Policy, place: str) -> int | None:
    """From where on a position's level is low, or None where it has no level."""
    if place in policy.low:
        return policy.low[place]
    location = policy.rules.locations.get(place)
    if location is None:
        return None
    if location.low_stock_at is not None:
        return location.low_stock_at
    return SUPPLIER_LOW_STOCK_AT if location.kind == "supplier" else None


def _capped(units: int, rule: ChannelRules) -> int:
    return units if rule.cap_units is None else min(units, rule.cap_units)


def _share(article: Article, channel: str, other: str, rules: Rules) -> bool:
    """Whether both draw on one of the SKU's positions."""
    return any(sells_from(channel, place, rules) and sells_from(other, place, rules) for place in article.places)


def _safety(policy: Policy, place: str, dynamic: dict[str, int]) -> int:
    units = policy.safety.get(place)
    if units == "dynamic":
        return dynamic[place]
    if units is not None:
        return units
    return policy.rules.locations[place].safety_units if place in policy.rules.locations else 0


def _said_of(channel: str, exceptions: list[Rule], field: str) -> list[object]:
    """What the exceptions say of a channel's number, weakest first."""
    mine = [rule for rule in exceptions if rule.location is None and rule.channel in (None, channel)]
    return [value for rule in mine if (value := getattr(rule, field)) is not None]


def _is_dynamic(channel: str, exceptions: list[Rule]) -> bool:
    return _said_of(channel, exceptions, "safety_units")[-1:] == ["dynamic"]


def _channel_rules(channel: str, rules: Rules, exceptions: list[Rule]) -> ChannelRules:
    """The channel's own table with the exceptions laid over it, weakest first."""
    resolved: dict[str, Any] = {field: getattr(rules.channels[channel], field) for field in CHANNEL_FIELDS}
    for field in CHANNEL_FIELDS:
        for value in _said_of(channel, exceptions, field):
            resolved[field] = value
    if resolved["safety_units"] == "dynamic":
        resolved["safety_units"] = 0  # worked out from demand
    if resolved["recovered_at"] is None or resolved["recovered_at"] <= resolved["low_stock_at"]:
        resolved["recovered_at"] = resolved["low_stock_at"] + 1
    return ChannelRules(locations=rules.channels[channel].locations, **resolved)


def _in_category(sku: str, category: str | None, rules: Rules) -> bool:
    patterns = rules.categories.get(category, ()) if category is not None else ()
    if isinstance(patterns, CategoryFile):
        raise TypeError(f"category {category} must be read from {patterns.file} first")
    return any(fits(sku, pattern) for pattern in patterns)


def fits(sku: str, pattern: str) -> bool:
    """Whether the whole of `sku` is `pattern`, where `*` stands for any characters, none included."""
    first, *rest = pattern.split("*")
    if not rest:
        return sku == pattern
    if not sku.startswith(first):
        return False
    position = len(first)
    for part in rest[:-1]:
        found = sku.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return sku.endswith(rest[-1]) and len(sku) - len(rest[-1]) >= position
