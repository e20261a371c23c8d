"""Kafka reader: the partitions of all reader slots of a process, read by one consumer."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, cast

import structlog
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

REFUSED: Final = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL})  # noqa: SLF001

log = structlog.get_logger(__name__)


class Taken(NamedTuple):
    """What has arrived for a slot: messages by partition, in their order, and what librdkafka says went wrong."""

    messages: dict[int, list[Message]]
    errors: list[Message]


class KafkaReader:
    """One consumer for several slots; each takes what is its own, and what came with it waits for the others.

    With a consumer for each slot, a topic that gets a few messages each millisecond makes the broker answer a fetch of
    every one of them each millisecond. All slots are asked by one thread, one after the other, and only one of them is
    given anything in such a look: what it was given is in Redis before the next one is, and not only when the lanes
    of all slots have worked. They are served in turn. A slot that does not take, because its lanes have too much to do,
    holds nobody up: once `messages_max` wait for it, its partitions are paused until it has taken them. So no more than
    twice as many ever wait for a slot, or for all that are not paused.
    """

    def __init__(self, topic: str, messages_max: int, make: Callable[[Callable[[KafkaError], None]], Consumer]) -> None:
        self.failure: KafkaError | None = None  # the connection was refused: nothing will come any more
        self._topic = topic
        self._messages_max = messages_max
        self._make = make
        self._made: Consumer | None = None
        self._partitions: dict[int, list[int]] = {}  # by slot
        self._slots: dict[int, int] = {}  # by partition
        self._waiting: dict[int, list[Message]] = {}  # by partition
        self._errors: dict[int, list[Message]] = {}  # by slot
        self._paused: set[int] = set()  # slots
        self._asked: set[int] = set()  # slots, in this look
        self._was_one_served = False  # in this look
        self._served: set[int] = set()  # slots, in this turn of all of them
        self._unreachable = False

    def assign(self, slot: int, positions: Mapping[int, int]) -> None:
        """Partitions for `slot`, and where to begin in each."""
        own = self._partitions.setdefault(slot, [])
        for partition in positions:
            own.append(partition)
            self._slots[partition] = slot
            self._waiting[partition] = []
        self._errors.setdefault(slot, [])
        self._consumer.incremental_assign([TopicPartition(self._topic, p, offset) for p, offset in positions.items()])

    def take(self, slot: int) -> Taken:
        """What waits for `slot` where it is its turn, else nothing; never waits."""
        if slot in self._asked or not self._asked:
            self._begin_look(slot)
        self._asked.add(slot)
        errors, self._errors[slot] = self._errors[slot], []
        if self._was_one_served or slot in self._served or not self.waits(slot):
            return Taken({}, errors)
        self._was_one_served = True
        self._served.add(slot)
        own, taken = self._partitions[slot], dict[int, list[Message]]()
        for partition in own:
            if messages := self._waiting[partition]:
                taken[partition] = messages
                self._waiting[partition] = []
        if slot in self._paused:
            self._paused.remove(slot)
            self._consumer.resume([TopicPartition(self._topic, partition) for partition in own])
        return Taken(taken, errors)

    def waits(self, slot: int) -> bool:
        """Whether anything waits for `slot`."""
        return any(self._waiting[partition] for partition in self._partitions.get(slot, ()))

    def _begin_look(self, slot: int) -> None:
        """All are asked once more, `slot` first; where nobody was served in a look, whose turn it was did not ask."""
        self._asked.clear()
        if not self._was_one_served:
            self._served.clear()
        self._was_one_served = False
        if sum(map(self._count, set(self._partitions).difference(self._paused))) < self._messages_max:
            self._consume(slot)
        if not any(map(self.waits, set(self._partitions).difference(self._served))):
            self._served.clear()

    def _count(self, slot: int) -> int:
        return sum(len(self._waiting[partition]) for partition in self._partitions[slot])

    def release(self, slot: int) -> None:
        """`slot` takes no more, so nothing of it may wait; after the last one the broker is left."""
        gone = self._partitions.pop(slot, [])
        for partition in gone:
            del self._slots[partition], self._waiting[partition]
        self._paused.discard(slot)
        self._asked.discard(slot)
        if gone and self._partitions:
            self._consumer.incremental_unassign([TopicPartition(self._topic, partition) for partition in gone])
        elif gone:
            self._consumer.close()

    def on_error(self, error: KafkaError) -> None:
        """Called by librdkafka inside `consume`: it reconnects by itself unless it was refused."""
        if error.fatal() or error.code() in REFUSED:
            self.failure = error
        elif not self._unreachable:
            self._unreachable = True
            log.warning("kafka does not answer, trying again", error=error.str())

    @property
    def _consumer(self) -> Consumer:
        """Made for the first partition: a process may have none."""
        if self._made is None:
            self._made = self._make(self.on_error)
        return self._made

    def _consume(self, slot: int) -> None:
        """Shares out what has arrived; an error that names no partition is for `slot`, which asks."""
        messages = self._consumer.consume(self._messages_max, 0)
        if not messages:
            return
        if any(map(Message.error, messages)):
            for message in messages:
                if message.error() is not None:
                    self._errors[self._slots.get(cast("int", message.partition()), slot)].append(message)
            messages = [message for message in messages if message.error() is None]
            if not messages:
                return
        if self._unreachable:
            self._unreachable = False
            log.info("kafka answers again")
        self._share_out(messages)

    def _share_out(self, messages: list[Message]) -> None:
        waiting, partitions = self._waiting, cast("list[int]", list(map(Message.partition, messages)))
        first = partitions[0]
        if partitions.count(first) == len(partitions):
            waiting[first] += messages
        else:
            for partition, message in zip(partitions, messages, strict=True):
                waiting[partition].append(message)
        for slot in {self._slots[partition] for partition in set(partitions)}.difference(self._paused):
            if self._count(slot) >= self._messages_max:
                self._paused.add(slot)
                own = self._partitions[slot]
                self._consumer.pause([TopicPartition(self._topic, partition) for partition in own])
