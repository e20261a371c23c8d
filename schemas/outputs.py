"""Records that leave the flow: their fields, their ids, and the CloudEvents that carry them."""

from typing import Literal, NamedTuple

import msgspec

from schemas.batches import Mark

Level = Literal["out_of_stock", "low_stock", "in_stock"]
RequestOutcome = Literal["confirmed", "refused", "conflict", "wrong_partition", "expired", "extended"]


class ChannelAvailability(msgspec.Struct, gc=False, omit_defaults=True):
    """What one channel may promise of a SKU, and the level that its sellable units stand at."""

    promised: int
    sellable: int
    level: Level
    overcommitted: int = 0  # contract stock of the channel that its pool does not hold


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


class Divergence(msgspec.Struct):
    """A system says something else than what its movements add up to: found, changed or settled."""

    id: str
    event: Literal["opened", "changed", "closed"]
    sku: str
    location: str
    system: str
    of: str
    stated: int
    derived: int
    time: str
    reason: str
    evidence: list[str]
    opened_at: str


class Reservation(msgspec.Struct):
    """The answer to a request: units per location, and what of it is owed rather than held."""

    id: str
    request: str
    source: str
    sku: str
    channel: str
    outcome: RequestOutcome
    parts: list[tuple[str, int]]
    backordered: int
    possible: int
    expires: str | None
    version: int
    time: str  # of the request, or of the record that ended or extended it
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
    return f"{sku}:channel={_escaped(channel)}:{version}"


def position_threshold_id(sku: str, location: str, version: int) -> str:
    """As `threshold_id`, for a level of one position."""
    return f"{sku}:location={_escaped(location)}:{version}"


def divergence_id(sku: str, location: str, system: str, event: str, version: int) -> str:
    """The same event of the same divergence has the same id in every run."""
    return f"{sku}:divergence={_escaped(location)}={_escaped(system)}:{event}:{version}"


def reservation_id(sku: str, request: str, outcome: str, version: int) -> str:
    """The same answer has the same id however often it is given."""
    return f"{sku}:request={_escaped(request)}:{outcome}:{version}"


def _escaped(name: str) -> str:
    return name.replace("%", "%25").replace(":", "%3A").replace("=", "%3D")


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
    divergences: list[Divergence]
    reservations: list[Reservation]
    dead_letters: list[DeadLetter]
    marks: list[Mark]
    applied: int
    duplicates: int
    misplaced: int
