"""Heartbeats: the newest sign of life of each location, from a real Kafka and a real Redis."""

import json
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from redis import Redis

from bench.servers import KafkaBroker, RedisServer
from schemas.times import format_ms
from schemas.topics import HEARTBEATS
from sources.heartbeats import Heard, HeartbeatError, KafkaHeartbeats, RedisHeartbeats
from tests.cli.command import wait_until

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


@pytest.fixture
def reading(kafka: KafkaBroker) -> Iterator[KafkaHeartbeats]:
    """A reader of the topic, which is made where it is missing."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    if HEARTBEATS.name not in admin.list_topics(timeout=10).topics:
        wanted = NewTopic(HEARTBEATS.name, 1, 1, config=dict(HEARTBEATS.config))
        admin.create_topics([wanted])[HEARTBEATS.name].result(20)
    reader = KafkaHeartbeats(kafka.bootstrap_servers, {})
    yield reader
    reader.close()


def test_kafka_is_read_from_the_beginning_and_followed(kafka: KafkaBroker, reading: KafkaHeartbeats) -> None:
    """The broker's clock bounds what a source says."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number in (1, 2):
        producer.produce(HEARTBEATS.name, heartbeat(f"place-{number}", 1000 * number), f"place-{number}".encode())
        assert producer.flush(20) == 0
        wait_until(lambda number=number: f"place-{number}" in reading.heard_ms())  # type: ignore[misc]  # bound now
        assert reading.heard_ms()[f"place-{number}"] == 1000 * number


def test_a_broker_out_of_reach_is_told() -> None:
    """The watcher says so and tries again."""
    reader = KafkaHeartbeats("127.0.0.1:9", {"socket.connection.setup.timeout.ms": 1000})
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
