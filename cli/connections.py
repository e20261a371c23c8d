"""Kafka and Redis as commands reach them: by the settings, with bounded waits, failing in one line."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from cli.configuration import Configuration
from cli.embedded import is_embedded, reading_redis
from cli.failures import MISUSED, CliError, one_line
from schemas.settings import KafkaSettings
from sinks.redis_clients import client_of

KAFKA_SECONDS_MAX: Final = 5.0
KAFKA_ATTEMPT_SECONDS: Final = 1.0
REDIS_SECONDS_MAX: Final = 3.0


def kafka_config(kafka: KafkaSettings) -> dict[str, str | int | float | bool]:
    """What every Kafka client of a command begins with; quiet, because failures are told by the command."""
    return {
        "bootstrap.servers": kafka.bootstrap_servers,
        "log_level": 0,
        "socket.connection.setup.timeout.ms": int(KAFKA_SECONDS_MAX * 1000),
        **kafka.options,
    }


def kafka_admin(kafka: KafkaSettings) -> AdminClient:
    """An admin client; CliError (exit 2) where librdkafka does not take the options."""
    try:
        return AdminClient(kafka_config(kafka))
    except (KafkaException, ValueError, TypeError) as error:
        raise CliError(f"kafka.options: {kafka_reason(error)}", MISUSED) from error


def cluster_of(admin: AdminClient, kafka: KafkaSettings) -> ClusterMetadata:
    """Brokers and topics; CliError where no broker answers, within KAFKA_SECONDS_MAX or as soon as all are down."""
    deadline = time.monotonic() + KAFKA_SECONDS_MAX
    while True:
        try:
            return admin.list_topics(timeout=KAFKA_ATTEMPT_SECONDS)
        except KafkaException as error:
            if time.monotonic() > deadline or not _might_answer(kafka.bootstrap_servers):
                raise kafka_failure(kafka, error) from error


def _might_answer(bootstrap_servers: str) -> bool:
    """Whether waiting longer may help: not where every address refuses a connection."""
    return any(map(_might_listen, bootstrap_servers.split(",")))


def _might_listen(address: str) -> bool:
    host, _, port = address.strip().rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KAFKA_ATTEMPT_SECONDS).close()
    except ConnectionRefusedError:
        return False
    except (OSError, ValueError):
        return True
    return True


def kafka_failure(kafka: KafkaSettings, error: KafkaException) -> CliError:
    """What to tell when Kafka does not do what it was asked."""
    return CliError(
        f"Kafka at {kafka.bootstrap_servers} does not answer ({kafka_reason(error)}): "
        "is it running, and is kafka.bootstrap_servers right?"
    )


def kafka_reason(error: BaseException) -> str:
    """Librdkafka's words for what went wrong."""
    first = error.args[0] if error.args else None
    return first.str() if isinstance(first, KafkaError) else one_line(error)


@contextmanager
def redis_client(configuration: Configuration) -> Iterator[Redis]:
    """A client whose every wait is bounded; CliError where Redis does not answer or refuses."""
    found = (
        reading_redis(configuration) if is_embedded(configuration) else nullcontext(configuration.settings.redis.url)
    )
    with found as url:
        try:
            with _client_at(url) as client:
                yield client
        except RedisError as error:
            raise redis_failure(url, error) from error


def _client_at(url: str) -> Redis:
    """A client that does not wait twice; CliError (exit 2) where `url` is no address."""
    try:
        return client_of(
            url, socket_timeout=REDIS_SECONDS_MAX, socket_connect_timeout=REDIS_SECONDS_MAX, retry=Retry(NoBackoff(), 0)
        )
    except ValueError as error:
        raise CliError(f"redis.url {without_password(url)}: {one_line(error)}", MISUSED) from error


def redis_failure(url: str, error: RedisError) -> CliError:
    """What to tell when Redis does not answer."""
    return CliError(
        f"Redis at {without_password(url)} does not answer ({one_line(error)}): is it running, and is redis.url right?"
    )


def without_password(url: str) -> str:
    """`url` as it may be shown and logged."""
    scheme, separator, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")
    return f"{scheme}{separator}{'…' if at and credentials else ''}{at}{place}"
