"""Servers for the benchmarks' own short runs: a broker and a Redis for all of them, emptied for each."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.drain import Addresses, FreshServers, create_topics, delete_topics
from bench.servers import KafkaBroker, RedisServer
from schemas.topics import TOPICS


@pytest.fixture(scope="session")
def shared_servers() -> Iterator[FreshServers]:
    """What a benchmark starts for each run, here started once: entering it empties Redis and makes all topics anew."""
    with KafkaBroker() as kafka, RedisServer() as redis:
        addresses = Addresses(kafka.bootstrap_servers, redis.url)

        @contextmanager
        def fresh(partitions: int) -> Iterator[Addresses]:
            delete_topics(addresses, TOPICS)
            create_topics(kafka.bootstrap_servers, partitions)
            yield addresses

        yield fresh
