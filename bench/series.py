"""Series: every benchmark in its order, as sub-commands of the same `onhand`, each run's line appended to its file."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

ONHAND: Final = Path(sys.executable).with_name("onhand")
WAITING: Final = ".part"  # lines wait here until the end: a tracked file that grows would mark later runs as changed


class Step(NamedTuple):
    """A benchmark, and the file (without `.jsonl`) that its lines belong to."""

    file: str
    arguments: tuple[str, ...]

    @property
    def command(self) -> str:
        """As a person would give it."""
        return f"onhand bench {' '.join(self.arguments)}"


STEPS: Final = (
    Step("kernel", ("kernel",)),
    Step("drain", ("drain",)),
    Step("drain", ("drain", "--zipf", "1.1")),
    Step("latency", ("latency",)),
    Step("lookups", ("lookups",)),
    Step("state", ("state",)),
    Step("scale", ("scale",)),
    Step("peers", ("peers",)),
    Step("peers", ("peers", "--dataset", "retail")),
)


class Done(NamedTuple):
    """What became of a step."""

    step: Step
    lines: int
    exit_code: int


def series(steps: Sequence[Step], runs: int, out: Path, program: Sequence[str] = (str(ONHAND),)) -> Iterator[Done]:
    """Runs the steps one after the other, whatever becomes of each; at the end their lines stand in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        for step in steps:
            numbered = Step(step.file, (*step.arguments, "--runs", str(runs)))
            with _waiting(out, step.file).open("ab") as file:
                yield _done(numbered, program, file)
    finally:
        for file_name in dict.fromkeys(step.file for step in steps):
            _settle(out, file_name)


def _done(step: Step, program: Sequence[str], file: BinaryIO) -> Done:
    """One step to its end; what it says on standard error is passed on."""
    lines = 0
    with subprocess.Popen(
        [*program, "bench", *step.arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as run:
        for line in run.stdout or ():
            if is_object(line):
                file.write(line.rstrip() + b"\n")
                file.flush()
                lines += 1
    return Done(step, lines, run.returncode)


def is_object(line: bytes) -> bool:
    """Whether a line of output is a run; anything else is for people."""
    try:
        return isinstance(msgspec.json.decode(line), dict)
    except msgspec.DecodeError:
        return False


def _waiting(out: Path, name: str) -> Path:
    return out / f"{name}.jsonl{WAITING}"


def _settle(out: Path, name: str) -> None:
    """Appends what waits, if anything does, to the file itself."""
    waiting = _waiting(out, name)
    if not waiting.exists():
        return
    if lines := waiting.read_bytes():
        with (out / f"{name}.jsonl").open("ab") as file:
            file.write(lines)
    waiting.unlink()


def run_all(runs: int, out: Path, tell: Callable[[str], None]) -> bool:
    """All steps, each told when it has ended; whether every one of them ended well and gave lines."""
    good = True
    for done in series(STEPS, runs, out):
        good &= done.exit_code == 0 and done.lines > 0
        tell(said(done))
    return good


def said(done: Done) -> str:
    """What a person is told of a step."""
    lines = f"{done.lines} lines for {done.step.file}.jsonl"
    if done.exit_code:
        return f"{done.step.command}: failed with exit code {done.exit_code}, {lines}"
    return f"{done.step.command}: {lines}"
