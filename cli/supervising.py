"""The supervisor: starts the workers of a flow as one group, watches them, and starts all again where one dies."""

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self

import msgspec
import structlog

from cli.failures import DONE, FAILED, INTERRUPTED, MISUSED, CliError
from cli.worker_spec import LAST_WORDS_BYTES_MAX, WorkerSpec, monotonic_ms
from flows.board import Board
from sinks.redis_server import tethered

FROZEN_SECONDS_MAX: Final = 10.0  # without a sign of life of a worker that has begun to read
START_SECONDS_MAX: Final = 300.0
LOOK_SECONDS: Final = 0.05
OTHERS_SECONDS_MAX: Final = 2.0  # for the others of a group to say why they end, too
KILL_SECONDS_MAX: Final = 10.0
WAIT_SECONDS_FIRST: Final = 0.5
WAIT_SECONDS_MAX: Final = 30.0
CALM_SECONDS: Final = 60.0  # a group that lived longer starts again without waiting
WORKER: Final = ("-m", "cli.worker")
GOES_ON: Final = "the next start goes on from the last snapshot"
FINAL: Final = (FAILED, MISUSED, INTERRUPTED)

log = structlog.get_logger(__name__)


class Ended(NamedTuple):
    """How a group ended: the exit code that counts, whether all of it is to be started again, and what was said."""

    code: int
    again: bool
    said: str = ""


class Group:
    """The processes of one start; as a context manager, none of them is left behind."""

    def __init__(
        self, specs: Sequence[WorkerSpec], board: Board, kept_open: Sequence[int], program: Sequence[str]
    ) -> None:
        self._specs = specs
        self._board = board
        self._kept_open = kept_open
        self._program = program
        self._children: list[subprocess.Popen[bytes]] = []
        self._last_words: list[int] = []  # descriptors to read from
        self._began_ms = monotonic_ms()

    def __enter__(self) -> Self:
        """Start them."""
        self._board.clear()
        with contextlib.ExitStack() as undo:
            undo.callback(self.kill)
            self._children.extend(map(self._started, self._specs))
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is left of them."""
        self.kill()
        for reader in self._last_words:
            os.close(reader)

    def last_words(self, process: int) -> str:
        """What `process` has said of its end; only of one that has ended, and once."""
        return os.read(self._last_words[process], LAST_WORDS_BYTES_MAX).decode(errors="replace")

    def codes(self) -> list[int | None]:
        """The exit codes by process, None while one runs."""
        return [child.poll() for child in self._children]

    def lived_seconds(self) -> float:
        """How long ago the group was started."""
        return (monotonic_ms() - self._began_ms) / 1000

    def frozen(self) -> list[int]:
        """Those that have given no sign of life for too long."""
        now_ms = monotonic_ms()
        return [process for process in range(len(self._specs)) if self._silent_seconds(process, now_ms) < 0]

    def kill(self) -> None:
        """End all at once; a frozen one, too."""
        for child in self._children:
            child.kill()
        for child in self._children:
            child.wait(KILL_SECONDS_MAX)

    def _silent_seconds(self, process: int, now_ms: int) -> float:
        """How many seconds of silence `process` has left."""
        if self._children[process].poll() is not None:
            return 0.0
        if self._board.is_running(process):
            return FROZEN_SECONDS_MAX - (now_ms - self._board.beaten_ms(process)) / 1000
        last_ms = max(self._began_ms, self._board.beaten_ms(process))
        return START_SECONDS_MAX - (now_ms - last_ms) / 1000

    def _started(self, spec: WorkerSpec) -> subprocess.Popen[bytes]:
        """A child that the kernel kills when this process ends, in whatever way."""
        reader, writer = os.pipe()
        heard, told = os.pipe()
        self._last_words.append(heard)
        with os.fdopen(writer, "wb") as pipe:
            try:
                child = subprocess.Popen(  # noqa: S603  # this interpreter and our own arguments
                    tethered([sys.executable, *self._program, str(reader)]),
                    pass_fds=(reader, told, self._board.descriptor, *self._kept_open),
                    start_new_session=True,
                )
            finally:
                os.close(reader)
                os.close(told)
            pipe.write(msgspec.json.encode(msgspec.structs.replace(spec, last_words=told)))
        return child


class Supervisor:
    """Runs the workers that `specs` describes anew for each start, until they are done.

    `kept_open` are descriptors that the workers inherit. `program` are the interpreter's arguments, before that of the
    descriptor with the spec. `chance` draws the jitter of waits.
    """

    def __init__(  # what surrounds a group; most of it has a default
        self,
        specs: Callable[[], Sequence[WorkerSpec]],
        board: Board,
        draining: Callable[[], bool],
        *,
        drain_seconds_max: float,
        kept_open: Sequence[int] = (),
        restarts: bool = True,
        program: Sequence[str] = WORKER,
        chance: random.Random | None = None,
    ) -> None:
        self.restarts = 0
        self._specs = specs
        self._board = board
        self._draining = draining
        self._drain_seconds_max = drain_seconds_max
        self._kept_open = kept_open
        self._may_restart = restarts
        self._program = program
        self._chance = chance or random.Random()  # noqa: S311  # jitter
        self._group: Group | None = None
        self._killed = False

    def kill(self) -> None:
        """End all workers at once, and `run` with exit code 130; may be called from another thread."""
        self._killed = True
        if self._group is not None:
            self._group.kill()

    def run(self) -> None:
        """Runs groups until one is done; CliError, with what a worker has said, where it cannot go on."""
        wait_seconds = WAIT_SECONDS_FIRST
        while True:
            with Group(self._specs(), self._board, self._kept_open, self._program) as group:
                self._group = group
                ended = self._watched(group)
                lived_seconds = group.lived_seconds()
            if ended.code == DONE:
                return
            if not ended.again or not self._may_restart:
                code = ended.code if ended.code in FINAL else FAILED
                raise CliError(ended.said or "the workers ended; the lines above say more", code)
            wait_seconds = WAIT_SECONDS_FIRST if lived_seconds > CALM_SECONDS else wait_seconds
            log.warning("all workers start again", wait_seconds=round(wait_seconds, 1))
            if not self._waited(wait_seconds * self._chance.uniform(0.5, 1.0)):
                return  # drained: nothing runs, and the state holds what was done
            wait_seconds = min(2 * wait_seconds, WAIT_SECONDS_MAX)
            self.restarts += 1

    def _watched(self, group: Group) -> Ended:
        """Waits for the end of the group, or brings it about."""
        deadline: float | None = None
        while True:
            codes = group.codes()
            if self._killed:
                return Ended(INTERRUPTED, again=False, said=f"ended at once: {GOES_ON}")
            if any(code is not None and code != DONE for code in codes):
                return self._judged(group)
            if all(code == DONE for code in codes):
                return Ended(DONE, again=False)
            if self._draining() and deadline is None:
                self._board.ask_drain()
                deadline = time.monotonic() + self._drain_seconds_max
            if deadline is not None and time.monotonic() > deadline:
                seconds = f"{self._drain_seconds_max:g} s"
                return Ended(FAILED, again=False, said=f"the drain was ended after {seconds}: {GOES_ON}")
            if frozen := group.frozen():
                log.error("workers give no sign of life", workers=frozen, seconds=FROZEN_SECONDS_MAX)
                return self._again(FAILED)
            time.sleep(LOOK_SECONDS)

    def _judged(self, group: Group) -> Ended:
        """One has failed: the others are waited for shortly, because only one may know the reason."""
        deadline = time.monotonic() + OTHERS_SECONDS_MAX
        while None in group.codes() and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        codes = group.codes()
        for process, code in enumerate(codes):
            if code in FINAL:
                return Ended(code, again=False, said=group.last_words(process))
        log.error("workers ended", codes=codes)
        return self._again(next((code for code in codes if code not in (None, DONE)), FAILED) or FAILED)

    def _again(self, code: int) -> Ended:
        """All is started again, unless the group was to end anyway."""
        ending = self._board.draining()
        said = f"a worker died while draining: {GOES_ON}" if ending else ""
        return Ended(FAILED if code < 0 else code, again=not ending, said=said)

    def _waited(self, seconds: float) -> bool:
        """Waits, and returns whether nobody asked for a drain meanwhile."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._draining():
                return False
            time.sleep(LOOK_SECONDS)
        return not self._draining()


def free_addresses(count: int) -> list[str]:
    """Loopback addresses for the processes of a cluster; none where one process needs no other."""
    if count == 1:
        return []
    with contextlib.ExitStack() as open_:
        sockets = [open_.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [f"127.0.0.1:{bound.getsockname()[1]}" for bound in sockets]
