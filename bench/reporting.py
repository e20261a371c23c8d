"""Reporting: the page about performance, made of a template and the stored runs, and nothing by hand."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from bench.figures import told
from bench.lines import ReportError, Run, newest_series, read_runs
from bench.model import FIELDS, PROCESSES_PREDICTED, Costs, Place, Prediction, costs_of, predict
from bench.plots import Panel, bars
from bench.provenance import CHECKOUT
from bench.sections import SECTIONS, Section
from bench.tables import Row, label_text, markdown, rows_of, runs_text, table_text

TEMPLATE: Final = Path(__file__).with_name("report") / "performance.md"
PAGE: Final = CHECKOUT / "docs" / "performance.md"
PLOTS: Final = "performance"  # the folder beside the page
FIELD: Final = re.compile(r"\{\{(\w+) ([\w-]+)\}\}")
BLANK_LINES: Final = re.compile(r"\n{3,}")
MODEL_MISSING: Final = "Not measured yet: it takes drains with one and with two processes."
BROKER_CORES: Final = 8
SHARED_CORES: Final = 2


class Page(NamedTuple):
    """The text of the page, and of its plots by file name."""

    text: str
    plots: dict[str, str]


def report(data: Path, template: str) -> Page:
    """The page that `template` makes of the runs in `data`; ReportError where a field or a line is wrong.

    A line `{{table drain}}` becomes the table of that section. `command`, `runs` and `plot` of a section that has no
    runs yet leave nothing, its `table` says what would give them.
    """
    shown = {section.name: Shown(section, data) for section in SECTIONS}
    parts: dict[tuple[str, str], Callable[[], str]] = {
        (kind, name): partial(make, one)
        for name, one in shown.items()
        for kind, make in (("command", command), ("table", table), ("runs", runs), ("plot", plot))
    }
    parts |= {("model", name): partial(make, shown["scale-drain"]) for name, make in MODEL.items()}

    def replaced(match: re.Match[str]) -> str:
        part = parts.get((match[1], match[2]))
        if part is None:
            raise ReportError(f"the template asks for {match[0]}, which is none of {sorted(parts)}")
        return part()

    text = BLANK_LINES.sub("\n\n", FIELD.sub(replaced, template))
    return Page(text, {f"{name}.svg": drawn(one) for name, one in shown.items() if one.rows and one.section.plotted})


def write(page: Page, path: Path) -> None:
    """Writes the page, and into the folder beside it its plots and no others."""
    path.write_text(page.text, encoding="utf-8")
    folder = path.parent / PLOTS
    for old in folder.glob("*.svg"):
        old.unlink()
    if page.plots:
        folder.mkdir(exist_ok=True)
    for name, text in page.plots.items():
        (folder / name).write_text(text, encoding="utf-8")


class Shown:
    """A section with its runs."""

    def __init__(self, section: Section, data: Path) -> None:
        self.section = section
        self.runs = read_runs(data, section.file)
        self.rows: Sequence[Row] = rows_of(section.table, self.runs)


def command(shown: Shown) -> str:
    """What was run."""
    return f"```console\n{shown.section.command}\n```" if shown.rows else ""


def table(shown: Shown) -> str:
    """All figures, or how to come by them."""
    if shown.rows:
        return table_text(shown.section.table, shown.rows)
    words = shown.section.command.partition(" ")[2]
    return f"Not measured yet: `{words}`, a command of onhand, gives the figures.{_left_out(shown)}"


def runs(shown: Shown) -> str:
    """What the figures are medians of."""
    if not shown.rows:
        return ""
    return runs_text(shown.rows) + _left_out(shown)


def _left_out(shown: Shown) -> str:
    """How many runs are in no figure, and why."""
    invalid = sum(not run.is_valid for run in shown.runs)
    return f" Runs left out because they say that they are not valid: {invalid}." if invalid else ""


def plot(shown: Shown) -> str:
    """The link to the drawing, which says in words what it shows."""
    section = shown.section
    if not shown.rows or not section.plotted:
        return ""
    return f"![{section.name}: {'; '.join(section.plotted)}]({PLOTS}/{section.name}.svg)"


def drawn(shown: Shown) -> str:
    """The drawing, a bar for each row and a panel for each figure."""
    section = shown.section
    columns = [column for column in section.table.columns if column.heading in section.plotted]
    panels = [Panel(column.heading, [row.spread(column) for row in shown.rows], column.digits) for column in columns]
    labels = [", ".join(map(label_text, row.labels)) for row in shown.rows]
    return bars(labels, panels, logarithmic=section.logarithmic)


def _alone(shown: Shown) -> list[Run]:
    """The drains with one process that the model is made of."""
    return _of(shown, 1)


def _of(shown: Shown, processes: int) -> list[Run]:
    found = [run for run in shown.runs if run.fields.get("part") == "drain" and run.value("processes") == processes]
    return newest_series(found) if found else []


def model_inputs(shown: Shown) -> str:
    """What the model is told, each with the field and the lines that it comes from."""
    alone = _alone(shown)
    if not alone:
        return MODEL_MISSING
    lines = ", ".join(run.place.rpartition(" ")[2] for run in alone)
    costs = costs_of(alone)._asdict()
    rows = [(_words(name), f"{costs[name]:,.3f}", f"`{field}`") for name, field in FIELDS.items()]
    return markdown(("input", "median", f"field in `{shown.section.file}.jsonl`, lines {lines}"), rows)


def model_check(shown: Shown) -> str:
    """What the model says of two processes that share this machine, beside what two processes did."""
    alone, two = _alone(shown), _of(shown, SHARED_CORES)
    if not alone or not two:
        return MODEL_MISSING
    cores = two[0].provenance.cores
    said = predict(costs_of(alone), SHARED_CORES, Place(cores, shared_cores=cores))
    column = next(column for column in shown.section.table.columns if column.field == "movements_per_second")
    measured = Row((), two).spread(column)
    share = "" if measured is None else f"{measured.median / said.movements_per_second:.0%}"
    row = (str(SHARED_CORES), f"{said.movements_per_second:,.0f}", said.limit, told(measured, 0), share)
    return markdown(("processes", "predicted, movements/s", "ended by", "measured, movements/s", "of it"), [row])


def model_predictions(shown: Shown) -> str:
    """How fast more processes would be, and what ends that."""
    alone = _alone(shown)
    if not alone:
        return MODEL_MISSING
    costs = costs_of(alone)
    predictions = [predict(costs, count, Place(BROKER_CORES)) for count in (1, *PROCESSES_PREDICTED)]
    headings = ("processes, a core each", "predicted, movements/s", "ended by", "then by, movements/s", "Redis servers")
    return markdown(headings, [_prediction(each, costs) for each in predictions])


def _prediction(each: Prediction, costs: Costs) -> tuple[str, ...]:
    """A row; so many Redis servers would be as busy as one is with what one can take."""
    name, rate = each.next_limit
    servers = -(-each.limits["workers"] * costs.redis_seconds_per_million // 1_000_000)
    return (
        str(each.processes),
        f"{each.movements_per_second:,.0f}",
        each.limit,
        f"{name}, {rate:,.0f}",
        f"{servers:.0f}",
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


MODEL: Final = {"inputs": model_inputs, "check": model_check, "predictions": model_predictions}
