"""What channels may sell of a SKU by the oracle: rules laid over one another, pools, contracts and the formula."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from bench.oracle_article import Article
from schemas.rules import ACCOUNT_SEPARATOR, CHANNEL_FIELDS, CategoryFile, ChannelRules, Rule, Rules

SUPPLIER_LOW_STOCK_AT = 9

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Market(NamedTuple):
    """What a SKU's channels compete for."""

    spare: dict[str, int]  # above its safety stock, by location
    own: dict[str, int]  # by channel with an open contract: what the pools hold of it


class Terms(NamedTuple):
    """What a channel has to give of a SKU."""

    sellable: int
    promised: int
    backorder_room: int
    overcommitted: int


def concerning(sku: str, rules: Rules) -> list[int]:
    """Indices of the exceptions for `sku`: those of its categories, then its own, each in the order of the file."""
    by_category = [index for index, rule in enumerate(rules.rules) if _in_category(sku, rule.category, rules)]
    return by_category + [index for index, rule in enumerate(rules.rules) if rule.sku == sku]


def named(rules: Rules, exceptions: list[int]) -> list[str]:
    """A SKU's channels: all, but of the accounts only those that an exception of the SKU names."""
    by_exception = {rules.rules[index].channel for index in exceptions}
    return [channel for channel in rules.channels if ACCOUNT_SEPARATOR not in channel or channel in by_exception]


def resolve(article: Article, rules: Rules, in_force: list[int]) -> None:
    """What holds for each of the SKU's channels and locations, from the exceptions in force."""
    article.in_force = in_force
    exceptions = [rules.rules[index] for index in in_force]
    article.channels = {channel: _channel_rules(channel, rules, exceptions) for channel in rules.channels}
    of_places = [(rule.location, rule) for rule in exceptions if rule.location is not None]
    article.safety = {place: rule.safety_units for place, rule in of_places if isinstance(rule.safety_units, int)}
    article.low = {place: rule.low_stock_at for place, rule in of_places if rule.low_stock_at is not None}


def holds(rule: Rule, clock_ms: int) -> bool:
    """Whether an exception is in force."""
    begun = rule.valid_from is None or rule.valid_from - _EPOCH <= timedelta(milliseconds=clock_ms)
    ended = rule.valid_to is not None and rule.valid_to - _EPOCH <= timedelta(milliseconds=clock_ms)
    return begun and not ended


def looked_at(article: Article, rules: Rules) -> list[str]:
    """Channels whose level is kept: those with a field, and those that ever had a contract."""
    if not article.contracts:
        return article.named
    return [channel for channel in rules.channels if channel in article.named or channel in article.contracts]


def has_field(article: Article, channel: str) -> bool:
    """Whether readers are shown a number for the channel."""
    return channel in article.named or article.contracts[channel].committed > 0


def market(article: Article, rules: Rules) -> Market:
    """What is there for all channels together."""
    spare = {place: max(0, at.available - _safety(article, place, rules)) for place, at in article.places.items()}
    return Market(spare, _own_units(article, rules, spare) if article.contracts else {})


def terms(article: Article, channel: str, rules: Rules, there: Market) -> Terms:
    """PRODUCT.md, "What a channel may sell"."""
    rule = article.channels[channel]
    own = there.own.get(channel, 0)
    overcommitted = max(0, article.contracts[channel].open) - own if channel in article.contracts else 0
    if not rule.sell:
        return Terms(0, 0, 0, overcommitted)
    if rule.commitment_only:
        return Terms(own, _capped(own, rule), 0, overcommitted)
    pool = short = claimed = 0
    for place, units in there.spare.items():
        if sells_from(channel, place, rules):
            pool += units
            short += max(0, -article.places[place].available)
    for other in there.own:
        if _share(article, channel, other, rules):
            claimed += article.contracts[other].open
    free = max(0, pool - claimed)
    safety = max(rule.safety_units, -(-rule.safety_percent * free // 100))
    sellable = own + max(0, free * rule.share_percent // 100 - safety)
    room = max(0, rule.backorder_units - article.owed.get(channel, 0) - short)
    return Terms(sellable, _capped(sellable + room, rule), room, overcommitted)


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


def low_stock_at(article: Article, place: str, rules: Rules) -> int | None:
    """From where on a position's level is low, or None where it has no level."""
    if place in article.low:
        return article.low[place]
    location = rules.locations.get(place)
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


def _safety(article: Article, place: str, rules: Rules) -> int:
    if place in article.safety:
        return article.safety[place]
    return rules.locations[place].safety_units if place in rules.locations else 0


def _channel_rules(channel: str, rules: Rules, exceptions: list[Rule]) -> ChannelRules:
    """The channel's own table with the exceptions laid over it, weakest first."""
    resolved = {field: getattr(rules.channels[channel], field) for field in CHANNEL_FIELDS}
    for rule in exceptions:
        if rule.location is None and rule.channel in (None, channel):
            said = {field: getattr(rule, field) for field in CHANNEL_FIELDS}
            resolved.update({field: value for field, value in said.items() if value is not None})
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
