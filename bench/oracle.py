"""The oracle: stock, availability, crossings, answers and divergences folded one record at a time, in plain Python.

It is slow, independent of `operators/`, and what tests and benchmarks compare the fast implementation with. It never
forgets an id or a movement because of their number, so it agrees with a lane only below the lane's bounds.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from bench import oracle_offers as offers
from bench import oracle_requests as requests
from bench.oracle_article import HOUR_MS, Article, Gauge, Happening, Offer, Position, Promise, Waiting, signs
from bench.oracle_demand import days_of_cover
from bench.oracle_partition import Partition
from bench.oracle_planning import plan
from bench.oracle_statements import Judgement, grace_ms, judge, too_old_count
from schemas import movements as m
from schemas.batches import Batch, Mark, Origin
from schemas.movements import Decoded, Fact, Movement, Reason, Refusal, Tick, decode
from schemas.outputs import (
    Availability,
    Cause,
    ChannelAvailability,
    Divergence,
    Level,
    LocationAvailability,
    Replenishment,
    Reservation,
    ShadowDifference,
    ShadowOffer,
    Threshold,
    position_threshold_id,
    shadow_id,
    threshold_id,
)
from schemas.rules import Rules, SourceRules
from schemas.times import format_ms

FUTURE_MS_MAX = 300_000
AS_OF_MS = 72 * 3_600_000


class Message(NamedTuple):
    """One raw record of one log; `timestamp_ms` is -1 where the log keeps none."""

    origin: Origin
    offset: int
    timestamp_ms: int
    key: bytes | None
    payload: bytes | None
    headers: list[tuple[str, bytes | None]] | None = None


class Crossed(NamedTuple):
    """What the level of a channel or position went through."""

    before: Level
    after: Level
    units: int
    threshold: int
    initial: bool


class Oracle:
    """Folds messages; everything it has found out stands in its attributes.

    A misplaced fact changes positions and contracts at once, but channels and version only when the SKU's home speaks
    next: with a fact that touches the SKU, or with a tick.
    """

    def __init__(self, rules: Rules, dedupe_ms: int, as_of_ms: int = AS_OF_MS, shadow: Rules | None = None) -> None:
        self.rules = rules  # of the file: each partition begins with them
        self.shadow_rules = shadow
        self.dedupe_ms = dedupe_ms
        self.as_of_ms = as_of_ms
        self.articles: dict[str, Article] = {}
        self.crossings: list[Threshold] = []
        self.divergences: list[Divergence] = []
        self.reservations: list[Reservation] = []
        self.replenishments: list[Replenishment] = []
        self.shadow: list[ShadowDifference] = []
        self.dead_letters: dict[str, Reason] = {}
        self.applied = 0
        self.duplicates = 0
        self.misplaced = 0
        self.messages = 0
        self.controls = 0
        self._read: dict[Origin, int] = {}
        self._partitions: dict[Origin, Partition] = {}

    # What came of it

    @property
    def positions(self) -> dict[tuple[str, str], dict[str, int]]:
        """Every position's quantities by name, zeros too."""
        return {
            (sku, place): position.now
            for sku, article in self.articles.items()
            for place, position in article.places.items()
        }

    @property
    def channels(self) -> dict[tuple[str, str], Offer]:
        """What each channel is shown of each SKU."""
        return {
            (sku, field): offer for sku, article in self.articles.items() for field, offer in article.offers.items()
        }

    @property
    def open_divergences(self) -> dict[tuple[str, str, str], Divergence]:
        """The last record of each divergence that is open, by SKU, location and system."""
        last = {(record.sku or "", record.location, record.system): record for record in self.divergences}
        return {key: record for key, record in last.items() if record.event != "closed"}

    @property
    def open_requests(self) -> dict[tuple[str, str], Promise]:
        """Every confirmed request of which something is still open, by SKU and id."""
        return {
            (sku, request): promise
            for sku, article in self.articles.items()
            for request, promise in article.promises.items()
            if promise.ended_ms is None
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
            if article.version >= 0
        }

    def availability(self, incarnation: int) -> dict[str, Availability]:
        """The last availability record of each SKU."""
        return {
            sku: _record(article, incarnation, self._partitions[article.home].trust)
            for sku, article in self.articles.items()
            if article.version >= 0
        }

    # One record at a time

    def take(self, message: Message) -> None:
        """Fold one message; one that stands at or before the last one read of its log is skipped."""
        if message.offset <= self._read.get(message.origin, -1):
            return
        self._read[message.origin] = message.offset
        if message.origin not in self._partitions:
            self._partitions[message.origin] = Partition(self.rules)
        self.messages += 1
        decoded = decode(message.payload)
        reason = decoded.reason if isinstance(decoded, Refusal) else self._objection(message, decoded)
        if reason is not None:
            origin = message.origin
            self.dead_letters[f"{origin.name}/{origin.partition}/{message.offset}"] = reason
        elif isinstance(decoded, Decoded):
            self._use(message, decoded)

    def _home(self, article: Article) -> Partition:
        return self._partitions[article.home]

    def _objection(self, message: Message, decoded: Decoded) -> Reason | None:
        """Why a well-formed record cannot be used, or None."""
        record, time_ms = decoded
        if message.key and (not isinstance(record, Fact) or message.key != record.sku.encode()):
            return Reason.KEY_MISMATCH
        if message.timestamp_ms >= 0 and time_ms > message.timestamp_ms + FUTURE_MS_MAX:
            return Reason.FROM_THE_FUTURE
        return self._objection_to_fact(message, record, time_ms) if isinstance(record, Fact) else None

    def _objection_to_fact(self, message: Message, record: Fact, time_ms: int) -> Reason | None:
        rules = self._partitions[message.origin].rules
        if rules.sources and (reason := _not_entitled(record, rules.sources.get(record.source))):
            return reason
        if isinstance(record, requests.COMMITTING) and record.channel not in rules.channels:
            return Reason.UNKNOWN_CHANNEL
        article = self.articles.get(record.sku)
        if article is None:
            return Reason.UNKNOWN_REQUEST if isinstance(record, m.Extended) else None
        if isinstance(record, m.Requested):
            is_new = article.home == message.origin and article.promise(record.id) is None
            return Reason.TOO_LATE if is_new and time_ms < article.horizon_ms else None
        if isinstance(record, m.Extended | m.Stated) and article.home != message.origin:
            return Reason.WRONG_PARTITION
        return _objection_by_memory(article, record, time_ms)

    def _use(self, message: Message, decoded: Decoded) -> None:
        record, time_ms = decoded
        traceparent = _traceparent(message)
        happening = Happening(message.origin, message.offset, time_ms, Cause("clock"), None, traceparent)
        if isinstance(record, Tick):
            self._tick(happening)
        elif isinstance(record, m.RulesChanged):
            self._change_rules(record, message, happening)
        elif isinstance(record, m.LocationTrusted):
            self._believe(record, happening)
        elif isinstance(record, Fact):
            cause = Cause("movement", record.source, record.id)
            happening = happening._replace(cause=cause, correlation=record.correlation)
            article = self.articles.get(record.sku) or self._new(record.sku, happening.origin)
            if isinstance(record, m.Requested):
                self._ask(article, record, happening)
            elif article.repeats(record.source, record.id):
                self.duplicates += 1
            else:
                self._apply(article, record, happening)

    def _new(self, sku: str, origin: Origin) -> Article:
        home = self._partitions[origin]
        policy = offers.policy_for(sku, home.rules, home.clock_ms)
        article = Article(sku, origin, policy, dedupe_ms=self.dedupe_ms, as_of_ms=self.as_of_ms)
        self.articles[sku] = article
        home.welcome(article)
        return article

    def _ask(self, article: Article, fact: m.Requested, happening: Happening) -> None:
        known = article.promise(fact.id)
        answer = requests.ask(article, fact, self._home(article), happening)
        self.reservations.append(answer)
        if known is not None and answer is known.answer:
            self.duplicates += 1
            return
        self.applied += 1
        if answer.outcome == "confirmed":
            self._home(article).waiting[article.sku] = article
            self._look_at(article, happening)

    def _apply(self, article: Article, fact: Fact, happening: Happening) -> None:
        article.ids[fact.source, fact.id] = happening.time_ms
        article.newest_ms = max(article.newest_ms, happening.time_ms)
        self.applied += 1
        touched = self._change(article, fact, happening)
        if article.home != happening.origin:
            self.misplaced += 1
            if touched:
                self._home(article).pending[article.sku] = article
        elif touched:
            self._look_at(article, happening)

    def _change(self, article: Article, fact: Fact, happening: Happening) -> bool:
        """What a fact does; whether it touched the SKU."""
        if isinstance(fact, Movement):
            _move(article, fact, happening.time_ms)
            _hear(article, fact, self._home(article).rules)
        elif isinstance(fact, requests.COMMITTING):
            requests.commit(article, fact)
        elif isinstance(fact, m.Counted):
            return self._count(article, fact, happening)
        elif isinstance(fact, m.Stated):
            return self._state(article, fact, happening)
        elif isinstance(fact, m.Extended):
            self.reservations.append(requests.extend(article, fact, happening))
            return False
        return True

    # Counts and statements

    def _count(self, article: Article, fact: m.Counted, happening: Happening) -> bool:
        judgement = Judgement(article)
        in_time = not article.too_old_for(fact.location, happening.time_ms)
        if in_time:
            position = article.position(fact.location)
            picked = 0 if fact.includes_picked or fact.of != "on_hand" else position.at("picked", happening.time_ms)
            before = position.available
            position.count(fact.of, happening.time_ms, fact.quantity + max(0, picked))
            position.reach(happening.time_ms, before)
            article.number(fact.location, fact.source, fact.sequence)
            judgement.agreed(fact.location, fact.source, fact.of, (fact.quantity, fact.quantity), happening.time_ms)
        else:
            too_old_count(article, fact, happening.time_ms, judgement)
        self.divergences.extend(judgement.divergences(happening.offset))
        return in_time

    def _state(self, article: Article, fact: m.Stated, happening: Happening) -> bool:
        home = self._home(article)
        due_ms = happening.time_ms + grace_ms(home.rules, fact.source)
        statement = Waiting(due_ms, self.messages, fact, happening.time_ms)
        if due_ms > home.clock_ms:
            article.waiting.append(statement)
            home.waiting[article.sku] = article
            return False
        judgement = Judgement(article)
        corrected = judge(article, statement, home.rules, judgement)
        self.divergences.extend(judgement.divergences(happening.offset))
        return corrected

    def _judge_due(self, article: Article, clock_ms: int, happening: Happening) -> m.Stated | None:
        """Judge the statements that are due; returns the last one that corrected something."""
        due = sorted(statement for statement in article.waiting if statement.due_ms <= clock_ms)
        article.waiting = [statement for statement in article.waiting if statement.due_ms > clock_ms]
        judgement = Judgement(article)
        correcting = [one.fact for one in due if judge(article, one, self._home(article).rules, judgement)]
        self.divergences.extend(judgement.divergences(happening.offset))
        return correcting[-1] if correcting else None

    # Clocks

    def _tick(self, happening: Happening) -> None:
        self.controls += 1
        home = self._partitions[happening.origin]
        before_ms = home.move_clock(happening.time_ms)
        touched: dict[str, Happening] = {}
        for article in home.waiting.values():
            ended = requests.expire(article, home.clock_ms, happening)
            self.reservations.extend(ended)
            if ended:
                touched[article.sku] = happening
            if fact := self._judge_due(article, home.clock_ms, happening):
                touched[article.sku] = happening._replace(cause=Cause("movement", fact.source, fact.id))
        to_plan = {sku: article for sku, article in home.to_plan(before_ms).items() if article.policy.follows_demand}
        candidates = {**{sku: self.articles[sku] for sku in touched}, **to_plan, **home.pending}
        if home.in_force(before_ms) != home.in_force(home.clock_ms):
            candidates = dict(home.articles)
            self._take_policies(home)
        for sku, article in candidates.items():
            if sku in touched:
                self._look_at(article, touched[sku], at_its_minute=sku in to_plan)
            else:
                self._settle(article, happening, at_its_minute=sku in to_plan)

    # What comes from outside

    def _change_rules(self, record: m.RulesChanged, message: Message, happening: Happening) -> None:
        home = self._partitions[happening.origin]
        change = home.change_rules(record)
        if change == "refused":
            origin = message.origin
            self.dead_letters[f"{origin.name}/{origin.partition}/{message.offset}"] = Reason.BAD_RULES
            return
        self.controls += 1
        if change == "changed":
            self._take_policies(home)
            at = self._at_clock(home, happening, Cause("rules"))
            for article in home.articles.values():
                self._settle(article, at)

    def _believe(self, record: m.LocationTrusted, happening: Happening) -> None:
        self.controls += 1
        home = self._partitions[happening.origin]
        if home.trust.get(record.location, 100) == record.trust_percent:
            return
        at = self._at_clock(home, happening, Cause("clock"))
        divergence = home.believe(record, at.offset, at.time_ms)
        if happening.origin.partition == 0 and divergence is not None:
            self.divergences.append(divergence)
        for sku, article in home.articles.items():
            if record.location in article.places or sku in home.pending:
                self._look_at(article, at)

    def _at_clock(self, home: Partition, happening: Happening, cause: Cause) -> Happening:
        time_ms = home.clock_ms if happening.time_ms == m.NO_TIME_MS else happening.time_ms
        return happening._replace(time_ms=time_ms, cause=cause)

    def _take_policies(self, home: Partition) -> None:
        for article in home.articles.values():
            article.policy = offers.policy_for(article.sku, home.rules, home.clock_ms)

    # Levels

    def _look_at(self, article: Article, happening: Happening, *, at_its_minute: bool = False) -> None:
        """A record changed the SKU: it shows everything up to that."""
        shown, crossings = self._evaluate(article, happening)
        plans = plan(article, self._home(article).moment_ms(article), happening, at_its_minute=at_its_minute)
        article.expected.clear()
        self._show(article, shown, crossings, plans, happening)

    def _settle(self, article: Article, happening: Happening, *, at_its_minute: bool = False) -> None:
        """A control record may have changed what the SKU shows; where it has, it shows everything up to that."""
        home = self._home(article)
        if article.version < 0 and article.sku not in home.pending:
            return
        before = article.offers
        shown, crossings = self._evaluate(article, happening)
        plans = plan(article, home.moment_ms(article), happening, at_its_minute=at_its_minute)
        article.expected.clear()
        if shown != before or crossings or plans or article.sku in home.pending:
            self._show(article, shown, crossings, plans, happening)

    def _show(
        self,
        article: Article,
        shown: dict[str, Offer],
        crossings: list[Threshold],
        plans: list[Replenishment],
        happening: Happening,
    ) -> None:
        home = self._home(article)
        article.version, article.as_of_ms = happening.offset, happening.time_ms
        article.generation, article.moment_ms = home.generation, home.moment_ms(article)
        home.pending.pop(article.sku, None)
        article.offers = shown
        self.crossings.extend(crossings)
        self.replenishments.extend(plans)
        if self.shadow_rules is not None:
            self._compare(article, self.shadow_rules, happening)

    def _evaluate(self, article: Article, happening: Happening) -> tuple[dict[str, Offer], list[Threshold]]:
        """Work out every channel and position of a SKU anew: what is shown, and each level that changed."""
        home, policy = self._home(article), article.policy
        market = offers.market(article, policy, home.trust, home.moment_ms(article))
        shown: dict[str, Offer] = {}
        crossings = []
        for channel in offers.looked_at(article, policy):
            terms = offers.terms(article, channel, market)
            rule = policy.channels[channel]
            gauge = article.channel_gauges[channel]
            recovered_at = rule.recovered_at or rule.low_stock_at + 1
            if crossed := _crossed(gauge, terms.sellable, rule.low_stock_at, recovered_at):
                crossings.append(_crossing(article, (channel, None), crossed, happening, home.generation))
            if offers.has_field(article, channel, policy):
                shown[channel] = Offer(terms.promised, terms.sellable, gauge.level, terms.overcommitted)
        for place, position in article.places.items():
            low = offers.low_stock_at(policy, place)
            if low is None:
                continue
            if crossed := _crossed(article.place_gauges[place], position.available, low, low + 1):
                crossings.append(_crossing(article, (None, place), crossed, happening, home.generation))
        return shown, crossings

    def _compare(self, article: Article, rules: Rules, happening: Happening) -> None:
        """What the SKU would show under the shadow rules, where that is something new."""
        home = self._home(article)
        policy = offers.policy_for(article.sku, rules, home.clock_ms)
        market = offers.market(article, policy, home.trust, home.moment_ms(article))
        would = {
            channel: offers.terms(article, channel, market).promised
            for channel in offers.looked_at(article, policy)
            if offers.has_field(article, channel, policy)
        }
        shows = {channel: offer.promised for channel, offer in article.offers.items()}
        differences = {
            channel: ShadowOffer(shows.get(channel, 0), would.get(channel, 0))
            for channel in {**shows, **would}
            if shows.get(channel, 0) != would.get(channel, 0)
        }
        if differences != article.differences:
            article.differences = differences
            self.shadow.append(
                ShadowDifference(
                    id=shadow_id(article.sku, happening.offset),
                    sku=article.sku,
                    version=happening.offset,
                    as_of=format_ms(happening.time_ms),
                    rules=home.generation,
                    channels=differences,
                )
            )


def fold(
    messages: Iterable[Message | Batch | Mark],
    rules: Rules,
    *,
    dedupe_ms: int,
    as_of_ms: int = AS_OF_MS,
    shadow: Rules | None = None,
) -> Oracle:
    """The oracle after all of `messages`, in the order given; marks say nothing about stock."""
    oracle = Oracle(rules, dedupe_ms, as_of_ms, shadow)
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


def _objection_by_memory(article: Article, fact: Fact, time_ms: int) -> Reason | None:
    """Why a fact about a known SKU cannot be used by what is remembered of it, or None."""
    if isinstance(fact, m.Stated):
        return Reason.TOO_LATE if article.too_old_for(fact.location, time_ms) else None
    if time_ms < article.horizon_ms and not isinstance(fact, m.Counted):
        return Reason.TOO_LATE
    if isinstance(fact, m.Extended) and not article.repeats(fact.source, fact.id):
        promise = article.promise(fact.request)
        if promise is None:
            return Reason.UNKNOWN_REQUEST
        return Reason.REQUEST_ENDED if promise.ended_ms is not None else None
    return None


def _traceparent(message: Message) -> str | None:
    for name, value in message.headers or ():
        if name == "traceparent" and value is not None:
            return value.decode("ascii", "replace")
    return None


def _hear(article: Article, movement: Movement, rules: Rules) -> None:
    """As long as the rules say which kinds a source may tell, those that it does tell are kept in mind."""
    source = rules.sources.get(movement.source)
    if source is not None and source.kinds is not None:
        article.heard.add((movement.location, movement.source, str(movement.__struct_config__.tag)))


def _move(article: Article, movement: Movement, time_ms: int) -> None:
    """The movement's row of signs, times its quantity, where it happened; and what hangs on it."""
    here = article.position(movement.location)
    before = here.available
    row = signs(movement)
    about_requests = requests.is_about_requests(article, movement)
    if about_requests:
        row.pop("reserved", None)
    for name, sign in row.items():
        here.move(name, time_ms, sign * movement.quantity)
    here.newest_ms = max(here.newest_ms, time_ms)
    if isinstance(movement, m.TransferShipped):
        units = -movement.quantity if movement.reversal else movement.quantity
        there = article.position(movement.destination)
        there_before = there.available
        there.move("in_transit", time_ms, units)
        if there is not here:
            there.reach(time_ms, there_before)
    if about_requests:
        requests.draw(article, movement, time_ms)
    else:
        requests.use_contract(article, movement)
    here.reach(time_ms, before)
    _note_demand(article, movement, here, time_ms)
    article.number(movement.location, movement.source, movement.sequence)
    article.recent.append(movement)
    for statement in article.waiting:
        if statement.fact.location == movement.location and time_ms <= statement.time_ms:
            article.late[statement.number] = article.late.get(statement.number, 0) + 1


def _note_demand(article: Article, movement: Movement, here: Position, time_ms: int) -> None:
    """What was wanted, what came back, and whether a purchase was announced."""
    units = -movement.quantity if movement.reversal else movement.quantity
    hour = time_ms // HOUR_MS
    if isinstance(movement, m.Shipped | m.TransferShipped):
        here.sold[hour] = here.sold.get(hour, 0) + units
    elif isinstance(movement, m.Returned):
        here.returned[hour] = here.returned.get(hour, 0) + units
    elif isinstance(movement, m.Expected) and not movement.reversal:
        article.expected.add(movement.location)


def _crossed(gauge: Gauge, units: int, low_stock_at: int, recovered_at: int) -> Crossed | None:
    """Bring a level up to date; what it went through, if it changed."""
    before = gauge.level
    after = gauge.level = gauge.read(units, low_stock_at, recovered_at)
    if after == before:
        return None
    threshold = 0
    if after == "in_stock":
        threshold = recovered_at
    elif (before, after) == ("in_stock", "low_stock"):
        threshold = low_stock_at
    initial, gauge.crossed = not gauge.crossed, True
    return Crossed(before, after, units, threshold, initial)


def _crossing(
    article: Article, whose: tuple[str | None, str | None], crossed: Crossed, happening: Happening, generation: int
) -> Threshold:
    """`whose` level it is: (channel, None) or (None, location)."""
    channel, place = whose
    if channel is not None:
        crossing_id = threshold_id(article.sku, channel, happening.offset)
    else:
        crossing_id = position_threshold_id(article.sku, place or "", happening.offset)
    return Threshold(
        id=crossing_id,
        sku=article.sku,
        channel=channel,
        location=place,
        from_=crossed.before,
        to=crossed.after,
        sellable=crossed.units,
        threshold=crossed.threshold,
        version=happening.offset,
        rules=generation,
        time=format_ms(happening.time_ms),
        initial=crossed.initial,
        cause=happening.cause,
        correlation=happening.correlation,
        traceparent=happening.traceparent,
    )


def _record(article: Article, incarnation: int, trust: dict[str, int]) -> Availability:
    locations = {
        place: LocationAvailability(
            **position.now,
            available=position.available,
            trust_percent=trust.get(place, 100),
            days_of_cover=days_of_cover(position, article.moment_ms),
        )
        for place, position in sorted(article.places.items())
    }
    return Availability(
        sku=article.sku,
        incarnation=incarnation,
        version=article.version,
        as_of=format_ms(article.as_of_ms),
        rules=article.generation,
        channels={
            field: ChannelAvailability(offer.promised, offer.sellable, offer.level, offer.overcommitted)
            for field, offer in article.offers.items()
        },
        locations=locations,
    )
