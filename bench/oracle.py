"""The oracle: stock, availability and crossings folded one record at a time, with plain dicts and integers.

It is slow, independent of `operators/`, and what tests and benchmarks compare the fast implementation with. It never
forgets an id because of their number, so it agrees with a lane only as long as no SKU reaches the lane's bound on ids.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from schemas import movements as m
from schemas.batches import Batch, Mark, Origin
from schemas.movements import Decoded, Fact, Movement, Reason, Refusal, Tick, decode
from schemas.outputs import (
    Availability,
    Cause,
    ChannelAvailability,
    Level,
    LocationAvailability,
    Threshold,
    threshold_id,
)
from schemas.rules import ACCOUNT_SEPARATOR, CHANNEL_FIELDS, CategoryFile, ChannelRules, Rule, Rules, SourceRules
from schemas.times import format_ms

FUTURE_MS_MAX = 300_000
QUANTITIES = ("on_hand", "reserved", "allocated", "picked", "quarantined", "in_transit", "incoming")
RULES_GENERATION = 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SIGNS: dict[type[Movement], dict[str, int]] = {
    m.Expected: {"incoming": +1},
    m.ExpectationCancelled: {"incoming": -1},
    m.Received: {"on_hand": +1},
    m.Reserved: {"reserved": +1},
    m.Released: {"reserved": -1},
    m.Allocated: {"allocated": +1},
    m.Deallocated: {"allocated": -1},
    m.Picked: {"picked": +1},
    m.Shipped: {"on_hand": -1},
    m.Returned: {"on_hand": +1},
    m.Quarantined: {"quarantined": +1},
    m.Cleared: {"quarantined": -1},
    m.Scrapped: {"on_hand": -1},
    m.Adjusted: {"on_hand": +1},
    m.TransferShipped: {"on_hand": -1},
    m.TransferReceived: {"on_hand": +1},
    m.TransferLost: {},
}


class Message(NamedTuple):
    """One raw record of one log; `timestamp_ms` is -1 where the log keeps none."""

    origin: Origin
    offset: int
    timestamp_ms: int
    key: bytes | None
    payload: bytes | None
    headers: list[tuple[str, bytes | None]] | None = None


class Offer(NamedTuple):
    """What one channel is shown of a SKU."""

    promised: int
    sellable: int
    level: Level


class Happening(NamedTuple):
    """A record that makes levels be looked at: where it stands, when it happened, and what it is in a crossing."""

    origin: Origin
    offset: int
    time_ms: int
    cause: Cause
    correlation: str | None = None
    traceparent: str | None = None


class Article:
    """Everything known about one SKU."""

    def __init__(self, sku: str, home: Origin, fields: list[str], exceptions: list[int]) -> None:
        self.sku = sku
        self.home = home
        self.exceptions = exceptions  # indices of the rules that concern it, weakest first
        self.in_force: list[int] = []
        self.places: dict[str, dict[str, int]] = {}
        self.channels: dict[str, ChannelRules] = {}
        self.safety: dict[str, int] = {}  # by location, where an exception names one
        self.offers: dict[str, Offer] = {field: Offer(0, 0, "out_of_stock") for field in fields}
        self.recovered: dict[str, bool] = dict.fromkeys(fields, False)
        self.crossed: set[str] = set()
        self.ids: dict[tuple[str, str], int] = {}  # when each applied movement happened
        self.newest_ms = 0
        self.version = -1
        self.as_of_ms = 0


class Oracle:
    """Folds messages; everything it has found out stands in its attributes.

    A misplaced movement changes positions at once, but channels and version only when the SKU's home speaks next: with
    a movement of the SKU, or with a tick.
    """

    def __init__(self, rules: Rules, dedupe_ms: int) -> None:
        self.rules = rules
        self.dedupe_ms = dedupe_ms
        self.articles: dict[str, Article] = {}
        self.crossings: list[Threshold] = []
        self.dead_letters: dict[str, Reason] = {}
        self.applied = 0
        self.duplicates = 0
        self.misplaced = 0
        self.messages = 0
        self.ticks = 0
        self._clocks: dict[Origin, int] = {}
        self._read: dict[Origin, int] = {}
        self._timed: dict[Origin, list[Article]] = {}  # whose rules the clock may change
        self._waiting: dict[Origin, dict[str, Article]] = {}  # changed from elsewhere, not yet shown

    # What came of it

    @property
    def positions(self) -> dict[tuple[str, str], dict[str, int]]:
        """Every position's quantities by name, zeros too."""
        return {
            (sku, place): units for sku, article in self.articles.items() for place, units in article.places.items()
        }

    @property
    def channels(self) -> dict[tuple[str, str], Offer]:
        """What each channel is shown of each SKU."""
        return {
            (sku, field): offer for sku, article in self.articles.items() for field, offer in article.offers.items()
        }

    def redis(self, incarnation: int) -> dict[str, dict[str, int]]:
        """The hash of each SKU as Redis must hold it in the end."""
        return {
            sku: {
                **{field: offer.promised for field, offer in article.offers.items()},
                "@version": article.version,
                "@incarnation": incarnation,
                "@as_of": article.as_of_ms,
            }
            for sku, article in self.articles.items()
        }

    def availability(self, incarnation: int) -> dict[str, Availability]:
        """The last availability record of each SKU."""
        return {sku: _record(article, incarnation) for sku, article in self.articles.items()}

    # One record at a time

    def take(self, message: Message) -> None:
        """Fold one message; one that stands at or before the last one read of its log is skipped."""
        if message.offset <= self._read.get(message.origin, -1):
            return
        self._read[message.origin] = message.offset
        self.messages += 1
        decoded = decode(message.payload)
        reason = decoded.reason if isinstance(decoded, Refusal) else self._objection(message, decoded)
        if reason is not None:
            origin = message.origin
            self.dead_letters[f"{origin.name}/{origin.partition}/{message.offset}"] = reason
        elif isinstance(decoded, Decoded):
            self._use(message, decoded)

    def _objection(self, message: Message, decoded: Decoded) -> Reason | None:
        """Why a well-formed record cannot be used, or None."""
        record, time_ms = decoded
        if message.key and (not isinstance(record, Fact) or message.key != record.sku.encode()):
            return Reason.KEY_MISMATCH
        if not isinstance(record, Fact | Tick):
            return Reason.NOT_SUPPORTED
        if message.timestamp_ms >= 0 and time_ms > message.timestamp_ms + FUTURE_MS_MAX:
            return Reason.FROM_THE_FUTURE
        if isinstance(record, Fact):
            return self._objection_to_fact(record, time_ms)
        return None

    def _objection_to_fact(self, fact: Fact, time_ms: int) -> Reason | None:
        if self.rules.sources and (reason := _not_entitled(fact, self.rules.sources.get(fact.source))):
            return reason
        if not isinstance(fact, Movement):
            return Reason.NOT_SUPPORTED
        article = self.articles.get(fact.sku)
        if article is not None and time_ms < article.newest_ms - self.dedupe_ms:
            return Reason.TOO_LATE
        return None

    def _use(self, message: Message, decoded: Decoded) -> None:
        record, time_ms = decoded
        traceparent = _traceparent(message)
        happening = Happening(message.origin, message.offset, time_ms, Cause("clock"), None, traceparent)
        if isinstance(record, Tick):
            self._tick(happening)
        elif isinstance(record, Movement):
            cause = Cause("movement", record.source, record.id)
            self._move(record, happening._replace(cause=cause, correlation=record.correlation))

    def _move(self, movement: Movement, happening: Happening) -> None:
        article = self.articles.get(movement.sku)
        if article is None:
            article = self._new(movement.sku, happening.origin)
        identity = (movement.source, movement.id)
        known_ms = article.ids.get(identity)
        if known_ms is not None and known_ms >= article.newest_ms - self.dedupe_ms:
            self.duplicates += 1
            return
        article.ids[identity] = happening.time_ms
        article.newest_ms = max(article.newest_ms, happening.time_ms)
        self.applied += 1
        _apply(movement, article.places)
        if article.home == happening.origin:
            self._look_at(article, happening)
        else:
            self.misplaced += 1
            self._waiting.setdefault(article.home, {})[article.sku] = article

    def _new(self, sku: str, home: Origin) -> Article:
        exceptions = _concerning(sku, self.rules)
        article = Article(sku, home, _fields(self.rules, exceptions), exceptions)
        self.articles[sku] = article
        article.in_force = self._in_force(article)
        self._resolve(article)
        if any(self.rules.rules[index].valid_from or self.rules.rules[index].valid_to for index in exceptions):
            self._timed.setdefault(home, []).append(article)
        return article

    def _tick(self, happening: Happening) -> None:
        self.ticks += 1
        origin = happening.origin
        self._clocks[origin] = max(self._clocks.get(origin, 0), happening.time_ms)
        for article in self._timed.get(origin, ()):
            in_force = self._in_force(article)
            if in_force != article.in_force:
                article.in_force = in_force
                self._resolve(article)
                self._look_at(article, happening)
        for article in list(self._waiting.get(origin, {}).values()):
            self._look_at(article, happening)

    # Rules

    def _in_force(self, article: Article) -> list[int]:
        clock_ms = self._clocks.get(article.home, 0)
        return [index for index in article.exceptions if _holds(self.rules.rules[index], clock_ms)]

    def _resolve(self, article: Article) -> None:
        """What holds for each of the SKU's channels and locations, from the exceptions in force."""
        exceptions = [self.rules.rules[index] for index in article.in_force]
        article.channels = {field: _channel_rules(field, self.rules, exceptions) for field in article.offers}
        article.safety = {
            rule.location: rule.safety_units
            for rule in exceptions
            if rule.location is not None and isinstance(rule.safety_units, int)
        }

    # Levels

    def _look_at(self, article: Article, happening: Happening) -> None:
        """Work out every channel of a SKU anew, and write down each level that changed."""
        article.version, article.as_of_ms = happening.offset, happening.time_ms
        if article.home in self._waiting:
            self._waiting[article.home].pop(article.sku, None)
        available = {place: _available(units) for place, units in article.places.items()}
        for field, rule in article.channels.items():
            sellable, promised = self._offer(article, rule, available)
            before = article.offers[field].level
            after = _level(article, field, rule, sellable)
            article.offers[field] = Offer(promised, sellable, after)
            if after != before:
                self.crossings.append(_crossing(article, field, before, happening))

    def _offer(self, article: Article, rule: ChannelRules, available: dict[str, int]) -> tuple[int, int]:
        """(sellable, promised) of a channel."""
        if not rule.sell or rule.commitment_only:
            return 0, 0
        pool = 0
        missing = 0
        for place, units in available.items():
            if self._sells_from(rule, place):
                pool += max(0, units - self._safety(article, place))
                missing += max(0, -units)
        safety = max(rule.safety_units, -(-rule.safety_percent * pool // 100))
        sellable = max(0, pool * rule.share_percent // 100 - safety)
        promised = sellable + max(0, rule.backorder_units - missing)
        return sellable, promised if rule.cap_units is None else min(promised, rule.cap_units)

    def _sells_from(self, rule: ChannelRules, place: str) -> bool:
        if rule.locations is not None:
            return place in rule.locations
        return place not in self.rules.locations or self.rules.locations[place].kind != "supplier"

    def _safety(self, article: Article, place: str) -> int:
        if place in article.safety:
            return article.safety[place]
        return self.rules.locations[place].safety_units if place in self.rules.locations else 0


def fold(messages: Iterable[Message | Batch | Mark], rules: Rules, *, dedupe_ms: int) -> Oracle:
    """The oracle after all of `messages`, in the order given; marks say nothing about stock."""
    oracle = Oracle(rules, dedupe_ms)
    for item in messages:
        if isinstance(item, Message):
            oracle.take(item)
        elif isinstance(item, Batch):
            for message in messages_of(item):
                oracle.take(message)
    return oracle


def messages_of(batch: Batch) -> Iterator[Message]:
    """The messages of a batch, one by one."""
    headers = batch.headers or [None] * len(batch.offsets)
    for row in zip(batch.offsets, batch.timestamps, batch.keys, batch.payloads, headers, strict=True):
        yield Message(batch.origin, *row)


def _not_entitled(fact: Fact, source: SourceRules | None) -> Reason | None:
    if source is None:
        return Reason.UNKNOWN_SOURCE
    if source.kinds is not None and fact.__struct_config__.tag not in source.kinds:
        return Reason.KIND_NOT_ALLOWED
    location = getattr(fact, "location", None)
    if source.locations is not None and location is not None and location not in source.locations:
        return Reason.LOCATION_NOT_ALLOWED
    return None


def _traceparent(message: Message) -> str | None:
    for name, value in message.headers or ():
        if name == "traceparent" and value is not None:
            return value.decode("ascii", "replace")
    return None


def _apply(movement: Movement, places: dict[str, dict[str, int]]) -> None:
    """The movement's row of signs, times its quantity, where it happened."""
    quantity = -movement.quantity if movement.reversal else movement.quantity
    here = places.setdefault(movement.location, dict.fromkeys(QUANTITIES, 0))
    for name, sign in _signs(movement).items():
        here[name] += sign * quantity
    if isinstance(movement, m.TransferShipped):
        there = places.setdefault(movement.destination, dict.fromkeys(QUANTITIES, 0))
        there["in_transit"] += quantity


def _signs(movement: Movement) -> dict[str, int]:
    signs = dict(_SIGNS[type(movement)])
    taken_from, put_to = getattr(movement, "from_", "on_hand"), getattr(movement, "to", "on_hand")
    if taken_from != "on_hand":
        signs[taken_from] = -1
    if taken_from == "allocated":
        signs["picked"] = -1
    if put_to != "on_hand":
        signs[put_to] = +1
    if isinstance(movement, m.Received) and movement.order is not None:
        signs["incoming"] = -1
    if isinstance(movement, m.TransferReceived | m.TransferLost) and movement.transfer is not None:
        signs["in_transit"] = -1
    return signs


def _available(units: dict[str, int]) -> int:
    return units["on_hand"] - max(0, units["reserved"]) - max(0, units["allocated"]) - max(0, units["quarantined"])


def _concerning(sku: str, rules: Rules) -> list[int]:
    """Indices of the exceptions for `sku`: those of its categories, then its own, each in the order of the file."""
    by_category = [index for index, rule in enumerate(rules.rules) if _in_category(sku, rule.category, rules)]
    return by_category + [index for index, rule in enumerate(rules.rules) if rule.sku == sku]


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


def _fields(rules: Rules, exceptions: list[int]) -> list[str]:
    """A SKU's channels: all, but of the accounts only those that an exception of the SKU names."""
    named = {rules.rules[index].channel for index in exceptions}
    return [channel for channel in rules.channels if ACCOUNT_SEPARATOR not in channel or channel in named]


def _holds(rule: Rule, clock_ms: int) -> bool:
    begun = rule.valid_from is None or rule.valid_from - _EPOCH <= timedelta(milliseconds=clock_ms)
    ended = rule.valid_to is not None and rule.valid_to - _EPOCH <= timedelta(milliseconds=clock_ms)
    return begun and not ended


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


def _level(article: Article, field: str, rule: ChannelRules, sellable: int) -> Level:
    if rule.recovered_at is not None and sellable >= rule.recovered_at:
        article.recovered[field] = True
    elif sellable <= rule.low_stock_at:
        article.recovered[field] = False
    if sellable <= 0:
        return "out_of_stock"
    return "in_stock" if article.recovered[field] else "low_stock"


def _crossing(article: Article, field: str, before: Level, happening: Happening) -> Threshold:
    initial = field not in article.crossed
    article.crossed.add(field)
    after = article.offers[field].level
    return Threshold(
        id=threshold_id(article.sku, field, happening.offset),
        sku=article.sku,
        channel=field,
        location=None,
        from_=before,
        to=after,
        sellable=article.offers[field].sellable,
        threshold=_threshold(article.channels[field], before, after),
        version=happening.offset,
        rules=RULES_GENERATION,
        time=format_ms(happening.time_ms),
        initial=initial,
        cause=happening.cause,
        correlation=happening.correlation,
        traceparent=happening.traceparent,
    )


def _threshold(rule: ChannelRules, before: Level, after: Level) -> int:
    """The number that was met: where stock recovered, where it began to be low, or nothing left."""
    if after == "in_stock":
        return rule.recovered_at or 0
    return rule.low_stock_at if (before, after) == ("in_stock", "low_stock") else 0


def _record(article: Article, incarnation: int) -> Availability:
    locations = {
        place: LocationAvailability(**units, available=_available(units))
        for place, units in sorted(article.places.items())
    }
    return Availability(
        sku=article.sku,
        incarnation=incarnation,
        version=article.version,
        as_of=format_ms(article.as_of_ms),
        rules=RULES_GENERATION,
        channels={field: ChannelAvailability(*offer) for field, offer in article.offers.items()},
        locations=locations,
    )
