"""`onhand tail`: follows a Kafka topic, one readable line per record."""

import os
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final
from uuid import uuid4

import msgspec
import typer
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from cli.configuration import ConfigOption, load_configuration
from cli.connections import cluster_of, kafka_admin, kafka_config
from cli.failures import CliError
from cli.kafka_topics import wanted_topics
from cli.screen import plain, print_json, print_line
from schemas.movements import Fact, Refusal, RulesChanged, Tick
from schemas.rule_changes import changed_paths
from schemas.settings import KafkaSettings, Settings
from schemas.times import format_ms
from schemas.topics import (
    AVAILABILITY,
    DEAD_LETTERS,
    DIVERGENCES,
    GENERATIONS,
    HEARTBEATS,
    MOVEMENTS,
    REPLENISHMENTS,
    RESERVATIONS,
    SHADOW,
    THRESHOLDS,
)

EXAMPLES: Final = ("onhand tail thresholds", "onhand tail inventory.movements --from-beginning --limit 10 --json")
PREFIX: Final = "inventory."
POLL_SECONDS: Final = 0.2
RECORDS_AT_ONCE: Final = 500
PATHS_SHOWN_MAX: Final = 5


def tail(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Its name; `thresholds` is inventory.thresholds.")],
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Begin with the oldest record.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="End after N records [Ctrl-C].")] = None,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each record as one JSON object.")] = False,
) -> None:
    """Follow a Kafka topic, one readable line per record, until Ctrl-C."""
    settings = load_configuration(config, os.environ).settings
    admin = kafka_admin(settings.kafka)
    name, partitions = _found(admin, settings, topic)
    show = _show_json if as_json else _readable(settings, name)
    start = OFFSET_BEGINNING if from_beginning else OFFSET_END
    consumer = Consumer(_consumer_config(settings.kafka))
    try:
        consumer.assign([TopicPartition(name, partition, start) for partition in partitions])
        for number, message in enumerate(_messages(consumer), 1):
            show(message)
            if number == limit:
                return
    finally:
        consumer.close()


def _consumer_config(kafka: KafkaSettings) -> dict[str, str | int | float | bool]:
    """A reader that leaves no trace: its group is never committed to."""
    return {**kafka_config(kafka), "group.id": f"onhand-tail-{uuid4()}", "enable.auto.commit": False}


def _found(admin: AdminClient, settings: Settings, topic: str) -> tuple[str, list[int]]:
    """The topic that is meant, and its partitions; CliError where there is none."""
    topics = cluster_of(admin, settings.kafka).topics
    for name in (topic, PREFIX + topic):
        if name in topics:
            return name, sorted(topics[name].partitions)
    known = ", ".join(sorted(name for name in topics if not name.startswith("__"))) or "none"
    raise CliError(f"there is no topic {topic} (there are: {known}); `onhand topics create` makes those of onhand")


def _messages(consumer: Consumer) -> Iterator[Message]:
    """All records as they come, for ever; CliError where Kafka says that there will be none."""
    while True:
        for message in consumer.consume(RECORDS_AT_ONCE, POLL_SECONDS):
            error = message.error()
            if error is None:
                yield message
            elif error.fatal() or not error.retriable():
                raise CliError(f"{message.topic() or 'the topic'} cannot be read any further: {error.str()}")


def _readable(settings: Settings, name: str) -> Callable[[Message], None]:
    """Print a record of topic `name` as a line."""
    say = saying_of(settings, name)

    def show(message: Message) -> None:
        print_line(f"{_place(message)}  {plain(say(message.value() or b''))}")

    return show


def saying_of(settings: Settings, name: str) -> Callable[[bytes], str]:
    """What to say of a record of topic `name`; the record itself where it is another than it should be."""
    movements = wanted_topics(settings)[0].name
    say = {
        movements: _say_movement,
        MOVEMENTS.name: _say_movement,
        AVAILABILITY.name: _say_availability,
        THRESHOLDS.name: _say_threshold,
        DIVERGENCES.name: _say_divergence,
        RESERVATIONS.name: _say_reservation,
        REPLENISHMENTS.name: _say_replenishment,
        SHADOW.name: _say_shadow,
        HEARTBEATS.name: _say_heartbeat,
        GENERATIONS.name: _say_generation,
        DEAD_LETTERS.name: _say_dead_letter,
    }.get(name, _say_text)

    def said(payload: bytes) -> str:
        try:
            return say(payload)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
            return _say_text(payload)

    return said


def _place(message: Message) -> str:
    """When and where a record stands in the log: `12:00:01.123 3/4711`."""
    _, timestamp_ms = message.timestamp()
    return f"{format_ms(max(0, timestamp_ms))[11:23]} {message.partition()}/{message.offset()}"


def _say_text(payload: bytes) -> str:
    return payload.decode(errors="replace")


def _say_movement(payload: bytes) -> str:
    decoded = MOVEMENTS.decode(payload)
    if isinstance(decoded, Refusal):
        return f"unusable, {decoded.reason}: {_say_text(payload)}"
    record = decoded.record
    kind = str(record.__struct_config__.tag)
    if isinstance(record, Tick):
        return f"tick {record.time}"
    if isinstance(record, RulesChanged):
        return _say_rules(record)
    if not isinstance(record, Fact):
        return f"{record.location} is trusted by {record.trust_percent} %"
    quantity, location = getattr(record, "quantity", ""), getattr(record, "location", None)
    at = f" at {location}" if location else ""
    return f"{record.sku}  {kind} {quantity}{at}  ({record.source} {record.id})"


def _say_rules(record: RulesChanged) -> str:
    """Which generation, and what it touches; it may be large, and --json shows all of it."""
    about = f"rules generation {record.generation}, " + (f"since {record.since}" if record.since else "complete")
    if record.parts > 1:
        return f"{about}, part {record.part} of {record.parts}"
    paths = sorted(changed_paths(msgspec.json.decode(record.changes, type=dict[str, Any])))
    more = f" and {len(paths) - PATHS_SHOWN_MAX} more" if len(paths) > PATHS_SHOWN_MAX else ""
    return f"{about}: {', '.join(paths[:PATHS_SHOWN_MAX]) or 'nothing'}{more}"


def _say_availability(payload: bytes) -> str:
    record = AVAILABILITY.decode(payload)
    channels = ", ".join(f"{name} {channel.promised} {channel.level}" for name, channel in record.channels.items())
    return f"{record.sku}  {channels}  (version {record.version})"


def _say_threshold(payload: bytes) -> str:
    record = THRESHOLDS.decode(payload)
    cause = " ".join(part for part in (record.cause.source or record.cause.type, record.cause.id) if part)
    where = record.channel or f"at {record.location}"
    units = "sellable" if record.channel else "available"
    return f"{record.sku}  {where}: {record.from_} -> {record.to} at {record.sellable} {units}  ({cause})"


def _say_divergence(payload: bytes) -> str:
    record = DIVERGENCES.decode(payload)
    numbers = f"{record.of} {record.stated} said, {record.derived} derived"
    why = ", ".join([record.reason, *record.evidence])
    about = f"{record.sku} at {record.location}" if record.sku else record.location
    return f"{about}  {record.event}: {record.system}: {numbers}  ({why})"


def _say_reservation(payload: bytes) -> str:
    record = RESERVATIONS.decode(payload)
    parts = ", ".join(f"{units} at {location}" for location, units in record.parts) or "nothing held"
    owed = f", {record.backordered} backordered" if record.backordered else ""
    return f"{record.sku}  {record.channel}: {record.outcome}, {parts}{owed}  ({record.source} {record.request})"


def _say_replenishment(payload: bytes) -> str:
    record = REPLENISHMENTS.decode(payload)
    return f"{record.sku} at {record.location}  {record.event}: {record.quantity}  ({record.reason})"


def _say_shadow(payload: bytes) -> str:
    record = SHADOW.decode(payload)
    offers = ", ".join(f"{name} {offer.promised}, shadow {offer.shadow}" for name, offer in record.channels.items())
    return f"{record.sku}  {offers or 'no difference any more'}  (version {record.version})"


def _say_heartbeat(payload: bytes) -> str:
    record = HEARTBEATS.decode(payload)
    return f"{record.location}  heard {record.time}  ({record.source})"


def _say_generation(payload: bytes) -> str:
    record = GENERATIONS.decode(payload)
    return f"generation {record.generation}  pushed {record.time}  (digest {record.digest})"


def _say_dead_letter(payload: bytes) -> str:
    record = DEAD_LETTERS.decode(payload)
    return f"{record.sku or 'unknown SKU'}  {record.reason}: {record.detail}  ({record.origin})"


def _show_json(message: Message) -> None:
    key, value = message.key(), message.value()
    print_json(
        {
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "timestamp_ms": message.timestamp()[1],
            "key": None if key is None else key.decode(errors="replace"),
            "value": _parsed(value),
        }
    )


def _parsed(value: bytes | None) -> object:
    """JSON as what it says, anything else as text."""
    if value is None:
        return None
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return value.decode(errors="replace")
