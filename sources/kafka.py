"""Reads a Kafka topic in a fixed number of slots, resumed from our own state and never from the group's offsets."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple, NotRequired, TypedDict, TypeVar

import structlog
from bytewax.inputs import FixedPartitionedSource
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec, TopicDescription

from schemas.batches import Batch, CaughtUp, Mark, Origin, Wake
from sources.errors import SourceError, SourceUnreachableError
from sources.kafka_columns import NO_PARTITION, MessageColumns, ReadFailure
from sources.kafka_consumer import KafkaConsumer
from sources.kafka_errors import COORDINATOR_MOVES, LEADER_MOVES, REFUSED, TRANSPORT
from sources.kafka_reader import KafkaReader
from sources.pace import ALONE, PacedPartition, Surroundings
from sources.states import checked, sealed

STATE_FORMAT: Final = 1
SILENT_MS_MAX: Final = 5000
ANSWER_SECONDS_MAX: Final = 10.0  # for what is asked while running
POLL_SECONDS: Final = 0.05

# What the source's promises rest on; [kafka.options] may not change it.
FIXED_OPTIONS: Final[Mapping[str, Any]] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": False,
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
}
EARLIEST: Final[OffsetSpec] = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # as confluent_kafka has it
LATEST: Final[OffsetSpec] = OffsetSpec.latest()  # type: ignore[no-untyped-call]

log = structlog.get_logger(__name__)
AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaReading:
    """What to read and how; `options` are further librdkafka settings, which win over the sizes given here.

    A process holds at most `queue_kbytes_max` and one fetch beyond it ready for its slots. The more a slot is given at
    once while it is behind, the fewer calls lanes and Redis get, because of a SKU that has moved several times only its
    last number is written.
    """

    bootstrap_servers: str
    topic: str
    group: str
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    slots: int = 8  # fixed once a state exists
    batch_messages_max: int = 40_000  # of which a slot is given what has arrived
    queue_kbytes_max: int = 8192
    start_seconds_max: float = 15.0
    accept_truncated: bool = False  # begin at a log that has lost its beginning
    refresh_seconds: float = 5.0


class SlotState(TypedDict):
    """Where a slot goes on: the next offset of each of its partitions, and what log they belong to."""

    format: int
    slots: int
    cluster: str
    topic_id: str
    offsets: dict[int, int]
    checksum: NotRequired[int]


class KafkaSource(FixedPartitionedSource[Batch | Mark | Wake | CaughtUp, SlotState]):
    """A topic in `reading.slots` slots; slot i owns the partitions p with p mod slots = i, also those added later.

    `now_ms` is the wall clock in ms since 1970; once `draining` returns True every slot ends. Building a slot and
    reading raise SourceError: broker out of reach, credentials refused, no such topic, a topic made anew, offsets that
    the log does not hold any more.
    """

    def __init__(
        self,
        reading: KafkaReading,
        *,
        now_ms: Callable[[], int],
        draining: Callable[[], bool],
        around: Surroundings = ALONE,
    ) -> None:
        self._reading = reading
        self._now_ms = now_ms
        self._draining = draining
        self._around = around
        self._lock = threading.Lock()
        self._connections: _Connected | None = None
        self._slots: dict[int, _Slot] = {}

    @property
    def commit_failures(self) -> int:
        """How often the group's offsets could not be written."""
        return self._connections.group.failures if self._connections is not None else 0

    def list_parts(self) -> list[str]:
        """The names of all slots; every process can read each of them."""
        return [_slot_name(number) for number in range(self._reading.slots)]

    def build_part(self, step_id: str, for_part: str, resume_state: SlotState | None) -> "_Slot":
        """The slot `for_part`, going on where `resume_state` ends or else at the beginning of the log."""
        with self._lock:
            connected = self._connected()
        number = self.list_parts().index(for_part)
        slot = _Slot(number, self._reading, connected, self._now_ms, self._draining, self._around)
        slot.begin(resume_state)
        self._slots[number] = slot
        return slot

    def commit_last(self) -> bool:
        """After a run that ended in order: write the offsets of its last snapshots, which are durable now.

        Waits at most 10 s; a failure is logged and counted, and returned as False.
        """
        if self._connections is None:
            return True
        last: dict[int, int] = {}
        for slot in self._slots.values():
            last |= slot.snapshotted
        try:
            return self._connections.group.write_last(last)
        finally:
            self._connections.group.close()

    def _connected(self) -> "_Connected":
        if self._connections is None:
            reading = self._reading
            self._connections = _Connected(
                _Topic(reading),
                _GroupOffsets(reading, self._around.beat),
                KafkaReader(reading.batch_messages_max, partial(_messages_of, reading)),
            )
        return self._connections


class _Connected(NamedTuple):
    """What all slots of a process share."""

    topic: "_Topic"
    group: "_GroupOffsets"
    reader: KafkaReader


class _Slot(PacedPartition[SlotState]):
    """The partitions of one slot, read by the reader that it shares with the other slots of its process."""

    def __init__(
        self,
        number: int,
        reading: KafkaReading,
        connected: "_Connected",
        now_ms: Callable[[], int],
        draining: Callable[[], bool],
        around: Surroundings,
    ) -> None:
        super().__init__(now_ms, draining, around, number, reading.slots)
        self.snapshotted: dict[int, int] = {}
        self._number = number
        self._reading = reading
        self._topic, self._group, self._reader = connected
        self._partitions_known = 0
        self._origins: dict[int, Origin] = {}
        self._next_offsets: dict[int, int] = {}
        self._end_offsets: dict[int, int] = {}
        self._ends_at_start: dict[int, int] = {}
        self._ends_asked: tuple[int, dict[int, Future[Any]]] | None = None  # when, and the answers by partition
        self._heard_ms = 0
        self._record_ms: dict[int, int] = {}

    def begin(self, resume_state: SlotState | None) -> None:
        """Take the slot's partitions where the state left them; raises SourceError where the log does not fit it."""
        if resume_state is not None:
            self._check(resume_state)
            self.snapshotted = dict(resume_state["offsets"])
        count = self._topic.partition_count
        bounds = self._topic.bounds(self._own(range(count)))
        # A partition that a state does not know was added since: everything in it is new.
        positions = {p: self.snapshotted.get(p, 0 if resume_state else first) for p, (first, _) in bounds.items()}
        for partition, (first, end) in bounds.items():
            if not first <= positions[partition] <= end:
                raise _out_of_range(self._topic.origin(partition), positions[partition], first, end)
            if first > 0 and resume_state is None and not self._reading.accept_truncated:
                raise _truncated(self._topic.origin(partition), first)
            self._end_offsets[partition] = end
        self._ends_at_start = dict(self._end_offsets)
        self._heard_ms = self._now_ms()
        self._take(positions)
        self._partitions_known = count

    def _check(self, state: SlotState) -> None:
        reading, topic = self._reading, self._topic
        checked(state, STATE_FORMAT)
        if state["slots"] != reading.slots:
            raise SourceError(f"the state has {state['slots']} reader slots, not {reading.slots}: set it back")
        if (state["cluster"], state["topic_id"]) != (topic.cluster_id, topic.topic_id):
            raise _made_anew(reading.topic, state["topic_id"], topic.topic_id)

    def _own(self, partitions: Iterable[int]) -> list[int]:
        return [partition for partition in partitions if partition % self._reading.slots == self._number]

    def _take(self, positions: Mapping[int, int]) -> None:
        """Read the partitions in `positions` from these offsets on."""
        if not positions:
            return
        for partition, offset in positions.items():
            self._origins[partition] = self._topic.origin(partition)
            self._next_offsets[partition] = offset
            self._record_ms[partition] = -1
        self._reader.assign(self._number, positions)

    def read(self, now_ms: int) -> list[Batch]:
        """A batch per partition that has something; raises SourceError where reading cannot go on."""
        count = self._topic.refreshed_partition_count(now_ms)
        if count > self._partitions_known:
            self._take(dict.fromkeys(self._own(range(self._partitions_known, count)), 0))
            self._partitions_known = count
        if not self._next_offsets:
            return []
        taken = self._reader.take(self._number)
        if self._reader.failure is not None:
            raise _refused(self._reading, self._reader.failure)
        for failure in taken.failures:
            self._judge(failure)
        return [self._batch(partition, messages) for partition, messages in taken.messages.items()]

    def has_more(self) -> bool:
        """Whether the reader has messages that it was not this slot's turn to be given."""
        return self._reader.waits(self._number)

    def _batch(self, partition: int, messages: MessageColumns) -> Batch:
        self._next_offsets[partition] = messages.offsets[-1] + 1
        self._record_ms[partition] = messages.timestamps[-1]
        return Batch(self._origins[partition], *messages)

    def _judge(self, failure: ReadFailure) -> None:
        """Pass over what librdkafka puts right by itself; raise SourceError for the rest."""
        partition, error = failure
        code = error.code()
        if code == KafkaError._PARTITION_EOF:  # noqa: SLF001
            return
        if code in TRANSPORT:
            self._reader.on_error(error)
        elif code == KafkaError._AUTO_OFFSET_RESET and partition in self._next_offsets:  # noqa: SLF001
            first, end = self._topic.bounds([partition])[partition]
            raise _out_of_range(self._origins[partition], self._next_offsets[partition], first, end)
        else:
            which = "" if partition == NO_PARTITION else f", partition {partition}"
            raise SourceError(f"{self._reading.topic}{which}: cannot be read: {error.str()}")

    def has_caught_up(self) -> bool:
        """Whether each partition is read up to where it ended when the slot was built."""
        return all(self._next_offsets[partition] >= end for partition, end in self._ends_at_start.items())

    def marks(self, now_ms: int) -> list[Mark]:
        """How far each partition is read, and where its log ended when the broker was last heard of.

        None while the broker is silent: whoever reads how old the numbers are sees that nobody vouches for them.
        """
        self._hear_ends(now_ms)
        if now_ms - self._heard_ms > SILENT_MS_MAX:
            return []
        return [self._mark(partition) for partition in self._next_offsets]

    def _hear_ends(self, now_ms: int) -> None:
        """Take the broker's last answer about the logs' ends, if it came, and ask again; never waits.

        What librdkafka has in its cache would still look up to date when the broker is long gone.
        """
        if self._ends_asked is not None:
            asked_ms, answers = self._ends_asked
            if not all(answer.done() for answer in answers.values()):
                return
            if not any(answer.exception() for answer in answers.values()):
                self._heard_ms = asked_ms
                self._end_offsets |= {partition: answer.result().offset for partition, answer in answers.items()}
        self._ends_asked = (now_ms, self._topic.ask_ends(list(self._next_offsets))) if self._next_offsets else None

    def _mark(self, partition: int) -> Mark:
        next_offset = self._next_offsets[partition]
        end = max(self._end_offsets.get(partition, 0), next_offset)
        return Mark(
            self._origins[partition],
            next_offset,
            end,
            self._record_ms[partition],
            self._heard_ms,
            self._partitions_known,
        )

    def state(self) -> SlotState:
        """The state to go on from; the one before it is durable by now, so its offsets go to the group."""
        self._group.write(self.snapshotted)
        self.snapshotted = dict(self._next_offsets)
        state: SlotState = {
            "format": STATE_FORMAT,
            "slots": self._reading.slots,
            "cluster": self._topic.cluster_id,
            "topic_id": self._topic.topic_id,
            "offsets": dict(self._next_offsets),
        }
        return sealed(state)

    def close(self) -> None:
        """Take no more; the last slot leaves the broker."""
        if self._next_offsets:
            self._reader.release(self._number)


class _Topic:
    """The topic as its cluster describes it: identities, partitions, and where its logs begin and end."""

    def __init__(self, reading: KafkaReading) -> None:
        self._reading = reading
        self._refusal: KafkaError | None = None
        self.admin = _admin(reading, self._on_error)
        self.cluster_id: str = self._ask(self.admin.describe_cluster(**self._within())).cluster_id
        described = self._ask(self._description())
        self.topic_id = str(described.topic_id)
        self.partition_count = len(described.partitions)
        self._refresh: Future[TopicDescription] | None = None
        self._refreshed_ms: int | None = None

    def origin(self, partition: int) -> Origin:
        """The identity of one partition's log."""
        return Origin(self.cluster_id, self.topic_id, partition, self._reading.topic)

    def bounds(self, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        """The first offset that each log holds, and the one behind its last; waits for the broker, within bounds.

        A partition whose leader moves, or was only just made, is asked again.
        """
        deadline = time.monotonic() + self._reading.start_seconds_max
        while True:
            try:
                return self._bounds(partitions) if partitions else {}
            except KafkaException as error:
                if error.args[0].code() not in LEADER_MOVES or time.monotonic() > deadline:
                    raise _not_answered(self._reading, error.args[0]) from error
                self.admin.poll(POLL_SECONDS)

    def _bounds(self, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        wanted = [TopicPartition(self._reading.topic, partition) for partition in partitions]
        firsts = self.admin.list_offsets(dict.fromkeys(wanted, EARLIEST), **self._within())
        ends = self.admin.list_offsets(dict.fromkeys(wanted, LATEST), **self._within())
        return {at.partition: (self._result(firsts[at]).offset, self._result(ends[at]).offset) for at in wanted}

    def ask_ends(self, partitions: Sequence[int]) -> "dict[int, Future[Any]]":
        """The answers, to come, about the offset behind the last of each log."""
        wanted = [TopicPartition(self._reading.topic, partition) for partition in partitions]
        answers = self.admin.list_offsets(dict.fromkeys(wanted, LATEST), request_timeout=ANSWER_SECONDS_MAX)
        return {at.partition: answers[at] for at in wanted}

    def refreshed_partition_count(self, now_ms: int) -> int:
        """How many partitions there are, asked for every few seconds without waiting for the answer.

        Raises SourceError when the topic was made anew. Threads that share this may ask twice, which does no harm.
        """
        refresh = self._refresh
        if refresh is not None:
            if refresh.done():
                self._refresh = None
                self._absorb(refresh)
        elif self._refreshed_ms is None or abs(now_ms - self._refreshed_ms) >= self._reading.refresh_seconds * 1000:
            self._refreshed_ms = now_ms
            self._refresh = self._description()
        return self.partition_count

    def _absorb(self, answer: "Future[TopicDescription]") -> None:
        error = answer.exception()
        if isinstance(error, KafkaException):
            log.debug("kafka did not describe the topic, asking again", topic=self._reading.topic, error=str(error))
            return
        described = answer.result()
        if str(described.topic_id) != self.topic_id:
            raise _made_anew(self._reading.topic, self.topic_id, str(described.topic_id))
        self.partition_count = max(self.partition_count, len(described.partitions))

    def _description(self) -> "Future[TopicDescription]":
        topic = self._reading.topic
        return self.admin.describe_topics(TopicCollection([topic]), **self._within())[topic]

    def _within(self) -> dict[str, float]:
        return {"request_timeout": self._reading.start_seconds_max}

    def _ask(self, answer: "Future[AnswerT]") -> AnswerT:
        try:
            return self._result(answer)
        except KafkaException as error:
            raise _not_answered(self._reading, error.args[0]) from error

    def _result(self, answer: "Future[AnswerT]") -> AnswerT:
        """The answer, within the request's own bound; errors are told while waiting, which futures alone do not."""
        while not wait([answer], POLL_SECONDS).done:
            self.admin.poll(0)
            if self._refusal is not None:
                raise _refused(self._reading, self._refusal)
        return answer.result()

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in REFUSED:
            self._refusal = error


class _GroupOffsets:
    """Writes durable offsets to the consumer group, for lag tools to read; nothing of ours ever reads them.

    A consumer of its own that reads nothing writes them without waiting. (The admin client's answers have a time limit,
    but after a broker's death it waits for its answers of before, and librdkafka 2.16 has died of an assertion there.)
    """

    def __init__(self, reading: KafkaReading, beat: Callable[[], None]) -> None:
        self.failures = 0
        self._reading = reading
        self._beat = beat
        self._failing = False
        self._wanted: dict[int, int] = {}
        self._writing: dict[int, int] = {}
        self._begun_at: float | None = None  # a write is under way since then
        self._error: KafkaError | None = None  # of the last one that was answered
        self._made: Consumer | None = None

    def write(self, offsets: Mapping[int, int]) -> None:
        """Write without waiting; while a write is under way, what is to be written waits for the next one."""
        self._wanted |= offsets
        if self._made is not None:
            self._made.poll(0)  # takes the answer
        is_under_way = self._begun_at is not None and time.monotonic() - self._begun_at < ANSWER_SECONDS_MAX
        if self._wanted and not is_under_way:
            self._begin()

    def write_last(self, offsets: Mapping[int, int]) -> bool:
        """Write and wait for the answer, for a bounded time in which the worker is alive; whether it was taken."""
        self._wanted |= offsets
        deadline = time.monotonic() + ANSWER_SECONDS_MAX
        while self._wanted or self._begun_at is not None:
            if self._begun_at is None:
                self._begin()
            self._consumer.poll(POLL_SECONDS)
            self._beat()
            if self._error is not None and self._error.code() not in COORDINATOR_MOVES | TRANSPORT:
                return False
            if time.monotonic() > deadline:
                self._failed("no answer")
                return False
        return self._error is None

    def close(self) -> None:
        """Leave the broker."""
        if self._made is not None:
            self._made.close()
            self._made = None

    @property
    def _consumer(self) -> Consumer:
        if self._made is None:
            self._made = _committer(self._reading, self._answered)
        return self._made

    def _begin(self) -> None:
        self._writing = self._wanted
        self._wanted = {}
        self._error = None
        self._begun_at = time.monotonic()
        places = [TopicPartition(self._reading.topic, partition, offset) for partition, offset in self._writing.items()]
        self._consumer.commit(offsets=places, asynchronous=True)

    def _answered(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        """Called by librdkafka inside `poll`; what was not taken is written again with what comes next."""
        if self._begun_at is None:
            return  # told twice
        self._begun_at = None
        self._error = error or next((place.error for place in places if place.error is not None), None)
        if self._error is not None:
            self._wanted = self._writing | self._wanted
            self._failed(self._error.str())
        elif self._failing:
            self._failing = False
            log.info("the group's offsets are written again", group=self._reading.group)

    def _failed(self, why: str) -> None:
        self.failures += 1
        if not self._failing:
            log.warning("the group's offsets could not be written", group=self._reading.group, error=why)
        self._failing = True


def _slot_name(number: int) -> str:
    return f"slot-{number:02d}"


def _messages_of(reading: KafkaReading, on_error: Callable[[KafkaError], None]) -> KafkaConsumer:
    """What reads the topic's messages."""
    sizes = {
        "queued.max.messages.kbytes": reading.queue_kbytes_max,
        "fetch.max.bytes": 4 * 1024 * 1024,
        "fetch.queue.backoff.ms": 5,  # the default lets a fetcher sleep for a second when its queue is full
    }
    try:
        return KafkaConsumer(reading.topic, {**sizes, **_config(reading), **_of_group(reading)}, on_error)
    except KafkaException as error:
        raise _bad_option(error) from error


def _committer(reading: KafkaReading, on_commit: Callable[[KafkaError | None, list[TopicPartition]], None]) -> Consumer:
    """What writes the group's offsets."""
    callbacks: dict[str, Any] = {"error_cb": lambda _: None, "on_commit": on_commit}
    try:
        return Consumer({**_config(reading), **_of_group(reading), **callbacks})
    except KafkaException as error:
        raise _bad_option(error) from error


def _admin(reading: KafkaReading, on_error: Callable[[KafkaError], None]) -> AdminClient:
    try:
        return AdminClient(_config(reading) | {"error_cb": on_error})
    except KafkaException as error:
        raise _bad_option(error) from error


def _of_group(reading: KafkaReading) -> dict[str, Any]:
    """What consumers have beside it."""
    return {**FIXED_OPTIONS, "group.id": reading.group}


def _config(reading: KafkaReading) -> dict[str, Any]:
    """What consumers and admin client share; raises SourceError for an option that is not the user's to set."""
    for name in reading.options:
        if name in FIXED_OPTIONS or name in {"group.id", "bootstrap.servers"}:
            raise SourceError(f"{name} is set by onhand: take it out of [kafka.options]")
    # log_level: librdkafka would print on standard error what `on_error` is told
    return {
        "log_level": 2,
        "reconnect.backoff.max.ms": 1000,  # a broker that is back is found within a second, not ten
        **reading.options,
        "bootstrap.servers": reading.bootstrap_servers,
    }


def _bad_option(error: KafkaException) -> SourceError:
    return SourceError(f"Kafka's settings are not usable, correct [kafka.options]: {error.args[0].str()}")


def _refused(reading: KafkaReading, error: KafkaError) -> SourceError:
    return SourceError(
        f"Kafka at {reading.bootstrap_servers} refused the connection ({error.str()}):"
        " check security.protocol, user name, password and certificates in [kafka.options]"
    )


def _not_answered(reading: KafkaReading, error: KafkaError) -> SourceError:
    where = reading.bootstrap_servers
    if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return SourceError(
            f"there is no topic {reading.topic} at {where}: make it (onhand topics create) or correct [input] topic"
        )
    if error.code() in {KafkaError._TIMED_OUT, *TRANSPORT, *LEADER_MOVES}:  # noqa: SLF001
        return SourceUnreachableError(
            f"no Kafka broker answered at {where} within {reading.start_seconds_max:g} s:"
            " check that it runs and that [kafka] bootstrap_servers and security.protocol are right"
        )
    return SourceError(f"Kafka at {where} does not tell about topic {reading.topic}: {error.str()}")


def _made_anew(topic: str, then: str, now: str) -> SourceError:
    return SourceError(
        f"topic {topic} is not the one that the state was made from (id {then} then, {now} now):"
        " it was made anew, or this is another cluster; go back to that one, or start with a new state"
    )


def _out_of_range(origin: Origin, offset: int, first: int, end: int) -> SourceError:
    where = f"{origin.name}, partition {origin.partition}: offset {offset} is to be read next"
    if offset < first:
        return SourceError(
            f"{where}, but the log starts at {first}: records were deleted before they were read;"
            " start with a new state, and give the topic a longer retention"
        )
    return SourceError(
        f"{where}, but the log ends at {end}: it has lost its end since (an unclean leader election, a restored"
        " backup); start with a new state"
    )


def _truncated(origin: Origin, first: int) -> SourceError:
    return SourceError(
        f"{origin.name}, partition {origin.partition}: the log starts at {first}, its beginning was deleted, so stock"
        " would be computed without what happened before; give the topic retention.ms=-1 and retention.bytes=-1, and"
        " start with --accept-truncated if opening stock stands in what is left"
    )
