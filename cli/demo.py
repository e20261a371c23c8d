"""`onhand demo`: a month of real sales through the real flow, with nothing installed beside the package."""

from pathlib import Path
from typing import Annotated, Final

import typer

EXAMPLES: Final = ("onhand demo", "onhand demo --seconds 10 --rate 1000")


def demo(
    seconds: Annotated[float, typer.Option(min=1, max=3600, metavar="N", help="How long it takes in all.")] = 30.0,
    file: Annotated[
        Path | None, typer.Option("--movements", metavar="FILE", help="Movements as JSON lines, or sales as .csv(.gz).")
    ] = None,
    rate: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Movements per second [so that all fit in].")
    ] = None,
) -> None:
    """Play a month of a wholesaler's sales through the real flow, into a Redis of its own, and watch it.

    It needs neither Kafka nor Redis, ends by itself, and leaves what channels read to be looked at afterwards.
    """
    from cli.demo_play import play_demo

    play_demo(seconds, file, rate)
