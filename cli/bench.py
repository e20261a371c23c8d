"""`onhand bench`: measure on this machine, checked by the oracle, one JSON line a run."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.screen import print_json, print_table

if TYPE_CHECKING:
    from bench.replenishment import ReplenishmentRun

DRAIN_EXAMPLES: Final = (
    "onhand bench drain --runs 5",
    "onhand bench drain --movements 100000 --zipf 1.1",
    "onhand bench drain --hot-share 0.5",
)
KERNEL_EXAMPLES: Final = ("onhand bench kernel --movements 100000 --runs 3",)

HEALING_EXAMPLES: Final = (
    "onhand bench healing --fault flush",
    "onhand bench healing --fault kill --rate 5000",
)
REPLENISHMENT_EXAMPLES: Final = ("onhand bench replenishment", "onhand bench replenishment --lead-time-days 14 --json")
REPLENISHMENT_COLUMNS: Final = ("target", "policy", "fill rate", "stock per SKU", "orders", "units lost", "of")

Movements = Annotated[int, typer.Option(min=1000, help="Movements, the opening stock among them.")]
Skus = Annotated[int, typer.Option(min=10, help="SKUs, each at 4 locations.")]
Zipf = Annotated[float, typer.Option(min=0, max=3, help="Skew of the SKUs; 0 is uniform.")]
HotShare = Annotated[float, typer.Option(min=0, max=1, help="Share of one SKU in all movements.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same movements.")]
Runs = Annotated[int, typer.Option(min=1, max=100, help="How often; each run prints a line.")]


def print_runs(runs: Iterable[object], is_bad: Callable[[Any], bool] = lambda _: False) -> None:
    """A line for each run when it is done; after all of them exit code 3 where one `is_bad`.

    What keeps a benchmark from measuring is told in one line.
    """
    from bench.drain import BenchError
    from bench.servers import ServerError
    from cli.failures import DIFFERENT, CliError

    bad = False
    try:
        for run in runs:
            print_json(run)
            bad |= is_bad(run)
    except (BenchError, ServerError) as error:
        raise CliError(str(error)) from error
    if bad:
        raise typer.Exit(DIFFERENT)


def drain(
    movements: Movements = 1_000_000,
    skus: Skus = 20_000,
    zipf: Zipf = 0.0,
    hot_share: HotShare = 0.0,
    seed: Seed = 1,
    runs: Runs = 1,
) -> None:
    """Drain a backlog of Kafka through the real flow into Redis, on servers of its own.

    Needs Java 17, Maven (the first time) and a Redis or Valkey server. Every run is compared with the oracle, SKU by
    SKU and crossing by crossing; exit code 3 where anything differs.
    """
    from bench.drain import drain
    from bench.generate import LoadConfig

    config = LoadConfig(movements=movements, skus=skus, zipf_exponent=zipf, hot_share=hot_share)
    print_runs(drain(config, seed, runs), lambda run: run.differs)


def kernel(
    movements: Movements = 1_000_000, skus: Skus = 20_000, zipf: Zipf = 0.0, seed: Seed = 1, runs: Runs = 1
) -> None:
    """Run movements through route and lanes in memory, without any I/O, beside decoding the same bytes alone."""
    from bench.generate import LoadConfig
    from bench.kernel import kernel

    print_runs(kernel(LoadConfig(movements=movements, skus=skus, zipf_exponent=zipf), seed, runs))


def replenishment(
    lead_time_days: Annotated[int, typer.Option(min=0, max=90, help="From an order to the goods.")] = 7,
    review_days: Annotated[int, typer.Option(min=0, max=90, help="Days that an order lasts beyond that.")] = 7,
    first_units: Annotated[
        int, typer.Option(min=1, help="Take part: SKUs that sold this many in the first month.")
    ] = 100,
    lines: Annotated[Path | None, typer.Option(help="CSV of sales lines [the real ones of seven months].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON a run.")] = False,
) -> None:
    """Buy for months of real sales by proposals, and by reorder points set once.

    Both begin with the same stock and aim at the same service (90, 95, 98 %); the fixed points follow from the first
    month, the proposals are those of a real lane. What is not on the shelf is lost. Figures are of the months after the
    first. Nothing is random: the same lines give the same figures.
    """
    from bench.drain import BenchError
    from bench.replenishment import LINES_PATH, ReplenishmentConfig, ReplenishmentRun, replenishment
    from cli.failures import CliError

    config = ReplenishmentConfig(lead_time_days=lead_time_days, review_days=review_days, first_units_min=first_units)
    runs: list[ReplenishmentRun] = []
    try:
        for run in replenishment(LINES_PATH if lines is None else lines, config):
            runs.append(run)
            if as_json:
                print_json(run)
    except BenchError as error:
        raise CliError(str(error)) from error
    if not as_json:
        print_table(REPLENISHMENT_COLUMNS, [_replenishment_row(run) for run in runs])


def healing(  # noqa: PLR0917  # each is an option of the command
    fault: Annotated[
        str,
        typer.Option(help="kill (a worker), flush (Redis), redis-away (frozen for a minute), backlog; or nothing."),
    ] = "flush",
    rate: Annotated[int, typer.Option(min=1, help="Movements sent a second.")] = 10_000,
    skus: Annotated[int, typer.Option(min=1, max=999_999, help="How many SKUs.")] = 20_000,
    snapshot_seconds: Annotated[float, typer.Option(min=0.05, help="How often the state is written.")] = 10.0,
    settle_seconds: Annotated[float, typer.Option(min=0, help="How long the flow runs before the fault.")] = 10.0,
    backlog: Annotated[int, typer.Option(min=1, help="Movements of the backlog.")] = 5_000_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same movements.")] = 1,
    runs: Annotated[int, typer.Option(min=1, help="Each run prints one JSON line.")] = 3,
) -> None:
    """Hurt a flow under load, and measure until it is right again; memory all the while.

    Each run has servers of its own. After a flush it is right when every SKU is in Redis again, after the others when
    nothing is behind: at a rate that the machine cannot keep up with it never is. A backlog is read from its beginning.
    Beside a Redis that is away, nothing at all for as long shows what memory the state itself grows by.
    """
    from bench.healing import FAULTS, HealingConfig
    from bench.healing import healing as measured
    from cli.failures import MISUSED, CliError

    if fault not in FAULTS:
        raise CliError(f"--fault {fault}: one of {', '.join(FAULTS)}", MISUSED)
    config = HealingConfig(rate, skus, snapshot_seconds, settle_seconds, backlog)
    print_runs(measured(config, FAULTS[fault], seed, runs))


def _replenishment_row(run: "ReplenishmentRun") -> list[str]:
    return [
        f"{run.service_level_percent:g} %",
        run.policy,
        f"{run.fill_rate_percent:.2f} %",
        f"{run.stock_units_mean:.1f}",
        str(run.orders),
        str(run.units_lost),
        f"{run.skus} SKUs, {run.days} days",
    ]
