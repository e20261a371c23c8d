"""The border: what is decoded, what is refused, and why."""

import json
from typing import TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.movements import (
    NO_TIME_MS,
    PAYLOAD_BYTES_MAX,
    PLAIN_KINDS,
    QUANTITY_MAX,
    ChannelCommitted,
    ChannelUncommitted,
    Counted,
    Decoded,
    Extended,
    LocationTrusted,
    Movement,
    Reason,
    Record,
    Refusal,
    Requested,
    Shipped,
    Stated,
    Tick,
    decode,
    encode,
)
from schemas.times import format_ms, parse_ms
from tests.movement_strategies import bodies, broken_bodies, control_bodies, other_bodies, poison


class Common(TypedDict):
    """What every fact carries."""

    id: str
    source: str
    sku: str
    time: str


WHOLE = {
    "id": "1",
    "source": "wms",
    "kind": "shipped",
    "sku": "A",
    "location": "east",
    "quantity": 3,
    "time": "2026-11-21T09:00:00.123Z",
}
COMMON: Common = {"id": "1", "source": "wms", "sku": "A", "time": "2026-11-21T09:00:00Z"}
# What can be judged only where origin, rules and state are known.
ADMISSION = {
    Reason.KEY_MISMATCH,
    Reason.FROM_THE_FUTURE,
    Reason.TOO_LATE,
    Reason.UNKNOWN_SOURCE,
    Reason.KIND_NOT_ALLOWED,
    Reason.LOCATION_NOT_ALLOWED,
    Reason.UNKNOWN_CHANNEL,
    Reason.UNKNOWN_REQUEST,
    Reason.REQUEST_ENDED,
    Reason.WRONG_PARTITION,
    Reason.BAD_RULES,
}


def movement(**changes: object) -> bytes:
    """A good shipment with `changes`; None leaves a field out."""
    body = {**WHOLE, **{name.rstrip("_"): value for name, value in changes.items()}}
    return json.dumps({name: value for name, value in body.items() if value is not None}).encode()


REFUSED: list[tuple[bytes | None, Reason]] = [
    (None, Reason.EMPTY),
    (b"", Reason.EMPTY),
    (b" " * (PAYLOAD_BYTES_MAX + 1), Reason.TOO_LARGE),
    (b"{", Reason.NOT_JSON),
    (b"shipped 3", Reason.NOT_JSON),
    (b"\xef\xbb\xbf{}", Reason.NOT_JSON),
    (b'{"sku":"\\ud800"}', Reason.NOT_JSON),
    (b'{"quantity":NaN}', Reason.NOT_JSON),
    (b"\xff\xfe", Reason.NOT_UTF8),
    (b'{"kind":"\xff"}', Reason.NOT_UTF8),
    (b"[" * 30_000, Reason.TOO_DEEP),
    (b'{"a":' * 9_000, Reason.TOO_DEEP),
    (b"[]", Reason.NOT_AN_OBJECT),
    (b'"shipped"', Reason.NOT_AN_OBJECT),
    (b"null", Reason.NOT_AN_OBJECT),
    (b"{}", Reason.MISSING_FIELD),
    (movement(location=None), Reason.MISSING_FIELD),
    (movement(kind="adjusted"), Reason.MISSING_FIELD),
    (movement(kind="transfer_shipped"), Reason.MISSING_FIELD),
    (b'{"kind":"tick"}', Reason.MISSING_FIELD),
    (movement(quantity="3"), Reason.WRONG_TYPE),
    (movement(quantity=3.0), Reason.WRONG_TYPE),
    (movement(quantity=True), Reason.WRONG_TYPE),
    (movement(kind=3), Reason.WRONG_TYPE),
    (movement(sku=["A"]), Reason.WRONG_TYPE),
    (movement(from_="thin_air"), Reason.WRONG_TYPE),
    (movement(reversal="yes"), Reason.WRONG_TYPE),
    (movement(quantity=0), Reason.OUT_OF_RANGE),
    (movement(quantity=-3), Reason.OUT_OF_RANGE),
    (movement(quantity=QUANTITY_MAX + 1), Reason.OUT_OF_RANGE),
    (movement(quantity=10**30), Reason.OUT_OF_RANGE),
    (movement(kind="adjusted", quantity=0, reason="count"), Reason.OUT_OF_RANGE),
    (movement(kind="adjusted", quantity=-QUANTITY_MAX - 1, reason="count"), Reason.OUT_OF_RANGE),
    (movement(id=""), Reason.OUT_OF_RANGE),
    (movement(order="x" * 257), Reason.OUT_OF_RANGE),
    (movement().replace(b"3", b"1e999"), Reason.OUT_OF_RANGE),
    (movement(kind="teleported"), Reason.UNKNOWN_KIND),
    (movement(kind=""), Reason.UNKNOWN_KIND),
    (movement(sku=""), Reason.BAD_NAME),
    (movement(sku="@A"), Reason.BAD_NAME),
    (movement(sku="A\n"), Reason.BAD_NAME),
    (movement(sku="A\x85"), Reason.BAD_NAME),
    (movement(sku="é" * 65), Reason.BAD_NAME),
    (movement(location="@east"), Reason.BAD_NAME),
    (movement(id="1\x00"), Reason.BAD_NAME),
    (movement(channel="@web"), Reason.BAD_NAME),
    (movement(kind="transfer_shipped", destination="@"), Reason.BAD_NAME),
    (movement(time="yesterday"), Reason.BAD_TIME),
    (movement(time="2026-11-21T09:00:00"), Reason.BAD_TIME),
    (movement(time="2026-02-30T09:00:00Z"), Reason.BAD_TIME),
    (movement(time="1969-12-31T23:59:59Z"), Reason.BAD_TIME),
    (movement(time="9999-12-31T23:59:59-01:00"), Reason.BAD_TIME),
    (movement(kind="expected", eta="soon"), Reason.BAD_TIME),
    (b'{"kind":"tick","time":"noon"}', Reason.BAD_TIME),
]


@pytest.mark.parametrize(("payload", "reason"), REFUSED)
def test_a_message_that_cannot_be_used_is_refused_with_its_reason(payload: bytes | None, reason: Reason) -> None:
    """Each fault has one name, and the detail says more."""
    refusal = decode(payload)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == reason
    assert refusal.detail


def test_every_reason_of_the_border_has_an_example() -> None:
    """No reason without a message that meets it."""
    assert {reason for _, reason in REFUSED} | ADMISSION == set(Reason)


@pytest.mark.parametrize(
    "changes",
    [
        {"sku": "x" * 128},
        {"sku": "é" * 64},
        {"sku": "red, large / 7"},
        {"quantity": QUANTITY_MAX},
        {"time": "2026-11-21T10:00:00.123+01:00"},
        {"time": "2026-11-21T09:00:00.123456789Z"},
        {"color": {"deep": [1, 2]}},
        {"order": "x" * 256},
        {"kind": "adjusted", "quantity": -QUANTITY_MAX, "reason": "count"},
    ],
)
def test_what_is_within_its_bounds_is_taken(changes: dict[str, object]) -> None:
    """Bounds are inclusive, and fields that nobody knows are ignored."""
    assert isinstance(decode(movement(**changes)), Decoded)


def test_a_refusal_names_source_and_sku_where_they_can_be_read() -> None:
    """So that a dead letter can be found by either, even if the rest of it is broken."""
    assert decode(movement(quantity="3"))[2:] == ("wms", "A")
    assert decode(movement(quantity="3", sku="@A"))[2:] == ("wms", None)
    assert decode(movement(time="noon"))[2:] == ("wms", "A")


def test_fields_that_are_not_given_have_their_documented_values() -> None:
    """A shipment without `from` takes from the shelf and is no reversal."""
    decoded = decode(movement())
    assert decoded == Decoded(
        Shipped(id="1", source="wms", sku="A", location="east", quantity=3, time="2026-11-21T09:00:00.123Z"),
        parse_ms("2026-11-21T09:00:00.123Z"),
    )
    assert isinstance(decoded.record, Shipped)
    assert (decoded.record.from_, decoded.record.reversal) == ("on_hand", False)


def _plain(kind: type[Movement]) -> Movement:
    tag = kind.__struct_config__.tag
    more = {"kind": tag, "location": "east", "quantity": 3, "reason": "count", "destination": "west"}
    return msgspec.convert({**COMMON, **more}, kind)


OTHERS: list[Record] = [
    Counted(**COMMON, location="east", quantity=0, of="reserved", includes_picked=False),
    Stated(**COMMON, location="east", quantity=7, of="available"),
    Requested(**COMMON, channel="web", quantity=2, expires="2026-11-21T10:00:00Z", partial=True),
    Extended(**COMMON, request="r-1"),
    ChannelCommitted(**COMMON, channel="b2b/acme", quantity=5),
    ChannelUncommitted(**COMMON, channel="b2b/acme", quantity=5, reversal=True),
    Tick(time="2026-11-21T09:00:00Z"),
    LocationTrusted(location="east", trust_percent=50),
]


@pytest.mark.parametrize("record", [*map(_plain, PLAIN_KINDS), *OTHERS], ids=lambda record: type(record).__name__)
def test_every_kind_comes_back_as_it_was_written(record: Record) -> None:
    """What is encoded decodes to the same record."""
    decoded = decode(encode(record))
    assert isinstance(decoded, Decoded)
    assert decoded.record == record


@given(st.binary(max_size=300))
def test_no_bytes_ever_raise(payload: bytes) -> None:
    """Whatever arrives is a record or a refusal."""
    assert isinstance(decode(payload), Decoded | Refusal)


@given(bodies() | broken_bodies() | other_bodies() | control_bodies(), st.data())
def test_no_damaged_message_ever_raises(body: dict[str, object], data: st.DataObject) -> None:
    """A message with a piece cut out, doubled or overwritten is refused or taken, and what is taken can be used."""
    payload = json.dumps(body, ensure_ascii=data.draw(st.booleans())).encode()
    begin = data.draw(st.integers(0, len(payload)))
    end = data.draw(st.integers(0, len(payload)))
    decoded = decode(payload[:begin] + data.draw(st.binary(max_size=4)) + payload[end:])
    if isinstance(decoded, Decoded) and decoded.time_ms != NO_TIME_MS:
        assert parse_ms(format_ms(decoded.time_ms)) == decoded.time_ms
        assert getattr(decoded.record, "sku", "A").encode()


@given(poison())
def test_poison_is_refused(payload: bytes | None) -> None:
    """Bytes that are no object of ours become refusals."""
    assert isinstance(decode(payload), Refusal)


@pytest.mark.parametrize(("depth", "reason"), [(255, Reason.MISSING_FIELD), (256, Reason.TOO_DEEP)])
def test_how_deep_is_too_deep_does_not_depend_on_the_caller(depth: int, reason: Reason) -> None:
    """The bound is ours: the reader's own moves with the stack, and a replay must refuse what the first run did."""
    payload = b'{"kind":"shipped","note":"[[","x":' + b"[" * depth + b"]" * depth + b"}"

    def decoded_below(frames: int) -> object:
        return decoded_below(frames - 1) if frames else decode(payload)

    for frames in (0, 300):
        refusal = decoded_below(frames)
        assert isinstance(refusal, Refusal)
        assert refusal.reason == reason


@pytest.mark.parametrize("rest", [b'\\"' * 32_000, b'"' * 60_000, b'"' + b"\\" * 60_000])
def test_strings_that_never_end_are_looked_at_once(rest: bytes) -> None:
    """A long malformed message takes no longer than a good one of its size: the test's timeout is far away."""
    refusal = decode(b"[" * 300 + rest)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == Reason.TOO_DEEP
