"""Wiring of the availability flow: sources and sinks as the settings name them, signals, and how failures are told."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final, NamedTuple, TypeAlias

import structlog
from redis import Redis
from redis.exceptions import RedisError

from cli.configuration import Configuration, load_rules
from cli.connections import cluster_of, kafka_admin, without_password
from cli.draining import Drain
from cli.embedded import is_embedded, serving_redis
from cli.failures import CliError, one_line
from cli.native_errors import native_errors_apart
from cli.rules_at_start import settle_rules
from cli.watching import watching
from flows.availability import Sinks, availability_flow
from flows.running import run_flow
from operators.lane import LaneSettings
from operators.rules import RuleBook
from schemas.rules import Rules
from schemas.settings import Settings
from schemas.topics import AVAILABILITY, DEAD_LETTERS, DIVERGENCES, REPLENISHMENTS, RESERVATIONS, SHADOW, THRESHOLDS
from sinks.jsonl import JsonlSink
from sinks.kafka import KafkaOutput
from sinks.nowhere import NowhereSink
from sinks.redis_availability import RedisAvailabilitySink
from sinks.redis_keys import last_incarnation
from sinks.slots import SinkError
from sinks.ticks import KafkaTicks, RedisStreamTicks, Timekeeper
from sources.errors import SourceError
from sources.jsonl import STDIN, JsonlSource
from sources.kafka import KafkaReading, KafkaSource
from sources.redis_stream import RedisStreamReading, RedisStreamSource

HOUR_MS: Final = 3_600_000
REDIS_SECONDS_MAX: Final = 5.0

Movements: TypeAlias = KafkaSource | RedisStreamSource | JsonlSource
log = structlog.get_logger(__name__)


class ReachedRedis(NamedTuple):
    """Where Redis is, and how to end it if it is ours."""

    url: str
    stop: Callable[[], None]


def run_availability(configuration: Configuration, *, accept_truncated: bool = False) -> None:
    """Run the flow of these settings until its input ends or a signal drains it; CliError where it fails."""
    rules = load_rules(configuration.rules_path)
    shadow_path = configuration.settings.rules.shadow_path
    shadow = load_rules(configuration.at(shadow_path)) if shadow_path else None
    with (
        native_errors_apart(),
        failures_told(),
        _reached_redis(configuration) as redis,
        Drain(lambda signal: log.info("draining", signal=signal), redis.stop) as draining,
    ):
        _run(configuration, rules, shadow, redis.url, draining, accept_truncated=accept_truncated)


def now_ms() -> int:
    """The wall clock, ms since 1970."""
    return time.time_ns() // 1_000_000


@contextmanager
def failures_told() -> Iterator[None]:
    """Errors of sources, sinks and the engine as CliError: ours are found among the causes of what Bytewax raises."""
    try:
        yield
    except BaseException as error:
        for cause in causes(error):
            if isinstance(cause, SourceError | SinkError):
                raise CliError(one_line(cause)) from error
        if type(error).__name__ == "PanicException":  # of Bytewax's Rust, which cannot be imported
            raise CliError(f"the engine failed: {one_line(error)}; --debug shows where") from error
        raise


def causes(error: BaseException) -> Iterator[BaseException]:
    """`error`, what it was raised from, what that was raised from, and so on."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


@contextmanager
def _reached_redis(configuration: Configuration) -> Iterator[ReachedRedis]:
    if is_embedded(configuration):
        with serving_redis(configuration) as server:
            yield ReachedRedis(server.url, server.stop)
    else:
        yield ReachedRedis(configuration.settings.redis.url, lambda: None)


def _run(
    configuration: Configuration,
    rules: Rules,
    shadow: Rules | None,
    redis_url: str,
    draining: Drain,
    *,
    accept_truncated: bool,
) -> None:
    """Build the flow, say what it does, and run it to its end."""
    settings = configuration.settings
    if "kafka" in (settings.input.kind, settings.output.kind):
        cluster_of(kafka_admin(settings.kafka), settings.kafka)  # out of reach: told within seconds
    redis = RedisAvailabilitySink(
        redis_url, settings.redis.prefix, now_ms, explain_prefix=settings.redis.explain_prefix
    )
    redis.check()
    incarnation = _new_incarnation(redis_url, settings.redis.prefix)
    lanes = LaneSettings(
        settings.state.lanes,
        incarnation,
        dedupe_ms=settings.input.dedupe_hours * HOUR_MS,
        as_of_ms=settings.input.as_of_hours * HOUR_MS,
    )
    source = _source(configuration, redis_url, draining, accept_truncated=accept_truncated)
    _tell_start(configuration, redis_url, lanes)
    settled = settle_rules(configuration, rules, redis_url)
    flow = availability_flow(
        source,
        _sinks(configuration, redis),
        rules=RuleBook(settled.first),
        settings=lanes,
        now_ms=now_ms,
        shadow=None if shadow is None else RuleBook(shadow),
    )
    with (
        _ticking(settings, redis_url),
        watching(configuration, rules, settled.generation, redis_url, now_ms),
    ):
        run_flow(flow, snapshot_seconds=settings.state.snapshot_seconds)
    if isinstance(source, KafkaSource):
        source.commit_last()
    log.info("ended", drained=draining(), skus_written=redis.counters.written)


def _new_incarnation(redis_url: str, prefix: str) -> int:
    """Greater than any that Redis was told of: a state made anew overwrites what an earlier one wrote."""
    with Redis.from_url(redis_url, socket_timeout=REDIS_SECONDS_MAX) as client:
        try:
            return max(now_ms() // 1000, last_incarnation(client, prefix) + 1)
        except RedisError as error:
            raise CliError(
                f"Redis does not tell the last incarnation ({one_line(error)}); look into its log"
            ) from error


def _source(configuration: Configuration, redis_url: str, draining: Drain, *, accept_truncated: bool) -> Movements:
    """What the settings name as input."""
    reads, kafka = configuration.settings.input, configuration.settings.kafka
    if reads.kind == "kafka":
        reading = KafkaReading(
            bootstrap_servers=kafka.bootstrap_servers,
            topic=reads.topic,
            group=kafka.group,
            options=kafka.options,
            accept_truncated=accept_truncated,
        )
        return KafkaSource(reading, now_ms=now_ms, draining=draining)
    if reads.kind == "redis_stream":
        stream = RedisStreamReading(url=redis_url, stream=reads.topic, accept_truncated=accept_truncated)
        return RedisStreamSource(stream, now_ms=now_ms, draining=draining)
    return JsonlSource(_jsonl_path(configuration), now_ms=now_ms, draining=draining)


def _ticking(settings: Settings, redis_url: str) -> AbstractContextManager[object]:
    """Ticks into every partition of the input, each second; a file has those that it has."""
    reads, kafka = settings.input, settings.kafka
    if reads.kind == "kafka":
        return Timekeeper(KafkaTicks(kafka.bootstrap_servers, reads.topic, kafka.options), now_ms)
    if reads.kind == "redis_stream":
        return Timekeeper(RedisStreamTicks(redis_url, reads.topic), now_ms)
    return nullcontext()


def _jsonl_path(configuration: Configuration) -> str:
    path = configuration.settings.input.topic
    return path if path == STDIN else str(configuration.at(path))


def _sinks(configuration: Configuration, redis: RedisAvailabilitySink) -> Sinks:
    """Redis, and what the settings name as output."""
    output, kafka = configuration.settings.output, configuration.settings.kafka
    if output.kind == "kafka":
        producer = KafkaOutput(kafka.bootstrap_servers, kafka.options)
        return Sinks(
            redis,
            producer.sink(AVAILABILITY),
            producer.sink(THRESHOLDS),
            producer.sink(DIVERGENCES),
            producer.sink(RESERVATIONS),
            producer.sink(REPLENISHMENTS),
            producer.sink(SHADOW),
            producer.sink(DEAD_LETTERS),
        )
    if output.kind == "jsonl":
        folder = configuration.at(output.path)
        return Sinks(
            redis,
            JsonlSink(folder, AVAILABILITY),
            JsonlSink(folder, THRESHOLDS),
            JsonlSink(folder, DIVERGENCES),
            JsonlSink(folder, RESERVATIONS),
            JsonlSink(folder, REPLENISHMENTS),
            JsonlSink(folder, SHADOW),
            JsonlSink(folder, DEAD_LETTERS),
        )
    nowhere: list[NowhereSink[Any]] = [NowhereSink() for _ in Sinks._fields[1:]]
    return Sinks(redis, *nowhere)


def _tell_start(configuration: Configuration, redis_url: str, lanes: LaneSettings) -> None:
    """One line that says what runs."""
    settings = configuration.settings
    log.info(
        "availability runs",
        reads=_input_name(settings),
        writes=_output_name(settings),
        redis=without_password(redis_url),
        rules=str(configuration.rules_path),
        lanes=lanes.lanes,
        incarnation=lanes.incarnation,
    )


def _input_name(settings: Settings) -> str:
    place = f" at {settings.kafka.bootstrap_servers}" if settings.input.kind == "kafka" else ""
    return f"{settings.input.kind} {settings.input.topic}{place}"


def _output_name(settings: Settings) -> str:
    places = {"kafka": f"kafka at {settings.kafka.bootstrap_servers}", "jsonl": f"jsonl in {settings.output.path}"}
    return places.get(settings.output.kind, "Redis alone")
