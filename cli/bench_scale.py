"""`onhand bench scale`: one process and several, in memory and through Kafka and Redis."""

from typing import Annotated, Final

import typer

from cli.bench import Movements, Runs, Seed, Skus, Zipf, print_runs

EXAMPLES: Final = (
    "onhand bench scale --processes 1 2 --runs 5",
    "onhand bench scale --part kernel --movements 200000 --processes 1 2 4",
)
COUNTS: Final = (1, 2)
PROCESSES_MAX: Final = 64

Processes = Annotated[
    list[int] | None,
    typer.Option("--processes", min=1, max=PROCESSES_MAX, metavar="N …", help="How many, in turn [1 2]."),
]
More = Annotated[
    list[int] | None, typer.Argument(min=1, max=PROCESSES_MAX, metavar="", help="Further ones.", hidden=True)
]


def scale(  # noqa: PLR0917  # each is an option of the command
    processes: Processes = None,
    more: More = None,
    part: Annotated[str, typer.Option(help="kernel, drain, or both.")] = "both",
    movements: Movements = 1_000_000,
    skus: Skus = 20_000,
    zipf: Zipf = 0.0,
    seed: Seed = 1,
    runs: Runs = 1,
) -> None:
    """Run the kernel in 1 and 2 processes at once, then drain a backlog with 1 and 2 workers.

    The drain has servers of its own (Java 17, Redis or Valkey) and is compared with the oracle; exit code 3 where
    anything differs. It tells what a movement costs Redis and the broker, too: `onhand bench report` predicts more
    processes from that.
    """
    from bench.generate import LoadConfig
    from bench.scale import PARTS, ScaleConfig, ScaledDrain
    from bench.scale import scale as measured
    from cli.failures import MISUSED, CliError

    parts = [name for name in PARTS if part in {name, "both"}]
    if not parts:
        raise CliError(f"--part {part}: one of {', '.join(PARTS)}, both", MISUSED)
    load = LoadConfig(movements=movements, skus=skus, zipf_exponent=zipf)
    counts = [*(processes or []), *(more or [])] or COUNTS
    measuring = measured(ScaleConfig(load, counts, seed), parts, runs)
    print_runs(measuring, lambda run: isinstance(run, ScaledDrain) and run.differs)
