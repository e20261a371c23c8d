"""The Kafka source against a real broker: what it reads, where it goes on, and what it says when it cannot."""

import ctypes
import functools
import re
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from random import Random

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.testing import TestingSink, run_main
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from bench.servers import KafkaBroker, free_port
from native.librdkafka import LIBRDKAFKA
from schemas.batches import Batch, CaughtUp, Mark, Wake
from sources.errors import SourceError
from sources.kafka import KafkaReading, KafkaSource, SlotState
from sources.kafka_reader import LITTLE
from sources.pace import Surroundings
from sources.states import sealed

MakeTopic = Callable[..., str]
SECONDS_MAX = 20.0


def wall_ms() -> int:
    """The wall clock in ms since 1970."""
    return time.time_ns() // 1_000_000


class Drive:
    """Runs all slots of a source by hand, as Bytewax would."""

    def __init__(  # noqa: PLR0913  # all that tests vary
        self,
        kafka: KafkaBroker,
        topic: str,
        states: dict[str, SlotState] | None = None,
        group: str = "",
        now_ms: Callable[[], int] = wall_ms,
        *,
        accept_truncated: bool = False,
        batch_messages_max: int = 10_000,
        full: Container[int] = (),
    ) -> None:
        self.draining = False
        reading = KafkaReading(
            bootstrap_servers=kafka.bootstrap_servers,
            topic=topic,
            group=group or f"group-of-{topic}",
            slots=4,
            start_seconds_max=5.0,
            refresh_seconds=0.2,
            accept_truncated=accept_truncated,
            batch_messages_max=batch_messages_max,
        )
        around = Surroundings(is_full=lambda slot: slot in full)
        self.source = KafkaSource(reading, now_ms=now_ms, draining=lambda: self.draining, around=around)
        self.slots = {
            name: self.source.build_part("movements", name, (states or {}).get(name))
            for name in self.source.list_parts()
        }
        self.batches: list[Batch] = []
        self.marks: list[Mark] = []

    def turn(self) -> None:
        """One call of every slot."""
        for slot in self.slots.values():
            for item in slot.next_batch():
                if isinstance(item, Batch):
                    self.batches.append(item)
                elif isinstance(item, Mark):
                    self.marks.append(item)

    def until(self, done: Callable[[], bool], seconds: float = SECONDS_MAX) -> None:
        """Turn until `done`, for a bounded time."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"read only {self.count}"
            self.turn()
            time.sleep(0.002)

    def settle(self) -> None:
        """Turn for a while, so that what should not come has time to come."""
        until = time.monotonic() + 0.3
        self.until(lambda: time.monotonic() > until)

    @property
    def count(self) -> int:
        """How many messages were read."""
        return sum(len(batch.offsets) for batch in self.batches)

    def payloads(self, partition: int) -> list[bytes | None]:
        """What was read from a partition, in order."""
        return [payload for batch in self.batches if batch.origin.partition == partition for payload in batch.payloads]

    def snapshot(self) -> dict[str, SlotState]:
        """The states at the end of an epoch."""
        return {name: slot.snapshot() for name, slot in self.slots.items()}

    def close(self) -> None:
        """Leave the broker."""
        for slot in self.slots.values():
            slot.close()


@contextmanager
def driven(
    kafka: KafkaBroker,
    topic: str,
    states: dict[str, SlotState] | None = None,
    group: str = "",
    *,
    accept_truncated: bool = False,
) -> Iterator[Drive]:
    """A source that is closed whatever happens."""
    drive = Drive(kafka, topic, states, group, accept_truncated=accept_truncated)
    try:
        yield drive
    finally:
        drive.close()


def produce(kafka: KafkaBroker, topic: str, partition: int, payloads: list[bytes]) -> None:
    """Write `payloads` and wait until the broker has them all."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(error)

    for payload in payloads:
        producer.produce(topic, payload, partition=partition, on_delivery=delivered)
    assert producer.flush(SECONDS_MAX) == 0
    assert failures == []


def add_partitions(kafka: KafkaBroker, topic: str, total: int) -> None:
    """Give the topic more partitions and wait until each has a leader."""
    admin(kafka).create_partitions([NewPartitions(topic, total)])[topic].result(SECONDS_MAX)

    def leaders() -> int:
        partitions = admin(kafka).list_topics(topic, timeout=SECONDS_MAX).topics[topic].partitions
        return sum(partition.leader >= 0 for partition in partitions.values())

    eventually(leaders, total)


def numbered(first: int, end: int) -> list[bytes]:
    """Payloads that tell their number."""
    return [b"%d" % number for number in range(first, end)]


def committed(kafka: KafkaBroker, topic: str, group: str) -> int:
    """The group's offset of partition 0, as a lag tool sees it."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group})
    try:
        return consumer.committed([TopicPartition(topic, 0)], SECONDS_MAX)[0].offset
    finally:
        consumer.close()


def eventually(value: Callable[[], int], expected: int) -> None:
    """`value` becomes `expected` within a bounded time."""
    deadline = time.monotonic() + SECONDS_MAX
    while value() != expected:
        assert time.monotonic() < deadline, value()
        time.sleep(0.05)


@functools.cache  # a client that nobody holds takes its unanswered requests with it
def admin(kafka: KafkaBroker) -> AdminClient:
    """An admin client of the broker, silent when the broker ends before it does."""
    return AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})


def test_every_partition_is_read_whole_and_in_its_order(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """More partitions than slots: each partition's messages come once, in order, in batches of one origin."""
    name = topic(6)
    for partition in range(6):
        produce(kafka, name, partition, numbered(partition * 100, partition * 100 + 50))
    with driven(kafka, name) as drive:
        drive.until(lambda: drive.count >= 300)
        drive.settle()
    assert drive.count == 300
    for partition in range(6):
        assert drive.payloads(partition) == numbered(partition * 100, partition * 100 + 50)
    for batch in drive.batches:
        assert all(later == earlier + 1 for earlier, later in pairwise(batch.offsets))
        assert all(abs(timestamp - wall_ms()) < 60_000 for timestamp in batch.timestamps)
    cluster = admin(kafka).describe_cluster().result().cluster_id
    assert {batch.origin.cluster for batch in drive.batches} == {cluster}
    assert {batch.origin.name for batch in drive.batches} == {name}
    assert all(re.fullmatch(r"[A-Za-z0-9_+/-]{22}", batch.origin.topic) for batch in drive.batches)


def test_a_slot_whose_lanes_have_too_much_to_do_holds_nobody_up_and_loses_nothing(
    kafka: KafkaBroker, topic: MakeTopic
) -> None:
    """One reader for all: what comes for the slot waits, up to a bound; then its partitions are paused."""
    name = topic(4)
    for partition in range(4):
        produce(kafka, name, partition, numbered(0, 500))
    full = {1}
    drive = Drive(kafka, name, batch_messages_max=50, full=full)
    try:
        drive.until(lambda: drive.count == 1500)
        drive.settle()
        assert not drive.payloads(1)
        reader = drive.slots["slot-01"]._reader  # noqa: SLF001  # how much waits is nobody's business else
        assert 50 <= reader._amounts[1].messages <= 100  # noqa: SLF001
        produce(kafka, name, 1, numbered(500, 520))
        full.clear()
        drive.until(lambda: drive.count == 2020)
        drive.settle()
        assert [len(drive.payloads(partition)) for partition in range(4)] == [500, 520, 500, 500]
        assert drive.payloads(1) == numbered(0, 520)
    finally:
        drive.close()


@pytest.mark.parametrize(("messages", "slots_at_once"), [(LITTLE, 1), (LITTLE - 1, 2), (LITTLE // 4, 4)])
def test_slots_are_given_something_one_at_a_time(
    kafka: KafkaBroker, topic: MakeTopic, messages: int, slots_at_once: int
) -> None:
    """So the lanes of one have told Redis before those of the next begin; who has to wait is asked again at once.

    Those that come after what was little are given something, too.
    """
    name = topic(4)
    drive = Drive(kafka, name)
    reader = drive.slots["slot-00"]._reader  # noqa: SLF001  # what waits is nobody's business else
    have_waited, most = 0, 0
    try:
        for first in range(0, 10 * messages, messages):
            for partition in range(4):
                produce(kafka, name, partition, numbered(first, first + messages))
            time.sleep(0.1)  # so that all of them have arrived
            while drive.count < 4 * (first + messages):
                before = len(drive.batches)
                drive.turn()
                most = max(most, len(drive.batches) - before)
                waiting = [slot for number, slot in enumerate(drive.slots.values()) if reader.waits(number)]
                assert all(slot.next_awake() is None for slot in waiting)
                have_waited += bool(waiting)
        assert most == slots_at_once
        assert have_waited >= 10 or slots_at_once == 4
        assert [drive.payloads(partition) for partition in range(4)] == [numbered(0, 10 * messages)] * 4
    finally:
        drive.close()


def test_a_slot_that_always_has_something_does_not_keep_the_others_waiting(
    kafka: KafkaBroker, topic: MakeTopic
) -> None:
    """Each has its turn before one has another."""
    name = topic(4)
    for partition in range(4):
        produce(kafka, name, partition, numbered(0, 5))
    drive = Drive(kafka, name)
    try:
        drive.until(lambda: drive.count >= 5)
        for number in range(1, 9):
            produce(kafka, name, 0, numbered(5 * number, 5 * number + 5))
            time.sleep(0.1)  # so that it has arrived
            drive.turn()
        assert {batch.origin.partition for batch in drive.batches} == {0, 1, 2, 3}
    finally:
        drive.close()


def test_what_comes_for_a_slot_that_has_ended_waits_nowhere(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """The others read on, and the last one leaves the broker."""
    name = topic(2)
    drive = Drive(kafka, name)
    reader = drive.slots["slot-00"]._reader  # noqa: SLF001  # how much waits is nobody's business else
    drive.slots.pop("slot-00").close()
    produce(kafka, name, 0, numbered(0, 50))
    produce(kafka, name, 1, numbered(0, 50))
    drive.until(lambda: drive.count == 50)
    drive.settle()
    assert drive.payloads(1) == numbered(0, 50)
    assert set(reader._waiting) == {1}  # noqa: SLF001
    drive.close()


def test_a_resumed_source_reads_exactly_the_rest(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """What was read before the snapshot does not come again, what came after it is not left out."""
    name = topic(5)
    for partition in range(5):
        produce(kafka, name, partition, numbered(0, 20))
    with driven(kafka, name) as before:
        before.until(lambda: before.count == 100)
        states = before.snapshot()
    for partition in range(5):
        produce(kafka, name, partition, numbered(20, 30 + partition))
    with driven(kafka, name, states) as after:
        after.until(lambda: after.count >= 60)
        after.settle()
    assert [after.payloads(partition) for partition in range(5)] == [numbered(20, 30 + p) for p in range(5)]
    assert after.batches[0].offsets[0] == 20


def test_an_added_partition_is_read_while_running(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """Partitions that the topic gets later are found and read from their beginning, without a restart."""
    name = topic(1)
    with driven(kafka, name) as drive:
        drive.turn()
        add_partitions(kafka, name, 6)
        for partition in range(6):
            produce(kafka, name, partition, numbered(0, 3))
        drive.until(lambda: drive.count >= 18)
        drive.settle()
    assert [drive.payloads(partition) for partition in range(6)] == [numbered(0, 3)] * 6


def test_a_partition_added_between_two_runs_is_read_from_its_beginning(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """A state that does not know a partition leaves nothing of it out, and what is gone of it is an error."""
    name = topic(1)
    produce(kafka, name, 0, numbered(0, 3))
    with driven(kafka, name) as before:
        before.until(lambda: before.count == 3)
        states = before.snapshot()
    add_partitions(kafka, name, 5)
    produce(kafka, name, 4, numbered(0, 3))
    with driven(kafka, name, states) as after:
        after.until(lambda: after.count >= 3)
    assert after.payloads(4) == numbered(0, 3)
    assert after.payloads(0) == []
    admin(kafka).delete_records([TopicPartition(name, 4, 1)])
    eventually(lambda: _log_start(kafka, name, 4), 1)
    with pytest.raises(SourceError, match=f"{name}, partition 4: offset 0 .* log starts at 1"):
        Drive(kafka, name, states)


def test_group_offsets_are_those_of_the_epoch_before(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """A lag tool sees what is durable: the offsets of the last epoch but one, and all of them after the run."""
    name = topic(1)
    with driven(kafka, name, group=f"lag-{name}") as drive:
        produce(kafka, name, 0, numbered(0, 10))
        drive.until(lambda: drive.count == 10)
        drive.snapshot()
        produce(kafka, name, 0, numbered(10, 17))
        drive.until(lambda: drive.count == 17)
        drive.snapshot()
        eventually(lambda: committed(kafka, name, f"lag-{name}"), 10)
        assert drive.source.commit_last()
        assert committed(kafka, name, f"lag-{name}") == 17
        assert drive.source.commit_failures == 0


def test_a_group_that_cannot_be_written_is_counted_and_stops_nothing(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """Another program that is a member of the group makes commits fail; reading goes on and the failure is counted."""
    name = topic(1)
    other = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": f"taken-{name}"})
    try:
        other.subscribe([name])
        deadline = time.monotonic() + SECONDS_MAX
        while not other.assignment():
            assert time.monotonic() < deadline
            other.poll(0.1)
        with driven(kafka, name, group=f"taken-{name}") as drive:
            produce(kafka, name, 0, numbered(0, 10))
            drive.until(lambda: drive.count == 10)
            drive.snapshot()
            assert not drive.source.commit_last()
            assert drive.source.commit_failures == 1
            produce(kafka, name, 0, numbered(10, 12))
            drive.until(lambda: drive.count == 12)
    finally:
        other.close()


def test_records_deleted_before_they_were_read_stop_the_start(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """A log that begins behind the state's offset is an error that names topic, partition and both offsets."""
    name = topic(1)
    produce(kafka, name, 0, numbered(0, 10))
    with driven(kafka, name) as drive:
        drive.until(lambda: drive.count == 10)
        states = drive.snapshot()
    produce(kafka, name, 0, numbered(10, 20))
    admin(kafka).delete_records([TopicPartition(name, 0, 15)])
    states["slot-00"]["offsets"][0] = 10
    eventually(lambda: _log_start(kafka, name), 15)
    with pytest.raises(SourceError, match=f"{name}, partition 0: offset 10 .* log starts at 15"):
        Drive(kafka, name, states)


def test_records_deleted_while_running_stop_the_run(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """A reader that the log's beginning overtakes stops instead of going on behind the gap."""
    name = topic(1)
    produce(kafka, name, 0, numbered(0, 10))
    with driven(kafka, name) as drive:
        drive.until(lambda: drive.count == 10)
        admin(kafka).delete_records([TopicPartition(name, 0, 5)])
        eventually(lambda: _log_start(kafka, name), 5)
        consumer = drive.slots["slot-00"]._reader._consumer  # noqa: SLF001  # goes back to what is no longer there
        consumer.unassign([0])
        consumer.assign({0: 2})
        drive.slots["slot-00"]._next_offsets[0] = 2  # noqa: SLF001
        with pytest.raises(SourceError, match=f"{name}, partition 0: offset 2 .* log starts at 5"):
            drive.until(lambda: False)


def test_a_reader_that_can_not_go_on_at_all_stops_the_run(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """What librdkafka calls fatal is no error of a partition; and such a reader still ends."""
    name = topic(1)
    produce(kafka, name, 0, numbered(0, 10))
    with driven(kafka, name) as drive:
        drive.until(lambda: drive.count == 10)
        handle = ctypes.c_void_p(drive.slots["slot-00"]._reader._consumer._made)  # noqa: SLF001  # brings it about
        LIBRDKAFKA.rd_kafka_test_fatal_error(handle, KafkaError.FENCED_INSTANCE_ID, b"as a test")
        with pytest.raises(SourceError, match=f"^{name}: cannot be read: .*as a test"):
            drive.until(lambda: False)


def test_an_offset_beyond_the_log_stops_the_start(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """A log shorter than what was read has lost its end; that is said, not waited for."""
    name = topic(1)
    produce(kafka, name, 0, numbered(0, 10))
    with driven(kafka, name) as drive:
        states = drive.snapshot()
    states["slot-00"]["offsets"][0] = 11
    states["slot-00"] = sealed(states["slot-00"])
    with pytest.raises(SourceError, match="the log ends at 10"):
        Drive(kafka, name, states)


def test_a_log_without_its_beginning_is_read_only_where_that_is_accepted(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """Without a state, stock computed from half a log would be wrong: somebody has to say that it is not."""
    name = topic(1)
    produce(kafka, name, 0, numbered(0, 10))
    admin(kafka).delete_records([TopicPartition(name, 0, 5)])
    eventually(lambda: _log_start(kafka, name), 5)
    with pytest.raises(SourceError, match=r"the log starts at 5, its beginning was deleted.*--accept-truncated"):
        Drive(kafka, name)
    with driven(kafka, name, accept_truncated=True) as drive:
        drive.until(lambda: drive.count >= 5)
    assert drive.payloads(0) == numbered(5, 10)


def test_nobody_vouches_for_the_numbers_while_the_broker_is_silent(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """A broker that stopped answering leaves no marks that say all is read; they come back with it."""
    name = topic(1)
    produce(kafka, name, 0, numbered(0, 3))
    with driven(kafka, name) as drive:
        drive.until(lambda: drive.count == 3 and bool(drive.marks))
        kafka.freeze()
        try:
            drive.until(lambda: wall_ms() - drive.marks[-1].read_ms > 9000, seconds=20)
        finally:
            kafka.thaw()
        silent_since_ms = drive.marks[-1].read_ms
        drive.until(lambda: drive.marks[-1].read_ms > silent_since_ms + 9000, seconds=30)


def _log_start(kafka: KafkaBroker, name: str, partition: int = 0) -> int:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "looks"})
    try:
        return consumer.get_watermark_offsets(TopicPartition(name, partition), SECONDS_MAX)[0]
    finally:
        consumer.close()


def test_a_missing_topic_is_named_and_not_made(kafka: KafkaBroker) -> None:
    """A topic that is not there is an error that says so, and it is still not there afterwards."""
    with pytest.raises(SourceError, match=r"there is no topic not-there at .*onhand topics create"):
        Drive(kafka, "not-there")
    assert "not-there" not in admin(kafka).list_topics(timeout=SECONDS_MAX).topics


def test_a_broker_out_of_reach_is_an_error_within_the_bound() -> None:
    """Nobody at the address: an error after `start_seconds_max`, with the address."""
    port = free_port()
    reading = KafkaReading(bootstrap_servers=f"127.0.0.1:{port}", topic="t", group="g", start_seconds_max=1.0)
    source = KafkaSource(reading, now_ms=wall_ms, draining=lambda: False)
    begun = time.monotonic()
    with pytest.raises(SourceError, match=f"no Kafka broker answered at 127.0.0.1:{port} within 1 s"):
        source.build_part("movements", "slot-00", None)
    assert time.monotonic() - begun < 10.0


def test_a_topic_made_anew_does_not_go_on_with_the_old_state(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """The same name with another id is another log, at the start and while running."""
    name = topic(1)
    produce(kafka, name, 0, numbered(0, 3))
    with driven(kafka, name) as drive:
        drive.until(lambda: drive.count == 3)
        states = drive.snapshot()
        admin(kafka).delete_topics([name])[name].result(SECONDS_MAX)
        eventually(lambda: name in admin(kafka).list_topics(timeout=SECONDS_MAX).topics, expected=False)
        admin(kafka).create_topics([NewTopic(name, 1, 1)])[name].result(SECONDS_MAX)
        with pytest.raises(SourceError, match=f"topic {name} .* made anew"):
            drive.until(lambda: False)
    with pytest.raises(SourceError, match=f"topic {name} .* made anew"):
        Drive(kafka, name, states)


def test_keys_headers_and_tombstones_pass_as_they_are(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """Bytes, absent keys, absent values and headers without a value arrive unchanged."""
    name = topic(2)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.produce(name, b"{}", key=b"SKU-1", partition=0, headers=[("traceparent", b"00-a"), ("empty", None)])
    producer.produce(name, None, key=b"SKU-2", partition=0)
    producer.produce(name, b"\xff\x00", partition=0)
    producer.produce(name, b"x", key=b"", partition=1)
    assert producer.flush(SECONDS_MAX) == 0
    with driven(kafka, name) as drive:
        drive.until(lambda: drive.count == 4)
    first = next(batch for batch in drive.batches if batch.origin.partition == 0)
    assert first.keys == [b"SKU-1", b"SKU-2", None]
    assert first.payloads == [b"{}", None, b"\xff\x00"]
    assert first.headers == [[("traceparent", b"00-a"), ("empty", None)], None, None]
    second = next(batch for batch in drive.batches if batch.origin.partition == 1)
    assert (second.keys, second.headers) == ([b""], None)


def test_messages_are_what_librdkafka_s_own_binding_says(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """Any keys, payloads, headers and times, in pieces that are joined again, read beside the binding's consumer."""
    name = topic(3, {"retention.ms": "-1"})  # or the broker may find what is of 1970 too old while it is read
    chance = Random(7)
    headers: list[list[tuple[str, str | bytes | None]] | None] = [
        None,
        [],
        [("a", b"1"), ("a", b""), ("b", None)],
        [("größe", bytes(50))],
    ]
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number in range(600):
        producer.produce(
            name,
            chance.choice([None, b"", b"x", chance.randbytes(chance.randrange(2000))]),
            chance.choice([None, b"", b"SKU-1", chance.randbytes(9)]),
            chance.randrange(3),
            timestamp=chance.choice([1, 1_700_000_000_000 + number]),
            headers=chance.choice(headers),
        )
    assert producer.flush(SECONDS_MAX) == 0
    full = {1}
    drive = Drive(kafka, name, batch_messages_max=20, full=full)
    try:
        drive.until(lambda: drive.count == 600 - _end_of(kafka, name, 1))
        drive.settle()
        full.clear()
        drive.until(lambda: drive.count == 600)
    finally:
        drive.close()
    read = {
        (batch.origin.partition, offset): (key, payload, time_ms, pairs)
        for batch in drive.batches
        for offset, key, payload, time_ms, pairs in zip(
            batch.offsets,
            batch.keys,
            batch.payloads,
            batch.timestamps,
            batch.headers or [None] * len(batch.offsets),
            strict=True,
        )
    }
    assert read == _read_by_the_binding(kafka, name, 600)


def test_what_waits_for_a_slot_is_bounded_in_bytes(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """Few large messages wait no more than many small ones: the partitions of a slot that does not take are paused."""
    name, large = topic(4), [bytes(100_000)] * 300
    produce(kafka, name, 1, large)
    full = {1}
    drive = Drive(kafka, name, full=full)
    try:
        reader = drive.slots["slot-01"]._reader  # noqa: SLF001  # how much waits is nobody's business else
        reader._bytes_max = 1_000_000  # noqa: SLF001
        drive.until(lambda: reader._amounts[1].bytes_ >= 1_000_000)  # noqa: SLF001
        for _ in range(3):
            drive.settle()
        assert sum(piece.bytes_ for piece in reader._waiting[1]) == reader._amounts[1].bytes_  # noqa: SLF001
        assert reader._amounts[1].bytes_ < 20_000_000  # noqa: SLF001  # what librdkafka had ready came at once
        full.clear()
        drive.until(lambda: drive.count == 300)
    finally:
        drive.close()


def _end_of(kafka: KafkaBroker, name: str, partition: int) -> int:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "end"})
    _, end = consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=SECONDS_MAX)
    consumer.close()
    return end


def _read_by_the_binding(kafka: KafkaBroker, name: str, count: int) -> dict[tuple[int | None, int | None], object]:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "binding"})
    consumer.assign([TopicPartition(name, partition, 0) for partition in range(3)])
    read: dict[tuple[int | None, int | None], object] = {}
    while len(read) < count:
        for message in consumer.consume(count, SECONDS_MAX):
            assert message.error() is None
            told = (message.key(), message.value(), message.timestamp()[1], message.headers())
            read[message.partition(), message.offset()] = told
    consumer.close()
    return read


def test_each_partition_is_marked_each_second_though_nothing_arrives(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """A mark tells the next offset, the log's end, the last record's time and when the broker was last heard of."""
    name = topic(2)
    produce(kafka, name, 0, numbered(0, 4))
    clock = [1_000]
    drive = Drive(kafka, name, now_ms=lambda: clock[0])
    try:
        drive.until(lambda: drive.count == 4)
        drive.marks.clear()
        clock[0] = 1_000 + 1_000 // len(drive.slots)  # each slot has instants of its own
        drive.turn()
        assert [mark.origin.partition for mark in drive.marks] == [1]
        clock[0] = 1_999
        drive.turn()
        assert len(drive.marks) == 1
        clock[0] = 2_000
        drive.turn()
        drive.turn()
    finally:
        drive.close()
    by_partition = {mark.origin.partition: mark for mark in drive.marks}
    assert len(drive.marks) == len(by_partition) == 2
    assert by_partition[0][1:] == (4, 4, drive.batches[-1].timestamps[-1], 1_000, 2)
    assert by_partition[1][1:] == (0, 0, -1, 1_000, 2)


def test_a_topic_made_this_instant_can_be_read(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """Partitions that have no leader yet are asked again, not given up."""
    for _ in range(3):
        with driven(kafka, topic(50)) as drive:
            assert sum(len(slot.marks(0)) for slot in drive.slots.values()) == 50


def test_a_mark_before_the_first_message_tells_the_backlog(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """The log's end is known from the start, so that a backlog never looks like being up to date."""
    name = topic(1)
    produce(kafka, name, 0, numbered(0, 4))
    with driven(kafka, name) as drive:
        marks = drive.slots["slot-00"].marks(5)
    assert [(mark.offset, mark.end_offset) for mark in marks] == [(0, 4)]


def test_a_slot_has_caught_up_when_it_has_read_what_was_there_at_its_start(
    kafka: KafkaBroker, topic: MakeTopic
) -> None:
    """All of its partitions; what came later does not count, and where nothing was there it has from the start."""
    name = topic(10)
    produce(kafka, name, 0, numbered(0, 4))
    produce(kafka, name, 8, numbered(0, 4))
    with driven(kafka, name) as drive:
        assert [slot.has_caught_up() for slot in drive.slots.values()] == [False, True, True, True]
        produce(kafka, name, 1, numbered(0, 4))
        drive.until(lambda: drive.count >= 8 and bool(drive.payloads(8)))
        assert [slot.has_caught_up() for slot in drive.slots.values()] == [True] * 4


def test_a_drain_ends_the_flow_and_loses_nothing(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """In a real flow: draining marks every origin a last time, ends the run, and what was read is committed."""
    name = topic(2)
    produce(kafka, name, 0, numbered(0, 10))
    produce(kafka, name, 1, numbered(0, 10))
    items: list[Batch | Mark | Wake | CaughtUp] = []
    reading = KafkaReading(bootstrap_servers=kafka.bootstrap_servers, topic=name, group=f"drain-{name}")

    def all_read() -> bool:
        return sum(len(item.offsets) for item in items if isinstance(item, Batch)) == 20

    source = KafkaSource(reading, now_ms=wall_ms, draining=all_read)
    flow = Dataflow("drained")
    op.output("out", op.input("in", flow, source), TestingSink(items))
    run_main(flow, epoch_interval=timedelta(seconds=10))  # type: ignore[no-untyped-call]  # as Bytewax has it
    assert all_read()
    last_marks = items[-2:]
    assert sorted((mark.origin.partition, mark.offset) for mark in last_marks if isinstance(mark, Mark)) == [
        (0, 10),
        (1, 10),
    ]
    assert source.commit_last()
    assert committed(kafka, name, f"drain-{name}") == 10


def test_the_error_that_stops_a_flow_is_the_cause_of_bytewax_s_own(kafka: KafkaBroker) -> None:
    """Whoever runs the flow finds the SourceError with its one line at the end of the chain of causes."""
    reading = KafkaReading(bootstrap_servers=kafka.bootstrap_servers, topic="not-there", group="g")
    flow = Dataflow("broken")
    source = KafkaSource(reading, now_ms=wall_ms, draining=lambda: False)
    op.output("out", op.input("in", flow, source), TestingSink([]))
    with pytest.raises(BytewaxRuntimeError) as caught:
        run_main(flow)  # type: ignore[no-untyped-call]  # as Bytewax has it
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, SourceError):
        error = error.__cause__
    assert "there is no topic not-there" in str(error)


def test_another_number_of_slots_is_refused(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """Slots own partitions by their number, so a state goes with the number it was made with."""
    name = topic(1)
    with driven(kafka, name) as drive:
        state = drive.snapshot()["slot-00"]
    reading = KafkaReading(bootstrap_servers=kafka.bootstrap_servers, topic=name, group="g", slots=3)
    source = KafkaSource(reading, now_ms=wall_ms, draining=lambda: False)
    with pytest.raises(SourceError, match="4 reader slots, not 3"):
        source.build_part("movements", "slot-00", state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auto.offset.reset": "latest"}, "auto.offset.reset is set by onhand"),
        ({"no.such.option": 1}, "No such configuration property"),
    ],
)
def test_an_option_that_cannot_be_is_refused(options: dict[str, str | int], message: str) -> None:
    """An option that would break a promise, or that librdkafka does not know, is named before anything connects."""
    reading = KafkaReading(bootstrap_servers="127.0.0.1:1", topic="t", group="g", options={**options})
    source = KafkaSource(reading, now_ms=wall_ms, draining=lambda: False)
    with pytest.raises(SourceError, match=message):
        source.build_part("movements", "slot-00", None)


def test_reading_goes_on_after_the_broker_was_killed() -> None:
    """A broker that dies and comes back interrupts reading, and loses and repeats nothing."""
    with KafkaBroker() as broker:
        admin(broker).create_topics([NewTopic("t", 2, 1)])["t"].result(SECONDS_MAX)
        produce(broker, "t", 0, numbered(0, 10))
        with driven(broker, "t") as drive:
            drive.until(lambda: drive.count == 10)
            broker.kill()
            away_until = time.monotonic() + 1.0
            drive.until(lambda: time.monotonic() > away_until)
            broker.start()
            produce(broker, "t", 0, numbered(10, 20))
            drive.until(lambda: drive.count >= 20)
        assert drive.payloads(0) == numbered(0, 20)


def test_wrong_credentials_are_told_apart_from_silence() -> None:
    """A broker that refuses user name and password is an error at once that says so."""
    broker = KafkaBroker()
    port = free_port()
    _add_listener_with_password(broker, port)
    with broker:
        admin(broker).create_topics([NewTopic("t", 1, 1)])["t"].result(SECONDS_MAX)
        assert _secured(port, "right").build_part("movements", "slot-00", None).marks(0)
        with pytest.raises(SourceError, match=f"127.0.0.1:{port} refused the connection"):
            _secured(port, "wrong").build_part("movements", "slot-00", None)


def _add_listener_with_password(broker: KafkaBroker, port: int) -> None:
    properties = broker.directory / "server.properties"
    text = re.sub(
        r"^((?:advertised\.)?listeners=.*)$",
        rf"\1,SECURE://127.0.0.1:{port}",
        properties.read_text(),
        flags=re.MULTILINE,
    )
    text = text.replace("PLAINTEXT:PLAINTEXT", "PLAINTEXT:PLAINTEXT,SECURE:SASL_PLAINTEXT")
    properties.write_text(
        f"{text}inter.broker.listener.name=PLAINTEXT\nsasl.enabled.mechanisms=PLAIN\n"
        "listener.name.secure.plain.sasl.jaas.config="
        'org.apache.kafka.common.security.plain.PlainLoginModule required user_onhand="right";\n'
    )


def _secured(port: int, password: str) -> KafkaSource:
    options: dict[str, str | int | float | bool] = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "onhand",
        "sasl.password": password,
    }
    reading = KafkaReading(bootstrap_servers=f"127.0.0.1:{port}", topic="t", group="g", options=options)
    return KafkaSource(reading, now_ms=wall_ms, draining=lambda: False)
