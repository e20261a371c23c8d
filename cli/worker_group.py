"""The workers of one start: processes that load their code, are told what to do, and say why they end.

Light, because a command starts them before it loads anything else.
"""

import socket
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from cli.worker_spec import WorkerSpec, monotonic_ms, tell, words_from
from sinks.tether import tethered

KILL_SECONDS_MAX: Final = 10.0
WORKER: Final = ("-m", "cli.worker_start")


class Group:
    """Processes that load their code from now on, and work once they are told what.

    As a context manager, it leaves none of them behind; the kernel kills them when this process ends, in whatever way.
    `program` are the interpreter's arguments, before that of the descriptor at which a worker hears.
    """

    def __init__(self, workers: int, program: Sequence[str] = WORKER) -> None:
        self.workers = workers
        self.program = program
        self.began_ms = monotonic_ms()  # when they were started, or told what to do
        self._children: list[subprocess.Popen[bytes]] = []
        self._lines: list[socket.socket] = []  # by process
        try:
            for _ in range(workers):
                self._start()
        except BaseException:
            self.end()
            raise

    def _start(self) -> None:
        line, far = socket.socketpair()
        self._lines.append(line)
        with far:
            child = subprocess.Popen(  # noqa: S603  # this interpreter and our own arguments
                tethered([sys.executable, *self.program, str(far.fileno())]),
                pass_fds=(far.fileno(),),
                start_new_session=True,
            )
        self._children.append(child)

    def __enter__(self) -> Self:
        """They run since they were made."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is left of them."""
        self.end()

    def begin(self, specs: Sequence[WorkerSpec], descriptors: Sequence[int]) -> None:
        """Tell each what to do; `descriptors` are handed over, the board's first. One that has ended hears nothing."""
        self.began_ms = monotonic_ms()
        for line, spec in zip(self._lines, specs, strict=True):
            tell(line, spec, descriptors)

    def last_words(self, process: int) -> str:
        """What `process` has said of its end; only of one that has ended, and once."""
        return words_from(self._lines[process])

    def codes(self) -> list[int | None]:
        """The exit codes by process, None while one runs."""
        return [child.poll() for child in self._children]

    def lived_seconds(self) -> float:
        """How long ago they were told what to do."""
        return (monotonic_ms() - self.began_ms) / 1000

    def kill(self) -> None:
        """End all at once; a frozen one, too."""
        for child in self._children:
            child.kill()
        for child in self._children:
            child.wait(KILL_SECONDS_MAX)

    def end(self) -> None:
        """End all, after which nothing can be asked of them."""
        self.kill()
        for line in self._lines:
            line.close()
