"""Kafka producer: librdkafka's own producer, which is handed records by the thousand without an object for each.

The binding takes one record a call, and a list of tuples for its headers. This is the same librdkafka with the same
settings, filled by a compiled loop.
"""

import ctypes
import logging
import time
import weakref
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from confluent_kafka import KafkaError

from native.addresses import NUMBER, called, compiled
from native.librdkafka import LIBRDKAFKA, Functions, Handle, Heard, Text, client, declare, error_of, raise_code
from schemas.outputs import CE_ID, CE_TIME, TRACEPARENT, cloud_event_headers
from schemas.packed import Ints
from schemas.records import ABSENT, ID_AT, KEY_AT, TIME_AT, TRACEPARENT_AT, VALUE_AT, Records

log = logging.getLogger("onhand.kafka")

# `rd_kafka_vu_t`, which is part of librdkafka's public interface: what a field of a record is, and its value
UNIT: Final = 9  # numbers that it takes
RKT, VALUE_IS, KEY_IS, FLAGS, HEADER = 2, 4, 5, 7, 9  # rd_kafka_vtype_t
COPIED: Final = 2  # RD_KAFKA_MSG_F_COPY
# Which unit says what of a record; behind them are two for its time and its trace, where it has them
VALUE_UNIT, KEY_UNIT, ID_UNIT, OWN_UNITS, UNITS = 2, 3, 5, 9, 11

FLUSH_LOOK_MS, FLUSH_LOOK_LATER_MS, FLUSH_SOON_SECONDS = 1, 50, 0.02  # each look wakes librdkafka's threads

_ON_DELIVERY: Final = ctypes.CFUNCTYPE(None, Handle, Handle, Handle)
_ON_LOG: Final = ctypes.CFUNCTYPE(None, Handle, ctypes.c_int, Text, Text)
_LEVELS: Final = (
    logging.CRITICAL, logging.CRITICAL, logging.CRITICAL, logging.ERROR, logging.WARNING, logging.WARNING,
    logging.INFO, logging.DEBUG,
)  # fmt: skip  # by syslog's numbers


class _Message(ctypes.Structure):
    """`rd_kafka_message_t`, as far as it is looked at."""

    _fields_ = (
        ("error", ctypes.c_int), ("topic", Handle), ("partition", ctypes.c_int32), ("payload", Handle),
        ("length", ctypes.c_size_t), ("key", Handle), ("key_length", ctypes.c_size_t),
    )  # fmt: skip


class _TopicMetadata(ctypes.Structure):
    """`rd_kafka_metadata_topic`."""

    _fields_ = (("name", Text), ("partitions", ctypes.c_int), ("of_partitions", Handle), ("error", ctypes.c_int))


class _Metadata(ctypes.Structure):
    """`rd_kafka_metadata_t`, as far as it is looked at."""

    _fields_ = (
        ("brokers", ctypes.c_int), ("of_brokers", Handle), ("topics", ctypes.c_int),
        ("of_topics", ctypes.POINTER(_TopicMetadata)),
    )  # fmt: skip


_FUNCTIONS: Final[Functions] = {
    "rd_kafka_conf_set_dr_msg_cb": (None, [Handle, _ON_DELIVERY]),
    "rd_kafka_conf_set_log_cb": (None, [Handle, _ON_LOG]),
    "rd_kafka_set_log_queue": (ctypes.c_int, [Handle, Handle]),
    "rd_kafka_destroy_flags": (None, [Handle, ctypes.c_int]),
    "rd_kafka_topic_new": (Handle, [Handle, Text, Handle]),
    "rd_kafka_topic_name": (Text, [Handle]),
    "rd_kafka_topic_destroy": (None, [Handle]),
    "rd_kafka_poll": (ctypes.c_int, [Handle, ctypes.c_int]),
    "rd_kafka_flush": (ctypes.c_int, [Handle, ctypes.c_int]),
    "rd_kafka_outq_len": (ctypes.c_int, [Handle]),
    "rd_kafka_last_error": (ctypes.c_int, []),
    "rd_kafka_metadata": (
        ctypes.c_int,
        [Handle, ctypes.c_int, Handle, ctypes.POINTER(ctypes.POINTER(_Metadata)), ctypes.c_int],
    ),
    "rd_kafka_metadata_destroy": (None, [ctypes.POINTER(_Metadata)]),
}
declare(_FUNCTIONS)
_produce = called("rd_kafka_produceva", NUMBER, NUMBER, NUMBER, NUMBER)


class Failure(NamedTuple):
    """The first record that was not delivered."""

    topic: str
    key: bytes
    error: KafkaError


class _Deliveries:
    """Records that were not delivered: kept while librdkafka is called, as nothing can be raised from there."""

    def __init__(self) -> None:
        self.failed = 0
        self.first: Failure | None = None
        self.callback: Final = _ON_DELIVERY(self._delivered)

    def _delivered(self, _handle: int, message: int, _opaque: int) -> None:
        told = _Message.from_address(message)
        if not told.error:
            return
        self.failed += 1
        if self.first is None:
            topic = LIBRDKAFKA.rd_kafka_topic_name(told.topic).decode(errors="replace")
            key = ctypes.string_at(told.key, told.key_length) if told.key else b""
            self.first = Failure(topic, key, KafkaError(told.error))


class KafkaProducer:
    """Takes records for topics, and says which of them were not delivered.

    `config` are librdkafka's settings, `delivery.report.only.error` among them. What librdkafka has to say is heard
    inside `poll`, `flush` and `topics`: `heard.tell` tells its complaints, `failed` and `first` what was not delivered.
    Raises KafkaException for a setting that cannot be, and where librdkafka refuses a call.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.heard = Heard()
        self._deliveries = _Deliveries()
        logged = _ON_LOG(_logged)
        callbacks = {
            "rd_kafka_conf_set_error_cb": self.heard.callback,
            "rd_kafka_conf_set_dr_msg_cb": self._deliveries.callback,
            "rd_kafka_conf_set_log_cb": logged,
        }
        self._made = client("producer", {**config, "log.queue": True}, callbacks)
        # What it logs is heard as all else is, and not from a thread of its own.
        raise_code(LIBRDKAFKA.rd_kafka_set_log_queue(self._made, None))
        self._topics: dict[tuple[str, str], _Topic] = {}
        end = weakref.finalize(self, _ended, self._made, self._topics, (self.heard, self._deliveries, logged))
        end.atexit = False  # at the end of the process nobody waits for its threads

    @property
    def failed(self) -> int:
        """How many records were not delivered."""
        return self._deliveries.failed

    @property
    def first(self) -> Failure | None:
        """The first of them."""
        return self._deliveries.first

    def __len__(self) -> int:
        """Records that are not delivered yet, and what librdkafka has to say."""
        return int(LIBRDKAFKA.rd_kafka_outq_len(self._made))

    def produce(self, topic: str, event_type: str, records: Records) -> tuple[int, KafkaError | None]:
        """Hand over records from the first on, each as a CloudEvent; how many, and why no more of them were taken."""
        known = self._topics.get((topic, event_type))
        if known is None:
            known = self._topics[topic, event_type] = _Topic(self._made, topic, event_type)
        taken = hand_over(self._made, known.units, known.names, records.text.ctypes.data, records.places, known.errors)
        return taken, None if taken == len(records) else error_of(int(known.errors[0]))

    def poll(self, seconds: float) -> None:
        """Hear what librdkafka has to say; waits for it so long at most."""
        LIBRDKAFKA.rd_kafka_poll(self._made, round(seconds * 1000))

    def flush(self, seconds: float) -> int:
        """Wait, so long at most, until all is delivered; how many records are left."""
        began = time.monotonic()
        while (left := len(self)) and (waited := time.monotonic() - began) < seconds:
            # Told of failures only, librdkafka sleeps for 10 ms between its own looks, and movements wait meanwhile.
            LIBRDKAFKA.rd_kafka_flush(self._made, FLUSH_LOOK_MS if waited < FLUSH_SOON_SECONDS else FLUSH_LOOK_LATER_MS)
        return left

    def topics(self, seconds: float) -> set[str]:
        """The names of all topics; waits so long at most for a broker to say them."""
        metadata = ctypes.POINTER(_Metadata)()
        raise_code(LIBRDKAFKA.rd_kafka_metadata(self._made, 1, None, ctypes.byref(metadata), round(seconds * 1000)))
        try:
            told = metadata.contents
            return {told.of_topics[place].name.decode(errors="replace") for place in range(told.topics)}
        finally:
            LIBRDKAFKA.rd_kafka_metadata_destroy(metadata)


class _Topic:
    """A topic, and the units of a record on it, in which all is said that each record has."""

    def __init__(self, producer: int, name: str, event_type: str) -> None:
        handle = LIBRDKAFKA.rd_kafka_topic_new(producer, name.encode(), None)
        if handle is None:
            raise_code(LIBRDKAFKA.rd_kafka_last_error())
        self.handle: int = handle
        self.errors = np.zeros(1, np.int64)
        self.units = np.zeros((UNITS, UNIT), np.int64)
        self._texts: list[ctypes.Array[ctypes.c_char]] = []  # which the units point to
        version, source, type_, content = cloud_event_headers(event_type).items()
        self.units[0, :2] = RKT, handle
        self.units[1, :2] = FLAGS, COPIED
        self.units[VALUE_UNIT, 0], self.units[KEY_UNIT, 0] = VALUE_IS, KEY_IS
        headers = [version, (CE_ID, b""), source, type_, content]
        for unit, (header, value) in enumerate(headers, KEY_UNIT + 1):
            self.units[unit, :4] = HEADER, self._address(header.encode()), self._address(value), len(value)
        self.units[OWN_UNITS:, 0] = HEADER
        own = [self._address(header.encode()) for header in (CE_TIME, TRACEPARENT)]
        self.names = np.array([self.units.ctypes.data, *own], np.int64)

    def _address(self, text: bytes) -> int:
        self._texts.append(ctypes.create_string_buffer(text))
        return ctypes.addressof(self._texts[-1])


@compiled("int64(int64, int64[:,::1], int64[::1], int64, int64[:,::1], int64[::1])")
def hand_over(producer: int, units: Ints, names: Ints, text: int, places: Ints, errors: Ints) -> int:
    """Hands over the records of `places` in the text at an address, until one is refused; returns how many were taken.

    `names` are the addresses of a record's units, and of two headers' names: its time and its trace, which it may not
    have. What a refused one led to becomes the first of `errors`.
    """
    for row in range(len(places)):
        record = places[row]
        units[VALUE_UNIT, 1], units[VALUE_UNIT, 2] = text + record[VALUE_AT], record[VALUE_AT + 1] - record[VALUE_AT]
        has_key = record[KEY_AT] != ABSENT
        units[KEY_UNIT, 1] = text + record[KEY_AT] if has_key else 0
        units[KEY_UNIT, 2] = record[KEY_AT + 1] - record[KEY_AT] if has_key else 0
        units[ID_UNIT, 2], units[ID_UNIT, 3] = text + record[ID_AT], record[ID_AT + 1] - record[ID_AT]
        count = OWN_UNITS
        for place in (TIME_AT, TRACEPARENT_AT):
            if record[place] != ABSENT:
                units[count, 1] = names[1] if place == TIME_AT else names[2]
                units[count, 2], units[count, 3] = text + record[place], record[place + 1] - record[place]
                count += 1
        error = _produce(producer, names[0], count)
        if error != 0:
            errors[0] = error
            return row
    return len(places)


def _logged(_handle: int, level: int, facility: bytes, text: bytes) -> None:
    log.log(_LEVELS[min(level, len(_LEVELS) - 1)], "%s %s", facility.decode(), text.decode(errors="replace"))


def _ended(handle: int, topics: dict[tuple[str, str], _Topic], _callbacks: object) -> None:
    for topic in topics.values():
        LIBRDKAFKA.rd_kafka_topic_destroy(topic.handle)
    LIBRDKAFKA.rd_kafka_destroy_flags(handle, 0)
