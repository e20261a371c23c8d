"""`onhand bench report` and `onhand bench all`: the page about performance, and the runs that it is made of."""

from pathlib import Path
from typing import Annotated, Final

import typer

from cli.screen import print_line, print_note

REPORT_EXAMPLES: Final = (
    "onhand bench report",
    "onhand bench report --data bench/results --out docs/performance.md",
)
ALL_EXAMPLES: Final = ("onhand bench all --runs 5", "onhand bench all --runs 1 --out runs")

Data = Annotated[Path | None, typer.Option("--data", help="Folder of stored runs [bench/results of the checkout].")]


def report(
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="The page [docs/performance.md of the checkout].")] = None,
) -> None:
    """Make the page about performance, with its plots, of the stored runs.

    Text comes from bench/report/performance.md. Plots need matplotlib, which `make check` installs.
    """
    from cli.failures import CliError

    try:
        from bench.lines import RESULTS, ReportError
        from bench.reporting import PAGE, TEMPLATE, report, write
    except ModuleNotFoundError as error:
        raise CliError(
            f"{error.name} is missing: run `make check` once, which installs what development needs"
        ) from error

    page = PAGE if out is None else out
    try:
        made = report(RESULTS if data is None else data, TEMPLATE.read_text(encoding="utf-8"))
    except ReportError as error:
        raise CliError(str(error)) from error
    write(made, page)
    print_line(f"{page}: {len(made.plots)} plots beside it")


def all_(
    runs: Annotated[int, typer.Option(min=1, max=100, help="Of every benchmark.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Folder of their lines [bench/results of the checkout].")] = None,
) -> None:
    """Run every benchmark that the page about performance shows, and append their lines to its stored runs.

    This takes hours, and the machine for itself. One that is missing or fails is told, the others go on, and the exit
    code is 1.
    """
    from bench.lines import RESULTS
    from bench.series import run_all
    from cli.failures import FAILED

    if not run_all(runs, RESULTS if out is None else out, print_note):
        raise typer.Exit(FAILED)
