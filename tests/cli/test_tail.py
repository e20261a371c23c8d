"""`onhand tail`: a topic as lines that people read, or as JSON."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from msgspec import Raw

from bench.servers import KafkaBroker
from cli.tail import saying_of
from schemas.movements import LocationTrusted, RulesChanged
from schemas.outputs import Divergence, Replenishment, ShadowDifference, ShadowOffer
from schemas.settings import Settings
from schemas.topics import DIVERGENCES, GENERATIONS, HEARTBEATS, MOVEMENTS, REPLENISHMENTS, SHADOW, Topic
from schemas.watch import Generation, Heartbeat
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


LINES = [
    (
        HEARTBEATS,
        Heartbeat(source="wms", location="dc-1", time="2026-11-21T09:00:00.000Z"),
        "dc-1  heard 2026-11-21T09:00:00.000Z  (wms)",
    ),
    (
        GENERATIONS,
        Generation(generation=7, digest="6f1c", time="2026-11-21T09:00:00.000Z", document={"channels": {}}),
        "generation 7  pushed 2026-11-21T09:00:00.000Z  (digest 6f1c)",
    ),
    (
        REPLENISHMENTS,
        Replenishment("id", "proposed", "A", "dc-1", 48, 31, 27, 3.2, "position 27 at or below 31", 7, "2026-11-21"),
        "A at dc-1  proposed: 48  (position 27 at or below 31)",
    ),
    (
        SHADOW,
        ShadowDifference("id", "A", 7, "2026-11-21", 2, {"web": ShadowOffer(3, 5)}),
        "A  web 3, shadow 5  (version 7)",
    ),
    (SHADOW, ShadowDifference("id", "A", 8, "2026-11-21", 2, {}), "A  no difference any more  (version 8)"),
    (
        DIVERGENCES,
        Divergence(
            "id", "opened", None, "dc-1", "heartbeats", "trust_percent", 90, 100, "2026-11-21", "silent", [], "2026"
        ),
        "dc-1  opened: heartbeats: trust_percent 90 said, 100 derived  (silent)",
    ),
    (
        MOVEMENTS,
        LocationTrusted(location="dc-1", trust_percent=90),
        "dc-1 is trusted by 90 %",
    ),
    (
        MOVEMENTS,
        RulesChanged(generation=7, changes=Raw(b'"piece"'), since=6, part=2, parts=3),
        "rules generation 7, since 6, part 2 of 3",
    ),
    (
        MOVEMENTS,
        RulesChanged(generation=7, changes=Raw(b'{"channels":{"web":{"share_percent":5,"cap_units":null}}}'), since=6),
        "rules generation 7, since 6: channels.web.cap_units, channels.web.share_percent",
    ),
    (
        MOVEMENTS,
        RulesChanged(generation=1, changes=Raw(b'{"f":1,"e":1,"d":1,"c":1,"b":1,"a":1}')),
        "rules generation 1, complete: a, b, c, d, e and 1 more",
    ),
    (
        MOVEMENTS,
        RulesChanged(generation=1, changes=Raw(b"[]")),
        '{"kind":"rules","generation":1,"changes":[]}',
    ),
]


@pytest.mark.parametrize(("topic_of", "record", "line"), LINES)
def test_each_topic_has_its_own_readable_line(topic_of: Topic[Any, Any], record: object, line: str) -> None:
    """What was said, of what, and why."""
    assert saying_of(Settings(), topic_of.name)(topic_of.encode(record)) == line


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
