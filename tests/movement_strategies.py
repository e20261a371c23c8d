"""Hypothesis strategies of everything that may stand in a log of movements, and of rules to read it by."""

import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final, NamedTuple, TypeVar

import msgspec
from hypothesis import strategies as st

from bench.oracle import Message
from schemas.batches import Origin
from schemas.rules import ChannelRules, LocationRules, Rule, Rules, SourceRules
from schemas.times import format_ms

BASE_MS: Final = 1_795_219_200_000  # 2026-11-21T00:00:00Z
MINUTE_MS: Final = 60_000
DEDUPE_MS: Final = 60 * MINUTE_MS
AS_OF_MS: Final = 75 * MINUTE_MS
SKUS: Final = ("A", "fire-1", "fire-2/é", "C")
LOCATIONS: Final = ("dc-1", "dc-2", "store", "maker")
SOURCES: Final = ("wms", "erp")
CHANNELS: Final = ("web", "b2b", "b2b/acme", "marketplace")
CATEGORIES: Final = {
    "fireworks": ("fire-*", "C"),
    "everything": ("*",),
    "odd": ("*e-*é", "A"),
    "none": ("fire.1*", "*e-"),
}
QUANTITIES: Final = ("on_hand", "reserved", "allocated", "quarantined", "in_transit", "incoming")
TRACEPARENT: Final = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

Body = dict[str, object]
ValueT = TypeVar("ValueT")


class Entry(NamedTuple):
    """A record before it has an offset: the log it stands in, and what a producer wrote."""

    log: int
    key: bytes | None
    body: Body | bytes | None  # bytes and None: written as they are
    timestamp_ms: int
    headers: list[tuple[str, bytes | None]] | None

    @property
    def payload(self) -> bytes | None:
        """What stands in the log."""
        return json.dumps(self.body, ensure_ascii=False).encode() if isinstance(self.body, dict) else self.body


Logs = tuple[tuple[Message, ...], ...]  # one per origin


def or_none(strategy: st.SearchStrategy[ValueT]) -> st.SearchStrategy[ValueT | None]:
    """`strategy`, or None half of the time."""
    return st.none() | strategy


# Movements

TIMES: Final = st.integers(0, 90).map(lambda minutes: format_ms(BASE_MS + minutes * MINUTE_MS))
UNITS: Final = st.sampled_from([*range(1, 10), *range(1, 10), *range(1, 10), 20, 2**31])
NAMES: Final = st.sampled_from(["PO-1", "SO-1", "T-1"])
OPTIONAL: Final[dict[str, st.SearchStrategy[object]]] = {
    "sequence": or_none(st.integers(0, 9)),
    "order": or_none(NAMES),
    "order_line": NAMES,
    "document": NAMES,
    "line": NAMES,
    "transfer": or_none(NAMES),
    "request": NAMES,
    "channel": st.sampled_from(CHANNELS),
    "correlation": NAMES,
    "reversal": st.booleans(),
    "color": st.sampled_from(["red", None, {"deep": [1]}]),  # a field that nobody knows
}
FROM: Final = st.sampled_from(["on_hand", "reserved", "allocated", "quarantined"])
KINDS: Final[dict[str, dict[str, st.SearchStrategy[object]]]] = {  # each with the fields that only it has
    "expected": {"eta": TIMES},
    "expectation_cancelled": {},
    "received": {},
    "reserved": {},
    "released": {},
    "allocated": {"from": st.sampled_from(["on_hand", "reserved"])},
    "deallocated": {"to": st.sampled_from(["on_hand", "reserved"])},
    "picked": {},
    "shipped": {"from": FROM},
    "returned": {"to": st.sampled_from(["on_hand", "quarantined"])},
    "quarantined": {},
    "cleared": {},
    "scrapped": {"from": st.sampled_from(["on_hand", "quarantined"])},
    "adjusted": {},
    "transfer_shipped": {"from": FROM},
    "transfer_received": {},
    "transfer_lost": {},
}


def _plain(kind: str) -> st.SearchStrategy[Body]:
    required: dict[str, st.SearchStrategy[object]] = {
        "id": st.integers(0, 40).map(str),
        "source": st.sampled_from(SOURCES),
        "kind": st.just(kind),
        "sku": st.sampled_from(SKUS),
        "location": st.sampled_from(LOCATIONS),
        "quantity": UNITS,
        "time": TIMES,
    }
    if kind == "adjusted":
        required |= {"quantity": UNITS | UNITS.map(lambda units: -units), "reason": NAMES}
    if kind == "transfer_shipped":
        required["destination"] = st.sampled_from(LOCATIONS)
    return st.fixed_dictionaries(required, optional={**OPTIONAL, **KINDS[kind]})


def bodies() -> st.SearchStrategy[Body]:
    """Movements of every plain kind with any of their optional fields; stock comes in most often."""
    often = ["received", "received", "received", "shipped", "shipped", "reserved", "transfer_shipped"]
    return st.sampled_from([*KINDS, *often, *often, *often]).flatmap(_plain)


def other_bodies() -> st.SearchStrategy[Body]:
    """Facts beside the plain kinds, at random; tests/fact_strategies.py tells longer tales of them."""
    common: dict[str, st.SearchStrategy[object]] = {
        "id": st.integers(0, 40).map(str),
        "source": st.sampled_from(SOURCES),
        "sku": st.sampled_from(SKUS),
        "time": TIMES,
        "quantity": st.integers(1, 9),
        "location": st.sampled_from(LOCATIONS),
        "channel": st.sampled_from(CHANNELS),
        "request": NAMES,
        "of": st.sampled_from(QUANTITIES),
        "kind": st.sampled_from(
            ["counted", "stated", "requested", "extended", "channel_committed", "channel_uncommitted"]
        ),
    }
    return st.fixed_dictionaries(common)


def broken_bodies() -> st.SearchStrategy[Body]:
    """A movement with one thing wrong."""
    faults: list[Body] = [
        {"quantity": 0},
        {"quantity": 2**31 + 1},
        {"quantity": 1.5},
        {"quantity": "3"},
        {"quantity": None},
        {"kind": "teleported"},
        {"kind": 7},
        {"sku": ""},
        {"sku": "@A"},
        {"sku": "A\n"},
        {"sku": "x" * 129},
        {"location": "\x00"},
        {"time": "yesterday"},
        {"time": "2026-11-21T00:00:00"},
        {"id": ""},
        {"reversal": "yes"},
        {"from": "thin_air"},
    ]
    return st.builds(lambda body, fault: {**body, **fault}, _plain("shipped"), st.sampled_from(faults))


def poison() -> st.SearchStrategy[bytes | None]:
    """Payloads that are no object of ours at all."""
    known = [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"kind":"shipped"}', b"[" * 5000, b'{"a":' * 5000, b"1e999"]
    return st.none() | st.sampled_from(known) | st.binary(max_size=20)


def control_bodies() -> st.SearchStrategy[Body]:
    """Ticks; seldom the control records that nothing can use yet, or a tick with a bad time."""
    ticks: st.SearchStrategy[Body] = TIMES.map(lambda time: {"kind": "tick", "time": time})
    others: list[Body] = [
        {"kind": "rules", "generation": 2, "changes": {}},
        {"kind": "location", "location": "dc-1", "trust_percent": 50},
        {"kind": "tick", "time": "noon"},
        {"kind": "tick"},
    ]
    return st.one_of(ticks, ticks, ticks, st.sampled_from(others))


# Logs


def home_of(sku: object, log_count: int) -> int:
    """The log that holds the SKU's movements, where nothing is misplaced."""
    return SKUS.index(sku) % log_count if isinstance(sku, str) and sku in SKUS else 0


LATE_MS: Final = BASE_MS + 600 * MINUTE_MS  # a broker's clock that no movement is ahead of
TIMESTAMPS: Final = st.sampled_from([-1] + [LATE_MS] * 8 + [BASE_MS + 70 * MINUTE_MS])
TRACED: Final[tuple[str, bytes | None]] = ("traceparent", TRACEPARENT)
HEADERS: Final[st.SearchStrategy[list[tuple[str, bytes | None]] | None]] = st.sampled_from(
    [None, None, [TRACED], [("other", None), TRACED], [("traceparent", None)]]
)


@st.composite
def entries(draw: st.DrawFn, log_count: int, *, misplaced: bool = False) -> Entry:
    """One record of any sort; a movement stands in the log of its SKU unless `misplaced` ones are wanted."""
    sort = draw(st.sampled_from(["plain"] * 20 + ["tick"] * 4 + ["control", "other", "broken", "poison"]))
    log = draw(st.integers(0, log_count - 1))
    timestamp_ms, headers = draw(TIMESTAMPS), draw(HEADERS)
    if sort == "poison":
        key = draw(st.sampled_from([None, b"", b"A", b"\xff"]))
        return Entry(log, key, draw(poison()), timestamp_ms, headers)
    if sort in ("tick", "control"):
        body = draw(control_bodies())
        key = draw(st.sampled_from([None, b"", b"B"])) if sort == "control" else None
        return Entry(log, key, body, timestamp_ms, headers)
    body = draw({"plain": bodies(), "other": other_bodies(), "broken": broken_bodies()}[sort])
    if not misplaced:
        log = home_of(body["sku"], log_count)
    key = draw(st.sampled_from([str(body["sku"]).encode()] * 17 + [None, b"", b"someone else"]))
    return Entry(log, key, body, timestamp_ms, headers)


@st.composite
def logs(draw: st.DrawFn, *, misplaced: bool = False, size_max: int = 40) -> Logs:
    """One to three logs whose records collide in SKU, location, id and time; some records stand there twice."""
    log_count = draw(st.integers(1, 3))
    size = draw(st.integers(0, size_max))
    written = draw(st.lists(entries(log_count, misplaced=misplaced), min_size=size, max_size=size))
    repeated = draw(st.lists(st.sampled_from(written), max_size=4)) if written else []
    return numbered(log_count, [*written, *repeated])


@st.composite
def long_logs(draw: st.DrawFn, size: int = 1500) -> Logs:
    """One to three logs of `size` records in all: variations of a few, so that every batch is a full one."""
    log_count = draw(st.integers(1, 3))
    patterns = draw(st.lists(entries(log_count), min_size=5, max_size=40))
    random = Random(draw(st.integers(0, 2**32)))
    return numbered(log_count, [_variation(random.choice(patterns), number, random) for number in range(size)])


def numbered(log_count: int, written: list[Entry]) -> Logs:
    """The entries in their logs, with offsets that leave gaps as a broker's do."""
    found: list[list[Message]] = [[] for _ in range(log_count)]
    for entry in written:
        log = found[entry.log]
        offset = log[-1].offset + 1 + len(log) % 2 if log else 3
        log.append(Message(origin(entry.log), offset, entry.timestamp_ms, entry.key, entry.payload, entry.headers))
    return tuple(tuple(log) for log in found)


def origin(partition: int) -> Origin:
    """The log with this number."""
    return Origin("cluster", "topic-id", partition, "inventory.movements")


def _variation(entry: Entry, number: int, random: Random) -> Entry:
    """The same sort of record at another time, turned round or not; one in ten keeps its id and is a duplicate."""
    if not isinstance(entry.body, dict) or "kind" not in entry.body or random.random() < 0.1:
        return entry
    minute = number * 90 // 1500 + random.randint(0, 9)
    changes: Body = {"time": format_ms(BASE_MS + minute * MINUTE_MS)} if entry.body.get("time") != "noon" else {}
    if "quantity" in entry.body and random.random() < 0.9:
        changes |= {"id": f"{entry.body['id']}-{number}", "reversal": random.random() < 0.5}
    return entry._replace(body={**entry.body, **changes})


# Rules

SMALL: Final = st.integers(0, 4)
MOMENTS: Final = st.integers(0, 90).map(
    lambda minutes: datetime.fromtimestamp(BASE_MS / 1000, UTC) + timedelta(minutes=minutes)
)
CHANNEL_FIELDS: Final[dict[str, st.SearchStrategy[object]]] = {
    "share_percent": st.sampled_from([100, 100, 100, 80, 50, 33, 0]),
    "safety_units": SMALL,
    "safety_percent": st.sampled_from([0, 0, 0, 1, 33, 100]),
    "low_stock_at": SMALL,
    "recovered_at": st.integers(5, 8),
    "cap_units": SMALL,
    "backorder_units": SMALL,
    "commitment_only": st.sampled_from([False] * 9 + [True]),
    "sell": st.sampled_from([True] * 6 + [False]),
}


@st.composite
def exceptions(draw: st.DrawFn) -> Rule:
    """A rule for one SKU or category: of a location, of a channel, or of all channels."""
    time_span = st.fixed_dictionaries({}, optional={"valid_from": MOMENTS, "valid_to": MOMENTS})
    values: dict[str, object] = {**draw(time_span)}
    if draw(st.booleans()):
        values["sku"] = draw(st.sampled_from(SKUS))
    else:
        values["category"] = draw(st.sampled_from(sorted(CATEGORIES)))
    if draw(st.integers(0, 3)) == 0:
        values |= {"location": draw(st.sampled_from(LOCATIONS)), "safety_units": draw(SMALL)}
    else:
        values |= {"channel": draw(or_none(st.sampled_from(CHANNELS)))}
        fields = {**CHANNEL_FIELDS, "low_stock_at": st.integers(0, 9)}  # also above the channel's recovered_at
        values |= draw(st.fixed_dictionaries({}, optional=fields))
    return msgspec.convert(values, Rule)


@st.composite
def channel_rules(draw: st.DrawFn) -> ChannelRules:
    """The table of one channel."""
    values = draw(st.fixed_dictionaries({}, optional=CHANNEL_FIELDS))
    locations = draw(or_none(st.lists(st.sampled_from(LOCATIONS), min_size=1, unique=True)))
    return msgspec.convert({**values, "locations": locations}, ChannelRules)


def location_rules() -> st.SearchStrategy[LocationRules]:
    """The table of one location."""
    kinds = st.sampled_from(["warehouse", "store", "supplier"])
    return st.builds(LocationRules, kind=kinds, safety_units=st.integers(0, 3))


def source_rules() -> st.SearchStrategy[dict[str, SourceRules]]:
    """Mostly no [sources] at all; else some that are listed, some of them limited."""
    kinds = or_none(st.lists(st.sampled_from([*KINDS, "counted", "requested"]), min_size=8).map(tuple))
    locations = or_none(st.lists(st.sampled_from(LOCATIONS), min_size=2).map(tuple))
    limited = st.builds(SourceRules, kinds=kinds, locations=locations)
    return st.one_of(st.just({}), st.just({}), st.dictionaries(st.sampled_from(SOURCES), limited))


def all_rules() -> st.SearchStrategy[Rules]:
    """Rules as a planner could write them, for the names used here."""
    return st.builds(
        Rules,
        locations=st.dictionaries(st.sampled_from(LOCATIONS), location_rules()),
        channels=st.dictionaries(st.sampled_from(CHANNELS), channel_rules(), min_size=1),
        rules=st.lists(exceptions(), max_size=5).map(tuple),
        categories=st.just(CATEGORIES),
        sources=source_rules(),
    )
