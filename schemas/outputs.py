"""Records that leave the flow: their fields, their ids, and the CloudEvents that carry them."""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from schemas.batches import Mark
from schemas.records import Records

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
    days_of_cover: float | None = None  # at the demand of the last 28 days; None: no demand


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
    sku: str | None  # None: about a whole location
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


class Replenishment(msgspec.Struct, gc=False):
    """A purchase to propose for one position: proposed, another quantity, or closed; at most one is open."""

    id: str
    event: Literal["proposed", "changed", "closed"]
    sku: str
    location: str
    quantity: int
    reorder_point: int
    position: int  # available and on its way here
    demand_per_day: float
    reason: str
    version: int
    time: str


class ShadowOffer(msgspec.Struct, gc=False):
    """What a channel may promise, and what it might under the shadow rules."""

    promised: int
    shadow: int


class ShadowDifference(msgspec.Struct):
    """The channels of a SKU that would show another number under the shadow rules; empty: none does any more."""

    id: str
    sku: str
    version: int
    as_of: str
    rules: int
    channels: dict[str, ShadowOffer]


class RulesInForce(msgspec.Struct):
    """A partition goes by these rules from `offset` on (−1: from its beginning); `document` is the whole set."""

    partition: int
    incarnation: int
    generation: int
    digest: str
    offset: int
    time: str | None
    document: msgspec.Raw


class Step(msgspec.Struct, gc=False, omit_defaults=True):
    """One step from the stock to what a channel may promise: `units` more or fewer, because of `rule`."""

    step: str
    units: int
    rule: str | None = None
    value: int | str | bool | None = None  # of the rule


class ChannelExplanation(msgspec.Struct):
    """How a channel's number comes about; the units of `steps` add up to `promised`."""

    promised: int
    sellable: int
    level: Level
    low_stock_at: int
    recovered_at: int
    steps: list[Step]
    committed: int = 0  # open contract stock of the channel
    contract_units: int = 0  # what was agreed in all
    backordered: int = 0


class LocationExplanation(msgspec.Struct, omit_defaults=True):
    """One position: its quantities, what of it may be sold, and how it sells; demand by day and hour (UTC)."""

    on_hand: int
    reserved: int
    allocated: int
    picked: int
    quarantined: int
    in_transit: int
    incoming: int
    available: int
    trust_percent: int
    trusted: int  # of `available`, what is believed
    safety_units: int
    safety_rule: str
    spare: int  # what the pools get
    newest: str  # time of the newest movement
    demand_per_day: float = 0
    demand_sigma: float = 0
    demand_by_weekday: list[float | None] = []  # Monday first; None: no such day was seen
    observed_days: int = 0
    observed_units: int = 0
    observed_squares: int = 0  # sum of each day's units squared
    days_of_cover: float | None = None
    runs_out: str | None = None
    dynamic_safety_units: int = 0
    reorder_point: int | None = None  # None: nothing is proposed here
    position: int = 0
    proposed: int = 0
    demand_days: dict[str, int] = {}
    demand_hours: dict[str, int] = {}
    return_days: dict[str, int] = {}
    return_hours: dict[str, int] = {}
    in_stock_days: list[str] = []


class OpenRequest(msgspec.Struct, omit_defaults=True):
    """A confirmed request that still holds or owes something."""

    request: str
    source: str
    channel: str
    parts: dict[str, int]
    backordered: int = 0
    expires: str | None = None


class OpenDivergence(msgspec.Struct, omit_defaults=True):
    """A system that disagrees about a position."""

    location: str
    system: str
    of: str
    stated: int
    derived: int
    reason: str
    evidence: list[str]
    opened_at: str


class RecentRecord(msgspec.Struct, omit_defaults=True):
    """One of the last facts that were applied to a SKU; `quantity` is as told."""

    time: str
    kind: str
    source: str
    id: str
    quantity: int | None = None
    location: str | None = None
    channel: str | None = None


class Explanation(msgspec.Struct):
    """Why the numbers of a SKU are what they are, as of `version` in its home partition."""

    sku: str
    incarnation: int
    version: int
    as_of: str
    clock: str | None  # of the home partition, when this was worked out
    rules: int
    home: str  # topic/partition
    channels: dict[str, ChannelExplanation]
    locations: dict[str, LocationExplanation]
    requests: list[OpenRequest]
    requests_left_out: int
    divergences: list[OpenDivergence]
    movements: list[RecentRecord]  # the newest first


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


AnyRecord = Availability | Threshold | Divergence | Reservation | Replenishment | ShadowDifference | DeadLetter


def threshold_id(sku: str, channel: str, version: int) -> str:
    """The same crossing has the same id in every run; reads from the right, so that any name stays unambiguous."""
    return f"{sku}:channel={_escaped(channel)}:{version}"


def position_threshold_id(sku: str, location: str, version: int) -> str:
    """As `threshold_id`, for a level of one position."""
    return f"{sku}:location={_escaped(location)}:{version}"


def divergence_id(sku: str, location: str, system: str, event: str, version: int) -> str:
    """The same event of the same divergence has the same id in every run."""
    return f"{sku}:divergence={_escaped(location)}={_escaped(system)}:{event}:{version}"


def replenishment_id(sku: str, location: str, event: str, version: int) -> str:
    """The same event of the same proposal has the same id in every run."""
    return f"{sku}:replenishment={_escaped(location)}:{event}:{version}"


def shadow_id(sku: str, version: int) -> str:
    """The same difference has the same id in every run."""
    return f"{sku}:shadow:{version}"


def reservation_id(sku: str, request: str, outcome: str, version: int) -> str:
    """The same answer has the same id however often it is given."""
    return f"{sku}:request={_escaped(request)}:{outcome}:{version}"


def _escaped(name: str) -> str:
    return name.replace("%", "%25").replace(":", "%3A").replace("=", "%3D")


CE_ID: Final = "ce_id"
CE_TIME: Final = "ce_time"
TRACEPARENT: Final = "traceparent"


def cloud_event_headers(type_: str) -> dict[str, bytes]:
    """Kafka headers of every record of a type in the binary mode of CloudEvents 1.0; CE_ID and CE_TIME are its own."""
    return {
        "ce_specversion": b"1.0",
        "ce_source": b"onhand",
        "ce_type": type_.encode(),
        "content-type": b"application/json",
    }


class HashCall(NamedTuple):
    """One call of the script that writes hashes of SKUs to Redis: how many, of which state, and its argument."""

    skus: int
    incarnation: int
    argument: bytes


class LaneResult(NamedTuple):
    """What one activation of a lane leaves behind: records for each sink, marks passed on, and what was counted."""

    lane: int
    availability: list[Availability]
    thresholds: list[Threshold | Records]
    divergences: list[Divergence]
    reservations: list[Reservation]
    replenishments: list[Replenishment]
    shadow: list[ShadowDifference]
    rules: list[RulesInForce]
    explanations: list[Explanation]
    dead_letters: list[DeadLetter]
    marks: list[Mark]
    applied: int
    duplicates: int
    misplaced: int
    oldest_ms: int = 0  # the log's time of the oldest record in it, in ms since 1970; 0: it has none
    woken: bool = False  # its epoch is new: every sink hears of it, even where there is nothing else to tell
    is_refill: bool = False  # what Redis has lost; nobody else is told again
    refilled: int = 0  # the refill of Redis that this lane has completed with this result
    is_behind: bool = False  # readers may have seen newer: a Redis that holds nothing of it is not given this
    hashes: Sequence[HashCall] = ()  # availability that is ready for Redis
    told: Sequence[Availability | Records] = ()  # availability that is ready for its topic

    @property
    def changed(self) -> list[Availability | Records]:
        """All that the availability topic is told."""
        return [*self.availability, *self.told]
