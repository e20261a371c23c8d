"""Requests by the oracle: what is answered, what later facts draw on, what time ends; and the contracts behind them."""

from typing import NamedTuple

from bench import oracle_offers as offers
from bench.oracle_article import Article, Contract, Happening, Promise
from bench.oracle_partition import Partition
from schemas import movements as m
from schemas.movements import Movement
from schemas.outputs import RequestOutcome, Reservation, reservation_id
from schemas.times import format_ms, parse_ms

DRAWING = m.Allocated | m.Shipped | m.Released  # kinds that draw on a request that they name
COMMITTING = m.ChannelCommitted | m.ChannelUncommitted


class Decision(NamedTuple):
    """What a request gets."""

    outcome: RequestOutcome
    parts: tuple[tuple[str, int], ...] = ()
    backordered: int = 0
    possible: int = 0


# Asked


def ask(article: Article, fact: m.Requested, home: Partition, happening: Happening) -> Reservation:
    """The answer to a request; units are held where it is confirmed."""
    known = article.promise(fact.id)
    if known is not None:
        return known.answer if known.body == _body(fact) else _answer(fact, Decision("conflict"), happening)
    if article.home != happening.origin:
        return _answer(fact, Decision("wrong_partition"), happening)
    article.newest_ms = max(article.newest_ms, happening.time_ms)
    answer = _answer(fact, _decide(article, fact, home), happening)
    article.promises.pop(fact.id, None)  # one that was forgotten
    promise = article.promises[fact.id] = Promise(_body(fact), fact.order, answer)
    if answer.outcome == "confirmed":
        _hold(article, promise, happening.time_ms)
    else:
        promise.ended_ms = happening.time_ms
    return answer


def _decide(article: Article, fact: m.Requested, home: Partition) -> Decision:
    """By the rules of the SKU's home, and on the stock itself: whatever is trusted."""
    rules = home.rules
    if fact.expires is not None and parse_ms(fact.expires) <= home.clock_ms:
        return Decision("expired")
    if fact.channel not in rules.channels:
        return Decision("refused")
    if fact.location is not None and not offers.sells_from(fact.channel, fact.location, rules):
        return Decision("refused")
    market = offers.market(article, article.policy, {}, home.moment_ms(article))
    terms = offers.terms(article, fact.channel, market)
    places = offers.places_of(article, fact.channel, rules)
    stock = {place: market.spare[place] for place in places if fact.location in (None, place)}
    in_stock = min(sum(stock.values()), terms.sellable)
    cap = article.policy.channels[fact.channel].cap_units
    possible = min(fact.quantity, in_stock + terms.backorder_room)
    possible = possible if cap is None else min(possible, cap)
    if possible < fact.quantity and not (fact.partial and possible > 0):
        return Decision("refused", possible=possible)
    parts = _filled(stock, min(possible, in_stock))
    return Decision("confirmed", parts, possible - sum(units for _, units in parts), possible)


def _filled(stock: dict[str, int], wanted: int) -> tuple[tuple[str, int], ...]:
    """(location, units) of `wanted` units, taken from each location in turn."""
    parts = []
    for place, spare in stock.items():
        units = min(spare, wanted)
        wanted -= units
        if units:
            parts.append((place, units))
    return tuple(parts)


def _hold(article: Article, promise: Promise, time_ms: int) -> None:
    answer = promise.answer
    for place, units in answer.parts:
        _move_reserved(article, place, time_ms, units)
    article.owed[answer.channel] = article.owed.get(answer.channel, 0) + answer.backordered
    if answer.channel in article.contracts:
        promise.drawn = article.contracts[answer.channel].draw(sum(promise.parts.values()))
    promise.expires_ms = parse_ms(answer.expires) if answer.expires is not None else None


def _move_reserved(article: Article, place: str, time_ms: int, units: int) -> None:
    position = article.position(place)
    before = position.available
    position.move("reserved", time_ms, units)
    position.reach(time_ms, before)


def _body(fact: m.Requested) -> tuple[object, ...]:
    """What makes two requests with one id the same."""
    expires_ms = parse_ms(fact.expires) if fact.expires is not None else None
    asked = (fact.source, fact.channel, fact.quantity, fact.location, fact.partial)
    return (*asked, expires_ms, fact.order, fact.order_line)


def _answer(fact: m.Requested, decision: Decision, happening: Happening) -> Reservation:
    return Reservation(
        id=reservation_id(fact.sku, fact.id, decision.outcome, happening.offset),
        request=fact.id,
        source=fact.source,
        sku=fact.sku,
        channel=fact.channel,
        outcome=decision.outcome,
        parts=list(decision.parts),
        backordered=decision.backordered,
        possible=decision.possible,
        expires=format_ms(parse_ms(fact.expires)) if fact.expires is not None else None,
        version=happening.offset,
        time=format_ms(happening.time_ms),
        correlation=fact.correlation,
        traceparent=happening.traceparent,
    )


# Later


def is_about_requests(article: Article, movement: Movement) -> bool:
    """Whether a movement's `reserved` is what it draws on requests, and nothing of its own."""
    if not isinstance(movement, DRAWING):
        return False
    return movement.request is not None or bool(_of_its_order(article, movement))


def draw(article: Article, movement: Movement, time_ms: int) -> None:
    """Let a movement use up, or give back, what is open of the requests that it concerns."""
    if movement.reversal or (isinstance(movement, m.Shipped) and movement.from_ in ("allocated", "quarantined")):
        return
    if movement.request is None:
        promises = _of_its_order(article, movement)
    else:
        named = article.promise(movement.request)
        promises = [named] if named is not None else []
    left = movement.quantity
    for promise in promises:
        if promise.ended_ms is not None:
            continue
        drawn = min(left, promise.parts.get(movement.location, 0))
        left -= drawn
        _give_up(article, promise, movement.location, drawn, time_ms)
        if isinstance(movement, m.Released):
            _restore(article, promise, drawn)
        else:
            _use(article, promise, drawn)
        left -= _owe_less(article, promise, left)
        if isinstance(movement, m.Allocated):
            promise.expires_ms = None
        _end_if_empty(promise, time_ms)


def expire(article: Article, clock_ms: int, happening: Happening) -> list[Reservation]:
    """End what is still open of every request whose time is over."""
    over = [promise for promise in article.promises.values() if _is_over(promise, clock_ms)]
    return [_expired(article, promise, happening) for promise in sorted(over, key=lambda one: one.expires_ms or 0)]


def extend(article: Article, fact: m.Extended, happening: Happening) -> Reservation:
    """Move the time of an open request."""
    promise = article.promises[fact.request]
    promise.expires_ms = parse_ms(fact.expires) if fact.expires is not None else None
    left = sum(promise.parts.values()) + promise.owed
    return _later_answer(promise, Decision("extended", tuple(promise.open_parts()), promise.owed, left), happening)


def _is_over(promise: Promise, clock_ms: int) -> bool:
    return promise.ended_ms is None and promise.expires_ms is not None and promise.expires_ms < clock_ms


def _expired(article: Article, promise: Promise, happening: Happening) -> Reservation:
    parts = promise.open_parts()
    for place, units in parts:
        before = article.position(place).available
        _give_up(article, promise, place, units, happening.time_ms)
        article.position(place).reach(happening.time_ms, before)
        _restore(article, promise, units)
    backordered = _owe_less(article, promise, promise.owed)
    promise.ended_ms = happening.time_ms
    gone = sum(units for _, units in parts) + backordered
    return _later_answer(promise, Decision("expired", tuple(parts), backordered, gone), happening)


def _later_answer(promise: Promise, decision: Decision, happening: Happening) -> Reservation:
    """A further answer to an old question; its id and version are those of the record that made it."""
    first = promise.answer
    return Reservation(
        id=reservation_id(first.sku, first.request, decision.outcome, happening.offset),
        request=first.request,
        source=first.source,
        sku=first.sku,
        channel=first.channel,
        outcome=decision.outcome,
        parts=list(decision.parts),
        backordered=decision.backordered,
        possible=decision.possible,
        expires=format_ms(promise.expires_ms) if promise.expires_ms is not None else None,
        version=happening.offset,
        time=format_ms(happening.time_ms),
        correlation=happening.correlation,
        traceparent=happening.traceparent,
    )


def _of_its_order(article: Article, movement: Movement) -> list[Promise]:
    """Remembered requests of the order that a `released` names, in the order of their answers."""
    if not isinstance(movement, m.Released) or movement.order is None or movement.reversal:
        return []
    remembered = [article.promise(request) for request in article.promises]
    return [promise for promise in remembered if promise is not None and promise.order == movement.order]


def _give_up(article: Article, promise: Promise, place: str, units: int, time_ms: int) -> None:
    if units:
        promise.parts[place] -= units
        article.position(place).move("reserved", time_ms, -units)


def _owe_less(article: Article, promise: Promise, units: int) -> int:
    """Take up to `units` back from what is backordered; returns how many."""
    units = min(units, promise.owed)
    promise.owed -= units
    article.owed[promise.answer.channel] -= units
    return units


def _end_if_empty(promise: Promise, time_ms: int) -> None:
    if not promise.open_parts() and not promise.owed:
        promise.ended_ms = time_ms


# Contracts


def commit(article: Article, fact: COMMITTING) -> None:
    """More, or less, contract stock for a channel."""
    contract = article.contracts.setdefault(fact.channel, Contract())
    more = isinstance(fact, m.ChannelCommitted) != fact.reversal
    contract.committed += fact.quantity if more else -fact.quantity
    contract.open += fact.quantity if more else -fact.quantity


def use_contract(article: Article, movement: Movement) -> None:
    """What a movement with a channel, and without a request, does to that channel's contract."""
    if movement.channel not in article.contracts or movement.request is not None or movement.reversal:
        return
    contract = article.contracts[movement.channel]
    if isinstance(movement, m.Reserved):
        contract.draw(movement.quantity)
    elif isinstance(movement, m.Released) or (isinstance(movement, m.Deallocated) and movement.to == "on_hand"):
        contract.restore(movement.quantity)
    elif isinstance(movement, m.Shipped):
        used = contract.use(movement.quantity)
        if movement.from_ == "on_hand":
            contract.open -= min(movement.quantity - used, max(0, contract.open))


def _restore(article: Article, promise: Promise, units: int) -> None:
    """Units of a request are released: what it drew of its contract is open again."""
    back = min(units, promise.drawn)
    promise.drawn -= back
    if back:
        article.contracts[promise.answer.channel].restore(back)


def _use(article: Article, promise: Promise, units: int) -> None:
    """Units of a request are shipped or allocated: what it drew of its contract is used up."""
    used = min(units, promise.drawn)
    promise.drawn -= used
    if used:
        article.contracts[promise.answer.channel].use(used)
