"""`onhand run`: flows, each until it is told to stop."""

import os
from typing import Annotated, Final

import typer

from cli.configuration import ConfigOption, load_configuration

EXAMPLES: Final = ("onhand run availability --config examples/onhand.toml",)


def availability(
    config: ConfigOption = None,
    accept_truncated: Annotated[
        bool,
        typer.Option(
            "--accept-truncated",
            help="Begin although a partition's oldest records are gone: opening stock is in the rest.",
        ),
    ] = False,
) -> None:
    """Turn stock movements into what every channel may sell: in Redis, and on the output topics.

    The first SIGTERM or SIGINT drains it: input ends, everything read is written, exit code 0. A second one ends it
    at once (130).
    """
    from cli.availability import run_availability

    run_availability(load_configuration(config, os.environ), accept_truncated=accept_truncated)
