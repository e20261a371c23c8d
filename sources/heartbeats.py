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
FIRST_LOOK_SECONDS_MAX: Final = 10.0  # one that takes longer goes on in the next look
POLL_SECONDS: Final = 0.05
ANSWER_SECONDS_MAX: Final = 5.0
COMPLAIN_EVERY_SECONDS: Final = 60.0

log = structlog.get_logger(__name__)


class Heartbeats(Protocol):
    """What is known of the locations' signs of life."""

    def heard_ms(self) -> Mapping[str, int]:
        """By location, when it was last heard of, in ms since 1970; reads what has come since the last look.

        The first look reads everything: whoever judged before that would take all for silent, or for never heard of.
        Raises HeartbeatError where nobody can tell, or can tell yet.
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
                "enable.partition.eof": True,
            }
        )
        self._is_assigned = False
        self._not_read: set[int] = set()  # partitions whose end, as of the start, has not been reached

    def heard_ms(self) -> Mapping[str, int]:
        """As in `Heartbeats`."""
        try:
            if not self._is_assigned:
                self._assign()
            self._read_to_the_ends()
            for _ in range(ROUNDS_MAX):
                if self._read(POLL_SECONDS) < RECORDS_AT_ONCE:
                    break
        except KafkaException as error:
            raise HeartbeatError(str(cast("KafkaError", error.args[0]).str())) from error
        return self._heard.newest_ms

    def close(self) -> None:
        """As in `Heartbeats`."""
        self._consumer.close()

    def _read_to_the_ends(self) -> None:
        """At the first look: everything that is there."""
        deadline = time.monotonic() + FIRST_LOOK_SECONDS_MAX
        while self._not_read:
            if time.monotonic() > deadline:
                raise _not_at_the_end(FIRST_LOOK_SECONDS_MAX)
            self._read(POLL_SECONDS)

    def _read(self, seconds: float) -> int:
        """Note what comes within `seconds`; how many messages that were."""
        messages = self._consumer.consume(RECORDS_AT_ONCE, seconds)
        errors = [error for message in messages if (error := self._take(message)) is not None]
        if errors:  # raised when all else is noted: it does not come again
            raise KafkaException(errors[0])
        return len(messages)

    def _take(self, message: Message) -> KafkaError | None:
        """Note a heartbeat or the end of a partition; an error is returned."""
        error = message.error()
        if error is None:
            self._heard.note(message.value() or b"", message.timestamp()[1])
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # so librdkafka names events of its own
            self._not_read.discard(message.partition() or 0)
        else:
            return error
        return None

    def _assign(self) -> None:
        """All partitions from their beginnings; HeartbeatError where there is no such topic."""
        found = self._consumer.list_topics(HEARTBEATS.name, timeout=ANSWER_SECONDS_MAX).topics[HEARTBEATS.name]
        if not found.partitions:
            raise HeartbeatError(f"there is no topic {HEARTBEATS.name}: run `onhand topics create`")
        self._consumer.assign(
            [TopicPartition(HEARTBEATS.name, partition, OFFSET_BEGINNING) for partition in found.partitions]
        )
        self._not_read = set(found.partitions)
        self._is_assigned = True


class RedisHeartbeats:
    """The Redis stream of heartbeats."""

    def __init__(self, url: str) -> None:
        self._heard = Heard()
        self._client = Redis.from_url(url, socket_timeout=ANSWER_SECONDS_MAX)
        self._last = b"0-0"
        self._is_read = False

    def heard_ms(self) -> Mapping[str, int]:
        """As in `Heartbeats`."""
        deadline = time.monotonic() + FIRST_LOOK_SECONDS_MAX
        try:
            while self._read() == RECORDS_AT_ONCE:
                if time.monotonic() > deadline:
                    break
            else:
                self._is_read = True
        except RedisError as error:
            raise HeartbeatError(str(error)) from error
        if not self._is_read:
            raise _not_at_the_end(FIRST_LOOK_SECONDS_MAX)
        return self._heard.newest_ms

    def close(self) -> None:
        """As in `Heartbeats`."""
        self._client.close()

    def _read(self) -> int:
        """Note what stands behind the entry read last; how many entries that were."""
        entries = cast(
            "list[tuple[bytes, dict[bytes, bytes]]]",
            self._client.xrange(HEARTBEATS.name, min=b"(" + self._last, count=RECORDS_AT_ONCE),
        )
        for id_, fields in entries:
            self._heard.note(fields.get(b"payload", b""), int(id_.partition(b"-")[0]))
            self._last = id_
        return len(entries)


def _not_at_the_end(seconds: float) -> HeartbeatError:
    return HeartbeatError(f"the heartbeats are not read to their end after {seconds:g} s; the next look goes on")
