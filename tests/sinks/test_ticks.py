"""When ticks are written, and to which partitions."""

import threading
from collections import Counter
from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, TopicPartition
from structlog.testing import capture_logs

from bench.servers import KafkaBroker
from schemas.movements import Decoded, Tick, decode
from sinks import ticks
from sinks.ticks import TURNS, KafkaTicks, RedisStreamTicks, Timekeeper

SECONDS_MAX = 20.0
NOBODY = "redis://127.0.0.1:1"


class Target:
    """Notes what is written; the troubles are what it answers, the last of them from then on."""

    def __init__(self, troubles: list[str | None], enough: int) -> None:
        self.written: list[tuple[bytes, int]] = []
        self.done = threading.Event()
        self._troubles = troubles
        self._enough = enough

    def write(self, payload: bytes, turn: int) -> str | None:
        """One turn."""
        self.written.append((payload, turn))
        if len(self.written) == self._enough:
            self.done.set()
        return self._troubles.pop(0) if len(self._troubles) > 1 else self._troubles[0]


def time_of(payload: bytes) -> int:
    """Of a tick, ms since 1970."""
    decoded = decode(payload)
    assert isinstance(decoded, Decoded)
    assert isinstance(decoded.record, Tick)
    return decoded.time_ms


def test_partitions_have_turns_within_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them at one instant would make movements wait for as many messages as there are lanes and partitions."""
    monkeypatch.setattr(ticks, "INTERVAL_SECONDS", 0.4)
    target, asked = Target([None], 2 * TURNS), iter(range(1_000_000, 10_000_000, 1000))
    with Timekeeper(target, lambda: next(asked)):
        assert target.done.wait(SECONDS_MAX)
    assert [turn for _, turn in target.written[: 2 * TURNS]] == [*range(TURNS), *range(TURNS)]
    assert [time_of(payload) for payload, _ in target.written[:3]] == [1_000_000, 1_001_000, 1_002_000]


def test_trouble_is_told_when_it_begins_and_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at each turn."""
    monkeypatch.setattr(ticks, "INTERVAL_SECONDS", 0.1)
    target = Target([None, "away", "away", "still away", None, None], 8)
    with capture_logs() as logs, Timekeeper(target, lambda: 0):
        assert target.done.wait(SECONDS_MAX)
    assert [(entry["log_level"], entry.get("error")) for entry in logs] == [("warning", "away"), ("info", None)]


def test_nothing_is_written_while_draining(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would read it."""
    monkeypatch.setattr(ticks, "INTERVAL_SECONDS", 0.01)
    target = Target([None], 1)
    with Timekeeper(target, lambda: 0, lambda: True):
        assert not target.done.wait(0.2)


def test_each_partition_of_a_topic_ticks_in_its_turn(kafka: KafkaBroker, topic: Callable[..., str]) -> None:
    """Once for each round of turns, whatever their number."""
    name = topic(partitions=TURNS + 3)
    target = KafkaTicks(kafka.bootstrap_servers, name, {})
    for round_ in range(2):
        for turn in range(TURNS):
            assert target.write(b'{"kind":"tick","time":"2026-11-21T09:00:0%d.00%dZ"}' % (round_, turn), turn) is None
            target._producer.flush(SECONDS_MAX)  # noqa: SLF001
    assert ticks_in(kafka, name, 2 * (TURNS + 3)) == {
        (partition, f"2026-11-21T09:00:0{round_}.00{partition % TURNS}Z"): 1
        for partition in range(TURNS + 3)
        for round_ in range(2)
    }


def test_a_partition_that_fails_is_told_of_until_it_takes_one_again(
    kafka: KafkaBroker, topic: Callable[..., str]
) -> None:
    """Turns of other partitions do not say that all is well."""
    target = KafkaTicks(kafka.bootstrap_servers, topic(partitions=2, config={"max.message.bytes": "200"}), {})
    target.write(b"x" * 1000, 1)
    target._producer.flush(SECONDS_MAX)  # noqa: SLF001
    for turn in (0, 2, 3):
        assert "too large" in str(target.write(b"x", turn))
        target._producer.flush(SECONDS_MAX)  # noqa: SLF001
    target.write(b"x", 1)
    target._producer.flush(SECONDS_MAX)  # noqa: SLF001
    assert target.write(b"x", 0) is None


def test_a_stream_is_one_partition() -> None:
    """It has the first turn, and what stood in its way is told at the others, too."""
    target = RedisStreamTicks(NOBODY, "movements")
    assert target.write(b"x", 1) is None
    trouble = target.write(b"x", 0)
    assert trouble is not None
    assert target.write(b"x", 1) == trouble


def ticks_in(kafka: KafkaBroker, topic: str, count: int) -> Counter[tuple[int | None, str]]:
    """Partitions and times of so many ticks."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "any", "enable.auto.commit": False})
    try:
        partitions = sorted(consumer.list_topics(topic, timeout=SECONDS_MAX).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        messages = consumer.consume(count, SECONDS_MAX)
    finally:
        consumer.close()
    return Counter((message.partition(), str(message.value()).split('"')[-2]) for message in messages)
