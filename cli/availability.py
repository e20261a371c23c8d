"""Wiring of the availability flow: what a start looks at, the store, signals, and the workers that do the work."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, NamedTuple

import structlog

from cli.configuration import Configuration, load_rules
from cli.connections import cluster_of, kafka_admin, without_password
from cli.draining import Drain
from cli.embedded import is_embedded, serving_redis
from cli.failures import CliError, one_line
from cli.rules_at_start import settle_rules
from cli.state import Stored, reads_stdin, stored
from cli.supervising import Supervisor, free_addresses
from cli.watching import watching
from cli.worker_group import Group
from cli.worker_spec import WorkerSpec, now_ms
from flows.board import Board
from flows.store import has_run
from schemas.rule_changes import document_of
from schemas.rules import Rules
from schemas.settings import Settings
from sinks.redis_pipeline import PipelineBounds, RedisPipeline
from sinks.slots import SinkError
from sinks.ticks import KafkaTicks, RedisStreamTicks, Timekeeper

REDIS_SECONDS_MAX: Final = 5.0

log = structlog.get_logger(__name__)


class ReachedRedis(NamedTuple):
    """Where Redis is, and how to end it if it is ours."""

    url: str
    stop: Callable[[], None]


class Cluster(NamedTuple):
    """The processes of a flow: `group` here, and with `addresses` those of all machines, ours from `first` on."""

    group: Group
    addresses: Sequence[str]
    first: int

    @property
    def workers(self) -> int:
        """How many processes this machine has."""
        return self.group.workers


def run_availability(configuration: Configuration, cluster: Cluster, *, accept_truncated: bool = False) -> None:
    """Run the flow of these settings until its input ends or a signal drains it; CliError where it fails."""
    rules = load_rules(configuration.rules_path)
    shadow_path = configuration.settings.rules.shadow_path
    if shadow_path:
        load_rules(configuration.at(shadow_path))
    running: list[Supervisor] = []

    def at_once() -> None:
        for supervisor in running:
            supervisor.kill()
        redis.stop()

    with (
        _reached_redis(configuration) as redis,
        Drain(lambda signal: log.info("draining", signal=signal), at_once) as draining,
    ):
        reach(configuration, redis.url)
        with stored(configuration, rules, redis.url) as store:
            _tell_start(configuration, redis.url, cluster, store)
            settled = settle_rules(configuration, rules, redis.url)
            board = Board.make(cluster.workers)
            whole = _Whole(configuration, cluster, store, redis.url)
            supervisor = Supervisor(
                cluster.group,
                lambda: _specs(whole, settled.first, accept_truncated=accept_truncated),
                board,
                draining,
                drain_seconds_max=configuration.settings.state.drain_seconds,
                kept_open=[descriptor for descriptor in (store.lock,) if descriptor is not None],
                restarts=not reads_stdin(configuration.settings),
            )
            running.append(supervisor)
            with (
                _ticking(configuration.settings, redis.url, draining),
                watching(configuration, rules, settled.generation, redis.url, now_ms),
            ):
                supervisor.run()
    log.info("ended", drained=draining(), restarts=supervisor.restarts)


def reach(configuration: Configuration, redis_url: str) -> None:
    """Kafka, where it is used, and Redis answer; CliError within seconds where one does not."""
    settings = configuration.settings
    if "kafka" in (settings.input.kind, settings.output.kind):
        cluster_of(kafka_admin(settings.kafka), settings.kafka)
    try:
        pipeline = RedisPipeline(redis_url, {}, PipelineBounds())
        pipeline.connect()
        pipeline.close()
    except SinkError as error:
        raise CliError(one_line(error)) from error


@contextmanager
def _reached_redis(configuration: Configuration) -> Iterator[ReachedRedis]:
    if is_embedded(configuration):
        with serving_redis(configuration) as server:
            yield ReachedRedis(server.url, server.stop)
    else:
        yield ReachedRedis(configuration.settings.redis.url, lambda: None)


class _Whole(NamedTuple):
    """What all workers share."""

    configuration: Configuration
    cluster: Cluster
    store: Stored
    redis_url: str


def _specs(whole: _Whole, rules: Rules, *, accept_truncated: bool) -> list[WorkerSpec]:
    """One for each process here; the ports of a cluster on this machine alone are drawn anew for each start."""
    configuration, cluster, store, redis_url = whole
    addresses = list(cluster.addresses) or free_addresses(cluster.workers)
    return [
        WorkerSpec(
            config=None if configuration.file is None else str(configuration.file),
            process=process,
            first=cluster.first,
            processes=cluster.workers,
            addresses=addresses,
            incarnation=store.incarnation,
            by_crc32=store.by_crc32,
            rules=document_of(rules),
            redis_url=redis_url,
            store=None if store.path is None else str(store.path.resolve()),
            is_behind=store.path is not None and has_run(store.path),
            accept_truncated=accept_truncated,
        )
        for process in range(cluster.workers)
    ]


def _ticking(settings: Settings, redis_url: str, draining: Drain) -> AbstractContextManager[object]:
    """Ticks into every partition of the input, each second; a file has those that it has."""
    reads, kafka = settings.input, settings.kafka
    if reads.kind == "kafka":
        return Timekeeper(KafkaTicks(kafka.bootstrap_servers, reads.topic, kafka.options), now_ms, draining)
    if reads.kind == "redis_stream":
        return Timekeeper(RedisStreamTicks(redis_url, reads.topic), now_ms, draining)
    return nullcontext()


def _tell_start(configuration: Configuration, redis_url: str, cluster: Cluster, store: Stored) -> None:
    """One line that says what runs."""
    settings = configuration.settings
    log.info(
        "availability runs",
        reads=_input_name(settings),
        writes=_output_name(settings),
        redis=without_password(redis_url),
        rules=str(configuration.rules_path),
        state="none" if store.path is None else str(store.path),
        workers=cluster.workers,
        lanes=settings.state.lanes,
        incarnation=store.incarnation,
    )


def _input_name(settings: Settings) -> str:
    place = f" at {settings.kafka.bootstrap_servers}" if settings.input.kind == "kafka" else ""
    return f"{settings.input.kind} {settings.input.topic}{place}"


def _output_name(settings: Settings) -> str:
    places = {"kafka": f"kafka at {settings.kafka.bootstrap_servers}", "jsonl": f"jsonl in {settings.output.path}"}
    return places.get(settings.output.kind, "Redis alone")
