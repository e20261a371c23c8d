"""Hypothesis strategies of logs in which facts of all kinds meet: counts, statements, requests, contracts, ticks.

There are few SKUs, locations, channels, requests and orders, so that facts concern one another; times go on with the
log, with some far enough behind for every horizon.
"""

import json
from typing import Final

import msgspec
from hypothesis import strategies as st

from bench.oracle import Message
from schemas.rules import ChannelRules, LocationRules, Rule, Rules, SourceRules
from schemas.times import format_ms
from tests.movement_strategies import (
    BASE_MS,
    CATEGORIES,
    CHANNEL_FIELDS,
    HEADERS,
    KINDS,
    LATE_MS,
    MINUTE_MS,
    MOMENTS,
    Body,
    Entry,
    Logs,
    channel_rules,
    control_bodies,
    home_of,
    numbered,
    or_none,
)

SKUS: Final = ("A", "fire-1")
LOCATIONS: Final = ("dc-1", "store", "maker")
SOURCES: Final = ("wms", "erp", "shop")
CHANNELS: Final = ("web", "b2b", "b2b/acme")
ORDERS: Final = ("SO-1", "SO-2")
REQUESTS: Final = ("R-1", "R-2", "R-3", "R-4", "R-5", "R-6")
COUNTED: Final = ("on_hand", "on_hand", "on_hand", "reserved", "allocated", "quarantined", "in_transit", "incoming")
MINUTES_PER_RECORD: Final = 3
FAR_MS: Final = BASE_MS + 100_000 * MINUTE_MS  # after everything that a log speaks of
OFFSETS_APART: Final = 10_000  # so that records of a SKU in two logs never have one version

UNITS: Final = st.sampled_from([1, 2, 3, 4, 5, 6, 9])
MANY: Final = st.sampled_from([8, 12, 20, 40])
COUNTS: Final = st.sampled_from([0, 1, 2, 3, 5, 8, 12, 20])
ANY_CHANNEL: Final = st.sampled_from(["web"] * 5 + ["b2b"] * 4 + ["b2b/acme"] * 3 + ["moon"])
BEHIND: Final = st.sampled_from([0] * 12 + [-2, -1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 62, 70, 89, 120])  # minutes
SENT: Final = st.sampled_from([*KINDS, *["received"] * 12, *["shipped", "reserved", "released", "allocated"] * 2])
SORTS: Final = (
    ["plain"] * 14 + ["drawing"] * 6 + ["counted"] * 4 + ["stated"] * 5 + ["requested"] * 8 + ["extended"] * 2
    + ["committed"] * 3 + ["tick"] * 6 + ["odd"]
)  # fmt: skip


def _fact(kind: str, **fields: st.SearchStrategy[object]) -> dict[str, st.SearchStrategy[object]]:
    return {
        "kind": st.just(kind),
        "id": st.integers(0, 60).map(str),
        "source": st.sampled_from(SOURCES),
        "sku": st.sampled_from(SKUS),
        **fields,
    }


def _plain(kind: str) -> st.SearchStrategy[Body]:
    required = _fact(kind, location=st.sampled_from(LOCATIONS), quantity=MANY if kind == "received" else UNITS)
    if kind == "adjusted":
        required |= {"quantity": UNITS | UNITS.map(lambda units: -units), "reason": st.just("found")}
    if kind == "transfer_shipped":
        required["destination"] = st.sampled_from(LOCATIONS)
    optional: dict[str, st.SearchStrategy[object]] = {
        "sequence": st.integers(0, 30) | st.just(2**40),
        "order": st.sampled_from(ORDERS),
        "document": st.just("DN-1"),
        "channel": st.sampled_from(CHANNELS),
        "reversal": st.sampled_from([False, False, False, True]),
        "correlation": st.just("c-1"),
    }
    return st.fixed_dictionaries(required, optional={**optional, **KINDS[kind]})


def _drawing(kind: str) -> st.SearchStrategy[Body]:
    """A fact that names a request."""
    name = st.fixed_dictionaries({"request": st.sampled_from(REQUESTS)})
    return st.builds(lambda body, request: {**body, **request}, _plain(kind), name)


PLAIN: Final = {kind: _plain(kind) for kind in KINDS}
DRAWING: Final = {kind: _drawing(kind) for kind in ("allocated", "shipped", "released", "deallocated", "reserved")}
NAMES: Final[dict[str, st.SearchStrategy[object]]] = {
    "order": st.sampled_from(ORDERS),
    "order_line": st.just("1"),
    "correlation": st.just("c-2"),
}
COUNTED_BODIES: Final[st.SearchStrategy[Body]] = st.fixed_dictionaries(
    _fact("counted", location=st.sampled_from(LOCATIONS), quantity=COUNTS, of=st.sampled_from(COUNTED)),
    optional={"includes_picked": st.booleans(), "sequence": st.integers(0, 30)},
)
STATED_BODIES: Final[st.SearchStrategy[Body]] = st.fixed_dictionaries(
    _fact(
        "stated",
        location=st.sampled_from(LOCATIONS),
        quantity=COUNTS,
        of=st.sampled_from([*COUNTED, "available", "available"]),
    ),
    optional={"basis": st.sampled_from(["salable", "on_shelf"]), "correlation": st.just("c-3")},
)
REQUESTED_BODIES: Final[st.SearchStrategy[Body]] = st.fixed_dictionaries(
    {
        **_fact("requested", channel=ANY_CHANNEL, quantity=UNITS),
        "id": st.sampled_from(REQUESTS),
        "source": st.sampled_from(["shop"] * 9 + ["erp"]),
    },
    optional={"location": st.sampled_from(LOCATIONS), "partial": st.booleans(), **NAMES},
)
EXTENDED_BODIES: Final[st.SearchStrategy[Body]] = st.fixed_dictionaries(
    _fact("extended", request=st.sampled_from(REQUESTS)), optional={"correlation": st.just("c-4")}
)
COMMITTED_BODIES: Final[st.SearchStrategy[Body]] = st.fixed_dictionaries(
    {
        **_fact("channel_committed", channel=ANY_CHANNEL, quantity=UNITS),
        "kind": st.sampled_from(["channel_committed"] * 3 + ["channel_uncommitted"]),
    },
    optional={"reversal": st.sampled_from([False, False, True])},
)
EXPIRES: Final = st.sampled_from([None, None, None, -3, 0, 3, 6, 10, 10, 20, 20, 40])  # minutes after the request


def _time(minute: int) -> str:
    return format_ms(BASE_MS + (100 + minute) * MINUTE_MS)


@st.composite
def _bodies(draw: st.DrawFn, sort: str, minute: int) -> Body:
    """A record of one sort, told at `minute` and perhaps dated before."""
    if sort == "odd":
        return draw(control_bodies())
    if sort == "tick":
        return {"kind": "tick", "time": _time(minute - draw(st.sampled_from([0, 0, 0, 1, 5])))}
    dated = minute - draw(BEHIND)
    if sort == "plain":
        return {**draw(PLAIN[draw(SENT)]), "time": _time(dated)}
    if sort == "drawing":
        return {**draw(DRAWING[draw(st.sampled_from(sorted(DRAWING)))]), "time": _time(dated)}
    strategy = {
        "counted": COUNTED_BODIES,
        "stated": STATED_BODIES,
        "requested": REQUESTED_BODIES,
        "extended": EXTENDED_BODIES,
        "committed": COMMITTED_BODIES,
    }[sort]
    body: Body = {**draw(strategy), "time": _time(dated)}
    if sort in ("requested", "extended"):
        expires = draw(EXPIRES)
        if expires is not None:
            zone = draw(st.sampled_from(["Z", "Z", "Z", "+00:00"]))
            body["expires"] = _time(minute + expires).replace("Z", zone)
    return body


@st.composite
def _entries(draw: st.DrawFn, log_count: int, number: int, *, misplaced: bool) -> Entry:
    sort = draw(st.sampled_from(SORTS))
    body = draw(_bodies(sort, number * MINUTES_PER_RECORD))
    if "sku" not in body:
        return Entry(draw(st.integers(0, log_count - 1)), None, body, LATE_MS, draw(HEADERS))
    log = draw(st.integers(0, log_count - 1)) if misplaced else home_of(body["sku"], log_count)
    return Entry(log, str(body["sku"]).encode(), body, LATE_MS, draw(HEADERS))


@st.composite
def fact_logs(draw: st.DrawFn, *, misplaced: bool = False, size_max: int = 45) -> Logs:
    """One or two logs of facts of all kinds; some records stand there twice, the last of each log is a late tick."""
    log_count = draw(st.integers(1, 2))
    size = draw(st.integers(0, size_max))
    written: list[Entry] = []
    for number in range(size):
        if written and draw(st.integers(0, 15)) == 0:
            written.append(draw(st.sampled_from(written)))
        else:
            written.append(draw(_entries(log_count, number, misplaced=misplaced)))
    last = [Entry(log, None, {"kind": "tick", "time": format_ms(FAR_MS)}, -1, None) for log in range(log_count)]
    return tuple(
        tuple(_moved(message, OFFSETS_APART * number) for message in log)
        for number, log in enumerate(numbered(log_count, [*written, *last]))
    )


def ticks_after(logs: Logs) -> Logs:
    """One more late tick for each log: every home speaks."""
    payload = json.dumps({"kind": "tick", "time": format_ms(FAR_MS)}).encode()
    return tuple((log[-1]._replace(offset=log[-1].offset + 1, payload=payload),) for log in logs)


def _moved(message: Message, offset: int) -> Message:
    return message._replace(offset=message.offset + offset)


# Rules


@st.composite
def _position_exceptions(draw: st.DrawFn) -> Rule:
    """A rule for one SKU or category at a location."""
    values: dict[str, object] = draw(st.fixed_dictionaries({}, optional={"valid_from": MOMENTS, "valid_to": MOMENTS}))
    owner = draw(st.sampled_from([("sku", "A"), ("sku", "fire-1"), ("category", "everything")]))
    fields = {"safety_units": st.integers(0, 3), "low_stock_at": st.integers(0, 6)}
    values |= {owner[0]: owner[1], "location": draw(st.sampled_from(LOCATIONS))}
    return msgspec.convert({**values, **draw(st.fixed_dictionaries({}, optional=fields))}, Rule)


@st.composite
def _channel_exceptions(draw: st.DrawFn) -> Rule:
    """A rule for one SKU or category in a channel, or in all."""
    values: dict[str, object] = draw(st.fixed_dictionaries({}, optional={"valid_from": MOMENTS, "valid_to": MOMENTS}))
    owner = draw(st.sampled_from([("sku", "A"), ("sku", "fire-1"), ("category", "fireworks")]))
    values |= {owner[0]: owner[1], "channel": draw(or_none(st.sampled_from(CHANNELS)))}
    return msgspec.convert({**values, **draw(st.fixed_dictionaries({}, optional=CHANNEL_FIELDS))}, Rule)


@st.composite
def _sources(draw: st.DrawFn) -> dict[str, SourceRules]:
    """No [sources] at all, or one table each, some of them believed."""
    if draw(st.integers(0, 3)) == 0:
        return {}
    speaks = ("stated", "counted", "requested", "received", "shipped", "returned", "reserved", "allocated", "released")
    table = st.builds(
        SourceRules,
        kinds=st.sampled_from([None] * 6 + [speaks]),
        locations=st.sampled_from([None] * 8 + [("dc-1", "store")]),
        authority=st.integers(0, 2),
        corrects=st.booleans(),
        tolerance_units=st.sampled_from([0, 0, 1, 3, 10]),
        tolerance_percent=st.sampled_from([0, 0, 10, 50]),
        grace=st.sampled_from(["0s", "0s", "5m", "20m", "90m"]),
    )
    return {source: draw(table) for source in SOURCES}


def fact_rules() -> st.SearchStrategy[Rules]:
    """Rules for the names used here: priorities, limits, positions with levels, sources that correct."""
    location = st.builds(
        LocationRules,
        kind=st.sampled_from(["warehouse", "warehouse", "supplier"]),
        safety_units=st.sampled_from([0, 0, 1, 3]),
        low_stock_at=or_none(st.integers(0, 6)),
    )
    channel = st.builds(
        lambda rule, priority, known: msgspec.structs.replace(
            rule,
            priority=priority,
            locations=None if rule.locations is None else tuple(dict.fromkeys((*rule.locations, *known))),
        ),
        st.just(ChannelRules()) | st.builds(ChannelRules, backorder_units=st.integers(0, 6)) | channel_rules(),
        st.integers(0, 2),
        st.lists(st.sampled_from(LOCATIONS), max_size=2),
    )
    return st.builds(
        Rules,
        locations=st.dictionaries(st.sampled_from(LOCATIONS), location),
        channels=st.fixed_dictionaries({"web": channel, "b2b": channel}, optional={"b2b/acme": channel}),
        rules=st.lists(_position_exceptions() | _channel_exceptions(), max_size=4).map(tuple),
        categories=st.just(CATEGORIES),
        sources=_sources(),
    )
