"""Real sales lines of a wholesaler as movements: opening stock, sales, cancellations, deliveries and ticks.

A line is `invoice,sku,quantity,time,country`, in the order of time. What is sold is `shipped`; an invoice that begins
with C is a cancellation, `returned`; a negative quantity on any other is `adjusted`. Nothing is cleaned: repeated
lines stay, each with an id of its own, and a quantity of 0 is passed on. Lines that are no goods (postage, fees,
vouchers, manual entries) have no shelf, so they are passed on without a location, and the flow sets them aside as dead
letters with the reason `missing_field`.

The data says nothing of stock. So every position opens with what it sold in the first weeks and a little more, and
every week it gets what it sold in the week before: what begins to sell faster runs low, and out.
"""

import argparse
import csv
import gzip
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from schemas.times import format_ms

Message = tuple[bytes, bytes]  # key, payload; ticks have an empty key
Position = tuple[str, str]  # SKU, location
HEADER: Final = ("invoice", "sku", "quantity", "time", "country")
ARTICLE: Final = re.compile(r"[0-9]{5}[A-Za-z]{0,2}|DCGS[A-Z0-9]+")  # what a code of goods looks like
SOURCE: Final = "shop/online-retail"
HOME_COUNTRIES: Final = frozenset({"United Kingdom", "Channel Islands", "EIRE", "Unspecified"})
OPENING_DAYS: Final = 14
OPENING_UNITS_MIN: Final = 10
DELIVERY_DAYS: Final = 7
TICK_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000


class Line(NamedTuple):
    """One line of an invoice; `number` counts the invoice's lines from 1, `time_ms` is since 1970."""

    invoice: str
    number: int
    sku: str
    quantity: int
    time_ms: int
    country: str

    @property
    def position(self) -> Position:
        """Where the goods lie: exports leave from a warehouse on the continent."""
        return self.sku, "dc-uk" if self.country in HOME_COUNTRIES else "dc-eu"


def read_lines(path: Path) -> list[Line]:
    """The lines of a CSV file, compressed if its name ends in .gz; ValueError where it has another header."""
    with _opened(path) as file:
        rows = csv.reader(file)
        header = tuple(next(rows, ()))
        if header != HEADER:
            raise ValueError(f"{path} begins with {header}, not with {HEADER}")
        numbers: Counter[str] = Counter()
        lines = []
        for invoice, sku, quantity, time, country in rows:
            numbers[invoice] += 1
            lines.append(Line(invoice, numbers[invoice], sku, int(quantity), london_ms(time), country))
    return lines


def movements(lines: list[Line]) -> Iterator[Message]:
    """Opening stock, then every line with ticks on the hour and deliveries between, in the order of time."""
    if not lines:
        return
    begin_ms = lines[0].time_ms - lines[0].time_ms % DAY_MS
    for position, units in opening_stock(lines).items():
        yield _received("opening", position, units, begin_ms)
    delivery_ms = begin_ms + DELIVERY_DAYS * DAY_MS
    tick_ms = begin_ms
    sold: Counter[Position] = Counter()
    for line in lines:
        if line.time_ms >= delivery_ms:
            yield from _deliveries(sold, delivery_ms)
            sold.clear()
            delivery_ms += DELIVERY_DAYS * DAY_MS
        if line.time_ms >= tick_ms:
            hour_ms = line.time_ms - line.time_ms % TICK_MS
            yield b"", f'{{"kind":"tick","time":"{format_ms(hour_ms)}"}}'.encode()
            tick_ms = hour_ms + TICK_MS
        if ARTICLE.fullmatch(line.sku):
            sold[line.position] += line.quantity
        yield line.sku.encode(), _payload(line)


def opening_stock(lines: list[Line]) -> dict[Position, int]:
    """Units of each position before the first line, in the order in which the positions first appear."""
    until_ms = lines[0].time_ms + OPENING_DAYS * DAY_MS
    sold: Counter[Position] = Counter()
    for line in lines:
        if ARTICLE.fullmatch(line.sku):
            sold[line.position] += max(0, line.quantity) if line.time_ms < until_ms else 0
    return {position: OPENING_UNITS_MIN + units for position, units in sold.items()}


def london_ms(text: str) -> int:
    """Milliseconds since 1970 of a local British time such as `2011-05-01 09:30:00`; the doubled hour is summer's."""
    local = datetime.fromisoformat(text).replace(tzinfo=UTC)
    begin, end = _last_sunday(local.year, 3), _last_sunday(local.year, 10)
    if begin + timedelta(hours=1) <= local < end + timedelta(hours=2):
        local -= timedelta(hours=1)
    return int(local.timestamp()) * 1000


def write_month(source: Path, month: str, target: Path) -> None:
    """Copy the lines of `month` (`2010-12`); the same bytes whenever it is done."""
    with _opened(source) as file:
        header, *rows = file.read().splitlines()
    chosen = [row for row in rows if row.split(",")[3].startswith(month)]
    text = "\n".join([header, *chosen, ""])
    target.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def _opened(path: Path) -> io.TextIOBase:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.GzipFile(path), encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _last_sunday(year: int, month: int) -> datetime:
    last = datetime(year, month, 31, tzinfo=UTC)
    return last - timedelta(days=last.isoweekday() % 7)


def _received(what: str, position: Position, units: int, time_ms: int) -> Message:
    """Goods for a position, `what` being the delivery's own name."""
    sku, location = position
    body: dict[str, str | int] = {
        "id": f"{what}-{sku}-{location}",
        "source": f"wms/{location}",
        "kind": "received",
        "sku": sku,
        "location": location,
        "quantity": units,
        "time": format_ms(time_ms),
        "document": what,
    }
    return sku.encode(), _json(body)


def _deliveries(sold: Counter[Position], time_ms: int) -> Iterator[Message]:
    """What was sold since the last delivery comes in again."""
    day = format_ms(time_ms)[:10]
    for position, units in sold.items():
        if units > 0:
            yield _received(f"delivery-{day}", position, units, time_ms)


def _payload(line: Line) -> bytes:
    """The line as a movement; without a location where it is no goods."""
    is_goods = ARTICLE.fullmatch(line.sku) is not None
    body: dict[str, str | int] = {
        "id": f"{line.invoice}-{line.number}",
        "source": SOURCE,
        **_kind_and_quantity(line),
        "sku": line.sku,
        **({"location": line.position[1]} if is_goods else {}),
        "time": format_ms(line.time_ms),
        "document": line.invoice,
        "line": str(line.number),
    }
    return _json(body)


def _kind_and_quantity(line: Line) -> dict[str, str | int]:
    if line.invoice.startswith("C"):
        return {"kind": "returned", "quantity": -line.quantity}
    if line.quantity < 0:
        return {"kind": "adjusted", "quantity": line.quantity, "reason": "negative sales line"}
    return {"kind": "shipped", "quantity": line.quantity}


def _json(body: dict[str, str | int]) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def main() -> None:
    """Print movements as JSON lines, or cut a month out."""
    parser = argparse.ArgumentParser(prog="python -m bench.retail", description=main.__doc__)
    parser.add_argument("csv", type=Path, help="sales lines, e.g. examples/movements/online_retail_2010-12.csv.gz")
    parser.add_argument("--month", help="cut this month out, e.g. 2010-12, instead of printing movements")
    parser.add_argument("--to", type=Path, help="where the month goes (.csv.gz)")
    arguments = parser.parse_args()
    if arguments.month:
        write_month(arguments.csv, arguments.month, arguments.to)
        return
    for _, payload in movements(read_lines(arguments.csv)):
        sys.stdout.buffer.write(payload + b"\n")


if __name__ == "__main__":
    main()
