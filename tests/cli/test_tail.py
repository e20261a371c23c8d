"""`onhand tail`: a topic as lines that people read, or as JSON."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from bench.servers import KafkaBroker
from tests.cli.command import NOWHERE, assert_failed_in_one_line, onhand, started, wait_until

SHIPPED = (
    '{"id":"1","source":"wms","kind":"shipped","sku":"SKU-1","location":"dc-1","quantity":3,'
    '"time":"2026-11-01T00:00:00Z"}'
)
TICK = '{"kind":"tick","time":"2026-11-01T00:00:01.000Z"}'


@pytest.fixture
def settings(kafka: KafkaBroker, topic: Callable[..., str]) -> dict[str, str]:
    """A topic of movements with three records."""
    name = topic(1)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for payload in (SHIPPED, TICK, "\x1b[31mred"):
        producer.produce(name, payload, "SKU-1")
    assert producer.flush(20) == 0
    return {"kafka.bootstrap_servers": kafka.bootstrap_servers, "input.topic": name}


def test_movements_as_readable_lines(settings: dict[str, str], tmp_path: Path) -> None:
    """Time and place in the log, and what it says; nothing that a terminal would obey."""
    arguments = ("tail", settings["input.topic"], "--from-beginning", "--limit", "3")
    done = onhand(*arguments, cwd=tmp_path, settings=settings)
    assert done.returncode == 0, done.stderr
    lines = [line.split("  ", 1) for line in done.stdout.splitlines()]
    assert [place.split()[1] for place, _ in lines] == ["0/0", "0/1", "0/2"]
    assert [text for _, text in lines] == [
        "SKU-1  shipped 3 at dc-1  (wms 1)",
        "tick 2026-11-01T00:00:01.000Z",
        "unusable, not_json: \\x1b[31mred",
    ]


def test_records_as_json(settings: dict[str, str], tmp_path: Path) -> None:
    """One object a line, what is no JSON as text."""
    arguments = ("tail", settings["input.topic"], "--from-beginning", "--limit", "3", "--json")
    told = [json.loads(line) for line in onhand(*arguments, cwd=tmp_path, settings=settings).stdout.splitlines()]
    assert [record["offset"] for record in told] == [0, 1, 2]
    assert told[0]["key"] == "SKU-1"
    assert told[0]["value"]["kind"] == "shipped"
    assert told[2]["value"] == "\x1b[31mred"


def test_a_short_name_is_enough(settings: dict[str, str], tmp_path: Path) -> None:
    """`thresholds` is inventory.thresholds, and it waits for what comes until Ctrl-C."""
    assert onhand("topics", "create", cwd=tmp_path, settings=settings).returncode in (0, 3)
    producer = Producer({"bootstrap.servers": settings["kafka.bootstrap_servers"]})

    def heard() -> bool:
        producer.produce("inventory.thresholds", "marker")
        producer.flush(20)
        return "marker" in (tmp_path / "out").read_text()

    with started("tail", "thresholds", cwd=tmp_path, settings=settings) as tail:
        wait_until(heard)
        tail.send_signal(signal.SIGINT)
        assert tail.wait(20) == 130
    assert (tmp_path / "err").read_text() == ""


def test_a_topic_that_is_missing_is_told_with_those_that_are_there(settings: dict[str, str], tmp_path: Path) -> None:
    """A typing error is seen at once."""
    done = onhand("tail", "treshholds", cwd=tmp_path, settings=settings)
    line = assert_failed_in_one_line(done, 1)
    assert "there is no topic treshholds" in line
    assert settings["input.topic"] in line


def test_kafka_out_of_reach_is_told_in_one_line(tmp_path: Path) -> None:
    """After seconds, not minutes."""
    done = onhand("tail", "thresholds", cwd=tmp_path, settings={"kafka.bootstrap_servers": NOWHERE})
    assert f"Kafka at {NOWHERE} does not answer" in assert_failed_in_one_line(done, 1)
