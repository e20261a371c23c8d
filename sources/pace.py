"""A source's partition in time: it never waits, tells each second how far it has read, and ends when drained."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Final, NamedTuple, TypeVar

from bytewax.inputs import StatefulSourcePartition

from schemas.batches import Batch, CaughtUp, Mark, Wake

MARK_EVERY_MS = 1000
FIRST_SLOT = 0
ONLY_PART = 1
LOOK_AGAIN_MS = 1  # the most that an idle partition adds to a movement's latency
CLOCKS_DIFFER: Final = timedelta(milliseconds=5)  # what passes between Bytewax's look at its clock and ours
REST_MS_MAX: Final = 500.0
REST_SHARE: Final = 0.8  # of what closing an epoch took lately
CLOSINGS_KEPT: Final = 3

StateT = TypeVar("StateT")


def utc_now() -> datetime:
    """The clock by which Bytewax wakes partitions."""
    return datetime.now(UTC)


class Epochs:
    """When the partitions of one process of a cluster need not be asked, because their epoch is closing.

    At the end of an epoch Bytewax asks no partition until the epoch before it has gone through all processes. Meanwhile
    it comes back at once, over and over, for a partition whose time has come: a process that waits for a slower one
    would take a core from it. So at the end of an epoch of `interval_ms` every partition names a time as far ahead as
    closing the last epochs took. Bytewax ends the epoch of a partition after it has asked for that time, one partition
    after the other: the first has to foresee the end, and so that no clock decides, none is asked shortly before it.
    A process alone never waits.
    """

    def __init__(self, interval_ms: float, clock: Callable[[], datetime] = utc_now) -> None:
        self._interval_ms = interval_ms
        self._clock = clock
        self._asked = clock()
        self._began = self._asked
        self._closing: int | None = None  # the slot whose epoch ended first, until it is asked again
        self._took_ms: list[float] = [0.0] * CLOSINGS_KEPT

    def asked(self, slot: int) -> None:
        """A partition is asked; where its epoch has ended, the one before is closed now."""
        self._asked = self._clock()
        if self._closing == slot:
            self._closing = None
            self._took_ms = [*self._took_ms[1:], _ms(self._asked - self._began)]

    def ended(self, slot: int) -> None:
        """The epoch of a partition has ended; those of the others follow at once."""
        if self._closing is None:
            self._began, self._closing = self._asked, slot

    def rest_until(self, look: datetime) -> datetime:
        """When the partition that was asked last is to be asked again, instead of at `look`."""
        if self._closing is not None:
            return max(look, self._began + self._rest)
        end = self._began + timedelta(milliseconds=self._interval_ms)
        if self._asked >= end + CLOCKS_DIFFER:
            return max(look, self._asked + self._rest)
        return end + CLOCKS_DIFFER if look > end - CLOCKS_DIFFER else look

    @property
    def _rest(self) -> timedelta:
        return timedelta(milliseconds=min(REST_SHARE * median(self._took_ms), REST_MS_MAX))


class Surroundings(NamedTuple):
    """What a partition knows of the processes around it.

    `beat` is told at every look that the worker is alive. `is_full` tells of a reader slot whether the lanes have too
    much of it still to do, so that it reads no more. With `wakes` the first slot wakes all lanes in every epoch, and
    each slot tells them once that it has caught up. `epochs` is shared by the partitions of one process of a cluster.
    `clock` is the one by which they are woken.
    """

    beat: Callable[[], None] = lambda: None
    is_full: Callable[[int], bool] = lambda _slot: False
    wakes: bool = False
    epochs: Epochs | None = None
    clock: Callable[[], datetime] = utc_now


ALONE = Surroundings()


class PacedPartition(StatefulSourcePartition[Batch | Mark | Wake | CaughtUp, StateT]):
    """A partition that reads without waiting, with a `Mark` per origin each second and one at its end.

    It ends when `draining` says so, or when `read` returns None; what `read` kept back is read again by the next run.
    The first of all `slots` partitions (`slot` 0) begins every epoch with a `Wake` where that is asked for, and each
    tells when it has caught up.
    """

    def __init__(
        self,
        now_ms: Callable[[], int],
        draining: Callable[[], bool],
        around: Surroundings = ALONE,
        slot: int = FIRST_SLOT,
        slots: int = ONLY_PART,
    ) -> None:
        self.look_again_ms = LOOK_AGAIN_MS
        self._now_ms = now_ms
        self._draining = draining
        self._around = around
        self._slot = slot
        self._slots = slots
        self._catching_up = around.wakes
        self._wakes = around.wakes and slot == FIRST_SLOT
        self._wake_due = self._wakes
        self._woken_at_end = False  # once: where epochs are short, each look begins one
        self._mark_phase_ms = slot * MARK_EVERY_MS // slots  # a mark goes to all lanes: not those of all slots at once
        self._marked: int | None = None  # in which second
        self._idle = False
        self._ended = False

    @abstractmethod
    def read(self, now_ms: int) -> Sequence[Batch] | None:
        """What has arrived, nothing, or None at the end of the input."""

    @abstractmethod
    def marks(self, now_ms: int) -> Sequence[Mark]:
        """How far each origin of this partition is read."""

    @abstractmethod
    def state(self) -> StateT:
        """Where to go on."""

    @abstractmethod
    def has_caught_up(self) -> bool:
        """Whether all is read that its logs held when it was built.

        The last place of a log may be no record (a transaction's end, a deleted entry): the next tick lies behind it.
        """

    def has_more(self) -> bool:
        """Whether something has arrived already that the last `read` left for the next."""
        return False

    def snapshot(self) -> StateT:
        """Where to go on; the epoch ends with it, and the next one begins by waking the lanes."""
        self._wake_due = self._wakes
        if self._around.epochs is not None:
            self._around.epochs.ended(self._slot)
        return self.state()

    def next_batch(self) -> Sequence[Batch | Mark | Wake | CaughtUp]:
        """What has arrived, and marks where a second has passed; raises StopIteration after the last marks."""
        self._around.beat()
        if self._around.epochs is not None:
            self._around.epochs.asked(self._slot)
        if self._ended and (not self._wake_due or self._woken_at_end):
            raise StopIteration
        if self._wake_due:
            self._wake_due, self._woken_at_end = False, self._ended
            return [Wake(), *self._next_batch()]
        return self._next_batch()

    def _next_batch(self) -> Sequence[Batch | Mark | CaughtUp]:
        if self._ended:
            return []
        now_ms = self._now_ms()
        batches = None if self._draining() else self._read(now_ms)
        if batches is None:
            self._ended = True
            return self.marks(now_ms)
        told: list[Mark | CaughtUp] = []
        if self._catching_up and self.has_caught_up():
            self._catching_up = False
            told.append(CaughtUp(self._slot, self._slots))
        if self._mark_due(now_ms):
            told.extend(self.marks(now_ms))
        return [*batches, *told] if told else batches

    def _read(self, now_ms: int) -> Sequence[Batch] | None:
        if self._around.is_full(self._slot):
            self._idle = True
            return []
        batches = self.read(now_ms)
        self._idle = not batches and not self.has_more()
        return batches

    def next_awake(self) -> datetime | None:
        """At once while there is something to read, else at the next look; later at the end of an epoch."""
        epochs = self._around.epochs
        if self._ended or (epochs is None and not self._idle):
            return None
        now = self._around.clock()
        look = next_look(now, self.look_again_ms) if self._idle else now
        return look if epochs is None else epochs.rest_until(look)

    def _mark_due(self, now_ms: int) -> bool:
        """At the first look, and then once in each second of the slot's own."""
        second = (now_ms - self._mark_phase_ms) // MARK_EVERY_MS
        if second == self._marked:
            return False
        self._marked = second
        return True


def next_look(now: datetime, every_ms: int) -> datetime:
    """The next instant of a grid of `every_ms`, shared by all partitions so that Bytewax wakes once for all."""
    return now + timedelta(microseconds=every_ms * 1000 - now.microsecond % (every_ms * 1000))


def _ms(span: timedelta) -> float:
    return span / timedelta(milliseconds=1)
