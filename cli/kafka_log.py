"""A Kafka topic read from any place to the end that it had, leaving no trace: for commands that compare and refill."""

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, cast

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec, TopicDescription

from cli.connections import cluster_of, kafka_admin, kafka_config, kafka_failure, kafka_reason
from cli.failures import CliError
from cli.kafka_topics import ADMIN_SECONDS_MAX
from schemas.settings import KafkaSettings

RECORDS_AT_ONCE: Final = 4000
POLL_SECONDS: Final = 0.2
SILENT_SECONDS_MAX: Final = 30.0
NEW_TOPIC_SECONDS_MAX: Final = 5.0
EARLIEST: Final[OffsetSpec] = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # as confluent_kafka has it
LATEST: Final[OffsetSpec] = OffsetSpec.latest()  # type: ignore[no-untyped-call]
NOT_YET: Final = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


class Extent(NamedTuple):
    """A partition's log: the first offset that it holds, and the one behind its last."""

    first: int
    end: int


class KafkaLog:
    """The topic `name`; CliError, also on the way, where it is missing or cannot be read.

    Reads what is committed, by a consumer that belongs to no group's members and commits nothing.
    """

    def __init__(self, kafka: KafkaSettings, name: str) -> None:
        self.name = name
        self._kafka = kafka
        self._admin: AdminClient = kafka_admin(kafka)
        cluster = cluster_of(self._admin, kafka)
        if name not in cluster.topics:
            raise CliError(
                f"there is no topic {name} at {kafka.bootstrap_servers}: is kafka.bootstrap_servers right? "
                "`onhand topics create` makes the topics of onhand"
            )
        self.cluster_id = str(cluster.cluster_id)
        self.topic_id = str(self._described().topic_id)
        self._consumer = Consumer(_consumer_config(kafka))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._consumer.close()

    def extents(self) -> dict[int, Extent]:
        """What every partition holds now; asked again for a while where a topic just made has not got around yet."""
        deadline = time.monotonic() + NEW_TOPIC_SECONDS_MAX
        while True:
            try:
                return self._extents()
            except KafkaException as error:
                if error.args[0].code() not in NOT_YET or time.monotonic() > deadline:
                    raise kafka_failure(self._kafka, error) from error
                time.sleep(POLL_SECONDS)

    def read(self, partition: int, first: int, end: int) -> Iterator[list[Message]]:
        """The records from offset `first` on that stand before `end`, in their order, some thousands at a time."""
        if first < end:
            self._consumer.assign([TopicPartition(self.name, partition, first)])
        position, heard = first, time.monotonic()
        while position < end:
            messages, position = self._next(partition, position, end)
            if messages:
                heard = time.monotonic()
                yield messages
            elif time.monotonic() - heard > SILENT_SECONDS_MAX:
                raise CliError(
                    f"{self.name}, partition {partition}: nothing came from offset {position} on for "
                    f"{SILENT_SECONDS_MAX:g} s: look at the brokers, then try again"
                )

    def _next(self, partition: int, position: int, end: int) -> tuple[list[Message], int]:
        """What comes within a moment, and how far that goes; `end` where nothing is left before it."""
        wanted = min(RECORDS_AT_ONCE, end - position)  # what is there needs no waiting for more
        try:
            came = self._consumer.consume(wanted, POLL_SECONDS)
        except KafkaException as error:
            raise kafka_failure(self._kafka, error) from error
        messages: list[Message] = []
        for message in came:
            fault, offset = message.error(), message.offset() or 0
            if fault is not None and fault.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001  # so it is named
                self._judge(partition, fault)
            elif message.partition() != partition:
                continue  # of the partition before
            elif fault is not None or offset >= end:  # nothing is left: the last ones may have been compacted away
                position = max(position, offset)
            else:
                messages.append(message)
                position = offset + 1
        return messages, position

    def _judge(self, partition: int, error: KafkaError) -> None:
        """Pass over what librdkafka puts right by itself; CliError for the rest."""
        if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001  # so it is named
            raise CliError(f"{self.name}, partition {partition}: records were deleted while they were read: try again")
        is_away = error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT)  # noqa: SLF001
        if error.fatal() or not (is_away or error.retriable() or error.code() in NOT_YET):
            raise CliError(f"{self.name}, partition {partition}, cannot be read: {error.str()}")

    def _extents(self) -> dict[int, Extent]:
        partitions = [TopicPartition(self.name, each.id) for each in self._described().partitions]
        firsts, ends = self._offsets(partitions, EARLIEST), self._offsets(partitions, LATEST)
        return {each.partition: Extent(firsts[each.partition], ends[each.partition]) for each in partitions}

    def _offsets(self, partitions: list[TopicPartition], at: OffsetSpec) -> dict[int, int]:
        answers: dict[TopicPartition, Any] = self._admin.list_offsets(
            dict.fromkeys(partitions, at),
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=ADMIN_SECONDS_MAX,
        )
        return {each.partition: answers[each].result(ADMIN_SECONDS_MAX).offset for each in partitions}

    def _described(self) -> TopicDescription:
        asked = self._admin.describe_topics(TopicCollection([self.name]), request_timeout=ADMIN_SECONDS_MAX)
        try:
            return cast("TopicDescription", asked[self.name].result(ADMIN_SECONDS_MAX))
        except (KafkaException, TimeoutError) as error:
            raise CliError(f"Kafka does not describe topic {self.name}: {kafka_reason(error)}") from error


def _consumer_config(kafka: KafkaSettings) -> dict[str, str | int | float | bool]:
    return {
        **kafka_config(kafka),
        "group.id": kafka.group,  # asked for by the library; nothing joins it, nothing is committed to it
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
        "isolation.level": "read_committed",
        "queued.max.messages.kbytes": 16 * 1024,
        "fetch.wait.max.ms": 10,  # a broker that waits for more at the end of one partition holds up the next
        "fetch.queue.backoff.ms": 5,  # the default lets a fetcher sleep for a second when its queue is full
    }
