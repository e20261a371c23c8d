"""The flow under test: `onhand run availability` as a user starts it, its worker processes, and how it is hurt."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil

from sinks.tether import tethered
from tests.cli.command import CHECKOUT, ONHAND, environment
from tests.faults.hooks.sitecustomize import BASES, FOLDER

HOOKS: Final = CHECKOUT / "tests" / "faults" / "hooks"
DRAIN_SECONDS_MAX: Final = 30.0
ORPHAN_SECONDS_MAX: Final = 5.0
GONE_SECONDS_MAX: Final = 20.0
LOG_TAIL_BYTES: Final = 3000
WORKER_MODULE: Final = "cli.worker_start"


class ViolationError(AssertionError):
    """Something that must hold did not."""


class Flow:
    """One flow in a folder of its own, over all its starts; it ends with the thread that starts it."""

    def __init__(self, folder: Path, settings: Mapping[str, str], faults_folder: Path, *, bases: bool = False) -> None:
        self.log = folder / "onhand.log"
        self.starts = 0
        self._folder = folder
        self._settings = dict(settings)
        self._faults_folder = faults_folder
        self._bases = bases
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, workers: int, *options: str) -> None:
        """Start it, with further options of the command; returns at once."""
        command = [ONHAND, "run", "availability", "--workers", str(workers), *options]
        paths = [str(HOOKS), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = environment(self._settings) | {
            "PYTHONPATH": os.pathsep.join(paths),
            FOLDER: str(self._faults_folder),
        }
        if self._bases:
            variables[BASES] = "1"
        with self.log.open("ab") as log:
            log.write(f"--- {time.time():.3f} {' '.join(command)}\n".encode())
            log.flush()
            self._child = subprocess.Popen(
                tethered(command), cwd=self._folder, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.starts += 1

    @property
    def exit_code(self) -> int | None:
        """What it ended with; None while it runs."""
        return None if self._child is None else self._child.poll()

    def check(self) -> None:
        """ViolationError where it has ended although nobody ended it."""
        if self.exit_code is not None:
            raise ViolationError(f"the flow ended by itself with exit code {self.exit_code}: {self.log_tail()}")

    def workers(self) -> list[psutil.Process]:
        """Its worker processes that are alive."""
        try:
            children = psutil.Process(self._pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [child for child in children if _is_worker(child)]

    def kill(self) -> list[psutil.Process]:
        """SIGKILL the command itself; returns its workers, which nobody has told."""
        workers = self.workers()
        self._signal(signal.SIGKILL)
        self._wait(GONE_SECONDS_MAX)
        return workers

    def ask_drain(self) -> None:
        """SIGTERM, and go on."""
        self._signal(signal.SIGTERM)

    def drain(self) -> float:
        """SIGTERM; how many seconds it took to end. ViolationError where it does not end in order."""
        begun = time.monotonic()
        self._signal(signal.SIGTERM)
        code = self._wait(DRAIN_SECONDS_MAX)
        if code is None:
            raise ViolationError(f"a drain takes longer than {DRAIN_SECONDS_MAX:g} s: {self.log_tail()}")
        if code != 0:
            raise ViolationError(f"a drain ended with exit code {code}: {self.log_tail()}")
        return time.monotonic() - begun

    def wait_for_end(self, seconds_max: float) -> int | None:
        """Its exit code, None where it still runs after `seconds_max`."""
        return self._wait(seconds_max)

    def end(self) -> None:
        """Nothing of it is left afterwards, however it stands."""
        if self._child is None:
            return
        workers = self.workers()
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait(GONE_SECONDS_MAX)
        for worker in still_there(workers, ORPHAN_SECONDS_MAX):
            worker.kill()

    def log_tail(self) -> str:
        """The last of what it said."""
        return self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")

    def said_since_start(self) -> str:
        """What it said since it was started last."""
        return self.log.read_text(errors="replace").rpartition("\n--- ")[2]

    @property
    def _pid(self) -> int:
        if self._child is None:
            raise psutil.NoSuchProcess(0)
        return self._child.pid

    def _signal(self, number: signal.Signals) -> None:
        if self._child is not None:
            self._child.send_signal(number)

    def _wait(self, seconds_max: float) -> int | None:
        if self._child is None:
            return None
        try:
            return self._child.wait(seconds_max)
        except subprocess.TimeoutExpired:
            return None


def still_there(processes: list[psutil.Process], seconds_max: float) -> list[psutil.Process]:
    """Those that have not ended after `seconds_max`."""
    deadline = time.monotonic() + seconds_max
    while alive := [process for process in processes if _is_alive(process)]:
        if time.monotonic() > deadline:
            return alive
        time.sleep(0.02)
    return []


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_worker(process: psutil.Process) -> bool:
    try:
        return WORKER_MODULE in process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
