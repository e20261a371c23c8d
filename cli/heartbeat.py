"""`onhand heartbeat`: says that a location lives."""

import os
import time
from typing import Annotated, Final

import msgspec
import typer
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from redis.exceptions import RedisError

from cli.configuration import ConfigOption, Configuration, load_configuration
from cli.connections import cluster_of, kafka_admin, kafka_config, kafka_reason, redis_client
from cli.failures import MISUSED, CliError, one_line
from cli.screen import plain, print_line
from schemas.movements import name_fault
from schemas.times import format_ms, parse_ms
from schemas.topics import HEARTBEATS
from schemas.watch import Heartbeat

EXAMPLES: Final = ("onhand heartbeat dc-east --source wms/dc-east",)
DELIVERY_SECONDS_MAX: Final = 10.0
STREAM_ENTRIES_MAX: Final = 100_000  # about: Redis has no compaction, and the newest ones are what counts


def heartbeat(
    location: Annotated[str, typer.Argument(metavar="LOCATION", help="The location, as the movements name it.")],
    source: Annotated[str, typer.Option(metavar="SOURCE", help="Who has heard from it.")],
    at: Annotated[str | None, typer.Option("--time", metavar="TIME", help="When, with an offset [now].")] = None,
    config: ConfigOption = None,
) -> None:
    """Say that a location was heard of, after a poll of its system went well.

    A location with stale_after in the rules that is not heard of counts less and less.
    """
    if fault := name_fault(location):
        raise CliError(f"the location {fault}", MISUSED)
    try:
        time_ms = time.time_ns() // 1_000_000 if at is None else parse_ms(at)
    except ValueError as error:
        raise CliError(f"--time {at} is no time with an offset, such as 2026-11-21T09:00:00Z", MISUSED) from error
    configuration = load_configuration(config, os.environ)
    payload = _payload(source, location, time_ms)
    if configuration.settings.input.kind == "kafka":
        _produce(configuration, location, payload)
    elif configuration.settings.input.kind == "redis_stream":
        _add(configuration, payload)
    else:
        raise CliError("a file takes no heartbeats: it has the control records that stand in it", MISUSED)
    print_line(f"{plain(location)} heard {format_ms(time_ms)}")


def _payload(source: str, location: str, time_ms: int) -> bytes:
    """The heartbeat as readers take it; CliError (exit 2) where they would not."""
    payload = HEARTBEATS.encode(Heartbeat(source=source, location=location, time=format_ms(time_ms)))
    try:
        HEARTBEATS.decode(payload)
    except msgspec.ValidationError as error:
        raise CliError(f"--source: {one_line(error)}", MISUSED) from error
    return payload


def _produce(configuration: Configuration, location: str, payload: bytes) -> None:
    """To the topic, and wait until it is there."""
    kafka = configuration.settings.kafka
    if HEARTBEATS.name not in cluster_of(kafka_admin(kafka), kafka).topics:
        raise CliError(f"Kafka has no topic {HEARTBEATS.name}: run `onhand topics create`")
    errors: list[str] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            errors.append(error.str())

    producer = Producer({**kafka_config(kafka), "acks": "all", "message.timeout.ms": int(DELIVERY_SECONDS_MAX * 1000)})
    try:
        producer.produce(HEARTBEATS.name, payload, location.encode(), on_delivery=delivered)
    except KafkaException as error:
        raise CliError(f"Kafka does not take the heartbeat: {kafka_reason(error)}") from error
    if producer.flush(2 * DELIVERY_SECONDS_MAX) or errors:
        raise CliError(f"Kafka did not take the heartbeat: {(errors or ['no answer'])[0]}")


def _add(configuration: Configuration, payload: bytes) -> None:
    with redis_client(configuration) as client:
        try:
            client.xadd(HEARTBEATS.name, {"payload": payload}, maxlen=STREAM_ENTRIES_MAX)
        except RedisError as error:
            raise CliError(f"Redis did not take the heartbeat: {one_line(error)}") from error
