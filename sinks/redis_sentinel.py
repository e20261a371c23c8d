"""Whether Redis still holds what a slot has written to it; where it does not, the slot asks for all of it once more."""

import uuid
from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple

from schemas.outputs import LaneResult

LOOK_INTERVAL_MS: Final = 800  # marks, with which a slot looks, come each second, and not to the millisecond

_LOST, _RIGHT = 0, 1  # answers of the script; 2: what was lost is being filled

Step = Literal["look", "filled"]


class Refilling(NamedTuple):
    """Where refills are asked for: `refill` asks for one, `refills` is how many all slots have asked for so far."""

    refill: Callable[[], None]
    refills: Callable[[], int]


class Sentinel:
    """A slot's field in a hash on each server, which is missing or wrong when what the server held may be.

    Each look is one call of the script for each server, and the next one waits for its answers. What is found lost is
    asked for once; again only where something is lost a second time meanwhile. A refill is complete when all `lanes`
    have told so and what they sent before has been answered: only then the field says that nothing is missing.
    """

    def __init__(self, slot: str, lanes: Iterable[int], refilling: Refilling) -> None:
        self._slot = slot
        self._asked = 0
        self._refilling = refilling
        self._lanes = dict.fromkeys(lanes, 0)  # the last refill that each has completed
        self._wanted: int | None = None  # the refill under way
        self._sent_through = 0  # the last call that belongs to a completed lane
        self._life = uuid.uuid4().hex  # so that a mark left by another process is not taken for one's own
        self._looked_ms: int | None = None
        self._step: Step = "look"
        self._answers_due = 0
        self._answers: set[int] = set()

    def told(self, results: list[LaneResult], last_number: int) -> None:
        """Note which refills lanes have completed, all of them sent by the call `last_number`."""
        for result in results:
            if result.refilled:
                self._lanes[result.lane] = max(result.refilled, self._lanes.get(result.lane, 0))
                self._sent_through = last_number

    def look_soon(self) -> None:
        """Look at the next occasion: this may be another server."""
        self._looked_ms = None

    def due(self, now_ms: int, answered_through: Callable[[int], bool]) -> Step | None:
        """What to ask the servers now; None: nothing, or the answers to the last step are not there yet."""
        if self._answers_due or not self._lanes:
            return None
        if self._is_refilled() and answered_through(self._sent_through):
            return "filled"
        if self._looked_ms is None or abs(now_ms - self._looked_ms) >= LOOK_INTERVAL_MS:
            return "look"
        return None

    def begin(self, step: Step, now_ms: int, answers: int) -> None:
        """`step` is about to be asked of so many servers."""
        self._step, self._looked_ms, self._answers_due = step, now_ms, answers
        self._answers.clear()

    def texts(self, key: str, incarnation: int) -> list[str]:
        """The script's argument for the step begun last."""
        held = "" if self._wanted is None else self._mark(self._asked)
        return [key, self._slot, str(incarnation), held, self._mark(self._asked + 1), self._step]

    def answered(self, answer: int) -> bool:
        """Note a server's answer to the step begun last; whether it was the last one, and something is lost."""
        self._answers.add(answer)
        self._answers_due -= 1
        if self._answers_due:
            return False
        if _LOST in self._answers:
            self._asked += 1
            self._refilling.refill()
            self._wanted = self._refilling.refills()
            return True
        if self._answers == {_RIGHT}:
            self._wanted = None
        return False

    def _is_refilled(self) -> bool:
        wanted = self._wanted
        return wanted is not None and all(completed >= wanted for completed in self._lanes.values())

    def _mark(self, number: int) -> str:
        return f"refill {self._life}-{number}"
