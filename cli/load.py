"""`onhand load`: generates movements into the configured input, at a rate and from a seed."""

import os
import time
from pathlib import Path
from random import Random
from typing import Annotated, Final

import typer

from bench.generate import LoadConfig, Message, movements
from cli.configuration import ConfigOption, load_configuration
from cli.failures import MISUSED, CliError
from cli.load_targets import Target, open_target
from cli.pacing import Pace, Progress
from cli.screen import print_note
from schemas.times import format_ms, parse_ms

EXAMPLES: Final = (
    "onhand load --rate 1000 --movements 10000 --skus 500",
    "onhand load --movements 1000 --skus 50 --to movements.jsonl",
)
TICK_MS: Final = 1000
UNPACED_PER_SECOND: Final = 1_000_000  # of the stream's own time, so that it never runs ahead of the clock
ID_START: Final = len(b'{"id":"')


def load(
    *,
    movements_count: Annotated[
        int, typer.Option("--movements", min=1, metavar="N", help="How many, opening stock among them.")
    ] = 100_000,
    rate: Annotated[int | None, typer.Option(min=1, metavar="N", help="Movements per second [all it can].")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same movements.")] = 1,
    skus: Annotated[int, typer.Option(min=1, max=10_000_000, metavar="N", help="How many SKUs.")] = 1000,
    locations: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="How many locations: dc-1, dc-2, ….")
    ] = 4,
    zipf: Annotated[float, typer.Option(min=0, max=5, metavar="S", help="Skew of the SKUs; 0: all alike.")] = 0.0,
    duplicates: Annotated[
        float, typer.Option(min=0, max=100, metavar="PERCENT", help="Movements that are sent a second time.")
    ] = 0.0,
    late: Annotated[float, typer.Option(min=0, max=100, metavar="PERCENT", help="Movements dated earlier.")] = 0.0,
    late_minutes: Annotated[int, typer.Option(min=1, metavar="N", help="How much earlier at most.")] = 60,
    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="When the first one happened, RFC 3339 [now].")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write JSON lines there instead; - is standard output.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Generate movements into the configured input: a Kafka topic, a Redis stream or a file.

    They are sent when they are due, however slow the receiver is. A tick goes into every partition each second of
    the stream's own time. Ids begin with the start time, so that a second load is no duplicate of the first.
    """
    start_ms = _start_ms(start)
    with open_target(load_configuration(config, os.environ), to) as target:
        settings = LoadConfig(
            movements=movements_count,
            skus=skus,
            locations=locations,
            partitions=target.partitions,
            zipf_exponent=zipf,
            start_ms=start_ms,
            movements_per_second=rate or UNPACED_PER_SECOND,
            end_markers=False,
            duplicate_share=duplicates / 100,
            late_share=late / 100,
            late_ms_max=late_minutes * 60_000,
            tick_ms=TICK_MS,
        )
        _send_all(target, settings, Random(seed), rate)  # noqa: S311  # repeatable, not secret


def _start_ms(start: str | None) -> int:
    if start is None:
        return round(time.time() * 1000)
    try:
        return parse_ms(start)
    except ValueError as error:
        raise CliError(f"--start {start} is no RFC 3339 time with an offset, as {format_ms(0)} is", MISUSED) from error


def _send_all(target: Target, settings: LoadConfig, random: Random, rate: int | None) -> None:
    """Send every message when it is due, and say how it went, even when interrupted."""
    pace = Pace(rate, target.pass_on)
    tag = f"{settings.start_ms:x}-".encode()
    with Progress(f"to {target.name}", settings.movements) as progress:
        try:
            for message in movements(settings, random):
                is_movement = bool(message[1])
                if is_movement:
                    pace.wait()
                target.send(tagged(message, tag))
                progress.advance(is_movement)
            target.flush()
        finally:
            progress.stop()
            print_note(f"{target.sent} messages to {target.name}: {progress.summary()}{pace.summary()}")


def tagged(message: Message, tag: bytes) -> Message:
    """`message` with `tag` in front of its movement's id; ticks have none."""
    partition, key, payload = message
    if not key:
        return message
    return partition, key, payload[:ID_START] + tag + payload[ID_START:]
