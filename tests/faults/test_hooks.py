"""What Python loads into the processes under test: it finds what it wraps, and strikes once, where it is told."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import CHECKOUT, environment
from tests.faults.flow import HOOKS
from tests.faults.hooks.sitecustomize import (
    ARMED,
    BASES,
    DISARMED,
    FOLDER,
    KEEPING,
    PARTITIONS_MAX,
    POINTS,
    Cells,
)
from tests.faults.schedule import MARKED

SECONDS_MAX = 60.0
IMPORT_ALL = "\n".join(f"import {module}" for module, _, _ in POINTS.values())
# calls of a wrapped method: its own errors do not matter, being called does
PASS = """
import contextlib, sys
from importlib import import_module
module, class_, method, times = sys.argv[1:]
owner = getattr(import_module(module), class_)
for _ in range(int(times)):
    with contextlib.suppress(Exception):
        getattr(owner, method)(object.__new__(owner))
    print("passed", flush=True)
"""


def python(folder: Path, code: str, *arguments: str, bases: bool = False) -> subprocess.CompletedProcess[str]:
    """A process under test that runs `code`; with `bases` as that of a seed whose lanes are kept as changes."""
    variables = environment(None) | {"PYTHONPATH": str(HOOKS), FOLDER: str(folder)} | ({BASES: "1"} if bases else {})
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=False, cwd=CHECKOUT, env=variables, capture_output=True, text=True, timeout=SECONDS_MAX,
    )  # fmt: skip


def test_everything_that_is_to_be_wrapped_is_there(tmp_path: Path) -> None:
    """A method that gets another name is noticed here, and not by faults that never strike."""
    assert python(tmp_path, IMPORT_ALL).returncode == 0
    assert not (tmp_path / "problems").exists()


@pytest.mark.parametrize("marked", [point for point in MARKED if point.endswith("before")])
def test_a_marked_point_strikes_at_its_call_and_only_once(tmp_path: Path, marked: str) -> None:
    """The third call does not come back; the next process passes as often as it likes."""
    cells = Cells(tmp_path)
    (tmp_path / "armed-0").write_text(f"{marked}:3")
    cells[PARTITIONS_MAX] = ARMED
    target = POINTS[marked.removesuffix("_before")]

    done = python(tmp_path, PASS, *target, "5")
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.count("passed") == 2
    assert (tmp_path / "struck-0").exists()

    again = python(tmp_path, PASS, *target, "5")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("passed") == 5


def test_nothing_strikes_that_is_not_armed(tmp_path: Path) -> None:
    """Calls before that are not counted."""
    (tmp_path / "armed-0").write_text("flush_before:1")
    done = python(tmp_path, PASS, *POINTS["flush"], "5")
    assert done.returncode == 0
    assert done.stdout.count("passed") == 5


def test_what_is_disarmed_strikes_nobody_and_hides_no_other(tmp_path: Path) -> None:
    """A point that was not passed in time must not strike in the next fault."""
    cells = Cells(tmp_path)
    for number, calls in enumerate((1, 3)):
        (tmp_path / f"armed-{number}").write_text(f"flush_before:{calls}")
    cells[PARTITIONS_MAX], cells[PARTITIONS_MAX + 1] = DISARMED, ARMED
    done = python(tmp_path, PASS, *POINTS["flush"], "5")
    assert done.stdout.count("passed") == 2
    assert [(tmp_path / f"struck-{number}").exists() for number in range(2)] == [False, True]


KEEP = f"""
import {KEEPING}
from operators.lane import LaneSettings
from operators.lane_step import LaneLogic, LaneMaking
from operators.rules import RuleBook
from schemas.batches import Wake
from schemas.rules import Rules
from tests.lane_runs import BasesInMemory
making = LaneMaking(RuleBook(Rules()), LaneSettings(1, 1, 1), lambda: 0, durable=True, bases=BasesInMemory())
logic = LaneLogic(None, making)
logic.on_batch([(0, Wake())])
print(len(logic.snapshot()) > len(logic.snapshot()))
"""


@pytest.mark.parametrize("bases", [False, True])
def test_small_lanes_are_kept_as_changes_where_the_seed_says_so(tmp_path: Path, bases: bool) -> None:  # noqa: FBT001
    """And a file says that one was."""
    done = python(tmp_path, KEEP, bases=bases)
    assert (done.returncode, done.stdout) == (0, f"{bases}\n"), done.stderr
    assert (tmp_path / "bases-named").exists() == bases
    assert not (tmp_path / "problems").exists()
