"""Long logs of facts of all kinds, and rules for them, from one seed: what examples drawn one by one seldom reach."""

from random import Random
from typing import Final, Literal

import msgspec

from bench.oracle import Message
from schemas.movements import PLAIN_KINDS
from schemas.rules import ChannelRules, LocationRules, Rule, Rules, SourceRules
from schemas.times import format_ms
from tests.movement_strategies import BASE_MS, MINUTE_MS, TRACED, Body, Entry, Logs, numbered

FAR_MS: Final = BASE_MS + 100_000 * MINUTE_MS  # after everything that a storm speaks of
SKUS: Final = ("A", "fire-1", "fire-2/é")
LOCATIONS: Final = ("dc-1", "store", "maker")
SOURCES: Final = ("wms", "erp", "shop")
CHANNELS: Final = ("web", "b2b", "b2b/acme")
ORDERS: Final = ("SO-1", "SO-2", None, None)
QUANTITIES: Final = ("on_hand", "on_hand", "on_hand", "reserved", "allocated", "quarantined", "in_transit", "incoming")
KINDS: Final = tuple(str(kind.__struct_config__.tag) for kind in PLAIN_KINDS)
OFTEN: Final = ("received", "received", "received", "shipped", "shipped", "reserved", "released", "allocated")
SORTS: Final = ("plain", "drawing", "counted", "stated", "requested", "extended", "committed", "tick", "again")
THEMES: Final = {  # how often each sort comes
    "all": (24, 14, 6, 8, 14, 5, 5, 14, 6),
    "requests": (8, 24, 1, 1, 30, 5, 3, 12, 6),
    "counts": (30, 0, 20, 20, 2, 0, 0, 12, 3),
    "statements": (6, 0, 2, 40, 0, 0, 0, 12, 6),
}
FROM: Final = {
    "allocated": ("on_hand", "reserved"),
    "shipped": ("on_hand", "reserved", "allocated", "quarantined"),
    "scrapped": ("on_hand", "quarantined"),
    "transfer_shipped": ("on_hand", "reserved", "allocated", "quarantined"),
}
TO: Final = {"deallocated": ("on_hand", "reserved"), "returned": ("on_hand", "quarantined")}


class Storm:
    """One storm: the records that a seed makes, each told a little later than the one before."""

    def __init__(self, seed: int, *, misplaced: bool) -> None:
        self.random = Random(seed)
        self._misplaced = misplaced
        self._log_count = self.random.choice((1, 2, 2))
        self._skus = SKUS[: self.random.choice((1, 1, 2, 3))]
        self._theme = self.random.choice((*THEMES, "all"))
        self._locations = LOCATIONS[: self.random.choice((1, 2, 3) if self._theme == "all" else (1, 1, 2))]
        self._requests = [f"R-{number}" for number in range(self.random.choice((3, 12, 40)))]
        self._seconds_per_record = self.random.choice((5, 30, 60, 180))
        self._sequence_share = self.random.choice((0.0, 0.0, 0.3))
        self._now_ms = BASE_MS + 600 * MINUTE_MS
        self._entries: list[Entry] = []

    def logs(self) -> Logs:
        """The logs, closed by a late tick each."""
        for number in range(self.random.choice((20, 60, 120, 200))):
            self._now_ms += self.random.randint(0, 2000 * self._seconds_per_record)
            self._entries.append(self._entry(number))
        last: Body = {"kind": "tick", "time": format_ms(FAR_MS)}
        closing = [Entry(log, None, last, -1, None) for log in range(self._log_count)]
        found = numbered(self._log_count, [*self._entries, *closing])
        return tuple(tuple(_apart(message) for message in log) for log in found)

    def _entry(self, number: int) -> Entry:
        sort = self.random.choices(SORTS, THEMES[self._theme])[0]
        if sort == "again" and self._entries:
            return self._again(number)
        if sort in ("tick", "again"):
            time_ms = self._now_ms - self.random.choice((0, 0, 0, 0, 5 * MINUTE_MS))
            time_ms = time_ms // MINUTE_MS * MINUTE_MS if self.random.random() < 0.7 else time_ms
            log = self.random.randrange(self._log_count)
            return Entry(log, None, {"kind": "tick", "time": format_ms(time_ms)}, -1, self._headers())
        body = self._body(sort, number)
        return Entry(self._log_of(body), str(body["sku"]).encode(), body, -1, self._headers())

    def _again(self, number: int) -> Entry:
        """A record for the second time, some with another id, some with another quantity."""
        entry = self.random.choice(self._entries)
        if not isinstance(entry.body, dict) or "id" not in entry.body or self.random.random() < 0.5:
            return entry
        body = dict(entry.body)
        if body["kind"] != "requested":
            body |= {"id": f"again-{number}", "source": self.random.choice(SOURCES)}
        elif self.random.random() < 0.5:
            body |= {"quantity": self._units()}
        return entry._replace(body=body)

    def _log_of(self, body: Body) -> int:
        if self._misplaced and self.random.random() < 0.3:
            return self.random.randrange(self._log_count)
        return SKUS.index(str(body["sku"])) % self._log_count

    def _headers(self) -> list[tuple[str, bytes | None]] | None:
        return [TRACED] if self.random.random() < 0.1 else None

    def _units(self) -> int:
        return self.random.choice((1, 2, 3, 4, 5, 6, 9))

    def _time(self) -> str:
        minutes = self.random.choice((0, 0, 0, 0, 0, 0, -2, 1, 2, 5, 10, 20, 30, 50, 59, 61, 70, 80, 120))
        grain_ms = self.random.choice((1, 60_000, 600_000))  # so that times meet
        return format_ms((self._now_ms - minutes * MINUTE_MS) // grain_ms * grain_ms)

    def _body(self, sort: str, number: int) -> Body:
        random = self.random
        body: Body = {
            "kind": sort,
            "id": f"{number}",
            "source": random.choice(SOURCES),
            "sku": random.choice(self._skus),
            "time": self._time(),
        }
        if random.random() < 0.2:
            body["correlation"] = f"c-{number}"
        if sort in ("plain", "drawing"):
            return body | self._movement(sort)
        if sort in ("counted", "stated"):
            return body | self._what_is_there(sort)
        if sort == "committed":
            kind = random.choice(("channel_committed", "channel_committed", "channel_uncommitted"))
            reversal = random.random() < 0.1
            return body | {"kind": kind, "channel": self._channel(), "quantity": self._units(), "reversal": reversal}
        if random.random() < 0.7:
            minutes = random.choice((-1, 0, 2, 5, 5, 10, 20, 20, 60))
            body["expires"] = format_ms((self._now_ms + minutes * MINUTE_MS) // 60_000 * 60_000)
        if sort == "extended":
            return body | {"request": random.choice(self._requests)}
        return body | self._request()

    def _movement(self, sort: str) -> Body:
        random = self.random
        kind = random.choice((*KINDS, *OFTEN, *OFTEN, *OFTEN))
        if sort == "drawing":
            kind = random.choice(("allocated", "shipped", "shipped", "released", "released", "deallocated", "reserved"))
        body: Body = {"kind": kind, "location": random.choice(self._locations), "quantity": self._units()}
        if kind == "received":
            body["quantity"] = random.choice((5, 10, 20))
        if kind == "adjusted":
            body |= {"quantity": random.choice((-1, 1)) * self._units(), "reason": "found"}
        if kind == "transfer_shipped":
            body["destination"] = random.choice(LOCATIONS)
        if kind in FROM:
            body["from"] = random.choice(FROM[kind])
        if kind in TO:
            body["to"] = random.choice(TO[kind])
        if sort == "drawing" and random.random() < (0.5 if kind == "released" else 0.9):
            body["request"] = random.choice(self._requests)
        body["reversal"] = random.random() < 0.08
        return body | self._papers()

    def _papers(self) -> Body:
        random = self.random
        body: Body = {"order": random.choice(ORDERS), "document": random.choice((None, "DN-1"))}
        body["transfer"] = random.choice((None, "T-1"))
        if random.random() < self._sequence_share:
            body["sequence"] = random.choice((*range(12), *range(12), 40, 2**40))
        if random.random() < 0.4:
            body["channel"] = self._channel()
        return body

    def _what_is_there(self, sort: str) -> Body:
        random = self.random
        body: Body = {
            "location": random.choice(self._locations),
            "quantity": random.choice((0, 1, 2, 3, 4, 5, 6, 8, 12, 20)),
        }
        body["of"] = random.choice(QUANTITIES if sort == "counted" else (*QUANTITIES, "available", "available"))
        if sort == "counted":
            return body | {"includes_picked": random.random() < 0.7, "sequence": random.choice((None, None, 3))}
        return body | {"basis": random.choice(("salable", "on_shelf"))}

    def _request(self) -> Body:
        random = self.random
        return {
            "id": random.choice(self._requests),
            "source": "shop",
            "channel": self._channel(),
            "quantity": self._units(),
            "location": random.choice((None, None, None, *LOCATIONS)),
            "partial": random.random() < 0.4,
            "order": random.choice(ORDERS),
        }

    def _channel(self) -> str:
        return self.random.choice(CHANNELS) if self.random.random() < 0.98 else "moon"


def storm(seed: int, *, misplaced: bool = False) -> tuple[Logs, Rules]:
    """The logs and rules of a seed."""
    return Storm(seed, misplaced=misplaced).logs(), storm_rules(Random(seed + 1))


def storm_rules(random: Random) -> Rules:
    """Rules with something of everything."""
    moments = [format_ms(BASE_MS + minutes * MINUTE_MS) for minutes in range(600, 840, 10)]
    return Rules(
        locations={name: _location(random) for name in LOCATIONS if random.random() < 0.6},
        channels={name: _channel(random) for name in CHANNELS},
        rules=tuple(_exception(random, moments) for _ in range(random.choice((0, 1, 3)))),
        categories={"fireworks": ("fire-*",), "everything": ("*",)},
        sources={} if random.random() < 0.4 else {name: _source(random) for name in SOURCES},
    )


def _location(random: Random) -> LocationRules:
    kinds: tuple[Literal["warehouse", "supplier"], ...] = ("warehouse", "warehouse", "supplier")
    low_stock_at = random.choice((None, None, 0, 4))
    return LocationRules(kind=random.choice(kinds), safety_units=random.choice((0, 0, 2)), low_stock_at=low_stock_at)


def _channel(random: Random) -> ChannelRules:
    return ChannelRules(
        locations=random.choice((None, None, ("dc-1",), ("store", "dc-1"), ("maker", "dc-1", "store"))),
        priority=random.choice((0, 0, 1, 2)),
        share_percent=random.choice((100, 100, 100, 50, 33)),
        safety_units=random.choice((0, 0, 0, 2)),
        safety_percent=random.choice((0, 0, 0, 10)),
        low_stock_at=random.choice((0, 3, 5)),
        recovered_at=random.choice((None, 7)),
        cap_units=random.choice((None, None, None, 4)),
        backorder_units=random.choice((0, 0, 3, 8)),
        commitment_only=random.random() < 0.1,
        sell=random.random() < 0.95,
    )


def _exception(random: Random, moments: list[str]) -> Rule:
    begin, end = sorted(random.sample(moments, 2))
    owner = random.choice(({"sku": "A"}, {"sku": "fire-1"}, {"category": "fireworks"}, {"category": "everything"}))
    values: dict[str, object] = {**owner, **random.choice(({}, {"valid_from": begin}, {"valid_to": end}))}
    if random.random() < 0.4:
        values |= {"location": random.choice(LOCATIONS), "safety_units": 1, "low_stock_at": random.choice((0, 3, 6))}
    else:
        values |= {"channel": random.choice((None, *CHANNELS)), "low_stock_at": random.choice((None, 2))}
        values |= random.choice(({"sell": False}, {"cap_units": 3}, {"backorder_units": 5}, {"commitment_only": True}))
    return msgspec.convert(values, Rule)


def _source(random: Random) -> SourceRules:
    speaks = (*KINDS[:12], "stated", "counted", "requested", "extended", "channel_committed")
    return SourceRules(
        kinds=random.choice((None, None, None, None, speaks)),
        locations=random.choice((None, None, None, None, ("dc-1", "store"))),
        authority=random.choice((0, 1)),
        corrects=random.random() < 0.4,
        tolerance_units=random.choice((0, 0, 2, 6)),
        tolerance_percent=random.choice((0, 0, 20)),
        grace=random.choice(("0s", "0s", "5m", "20m", "90m")),
    )


def _apart(message: Message) -> Message:
    """Offsets of two logs differ, so that what a SKU says in both is never told under one version."""
    return message._replace(offset=message.offset + 10_000 * message.origin.partition)
