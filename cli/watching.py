"""The watcher: turns silence into control records, beside a running flow."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Final, Self

import msgspec
import structlog
from redis import Redis
from redis.exceptions import RedisError

from cli.configuration import Configuration
from cli.failures import one_line
from operators.silence import trusts_of
from schemas.movements import LocationTrusted, encode
from schemas.rule_changes import rules_of_document
from schemas.rules import Rules
from schemas.settings import Settings
from schemas.times import duration_ms, format_ms
from sinks.redis_clients import client_of
from sinks.redis_keys import read_partitions_held, read_rules_in_force
from sinks.rule_log import KafkaRuleLog, RedisRuleLog, RuleLog
from sinks.slots import SinkError
from sources.heartbeats import HeartbeatError, Heartbeats, KafkaHeartbeats, RedisHeartbeats

INTERVAL_SECONDS: Final = 1.0
RULES_EVERY_LOOKS: Final = 2
STOP_SECONDS_MAX: Final = 30.0
ANSWER_SECONDS_MAX: Final = 5.0

StaleAfter = dict[str, int | None]
log = structlog.get_logger(__name__)


class Watcher:
    """Says in every partition how much each location is believed, whenever that changes.

    At its first look it says so of every location that was ever watched or heard of, so that what an earlier watcher
    left behind is put right. `rules` gives the rules that hold now, `now_ms` is the wall clock in ms since 1970.
    """

    def __init__(
        self, heartbeats: Heartbeats, target: RuleLog, rules: Callable[[], Rules], now_ms: Callable[[], int]
    ) -> None:
        self._heartbeats = heartbeats
        self._target = target
        self._rules = rules
        self._now_ms = now_ms
        self._begun_ms = now_ms()
        self._told: dict[str, int] = {}
        self._stale_after: StaleAfter = {}
        self._once_watched: StaleAfter = {}
        self._looks = 0

    def look(self) -> None:
        """One look; HeartbeatError or SinkError where it cannot listen or tell, and the next look tries again."""
        heard_ms = self._heartbeats.heard_ms()
        if self._looks == 0:
            self._once_watched = dict.fromkeys(_once_watched(self._target))
        if self._looks % RULES_EVERY_LOOKS == 0:
            self._stale_after = stale_after_of(self._rules())
        now_ms = self._now_ms()
        trusts = trusts_of(self._once_watched | self._stale_after, heard_ms, self._begun_ms, now_ms)
        trusts |= {name: 100 for name in self._told if name not in trusts}  # its table is gone
        changed = {name: percent for name, percent in trusts.items() if self._told.get(name) != percent}
        if changed:
            self._target.tell([encode(record) for record in _records(changed, heard_ms, now_ms)])
            self._told |= changed
            silent = {name: percent for name, percent in changed.items() if self._looks or percent < 100}  # noqa: PLR2004  # per cent
            if silent:
                log.info("trust in locations changed", percent=silent)
        self._looks += 1


class Watching:
    """Runs a watcher once a second while its `with` block runs, in a thread of its own."""

    def __init__(self, make: Callable[[], Watcher], close: Callable[[], None]) -> None:
        self._make = make
        self._close = close
        self._watcher: Watcher | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._failing = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(STOP_SECONDS_MAX)
        if not self._thread.is_alive():  # else it ends with the process
            self._close()

    def _run(self) -> None:
        while not self._stopping.wait(INTERVAL_SECONDS):
            try:
                self._watcher = self._watcher or self._make()
                self._watcher.look()
            except (HeartbeatError, SinkError) as error:
                self._tell(one_line(error))
            else:
                self._tell(None)

    def _tell(self, trouble: str | None) -> None:
        """Says so when watching begins to fail and when it works again."""
        if trouble is not None and not self._failing:
            log.warning("silent locations are not noticed", error=trouble)
        elif trouble is None and self._failing:
            log.info("silent locations are noticed again")
        self._failing = trouble is not None


def stale_after_of(rules: Rules) -> StaleAfter:
    """By location that is watched, after how many ms of silence it counts less."""
    return {
        name: duration_ms(table.stale_after) for name, table in rules.locations.items() if table.stale_after is not None
    }


def _once_watched(target: RuleLog) -> Iterator[str]:
    """The locations that any generation of rules watched."""
    for generation in target.generations():
        for name, table in generation.document.get("locations", {}).items():
            if "stale_after" in table:
                yield name


class RulesFollowed:
    """The rules of the latest generation: at first those of the start, then any later one that Redis is told of.

    An earlier one in Redis is a flow that has not caught up yet: what it goes by is not what is to be watched now.
    """

    def __init__(self, client: Redis, prefix: str, rules: Rules, generation: int) -> None:
        self._client = client
        self._prefix = prefix
        self._rules = rules
        self._generation = generation

    def __call__(self) -> Rules:
        """The rules as of now; HeartbeatError where Redis does not tell."""
        try:
            held = read_partitions_held(self._client, self._prefix).values()
            if any(rules.generation > self._generation for rules in held):
                self._follow()
        except (RedisError, ValueError, LookupError, msgspec.DecodeError) as error:
            raise HeartbeatError(f"Redis does not tell which rules hold: {one_line(error)}") from error
        return self._rules

    def _follow(self) -> None:
        held = read_rules_in_force(self._client, self._prefix)
        if held is not None and held.generation > self._generation:
            self._rules, self._generation = rules_of_document(held.document)[0], held.generation


def watching(
    configuration: Configuration, rules: Rules, generation: int, redis_url: str, now_ms: Callable[[], int]
) -> AbstractContextManager[object]:
    """A watcher for the input of these settings, `rules` being the latest generation; a file has its own records."""
    settings = configuration.settings
    if settings.input.kind == "jsonl":
        return nullcontext()
    heartbeats = _heartbeats(settings, redis_url)
    client = client_of(redis_url, socket_timeout=ANSWER_SECONDS_MAX)
    followed = RulesFollowed(client, settings.redis.prefix, rules, generation)

    def close() -> None:
        heartbeats.close()
        client.close()

    return Watching(lambda: Watcher(heartbeats, _target(settings, redis_url), followed, now_ms), close)


def _heartbeats(settings: Settings, redis_url: str) -> Heartbeats:
    if settings.input.kind == "kafka":
        return KafkaHeartbeats(settings.kafka.bootstrap_servers, settings.kafka.options)
    return RedisHeartbeats(redis_url)


def _target(settings: Settings, redis_url: str) -> RuleLog:
    """Where control records are written, each acknowledged by every partition."""
    if settings.input.kind == "kafka":
        return KafkaRuleLog(settings.kafka.bootstrap_servers, settings.input.topic, settings.kafka.options)
    return RedisRuleLog(redis_url, settings.input.topic)


def _records(trusts: Mapping[str, int], heard_ms: Mapping[str, int], now_ms: int) -> Iterator[LocationTrusted]:
    for name, percent in trusts.items():
        last = heard_ms.get(name)
        yield LocationTrusted(
            location=name,
            trust_percent=percent,
            time=format_ms(now_ms),
            last_heard=None if last is None else format_ms(last),
        )
