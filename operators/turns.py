"""Turns: what nobody waits for, a little at a time, one lane of a process after the other."""

from typing import Final

TURN_MS_MIN: Final = 0.2
PRESSED_MS: Final = 1000.0  # for so long after a movement had to wait
WEIGHT: Final = 0.1  # of what the last turn took, in the mean of those before it


class Turns:
    """Instants that are handed out, each to one lane, at least `apart_ms` from one another.

    So work that all lanes have to do now and then is never done by all of them at once, while movements wait. An
    instant later than all `takers` together can have asked for shows that the clock was set back.
    """

    def __init__(self, apart_ms: float, takers: int) -> None:
        self._apart_ms = apart_ms
        self._takers = takers  # each has one instant at most
        self._next_ms = 0.0

    def next_ms(self, from_ms: float) -> float:
        """The next free instant at `from_ms` or later, which is taken by this."""
        was_set_back = self._next_ms > from_ms + self._takers * self._apart_ms
        at_ms = from_ms if was_set_back else max(from_ms, self._next_ms)
        self._next_ms = at_ms + self._apart_ms
        return at_ms


class SpareTurns(Turns):
    """Turns of work that may take `share` of a core: the longer one took, the further they are apart.

    While movements wait, as `pressed` says, it may take `share_pressed` of it.
    """

    def __init__(self, share: float, share_pressed: float, takers: int) -> None:
        super().__init__(TURN_MS_MIN / share, takers)
        self._shares = share, share_pressed
        self._pressed_until_ms = 0.0
        self._took_ms = TURN_MS_MIN

    def pressed(self, now_ms: float) -> None:
        """Movements had to wait just now."""
        self._pressed_until_ms = now_ms + PRESSED_MS

    def took(self, seconds: float, now_ms: float) -> None:
        """How long a turn took, of a core."""
        self._took_ms += WEIGHT * (1000 * seconds - self._took_ms)
        is_pressed = self._pressed_until_ms - PRESSED_MS <= now_ms < self._pressed_until_ms
        self._apart_ms = max(self._took_ms, TURN_MS_MIN) / self._shares[is_pressed]
