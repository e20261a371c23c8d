"""The state of a flow as commands meet it: where it is kept, made where there is none, and locked while it is used."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import stamina
from confluent_kafka import Consumer, KafkaException, TopicPartition
from redis.exceptions import RedisError

from cli.configuration import Configuration
from cli.connections import kafka_failure
from cli.embedded import is_embedded, reading_redis
from cli.failures import CliError, one_line
from cli.worker_spec import now_ms
from flows.store import FORMAT, PARTS, Meta, StoreError, create, is_new, locked, opened
from schemas.rule_changes import digest_of, document_of
from schemas.rules import Rules
from schemas.settings import KafkaSettings, Settings
from schemas.topics import AVAILABILITY
from sinks.redis_clients import client_of
from sinks.redis_keys import last_incarnation
from sources.jsonl import STDIN
from sources.kafka_errors import LEADER_MOVES

RULES_FILE: Final = "rules.digest"
REDIS_SECONDS_MAX: Final = 5.0
KAFKA_SECONDS_MAX: Final = 10.0
LOOK_BACK_MAX: Final = 5  # records of a partition, where the last ones are no availability


class Stored(NamedTuple):
    """The state of a run: where it is kept (None: nowhere), what locks it, its incarnation, and its lanes' hash."""

    path: Path | None
    lock: int | None
    incarnation: int
    by_crc32: bool


@contextmanager
def stored(configuration: Configuration, rules: Rules, redis_url: str) -> Iterator[Stored]:
    """The store of these settings, made where there is none; CliError where a flow cannot go on from it.

    Standard input cannot be read again, so there is nothing to keep of it. What a file holds is decided by `rules` from
    its first line on, so a state goes on by the same ones only.
    """
    settings = configuration.settings
    if reads_stdin(settings):
        yield Stored(None, None, new_incarnation(settings, redis_url), by_crc32=False)
        return
    path = configuration.at(settings.state.path)
    try:
        if is_new(path):
            create(path, _meta(settings, new_incarnation(settings, redis_url)))
        with locked(path) as lock:
            meta = opened(path, settings.state.lanes)
            if settings.input.kind == "jsonl":
                _check_rules(path, rules)
            yield Stored(path, lock, meta.incarnation, meta.by_crc32)
    except StoreError as error:
        raise CliError(one_line(error)) from error


def _check_rules(path: Path, rules: Rules) -> None:
    """CliError where the state was begun with other rules; a new one notes these."""
    digest, noted = digest_of(document_of(rules)), path / RULES_FILE
    if not noted.exists():
        noted.write_text(digest, encoding="utf-8")
    elif noted.read_text(encoding="utf-8") != digest:
        raise CliError(
            f"the state in {path} was begun with other rules, and a file takes none from outside: put rules.toml back,"
            " write them into the file as a record, or begin anew with another state.path"
        )


def make_store(configuration: Configuration, machine: int, machines: int, incarnation: int | None) -> tuple[Path, Meta]:
    """Makes the store of these settings; with None a new incarnation is drawn. CliError where that cannot be."""
    path = configuration.at(configuration.settings.state.path)
    try:
        with _found_redis(configuration) as redis_url:
            drawn = incarnation or new_incarnation(configuration.settings, redis_url)
        meta = _meta(configuration.settings, drawn, machine, machines)
        create(path, meta)
    except StoreError as error:
        raise CliError(one_line(error)) from error
    return path, meta


@contextmanager
def _found_redis(configuration: Configuration) -> Iterator[str]:
    """Where Redis is; an embedded one that nobody has started holds nothing yet."""
    if is_embedded(configuration):
        with reading_redis(configuration) as url:
            yield url
    else:
        yield configuration.settings.redis.url


def _meta(settings: Settings, incarnation: int, machine: int = 0, machines: int = 1) -> Meta:
    """What a store that is made now is for."""
    return Meta(
        format=FORMAT,
        lanes=settings.state.lanes,
        incarnation=incarnation,
        parts=PARTS,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machines=machines,
        machine=machine,
    )


def reads_stdin(settings: Settings) -> bool:
    """Whether the input is a pipe, which nobody can read twice."""
    return settings.input.kind == "jsonl" and settings.input.topic == STDIN


def new_incarnation(settings: Settings, redis_url: str) -> int:
    """Greater than any that Redis or the availability topic knows: a state made anew overwrites what was before."""
    known = [_told_redis(redis_url, settings.redis.prefix)]
    if settings.output.kind == "kafka":
        known.append(_told_topic(settings.kafka))
    return max(now_ms() // 1000, max(known) + 1)


def _told_redis(url: str, prefix: str) -> int:
    try:
        with client_of(url, socket_timeout=REDIS_SECONDS_MAX) as client:
            return last_incarnation(client, prefix)
    except RedisError as error:
        raise CliError(f"Redis does not tell the last incarnation ({one_line(error)}); look into its log") from error


def _may_pass(error: Exception) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in LEADER_MOVES


def _told_topic(kafka: KafkaSettings) -> int:
    """The greatest incarnation among the last records of each partition, 0 where there is none."""
    consumer = Consumer(
        {
            "log_level": 2,
            **kafka.options,
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": kafka.group,
            "enable.auto.commit": False,
        }
    )
    try:
        described = consumer.list_topics(AVAILABILITY.name, timeout=KAFKA_SECONDS_MAX).topics[AVAILABILITY.name]
        return max((_last_told(consumer, partition) for partition in described.partitions), default=0)
    except KafkaException as error:
        raise kafka_failure(kafka, error) from error
    finally:
        consumer.close()


@stamina.retry(on=_may_pass, attempts=None, timeout=KAFKA_SECONDS_MAX, wait_max=1.0)
def _bounds(consumer: Consumer, partition: int) -> tuple[int, int]:
    """Where a partition of the availability topic begins and ends; a topic just made has no leaders yet."""
    place = TopicPartition(AVAILABILITY.name, partition)
    return consumer.get_watermark_offsets(place, timeout=KAFKA_SECONDS_MAX)


def _last_told(consumer: Consumer, partition: int) -> int:
    """The incarnation of a partition's last record; a compacted log always keeps its last one."""
    first, end = _bounds(consumer, partition)
    for offset in range(end - 1, max(first, end - LOOK_BACK_MAX) - 1, -1):
        consumer.assign([TopicPartition(AVAILABILITY.name, partition, offset)])
        message = consumer.poll(KAFKA_SECONDS_MAX)
        if message is not None and message.error() is None and (value := message.value()) is not None:
            return AVAILABILITY.decode(value).incarnation
    return 0
