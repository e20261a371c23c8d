"""Tables: rows of runs, and their order."""

from bench.lines import Run
from bench.tables import Column, Label, Table, rows_of, runs_text, table_text
from tests.bench.stored import of_revision, run

TABLE = Table(
    (Label("SKUs", "dataset"), Label("processes", "processes")),
    (Column("movements/s", "rate"), Column("MB", "bytes", digits=1, scale=1e-6)),
)


def a_run(dataset: str, processes: int, rate: int | None, **more: object) -> Run:
    """One that the table takes."""
    return run(dataset=dataset, processes=processes, rate=rate, bytes=1_500_000, **more)


def test_runs_with_the_same_labels_are_a_row() -> None:
    """Names in the order in which they came, numbers in theirs; medians with their spread."""
    runs = [
        a_run("zipf", 16, 3), a_run("uniform", 2, 5000), a_run("zipf", 2, 1), a_run("zipf", 2, 2), a_run("zipf", 2, 9),
    ]  # fmt: skip
    assert table_text(TABLE, rows_of(TABLE, runs)).splitlines() == [
        "| SKUs | processes | movements/s | MB |",
        "|---|---|---|---|",
        "| zipf | 2 | 2 (1–9) | 1.5 |",
        "| zipf | 16 | 3 | 1.5 |",
        "| uniform | 2 | 5,000 | 1.5 |",
    ]


def test_a_run_that_did_not_measure_a_figure_is_left_out_of_it() -> None:
    """Memory, for example, is only seen in the first run of a process."""
    runs = [a_run("uniform", 1, None), a_run("uniform", 1, 4), a_run("zipf", 1, None)]
    rows = rows_of(TABLE, runs)
    assert [row.spread(TABLE.columns[0]) for row in rows] == [(4, 4, 4), None]
    assert "| zipf | 1 | – |" in table_text(TABLE, rows)


def test_a_row_counts_its_newest_revision_alone() -> None:
    """One row may have been measured again and the other not."""
    old = a_run("uniform", 1, 1, started_at="2026-11-25T10:00:00+00:00", provenance=of_revision("old"))
    other = a_run("zipf", 1, 2, started_at="2026-11-25T10:00:00+00:00", provenance=of_revision("old"))
    rows = rows_of(TABLE, [old, other, a_run("uniform", 1, 3)])
    assert [len(row.runs) for row in rows] == [1, 1]
    assert rows[0].spread(TABLE.columns[0]) == (3, 3, 3)
    assert runs_text(rows) == (
        "Medians of 1 run a row, the smallest and the largest in brackets; 2026-11-25 to 2026-11-26, revision abc and"
        " old, Some CPU, 2 cores; python 3.11."
    )


def test_runs_that_are_others_or_not_valid_are_left_out() -> None:
    """A file may hold runs of several kinds, and a run knows when its measuring was too slow."""
    table = TABLE._replace(where={"part": "drain"})
    runs = [a_run("uniform", 1, 1, part="drain"), a_run("uniform", 1, 2, part="kernel")]
    runs.append(a_run("uniform", 1, 3, part="drain", valid=False))
    assert [row.spread(TABLE.columns[0]) for row in rows_of(table, runs)] == [(1, 1, 1)]


def test_a_line_may_give_several_rows() -> None:
    """Each of its parts stands in the row of its own labels."""
    parts = [{"dataset": "zipf", "rate": 1}, {"dataset": "uniform", "rate": 2}]
    rows = rows_of(TABLE._replace(each="parts"), [run(processes=1, bytes=0, parts=parts)] * 2)
    assert [(row.labels, row.spread(TABLE.columns[0])) for row in rows] == [
        (("zipf", 1), (1, 1, 1)),
        (("uniform", 1), (2, 2, 2)),
    ]
    assert [len(row.runs) for row in rows] == [2, 2]


def test_what_differs_between_runs_is_all_named() -> None:
    """Versions of two days, and changes that no commit holds."""
    dirty = of_revision("0123456789abcdef-dirty")
    runs = [
        a_run("uniform", 1, 1, provenance=dirty),
        a_run("zipf", 1, 1, provenance=dirty, versions={"python": "3.12"}),
    ]
    runs += [a_run("zipf", 1, 1, provenance=dirty)]
    assert runs_text(rows_of(TABLE, runs)) == (
        "Medians of 1 to 2 runs a row, the smallest and the largest in brackets; 2026-11-26, revision 0123456789ab with"
        " changes, Some CPU, 2 cores; python 3.11 and 3.12."
    )
