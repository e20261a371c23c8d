"""Ticks: the clock of every input partition, written into the log itself so that a replay decides the same."""

import threading
from collections.abc import Callable, Mapping
from itertools import cycle
from types import TracebackType
from typing import Final, Protocol, Self

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from redis import Redis
from redis.exceptions import RedisError

from schemas.movements import Tick, encode
from schemas.times import format_ms

INTERVAL_SECONDS: Final = 1.0
TURNS: Final = 8  # in each interval: a tick goes to every lane, so movements would wait for those of all partitions
STOP_SECONDS_MAX: Final = 10.0
PARTITIONS_EVERY_TURNS: Final = 10 * TURNS
ANSWER_SECONDS_MAX: Final = 5.0

log = structlog.get_logger(__name__)


class TickTarget(Protocol):
    """A log that ticks are written to."""

    def write(self, payload: bytes, turn: int) -> str | None:
        """Writes a tick to each partition of that turn without waiting long; what stands in the way of any, if known.

        The turn of a partition is its number modulo TURNS.
        """


class KafkaTicks:
    """The partitions of a Kafka topic; a tick that does not get out is given up, the next one says more."""

    def __init__(self, bootstrap_servers: str, topic: str, options: Mapping[str, str | int | float | bool]) -> None:
        self._topic = topic
        self._producer = Producer(
            {
                "log_level": 2,
                **options,
                "bootstrap.servers": bootstrap_servers,
                "acks": "all",
                "message.timeout.ms": int(ANSWER_SECONDS_MAX * 1000),
            }
        )
        self._partitions: list[int] = []
        self._writes = 0
        self._troubles: dict[int | None, str] = {}  # by partition, of the last tick that is known to be out or lost

    def write(self, payload: bytes, turn: int) -> str | None:
        """One tick per partition of that turn, where the last ones are out."""
        self._producer.poll(0)
        if self._writes % PARTITIONS_EVERY_TURNS == 0 or not self._partitions:
            try:
                described = self._producer.list_topics(self._topic, timeout=ANSWER_SECONDS_MAX)
            except KafkaException as error:
                return str(error.args[0])
            self._partitions = sorted(described.topics[self._topic].partitions)
            if not self._partitions:
                return str(described.topics[self._topic].error or "the topic has no partitions")
            self._troubles = {of: trouble for of, trouble in self._troubles.items() if of in self._partitions}
        self._writes += 1
        if len(self._producer) <= len(self._partitions):
            for partition in self._partitions[turn::TURNS]:
                try:
                    self._producer.produce(self._topic, payload, partition=partition, on_delivery=self._delivered)
                except (KafkaException, BufferError) as error:
                    self._troubles[partition] = str(error)
            self._producer.poll(0)
        return next(iter(self._troubles.values()), None)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._troubles.pop(message.partition(), None)
        else:
            self._troubles[message.partition()] = error.str()


class RedisStreamTicks:
    """A Redis stream, which is one partition."""

    def __init__(self, url: str, stream: str) -> None:
        self._client = Redis.from_url(url, socket_timeout=ANSWER_SECONDS_MAX)
        self._stream = stream
        self._trouble: str | None = None

    def write(self, payload: bytes, turn: int) -> str | None:
        """One entry, in the first turn."""
        if turn:
            return self._trouble
        self._trouble = self._written(payload)
        return self._trouble

    def _written(self, payload: bytes) -> str | None:
        try:
            self._client.xadd(self._stream, {"payload": payload})
        except RedisError as error:
            return str(error)
        return None


class Timekeeper:
    """Writes a tick to each partition each second while its `with` block runs, in a thread of its own.

    `now_ms` is the wall clock in ms since 1970. Several timekeepers of one log do no harm: a clock never goes back.
    While `draining` says so none is written, since nobody would read it.
    """

    def __init__(
        self, target: TickTarget, now_ms: Callable[[], int], draining: Callable[[], bool] = lambda: False
    ) -> None:
        self._target = target
        self._now_ms = now_ms
        self._draining = draining
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timekeeper", daemon=True)
        self._failing = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(STOP_SECONDS_MAX)

    def _run(self) -> None:
        for turn in cycle(range(TURNS)):
            if self._stopping.wait(INTERVAL_SECONDS / TURNS) or self._draining():
                return
            self._tell(self._target.write(encode(Tick(time=format_ms(self._now_ms()))), turn))

    def _tell(self, trouble: str | None) -> None:
        """Says so when ticks begin to fail and when they get out again."""
        if trouble is not None and not self._failing:
            log.warning("ticks are not written: what waits for a time waits longer", error=trouble)
        elif trouble is None and self._failing:
            log.info("ticks are written again")
        self._failing = trouble is not None
