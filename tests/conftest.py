"""What every test may ask for: a real Kafka broker, a real Redis, and topics of its own."""

import itertools
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from hypothesis import HealthCheck, settings
from redis import Redis

from bench.servers import KafkaBroker, RedisServer

TOPIC_SECONDS_MAX = 20.0
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]

# How hard Hypothesis tries: repeatable in every run, ten thousand examples with `make properties`.
settings.register_profile("normal", max_examples=200, deadline=None, derandomize=True, suppress_health_check=SLOW)
settings.register_profile("long", max_examples=10_000, deadline=None, print_blob=True, suppress_health_check=SLOW)
settings.load_profile("normal")


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaBroker]:
    """One Kafka broker for all tests; a test that hurts it starts one of its own."""
    with KafkaBroker() as broker:
        yield broker


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis for all tests; a test that hurts it starts one of its own."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    """A client of the shared Redis, emptied for this test."""
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def _topic_numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def topic(kafka: KafkaBroker, _topic_numbers: Iterator[int]) -> Callable[..., str]:
    """Make a topic that nobody else uses: `topic(partitions, {"cleanup.policy": "compact"})` returns its name."""

    def make(partitions: int = 1, config: dict[str, str] | None = None) -> str:
        name = f"test-{next(_topic_numbers)}"
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        made = admin.create_topics([NewTopic(name, partitions, replication_factor=1, config=config or {})])
        made[name].result(TOPIC_SECONDS_MAX)
        return name

    return make


def _skipped_count(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", ())) if reporter is not None else 0


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that skipped a test: what was not run proves nothing."""
    if _skipped_count(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why a run without a failed test has failed."""
    if count := _skipped_count(terminalreporter.config):
        terminalreporter.write_line(f"{count} skipped: a skipped test counts as failed here", red=True)
