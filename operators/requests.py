"""Requests: what a channel asked for, what it was given, and what of that is still open."""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Any, Final

from xxhash import xxh3_64_intdigest

from schemas.movements import Requested
from schemas.times import parse_ms

NEVER_MS: Final = 2**62
CLEAN_AT_LEAST: Final = 64


class Request:
    """One request that was decided; `parts` are open units by location, and 0 everywhere once it has ended."""

    __slots__ = (
        "answer", "backordered", "body", "channel", "drawn", "ended_ms", "expires_ms", "id", "number", "order",
        "parts", "sku", "source",
    )  # fmt: skip

    def __init__(self, sku: int, requested: Requested, number: int) -> None:
        self.sku = sku
        self.id = requested.id
        self.source = requested.source
        self.channel = requested.channel
        self.order = requested.order
        self.body = body_of(requested)
        self.number = number  # of requests decided before it in its lane: the order among those of one SKU
        self.parts: dict[str, int] = {}
        self.backordered = 0
        self.drawn = 0  # units of `parts` that came out of the channel's commitment
        self.expires_ms = NEVER_MS
        self.ended_ms = NEVER_MS
        self.answer: bytes = b""  # the record as it was given

    @property
    def is_open(self) -> bool:
        """Whether anything of it is still held or owed."""
        return self.backordered > 0 or any(self.parts.values())

    def as_list(self) -> list[Any]:
        """All attributes in the order of their names."""
        return [getattr(self, name) for name in self.__slots__]

    @classmethod
    def from_list(cls, values: list[Any]) -> "Request":
        """The request that `as_list` wrote down."""
        request = cls.__new__(cls)
        for name, value in zip(cls.__slots__, values, strict=True):
            setattr(request, name, value)
        return request


class Requests:
    """All requests of a lane that are open or ended less than the SKU's horizon ago."""

    def __init__(self) -> None:
        self._by_sku: dict[int, dict[str, Request]] = {}
        self._expiring: dict[int, list[tuple[int, int, Request]]] = {}  # by home: a heap of (expires, number, request)
        self._numbers = 0
        self._clean_at: dict[int, int] = {}  # by SKU: as many requests as it may have before it is looked through

    def find(self, sku: int, id_: str, horizon_ms: int) -> Request | None:
        """The request, unless it ended before `horizon_ms`: then it is forgotten."""
        request = self._by_sku.get(sku, {}).get(id_)
        if request is not None and request.ended_ms < horizon_ms:
            del self._by_sku[sku][id_]
            return None
        return request

    def has(self, sku: int) -> bool:
        """Whether any of `sku` is remembered."""
        return bool(self._by_sku.get(sku))

    def skus(self) -> list[int]:
        """The SKUs of which any is remembered."""
        return [sku for sku, known in self._by_sku.items() if known]

    def of_order(self, sku: int, order: str, horizon_ms: int) -> list[Request]:
        """Those of `sku` that named `order`, in the order in which they were decided."""
        known = self._by_sku.get(sku, {}).values()
        return [request for request in known if request.order == order and request.ended_ms >= horizon_ms]

    def open_of(self, sku: int) -> list[Request]:
        """Those of `sku` that are open, in the order in which they were decided."""
        return [request for request in self._by_sku.get(sku, {}).values() if request.is_open]

    def add(self, sku: int, requested: Requested, horizon_ms: int) -> Request:
        """A new request; now and then what ended before the SKU's horizon is dropped."""
        self._numbers += 1
        request = Request(sku, requested, self._numbers)
        known = self._by_sku.setdefault(sku, {})
        known[request.id] = request
        if len(known) > self._clean_at.get(sku, CLEAN_AT_LEAST):
            self._forget(sku, horizon_ms)
        return request

    def expire_at(self, home: int, request: Request, expires_ms: int) -> None:
        """Sets or moves the time at which the open rest is released; NEVER_MS removes it."""
        request.expires_ms = expires_ms
        if expires_ms != NEVER_MS:
            heappush(self._expiring.setdefault(home, []), (expires_ms, request.number, request))

    def take_expired(self, home: int, clock_ms: int) -> Iterator[Request]:
        """The open requests whose time has passed, in the order (expires, number)."""
        heap = self._expiring.get(home, [])
        while heap and heap[0][0] < clock_ms:
            expires_ms, _, request = heappop(heap)
            if request.expires_ms == expires_ms and request.is_open:
                yield request

    def _forget(self, sku: int, horizon_ms: int) -> None:
        known = self._by_sku[sku]
        for id_ in [id_ for id_, request in known.items() if request.ended_ms < horizon_ms]:
            del known[id_]
        self._clean_at[sku] = max(CLEAN_AT_LEAST, 2 * len(known))

    def dump(self) -> dict[str, Any]:
        """Everything, as plain values."""
        homes = {id(request): home for home, heap in self._expiring.items() for _, _, request in heap}
        rows = [
            [homes.get(id(request), -1), request.as_list()]
            for known in self._by_sku.values()
            for request in known.values()
        ]
        return {"numbers": self._numbers, "requests": rows}

    def load(self, dumped: dict[str, Any]) -> None:
        """Replaces everything."""
        self._numbers = dumped["numbers"]
        for home, values in dumped["requests"]:
            request = Request.from_list(values)
            self._by_sku.setdefault(request.sku, {})[request.id] = request
            if home >= 0 and request.expires_ms != NEVER_MS:
                self._expiring.setdefault(home, []).append((request.expires_ms, request.number, request))
        for heap in self._expiring.values():
            heapify(heap)


def body_of(requested: Requested) -> int:
    """64 bits that stand for what was asked, whenever it was sent."""
    expires_ms = NEVER_MS if requested.expires is None else parse_ms(requested.expires)
    asked = (
        requested.source, requested.channel, requested.quantity, requested.location, expires_ms,
        requested.partial, requested.order, requested.order_line,
    )  # fmt: skip
    return xxh3_64_intdigest(repr(asked).encode())
