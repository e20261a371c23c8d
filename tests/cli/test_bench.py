"""`onhand bench`: what the commands take, and how they end."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

from bench import scale, series, state
from bench.drain import BenchError
from bench.provenance import provenance
from bench.scale import ScaleConfig, ScaledKernel
from bench.state import StateConfig
from cli.bench_report import all_
from cli.failures import DONE, FAILED, MISUSED, CliError
from cli.main import application
from tests.bench.stored import drain, store
from tests.cli.command import assert_failed_in_one_line, onhand

LINE = ScaledKernel("kernel", 2, "uniform", 1, 1, 1.0, {}, "2026-11-26T10:00:00+00:00", provenance())


def given(*arguments: str) -> None:
    """Run a command in this process."""
    application()(["bench", *arguments], standalone_mode=False)


def test_the_page_is_made_where_it_is_asked_for(tmp_path: Path) -> None:
    """Of other runs than those that are stored in the checkout."""
    store(tmp_path / "runs", "scale", drain(), drain(2))
    done = onhand("bench", "report", "--data", "runs", "--out", "page.md", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (DONE, "")
    assert "| 2 | 20,000 |" in (tmp_path / "page.md").read_text()


def test_a_line_that_is_no_run_ends_the_report_in_one_line(tmp_path: Path) -> None:
    """With its place."""
    store(tmp_path / "runs", "drain", b"{}")
    done = onhand("bench", "report", "--data", "runs", "--out", "page.md", cwd=tmp_path)
    assert "drain.jsonl line 1 is no run" in assert_failed_in_one_line(done, FAILED)


def test_a_report_without_matplotlib_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment made for running draws nothing."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("bench.plots", "bench.reporting"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(CliError, match="matplotlib is missing: run `make check` once"):
        given("report", "--out", str(tmp_path / "page.md"))


@pytest.mark.parametrize(
    ("arguments", "sizes"),
    [
        ((), [100_000, 1_000_000]),
        (("--positions", "400", "800", "1200"), [400, 800, 1200]),
        (("--positions", "400", "--runs", "2"), [400]),
    ],
)
def test_sizes_follow_their_option(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], sizes: list[int]
) -> None:
    """One or several, each as often as asked for."""
    measured: list[int] = []

    def recorded(config: StateConfig, _runs: int) -> Iterator[object]:
        measured.append(config.positions)
        return iter(())

    monkeypatch.setattr(state, "state", recorded)
    given("state", *arguments)
    assert measured == sizes


@pytest.mark.parametrize(
    ("arguments", "parts", "counts"),
    [
        ((), ["kernel", "drain"], [1, 2]),
        (("--part", "kernel", "--processes", "1", "2", "4"), ["kernel"], [1, 2, 4]),
    ],
)
def test_numbers_of_processes_follow_their_option(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    parts: list[str],
    counts: list[int],
) -> None:
    """And each run is a line."""
    asked: list[tuple[list[str], list[int]]] = []

    def recorded(config: ScaleConfig, named: list[str], _runs: int) -> Iterator[ScaledKernel]:
        asked.append((named, list(config.processes)))
        yield LINE

    monkeypatch.setattr(scale, "scale", recorded)
    given("scale", *arguments)
    assert asked == [(parts, counts)]
    assert capsys.readouterr().out.startswith('{"part":"kernel","processes":2,')


def test_a_part_that_there_is_not_is_misuse(tmp_path: Path) -> None:
    """Told before any server is started."""
    done = onhand("bench", "scale", "--part", "half", cwd=tmp_path)
    assert "--part half: one of kernel, drain, both" in assert_failed_in_one_line(done, MISUSED)


def test_a_benchmark_that_cannot_measure_fails_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that the machine cannot hold, for example."""

    def refused(*_: object) -> Iterator[object]:
        raise BenchError("too large")

    monkeypatch.setattr(state, "state", refused)
    with pytest.raises(CliError, match="too large"):
        given("state")


@pytest.mark.parametrize("good", [True, False], ids=["all good", "one failed"])
def test_all_ends_with_1_where_one_has_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, *, good: bool
) -> None:
    """After all of them have had their turn, and each was told."""

    def ran(runs: int, out: Path, tell: Callable[[str], None]) -> bool:
        tell(f"{runs} runs into {out.name}")
        return good

    monkeypatch.setattr(series, "run_all", ran)
    if good:
        all_(3, tmp_path)
    else:
        with pytest.raises(typer.Exit) as ended:
            all_(3, tmp_path)
        assert ended.value.exit_code == FAILED
    assert capsys.readouterr().err == f"3 runs into {tmp_path.name}\n"
