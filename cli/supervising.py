"""The supervisor: starts the workers of a flow as one group, watches them, and starts all again where one dies."""

import contextlib
import random
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import structlog

from cli.failures import DONE, FAILED, INTERRUPTED, MISUSED, CliError
from cli.worker_group import Group
from cli.worker_spec import WorkerSpec, monotonic_ms
from flows.board import Board

FROZEN_SECONDS_MAX: Final = 10.0  # without a sign of life of a worker that has begun to read
START_SECONDS_MAX: Final = 300.0
LOOK_SECONDS: Final = 0.05
OTHERS_SECONDS_MAX: Final = 2.0  # for the others of a group to say why they end, too
WAIT_SECONDS_FIRST: Final = 0.5
WAIT_SECONDS_MAX: Final = 30.0
CALM_SECONDS: Final = 60.0  # a group that lived longer starts again without waiting
GOES_ON: Final = "the next start goes on from the last snapshot"
FINAL: Final = (FAILED, MISUSED, INTERRUPTED)

log = structlog.get_logger(__name__)


class Ended(NamedTuple):
    """How a group ended: the exit code that counts, whether all of it is to be started again, and what was said."""

    code: int
    again: bool
    said: str = ""


class Supervisor:
    """Runs the workers that `specs` describes anew for each start, until they are done.

    `group` are the processes of the first start, and the pattern of those after it; the supervisor ends them.
    `kept_open` are descriptors that the workers are given. `chance` draws the jitter of waits.
    """

    def __init__(  # what surrounds a group; most of it has a default
        self,
        group: Group,
        specs: Callable[[], Sequence[WorkerSpec]],
        board: Board,
        draining: Callable[[], bool],
        *,
        drain_seconds_max: float,
        kept_open: Sequence[int] = (),
        restarts: bool = True,
        chance: random.Random | None = None,
    ) -> None:
        self.restarts = 0
        self._specs = specs
        self._board = board
        self._draining = draining
        self._drain_seconds_max = drain_seconds_max
        self._kept_open = kept_open
        self._may_restart = restarts
        self._chance = chance or random.Random()  # noqa: S311  # jitter
        self._group = group
        self._killed = False

    def kill(self) -> None:
        """End all workers at once, and `run` with exit code 130; may be called from another thread."""
        self._killed = True
        self._group.kill()

    def run(self) -> None:
        """Runs groups until one is done; CliError, with what a worker has said, where it cannot go on."""
        group, wait_seconds = self._group, 0.0
        while True:
            with group:
                if wait_seconds:
                    if not self._waited(wait_seconds * self._chance.uniform(0.5, 1.0)):
                        return  # drained: nothing runs, and the state holds what was done
                    self.restarts += 1
                self._board.clear()
                group.begin(self._specs(), [self._board.descriptor, *self._kept_open])
                ended = self._watched(group)
                lived_seconds = group.lived_seconds()
            if ended.code == DONE:
                return
            if not ended.again or not self._may_restart:
                code = ended.code if ended.code in FINAL else FAILED
                raise CliError(ended.said or "the workers ended; the lines above say more", code)
            calm = lived_seconds > CALM_SECONDS or not wait_seconds
            wait_seconds = WAIT_SECONDS_FIRST if calm else min(2 * wait_seconds, WAIT_SECONDS_MAX)
            log.warning("all workers start again", wait_seconds=round(wait_seconds, 1))
            group = self._group = Group(group.workers, group.program)  # it loads its code while we wait

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
            if frozen := self._frozen(group):
                log.error("workers give no sign of life", workers=frozen, seconds=FROZEN_SECONDS_MAX)
                return self._again(FAILED)
            time.sleep(LOOK_SECONDS)

    def _frozen(self, group: Group) -> list[int]:
        """Those that have given no sign of life for too long."""
        now_ms, codes = monotonic_ms(), group.codes()
        return [
            process
            for process, code in enumerate(codes)
            if code is None and self._silent_seconds_left(process, group.began_ms, now_ms) < 0
        ]

    def _silent_seconds_left(self, process: int, began_ms: int, now_ms: int) -> float:
        beaten_ms = self._board.beaten_ms(process)
        if self._board.is_running(process):
            return FROZEN_SECONDS_MAX - (now_ms - beaten_ms) / 1000
        return START_SECONDS_MAX - (now_ms - max(began_ms, beaten_ms)) / 1000

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
