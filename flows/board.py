"""The board: numbers that the processes of one flow share, in memory that ends with them."""

import mmap
import os
import tempfile
from typing import Final

from sinks.slots import SLOTS

READER_SLOTS: Final = 8
IN_FLIGHT_BYTES_MAX: Final = 64 << 20  # of one reader slot, between the worker that reads it and those that apply it
_COMMON: Final = 1  # draining
_OWN: Final = 3  # of a process: beat, running, refills asked for
assert SLOTS >= READER_SLOTS  # noqa: S101


class Board:
    """One number is written by one process only, so that nobody waits for anybody.

    The starter makes it with `Board.make(processes)` and hands `descriptor` to its children, which attach to it.
    Times are monotonic ms, the same clock in all processes of a machine.
    """

    def __init__(self, descriptor: int, processes: int) -> None:
        self.descriptor = descriptor
        self.processes = processes
        numbers = _numbers(processes)
        self._memory = mmap.mmap(descriptor, numbers * 8)
        # A view and no array: single numbers of it are read and written many thousand times a second.
        cells = memoryview(self._memory).cast("q")[:numbers]
        own, sent = _COMMON + processes * _OWN, READER_SLOTS
        self._common = cells[:_COMMON]
        self._own = [cells[at : at + _OWN] for at in range(_COMMON, own, _OWN)]  # by process
        self._sent = cells[own : own + sent]
        self._applied = [cells[at : at + READER_SLOTS] for at in range(own + sent, numbers, READER_SLOTS)]

    @classmethod
    def make(cls, processes: int) -> "Board":
        """A new board, all zero."""
        descriptor = _nameless()
        os.ftruncate(descriptor, _numbers(processes) * 8)
        return cls(descriptor, processes)

    def clear(self) -> None:
        """All zero again, before the processes of a group start; a drain that was asked for stays."""
        draining = self.draining()
        for cells in (*self._own, self._sent, *self._applied):
            for at in range(len(cells)):
                cells[at] = 0
        self._common[0] = draining

    def ask_drain(self) -> None:
        """All sources are to end."""
        self._common[0] = 1

    def draining(self) -> bool:
        """Whether all sources are to end."""
        return bool(self._common[0])

    def beat(self, process: int, at_ms: int) -> None:
        """The worker of `process` is alive at `at_ms`."""
        self._own[process][0] = at_ms

    def beaten_ms(self, process: int) -> int:
        """When the worker of `process` was last alive, 0 before its first sign."""
        return self._own[process][0]

    def run(self, process: int) -> None:
        """The worker of `process` has begun to read."""
        self._own[process][1] = 1

    def is_running(self, process: int) -> bool:
        """Whether the worker of `process` has begun to read."""
        return bool(self._own[process][1])

    def ask_refill(self, process: int) -> None:
        """`process` has found a Redis that does not hold what was written to it."""
        self._own[process][2] += 1

    def refills(self) -> int:
        """How many refills of Redis were asked for."""
        return sum(own[2] for own in self._own)

    def sent(self, slot: int, bytes_: int) -> None:
        """The reader of `slot` has sent these bytes to lanes."""
        self._sent[slot] += bytes_

    def applied(self, process: int, slot: int, bytes_: int) -> None:
        """Lanes of `process` have applied these bytes that the reader of `slot` sent."""
        self._applied[process][slot] += bytes_

    def in_flight(self, slot: int) -> int:
        """How many bytes of `slot` are on their way."""
        return self._sent[slot] - sum(applied[slot] for applied in self._applied)


def _nameless() -> int:
    """A descriptor of memory, or of a file, that is gone with the last process that has it open."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("onhand-board")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _numbers(processes: int) -> int:
    return _COMMON + processes * (_OWN + READER_SLOTS) + READER_SLOTS
