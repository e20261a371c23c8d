"""Fresh: servers of a run's own, as drains have them, and how a run is given others."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

from bench.drain import REDIS_OPTIONS, create_topics
from bench.servers import KafkaBroker, RedisServer


class Addresses(NamedTuple):
    """Where a run's servers are."""

    bootstrap_servers: str
    redis_url: str


FreshServers = Callable[[int], AbstractContextManager[Addresses]]  # whose topics have so many partitions


@contextmanager
def fresh_servers(partitions: int) -> Iterator[Addresses]:
    """A Kafka with all topics and an empty Redis, ended on the way out."""
    with KafkaBroker() as kafka, RedisServer(REDIS_OPTIONS) as redis:
        create_topics(kafka.bootstrap_servers, partitions)
        yield Addresses(kafka.bootstrap_servers, redis.url)
