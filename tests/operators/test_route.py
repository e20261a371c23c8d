"""Each message goes to the lane of its SKU, and every lane gets its messages in the order of the log."""

import pickle
import re
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.generate import partition_of
from operators.route import Part, lane_of_sku, route
from schemas.batches import Batch, CaughtUp, Mark, Wake
from schemas.packed import Numbers
from tests.movement_strategies import origin
from tests.schemas.test_packed import headers_of, texts_of

Row = tuple[int, int, bytes | None, bytes | None, Any]

TICK = b'{"kind":"tick","time":"2026-11-21T09:00:00Z"}'
MOVED = {
    "id": "1",
    "source": "s",
    "kind": "received",
    "location": "east",
    "quantity": 1,
    "time": "2026-11-21T09:00:00Z",
}
SKUS = st.sampled_from(["A", "B", "fire-1", "Grüße", "日本"])
KEYS = st.binary(min_size=1, max_size=40) | SKUS.map(str.encode)
UNKEYED = st.none() | st.just(b"")
PAYLOADS = (
    st.sampled_from([None, b"", b"{", TICK])
    | st.binary(max_size=30)
    | SKUS.map(lambda sku: msgspec.json.encode({**MOVED, "sku": sku}))
)
LANES = st.integers(1, 70)


def rows_of(batch: Batch) -> list[Row]:
    """The messages one by one."""
    headers = batch.headers or [None] * len(batch.offsets)
    return list(zip(batch.offsets, batch.timestamps, batch.keys, batch.payloads, headers, strict=True))


def rows_in(part: Part) -> list[Row]:
    """Those that the part names."""
    rows = rows_of(part.batch)
    return [rows[place] for place in part.places.tolist()]


def batch_of(messages: list[tuple[bytes | None, bytes | None]]) -> Batch:
    """Messages with gaps between their offsets."""
    count = len(messages)
    keys, payloads = [key for key, _ in messages], [payload for _, payload in messages]
    return Batch(origin(0), [3 * n for n in range(count)], [n - 1 for n in range(count)], keys, payloads)


def packed_of(batch: Batch) -> Batch:
    """The same messages in packed columns, as the Kafka source gives them."""
    headers = None if batch.headers is None else headers_of(list(batch.headers))
    return Batch(
        batch.origin,
        Numbers(np.array(batch.offsets, np.int64)),
        Numbers(np.array(batch.timestamps, np.int64)),
        texts_of(list(batch.keys)),
        texts_of(list(batch.payloads)),
        headers,
    )


def sku_in(payload: bytes | None) -> bytes:
    """What a movement names, where it is one; it counts as its key."""
    found = re.search(rb'"kind":"received".*"sku":"([^"]*)"', payload or b"")
    return found[1] if found else b""


def lanes_for(key: bytes | None, payload: bytes | None, lanes: int) -> range:
    """The definition: by its key, else by the SKU that it names; control records go everywhere, rubbish to lane 0."""
    if not key:
        try:
            body = msgspec.json.decode(payload or b"")
        except (msgspec.DecodeError, UnicodeDecodeError):
            return range(1)
        if not isinstance(body, dict) or body.get("kind") not in ("tick", "received"):
            return range(1)
        if body["kind"] == "tick":
            return range(lanes)
        key = body["sku"].encode()
    lane = partition_of(key, lanes)
    return range(lane, lane + 1)


@given(st.lists(st.tuples(KEYS, PAYLOADS), max_size=60), LANES)
def test_keyed_messages_go_to_the_lane_of_their_key(messages: list[tuple[bytes, bytes | None]], lanes: int) -> None:
    """All of them, once, in their order; a part knows how many bytes it has."""
    batch = batch_of(list(messages))
    wanted: dict[int, list[Row]] = {}
    for row in rows_of(batch):
        wanted.setdefault(partition_of(row[2] or b"", lanes), []).append(row)
    assert_parts(batch, wanted, lanes)


@given(st.text(min_size=1), st.integers(0, 6), st.integers(0, 6))
def test_a_lane_is_given_skus_of_one_partition(sku: str, partitions: int, times: int) -> None:
    """Where Kafka's clients choose the partition by the key, and their number divides that of the lanes."""
    count = 2**partitions
    assert lane_of_sku(sku, count * 2**times) % count == partition_of(sku.encode(), count)


@given(st.text(min_size=1), LANES)
def test_in_a_state_of_the_first_format_a_sku_stays_where_it_was(sku: str, lanes: int) -> None:
    """By CRC-32, as zlib has it, and messages go there, too."""
    key = sku.encode("utf-8", "replace")
    lane = crc32(key) % lanes
    assert lane_of_sku(key.decode(), lanes, by_crc32=True) == lane
    assert [number for number, _ in route(batch_of([(key, b"{}")]), lanes, by_crc32=True)] == [lane]


@given(st.lists(st.tuples(KEYS | UNKEYED, PAYLOADS), max_size=30), LANES)
def test_messages_without_key_go_where_they_say(messages: list[tuple[bytes | None, bytes | None]], lanes: int) -> None:
    """Between those that have one."""
    batch = batch_of(messages)
    wanted: dict[int, list[Row]] = {}
    for row in rows_of(batch):
        for lane in lanes_for(row[2], row[3], lanes):
            wanted.setdefault(lane, []).append(row)
    assert_parts(batch, wanted, lanes)


def assert_parts(batch: Batch, wanted: dict[int, list[Row]], lanes: int) -> None:
    """What each lane is given, here and in another process."""
    found: dict[int, list[Row]] = {}
    for lane, part in route(batch, lanes):
        assert isinstance(part, Part)
        assert lane not in found
        found[lane] = rows_in(part)
        assert part.bytes_ == sum(
            len(key or sku_in(payload)) + len(payload or b"") for _, _, key, payload, _ in found[lane]
        )
        elsewhere = pickle.loads(pickle.dumps(part))  # noqa: S301  # our own
        assert rows_in(elsewhere) == rows_of(elsewhere.batch) == found[lane]
        assert (elsewhere.batch.origin, elsewhere.bytes_) == (batch.origin, part.bytes_)
    assert found == wanted


def test_headers_go_along() -> None:
    """To this process and to another."""
    headers: list[list[tuple[str, bytes | None]] | None] = [None, [("traceparent", b"x")], None]
    batch = batch_of([(b"A", b"1"), (b"B", b"2"), (b"A", b"3")])._replace(headers=headers)
    parts = [part for _, part in route(batch, 7)]
    assert all(isinstance(part, Part) for part in parts)
    told = [rows_in(pickle.loads(pickle.dumps(part))) for part in parts if isinstance(part, Part)]  # noqa: S301
    assert sorted(row for rows in told for row in rows) == sorted(rows_of(batch))


@pytest.mark.parametrize("item", [Wake(), CaughtUp(0, 1), Mark(origin(0), 1, 1, -1, 0)])
def test_what_is_no_message_goes_to_every_lane(item: Wake | CaughtUp | Mark) -> None:
    """In the order of their numbers."""
    assert route(item, 3) == [(0, item), (1, item), (2, item)]


@given(st.lists(st.tuples(KEYS | UNKEYED, PAYLOADS), max_size=30), LANES)
def test_packed_columns_are_routed_as_lists_are(messages: list[tuple[bytes | None, bytes | None]], lanes: int) -> None:
    """The same parts, the same in memory, and the same in another process."""
    listed = batch_of(messages)
    if lanes % 2:
        listed = listed._replace(headers=[[("n", b"%d" % n)] if n % 2 else None for n in range(len(messages))])
    expected, found = route(listed, lanes), route(packed_of(listed), lanes)
    assert [lane for lane, _ in found] == [lane for lane, _ in expected]
    for (_, part), (_, wanted) in zip(found, expected, strict=True):
        assert isinstance(part, Part)
        assert isinstance(wanted, Part)
        assert rows_in(part) == rows_in(wanted)
        assert part.bytes_ == wanted.bytes_
        assert [column.tobytes() for column in part.messages.arrays] == [
            column.tobytes() for column in wanted.messages.arrays
        ]
        assert part.alone() == wanted.alone() == pickle.loads(pickle.dumps(part)).batch  # noqa: S301  # our own
        assert all(isinstance(column, list) for column in part.alone()[1:5])
