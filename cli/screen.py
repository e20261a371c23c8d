"""What commands print: tables on a terminal, plain lines into a pipe, JSON where asked."""

import sys
from collections.abc import Sequence

import msgspec

COLUMN_GAP = "  "


class ReaderGone(Exception):  # noqa: N818  # nothing went wrong: `onhand tail … | head` has read enough
    """Nobody reads standard output any more."""


def print_line(text: str = "") -> None:
    """One line on standard output, at once, so that no reader of a pipe has to wait; ReaderGone without one."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderGone from None


def print_note(text: str) -> None:
    """One line on standard error: not part of the result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def print_json(value: object) -> None:
    """`value` as one line of JSON."""
    print_line(msgspec.json.encode(value).decode())


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; in a pipe the same as aligned lines, headed by the columns' names."""
    if sys.stdout.isatty():
        _print_rich_table(columns, rows)
        return
    for line in aligned([columns, *rows]):
        print_line(line)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of texts as lines whose columns stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        COLUMN_GAP.join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def plain(text: str) -> str:
    """`text` from outside, without what a terminal would obey."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _print_rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(text) for text in row))
    Console().print(table)
