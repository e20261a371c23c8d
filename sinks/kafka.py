"""The Kafka sinks: records on their topics, every one acknowledged before an epoch counts."""

import time
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Final, Generic, NamedTuple

from bytewax.outputs import StatefulSinkPartition
from confluent_kafka import KafkaError, KafkaException

from schemas.outputs import AnyRecord, Availability, Divergence, Replenishment, ShadowDifference
from schemas.records import Encoded, Records, as_records
from schemas.topics import Topic
from sinks.kafka_producer import KafkaProducer
from sinks.slots import SLOTS, RecordT, SinkError, SinkUnreachableError, SlottedSink

CHECK_SECONDS_MAX = 10.0
NEW_TOPIC_SECONDS_MAX = 3.0
DELIVERY_SECONDS_MAX = 120.0
WAIT_SECONDS = 1.0  # between two beats while acknowledgements are awaited
ROOM_SECONDS = 0.01

Option = str | int | float | bool

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
        self._made: KafkaProducer | None = None
        self._event: KafkaError | None = None  # what librdkafka last complained about by itself
        self._fatal: KafkaError | None = None  # nothing can be delivered any more
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

    def produce(self, topic: str, event_type: str, records: Records) -> None:
        """Hand records to librdkafka; SinkError where its queue stays full, or it does not take one."""
        while len(records):
            taken, error = self._producer.produce(topic, event_type, records)
            self._produced += taken
            records = records[taken:]
            if error is not None:
                self._make_way(topic, error)

    def poll(self) -> None:
        """Take what librdkafka has to say; SinkError where a record was not delivered."""
        self._hear(0)
        self._raise_undelivered()

    def flush(self) -> None:
        """Wait until every record has been acknowledged; SinkError where one was not, in `delivery_seconds_max`."""
        deadline = time.monotonic() + self._delivery_seconds_max
        while left := self._flushed(WAIT_SECONDS):
            self._raise_undelivered()
            self._raise_after(deadline, f"has not acknowledged {left} records")
        self._raise_undelivered()

    def _flushed(self, seconds: float) -> int:
        left = self._producer.flush(seconds)
        self._producer.heard.tell(self._complained)
        return left

    def _topics(self) -> set[str]:
        try:
            return self._producer.topics(CHECK_SECONDS_MAX)
        except KafkaException as error:
            self._hear(0)  # what led to it comes as an event
            raise self._error("does not answer", self._event or error.args[0]) from error

    def _make_way(self, topic: str, error: KafkaError) -> None:
        """Wait where the queue is full; others may take the room, so it may be full again."""
        if error.code() != KafkaError._QUEUE_FULL:  # noqa: SLF001
            raise self._error(f"does not take a record for {topic}", error)
        self._wait_for_room()

    def _wait_for_room(self) -> None:
        """Wait until a record has left the queue; poll cannot tell, because good news is not reported."""
        deadline = time.monotonic() + self._delivery_seconds_max
        waiting = len(self._producer)
        while len(self._producer) >= waiting:
            self._hear(ROOM_SECONDS)
            self._raise_undelivered()
            self._raise_after(deadline, f"has taken none of {waiting} records")

    def _hear(self, seconds: float) -> None:
        self._producer.poll(seconds)
        self._producer.heard.tell(self._complained)

    @property
    def _producer(self) -> KafkaProducer:
        if self._made is None:
            timeout_ms = int(self._delivery_seconds_max * 1000)
            try:
                self._made = KafkaProducer({**self._options, "message.timeout.ms": timeout_ms})
            except KafkaException as error:
                raise self._error("cannot be reached with these settings", error.args[0]) from error
        return self._made

    def _complained(self, error: KafkaError) -> None:
        if self._event is None or error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001  # follows every other
            self._event = error
        if error.fatal() and self._fatal is None:
            self._fatal = error

    def _raise_undelivered(self) -> None:
        """SinkError where a record was not delivered, or none can be any more."""
        first, fatal = self._producer.first, self._fatal
        if first is not None:
            key = first.key.decode(errors="replace")
            kind, said = _kind_of(first.error), f"{first.topic}, key {key!r}: {_said(first.error)}"
        elif fatal is not None:
            kind, said = SinkError, _said(fatal)
        else:
            return
        undelivered = self._producer.failed + (fatal is not None)
        raise kind(f"Kafka at {self._bootstrap_servers} did not take {undelivered} records, first {said}")

    def _raise_after(self, deadline: float, what: str) -> None:
        self._beat()
        if time.monotonic() > deadline:
            why = f" ({self._event.str()})" if self._event else ""
            seconds = f"in {self._delivery_seconds_max:g} s"
            raise SinkUnreachableError(f"Kafka at {self._bootstrap_servers} {what} {seconds}{why}: {_LOOK}")

    def _error(self, what: str, error: KafkaError) -> SinkError:
        return _kind_of(error)(f"Kafka at {self._bootstrap_servers} {what}: {_said(error)}")


class KafkaSink(SlottedSink[list[RecordT | Records], None], Generic[RecordT]):
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


class _Slot(StatefulSinkPartition[list[RecordT | Records], None], Generic[RecordT]):
    """Needs no `close`: after a snapshot nothing is left, and without one the records will be computed again."""

    def __init__(self, output: KafkaOutput, topic: Topic[RecordT, RecordT]) -> None:
        self._output = output
        self._topic = topic

    def write_batch(self, values: list[list[RecordT | Records]]) -> None:
        topic = self._topic
        for records in as_records(chain.from_iterable(values), self._encoded):
            self._output.produce(topic.name, topic.event_type, records)
        self._output.poll()

    def _encoded(self, record: RecordT) -> Encoded:
        event = event_of(record)
        time_, traceparent = (None if text is None else text.encode() for text in (event.time, event.traceparent))
        return Encoded(key_of(record), event.id.encode(), time_, self._topic.encode(record), traceparent)

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
