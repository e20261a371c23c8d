"""Records that leave the flow: their fields, their ids, and the CloudEvents that carry them."""

from typing import Literal, NamedTuple

import msgspec

from schemas.batches import Mark

Level = Literal["out_of_stock", "low_stock", "in_stock"]


class ChannelAvailability(msgspec.Struct, gc=False):
    """What one channel may promise of a SKU, and the level that its sellable units stand at."""

    promised: int
    sellable: int
    level: Level


class LocationAvailability(msgspec.Struct, gc=False):
    """One position: its quantities, in base units."""

    on_hand: int
    reserved: int
    allocated: int
    picked: int
    quarantined: int
    in_transit: int
    incoming: int
    available: int
    trust_percent: int = 100


class Availability(msgspec.Struct):
    """The whole current availability of a SKU, as of `version` in its home partition; enough to rebuild Redis."""

    sku: str
    incarnation: int
    version: int
    as_of: str
    rules: int
    channels: dict[str, ChannelAvailability]
    locations: dict[str, LocationAvailability]


class Cause(msgspec.Struct, gc=False):
    """What made a level change: a movement (with its source and id), the rules or the clock."""

    type: Literal["movement", "rules", "clock"]
    source: str | None = None
    id: str | None = None


class Threshold(msgspec.Struct):
    """A crossing: the level of a SKU and channel changed; `initial` for the first one ever."""

    id: str
    sku: str
    channel: str | None
    location: str | None
    from_: Level = msgspec.field(name="from")
    to: Level
    sellable: int
    threshold: int
    version: int
    rules: int
    time: str
    initial: bool
    cause: Cause
    correlation: str | None = None
    traceparent: str | None = None


class DeadLetter(msgspec.Struct, gc=False):
    """A message that could not be used, whole, with its reason; `id` is its origin."""

    id: str
    reason: str
    detail: str
    origin: str
    source: str | None
    sku: str | None
    time: str | None
    key_base64: str | None
    payload_base64: str | None
    traceparent: str | None = None


def threshold_id(sku: str, channel: str, version: int) -> str:
    """The same crossing has the same id in every run; reads from the right, so that any name stays unambiguous."""
    return f"{sku}:channel={channel.replace('%', '%25').replace(':', '%3A')}:{version}"


def cloud_event_headers(
    type_: str, id_: str, time: str | None, traceparent: str | None
) -> list[tuple[str, str | bytes | None]]:
    """Kafka headers of a record in the binary mode of CloudEvents 1.0."""
    headers: list[tuple[str, str | bytes | None]] = [
        ("ce_specversion", "1.0"),
        ("ce_id", id_),
        ("ce_source", "onhand"),
        ("ce_type", type_),
        ("content-type", "application/json"),
    ]
    if time is not None:
        headers.append(("ce_time", time))
    if traceparent is not None:
        headers.append(("traceparent", traceparent))
    return headers


class LaneResult(NamedTuple):
    """What one activation of a lane leaves behind: records for each sink, marks passed on, and what was counted."""

    lane: int
    availability: list[Availability]
    thresholds: list[Threshold]
    dead_letters: list[DeadLetter]
    marks: list[Mark]
    applied: int
    duplicates: int
    misplaced: int
