"""`onhand rules diff`: which SKUs and channels other rules would move, and by how much, before they are pushed."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from redis import Redis

from cli.configuration import ConfigOption, Configuration, load_configuration, load_rules
from cli.failures import CliError, one_line
from cli.pacing import Progress
from cli.screen import plain, print_json, print_line, print_note, print_table
from operators.rules import RuleBook
from operators.what_if import promised_under
from schemas.outputs import Explanation
from sinks.redis_keys import parse_explanation

EXAMPLES: Final = ("onhand rules diff", "onhand rules diff new-rules.toml --channel web --json")
SKUS_AT_ONCE: Final = 500
SHOWN_MAX: Final = 30


class Move(msgspec.Struct):
    """A channel of a SKU that would show another number; None: it has no number."""

    sku: str
    channel: str
    now: int | None
    then: int | None

    @property
    def units(self) -> int:
        """How many more the channel might promise."""
        return (self.then or 0) - (self.now or 0)


class Comparison(msgspec.Struct):
    """What would change, over all SKUs that were explained; the largest changes first."""

    skus: int
    moved_skus: int
    moves: list[Move]


def diff(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="The rules to compare with [rules.path].")] = None,
    channel: Annotated[str | None, typer.Option(metavar="CHANNEL", help="One channel or account [all].")] = None,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with every change.")] = False,
) -> None:
    """Show which SKUs and channels a file of rules would move, by how much, before it is pushed.

    Computed from what the running flow has explained, as of each SKU's last version and its home's clock then.
    """
    configuration = load_configuration(config, os.environ)
    book = RuleBook(load_rules(file or configuration.rules_path))
    comparison = _compare(configuration, book, channel)
    if as_json:
        print_json(comparison)
    else:
        _print(comparison)


def moves_of(book: RuleBook, explanation: Explanation) -> list[Move]:
    """The channels of one SKU that `book` would move."""
    now = {name: channel.promised for name, channel in explanation.channels.items()}
    then = promised_under(book, explanation)
    names = dict.fromkeys((*now, *then))
    return [
        Move(explanation.sku, name, now.get(name), then.get(name)) for name in names if now.get(name) != then.get(name)
    ]


def _compare(configuration: Configuration, book: RuleBook, channel: str | None) -> Comparison:
    from cli.connections import redis_client

    comparison = Comparison(0, 0, [])
    with redis_client(configuration) as client:
        keys = _keys(client, configuration.settings.redis.explain_prefix)
        with Progress("SKUs compared", len(keys)) as progress:
            for explanation in _explanations(client, keys):
                comparison.skus += 1
                moves = [move for move in moves_of(book, explanation) if channel in (None, move.channel)]
                comparison.moved_skus += bool(moves)
                comparison.moves += moves
                progress.advance(counts=True)
    if not comparison.skus:
        print_note("nothing was explained yet: is `onhand run availability` running?")
    comparison.moves.sort(key=lambda move: (-abs(move.units), move.sku, move.channel))
    return comparison


def _keys(client: Redis, prefix: str) -> list[bytes]:
    """The keys of all explanations, each once: a scan may tell one twice."""
    pattern = "".join(f"[{letter}]" if letter in "*?[]^\\" else letter for letter in prefix) + "*"
    return list(dict.fromkeys(client.scan_iter(pattern, count=SKUS_AT_ONCE)))


def _explanations(client: Redis, keys: list[bytes]) -> Iterator[Explanation]:
    for start in range(0, len(keys), SKUS_AT_ONCE):
        yield from _read(client, keys[start : start + SKUS_AT_ONCE])


def _read(client: Redis, keys: list[bytes]) -> Iterator[Explanation]:
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hget(key, "doc")
        documents = pipeline.execute()
    for key, document in zip(keys, documents, strict=True):
        try:
            explanation = parse_explanation(document)
        except (ValueError, msgspec.DecodeError) as error:
            raise CliError(f"{key.decode(errors='replace')} in Redis is no explanation: {one_line(error)}") from error
        if explanation is not None:
            yield explanation


def _print(comparison: Comparison) -> None:
    shown = comparison.moves[:SHOWN_MAX]
    if shown:
        rows = [
            (plain(move.sku), plain(move.channel), _units(move.now), _units(move.then), f"{move.units:+d}")
            for move in shown
        ]
        print_table(("SKU", "CHANNEL", "NOW", "THEN", "CHANGE"), rows)
    if len(comparison.moves) > len(shown):
        print_line(f"and {len(comparison.moves) - len(shown)} more; --json lists all")
    for name in sorted({move.channel for move in comparison.moves}):
        mine = [move.units for move in comparison.moves if move.channel == name]
        up, down = sum(units for units in mine if units > 0), sum(units for units in mine if units < 0)
        print_line(f"{plain(name)}: {len(mine)} SKUs, {up:+d} and {down:+d} units")
    print_line(f"{comparison.moved_skus} of {comparison.skus} SKUs would change")


def _units(units: int | None) -> str:
    return "-" if units is None else str(units)
