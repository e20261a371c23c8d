"""Servers for the benchmarks' own short runs: a broker and a Redis for all of them, emptied for each."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka.admin import AdminClient
from redis import Redis

from bench.drain import create_topics, wait_until
from bench.fresh import Addresses, FreshServers
from bench.servers import KafkaBroker, RedisServer

SECONDS_MAX = 30.0


@pytest.fixture(scope="session")
def shared_servers() -> Iterator[FreshServers]:
    """What a benchmark starts for each run, here started once: entering it empties Redis and makes all topics anew."""
    with KafkaBroker() as kafka, RedisServer() as redis, Redis.from_url(redis.url) as client:
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})

        @contextmanager
        def fresh(partitions: int) -> Iterator[Addresses]:
            client.flushall()
            delete_topics(admin)
            create_topics(kafka.bootstrap_servers, partitions)
            yield Addresses(kafka.bootstrap_servers, redis.url)

        yield fresh


def delete_topics(admin: AdminClient) -> None:
    """Delete all topics but Kafka's own; returns when they are gone."""

    def there() -> list[str]:
        return [name for name in admin.list_topics(timeout=SECONDS_MAX).topics if not name.startswith("__")]

    if names := there():
        for deleted in admin.delete_topics(names).values():
            deleted.result(SECONDS_MAX)
    wait_until(lambda: not there(), SECONDS_MAX, "old topics to go")
