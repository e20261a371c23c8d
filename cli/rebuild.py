"""`onhand rebuild redis`: refills Redis from the compacted topic inventory.availability, beside a flow or alone."""

import os
import time
from typing import Annotated, Final

import msgspec
import typer

from cli.configuration import ConfigOption, Configuration, load_configuration
from cli.failures import MISUSED, CliError
from cli.screen import plain, print_json, print_line, print_note
from schemas.topics import AVAILABILITY

EXAMPLES: Final = ("onhand rebuild redis", "onhand rebuild redis --json")


class Rebuilt(msgspec.Struct):
    """What was done: records read, hashes written, and what was left out, with the reason."""

    incarnation: int
    records: int
    written: int
    refused: int
    older: int
    unreadable: int
    seconds: float


def redis(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Refill Redis from the topic inventory.availability, for when its data is lost or it is a new server.

    Only what is newer than what Redis has gets in, so it may be done while a flow runs, and while channels read.
    Ended in between, it goes on near there when it is started again.
    """
    configuration = load_configuration(config, os.environ)
    _check_output(configuration)
    from cli.refilling import refill

    begun = time.monotonic()
    done = refill(configuration, print_note)
    seconds = round(time.monotonic() - begun, 3)
    rebuilt = Rebuilt(done.incarnation, done.records, done.written, done.refused, done.older, done.unreadable, seconds)
    if as_json:
        print_json(rebuilt)
    else:
        _print(rebuilt)
    if done.unreadable:
        raise CliError(
            f"{done.unreadable} records cannot be read, the first is {plain(done.first_unreadable or '')}; "
            "`onhand verify` names the SKUs that Redis lacks"
        )


def _check_output(configuration: Configuration) -> None:
    kind = configuration.settings.output.kind
    if kind != "kafka":
        raise CliError(
            f'output.kind is "{kind}", so there is no topic {AVAILABILITY.name} to rebuild from: '
            "start `onhand run availability` anew, which writes Redis",
            MISUSED,
        )


def _print(rebuilt: Rebuilt) -> None:
    print_line(f"{rebuilt.records} records of {AVAILABILITY.name} read in {rebuilt.seconds:.1f} s")
    print_line(f"{rebuilt.written} SKUs written, {rebuilt.refused} refused: Redis had them as new, or newer")
    if rebuilt.older:
        print_line(f"{rebuilt.older} records left out: states before {rebuilt.incarnation} wrote them")
