"""`onhand topics create`: makes the topics that are missing and compares the others."""

import os
import time
from typing import Annotated, Final, Literal

import msgspec
import typer
from confluent_kafka.admin import AdminClient, ClusterMetadata

from cli.configuration import ConfigOption, load_configuration
from cli.connections import cluster_of, kafka_admin
from cli.failures import DIFFERENT, CliError
from cli.kafka_topics import (
    ADMIN_SECONDS_MAX,
    FoundTopic,
    WantedTopic,
    differences,
    find_topics,
    make_topics,
    wanted_topics,
)
from cli.screen import print_json, print_line, print_table
from schemas.settings import Settings

EXAMPLES: Final = ("onhand topics create --partitions 8 --replication-factor 1",)
PARTITIONS: Final = 8
REPLICAS_MAX: Final = 3
LOOK_AGAIN_SECONDS: Final = 0.1


def create(
    partitions: Annotated[
        int | None, typer.Option(min=1, max=4096, metavar="N", help=f"Partitions of each topic [{PARTITIONS}].")
    ] = None,
    replication_factor: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Copies of each record [all brokers, at most 3].")
    ] = None,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make the topics that are missing, with the partitions, compaction and retention they need.

    Topics that exist are left alone and compared: exit code 3 where one differs.
    """
    settings = load_configuration(config, os.environ).settings
    admin = kafka_admin(settings.kafka)
    cluster = cluster_of(admin, settings.kafka)
    wanted = wanted_topics(settings)
    missing = [topic for topic in wanted if topic.name not in cluster.topics]
    copies = replication_factor or min(REPLICAS_MAX, len(cluster.brokers))
    make_topics(admin, missing, partitions or PARTITIONS, copies)
    found = find_topics(admin, cluster_that_knows(admin, settings, wanted), wanted)
    report = [_reported(topic, found[topic.name], topic in missing, partitions) for topic in wanted]
    _print(report, as_json=as_json)
    if differing := [row.topic for row in report if row.differences]:
        raise CliError(f"not as onhand needs them: {', '.join(differing)}; `onhand doctor` tells what to do", DIFFERENT)


def cluster_that_knows(admin: AdminClient, settings: Settings, wanted: list[WantedTopic]) -> ClusterMetadata:
    """The cluster, once every wanted topic has got around: brokers learn of a new one a moment after it was made."""
    deadline = time.monotonic() + ADMIN_SECONDS_MAX
    while True:
        cluster = cluster_of(admin, settings.kafka)
        unknown = [topic.name for topic in wanted if topic.name not in cluster.topics]
        if not unknown:
            return cluster
        if time.monotonic() > deadline:
            raise CliError(f"Kafka made {', '.join(unknown)} but does not list it; look at the brokers, then try again")
        time.sleep(LOOK_AGAIN_SECONDS)


class TopicReport(msgspec.Struct):
    """What became of one topic: made just now, or found, with what is not as it should be."""

    topic: str
    state: Literal["made", "exists"]
    partitions: int
    differences: list[str] = []


def _reported(wanted: WantedTopic, found: FoundTopic, made: bool, asked: int | None) -> TopicReport:
    differing = differences(wanted, found)
    expected = wanted.partitions or asked
    if expected not in (None, found.partitions):
        differing.append(f"has {found.partitions} partitions, not {expected}")
    return TopicReport(wanted.name, "made" if made else "exists", found.partitions, differing)


def _print(report: list[TopicReport], *, as_json: bool) -> None:
    if as_json:
        print_json({"topics": report})
        return
    print_table(("TOPIC", "STATE", "PARTITIONS"), [(row.topic, row.state, str(row.partitions)) for row in report])
    for row in report:
        for difference in row.differences:
            print_line(f"{row.topic}: {difference}")
