"""A broker and a Redis of one's own that a run of `onhand run availability` has filled, and what stands in them."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Consumer, Producer, TopicPartition
from redis import Redis

from bench.drain import Raw, Running, create_topics, onhand_running, produce, wait_until
from bench.generate import RULES_PATH, LoadConfig, movements
from bench.servers import KafkaBroker, RedisServer
from schemas.outputs import Availability
from schemas.topics import AVAILABILITY

PARTITIONS = 4
SECONDS_MAX = 120.0
CONFIG = LoadConfig(
    movements=12_000,
    skus=600,
    partitions=PARTITIONS,
    duplicate_share=0.02,
    late_share=0.02,
    tick_ms=1000,
    end_markers=False,
)

Hashes = dict[bytes, dict[bytes, bytes]]


class Servers(NamedTuple):
    """A broker with onhand's topics, a Redis, and the settings with which commands find both."""

    kafka: str
    redis: str

    @property
    def settings(self) -> dict[str, str]:
        """As environment variables name them."""
        return {
            "kafka.bootstrap_servers": self.kafka, "redis.url": self.redis, "rules.path": str(RULES_PATH),
        }  # fmt: skip

    def client(self) -> Redis:
        """A client of this Redis."""
        return Redis.from_url(self.redis)


@contextmanager
def servers_with_topics() -> Iterator[Servers]:
    """Fixed topic names need a broker of their own."""
    with KafkaBroker() as kafka, RedisServer() as redis:
        create_topics(kafka.bootstrap_servers, PARTITIONS)
        yield Servers(kafka.bootstrap_servers, redis.url)


@contextmanager
def running(servers: Servers, rules: Path = RULES_PATH) -> Iterator[Running]:
    """`onhand run availability` on these servers, once it has caught up."""
    with onhand_running(servers.kafka, servers.redis, "filled", rules) as process:
        wait_until(lambda: has_caught_up(servers, process), SECONDS_MAX, "everything read")
        yield process


def fill(servers: Servers, messages: Iterable[Raw]) -> None:
    """Lets a run read these movements to their end."""
    produce(servers.kafka, list(messages))
    with running(servers) as process:
        process.drain()


def generated(seed: int = 7, config: LoadConfig = CONFIG) -> list[Raw]:
    """A few thousand movements, with duplicates, late ones and ticks."""
    return list(movements(config, random.Random(seed)))


def has_caught_up(servers: Servers, process: Running) -> bool:
    """Whether the watermark says that nothing is left to be read, and something was."""
    process.check_alive()
    with servers.client() as client:
        return bool(client.hget("avail:@health", "lag_seconds") == b"0.000" and len(hashes_of(client)) > 0)


def hashes_of(client: Redis) -> Hashes:
    """What channels read: the hash of every SKU."""
    keys = [key for key in client.scan_iter("avail:*", count=5000) if not key.startswith(b"avail:@")]
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hgetall(key)
        return dict(zip(keys, pipeline.execute(), strict=True))


def publish(servers: Servers, records: Iterable[Availability | tuple[str, bytes | None]]) -> None:
    """Writes records to inventory.availability; a pair is a key and its bytes as they are."""
    settings = {"bootstrap.servers": servers.kafka, "linger.ms": 20, "partitioner": "murmur2_random"}  # as the flow's
    producer = Producer(settings)
    for record in records:
        key, value = record if isinstance(record, tuple) else (record.sku, AVAILABILITY.encode(record))
        producer.produce(AVAILABILITY.name, value, key)
        producer.poll(0)
    assert producer.flush(30) == 0


def ends_of(servers: Servers, topic: str) -> list[int]:
    """Where the partitions of a topic end."""
    consumer = Consumer({"bootstrap.servers": servers.kafka, "group.id": "ends"})
    ends = [consumer.get_watermark_offsets(TopicPartition(topic, each), timeout=20)[1] for each in range(PARTITIONS)]
    consumer.close()
    return ends
