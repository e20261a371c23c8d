"""Kafka consumer: librdkafka's own consumer, whose messages become columns without an object for each.

The binding has no other way to messages than objects, and keeps its handle to itself; so this is a consumer of its own,
made by the same librdkafka with the same settings. It joins no group.
"""

import ctypes
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from confluent_kafka import KafkaError, KafkaException

from sources.kafka_columns import MessageColumns, ReadFailure, pieces_of
from sources.librdkafka import LIBRDKAFKA, declare

CONSUMER: Final = 1  # rd_kafka_type_t
NO_CONSUMER_CLOSE: Final = 8  # there is no group to leave, and with a fatal error librdkafka would wait for it for ever
ERROR_BYTES: Final = 512
EVENTS_MAX: Final = 100  # that wait to be told; the newest ones say how things are

_Handle = ctypes.c_void_p
_Text = ctypes.c_char_p
_ON_ERROR: Final = ctypes.CFUNCTYPE(None, _Handle, ctypes.c_int, _Text, _Handle)
_FUNCTIONS: Final[Mapping[str, tuple[Any, list[Any]]]] = {  # what they return, and take
    "rd_kafka_conf_new": (_Handle, []),
    "rd_kafka_conf_set": (ctypes.c_int, [_Handle, _Text, _Text, _Text, ctypes.c_size_t]),
    "rd_kafka_conf_set_error_cb": (None, [_Handle, _ON_ERROR]),
    "rd_kafka_conf_destroy": (None, [_Handle]),
    "rd_kafka_new": (_Handle, [ctypes.c_int, _Handle, _Text, ctypes.c_size_t]),
    "rd_kafka_destroy_flags": (None, [_Handle, ctypes.c_int]),
    "rd_kafka_poll_set_consumer": (ctypes.c_int, [_Handle]),
    "rd_kafka_queue_get_consumer": (_Handle, [_Handle]),
    "rd_kafka_queue_destroy": (None, [_Handle]),
    "rd_kafka_consume_batch_queue": (ctypes.c_ssize_t, [_Handle, ctypes.c_int, _Handle, ctypes.c_size_t]),
    "rd_kafka_last_error": (ctypes.c_int, []),
    "rd_kafka_topic_partition_list_new": (_Handle, [ctypes.c_int]),
    "rd_kafka_topic_partition_list_add": (_Handle, [_Handle, _Text, ctypes.c_int32]),
    "rd_kafka_topic_partition_list_set_offset": (ctypes.c_int, [_Handle, _Text, ctypes.c_int32, ctypes.c_int64]),
    "rd_kafka_topic_partition_list_destroy": (None, [_Handle]),
    "rd_kafka_incremental_assign": (_Handle, [_Handle, _Handle]),
    "rd_kafka_incremental_unassign": (_Handle, [_Handle, _Handle]),
    "rd_kafka_pause_partitions": (ctypes.c_int, [_Handle, _Handle]),
    "rd_kafka_resume_partitions": (ctypes.c_int, [_Handle, _Handle]),
    "rd_kafka_error_code": (ctypes.c_int, [_Handle]),
    "rd_kafka_error_string": (_Text, [_Handle]),
    "rd_kafka_error_destroy": (None, [_Handle]),
}
declare(_FUNCTIONS)


class KafkaConsumer:
    """Reads the partitions of `topic` that it is given, from the offsets that it is given.

    `config` are librdkafka's settings, the group's id among them. `on_error` is told, inside `consume`, what librdkafka
    complains about by itself; it reconnects by itself. Raises KafkaException for a setting that cannot be, and where
    librdkafka refuses a call; RuntimeError once it is closed.
    """

    def __init__(self, topic: str, config: Mapping[str, Any], on_error: Callable[[KafkaError], None]) -> None:
        self._topic = topic.encode()
        self._on_error = on_error
        self._events: deque[KafkaError] = deque(maxlen=EVENTS_MAX)
        self._heard = _ON_ERROR(_hearing(self._events))  # librdkafka calls it as long as it lives
        self._made = _made(config, self._heard)
        LIBRDKAFKA.rd_kafka_poll_set_consumer(self._made)
        self._queue: int = LIBRDKAFKA.rd_kafka_queue_get_consumer(self._made)
        self._found = np.zeros(0, np.int64)
        # At the end of the process nobody waits for its threads.
        self._end = weakref.finalize(self, _ended, self._made, self._queue, self._heard)
        self._end.atexit = False

    def consume(self, messages_max: int) -> tuple[dict[int, MessageColumns], list[ReadFailure]]:
        """What has arrived, by partition, and what went wrong; never waits."""
        self._check_open()
        if len(self._found) < messages_max:
            self._found = np.zeros(messages_max, np.int64)
        count = LIBRDKAFKA.rd_kafka_consume_batch_queue(self._queue, 0, self._found.ctypes.data, messages_max)
        if count < 0:
            raise KafkaException(KafkaError(LIBRDKAFKA.rd_kafka_last_error()))
        taken = pieces_of(self._found[:count]) if count else ({}, [])
        while self._events:
            self._on_error(self._events.popleft())
        return taken

    def assign(self, positions: Mapping[int, int]) -> None:
        """Read these partitions, too, each from its offset on."""
        self._with(positions, LIBRDKAFKA.rd_kafka_incremental_assign, _raise_error)

    def unassign(self, partitions: Sequence[int]) -> None:
        """Read these no more."""
        self._with(dict.fromkeys(partitions), LIBRDKAFKA.rd_kafka_incremental_unassign, _raise_error)

    def pause(self, partitions: Sequence[int]) -> None:
        """Fetch nothing of these until they are resumed."""
        self._with(dict.fromkeys(partitions), LIBRDKAFKA.rd_kafka_pause_partitions, _raise_code)

    def resume(self, partitions: Sequence[int]) -> None:
        """Go on with these where they were paused."""
        self._with(dict.fromkeys(partitions), LIBRDKAFKA.rd_kafka_resume_partitions, _raise_code)

    def close(self) -> None:
        """Leave the broker; once more does nothing."""
        self._end()

    def _check_open(self) -> None:
        """What is gone may not be touched: librdkafka would not notice, but read freed memory."""
        if not self._end.alive:
            raise RuntimeError("the consumer is closed")

    def _with(
        self, partitions: Mapping[int, int | None], function: Callable[[int, int], int], judge: Callable[[int], None]
    ) -> None:
        self._check_open()
        listed = LIBRDKAFKA.rd_kafka_topic_partition_list_new(len(partitions))
        try:
            for partition, offset in partitions.items():
                LIBRDKAFKA.rd_kafka_topic_partition_list_add(listed, self._topic, partition)
                if offset is not None:
                    LIBRDKAFKA.rd_kafka_topic_partition_list_set_offset(listed, self._topic, partition, offset)
            judge(function(self._made, listed))
        finally:
            LIBRDKAFKA.rd_kafka_topic_partition_list_destroy(listed)


def _hearing(events: deque[KafkaError]) -> Callable[[int, int, bytes | None, int], None]:
    """What librdkafka calls inside `consume`: it keeps the error, because nothing can be raised from there.

    That a consumer cannot go on at all comes in the place of a message.
    """

    def heard(_handle: int, code: int, reason: bytes | None, _opaque: int) -> None:
        events.append(KafkaError(code, (reason or b"").decode(errors="replace")))

    return heard


def _made(config: Mapping[str, Any], heard: Any) -> int:  # noqa: ANN401  # ctypes gives callbacks no type
    conf, text = LIBRDKAFKA.rd_kafka_conf_new(), ctypes.create_string_buffer(ERROR_BYTES)
    for name, value in config.items():
        if LIBRDKAFKA.rd_kafka_conf_set(conf, name.encode(), _text_of(value), text, ERROR_BYTES) != 0:
            LIBRDKAFKA.rd_kafka_conf_destroy(conf)
            raise _refused(text.value)
    LIBRDKAFKA.rd_kafka_conf_set_error_cb(conf, heard)
    handle: int | None = LIBRDKAFKA.rd_kafka_new(CONSUMER, conf, text, ERROR_BYTES)
    if handle is None:  # else `conf` is its own
        LIBRDKAFKA.rd_kafka_conf_destroy(conf)
        raise _refused(text.value)
    return handle


def _text_of(value: str | float | bool) -> bytes:  # noqa: FBT001  # a setting may be one
    return (str(value).lower() if isinstance(value, bool) else str(value)).encode()


def _refused(said: bytes) -> KafkaException:
    return KafkaException(KafkaError(KafkaError._INVALID_ARG, said.decode(errors="replace")))  # noqa: SLF001


def _ended(handle: int, queue: int, _heard: object) -> None:
    LIBRDKAFKA.rd_kafka_queue_destroy(queue)
    LIBRDKAFKA.rd_kafka_destroy_flags(handle, NO_CONSUMER_CLOSE)


def _raise_error(error: int | None) -> None:
    if error:
        code, said = LIBRDKAFKA.rd_kafka_error_code(error), LIBRDKAFKA.rd_kafka_error_string(error)
        LIBRDKAFKA.rd_kafka_error_destroy(error)
        raise KafkaException(KafkaError(code, said.decode(errors="replace")))


def _raise_code(code: int) -> None:
    if code:
        raise KafkaException(KafkaError(code))
