"""Pieces of a partition's messages that are joined are what they are one after the other."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.packed import Numbers
from sources.kafka_columns import MessageColumns
from tests.schemas.test_packed import PAIRS, headers_of, texts_of

MESSAGES = st.tuples(st.none() | st.binary(max_size=4), st.none() | st.binary(max_size=4), st.none() | PAIRS)
PIECES = st.lists(
    st.lists(MESSAGES.map(lambda m: (*m[:2], m[2] or None)), min_size=1, max_size=4), min_size=1, max_size=5
)


@given(PIECES)
def test_joined_pieces_are_one_after_the_other(pieces: list[list[tuple[bytes | None, bytes | None, object]]]) -> None:
    """Any number of them, with and without headers, keys and payloads."""
    joined = MessageColumns.joined([piece_of(rows) for rows in pieces])
    rows = [row for piece in pieces for row in piece]
    headers = [None] * len(rows) if joined.headers is None else list(joined.headers)
    assert list(zip(joined.keys, joined.payloads, headers, strict=True)) == rows
    assert joined.offsets == joined.timestamps == [n for piece in pieces for n in range(len(piece))]
    assert joined.bytes_ >= sum(len(key or b"") + len(payload or b"") for key, payload, _ in rows)


def piece_of(rows: list[tuple[bytes | None, bytes | None, object]]) -> MessageColumns:
    """Messages with these keys, payloads and headers."""
    numbers = Numbers(np.arange(len(rows), dtype=np.int64))
    keys, payloads, headers = zip(*rows, strict=True)
    packed = headers_of(list(headers)) if any(headers) else None
    return MessageColumns(numbers, numbers, texts_of(list(keys)), texts_of(list(payloads)), packed)
