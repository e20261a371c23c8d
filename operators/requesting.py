"""Requesting: decides what a channel asks for, lets later facts draw on it, and ends what was not used in time."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from operators.offers import View
from operators.outcome import Happening
from operators.pools import Spare
from operators.positions import Signs
from operators.requests import NEVER_MS, Request, Requests, body_of
from operators.stock import Stock
from schemas.movements import Allocated, Extended, Movement, Reason, Refusal, Released, Requested, Shipped
from schemas.outputs import RequestOutcome, Reservation, reservation_id
from schemas.times import format_ms, parse_ms

_DRAWING: Final = (Allocated, Released, Shipped)
_answer_of = msgspec.msgpack.Decoder(Reservation).decode
_pack = msgspec.msgpack.Encoder().encode


class Requesting:
    """The requests of a lane's SKUs. Only `decide`, `draw`, `extend` and `expire` change them."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock
        self._requests = Requests()

    def repeated(self, sku: int, requested: Requested, horizon_ms: int, happening: Happening) -> Reservation | None:
        """The answer to a request whose id is known: the same again, or a conflict; None where it is new."""
        known = self._requests.find(sku, requested.id, horizon_ms)
        if known is None:
            return None
        if known.body == body_of(requested):
            return _answer_of(known.answer)
        return answer_to(requested, "conflict", happening)

    def decide(self, sku: int, requested: Requested, horizon_ms: int, happening: Happening) -> tuple[Reservation, bool]:
        """The answer to a new request, and whether it changed what can be sold.

        Requests of the SKU that ended before `horizon_ms` are forgotten.
        """
        request = self._requests.add(sku, requested, horizon_ms)
        expires_ms = NEVER_MS if requested.expires is None else parse_ms(requested.expires)
        possible, in_stock, spares = self._possible(sku, requested, happening.clock_ms)
        confirmed = possible == requested.quantity or (requested.partial and possible > 0)
        if expires_ms <= happening.clock_ms:
            reservation = answer_to(requested, "expired", happening)
        elif confirmed:
            self._hold(request, min(possible, in_stock), spares, happening)
            self._owe(request, possible - min(possible, in_stock))
            self._requests.expire_at(self._home(sku), request, expires_ms)
            reservation = answer_to(requested, "confirmed", happening, possible, request)
        else:
            reservation = answer_to(requested, "refused", happening, possible)
        if not request.is_open:
            request.ended_ms = happening.time_ms
        request.answer = _pack(reservation)
        return reservation, request.is_open

    def signs_of(
        self, sku: int, movement: Movement, plain: Signs, horizon_ms: int, happening: Happening
    ) -> Mapping[str, int] | None:
        """What a fact changes at its location where it draws on requests; None where it is a plain one.

        It draws on what is still open there and never more, whatever its own signs say about `reserved`.
        """
        if not isinstance(movement, _DRAWING):
            return None
        units = movement.quantity
        if movement.request is not None:
            if movement.reversal:
                return {name: -sign * units for name, sign in plain.items() if name != "reserved"}
            if isinstance(movement, Shipped) and movement.from_ not in ("reserved", "on_hand"):
                return {name: sign * units for name, sign in plain.items()}
            request = self._requests.find(sku, movement.request, horizon_ms)
            drawn = 0 if request is None else self._draw(request, movement, units, happening)
        elif isinstance(movement, Released) and not movement.reversal and movement.order is not None:
            of_order = self._requests.of_order(sku, movement.order, horizon_ms)
            if not of_order:
                return None
            drawn = self._release_in_turn(of_order, movement, happening)
        else:
            return None
        amounts = {name: sign * units for name, sign in plain.items() if name != "reserved"}
        return {**amounts, "reserved": -drawn}

    def extend(self, sku: int, extended: Extended, horizon_ms: int, happening: Happening) -> Reservation | Refusal:
        """Moves the time at which a request ends, or says why not."""
        request = self._requests.find(sku, extended.request, horizon_ms)
        if request is None:
            detail = f"no request {extended.request!r} of this SKU is known"
            return Refusal(Reason.UNKNOWN_REQUEST, detail, extended.source, extended.sku)
        if not request.is_open:
            detail = f"request {extended.request!r} has ended"
            return Refusal(Reason.REQUEST_ENDED, detail, extended.source, extended.sku)
        expires_ms = NEVER_MS if extended.expires is None else parse_ms(extended.expires)
        self._requests.expire_at(self._home(sku), request, expires_ms)
        return self._told(request, "extended", happening, dict(request.parts), request.backordered)

    def expire(self, home: int, happening: Happening) -> list[tuple[int, Reservation]]:
        """Ends the requests whose time the clock of `home` has passed: SKU and record of each."""
        expired = []
        for request in self._requests.take_expired(home, happening.clock_ms):
            parts, backordered = dict(request.parts), request.backordered
            for location, units in parts.items():
                self._give_back(request, location, units, happening)
            self._owe(request, -backordered)
            request.ended_ms = happening.time_ms
            expired.append((request.sku, self._told(request, "expired", happening, parts, backordered)))
        return expired

    def remembers(self, sku: int) -> bool:
        """Whether any request of `sku` is remembered, open or ended."""
        return self._requests.has(sku)

    def skus(self) -> list[int]:
        """The SKUs of which any request is remembered."""
        return self._requests.skus()

    def open_of(self, sku: int) -> list[Request]:
        """The requests of `sku` that still hold or owe something, in the order in which they were decided."""
        return self._requests.open_of(sku)

    def dump(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return self._requests.dump()

    def load(self, dumped: dict[str, Any]) -> None:
        """Replaces everything."""
        self._requests.load(dumped)

    def _home(self, sku: int) -> int:
        return self._stock.skus.cells["home"][sku]

    def _possible(self, sku: int, requested: Requested, clock_ms: int) -> tuple[int, int, list[tuple[str, Spare]]]:
        """Units that can be had in all, those of them in stock, and the positions to take them from, in order."""
        channel, location = requested.channel, requested.location
        if not self._stock.book(sku).knows_channel(channel):
            return 0, 0, []
        view = self._stock.view(sku, channel, clock_ms)
        if not view.rule.sell or (location and not self._stock.rules_of(sku).draws_on(view.rule, location)):
            return 0, 0, []
        spares = self._in_preference(sku, channel, location, view)
        in_stock = min(sum(spare.units for _, spare in spares), view.offer.sellable)
        possible = min(requested.quantity, in_stock + self._backorder_room(sku, view))
        if view.rule.cap_units is not None:
            possible = min(possible, view.rule.cap_units)
        return possible, in_stock, spares

    def _in_preference(self, sku: int, channel: str, location: str | None, view: View) -> list[tuple[str, Spare]]:
        """The positions that may be drawn on: the one named, or those of the rule in its order, or else by name."""
        spares = self._stock.spares(sku)
        order = self._stock.book(sku).preference(channel)
        if location is not None:
            order = (location,)
        elif order is None:
            order = tuple(sorted(name for name in spares if self._stock.rules_of(sku).draws_on(view.rule, name)))
        return [(name, spares[name]) for name in dict.fromkeys(order) if name in spares]

    def _backorder_room(self, sku: int, view: View) -> int:
        if view.rule.commitment_only:
            return 0
        owed = self._stock.backordered(sku, view.rule.name) + view.pool.shortfall
        return max(0, view.rule.backorder_units - owed)

    def _hold(self, request: Request, units: int, spares: list[tuple[str, Spare]], happening: Happening) -> None:
        """Reserves `units`, filling the positions in their order."""
        left = units
        for location, spare in spares:
            part = min(left, spare.units)
            if part > 0:
                request.parts[location] = request.parts.get(location, 0) + part
                self._stock.move(request.sku, location, {"reserved": +1}, part, happening.time_ms)
                left -= part
        ledger = self._stock.ledger(request.sku, request.channel)
        if ledger is not None:
            after = ledger.reserve(units)
            request.drawn = after.drawn - ledger.drawn
            self._stock.set_ledger(request.sku, request.channel, after, happening.clock_ms)

    def _owe(self, request: Request, units: int) -> None:
        if units:
            request.backordered += units
            self._stock.owe(request.sku, request.channel, units)

    def _draw(self, request: Request, movement: Movement, units: int, happening: Happening) -> int:
        """Takes up to `units` of what is held at the movement's location, then of what is owed; returns the former."""
        drawn = min(units, request.parts.get(movement.location, 0))
        if drawn:
            request.parts[movement.location] -= drawn
            self._settle(request, drawn, happening, gives_back=isinstance(movement, Released))
        self._owe(request, -min(units - drawn, request.backordered))
        if isinstance(movement, Allocated) and request.is_open:
            request.expires_ms = NEVER_MS
        if not request.is_open and request.ended_ms == NEVER_MS:
            request.ended_ms = happening.time_ms
        return drawn

    def _release_in_turn(self, requests: list[Request], movement: Released, happening: Happening) -> int:
        """Releases `movement.quantity` units of an order's requests, the first decided first; returns what was held."""
        left, drawn = movement.quantity, 0
        for request in requests:
            owed = request.backordered
            units = self._draw(request, movement, left, happening)
            drawn += units
            left -= units + owed - request.backordered
        return drawn

    def _settle(self, request: Request, units: int, happening: Happening, *, gives_back: bool) -> None:
        """What the request held of its channel's commitment: given back, or used up for good."""
        held = min(units, request.drawn)
        ledger = self._stock.ledger(request.sku, request.channel)
        if not held or ledger is None:
            return
        request.drawn -= held
        after = ledger.release(held) if gives_back else ledger.ship(held, unreserved=False)
        self._stock.set_ledger(request.sku, request.channel, after, happening.clock_ms)

    def _give_back(self, request: Request, location: str, units: int, happening: Happening) -> None:
        if units:
            request.parts[location] = 0
            self._stock.move(request.sku, location, {"reserved": -1}, units, happening.time_ms)
            self._settle(request, units, happening, gives_back=True)

    def _told(
        self, request: Request, outcome: RequestOutcome, happening: Happening, parts: dict[str, int], backordered: int
    ) -> Reservation:
        """A record about a request that was decided before."""
        sku = self._stock.names[request.sku]
        held = [(location, units) for location, units in parts.items() if units]
        return Reservation(
            id=reservation_id(sku, request.id, outcome, happening.offset),
            request=request.id,
            source=request.source,
            sku=sku,
            channel=request.channel,
            outcome=outcome,
            parts=held,
            backordered=backordered,
            possible=sum(units for _, units in held) + backordered,
            expires=None if request.expires_ms == NEVER_MS else format_ms(request.expires_ms),
            version=happening.offset,
            time=format_ms(happening.time_ms),
            correlation=happening.correlation,
            traceparent=happening.traceparent,
        )


def answer_to(
    requested: Requested,
    outcome: RequestOutcome,
    happening: Happening,
    possible: int = 0,
    request: Request | None = None,
) -> Reservation:
    """The answer to a request as it stands in the log; what was given stands in `request`."""
    return Reservation(
        id=reservation_id(requested.sku, requested.id, outcome, happening.offset),
        request=requested.id,
        source=requested.source,
        sku=requested.sku,
        channel=requested.channel,
        outcome=outcome,
        parts=[] if request is None else list(request.parts.items()),
        backordered=0 if request is None else request.backordered,
        possible=possible,
        expires=None if requested.expires is None else format_ms(parse_ms(requested.expires)),
        version=happening.offset,
        time=format_ms(happening.time_ms),
        correlation=happening.correlation,
        traceparent=happening.traceparent,
    )
