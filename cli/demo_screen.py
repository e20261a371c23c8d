"""The demo's picture: a live table of 80 columns on a terminal, a line every few seconds in a pipe."""

import sys
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Self

from rich.box import SIMPLE
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.demo_sight import IN_STOCK, LOW, OUT, Sight
from cli.screen import plain, print_line
from schemas.outputs import Threshold

WIDTH: Final = 80
PICTURES_PER_SECOND: Final = 4
PLAIN_SECONDS: Final = 3.0
REASONS_SHOWN: Final = 3
TIME_FIELD: Final = b'"time":"'
TIME_LENGTH: Final = len("2010-12-01T08:26")
COLOURS: Final = {IN_STOCK: "green", LOW: "yellow", OUT: "red"}


class DemoScreen:
    """Shows `sight` and how many movements were sent, while it is entered."""

    def __init__(self, sight: Sight, channel: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._sent = 0
        self._payload = b""
        self._sight = sight
        self._channel = channel
        self._total = total
        self._clock = clock
        self._begun = self._told = clock()
        self._ended: float | None = None
        self._live = self._new_live() if sys.stdout.isatty() else None

    def _new_live(self) -> Live:
        console = Console(width=min(WIDTH, Console().width))
        return Live(console=console, get_renderable=self._picture, refresh_per_second=PICTURES_PER_SECOND)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def sent_one(self, payload: bytes) -> None:
        """Count one more movement; in a pipe, print a line when the last one is a few seconds old."""
        self._sent += 1
        self._payload = payload
        if self._live is None and self._clock() - self._told >= PLAIN_SECONDS:
            self._told = self._clock()
            print_line(self.line())

    def stop_clock(self) -> None:
        """All that is sent has been sent; the rate stays as it is."""
        self._ended = self._clock()

    def summary(self) -> Iterator[str]:
        """What the whole of it came to, line by line."""
        levels = self._sight.levels()
        yield f"{self._sent:,} of {self._total:,} movements in {self._seconds():.1f} s ({self._rate():,.0f}/s)"
        samples = len(self._sight.latencies_ms)
        unseen = f", {self._sight.unseen} not seen in time" if self._sight.unseen else ""
        yield f"from written to readable in Redis: {self.latency()} ({samples} samples{unseen})"
        yield f"{self._channel}: {levels[IN_STOCK]} SKUs in stock, {levels[LOW]} low, {levels[OUT]} out of stock"
        yield f"dead letters: {self._dead_letters()}"

    def line(self) -> str:
        """The whole picture as one line."""
        levels = self._sight.levels()
        return (
            f"{self._seconds():3.0f} s  {self._sent} movements ({self._rate():.0f}/s)  {self.latency()}  "
            f"{self._channel}: {levels[IN_STOCK]} in stock, {levels[LOW]} low, {levels[OUT]} out  "
            f"dead letters: {sum(self._sight.dead_letters.values())}"
        )

    def latency(self) -> str:
        """How soon a channel reads a movement."""
        half, most = self._sight.latency_ms(50), self._sight.latency_ms(99)
        return "latency: none seen yet" if half is None or most is None else f"p50 {half:.1f} ms, p99 {most:.1f} ms"

    def _seconds(self) -> float:
        return max((self._ended or self._clock()) - self._begun, 1e-9)

    def _rate(self) -> float:
        return self._sent / self._seconds()

    def _picture(self) -> RenderableType:
        title = Text.assemble(("onhand", "bold"), f"  {self._sent:,} of {self._total:,} movements", f"  {self._day()}")
        return Group(title, self._figures(), self._crossings())

    def _day(self) -> str:
        """The time that the movement sent last says of itself."""
        _, _, rest = self._payload.partition(TIME_FIELD)
        return plain(rest[:TIME_LENGTH].decode(errors="replace").replace("T", " "))

    def _figures(self) -> Table:
        levels = self._sight.levels()
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_row("movements", f"{self._rate():,.0f}/s over {self._seconds():.0f} s")
        table.add_row("written to readable", f"{self.latency()}  ({len(self._sight.latencies_ms)} samples)")
        counts = [Text(f"{levels[level]:,} {level}", style=COLOURS[level]) for level in (IN_STOCK, LOW, OUT)]
        table.add_row(f"SKUs for {self._channel}", Text("  ").join(counts))
        table.add_row("dead letters", self._dead_letters())
        return table

    def _dead_letters(self) -> str:
        reasons = self._sight.dead_letters.most_common(REASONS_SHOWN)
        return ", ".join(f"{count} {reason}" for reason, count in reasons) or "none"

    def _crossings(self) -> Table:
        table = Table("SKU", "CHANNEL", "FROM", "TO", "SELLABLE", "TIME", box=SIMPLE, pad_edge=False, width=WIDTH)
        for crossing in reversed(tuple(self._sight.crossings)):
            table.add_row(*_crossing_row(crossing))
        return table


def _crossing_row(crossing: Threshold) -> tuple[RenderableType, ...]:
    to = Text(crossing.to, style=COLOURS[crossing.to])
    time_text = crossing.time[:16].replace("T", " ")
    return plain(crossing.sku), crossing.channel or "", crossing.from_, to, str(crossing.sellable), time_text
