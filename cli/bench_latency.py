"""`onhand bench latency`: how soon a movement can be read from Redis, at fixed rates, one JSON line a run."""

from typing import Annotated, Final

import typer

from cli.bench import HotShare, Runs, Seed, Skus, Zipf, print_runs

EXAMPLES: Final = (
    "onhand bench latency --runs 5",
    "onhand bench latency --rate 5000 --seconds 30 --hot-share 0.5",
)
RATES: Final = [1000, 10_000, 100_000]


def latency(  # noqa: PLR0917  # each is an option of the command
    rate: Annotated[list[int], typer.Option(min=1, max=1_000_000, help="Movements a second; may be repeated.")] = RATES,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="How long is measured.")] = 60.0,
    warm_up_seconds: Annotated[float, typer.Option(min=0, max=3600, help="Told apart, before that.")] = 10.0,
    skus: Skus = 20_000,
    zipf: Zipf = 0.0,
    hot_share: HotShare = 0.0,
    seed: Seed = 1,
    runs: Runs = 1,
) -> None:
    """Measure from the instant a movement was to be sent until Redis shows it.

    Each run has servers of its own. The sender keeps its schedule whatever the flow does, and what waits is counted
    from its place in the schedule. bench/README.md says what the figures mean. Exit code 3 where a run is not valid.
    """
    from bench.latency import LatencyConfig
    from bench.latency import latency as measured

    config = LatencyConfig(seconds, skus, zipf, hot_share, warm_up_seconds)
    print_runs(measured(config, rate, seed, runs), lambda run: not run.valid)
