"""The topics onhand needs, those that Kafka has, and how they differ."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata, ConfigResource, NewTopic, ResourceType

from cli.connections import kafka_reason
from cli.failures import CliError
from schemas.settings import Settings
from schemas.topics import GENERATIONS, HEARTBEATS, MOVEMENTS, ONE_PARTITION, TOPICS

ADMIN_SECONDS_MAX: Final = 20.0


class WantedTopic(NamedTuple):
    """A topic by name, and what it must be configured with."""

    name: str
    config: Mapping[str, str]
    partitions: int | None = None  # None: as many as are asked for


class FoundTopic(NamedTuple):
    """A topic as Kafka has it."""

    partitions: int
    config: Mapping[str, str]


def wanted_topics(settings: Settings) -> list[WantedTopic]:
    """All topics of a full installation; the one for movements by its configured name."""
    movements = settings.input.topic if settings.input.kind == "kafka" else MOVEMENTS.name
    return [
        WantedTopic(
            movements if topic is MOVEMENTS else topic.name, topic.config, 1 if topic in ONE_PARTITION else None
        )
        for topic in TOPICS
    ]


def used_topics(settings: Settings) -> list[WantedTopic]:
    """Those of the wanted topics that `onhand run availability` reads or writes."""
    movements, *others = wanted_topics(settings)
    beside = [topic for topic in others if topic.name in (HEARTBEATS.name, GENERATIONS.name)]
    outputs = [topic for topic in others if topic not in beside]
    read = [movements, *beside] if settings.input.kind == "kafka" else []
    return read + (outputs if settings.output.kind == "kafka" else [])


def find_topics(admin: AdminClient, cluster: ClusterMetadata, wanted: list[WantedTopic]) -> dict[str, FoundTopic]:
    """Those of the wanted topics that exist, by name; CliError where Kafka does not tell their configuration."""
    names = [topic.name for topic in wanted if topic.name in cluster.topics]
    if not names:
        return {}
    resources = {ConfigResource(ResourceType.TOPIC, name): name for name in names}
    try:
        answers = admin.describe_configs(list(resources), request_timeout=ADMIN_SECONDS_MAX)
        configs = {resources[resource]: future.result(ADMIN_SECONDS_MAX) for resource, future in answers.items()}
    except (KafkaException, TimeoutError) as error:
        raise CliError(f"Kafka does not tell how its topics are configured: {kafka_reason(error)}") from error
    return {
        name: FoundTopic(len(cluster.topics[name].partitions), {key: entry.value for key, entry in config.items()})
        for name, config in configs.items()
    }


def differences(wanted: WantedTopic, found: FoundTopic) -> list[str]:
    """`key is x, should be y` for each setting of a topic that is not as it should be."""
    return [
        f"{key} is {found.config.get(key)}, should be {value}"
        for key, value in wanted.config.items()
        if found.config.get(key) != value
    ]


def advice(wanted: WantedTopic, found: FoundTopic) -> str:
    """The command that gives a topic the configuration it should have."""
    settings = ",".join(f"{key}={value}" for key, value in wanted.config.items() if found.config.get(key) != value)
    return f"kafka-configs.sh --alter --entity-type topics --entity-name {wanted.name} --add-config {settings}"


def make_topics(admin: AdminClient, wanted: list[WantedTopic], partitions: int, replication_factor: int) -> None:
    """Make them all; one that somebody else made meanwhile is fine. CliError where Kafka refuses."""
    if not wanted:
        return
    topics = [
        NewTopic(topic.name, topic.partitions or partitions, replication_factor, config=dict(topic.config))
        for topic in wanted
    ]
    made = admin.create_topics(topics, operation_timeout=ADMIN_SECONDS_MAX, request_timeout=ADMIN_SECONDS_MAX)
    for name, future in made.items():
        try:
            future.result(ADMIN_SECONDS_MAX)
        except (KafkaException, TimeoutError) as error:
            if not _exists_already(error):
                raise CliError(f"Kafka did not make topic {name}: {kafka_reason(error)}") from error


def _exists_already(error: BaseException) -> bool:
    reason = error.args[0] if error.args else None
    return isinstance(reason, KafkaError) and reason.code() == KafkaError.TOPIC_ALREADY_EXISTS
