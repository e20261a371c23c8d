"""`onhand bench peers`: the same job on onhand and on other engines, in turn, one JSON line a run."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.bench import Movements, Runs, Seed, Skus, Zipf, print_runs
from cli.screen import print_note

if TYPE_CHECKING:
    from bench.comparison import Backlog, ComparisonRun
    from bench.generate import LoadConfig

EXAMPLES: Final = (
    "onhand bench peers --runs 5",
    "onhand bench peers --zipf 1.1 --engines onhand,loop",
    "onhand bench peers --dataset retail",
)
DATASETS: Final = ("generated", "retail")


def peers(  # noqa: PLR0917  # each is an option of the command
    movements: Movements = 1_000_000,
    skus: Skus = 20_000,
    zipf: Zipf = 0.0,
    seed: Seed = 1,
    runs: Runs = 1,
    engines: Annotated[str, typer.Option(help="Which ones, in which order.")] = "onhand,loop,bytewax,quix",
    dataset: Annotated[
        str, typer.Option(help="generated, or retail: real sales lines, at most so many.")
    ] = "generated",
    lines: Annotated[Path | None, typer.Option(help="CSV of sales lines [the real ones of seven months].")] = None,
) -> None:
    """Drain a backlog of Kafka into Redis with onhand and with other engines, in turn, on servers of its own.

    Needs Java 17, Maven (the first time) and a Redis or Valkey server, and gives each peer an environment of its own
    under .cache/peers. Every run is compared with the oracle, SKU by SKU and crossing by crossing; exit code 3 where
    anything differs.
    """
    from bench.comparison import ENGINES, compare
    from bench.generate import LoadConfig
    from cli.failures import MISUSED, CliError

    chosen = engines.split(",")
    if unknown := [engine for engine in chosen if engine not in ENGINES]:
        raise CliError(f"--engines {unknown[0]}: one of {', '.join(ENGINES)}", MISUSED)
    if dataset not in DATASETS:
        raise CliError(f"--dataset {dataset}: one of {', '.join(DATASETS)}", MISUSED)
    config = LoadConfig(movements=movements, skus=skus, zipf_exponent=zipf)

    def measured() -> "Iterator[ComparisonRun]":
        pythons = _pythons(chosen)
        yield from compare(_backlog(dataset, config, seed, lines), pythons, chosen, runs)

    print_runs(measured(), lambda run: run.differs)


def _pythons(engines: list[str]) -> dict[str, Path]:
    """The interpreter of each peer, its environment made where it is missing."""
    from bench.comparison import PEERS
    from bench.environments import is_made, python_of

    pythons = {}
    for engine in dict.fromkeys(engine for engine in engines if engine in PEERS):
        if not is_made(engine):
            print_note(f"making the environment of {engine}: this takes a minute, once")
        pythons[engine] = python_of(engine)
    return pythons


def _backlog(dataset: str, config: "LoadConfig", seed: int, lines: Path | None) -> "Backlog":
    from bench.comparison import generated_backlog, retail_backlog
    from bench.replenishment import LINES_PATH

    if dataset == "retail":
        return retail_backlog(LINES_PATH if lines is None else lines, config.movements)
    return generated_backlog(config, seed)
