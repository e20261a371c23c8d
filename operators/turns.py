"""Turns: what nobody waits for, a little at a time, one lane of a process after the other."""

from typing import Final

TURN_MS_MIN: Final = 0.2
PRESSED_MS: Final = 1000.0  # for so long after a movement had to wait
BUSY_SHARE: Final = 0.3  # of a core, that a thread spends on other things: more, and movements will have to wait
BUSY_SECONDS: Final = 1.0  # over which that is measured, at least
BORROWED_MS_MAX: Final = 1000.0  # of turns to come, that may have been taken by what somebody waits for
WEIGHT: Final = 0.1  # of what the last turn took, in the mean of those before it


class Turns:
    """Instants that are handed out, each to one lane, at least `apart_ms` from one another.

    So work that all lanes have to do now and then is never done by all of them at once, while movements wait. An
    instant later than all `takers` together can have asked for shows that the clock was set back.
    """

    def __init__(self, apart_ms: float, takers: int) -> None:
        self._apart_ms = apart_ms
        self._apart_ms_max = apart_ms  # that there ever was
        self._takers = takers  # each has one instant at most
        self._next_ms = 0.0

    def next_ms(self, from_ms: float) -> float:
        """The next free instant at `from_ms` or later, which is taken by this."""
        self._apart_ms_max = max(self._apart_ms_max, self._apart_ms)
        was_set_back = self._next_ms > from_ms + self._takers * self._apart_ms_max
        at_ms = from_ms if was_set_back else max(from_ms, self._next_ms)
        self._next_ms = at_ms + self._apart_ms
        return at_ms


class Busyness:
    """What share of a core a thread spends on other things than spare work, over about a second.

    Nobody has to look often: `share` is that between the last two looks that were a second apart, or more.
    """

    def __init__(self) -> None:
        self.share = 0.0
        self._worked = 0.0  # as of the look from which on it is measured
        self._at: float | None = None
        self._spare = 0.0  # since then

    def spent(self, seconds: float) -> None:
        """So much of what the thread works is spare work."""
        self._spare += seconds

    def look(self, worked: float, at: float) -> None:
        """`worked` are the seconds for which the thread had a processor, by the time `at` of a clock nobody sets."""
        if self._at is not None:
            passed = at - self._at
            if passed < BUSY_SECONDS:
                return
            self.share = (worked - self._worked - self._spare) / passed
        self._worked, self._at, self._spare = worked, at, 0.0


class SpareTurns(Turns):
    """Turns of work that may take `share` of a core: the longer one took, the further they are apart.

    While movements have to wait, as `pressed` says, or the thread is busy with them, as it `worked`, it may take
    `share_pressed` of it. What somebody waits for need not wait for a turn, as long as it `may_borrow` those to come.
    """

    def __init__(self, share: float, share_pressed: float, takers: int) -> None:
        super().__init__(TURN_MS_MIN / share, takers)
        self._shares = share, share_pressed
        self._pressed_until_ms = 0.0
        self._took_ms = TURN_MS_MIN
        self._busyness = Busyness()
        self._borrowed_until_ms = 0.0  # turns up to then are given away

    def next_ms(self, from_ms: float) -> float:
        """The next free instant at `from_ms` or later, behind what was borrowed."""
        return super().next_ms(from_ms + self._borrowed_ms(from_ms))

    def pressed(self, now_ms: float) -> None:
        """Movements had to wait just now."""
        self._pressed_until_ms = now_ms + PRESSED_MS

    def is_pressed(self, now_ms: float) -> bool:
        """Whether movements had to wait just now."""
        return self._pressed_until_ms - PRESSED_MS <= now_ms < self._pressed_until_ms

    def worked(self, worked: float, at: float) -> None:
        """How long the thread has worked on anything, in seconds of a core, by `at`, in seconds: now and then."""
        self._busyness.look(worked, at)

    def took(self, seconds: float, now_ms: float) -> None:
        """How long a turn took, of a core."""
        self._busyness.spent(seconds)
        self._took_ms += WEIGHT * (1000 * seconds - self._took_ms)
        self._apart_ms = max(self._took_ms, TURN_MS_MIN) / self._share(now_ms)

    def may_borrow(self, now_ms: float) -> bool:
        """Whether what somebody waits for may be done now, without a turn."""
        return self._borrowed_ms(now_ms) <= BORROWED_MS_MAX

    def borrowed(self, seconds: float, now_ms: float) -> None:
        """How long that took, of a core: turns begin when as much of the share has come together, soon in any case."""
        self.took(seconds, now_ms)
        borrowed_ms = self._borrowed_ms(now_ms) + 1000 * seconds / self._share(now_ms)
        self._borrowed_until_ms = now_ms + min(borrowed_ms, 2 * BORROWED_MS_MAX)

    def _borrowed_ms(self, now_ms: float) -> float:
        """For how long there are no turns; more than can have been borrowed shows that the clock was set back."""
        borrowed_ms = self._borrowed_until_ms - now_ms
        return borrowed_ms if 0.0 < borrowed_ms <= 2 * BORROWED_MS_MAX else 0.0

    def _share(self, now_ms: float) -> float:
        return self._shares[self.is_pressed(now_ms) or self._busyness.share > BUSY_SHARE]
