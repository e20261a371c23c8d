"""All benchmarks in order: their lines are kept, and one that fails is told and holds up nobody."""

import sys
from pathlib import Path

import pytest

from bench import series as module
from bench.series import STEPS, Done, Step, is_object, run_all, said, series

PROGRAM = """
import sys
from pathlib import Path
name = sys.argv[2]
if name == "peers":
    sys.exit("there is no peers")
print("for people")
for number in range(int(sys.argv[-1])):
    print('{"name": "%s", "number": %d}' % (name, number), flush=True)
if name == "state":
    print("tracked files changed:", Path("kernel.jsonl").exists(), file=sys.stderr)
    sys.exit(3)
"""


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    """Something that takes the arguments of `onhand`."""
    path = tmp_path / "onhand.py"
    path.write_text(PROGRAM)
    return [sys.executable, str(path)]


def test_lines_are_appended_and_what_is_for_people_is_not(tmp_path: Path, program: list[str]) -> None:
    """A second series comes behind the first."""
    steps, out = [Step("kernel", ("kernel",)), Step("drain", ("drain", "--zipf", "1.1"))], tmp_path / "results"
    for _ in range(2):
        assert [(done.lines, done.exit_code) for done in series(steps, 2, out, program)] == [(2, 0), (2, 0)]
    kernel = (out / "kernel.jsonl").read_text().splitlines()
    assert kernel == ['{"name": "kernel", "number": 0}', '{"name": "kernel", "number": 1}'] * 2
    assert sorted(path.name for path in out.iterdir()) == ["drain.jsonl", "kernel.jsonl"]


def test_one_that_fails_is_told_its_lines_are_kept_and_the_others_go_on(tmp_path: Path, program: list[str]) -> None:
    """A command that is not there, and one that found a difference after its run."""
    steps = [Step("peers", ("peers",)), Step("state", ("state",)), Step("kernel", ("kernel",))]
    told = [said(done) for done in series(steps, 1, tmp_path, program)]
    assert told == [
        "onhand bench peers --runs 1: failed with exit code 1, 0 lines for peers.jsonl",
        "onhand bench state --runs 1: failed with exit code 3, 1 lines for state.jsonl",
        "onhand bench kernel --runs 1: 1 lines for kernel.jsonl",
    ]
    assert len((tmp_path / "state.jsonl").read_text().splitlines()) == 1
    assert not (tmp_path / "peers.jsonl").exists()


def test_results_wait_beside_their_files_until_the_end(tmp_path: Path, program: list[str]) -> None:
    """A tracked file that grew meanwhile would make the revision of later runs look changed."""
    running = series([Step("kernel", ("kernel",)), Step("state", ("state",))], 1, tmp_path, program)
    next(running)
    assert [path.name for path in tmp_path.glob("kernel*")] == ["kernel.jsonl.part"]
    assert len(list(running)) == 1
    assert [path.name for path in tmp_path.glob("kernel*")] == ["kernel.jsonl"]


@pytest.mark.parametrize(
    ("ends", "good"),
    [([(5, 0), (5, 0)], "yes"), ([(5, 0), (5, 1)], "no"), ([(0, 0), (5, 0)], "no")],
)
def test_all_is_good_only_where_every_step_ended_well_and_said_something(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ends: list[tuple[int, int]], good: str
) -> None:
    """A benchmark without a line has measured nothing."""
    dones = [Done(Step("kernel", ("kernel",)), lines, code) for lines, code in ends]
    monkeypatch.setattr(module, "series", lambda *_: iter(dones))
    told: list[str] = []
    assert run_all(5, tmp_path, told.append) == (good == "yes")
    assert len(told) == 2


def test_the_order_of_the_benchmarks() -> None:
    """The quick ones first, the comparison with others last."""
    assert [step.arguments[0] for step in STEPS] == [
        "kernel", "drain", "drain", "latency", "lookups", "state", "scale", "peers", "peers",
    ]  # fmt: skip


@pytest.mark.parametrize(("line", "expected"), [(b'{"a": 1}\n', "yes"), (b"[1]\n", "no"), (b"words\n", "no")])
def test_a_run_is_a_json_object(line: bytes, expected: str) -> None:
    """Anything else on standard output is passed over."""
    assert is_object(line) == (expected == "yes")
