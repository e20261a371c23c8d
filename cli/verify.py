"""`onhand verify`: Redis and the topic of availability against a replay of the movements; what differs is listed."""

import os
import time
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from cli.configuration import ConfigOption, load_configuration
from cli.failures import DIFFERENT, CliError
from cli.screen import plain, print_json, print_line, print_table

if TYPE_CHECKING:
    from cli.comparing import Cell, Difference
    from cli.verifying import Outcome, Tally, Verified

EXAMPLES: Final = ("onhand verify", "onhand verify --json --limit 1000")
LIMIT: Final = 50
COLUMNS: Final = ("SKU", "WHERE", "REASON", "FIELD", "EXPECTED", "FOUND")
WORDS: Final = {
    "moved": "moved on meanwhile",
    "undecided": "undecided: moved in several partitions",
    "left_over": "left over from older states",
    "different": "different",
}


def verify(
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="List at most N differences; all are counted.")
    ] = LIMIT,
    config: ConfigOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each difference as one JSON object, and the summary as the last.")
    ] = False,
) -> None:
    """Compute every number again from the movements, and compare it with Redis and inventory.availability.

    Changes nothing, and may be done while a flow runs and stock moves. Exit code 3 where something differs.
    """
    configuration = load_configuration(config, os.environ)
    from cli.verifying import verify_all

    begun = time.monotonic()
    outcome = verify_all(configuration, limit)
    outcome.summary.seconds = round(time.monotonic() - begun, 3)
    if as_json:
        for line in (*outcome.shown, outcome.summary):
            print_json(line)
    else:
        _print(outcome, configuration.settings.output.kind)
    if outcome.summary.differences:
        raise CliError(_verdict(outcome), DIFFERENT)


def _print(outcome: "Outcome", output_kind: str) -> None:
    summary = outcome.summary
    if outcome.shown:
        print_table(COLUMNS, [_row(difference) for difference in outcome.shown])
    if summary.differences > len(outcome.shown):
        print_line(f"and {summary.differences - len(outcome.shown)} more; --limit N lists more")
    print_line(f"{summary.records} records replayed, {summary.skus} SKUs compared, in {summary.seconds:.1f} s")
    print_line(f"Redis: {_told(summary.redis)}")
    print_line(
        f"topic: {_told(summary.topic)}" if summary.topic else f'topic: left out, output.kind is "{output_kind}"'
    )
    print_line(f"health: {summary.health}")


def _row(difference: "Difference") -> tuple[str, ...]:
    return (
        plain(difference.sku), difference.where, difference.reason, plain(difference.field),
        _cell(difference.expected), _cell(difference.found),
    )  # fmt: skip


def _cell(cell: "Cell") -> str:
    return "-" if cell is None else plain(str(cell))


def _told(tally: "Tally") -> str:
    """`1000 equal, 3 moved on meanwhile`."""
    counts = msgspec.structs.asdict(tally)
    others = [f"{counts[name]} {words}" for name, words in WORDS.items() if counts[name]]
    return ", ".join([f"{tally.equal} equal", *others])


def _verdict(outcome: "Outcome") -> str:
    summary: Verified = outcome.summary
    skus = summary.redis.different + (summary.topic.different if summary.topic else 0)
    fields = "one field differs" if summary.differences == 1 else f"{summary.differences} fields differ"
    return f"{fields}, at {skus} SKUs; docs/verifying.md says what each reason means and what to do"
