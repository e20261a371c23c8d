"""Canonical movements and control records, decoded strictly: a typed struct, or a refusal with its reason."""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple

import msgspec

from schemas.times import TEXT_LENGTH_MAX, parse_ms

QUANTITY_MAX = 2**31
NAME_BYTES_MAX = 128
TEXT_CHARACTERS_MAX = 256
PAYLOAD_BYTES_MAX = 64 * 1024
# The reader's own limit moves with the depth of the caller's stack, and a replay must refuse what the first run did.
DEPTH_MAX = 256
SHALLOW_BYTES_MAX = 2 * DEPTH_MAX  # what is shorter cannot be nested deeper
STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)  # the last one may be open: no second look at it
BRACKETS = re.compile(rb"[\[\]{}]")
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]")

Quantity = Annotated[int, msgspec.Meta(ge=1, le=QUANTITY_MAX)]
SignedQuantity = Annotated[int, msgspec.Meta(ge=-QUANTITY_MAX, le=QUANTITY_MAX)]
StatedQuantity = Annotated[int, msgspec.Meta(ge=0, le=QUANTITY_MAX)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_CHARACTERS_MAX)]
Sequence = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
TimeText = Annotated[str, msgspec.Meta(max_length=TEXT_LENGTH_MAX)]


class Reason(StrEnum):
    """Why a message became a dead letter."""

    EMPTY = "empty"  # no payload at all: a tombstone
    TOO_LARGE = "too_large"
    NOT_JSON = "not_json"
    NOT_UTF8 = "not_utf8"
    TOO_DEEP = "too_deep"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"
    UNKNOWN_KIND = "unknown_kind"
    BAD_NAME = "bad_name"
    BAD_TIME = "bad_time"
    KEY_MISMATCH = "key_mismatch"
    FROM_THE_FUTURE = "from_the_future"
    TOO_LATE = "too_late"
    UNKNOWN_SOURCE = "unknown_source"
    KIND_NOT_ALLOWED = "kind_not_allowed"
    LOCATION_NOT_ALLOWED = "location_not_allowed"
    UNKNOWN_CHANNEL = "unknown_channel"
    UNKNOWN_REQUEST = "unknown_request"
    REQUEST_ENDED = "request_ended"
    WRONG_PARTITION = "wrong_partition"
    BAD_RULES = "bad_rules"


class Refusal(NamedTuple):
    """A message that cannot be used: the named reason, and what exactly was wrong with it."""

    reason: Reason
    detail: str
    source: str | None = None
    sku: str | None = None


class Fact(msgspec.Struct, tag_field="kind", gc=False, kw_only=True, omit_defaults=True):
    """What every message about one SKU carries; `id` is unique within `source`."""

    id: Text
    source: Text
    sku: str
    time: TimeText
    sequence: Sequence | None = None
    order: Text | None = None
    order_line: Text | None = None
    document: Text | None = None
    line: Text | None = None
    correlation: Text | None = None


class Movement(Fact, gc=False, kw_only=True):
    """A plain kind: one row of signs times `quantity` at `location`; `reversal` flips the row."""

    location: str
    quantity: Quantity
    reversal: bool = False
    transfer: Text | None = None
    request: Text | None = None
    channel: Text | None = None


class Expected(Movement, tag="expected", gc=False):
    """A purchase order promises units: incoming +."""

    eta: TimeText | None = None


class ExpectationCancelled(Movement, tag="expectation_cancelled", gc=False):
    """They will not come after all: incoming −."""


class Received(Movement, tag="received", gc=False):
    """Units arrived: on_hand +, and incoming − where `order` names the purchase order."""


class Reserved(Movement, tag="reserved", gc=False):
    """Promised to an order or a basket: reserved +."""


class Released(Movement, tag="released", gc=False):
    """A promise taken back: reserved −."""


class Allocated(Movement, tag="allocated", gc=False):
    """Assigned to a released order: allocated +, and reserved − if taken from there."""

    from_: Literal["on_hand", "reserved"] = msgspec.field(default="on_hand", name="from")


class Deallocated(Movement, tag="deallocated", gc=False):
    """An assignment undone: allocated −, and reserved + if it goes back there."""

    to: Literal["on_hand", "reserved"] = "on_hand"


class Picked(Movement, tag="picked", gc=False):
    """Taken off the shelf, still in the house: picked +."""


class Shipped(Movement, tag="shipped", gc=False):
    """Left the house: on_hand −, and the quantity it was held under −; picked − too if that was allocated."""

    from_: Literal["on_hand", "reserved", "allocated", "quarantined"] = msgspec.field(default="on_hand", name="from")


class Returned(Movement, tag="returned", gc=False):
    """Came back: on_hand +, and quarantined + if it must be judged first."""

    to: Literal["on_hand", "quarantined"] = "on_hand"


class Quarantined(Movement, tag="quarantined", gc=False):
    """There, but not for sale: quarantined +."""


class Cleared(Movement, tag="cleared", gc=False):
    """Judged good: quarantined −."""


class Scrapped(Movement, tag="scrapped", gc=False):
    """Thrown away: on_hand −, and quarantined − if it lay there."""

    from_: Literal["on_hand", "quarantined"] = msgspec.field(default="on_hand", name="from")


class Adjusted(Movement, tag="adjusted", gc=False, kw_only=True):
    """The books corrected by hand: on_hand ± with a reason; `quantity` is signed and never 0."""

    quantity: SignedQuantity
    reason: Text


class TransferShipped(Movement, tag="transfer_shipped", gc=False, kw_only=True):
    """Sent to another location: on_hand − here (and `from`, as for shipped), in_transit + there."""

    destination: str
    from_: Literal["on_hand", "reserved", "allocated", "quarantined"] = msgspec.field(default="on_hand", name="from")


class TransferReceived(Movement, tag="transfer_received", gc=False):
    """Arrived from another location: on_hand +, and in_transit − where `transfer` is named."""


class TransferLost(Movement, tag="transfer_lost", gc=False):
    """Will never arrive: in_transit − where `transfer` is named."""


class Counted(Fact, tag="counted", gc=False, kw_only=True):
    """What one quantity is, as of `time`, because somebody counted it."""

    location: str
    quantity: StatedQuantity
    of: Literal["on_hand", "reserved", "allocated", "quarantined", "in_transit", "incoming"] = "on_hand"
    includes_picked: bool = True


class Stated(Fact, tag="stated", gc=False, kw_only=True):
    """What a system says a quantity is, as of `time`; changes nothing.

    `basis` says what its `available` means: salable has reservations subtracted already, on_shelf has not.
    """

    location: str
    quantity: StatedQuantity
    of: Literal["on_hand", "reserved", "allocated", "quarantined", "in_transit", "incoming", "available"] = "on_hand"
    basis: Literal["salable", "on_shelf"] = "salable"


class Requested(Fact, tag="requested", gc=False, kw_only=True):
    """A channel asks for units; the lane decides."""

    channel: str
    quantity: Quantity
    location: str | None = None
    expires: TimeText | None = None
    partial: bool = False


class Extended(Fact, tag="extended", gc=False, kw_only=True):
    """A channel moves (or removes) the time at which an open request ends."""

    request: Text
    expires: TimeText | None = None


class ChannelCommitted(Fact, tag="channel_committed", gc=False, kw_only=True):
    """Contract stock set aside for a channel."""

    channel: str
    quantity: Quantity
    reversal: bool = False


class ChannelUncommitted(Fact, tag="channel_uncommitted", gc=False, kw_only=True):
    """Contract stock given back by a channel."""

    channel: str
    quantity: Quantity
    reversal: bool = False


class Control(msgspec.Struct, tag_field="kind", kw_only=True, omit_defaults=True):
    """A record without SKU, written by onhand into every partition: it concerns every lane."""


class Tick(Control, tag="tick", kw_only=True):
    """The partition's clock: decisions that wait for a time go by it."""

    time: TimeText


class RulesChanged(Control, tag="rules", kw_only=True):
    """A new generation of the rules, as a JSON merge patch against the generation `since` (0: a complete set).

    Large changes come in `parts`, each with a piece of the patch's text as `changes`; the last one is in force.
    """

    generation: Annotated[int, msgspec.Meta(ge=1, le=2**62)]
    changes: msgspec.Raw
    since: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    part: Annotated[int, msgspec.Meta(ge=1, le=2**31)] = 1
    parts: Annotated[int, msgspec.Meta(ge=1, le=2**31)] = 1
    time: TimeText | None = None


class LocationTrusted(Control, tag="location", kw_only=True):
    """How much of a location's stock is believed, after it fell silent or was heard again."""

    location: str
    trust_percent: Annotated[int, msgspec.Meta(ge=0, le=100)]
    time: TimeText | None = None
    last_heard: TimeText | None = None


PLAIN_KINDS: tuple[type[Movement], ...] = (
    Expected, ExpectationCancelled, Received, Reserved, Released, Allocated, Deallocated, Picked, Shipped, Returned,
    Quarantined, Cleared, Scrapped, Adjusted, TransferShipped, TransferReceived, TransferLost,
)  # fmt: skip

AnyPlain = (
    Expected | ExpectationCancelled | Received | Reserved | Released | Allocated | Deallocated | Picked | Shipped
    | Returned | Quarantined | Cleared | Scrapped | Adjusted | TransferShipped | TransferReceived | TransferLost
)  # fmt: skip
AnyFact = AnyPlain | Counted | Stated | Requested | Extended | ChannelCommitted | ChannelUncommitted
AnyControl = Tick | RulesChanged | LocationTrusted
Record = AnyFact | AnyControl

_decode: Callable[[bytes], Record] = msgspec.json.Decoder(Record).decode
_encode: Callable[[Record], bytes] = msgspec.json.Encoder().encode
_OPTIONAL_NAMES = ("destination", "channel")
_OPTIONAL_TIMES = ("eta", "expires")
_KINDS: frozenset[str] = frozenset(str(kind.__struct_config__.tag) for kind in Record.__args__)


NO_TIME_MS = -1


class Decoded(NamedTuple):
    """A record that may be used, with its time in ms since 1970 (NO_TIME_MS for a control record without one)."""

    record: Record
    time_ms: int


def encode(record: Record) -> bytes:
    """The record as it stands on the wire."""
    return _encode(record)


def decode(payload: bytes | None) -> Decoded | Refusal:
    """The record in `payload`, or why it cannot be used; never raises, whatever the bytes are."""
    if not payload:
        return Refusal(Reason.EMPTY, "the message has no payload")
    if len(payload) > PAYLOAD_BYTES_MAX:
        return Refusal(Reason.TOO_LARGE, f"{len(payload)} bytes, at most {PAYLOAD_BYTES_MAX} are read")
    if len(payload) > SHALLOW_BYTES_MAX and _depth(payload) > DEPTH_MAX:
        return Refusal(Reason.TOO_DEEP, f"nested more than {DEPTH_MAX} deep")
    try:
        return _checked(_decode(payload))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _refused_by_reader(payload, error)


def _depth(payload: bytes) -> int:
    """How deep arrays and objects are nested; brackets inside of strings do not count."""
    if payload.count(b"[") + payload.count(b"{") <= DEPTH_MAX:
        return 0
    depth = deepest = 0
    for bracket in BRACKETS.findall(STRINGS.sub(b"", payload)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def name_fault(name: str) -> str | None:
    """What is wrong with `name` as a SKU, channel or location, or None."""
    if not name:
        return "is empty"
    if name[0] == "@":
        return "begins with @"
    if not name.isprintable() and CONTROL_CHARACTERS.search(name):
        return "holds a control character"
    if len(name) * 4 > NAME_BYTES_MAX and len(name.encode()) > NAME_BYTES_MAX:
        return f"is longer than {NAME_BYTES_MAX} bytes"
    return None


def _checked(record: Record) -> Decoded | Refusal:
    """What a type cannot say: names, times and a quantity that must not be 0."""
    if isinstance(record, Fact):
        return _checked_fact(record)
    return _checked_control(record)


def _checked_control(record: AnyControl) -> Decoded | Refusal:
    if isinstance(record, LocationTrusted) and (fault := name_fault(record.location)):
        return Refusal(Reason.BAD_NAME, f"location {fault}")
    if record.time is None:
        return Decoded(record, NO_TIME_MS)
    try:
        return Decoded(record, parse_ms(record.time))
    except ValueError:
        return Refusal(Reason.BAD_TIME, f"time {record.time!r} is no RFC 3339 time with an offset")


def _checked_fact(record: Fact) -> Decoded | Refusal:
    try:
        time_ms = parse_ms(record.time)
    except ValueError:
        return _refused(record, Reason.BAD_TIME, f"time {record.time!r} is no RFC 3339 time with an offset")
    if fault := name_fault(record.sku):
        return _refused(record, Reason.BAD_NAME, f"sku {fault}")
    location = getattr(record, "location", None)
    if location is not None and (fault := name_fault(location)):
        return _refused(record, Reason.BAD_NAME, f"location {fault}")
    if not (record.id.isprintable() and record.source.isprintable()) and CONTROL_CHARACTERS.search(
        record.id + record.source
    ):
        return _refused(record, Reason.BAD_NAME, "id or source holds a control character")
    if isinstance(record, Adjusted) and record.quantity == 0:
        return _refused(record, Reason.OUT_OF_RANGE, "quantity of adjusted is 0")
    return _checked_rest(record, time_ms)


def _checked_rest(record: Fact, time_ms: int) -> Decoded | Refusal:
    """The names and times that only some kinds carry."""
    for field in _OPTIONAL_NAMES:
        name = getattr(record, field, None)
        if name is not None and (fault := name_fault(name)):
            return _refused(record, Reason.BAD_NAME, f"{field} {fault}")
    for field in _OPTIONAL_TIMES:
        text = getattr(record, field, None)
        if text is not None:
            try:
                parse_ms(text)
            except ValueError:
                return _refused(record, Reason.BAD_TIME, f"{field} {text!r} is no RFC 3339 time with an offset")
    return Decoded(record, time_ms)  # type: ignore[arg-type]  # every Fact that is decoded is one of the union


def _refused(record: Fact, reason: Reason, detail: str) -> Refusal:
    return Refusal(reason, detail, record.source, record.sku)


def _refused_by_reader(payload: bytes, error: Exception) -> Refusal:
    """What kept the reader from giving a record: bytes, JSON or types."""
    if isinstance(error, UnicodeDecodeError):
        return Refusal(Reason.NOT_UTF8, str(error))
    if isinstance(error, RecursionError):
        return Refusal(Reason.TOO_DEEP, "nested too deeply")
    if isinstance(error, msgspec.ValidationError):
        return _refused_by_type(payload, str(error))
    return _not_json(payload, str(error))


def _not_json(payload: bytes, detail: str) -> Refusal:
    """Malformed JSON; bytes that are no UTF-8 at all are named as such."""
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        return Refusal(Reason.NOT_UTF8, str(error))
    return Refusal(Reason.NOT_JSON, detail)


def _refused_by_type(payload: bytes, detail: str) -> Refusal:
    """JSON that is no record of ours: read once more without types, to name the reason."""
    try:
        body = msgspec.json.decode(payload)
    except msgspec.ValidationError as error:  # a number that no float holds
        return Refusal(Reason.OUT_OF_RANGE, str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _refused_by_reader(payload, error)
    if not isinstance(body, dict):
        return Refusal(Reason.NOT_AN_OBJECT, detail)
    source, sku = body.get("source"), body.get("sku")
    return Refusal(
        _reason_of(body, detail),
        detail,
        source if isinstance(source, str) else None,
        sku if isinstance(sku, str) and not name_fault(sku) else None,
    )


def _reason_of(body: dict[str, object], detail: str) -> Reason:
    kind = body.get("kind")
    if isinstance(kind, str) and kind not in _KINDS:
        return Reason.UNKNOWN_KIND
    if "missing required field" in detail:
        return Reason.MISSING_FIELD
    if "Expected `str` of length" in detail or ">= " in detail or "<= " in detail:
        return Reason.OUT_OF_RANGE
    return Reason.WRONG_TYPE
