"""The board: numbers that the processes of one flow share, in memory that ends with them."""

import mmap
import os
import tempfile
from typing import Final

import numpy as np
import numpy.typing as npt

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
        size = _numbers(processes) * 8
        self._memory = mmap.mmap(descriptor, size)
        cells: npt.NDArray[np.int64] = np.frombuffer(self._memory, np.int64)
        own, sent = _COMMON + processes * _OWN, READER_SLOTS
        self._common = cells[:_COMMON]
        self._own = cells[_COMMON:own].reshape(processes, _OWN)
        self._sent = cells[own : own + sent]
        self._applied = cells[own + sent :].reshape(processes, READER_SLOTS)

    @classmethod
    def make(cls, processes: int) -> "Board":
        """A new board, all zero."""
        descriptor = _nameless()
        os.ftruncate(descriptor, _numbers(processes) * 8)
        return cls(descriptor, processes)

    def clear(self) -> None:
        """All zero again, before the processes of a group start; a drain that was asked for stays."""
        draining = self.draining()
        self._own[:] = 0
        self._sent[:] = 0
        self._applied[:] = 0
        self._common[0] = draining

    def ask_drain(self) -> None:
        """All sources are to end."""
        self._common[0] = 1

    def draining(self) -> bool:
        """Whether all sources are to end."""
        return bool(self._common[0])

    def beat(self, process: int, at_ms: int) -> None:
        """The worker of `process` is alive at `at_ms`."""
        self._own[process, 0] = at_ms

    def beaten_ms(self, process: int) -> int:
        """When the worker of `process` was last alive, 0 before its first sign."""
        return int(self._own[process, 0])

    def run(self, process: int) -> None:
        """The worker of `process` has begun to read."""
        self._own[process, 1] = 1

    def is_running(self, process: int) -> bool:
        """Whether the worker of `process` has begun to read."""
        return bool(self._own[process, 1])

    def ask_refill(self, process: int) -> None:
        """`process` has found a Redis that does not hold what was written to it."""
        self._own[process, 2] += 1

    def refills(self) -> int:
        """How many refills of Redis were asked for."""
        return int(self._own[:, 2].sum())

    def sent(self, slot: int, bytes_: int) -> None:
        """The reader of `slot` has sent these bytes to lanes."""
        self._sent[slot] += bytes_

    def applied(self, process: int, slot: int, bytes_: int) -> None:
        """Lanes of `process` have applied these bytes that the reader of `slot` sent."""
        self._applied[process, slot] += bytes_

    def in_flight(self, slot: int) -> int:
        """How many bytes of `slot` are on their way."""
        return int(self._sent[slot] - self._applied[:, slot].sum())


def _nameless() -> int:
    """A descriptor of memory, or of a file, that is gone with the last process that has it open."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("onhand-board")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _numbers(processes: int) -> int:
    return _COMMON + processes * (_OWN + READER_SLOTS) + READER_SLOTS
