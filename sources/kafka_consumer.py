"""Kafka consumer: librdkafka's own consumer, whose messages become columns without an object for each.

The binding has no other way to messages than objects, and keeps its handle to itself; so this is a consumer of its own,
made by the same librdkafka with the same settings. It joins no group.
"""

import ctypes
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from confluent_kafka import KafkaError, KafkaException

from native.librdkafka import LIBRDKAFKA, Functions, Handle, Heard, Text, client, declare, raise_code, raise_error
from sources.kafka_columns import MessageColumns, ReadFailure, pieces_of

NO_CONSUMER_CLOSE: Final = 8  # there is no group to leave, and with a fatal error librdkafka would wait for it for ever

_FUNCTIONS: Final[Functions] = {
    "rd_kafka_destroy_flags": (None, [Handle, ctypes.c_int]),
    "rd_kafka_poll_set_consumer": (ctypes.c_int, [Handle]),
    "rd_kafka_queue_get_consumer": (Handle, [Handle]),
    "rd_kafka_queue_destroy": (None, [Handle]),
    "rd_kafka_consume_batch_queue": (ctypes.c_ssize_t, [Handle, ctypes.c_int, Handle, ctypes.c_size_t]),
    "rd_kafka_last_error": (ctypes.c_int, []),
    "rd_kafka_topic_partition_list_new": (Handle, [ctypes.c_int]),
    "rd_kafka_topic_partition_list_add": (Handle, [Handle, Text, ctypes.c_int32]),
    "rd_kafka_topic_partition_list_set_offset": (ctypes.c_int, [Handle, Text, ctypes.c_int32, ctypes.c_int64]),
    "rd_kafka_topic_partition_list_destroy": (None, [Handle]),
    "rd_kafka_incremental_assign": (Handle, [Handle, Handle]),
    "rd_kafka_incremental_unassign": (Handle, [Handle, Handle]),
    "rd_kafka_pause_partitions": (ctypes.c_int, [Handle, Handle]),
    "rd_kafka_resume_partitions": (ctypes.c_int, [Handle, Handle]),
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
        self._heard = Heard()
        self._made = client("consumer", config, {"rd_kafka_conf_set_error_cb": self._heard.callback})
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
        self._heard.tell(self._on_error)
        return taken

    def assign(self, positions: Mapping[int, int]) -> None:
        """Read these partitions, too, each from its offset on."""
        self._with(positions, LIBRDKAFKA.rd_kafka_incremental_assign, raise_error)

    def unassign(self, partitions: Sequence[int]) -> None:
        """Read these no more."""
        self._with(dict.fromkeys(partitions), LIBRDKAFKA.rd_kafka_incremental_unassign, raise_error)

    def pause(self, partitions: Sequence[int]) -> None:
        """Fetch nothing of these until they are resumed."""
        self._with(dict.fromkeys(partitions), LIBRDKAFKA.rd_kafka_pause_partitions, raise_code)

    def resume(self, partitions: Sequence[int]) -> None:
        """Go on with these where they were paused."""
        self._with(dict.fromkeys(partitions), LIBRDKAFKA.rd_kafka_resume_partitions, raise_code)

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


def _ended(handle: int, queue: int, _heard: object) -> None:
    LIBRDKAFKA.rd_kafka_queue_destroy(queue)
    LIBRDKAFKA.rd_kafka_destroy_flags(handle, NO_CONSUMER_CLOSE)
