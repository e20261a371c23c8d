"""Sending at a rate whatever the receiver does, and showing how far it has come."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

NAP_SECONDS_MIN: Final = 0.002  # shorter waits are saved up: sleeping costs more than it is worth
PLAIN_SECONDS: Final = 5.0
ADVANCE_STEP: Final = 200


class Pace:
    """Waits until the next message is due: the n-th at n / rate seconds after the first, late ones at once.

    `before_nap` is called before every wait.
    """

    def __init__(
        self,
        rate: float | None,
        before_nap: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval_seconds = 1 / rate if rate else 0.0
        self._before_nap = before_nap
        self._clock = clock
        self._sleep = sleep
        self._begun: float | None = None
        self._number = 0
        self.late_seconds_max = 0.0

    def wait(self) -> None:
        """Wait for the next one; no rate, no waiting."""
        if not self._interval_seconds:
            return
        now = self._clock()
        if self._begun is None:
            self._begun = now
        early_seconds = self._begun + self._number * self._interval_seconds - now
        self._number += 1
        if early_seconds > NAP_SECONDS_MIN:
            self._before_nap()
            self._sleep(early_seconds)
        self.late_seconds_max = max(self.late_seconds_max, -early_seconds)

    def summary(self) -> str:
        """How late the latest was, for the end of a line; empty without a rate."""
        return f", at most {self.late_seconds_max * 1000:.0f} ms behind schedule" if self._interval_seconds else ""


class Progress:
    """A bar on a terminal, otherwise a line every few seconds; on standard error, since output may be data."""

    def __init__(self, title: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._title = title
        self._total = total
        self._clock = clock
        self._begun = self._told = clock()
        self._ended: float | None = None
        self._done = 0
        self._bar = self._rich_bar() if sys.stderr.isatty() else None

    def _rich_bar(self) -> RichProgress:
        columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn())
        bar = RichProgress(*columns, console=Console(stderr=True), transient=True)
        bar.add_task(self._title, total=self._total)
        return bar

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def advance(self, counts: bool) -> None:
        """One more message; ticks do not count."""
        self._done += counts
        if self._done % ADVANCE_STEP:
            return
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done)
        elif self._clock() - self._told > PLAIN_SECONDS:
            self._told = self._clock()
            sys.stderr.write(f"{self._title}: {self._done} of {self._total}\n")

    def stop(self) -> None:
        """Leave the terminal as it was; the clock stands."""
        if self._ended is None:
            self._ended = self._clock()
        if self._bar is not None:
            self._bar.stop()

    def summary(self) -> str:
        """`10000 movements in 10.0 s (1000/s)`."""
        seconds = max((self._ended or self._clock()) - self._begun, 1e-9)
        return f"{self._done} movements in {seconds:.1f} s ({self._done / seconds:.0f}/s)"
