"""The Kafka sinks: records on their topics, every one acknowledged before an epoch counts."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final, Generic, NamedTuple

from bytewax.outputs import StatefulSinkPartition
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from schemas.outputs import (
    AnyRecord,
    Availability,
    Divergence,
    Encoded,
    Replenishment,
    ShadowDifference,
    cloud_event_headers,
)
from schemas.topics import Topic
from sinks.slots import SLOTS, RecordT, SinkError, SinkUnreachableError, SlottedSink

CHECK_SECONDS_MAX = 10.0
NEW_TOPIC_SECONDS_MAX = 3.0
DELIVERY_SECONDS_MAX = 120.0
POLL_EVERY_RECORDS = 1000
WAIT_SECONDS = 1.0  # between two beats while acknowledgements are awaited
ROOM_SECONDS = 0.01

Option = str | int | float | bool
Headers = list[tuple[str, str | bytes | None]]
OutMessage = tuple[bytes, bytes | None, Headers]  # value and key

_DEFAULTS: Final[Mapping[str, Option]] = {
    "linger.ms": 5,
    "reconnect.backoff.max.ms": 1000,  # a broker that is back is found within a second, not ten
    "compression.type": "lz4",  # costs no more CPU time than it saves in sending, and shrinks JSON to a quarter
    "queue.buffering.max.kbytes": 64 * 1024,
    "message.max.bytes": 8 * 1024 * 1024,  # so that the topic's own limit decides
}
_ALWAYS: Final[Mapping[str, Option]] = {
    "acks": "all",
    "enable.idempotence": True,
    "partitioner": "murmur2_random",  # as JVM producers do, so that a SKU has one partition whoever writes
    "delivery.report.only.error": True,
}
_MAKE_TOPICS = "run `onhand topics create`"
_ADVICE: Final = {
    KafkaError.MSG_SIZE_TOO_LARGE: "raise the topic's max.message.bytes",
    KafkaError.UNKNOWN_TOPIC_OR_PART: _MAKE_TOPICS,
    KafkaError._UNKNOWN_TOPIC: _MAKE_TOPICS,  # noqa: SLF001  # so librdkafka names the errors of its own
    KafkaError._UNKNOWN_PARTITION: _MAKE_TOPICS,  # noqa: SLF001
    KafkaError._DESTROY: _MAKE_TOPICS,  # noqa: SLF001  # while we live only a partition can end: its topic was deleted
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "allow this user to write and describe the topic",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "allow this user IdempotentWrite on the cluster",
    KafkaError.POLICY_VIOLATION: "the topic or its broker forbids such records",
    KafkaError._AUTHENTICATION: "check the sasl settings under [kafka.options]",  # noqa: SLF001
    KafkaError._SSL: "check the ssl settings under [kafka.options]",  # noqa: SLF001
    KafkaError._TRANSPORT: "start it, or correct kafka.bootstrap_servers",  # noqa: SLF001
    KafkaError._ALL_BROKERS_DOWN: "start it, or correct kafka.bootstrap_servers",  # noqa: SLF001
    KafkaError._INVALID_ARG: "correct [kafka.options]",  # noqa: SLF001
}
_AWAY: Final = frozenset(
    {
        KafkaError._MSG_TIMED_OUT,  # noqa: SLF001
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    }
)
_LOOK = "look at the brokers, then start again"


class KafkaOutput:
    """The one producer of a process, from which `sink` makes a sink per topic.

    `options` are further librdkafka settings. A record that is not acknowledged within `delivery_seconds_max` stops
    the flow. `beat` is called at least once a second while acknowledgements or room in the queue are awaited.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        options: Mapping[str, Option],
        *,
        delivery_seconds_max: float = DELIVERY_SECONDS_MAX,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._options = {**_DEFAULTS, **options, **_ALWAYS, "bootstrap.servers": bootstrap_servers}
        self._delivery_seconds_max = delivery_seconds_max
        self._beat = beat
        self._made: Producer | None = None
        self._undelivered = 0
        self._first: str | None = None  # what the first undelivered record met
        self._failure: type[SinkError] = SinkError  # what kind of failure that is
        self._event: KafkaError | None = None  # what librdkafka last complained about by itself
        self._polled_at = 0
        self._produced = 0

    @property
    def produced(self) -> int:
        """How many records were handed to librdkafka since the start."""
        return self._produced

    def sink(self, topic: Topic[RecordT, RecordT], slots: int = SLOTS) -> "KafkaSink[RecordT]":
        """A sink that writes lists of records to `topic`."""
        return KafkaSink(self, topic, slots)

    def check(self, topic: str) -> None:
        """Reach Kafka; SinkError where it does not answer, refuses the login or does not have `topic`.

        A topic just made takes a moment to be known to all brokers, so a missing one is asked for again.
        """
        deadline = time.monotonic() + NEW_TOPIC_SECONDS_MAX
        while topic not in self._topics():
            if time.monotonic() > deadline:
                raise SinkError(f"Kafka at {self._bootstrap_servers} has no topic {topic}: {_MAKE_TOPICS}")
            time.sleep(NEW_TOPIC_SECONDS_MAX / 10)

    def produce(self, topic: str, messages: Iterable[OutMessage]) -> None:
        """Hand records to librdkafka; SinkError where its queue stays full or a record was not delivered."""
        hand_over = self._producer.produce
        try:
            for value, key, headers in messages:
                try:
                    hand_over(topic, value, key, headers=headers)
                except BufferError:
                    self._produce_later(topic, value, key, headers)
                self._produced += 1
                if self._produced - self._polled_at >= POLL_EVERY_RECORDS:
                    self.poll()
        except KafkaException as error:
            raise self._error(f"does not take a record for {topic}", error.args[0]) from error

    def poll(self) -> None:
        """Take what librdkafka has to say; SinkError where a record was not delivered."""
        self._polled_at = self._produced
        self._producer.poll(0)
        self._raise_undelivered()

    def flush(self) -> None:
        """Wait until every record has been acknowledged; SinkError where one was not, in `delivery_seconds_max`."""
        deadline = time.monotonic() + self._delivery_seconds_max
        while left := self._producer.flush(WAIT_SECONDS):
            self._raise_undelivered()
            self._raise_after(deadline, f"has not acknowledged {left} records")
        self._raise_undelivered()

    def _topics(self) -> set[str]:
        try:
            return set(self._producer.list_topics(timeout=CHECK_SECONDS_MAX).topics)
        except KafkaException as error:
            self._producer.poll(0)  # what led to it comes as an event
            raise self._error("does not answer", self._event or error.args[0]) from error

    def _produce_later(self, topic: str, value: bytes, key: bytes | None, headers: Headers) -> None:
        """Hand over one record once librdkafka's queue has room for it."""
        while True:  # others may take the room: `_wait_for_room` has the bound
            self._wait_for_room()
            with suppress(BufferError):
                self._producer.produce(topic, value, key, headers=headers)
                return

    def _wait_for_room(self) -> None:
        """Wait until a record has left the queue; poll cannot tell, because good news is not reported."""
        deadline = time.monotonic() + self._delivery_seconds_max
        waiting = len(self._producer)
        while len(self._producer) >= waiting:
            self._producer.poll(ROOM_SECONDS)
            self._raise_undelivered()
            self._raise_after(deadline, f"has taken none of {waiting} records")

    @property
    def _producer(self) -> Producer:
        if self._made is None:
            timeout_ms = int(self._delivery_seconds_max * 1000)
            callbacks = {"on_delivery": self._delivered, "error_cb": self._complained}
            try:
                self._made = Producer(
                    {**self._options, "message.timeout.ms": timeout_ms, **callbacks},
                    logger=logging.getLogger("onhand.kafka"),
                )
            except KafkaException as error:
                raise self._error("cannot be reached with these settings", error.args[0]) from error
        return self._made

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            return
        self._undelivered += 1
        if self._first is None:
            self._failure = _kind_of(error)
            key = (message.key() or b"").decode(errors="replace")
            self._first = f"{message.topic()}, key {key!r}: {_said(error)}"

    def _complained(self, error: KafkaError) -> None:
        if self._event is None or error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001  # follows every other
            self._event = error
        if error.fatal():
            self._undelivered += 1
            self._first = self._first or _said(error)

    def _raise_undelivered(self) -> None:
        if self._first is not None:
            raise self._failure(
                f"Kafka at {self._bootstrap_servers} did not take {self._undelivered} records, first {self._first}"
            )

    def _raise_after(self, deadline: float, what: str) -> None:
        self._beat()
        if time.monotonic() > deadline:
            why = f" ({self._event.str()})" if self._event else ""
            seconds = f"in {self._delivery_seconds_max:g} s"
            raise SinkUnreachableError(f"Kafka at {self._bootstrap_servers} {what} {seconds}{why}: {_LOOK}")

    def _error(self, what: str, error: KafkaError) -> SinkError:
        return _kind_of(error)(f"Kafka at {self._bootstrap_servers} {what}: {_said(error)}")


class KafkaSink(SlottedSink[list[RecordT | Encoded], None], Generic[RecordT]):
    """Writes lists of records to one topic under their keys, with CloudEvents headers.

    `snapshot` waits for all acknowledgements. SinkError, in one line, where the topic is missing at the start or a
    record is not delivered.
    """

    def __init__(self, output: KafkaOutput, topic: Topic[RecordT, RecordT], slots: int = SLOTS) -> None:
        super().__init__(slots)
        self._output = output
        self._topic = topic

    def check(self) -> None:
        """Reach Kafka; SinkError where it does not answer, refuses the login or does not have the topic."""
        self._output.check(self._topic.name)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "_Slot[RecordT]":
        """One slot's view of the shared producer; there is nothing to resume."""
        return _Slot(self._output, self._topic)


class _Slot(StatefulSinkPartition[list[RecordT | Encoded], None], Generic[RecordT]):
    """Needs no `close`: after a snapshot nothing is left, and without one the records will be computed again."""

    def __init__(self, output: KafkaOutput, topic: Topic[RecordT, RecordT]) -> None:
        self._output = output
        self._topic = topic

    def write_batch(self, values: list[list[RecordT | Encoded]]) -> None:
        for records in values:
            self._output.produce(self._topic.name, map(self._message, records))
        self._output.poll()

    def _message(self, record: RecordT | Encoded) -> OutMessage:
        type_ = self._topic.event_type
        if isinstance(record, Encoded):
            return record.value, record.key, cloud_event_headers(type_, record.id, record.time, record.traceparent)
        event = event_of(record)
        headers = cloud_event_headers(type_, event.id, event.time, event.traceparent)
        return self._topic.encode(record), key_of(record), headers

    def snapshot(self) -> None:
        self._output.flush()


class Event(NamedTuple):
    """What a record's CloudEvents headers say of it; `time` is the record's own."""

    id: str
    time: str | None
    traceparent: str | None


def event_of(record: AnyRecord) -> Event:
    """The identity of a record, the same in every run."""
    if isinstance(record, Availability):
        return Event(f"{record.sku}:{record.version}", record.as_of, None)
    if isinstance(record, ShadowDifference):
        return Event(record.id, record.as_of, None)
    if isinstance(record, Divergence | Replenishment):
        return Event(record.id, record.time, None)
    return Event(record.id, record.time, record.traceparent)


def key_of(record: AnyRecord) -> bytes | None:
    """What keeps the records of one thing in order: the SKU, or of a whole location `@` and its name; else None."""
    if record.sku:
        return record.sku.encode()
    return f"@{record.location}".encode() if isinstance(record, Divergence) else None


def _kind_of(error: KafkaError) -> type[SinkError]:
    """Whether trying again later may help."""
    return SinkUnreachableError if error.code() in _AWAY else SinkError


def _said(error: KafkaError) -> str:
    """What librdkafka says in one line, and what to do."""
    return f"{' '.join(error.str().split())} ({error.name()}): {_ADVICE.get(error.code(), _LOOK)}"
