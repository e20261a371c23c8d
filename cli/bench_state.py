"""`onhand bench state`: what a state takes in memory and on disk, and how long until it is back."""

from typing import Annotated, Final

import typer

from cli.bench import print_runs

EXAMPLES: Final = (
    "onhand bench state --runs 3",
    "onhand bench state --positions 100000 1000000 5000000",
)
SIZES: Final = (100_000, 1_000_000)
SIZE_MIN: Final = 400

Positions = Annotated[
    list[int] | None,
    typer.Option("--positions", min=SIZE_MIN, metavar="N …", help="Sizes, each with its runs [100000 1000000]."),
]
More = Annotated[list[int] | None, typer.Argument(min=SIZE_MIN, metavar="", help="Further sizes.", hidden=True)]


def state(
    positions: Positions = None,
    more: More = None,
    movements_per_position: Annotated[int, typer.Option(min=1, max=100, help="The opening stock among them.")] = 3,
    seed: Annotated[int, typer.Option(help="The same seed gives the same movements.")] = 1,
    runs: Annotated[int, typer.Option(min=1, max=100, help="Of every size; each prints a line.")] = 1,
) -> None:
    """Let real lanes build a state, and measure its memory, its snapshot, and a start from it.

    Each run has fresh processes and a Redis of its own. Five million positions take some 15 GB and half an hour.
    """
    from bench.state import StateConfig
    from bench.state import state as measured

    sizes = [*(positions or []), *(more or [])] or SIZES
    print_runs(run for size in sizes for run in measured(StateConfig(size, movements_per_position, seed), runs))
