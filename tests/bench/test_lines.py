"""Stored lines: what is read from them, and what is said of those that are none."""

from pathlib import Path

import pytest

from bench.lines import ReportError, newest_series, read_runs
from tests.bench.stored import line, of_revision, run, store


def test_a_field_inside_another_is_named_with_a_dot() -> None:
    """Quantiles stand in an object of their own."""
    assert run(latency_ms={"p50": 1.5}).number("latency_ms.p50") == 1.5


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("rate", "x.jsonl line 1 has no rate: measure again, or correct the table"),
        ("latency_ms.p99", "x.jsonl line 1 has no latency_ms.p99: measure again, or correct the table"),
        ("latency_ms", "x.jsonl line 1: latency_ms is no single value"),
        ("dataset", "x.jsonl line 1: dataset is 'uniform', not a number"),
    ],
)
def test_a_figure_that_is_not_there_is_told_with_its_place(field: str, said: str) -> None:
    """Nothing is made up for a line that lacks it."""
    with pytest.raises(ReportError) as raised:
        run(latency_ms={"p50": 1.5}, dataset="uniform").number(field)
    assert str(raised.value) == said


def test_a_run_of_several_parts_is_one_for_each() -> None:
    """Look-ups of several kinds stand in one line."""
    parts = run(readers=2, looks=[{"kind": "one"}, {"kind": "twenty", "readers": 3}]).each("looks")
    assert [(part.value("kind"), part.value("readers")) for part in parts] == [("one", 2), ("twenty", 3)]
    with pytest.raises(ReportError, match="looks is no list of objects"):
        run(looks=[1]).each("looks")


def test_lines_are_read_in_order_and_a_missing_file_has_none(tmp_path: Path) -> None:
    """Empty lines are passed over."""
    store(tmp_path, "drain", line(movements=1), b"", line(movements=2))
    assert [(each.place, each.number("movements")) for each in read_runs(tmp_path, "drain")] == [
        ("drain.jsonl line 1", 1),
        ("drain.jsonl line 3", 2),
    ]
    assert read_runs(tmp_path, "peers") == []


@pytest.mark.parametrize("broken", [b"{", b"[]", b'{"started_at": "2026-11-26"}'])
def test_a_line_that_is_no_run_is_told_with_its_place(tmp_path: Path, broken: bytes) -> None:
    """Half a line, or one without its provenance."""
    store(tmp_path, "drain", line(), broken)
    with pytest.raises(ReportError, match=r"^drain\.jsonl line 2 is no run"):
        read_runs(tmp_path, "drain")


def test_only_runs_of_the_newest_revision_count() -> None:
    """What was measured before a change says nothing about what is there now, wherever its line stands."""
    old = run(started_at="2026-11-25T10:00:00+00:00", provenance=of_revision("old"))
    first, second = run(provenance=of_revision("new")), run(provenance=of_revision("new"))
    assert newest_series([first, old, second]) == [first, second]
