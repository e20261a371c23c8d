"""Tables: runs that belong together as one row, each figure the median of them, in Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from bench.figures import Spread, spread_of, told
from bench.lines import Run, Value, newest_series


class Label(NamedTuple):
    """What tells rows apart."""

    heading: str
    field: str


class Column(NamedTuple):
    """A figure, multiplied by `scale` and shown with so many `digits` behind the point."""

    heading: str
    field: str
    digits: int = 0
    scale: float = 1.0


class Table(NamedTuple):
    """Labels, then figures; only of runs whose fields are as in `where`, and that do not call themselves invalid.

    With `each` a run is one for every object in that list of it.
    """

    labels: Sequence[Label]
    columns: Sequence[Column]
    where: Mapping[str, Value] = {}  # never written to
    each: str = ""


class Row(NamedTuple):
    """The labels of a row, and its runs: those of the newest revision that was measured."""

    labels: tuple[Value, ...]
    runs: list[Run]

    def spread(self, column: Column) -> Spread | None:
        """The figure of `column`; None where no run has measured it."""
        numbers = (run.number(column.field) for run in self.runs)
        return spread_of([number * column.scale for number in numbers if number is not None])


def rows_of(table: Table, runs: Sequence[Run]) -> list[Row]:
    """A row for each combination of labels: numbers in their order, anything else in the order in which it came."""
    groups: dict[tuple[Value, ...], list[Run]] = {}
    for run in chain.from_iterable(run.each(table.each) for run in runs) if table.each else runs:
        if run.is_valid and all(run.value(field) == value for field, value in table.where.items()):
            groups.setdefault(tuple(run.value(label.field) for label in table.labels), []).append(run)
    came = {value: place for place, value in enumerate(dict.fromkeys(value for key in groups for value in key))}
    ordered = sorted(groups, key=lambda key: [_rank(value, came[value]) for value in key])
    return [Row(key, newest_series(groups[key])) for key in ordered]


def _rank(value: Value, place: int) -> tuple[int, float]:
    return (0, value) if isinstance(value, int | float) else (1, place)


def markdown(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = list(headings)
    lines = [head, ["---"] * len(head), *map(list, rows)]
    ruled = [f"|{'|'.join(line)}|" if number == 1 else f"| {' | '.join(line)} |" for number, line in enumerate(lines)]
    return "\n".join(ruled)


def table_text(table: Table, rows: Sequence[Row]) -> str:
    """The rows of `table` in Markdown."""
    headings = [*(label.heading for label in table.labels), *(column.heading for column in table.columns)]
    return markdown(headings, [_cells(table, row) for row in rows])


def _cells(table: Table, row: Row) -> list[str]:
    figures = [told(row.spread(column), column.digits) for column in table.columns]
    return [*map(label_text, row.labels), *figures]


def label_text(value: Value) -> str:
    """A label as people read it."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def runs_text(rows: Sequence[Row]) -> str:
    """How many runs there were, when, of which revision, on what and with which versions."""
    runs = [run for row in rows for run in row.runs]
    counts = sorted({len(row.runs) for row in rows})
    count = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    noun = "run" if counts[-1] == 1 else "runs"
    days = _span(sorted({run.started_at[:10] for run in runs}))
    machines = sorted({f"{run.provenance.cpu}, {run.provenance.cores} cores" for run in runs})
    revisions = sorted({run.provenance.revision[:12] + _changes(run) for run in runs})
    return (
        f"Medians of {count} {noun} a row, the smallest and the largest in brackets; {days}, revision"
        f" {' and '.join(revisions)}, {' and '.join(machines)}; {_versions(runs)}."
    )


def _changes(run: Run) -> str:
    return " with changes" if run.provenance.revision.endswith("-dirty") else ""


def _span(days: Sequence[str]) -> str:
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _versions(runs: Iterable[Run]) -> str:
    """Every version that is named; all of them where runs differ."""
    named: dict[str, dict[str, None]] = {}
    for run in runs:
        for name, number in run.versions.items():
            named.setdefault(name, {})[number] = None
    return ", ".join(f"{name} {' and '.join(numbers)}" for name, numbers in named.items())
