"""`onhand run`: flows, each until it is told to stop."""

import os
from typing import Annotated, Final

import typer

from cli.configuration import ConfigOption, load_configuration
from cli.failures import MISUSED, CliError
from cli.loading import loading
from cli.worker_group import Group

EXAMPLES: Final = (
    "onhand run availability --config examples/onhand.toml",
    "onhand run availability --config examples/onhand.toml --workers 4",
)
WORKERS_MAX: Final = 256


def availability(
    config: ConfigOption = None,
    workers: Annotated[
        int, typer.Option("--workers", "-w", min=1, max=WORKERS_MAX, help="Processes on this machine; may change.")
    ] = 1,
    addresses: Annotated[
        str,
        typer.Option(
            "--addresses",
            metavar="HOST:PORT,…",
            help="All processes of several machines, in the same order on each.",
        ),
    ] = "",
    first: Annotated[
        int, typer.Option("--first", min=0, help="With --addresses: the place of this machine's first process, from 0.")
    ] = 0,
    accept_truncated: Annotated[
        bool,
        typer.Option(
            "--accept-truncated",
            help="Begin although a partition's oldest records are gone: opening stock is in the rest.",
        ),
    ] = False,
) -> None:
    """Turn stock movements into what every channel may sell: in Redis, and on the output topics.

    It goes on where the state in `state.path` ends; one that dies is started again. The first SIGTERM or SIGINT drains
    it: input ends, everything read is written, exit code 0. A second one ends it at once (130).
    """
    all_addresses = _addresses(addresses, first, workers)
    with Group(workers) as group:  # they load their code beside what this process loads and looks at
        with loading():
            from cli.availability import Cluster, run_availability

        cluster = Cluster(group, all_addresses, first)
        run_availability(load_configuration(config, os.environ), cluster, accept_truncated=accept_truncated)


def _addresses(text: str, first: int, workers: int) -> list[str]:
    """The addresses of a cluster; CliError (exit 2) where the processes of this machine are not among them."""
    addresses = [address.strip() for address in text.split(",") if address.strip()]
    wrong = [address for address in addresses if not address.rpartition(":")[2].isdigit()]
    if wrong:
        raise CliError(f"--addresses: {wrong[0]!r} is no HOST:PORT", MISUSED)
    if addresses and first + workers > len(addresses):
        raise CliError(
            f"--addresses names {len(addresses)} processes, but those of this machine would be {first} to"
            f" {first + workers - 1} (--first, --workers): name all of them",
            MISUSED,
        )
    if first and not addresses:
        raise CliError("--first says something only with --addresses", MISUSED)
    return addresses
