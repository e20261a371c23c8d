"""Heartbeats: the newest sign of life of each location, from a real Kafka and a real Redis."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from redis import Redis

from bench.servers import KafkaBroker, RedisServer
from schemas.times import format_ms
from schemas.topics import HEARTBEATS
from sources import heartbeats
from sources.heartbeats import Heard, HeartbeatError, KafkaHeartbeats, RedisHeartbeats
from tests.cli.command import NOWHERE, wait_until

NOW_MS = 1_795_219_200_000


def heartbeat(location: str, time_ms: int) -> bytes:
    """A sign of life."""
    return json.dumps({"source": "wms", "location": location, "time": format_ms(time_ms)}).encode()


def test_the_newest_counts_and_nobody_is_heard_from_the_future() -> None:
    """An older one that comes later changes nothing; one dated ahead counts as of its arrival."""
    heard = Heard()
    heard.note(heartbeat("east", NOW_MS - 5000), NOW_MS)
    heard.note(heartbeat("east", NOW_MS - 9000), NOW_MS)
    heard.note(heartbeat("west", NOW_MS + 3_600_000), NOW_MS)
    assert heard.newest_ms == {"east": NOW_MS - 5000, "west": NOW_MS}


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"{", b"[]", b"\xff", b'{"source":"w","location":"e"}',
        b'{"source":"w","location":"e","time":"yesterday"}',
        b'{"source":"w","location":"@e","time":"2026-11-21T09:00:00Z"}',
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_passed_over_and_counted(payload: bytes) -> None:
    """One broken sender does not make the others silent."""
    heard = Heard()
    heard.note(payload, NOW_MS)
    heard.note(heartbeat("east", NOW_MS), NOW_MS)
    assert (heard.unreadable, heard.newest_ms) == (1, {"east": NOW_MS})


def test_one_broken_sender_is_told_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    """A log that says nothing else helps nobody."""
    seconds = [0.0]
    heard = Heard(lambda: seconds[0])
    for second in range(130):
        seconds[0] = second
        heard.note(b"{", NOW_MS)
    assert heard.unreadable == 130
    assert capsys.readouterr().out.count("cannot be read and is passed over") == 3


@pytest.fixture
def topic_of_heartbeats(kafka: KafkaBroker) -> str:
    """The topic, which is made where it is missing."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    if HEARTBEATS.name not in admin.list_topics(timeout=10).topics:
        wanted = NewTopic(HEARTBEATS.name, 1, 1, config=dict(HEARTBEATS.config))
        admin.create_topics([wanted])[HEARTBEATS.name].result(20)
    return HEARTBEATS.name


@contextmanager
def reading(kafka: KafkaBroker) -> Iterator[KafkaHeartbeats]:
    """A reader of the topic."""
    reader = KafkaHeartbeats(kafka.bootstrap_servers, {})
    try:
        yield reader
    finally:
        reader.close()


def send(kafka: KafkaBroker, topic: str, *heartbeats: tuple[str, int]) -> None:
    """Write heartbeats, and wait until they are there."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for location, time_ms in heartbeats:
        producer.produce(topic, heartbeat(location, time_ms), location.encode())
    assert producer.flush(20) == 0


def test_the_first_look_at_kafka_sees_everything_and_later_ones_what_has_come(
    kafka: KafkaBroker, topic_of_heartbeats: str
) -> None:
    """A watcher that judged before it has read would believe what has long been silent."""
    send(kafka, topic_of_heartbeats, *((f"place-{number}", 1000 + number) for number in range(3000)))
    with reading(kafka) as reader:
        heard = reader.heard_ms()
        assert {heard.get(f"place-{number}") for number in range(3000)} == set(range(1000, 4000))
        send(kafka, topic_of_heartbeats, ("place-7", 9000))
        wait_until(lambda: reader.heard_ms()["place-7"] == 9000)


def test_a_first_look_that_takes_too_long_is_gone_on_with(
    kafka: KafkaBroker, topic_of_heartbeats: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then nobody can tell."""
    send(kafka, topic_of_heartbeats, ("last", 5000))
    with reading(kafka) as reader:
        monkeypatch.setattr(heartbeats, "FIRST_LOOK_SECONDS_MAX", -1.0)
        with pytest.raises(HeartbeatError, match="not read to their end"):
            reader.heard_ms()
        monkeypatch.undo()
        assert reader.heard_ms()["last"] == 5000


def test_a_broker_out_of_reach_is_told() -> None:
    """The watcher says so and tries again."""
    reader = KafkaHeartbeats(NOWHERE, {"socket.connection.setup.timeout.ms": 1000, "log_level": 0})
    with pytest.raises(HeartbeatError):
        reader.heard_ms()
    reader.close()


def test_a_topic_that_is_missing_is_told(kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that makes it."""
    monkeypatch.setattr(heartbeats, "HEARTBEATS", dataclasses.replace(HEARTBEATS, name="no-heartbeats"))
    with reading(kafka) as reader, pytest.raises(HeartbeatError, match="onhand topics create"):
        reader.heard_ms()


def test_the_first_look_at_a_stream_sees_everything(
    redis: Redis, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are; where that takes too long nobody can tell yet."""
    with redis.pipeline(transaction=False) as pipeline:
        for number in range(2500):
            pipeline.xadd(HEARTBEATS.name, {"payload": heartbeat(f"place-{number}", 1000 + number)})
        pipeline.execute()
    reader = RedisHeartbeats(redis_server.url)
    monkeypatch.setattr(heartbeats, "FIRST_LOOK_SECONDS_MAX", -1.0)
    with pytest.raises(HeartbeatError, match="not read to their end"):
        reader.heard_ms()
    monkeypatch.undo()
    assert set(reader.heard_ms().values()) == set(range(1000, 3500))
    reader.close()


def test_a_redis_out_of_reach_is_told() -> None:
    """The watcher says so and tries again."""
    reader = RedisHeartbeats(f"redis://{NOWHERE}/0")
    with pytest.raises(HeartbeatError):
        reader.heard_ms()
    reader.close()


def test_a_redis_stream_is_read_on(redis: Redis, redis_server: RedisServer) -> None:
    """Each look begins behind the last entry."""
    reader = RedisHeartbeats(redis_server.url)
    redis.xadd(HEARTBEATS.name, {"payload": heartbeat("east", 1000)})
    assert reader.heard_ms() == {"east": 1000}
    redis.xadd(HEARTBEATS.name, {"payload": heartbeat("east", 3000)})
    redis.xadd(HEARTBEATS.name, {"nothing": "here"})
    assert reader.heard_ms() == {"east": 3000}
    reader.close()
