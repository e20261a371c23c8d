"""What is found in the append-only file of a real Redis: every step back, and none where there is none."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from bench.servers import RedisServer
from tests.faults.writes import StepBack, Writes, begin_anew


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """It is killed here."""
    with RedisServer() as found:
        yield found


def write(client: Redis, sku: str, incarnation: int, version: int) -> None:
    """As the sink does it: by a script."""
    script = "return redis.call('HSET', unpack(ARGV))"
    client.eval(script, 0, f"avail:{sku}", "@incarnation", incarnation, "@version", version, "web", 1)


def found(server: RedisServer) -> list[StepBack]:
    """All of the server's life."""
    writes = Writes("avail:")
    writes.take(Path(server.directory, "appendonlydir"))
    return writes.steps_back


def test_what_only_grows_is_in_order(server: RedisServer) -> None:
    """Versions and incarnations that grow, the same again, other keys, and a server that was killed in between."""
    with Redis.from_url(server.url) as client:
        for incarnation, version in ((1, 1), (1, 5), (1, 5), (2, 3)):
            write(client, "A", incarnation, version)
        client.hset("avail:@health", mapping={"@version": 9, "@incarnation": 9})
        client.hset("avail:@health", mapping={"@version": 1, "@incarnation": 1})
        server.kill()
    server.start()
    with Redis.from_url(server.url) as client:
        write(client, "A", 2, 4)
        client.flushall()
        write(client, "A", 2, 4)
    assert found(server) == []


def test_every_step_back_is_found(server: RedisServer) -> None:
    """However short it stood, and also where the key was gone in between."""
    with Redis.from_url(server.url) as client:
        for version in (5, 4, 6):
            write(client, "A", 1, version)
        client.flushall()
        write(client, "A", 1, 2)
    assert found(server) == [
        StepBack("avail:A", (1, 5), (1, 4), was_gone=False),
        StepBack("avail:A", (1, 6), (1, 2), was_gone=True),
    ]


def test_what_was_before_can_be_left_behind(server: RedisServer) -> None:
    """Each seed begins with an empty file."""
    with Redis.from_url(server.url) as client:
        write(client, "A", 1, 5)
        client.flushall()
        begin_anew(client)
        write(client, "A", 1, 4)
    assert found(server) == []
