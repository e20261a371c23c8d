"""`onhand bench`: measure on this machine, checked by the oracle, one JSON line a run."""

from typing import Annotated, Final

import typer

DRAIN_EXAMPLES: Final = ("onhand bench drain --runs 5", "onhand bench drain --movements 100000 --zipf 1.1")
KERNEL_EXAMPLES: Final = ("onhand bench kernel --movements 100000 --runs 3",)

Movements = Annotated[int, typer.Option(min=1000, help="Movements, the opening stock among them.")]
Skus = Annotated[int, typer.Option(min=10, help="SKUs, each at 4 locations.")]
Zipf = Annotated[float, typer.Option(min=0, max=3, help="Skew of the SKUs; 0 is uniform.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same movements.")]
Runs = Annotated[int, typer.Option(min=1, max=100, help="How often; each run prints a line.")]


def drain(
    movements: Movements = 1_000_000, skus: Skus = 20_000, zipf: Zipf = 0.0, seed: Seed = 1, runs: Runs = 1
) -> None:
    """Drain a backlog of Kafka through the real flow into Redis, on servers of its own.

    Needs Java 17, Maven (the first time) and a Redis or Valkey server. Every run is compared with the oracle, SKU by
    SKU and crossing by crossing; exit code 3 where anything differs.
    """
    import msgspec

    from bench.drain import BenchError, drain
    from bench.generate import LoadConfig
    from bench.servers import ServerError
    from cli.failures import DIFFERENT, CliError

    config = LoadConfig(movements=movements, skus=skus, zipf_exponent=zipf)
    differs = False
    try:
        for run in drain(config, seed, runs):
            typer.echo(msgspec.json.encode(run).decode())
            differs |= bool(run.wrong_skus or run.missing_crossings or run.extra_crossings or run.dead_letters)
    except (BenchError, ServerError) as error:
        raise CliError(str(error)) from error
    if differs:
        raise typer.Exit(DIFFERENT)


def kernel(
    movements: Movements = 1_000_000, skus: Skus = 20_000, zipf: Zipf = 0.0, seed: Seed = 1, runs: Runs = 1
) -> None:
    """Run movements through route and lanes in memory, without any I/O, beside decoding the same bytes alone."""
    import msgspec

    from bench.generate import LoadConfig
    from bench.kernel import kernel

    for run in kernel(LoadConfig(movements=movements, skus=skus, zipf_exponent=zipf), seed, runs):
        typer.echo(msgspec.json.encode(run).decode())
