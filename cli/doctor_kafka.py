"""What `onhand doctor` looks at in Kafka: the cluster, the topics, and how far the group is behind."""

import time
from collections.abc import Iterator
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ClusterMetadata, OffsetSpec

from cli.connections import cluster_of, kafka_admin, kafka_config, kafka_reason
from cli.failures import CliError, one_line
from cli.findings import Check
from cli.kafka_topics import ADMIN_SECONDS_MAX, FoundTopic, WantedTopic, advice, differences, find_topics, used_topics
from schemas.settings import KafkaSettings, Settings
from schemas.topics import AVAILABILITY

LATEST: Final[OffsetSpec] = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # as confluent_kafka has it
RETRY_SECONDS: Final = 0.2
NEW_COORDINATOR: Final = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)


def kafka_checks(settings: Settings) -> list[Check]:
    """The cluster, the topics, and how far the group is behind."""
    wanted = used_topics(settings)
    if not wanted:
        return [Check("Kafka", "skipped", "neither read nor written with this configuration")]
    admin = kafka_admin(settings.kafka)
    try:
        cluster = cluster_of(admin, settings.kafka)
        found = find_topics(admin, cluster, wanted)
    except CliError as error:
        return [Check("Kafka", "unreachable", settings.kafka.bootstrap_servers, one_line(error))]
    brokers = len(cluster.brokers)
    reached = Check("Kafka", "ok", f"cluster {cluster.cluster_id}, {brokers} broker{'s' * (brokers != 1)}")
    topics = [_topic_check(topic, found) for topic in wanted]
    return [reached, *topics, *_partition_checks(settings, found), *_lag_checks(admin, settings, cluster)]


def _topic_check(wanted: WantedTopic, found: dict[str, FoundTopic]) -> Check:
    topic = found.get(wanted.name)
    if topic is None:
        return Check(wanted.name, "finding", "is missing", "`onhand topics create` makes it")
    if differing := differences(wanted, topic):
        return Check(wanted.name, "finding", "; ".join(differing), advice(wanted, topic))
    return Check(wanted.name, "ok", f"{topic.partitions} partitions")


def _partition_checks(settings: Settings, found: dict[str, FoundTopic]) -> Iterator[Check]:
    """Whoever reads movements and availability side by side needs a SKU in the same partition of both."""
    movements, availability = found.get(settings.input.topic), found.get(AVAILABILITY.name)
    if movements and availability and movements.partitions != availability.partitions:
        yield Check(
            AVAILABILITY.name,
            "finding",
            f"{availability.partitions} partitions, {settings.input.topic} has {movements.partitions}",
            f"kafka-topics.sh --alter --topic … --partitions {max(movements.partitions, availability.partitions)}, "
            "with producers stopped, for the one that has fewer",
        )


def _lag_checks(admin: AdminClient, settings: Settings, cluster: ClusterMetadata) -> Iterator[Check]:
    """How many records of the input its group has not committed."""
    if settings.input.kind != "kafka" or settings.input.topic not in cluster.topics:
        return
    partitions = [
        TopicPartition(settings.input.topic, number) for number in cluster.topics[settings.input.topic].partitions
    ]
    try:
        committed, ends = _committed(settings.kafka, partitions), _ends(admin, partitions)
    except (KafkaException, TimeoutError) as error:
        yield Check("lag", "finding", kafka_reason(error), f"let this user describe the group {settings.kafka.group}")
        return
    waiting = sum(max(0, ends[number] - max(0, committed.get(number, 0))) for number in ends)
    told = "" if any(offset >= 0 for offset in committed.values()) else "; the group has committed nothing yet"
    yield Check("lag", "ok", f"{waiting} records not yet committed by {settings.kafka.group}{told}")


def _committed(kafka: KafkaSettings, partitions: list[TopicPartition]) -> dict[int, int]:
    """The group's offset by partition; below 0 where it has none.

    A consumer asks, without joining the group: the admin client's own request crashes (librdkafka 2.16) while a broker
    is still loading the group's coordinator, as it does when a cluster is new.
    """
    consumer = Consumer({**kafka_config(kafka), "group.id": kafka.group, "enable.auto.commit": False})
    deadline = time.monotonic() + ADMIN_SECONDS_MAX
    try:
        while True:
            try:
                return {each.partition: each.offset for each in consumer.committed(partitions, ADMIN_SECONDS_MAX)}
            except KafkaException as error:
                if error.args[0].code() not in NEW_COORDINATOR or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)
    finally:
        consumer.close()


def _ends(admin: AdminClient, partitions: list[TopicPartition]) -> dict[int, int]:
    """Where each partition's log ends."""
    answers = admin.list_offsets(dict.fromkeys(partitions, LATEST), request_timeout=ADMIN_SECONDS_MAX)
    return {each.partition: future.result(ADMIN_SECONDS_MAX).offset for each, future in answers.items()}
