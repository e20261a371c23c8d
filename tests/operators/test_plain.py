"""The compiled reader takes a part of what the strict reader takes, with the same values, and nothing else."""

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.duplicates import hash_of
from operators.levels import Standing, standing_after
from operators.plain import (
    ABSENT,
    FROM,
    HASHED_BYTES_MAX,
    HASHED_BYTES_MIN,
    ID,
    KIND,
    KIND_NAMES,
    LOCATION,
    NUMBERS,
    QUALIFIERS,
    QUANTITY,
    REVERSAL,
    SKU,
    SOURCE,
    TEXTS,
    TIME_MS,
    TO,
    _level_after,
    scan,
    time_at,
    xxh3,
)
from schemas.movements import Movement, Refusal, decode
from schemas.times import parse_ms

Body = dict[str, Any]
FIELDS = (
    "id", "source", "kind", "sku", "location", "quantity", "time", "from", "to", "order", "order_line", "document",
    "line", "sequence", "correlation", "reversal", "transfer", "request", "channel", "destination", "reason",
    "eta", "of",
    "what",
)  # fmt: skip
TIMES = (
    "2026-11-21T09:00:00Z", "2026-11-21T09:00:00.5Z", "2026-11-21T09:00:00.123456789Z", "2028-02-29T23:59:59.999Z",
    "2027-02-29T00:00:00Z", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59.999Z", "2026-11-21T24:00:00Z",
    "2026-11-21T09:00:00", "2026-11-21T09:00:00+01:00", "2026-11-21 09:00:00Z", "2026-13-01T00:00:00Z", "",
    "2026-11-21T09:00:60Z", "2026-11-21T09:00:00.Z", "2026-04-31T00:00:00Z", "0000-01-01T00:00:00Z",
    "2026-11-21T09:0a:00Z",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    "A", "", "@x", "dc-1", "x" * 128, "x" * 129, "x" * 257, "Grüße", "a\tb", 'a"b', "a\\b", "\x7f", "reserved",
    "on_hand", "allocated", "quarantined", 0, 1, -1, 5, 2**31, 2**31 + 1, -(2**31), 2**64, 1.5, True, False, None,
    [], {},
    *KIND_NAMES, "counted", "expected", *TIMES,
)  # fmt: skip
PLAIN: Body = {
    "id": "1", "source": "wms", "kind": "shipped", "sku": "A", "location": "east", "quantity": 3,
    "time": "2026-11-21T09:00:00Z",
}  # fmt: skip


def scanned(payload: bytes) -> Body | None:
    """What the compiled reader makes of it."""
    texts, numbers = np.zeros(2 * TEXTS, np.int64), np.zeros(NUMBERS, np.int64)
    if not scan(np.frombuffer(payload or b" ", np.uint8), 0, len(payload), texts, numbers):
        return None
    read = {}
    for name, place in (("id", ID), ("source", SOURCE), ("sku", SKU), ("location", LOCATION)):
        read[name] = payload[texts[2 * place] : texts[2 * place + 1]].decode()
    kind, reversal = KIND_NAMES[numbers[KIND]], numbers[REVERSAL] == 1
    qualified = {name: QUALIFIERS[numbers[at]] for name, at in (("from_", FROM), ("to", TO)) if numbers[at] != ABSENT}
    return {
        **read,
        "kind": kind,
        "quantity": numbers[QUANTITY],
        "time": numbers[TIME_MS],
        "reversal": reversal,
        **qualified,
    }


def assert_same(payload: bytes) -> bool:
    """Whether it was taken; then the strict reader takes it, too, and reads the same."""
    read = scanned(payload)
    if read is None:
        return False
    decoded = decode(payload)
    assert not isinstance(decoded, Refusal), (payload, decoded)
    record = decoded.record
    assert isinstance(record, Movement)
    told = {name: getattr(record, name) for name in ("id", "source", "sku", "location", "quantity", "reversal")}
    for name in ("from_", "to"):  # a kind without it ignores it; the loop stops there
        if name in read and hasattr(record, name):
            told[name] = getattr(record, name)
        elif name in read:
            del read[name]
    assert read == {**told, "kind": record.__struct_config__.tag, "time": decoded.time_ms}
    return True


@given(st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(VALUES), max_size=6), st.randoms())
def test_what_is_scanned_is_what_is_decoded(changes: Body, chance: random.Random) -> None:
    """Fields added, taken out and given other values, in any order."""
    body = {**PLAIN, **changes}
    if chance.random() < 0.3:
        body.pop(chance.choice(list(body)))
    pairs = list(body.items())
    chance.shuffle(pairs)
    assert_same(msgspec.json.encode(dict(pairs)))


@pytest.mark.parametrize("odd", [b"\\n", b"\\u0041", b"\x1f", b"\x00", b"\x7f", "ü".encode(), b"\xff"])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 24])
def test_a_text_that_is_not_plain_is_left_alone_wherever_that_shows(length: int, odd: bytes) -> None:
    """Texts are looked at eight bytes at a time, and the last few one by one."""
    payload = msgspec.json.encode({**PLAIN, "source": "x" * length})
    assert scanned(payload) is not None
    for at in range(length + 1):
        text = b"x" * at + odd + b"x" * (length - at)
        assert scanned(payload.replace(b'"' + b"x" * length + b'"', b'"' + text + b'"')) is None


@given(st.data())
def test_broken_bytes_are_never_taken_for_more_than_they_are(data: st.DataObject) -> None:
    """A byte changed, taken out, or put in anywhere."""
    payload = bytearray(msgspec.json.encode({**PLAIN, "order": "SO-1", "from": "reserved", "reversal": False}))
    for _ in range(data.draw(st.integers(1, 3))):
        at, byte = data.draw(st.integers(0, len(payload) - 1)), data.draw(st.integers(0, 255))
        match data.draw(st.integers(0, 2)):
            case 0:
                payload[at] = byte
            case 1:
                del payload[at]
            case _:
                payload.insert(at, byte)
    assert_same(bytes(payload))


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_every_plain_kind_is_taken(kind: str) -> None:
    """As writers send it, with blanks after colons and commas or without."""
    body = {**PLAIN, "kind": kind, "order": "SO-1", "document": "D", "correlation": "c", "transfer": "T", "reason": "r"}
    if kind == "transfer_shipped":
        body["destination"] = "west"
    payload = msgspec.json.encode(body)
    assert assert_same(payload)
    assert assert_same(payload.replace(b'":', b'": ').replace(b',"', b', "'))


@pytest.mark.parametrize("text", TIMES)
def test_times_are_those_of_the_strict_reader(text: str) -> None:
    """Or they are left to it."""
    found = time_at(np.frombuffer(text.encode() or b" ", np.uint8), 0, len(text))
    assert found == ABSENT or found == parse_ms(text)
    assert found != ABSENT or text not in TIMES[:4]


@pytest.mark.parametrize("length", range(HASHED_BYTES_MIN, HASHED_BYTES_MAX + 1))
def test_ids_have_the_hash_that_rows_give_them(length: int) -> None:
    """XXH3, for every length that loops hash."""
    source, id_ = "s", "i" * (length - 2)
    text = np.frombuffer(f"{source}\0{id_}".encode(), np.uint8)
    assert xxh3(text, length) == hash_of(source, id_)


@pytest.mark.parametrize("recovered", [False, True])
@pytest.mark.parametrize("units", [-1, 0, 1, 9, 10, 11, 12, 13])
def test_levels_are_those_of_the_definition(units: int, *, recovered: bool) -> None:
    """At, below, above and between the two thresholds."""
    wanted = standing_after(Standing(0, recovered=recovered), units, 10, 12)
    assert _level_after(units, 10, 12, recovered) == wanted
