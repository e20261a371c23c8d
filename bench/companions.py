"""Companions: Python processes beside the flow that measure or send, each told when to start, by lines of JSON.

A companion is a module run as a program with a directory. It reads its plan there, says that it is ready, hears the
instant of the start, and hands back one struct. Instants are those of `time.monotonic_ns`, one clock for all
processes of a machine.
"""

import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import msgspec

from bench.drain import STOP_SECONDS_MAX, BenchError
from sinks.tether import tethered

READY: Final = b"ready"
READY_SECONDS_MAX: Final = 60.0
LOOK_SECONDS: Final = 0.25
START_AHEAD_NS: Final = 200_000_000

ResultT = TypeVar("ResultT", bound=msgspec.Struct)
PlanT = TypeVar("PlanT", bound=msgspec.Struct)


class Companion(Generic[ResultT]):
    """One such process; as a context manager it is started, and killed where it has not ended by itself."""

    def __init__(self, module: ModuleType, plan: msgspec.Struct, directory: Path, result: type[ResultT]) -> None:
        self._name = module.__name__
        self._log = directory / f"{self._name}.log"
        self._decoder = msgspec.json.Decoder(result)
        _plan_path(directory, type(plan)).write_bytes(msgspec.json.encode(plan))
        self._command = tethered([sys.executable, "-m", self._name, str(directory)])

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_ready(self) -> None:
        """Returns when it has everything at hand that it needs; raises BenchError where it does not come to that."""
        if self._line(READY_SECONDS_MAX, lambda: None).strip() != READY:
            raise BenchError(f"{self._name} did not get ready: {self._log_tail()}")

    def start(self, at_ns: int) -> None:
        """Tells it the instant from which it counts."""
        assert self._process.stdin is not None  # noqa: S101  # asked for above
        self._process.stdin.write(b"%d\n" % at_ns)
        self._process.stdin.flush()

    def result(self, seconds_max: float, look: Callable[[], None]) -> ResultT:
        """What it hands back; `look` is called meanwhile. BenchError where it ends or takes longer without a result."""
        line = self._line(seconds_max, look)
        if not line:
            raise BenchError(f"{self._name} gave no result: {self._log_tail()}")
        return self._decoder.decode(line)

    def _line(self, seconds_max: float, look: Callable[[], None]) -> bytes:
        """The next line that it prints, empty where it has ended."""
        output, deadline = self._process.stdout, time.monotonic() + seconds_max
        assert output is not None  # noqa: S101  # asked for above
        while not select.select([output], [], [], LOOK_SECONDS)[0]:
            look()
            if time.monotonic() > deadline:
                raise BenchError(f"{self._name}: nothing within {seconds_max:.0f} s: {self._log_tail()}")
        return output.readline()

    def _log_tail(self) -> str:
        self._process.kill()
        self._process.wait(STOP_SECONDS_MAX)
        return self._log.read_text(errors="replace")[-2000:]


def start_together(companions: Sequence[Companion[Any]]) -> int:
    """Starts them, all being ready, at one instant a moment ahead; returns it."""
    at_ns = time.monotonic_ns() + START_AHEAD_NS
    for companion in companions:
        companion.start(at_ns)
    return at_ns


def given_plan(directory: Path, plan: type[PlanT]) -> PlanT:
    """In the companion: what it is to do."""
    return msgspec.json.decode(_plan_path(directory, plan).read_bytes(), type=plan)


def say_ready() -> int:
    """In the companion: tells that it is ready, and waits for the instant of the start."""
    sys.stdout.buffer.write(READY + b"\n")
    sys.stdout.buffer.flush()
    return int(sys.stdin.readline())


def hand_back(result: msgspec.Struct) -> None:
    """In the companion: its last word."""
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
    sys.stdout.buffer.flush()


def _plan_path(directory: Path, plan: type[msgspec.Struct]) -> Path:
    return directory / f"{plan.__name__}.json"
