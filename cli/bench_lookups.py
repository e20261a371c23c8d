"""`onhand bench lookups`: how long channels wait for numbers in Redis, one JSON line a run."""

from typing import Annotated, Final

import typer

from cli.bench import Runs, Seed, Skus, print_runs

EXAMPLES: Final = (
    "onhand bench lookups --runs 5",
    "onhand bench lookups --writer idle --writer 5000 --readers 2",
)
WRITERS: Final = ["idle", "drain"]


def lookups(
    writer: Annotated[
        list[str], typer.Option(help="idle, drain (a backlog, flat out), or movements a second; may be repeated.")
    ] = WRITERS,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Of each kind of look-up, with each writer.")] = 20.0,
    readers: Annotated[int, typer.Option(min=1, max=16, help="Processes that look up at the same time.")] = 1,
    skus: Skus = 20_000,
    backlog: Annotated[int, typer.Option(min=0, help="Movements to drain [240,000 for each of --seconds].")] = 0,
    seed: Seed = 1,
    runs: Runs = 1,
) -> None:
    """Look up one SKU, and twenty at once, while the flow is idle and while it drains a backlog.

    Each run has servers of its own; the writers take turns in it, a drain last. bench/README.md says what the figures
    mean. Exit code 3 where a run is not valid.
    """
    from bench.lookups import DRAIN, IDLE, LookupsConfig
    from bench.lookups import lookups as measured
    from cli.failures import MISUSED, CliError

    if unknown := [name for name in writer if name not in {IDLE, DRAIN} and not (name.isdecimal() and int(name))]:
        raise CliError(f"--writer {unknown[0]}: idle, drain, or how many movements a second", MISUSED)
    config = LookupsConfig(seconds, skus, readers, writer, backlog)
    print_runs(measured(config, seed, runs), lambda run: not run.valid)
