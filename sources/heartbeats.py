"""Heartbeats: when each location was last heard of, from the beginning of their topic on."""

import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol, cast

import msgspec
import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from redis import Redis
from redis.exceptions import RedisError

from schemas.movements import name_fault
from schemas.times import parse_ms
from schemas.topics import HEARTBEATS

RECORDS_AT_ONCE: Final = 1000
ROUNDS_MAX: Final = 100  # in one look, so that it ends
POLL_SECONDS: Final = 0.05
ANSWER_SECONDS_MAX: Final = 5.0
COMPLAIN_EVERY_SECONDS: Final = 60.0

log = structlog.get_logger(__name__)


class Heartbeats(Protocol):
    """What is known of the locations' signs of life."""

    def heard_ms(self) -> Mapping[str, int]:
        """By location, when it was last heard of, in ms since 1970; reads what has come since the last look.

        Raises HeartbeatError where nobody can tell.
        """

    def close(self) -> None:
        """Let go of the connection."""


class HeartbeatError(RuntimeError):
    """Nobody can tell which locations live, in one line."""


class Heard:
    """The newest sign of life of each location; what cannot be read is passed over, and said so now and then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.newest_ms: dict[str, int] = {}
        self.unreadable = 0
        self._clock = clock
        self._complained_at = -COMPLAIN_EVERY_SECONDS

    def note(self, payload: bytes, received_ms: int) -> None:
        """One heartbeat, received at `received_ms`: nobody is heard from the future."""
        try:
            heartbeat = HEARTBEATS.decode(payload)
            time_ms = min(parse_ms(heartbeat.time), received_ms)
            if fault := name_fault(heartbeat.location):
                raise ValueError(f"location {fault}")  # noqa: TRY301  # told with the others
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            self._passed_over(error)
            return
        self.newest_ms[heartbeat.location] = max(time_ms, self.newest_ms.get(heartbeat.location, 0))

    def _passed_over(self, error: Exception) -> None:
        self.unreadable += 1
        if self._clock() >= self._complained_at + COMPLAIN_EVERY_SECONDS:
            self._complained_at = self._clock()
            log.warning("a heartbeat cannot be read and is passed over", error=str(error), so_far=self.unreadable)


class KafkaHeartbeats:
    """The topic of heartbeats, all of it, every time the flow starts: it is compacted."""

    def __init__(self, bootstrap_servers: str, options: Mapping[str, str | int | float | bool]) -> None:
        self._heard = Heard()
        self._consumer = Consumer(
            {
                "log_level": 2,
                **options,
                "bootstrap.servers": bootstrap_servers,
                "group.id": "onhand-heartbeats",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",  # compaction takes old ones away
            }
        )
        self._is_assigned = False

    def heard_ms(self) -> Mapping[str, int]:
        """As in `Heartbeats`."""
        try:
            if not self._is_assigned:
                self._assign()
            for _ in range(ROUNDS_MAX):
                messages = self._consumer.consume(RECORDS_AT_ONCE, POLL_SECONDS)
                for message in messages:
                    self._take(message)
                if len(messages) < RECORDS_AT_ONCE:
                    break
        except KafkaException as error:
            raise HeartbeatError(str(cast("KafkaError", error.args[0]).str())) from error
        return self._heard.newest_ms

    def close(self) -> None:
        """As in `Heartbeats`."""
        self._consumer.close()

    def _take(self, message: Message) -> None:
        if (error := message.error()) is not None:
            raise KafkaException(error)
        self._heard.note(message.value() or b"", message.timestamp()[1])

    def _assign(self) -> None:
        """All partitions from their beginnings; HeartbeatError where there is no such topic."""
        found = self._consumer.list_topics(HEARTBEATS.name, timeout=ANSWER_SECONDS_MAX).topics[HEARTBEATS.name]
        if not found.partitions:
            raise HeartbeatError(f"there is no topic {HEARTBEATS.name}: run `onhand topics create`")
        self._consumer.assign(
            [TopicPartition(HEARTBEATS.name, partition, OFFSET_BEGINNING) for partition in found.partitions]
        )
        self._is_assigned = True


class RedisHeartbeats:
    """The Redis stream of heartbeats."""

    def __init__(self, url: str) -> None:
        self._heard = Heard()
        self._client = Redis.from_url(url, socket_timeout=ANSWER_SECONDS_MAX)
        self._last = b"0-0"

    def heard_ms(self) -> Mapping[str, int]:
        """As in `Heartbeats`."""
        try:
            for _ in range(ROUNDS_MAX):
                entries = cast(
                    "list[tuple[bytes, dict[bytes, bytes]]]",
                    self._client.xrange(HEARTBEATS.name, min=b"(" + self._last, count=RECORDS_AT_ONCE),
                )
                for id_, fields in entries:
                    self._heard.note(fields.get(b"payload", b""), int(id_.partition(b"-")[0]))
                    self._last = id_
                if len(entries) < RECORDS_AT_ONCE:
                    break
        except RedisError as error:
            raise HeartbeatError(str(error)) from error
        return self._heard.newest_ms

    def close(self) -> None:
        """As in `Heartbeats`."""
        self._client.close()
