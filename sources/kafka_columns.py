"""Kafka columns: what has arrived, as packed columns of each partition."""

import ctypes
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from confluent_kafka import KafkaError

from schemas.packed import Headers, Ints, Numbers, Texts
from sources.kafka_messages import (
    COUNTS,
    ERROR,
    KEY,
    KEY_LENGTH,
    PARTITION,
    PAYLOAD,
    PAYLOAD_LENGTH,
    TOPIC,
    find_absent,
    give_back,
    look,
    measure,
    measure_headers,
    take,
    take_headers,
)

PIECE_BYTES: Final = 1024  # of six arrays and what holds them
NO_PARTITION: Final = -1
MESSAGE_BYTES: Final = 32  # offset, time, and the ends of key and payload


class MessageColumns(NamedTuple):
    """Messages of one partition, in its order, as a batch has them."""

    offsets: Numbers
    timestamps: Numbers
    keys: Texts
    payloads: Texts
    headers: Headers | None

    @property
    def bytes_(self) -> int:
        """What it takes, but for headers: a piece of one message takes much more than that."""
        return PIECE_BYTES + MESSAGE_BYTES * len(self.offsets) + len(self.keys.text) + len(self.payloads.text)

    @classmethod
    def joined(cls, pieces: Sequence["MessageColumns"]) -> "MessageColumns":
        """Pieces that follow each other as one."""
        if len(pieces) == 1:
            return pieces[0]
        offsets, timestamps, keys, payloads, headers = zip(*pieces, strict=True)
        have_headers = any(column is not None for column in headers)
        return cls(
            Numbers.joined(offsets),
            Numbers.joined(timestamps),
            Texts.joined(keys),
            Texts.joined(payloads),
            Headers.joined([piece.headers or Headers.none(len(piece.offsets)) for piece in pieces])
            if have_headers
            else None,
        )


class ReadFailure(NamedTuple):
    """What stands in the place of a message; `partition` is NO_PARTITION where it is of none."""

    partition: int
    error: KafkaError


_TOLD: Final = np.zeros(4, np.int64)
_TOLD_ADDRESS: Final = _TOLD.ctypes.data


def pieces_of(messages: Ints) -> tuple[dict[int, MessageColumns], list[ReadFailure]]:
    """The messages of each partition, and what went wrong; all are given back to librdkafka."""
    try:
        partitions = np.empty(len(messages), np.int32)
        if not look(messages, partitions) and partitions[0] >= 0:
            return {int(partitions[0]): _columns_of(messages)}, []
        order = np.argsort(partitions, kind="stable")
        ordered, found = messages[order], partitions[order]
        bounds = [0, *(np.flatnonzero(np.diff(found)) + 1).tolist(), len(found)]
        pieces = {int(found[begin]): ordered[begin:end] for begin, end in pairwise(bounds)}
        failures = [_failure_of(message) for message in pieces.pop(-1, messages[:0]).tolist()]
        return {partition: _columns_of(piece) for partition, piece in pieces.items()}, failures
    finally:
        give_back(messages)


def _columns_of(messages: Ints) -> MessageColumns:
    count, counts = len(messages), np.zeros(COUNTS, np.int64)
    payload_ends, key_ends = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    offsets, timestamps = np.empty(count, np.int64), np.empty(count, np.int64)
    measure(messages, payload_ends, key_ends, offsets, timestamps, counts, _TOLD_ADDRESS)
    absent_payloads, absent_keys, headers = counts.tolist()
    return MessageColumns(
        Numbers(offsets),
        Numbers(timestamps),
        _taken(messages, KEY, KEY_LENGTH, key_ends, absent_keys),
        _taken(messages, PAYLOAD, PAYLOAD_LENGTH, payload_ends, absent_payloads),
        _headers_of(messages, headers) if headers else None,
    )


def _taken(messages: Ints, field: int, length_field: int, ends: Ints, absent: int) -> Texts:
    text = np.empty(int(ends[-1]), np.uint8)
    take(messages, field, length_field, text.ctypes.data, ends)
    flags = None
    if absent:
        flags = np.empty(len(messages), np.bool_)
        find_absent(messages, field, flags)
    return Texts(text, ends, flags)


def _headers_of(messages: Ints, count: int) -> Headers:
    ends, absent = np.zeros(len(messages) + 1, np.int64), np.empty(count, np.bool_)
    name_ends, value_ends = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    measure_headers(messages, ends, name_ends, value_ends, absent, _TOLD_ADDRESS)
    names, values = np.empty(int(name_ends[-1]), np.uint8), np.empty(int(value_ends[-1]), np.uint8)
    take_headers(messages, ends, names.ctypes.data, name_ends, values.ctypes.data, value_ends, _TOLD_ADDRESS)
    return Headers(Texts(names, name_ends), Texts(values, value_ends, absent), ends)


def _failure_of(message: int) -> ReadFailure:
    code, partition = (ctypes.c_int32.from_address(message + field).value for field in (ERROR, PARTITION))
    said, length = (ctypes.c_size_t.from_address(message + field).value for field in (PAYLOAD, PAYLOAD_LENGTH))
    reason = ctypes.string_at(said, length).decode(errors="replace") if said else KafkaError(code).str()
    is_of_one = ctypes.c_size_t.from_address(message + TOPIC).value != 0  # else the partition may say 0
    return ReadFailure(partition if is_of_one else NO_PARTITION, KafkaError(code, reason))
