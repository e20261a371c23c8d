"""Kafka reader: the partitions of all reader slots of a process, read by one consumer."""

from collections.abc import Callable, Collection, Mapping
from functools import reduce
from typing import Final, NamedTuple

import structlog
from confluent_kafka import KafkaError

from sources.kafka_columns import MessageColumns, ReadFailure
from sources.kafka_consumer import KafkaConsumer
from sources.kafka_errors import REFUSED

BYTES_MAX: Final = 32 << 20  # that wait for a slot, or for all that are not paused
LITTLE: Final = 16  # messages; a look costs as much as a few of them, whatever it finds

log = structlog.get_logger(__name__)


class Taken(NamedTuple):
    """What has arrived for a slot: messages by partition, in their order, and what librdkafka says went wrong."""

    messages: dict[int, MessageColumns]
    failures: list[ReadFailure]


class Amount(NamedTuple):
    """How much waits: counted as it comes and goes, because one slot's may be tens of thousands of pieces."""

    messages: int = 0
    bytes_: int = 0

    def plus(self, other: "Amount") -> "Amount":
        """Both together."""
        return Amount(self.messages + other.messages, self.bytes_ + other.bytes_)


NOTHING: Final = Amount()


class KafkaReader:
    """One consumer for several slots; each takes what is its own, and what came with it waits for the others.

    With a consumer for each slot, a topic that gets a few messages each millisecond makes the broker answer a fetch of
    every one of them each millisecond. All slots are asked by one thread, one after the other, and once more than a
    little was given in such a look, the others are given nothing in it: that is in Redis before the next slot's is,
    and not only when the lanes of all slots have worked. They are served in turn. A slot that does not take,
    because its lanes have too much to do, holds nobody up: once `messages_max` wait for it, or so many of `bytes_max`,
    its partitions are paused until it has taken them. So no more than twice as many ever wait for a slot, or for all
    that are not paused; nor more bytes than that and what librdkafka has ready.
    """

    def __init__(
        self,
        messages_max: int,
        make: Callable[[Callable[[KafkaError], None]], KafkaConsumer],
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self.failure: KafkaError | None = None  # the connection was refused: nothing will come any more
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._make = make
        self._made: KafkaConsumer | None = None
        self._partitions: dict[int, list[int]] = {}  # by slot
        self._slots: dict[int, int] = {}  # by partition
        self._waiting: dict[int, list[MessageColumns]] = {}  # by partition
        self._amounts: dict[int, Amount] = {}  # that wait, by slot
        self._failures: dict[int, list[ReadFailure]] = {}  # by slot
        self._paused: set[int] = set()  # slots
        self._asked: set[int] = set()  # slots, in this look
        self._given = 0  # messages, in this look
        self._served: set[int] = set()  # slots, in this turn of all of them
        self._unreachable = False

    def assign(self, slot: int, positions: Mapping[int, int]) -> None:
        """Partitions for `slot`, and where to begin in each."""
        own = self._partitions.setdefault(slot, [])
        for partition in positions:
            own.append(partition)
            self._slots[partition] = slot
            self._waiting[partition] = []
        self._failures.setdefault(slot, [])
        self._amounts.setdefault(slot, NOTHING)
        self._consumer.assign(positions)

    def take(self, slot: int) -> Taken:
        """What waits for `slot` where it is its turn, else nothing; never waits."""
        if slot in self._asked or not self._asked:
            self._begin_look(slot)
        self._asked.add(slot)
        failures, self._failures[slot] = self._failures[slot], []
        if self._given >= LITTLE or slot in self._served or not self.waits(slot):
            return Taken({}, failures)
        self._given += self._amounts[slot].messages
        self._served.add(slot)
        own, taken = self._partitions[slot], dict[int, MessageColumns]()
        for partition in own:
            if pieces := self._waiting[partition]:
                taken[partition] = MessageColumns.joined(pieces)
                self._waiting[partition] = []
        self._amounts[slot] = NOTHING
        if slot in self._paused:
            self._paused.remove(slot)
            self._consumer.resume(own)
        return Taken(taken, failures)

    def waits(self, slot: int) -> bool:
        """Whether anything waits for `slot`."""
        return self._amounts.get(slot, NOTHING).messages > 0

    def _begin_look(self, slot: int) -> None:
        """All are asked once more, `slot` first; where nobody was served in a look, whose turn it was did not ask."""
        self._asked.clear()
        if not self._given:
            self._served.clear()
        self._given = 0
        if not self._is_much(set(self._partitions).difference(self._paused)):
            self._consume(slot)
        if not any(map(self.waits, set(self._partitions).difference(self._served))):
            self._served.clear()

    def _is_much(self, slots: Collection[int]) -> bool:
        """Whether so much waits for these slots that nothing more should be read for them."""
        amount = reduce(Amount.plus, (self._amounts[slot] for slot in slots), NOTHING)
        return amount.messages >= self._messages_max or amount.bytes_ >= self._bytes_max

    def release(self, slot: int) -> None:
        """`slot` takes no more, so nothing of it may wait; after the last one the broker is left."""
        gone = self._partitions.pop(slot, [])
        for partition in gone:
            del self._slots[partition], self._waiting[partition]
        self._amounts.pop(slot, None)
        self._paused.discard(slot)
        self._asked.discard(slot)
        if gone and self._partitions:
            self._consumer.unassign(gone)
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
    def _consumer(self) -> KafkaConsumer:
        """Made for the first partition: a process may have none."""
        if self._made is None:
            self._made = self._make(self.on_error)
        return self._made

    def _consume(self, slot: int) -> None:
        """Shares out what has arrived; a failure that names no partition is for `slot`, which asks."""
        pieces, failures = self._consumer.consume(self._messages_max)
        for failure in failures:
            self._failures[self._slots.get(failure.partition, slot)].append(failure)
        if pieces and self._unreachable:
            self._unreachable = False
            log.info("kafka answers again")
        for partition, piece in pieces.items():
            self._waiting[partition].append(piece)
            owner = self._slots[partition]
            self._amounts[owner] = self._amounts[owner].plus(Amount(len(piece.offsets), piece.bytes_))
        for slot_ in {self._slots[partition] for partition in pieces}.difference(self._paused):
            if self._is_much([slot_]):
                self._paused.add(slot_)
                self._consumer.pause(self._partitions[slot_])
