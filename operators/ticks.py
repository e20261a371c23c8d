"""Ticks: a partition's clock is its latest tick, and nothing else is."""

from collections.abc import Sequence

BEFORE_ANY_TICK_MS = 0


class Clocks:
    """The clock of each origin, in ms since 1970; origins are dense row numbers."""

    def __init__(self, times_ms: Sequence[int] = ()) -> None:
        self._times_ms = list(times_ms)

    def add_origin(self) -> None:
        """A new origin, whose clock has not begun."""
        self._times_ms.append(BEFORE_ANY_TICK_MS)

    def tick(self, origin: int, time_ms: int) -> bool:
        """Whether the clock of `origin` moved; it never goes back."""
        if time_ms <= self._times_ms[origin]:
            return False
        self._times_ms[origin] = time_ms
        return True

    def __getitem__(self, origin: int) -> int:
        return self._times_ms[origin]

    def load(self, times_ms: Sequence[int]) -> None:
        """Replaces everything."""
        self._times_ms = list(times_ms)

    def as_list(self) -> list[int]:
        """All clocks in the order of their origins, ms since 1970."""
        return list(self._times_ms)
