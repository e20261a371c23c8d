"""Where generations of rules are kept, and how they get into every partition of the log."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol, cast

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from redis import Redis
from redis.exceptions import RedisError

from schemas.topics import GENERATIONS
from schemas.watch import Generation
from sinks.slots import SinkError

ANSWER_SECONDS_MAX: Final = 10.0
READ_SECONDS_MAX: Final = 60.0
POLL_SECONDS: Final = 0.2
RECORDS_AT_ONCE: Final = 100
ENTRIES_AT_ONCE: Final = 10
REGISTRY_BYTES_MAX: Final = 32 * 1024 * 1024
NEW_TOPIC_SECONDS_MAX: Final = 5.0
_NOT_YET: Final = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001  # so librdkafka names the errors of its own
    KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
)

Option = str | int | float | bool


class RuleLog(Protocol):
    """The generations of one input, and its partitions."""

    def generations(self) -> Iterable[Generation]:
        """Everything that was claimed, in the order of the log; of one number the first counts.

        One at a time, because each holds a whole set of rules; SinkError, also on the way, where that fails.
        """

    def append(self, generation: Generation) -> None:
        """Puts a generation behind all others; SinkError where it does not get there."""

    def partitions(self) -> list[int]:
        """The partitions of the input."""

    def tell(self, payloads: Sequence[bytes]) -> None:
        """Writes control records, in their order, into every partition of the input; SinkError where one is not."""


class KafkaRuleLog:
    """Generations in `inventory.rules`, keyed by the input's topic; control records in the input's partitions."""

    def __init__(self, bootstrap_servers: str, topic: str, options: Mapping[str, Option]) -> None:
        self._servers = bootstrap_servers
        self._topic = topic
        self._options = {"log_level": 2, **options, "bootstrap.servers": bootstrap_servers}
        self._made: Producer | None = None
        self._failed: str | None = None

    def generations(self) -> Iterator[Generation]:
        """As in `RuleLog`; SinkError where Kafka does not tell within READ_SECONDS_MAX."""
        try:
            yield from self._read()
        except KafkaException as error:
            raise self._error("does not tell the rules that were pushed", error.args[0]) from error
        except msgspec.DecodeError as error:
            raise SinkError(f"{GENERATIONS.name} holds what is no generation of rules: {error}") from error

    def append(self, generation: Generation) -> None:
        """As in `RuleLog`."""
        self._produce(GENERATIONS.name, GENERATIONS.encode(generation), 0, self._topic.encode())
        self._flush()

    def partitions(self) -> list[int]:
        """As in `RuleLog`."""
        try:
            described = self._producer.list_topics(self._topic, timeout=ANSWER_SECONDS_MAX).topics[self._topic]
        except KafkaException as error:
            raise self._error(f"does not describe {self._topic}", error.args[0]) from error
        if not described.partitions:
            raise SinkError(f"Kafka at {self._servers} has no topic {self._topic}: run `onhand topics create`")
        return sorted(described.partitions)

    def tell(self, payloads: Sequence[bytes]) -> None:
        """As in `RuleLog`."""
        for partition in self.partitions():
            for payload in payloads:
                self._produce(self._topic, payload, partition, None)
        self._flush()

    @property
    def _producer(self) -> Producer:
        if self._made is None:
            settings = {
                **self._options,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 0,
                "message.max.bytes": REGISTRY_BYTES_MAX,
                "message.timeout.ms": int(ANSWER_SECONDS_MAX * 1000),
            }
            try:
                self._made = Producer(settings)
            except KafkaException as error:
                raise self._error("cannot be written to with these settings", error.args[0]) from error
        return self._made

    def _read(self) -> Iterator[Generation]:
        """Those of this input, up to the end that the registry has now."""
        consumer = Consumer({**self._options, "group.id": "onhand-rules", "enable.auto.commit": False})
        try:
            everything = TopicPartition(GENERATIONS.name, 0, OFFSET_BEGINNING)
            low, high = _extent(consumer, everything)
            consumer.assign([everything])
            deadline, next_offset = time.monotonic() + READ_SECONDS_MAX, low
            while next_offset < high:
                if time.monotonic() > deadline:
                    raise SinkError(f"{GENERATIONS.name} could not be read within {READ_SECONDS_MAX:g} s: try again")
                wanted = min(RECORDS_AT_ONCE, high - next_offset)  # all of it is there: no need to wait for more
                for message in consumer.consume(wanted, POLL_SECONDS):
                    if (error := message.error()) is not None:
                        if error.code() in _NOT_YET:
                            continue
                        raise KafkaException(error)
                    next_offset = (message.offset() or 0) + 1
                    if message.key() == self._topic.encode():
                        yield GENERATIONS.decode(message.value() or b"")
        finally:
            consumer.close()

    def _produce(self, topic: str, value: bytes, partition: int, key: bytes | None) -> None:
        deadline = time.monotonic() + ANSWER_SECONDS_MAX
        while True:
            try:
                self._producer.produce(topic, value, key, partition=partition, on_delivery=self._delivered)
            except BufferError:
                self._producer.poll(POLL_SECONDS)
            except KafkaException as error:
                raise self._error(f"does not take a record for {topic}", error.args[0]) from error
            else:
                return
            if time.monotonic() > deadline:
                raise SinkError(f"Kafka at {self._servers} takes no records: look at the brokers, then try again")

    def _flush(self) -> None:
        left = self._producer.flush(2 * ANSWER_SECONDS_MAX)
        failed, self._failed = self._failed, None
        if left or failed:
            why = failed or f"{left} records are not acknowledged"
            raise SinkError(f"Kafka at {self._servers} did not take every record ({why}): look at the brokers")

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failed = self._failed or error.str()

    def _error(self, what: str, error: KafkaError) -> SinkError:
        return SinkError(f"Kafka at {self._servers} {what}: {error.str()}")


def _extent(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """Where a partition begins and ends; asked again for a while where a topic just made has not got around yet."""
    deadline = time.monotonic() + NEW_TOPIC_SECONDS_MAX
    while True:
        try:
            return consumer.get_watermark_offsets(partition, timeout=ANSWER_SECONDS_MAX)
        except KafkaException as error:
            if error.args[0].code() not in _NOT_YET or time.monotonic() > deadline:
                raise
        time.sleep(POLL_SECONDS)


class RedisRuleLog:
    """Generations in a Redis stream `inventory.rules`; the input is one stream, which is one partition."""

    def __init__(self, url: str, stream: str) -> None:
        self._client = Redis.from_url(url, socket_timeout=ANSWER_SECONDS_MAX)
        self._stream = stream

    def generations(self) -> Iterator[Generation]:
        """As in `RuleLog`."""
        try:
            for fields in self._entries():
                if fields.get(b"key") == self._stream.encode():
                    yield GENERATIONS.decode(fields[b"payload"])
        except (RedisError, KeyError, msgspec.DecodeError) as error:
            raise SinkError(f"Redis does not tell the rules that were pushed: {error}") from error

    def append(self, generation: Generation) -> None:
        """As in `RuleLog`."""
        self._add(GENERATIONS.name, {"key": self._stream, "payload": GENERATIONS.encode(generation)})

    def partitions(self) -> list[int]:
        """As in `RuleLog`."""
        return [0]

    def tell(self, payloads: Sequence[bytes]) -> None:
        """As in `RuleLog`."""
        for payload in payloads:
            self._add(self._stream, {"payload": payload})

    def _entries(self) -> Iterator[dict[bytes, bytes]]:
        """All entries that the registry has, a few at a time."""
        last = b"0-0"
        while True:
            entries = cast(
                "list[tuple[bytes, dict[bytes, bytes]]]",
                self._client.xrange(GENERATIONS.name, min=b"(" + last, count=ENTRIES_AT_ONCE),
            )
            yield from (fields for _, fields in entries)
            if len(entries) < ENTRIES_AT_ONCE:
                return
            last = entries[-1][0]

    def _add(self, stream: str, fields: dict[str, str | bytes]) -> None:
        try:
            self._client.xadd(stream, fields)  # type: ignore[arg-type]  # texts and bytes are both encoded
        except RedisError as error:
            raise SinkError(f"Redis did not take a record for {stream}: {error}") from error
