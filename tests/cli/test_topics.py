"""`onhand topics create`: makes what is missing, tells what differs, and can be run again."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from confluent_kafka.admin import AdminClient

from bench.servers import KafkaBroker
from cli import topics
from cli.kafka_topics import WantedTopic
from schemas.settings import Settings
from schemas.topics import MOVEMENTS, ONE_PARTITION, TOPICS
from tests.cli.command import NOWHERE, assert_failed_in_one_line, onhand


@pytest.fixture
def settings(kafka: KafkaBroker) -> dict[str, str]:
    """The broker of all tests."""
    return {"kafka.bootstrap_servers": kafka.bootstrap_servers}


def test_missing_topics_are_made_once(settings: dict[str, str], tmp_path: Path) -> None:
    """A second time everything exists, and that is fine."""
    mine = settings | {"input.topic": "movements-made-here"}
    made = json.loads(onhand("topics", "create", "--partitions", "3", "--json", cwd=tmp_path, settings=mine).stdout)
    assert made["topics"][0] == {
        "topic": "movements-made-here", "state": "made", "partitions": 3, "differences": [],
    }  # fmt: skip
    again = onhand("topics", "create", cwd=tmp_path, settings=mine)
    assert again.returncode == 0
    assert again.stdout.splitlines()[0].split() == ["TOPIC", "STATE", "PARTITIONS"]
    assert [line.split()[:2] for line in again.stdout.splitlines()[1:]] == [
        [topic.name if topic is not MOVEMENTS else "movements-made-here", "exists"] for topic in TOPICS
    ]


def test_what_is_read_from_its_beginning_to_its_end_has_one_partition(tmp_path: Path) -> None:
    """Heartbeats and generations of rules, however many partitions are asked for, twice over."""
    with KafkaBroker() as broker:
        settings = {"kafka.bootstrap_servers": broker.bootstrap_servers}
        for state in ("made", "exists"):
            done = onhand("topics", "create", "--partitions", "3", "--json", cwd=tmp_path, settings=settings)
            assert done.returncode == 0, done.stdout + done.stderr
            report = json.loads(done.stdout)["topics"]
            assert [row["partitions"] for row in report] == [1 if topic in ONE_PARTITION else 3 for topic in TOPICS]
            assert {row["state"] for row in report} == {state}
        (tmp_path / "rules.toml").write_text("[channels.web]\n")
        checks = json.loads(onhand("doctor", "--json", cwd=tmp_path, settings=settings).stdout)["checks"]
        found = {check["subject"]: check["result"] for check in checks}
        assert {found[topic.name] for topic in TOPICS} == {"ok"}


def test_a_topic_that_differs_is_left_alone_and_told(
    settings: dict[str, str], topic: Callable[..., str], tmp_path: Path
) -> None:
    """Exit code 3, with what is and what should be."""
    name = topic(2, {"retention.ms": "1000"})
    done = onhand("topics", "create", "--partitions", "4", cwd=tmp_path, settings=settings | {"input.topic": name})
    assert name in assert_failed_in_one_line(done, 3)
    assert f"{name}: message.timestamp.type is CreateTime, should be LogAppendTime" in done.stdout
    assert f"{name}: retention.ms is 1000, should be -1" in done.stdout
    assert f"{name}: has 2 partitions, not 4" in done.stdout


def test_kafka_out_of_reach_is_told_in_one_line(tmp_path: Path) -> None:
    """After seconds, not minutes."""
    done = onhand("topics", "create", cwd=tmp_path, settings={"kafka.bootstrap_servers": NOWHERE})
    assert f"Kafka at {NOWHERE} does not answer" in assert_failed_in_one_line(done, 1)


def test_options_that_librdkafka_does_not_know_are_a_configuration_error(tmp_path: Path) -> None:
    """`kafka.options` are librdkafka's, and it says which one is wrong."""
    (tmp_path / "onhand.toml").write_text('[kafka.options]\n"no.such.option" = 1\n')
    assert "no.such.option" in assert_failed_in_one_line(onhand("topics", "create", cwd=tmp_path), 2)


def test_topics_that_were_just_made_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that does not list them yet is asked again."""
    answers = iter([SimpleNamespace(topics={}), SimpleNamespace(topics={"made": None})])
    monkeypatch.setattr(topics, "cluster_of", lambda *_: next(answers))
    wanted = [WantedTopic("made", {})]
    assert "made" in topics.cluster_that_knows(AdminClient({}), Settings(), wanted).topics
