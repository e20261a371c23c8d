"""Kafka messages as librdkafka holds them: compiled loops that copy them to where we want them.

librdkafka's Python binding makes an object of each message, and each of its fields is a call: with what it takes to
pack them again, that is four times as much as this. Here a message is the address of its `rd_kafka_message_t`.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from native.addresses import (
    NOTHING,
    NUMBER,
    SMALL_NUMBER,
    called,
    compiled,
    copy,
    length_at,
    number_at,
    small_number_at,
)
from schemas.packed import Flags, Ints

Ints32 = NDArray[np.int32]

# `rd_kafka_message_t`, which is part of librdkafka's public interface: where its fields are, in bytes
ERROR: Final = 0
TOPIC: Final = 8
PARTITION: Final = 16
PAYLOAD: Final = 24
PAYLOAD_LENGTH: Final = 32
KEY: Final = 40
KEY_LENGTH: Final = 48
OFFSET: Final = 56

# What `measure` counts
ABSENT_PAYLOADS: Final = 0
ABSENT_KEYS: Final = 1
HEADERS: Final = 2
COUNTS: Final = 3

_timestamp = called("rd_kafka_message_timestamp", NUMBER, NUMBER, NUMBER)
_headers = called("rd_kafka_message_headers", SMALL_NUMBER, NUMBER, NUMBER)
_header_count = called("rd_kafka_header_cnt", NUMBER, NUMBER)
_header = called("rd_kafka_header_get_all", SMALL_NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER)
_destroy = called("rd_kafka_message_destroy", NOTHING, NUMBER)


@compiled("int64(int64[::1], int32[::1])")
def look(messages: Ints, partitions: Ints32) -> int:
    """Writes each message's partition, or -1 where it is an error; returns how many differ from the first."""
    others = 0
    for place in range(len(messages)):
        message = messages[place]
        partition = small_number_at(message + PARTITION)
        partitions[place] = -1 if small_number_at(message + ERROR) != 0 else partition
        others += partitions[place] != partitions[0]
    return others


@compiled("void(int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64)")
def measure(
    messages: Ints, payload_ends: Ints, key_ends: Ints, offsets: Ints, timestamps: Ints, counts: Ints, told: int
) -> None:
    """Writes all about the messages but their texts, and counts payloads and keys that are absent, and headers.

    `told` is the address of 8 bytes that librdkafka may write to. A message that has no time has -1.
    """
    payload_end = key_end = 0
    for place in range(len(messages)):
        message = messages[place]
        counts[ABSENT_PAYLOADS] += number_at(message + PAYLOAD) == 0
        counts[ABSENT_KEYS] += number_at(message + KEY) == 0
        payload_end += number_at(message + PAYLOAD_LENGTH)
        key_end += number_at(message + KEY_LENGTH)
        payload_ends[place + 1], key_ends[place + 1] = payload_end, key_end
        offsets[place] = number_at(message + OFFSET)
        time_ms = _timestamp(message, told)
        timestamps[place] = time_ms if small_number_at(told) != 0 else -1
        if _headers(message, told) == 0:
            counts[HEADERS] += _header_count(number_at(told))


@compiled("void(int64[::1], int64, int64, int64, int64[::1])")
def take(messages: Ints, field: int, length_field: int, destination: int, ends: Ints) -> None:
    """Copies payloads, or keys, behind each other to the address `destination`."""
    for place in range(len(messages)):
        message, length = messages[place], number_at(messages[place] + length_field)
        if length:
            copy(destination + ends[place], number_at(message + field), length)


@compiled("void(int64[::1], int64, bool_[::1])")
def find_absent(messages: Ints, field: int, absent: Flags) -> None:
    """Writes which messages have no payload, or no key."""
    for place in range(len(messages)):
        absent[place] = number_at(messages[place] + field) == 0


@compiled("void(int64[::1], int64[::1], int64[::1], int64[::1], bool_[::1], int64)")
def measure_headers(messages: Ints, ends: Ints, name_ends: Ints, value_ends: Ints, absent: Flags, told: int) -> None:
    """Writes where each message's headers end, and each header's name and value.

    `told` is the address of 32 bytes that librdkafka may write to.
    """
    at = name_end = value_end = 0
    for place in range(len(messages)):
        if _headers(messages[place], told) == 0:
            headers = number_at(told)
            for number in range(_header_count(headers)):
                _header(headers, number, told + 8, told + 16, told + 24)
                name_end += length_at(number_at(told + 8))
                absent[at] = number_at(told + 16) == 0
                value_end += number_at(told + 24)
                name_ends[at + 1], value_ends[at + 1] = name_end, value_end
                at += 1
        ends[place + 1] = at


@compiled("void(int64[::1], int64[::1], int64, int64[::1], int64, int64[::1], int64)")
def take_headers(
    messages: Ints, ends: Ints, names: int, name_ends: Ints, values: int, value_ends: Ints, told: int
) -> None:
    """Copies names and values of headers behind each other to the addresses `names` and `values`; `told` as above."""
    for place in range(len(messages)):
        first = ends[place]
        if ends[place + 1] > first:
            _headers(messages[place], told)
            headers = number_at(told)
            for at in range(first, ends[place + 1]):
                _header(headers, at - first, told + 8, told + 16, told + 24)
                copy(names + name_ends[at], number_at(told + 8), name_ends[at + 1] - name_ends[at])
                if value_ends[at + 1] > value_ends[at]:
                    copy(values + value_ends[at], number_at(told + 16), value_ends[at + 1] - value_ends[at])


@compiled("void(int64[::1])")
def give_back(messages: Ints) -> None:
    """Messages are librdkafka's again, and gone."""
    for message in messages:
        _destroy(message)
