"""Tales of one SKU, told record by record: what was sent at which minute, and what came of it."""

import json
from typing import Any

from operators.lane import Lane, LaneSettings
from operators.rules import RuleBook
from schemas.batches import Batch, Origin
from schemas.outputs import (
    Availability,
    DeadLetter,
    Divergence,
    Explanation,
    LaneResult,
    LocationAvailability,
    Replenishment,
    Reservation,
    ShadowDifference,
    Threshold,
)
from schemas.rules import Rules
from schemas.times import format_ms
from tests.lane_runs import crossings_in

BEGIN_MS = 1_795_219_200_000  # 2026-11-21T00:00:00Z
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
LOG = Origin("cluster", "topic-id", 0, "inventory.movements")
ELSEWHERE = Origin("cluster", "topic-id", 1, "inventory.movements")


def time_of(minute: float) -> str:
    """The time of a minute of the tale, as it stands on the wire."""
    return format_ms(BEGIN_MS + int(minute * MINUTE_MS))


class Tale:
    """A lane that is told one record at a time; `at` is a minute of the tale, in the order of telling by default."""

    def __init__(
        self, rules: Rules, *, dedupe_hours: int = 72, as_of_hours: int = 72, shadow: Rules | None = None
    ) -> None:
        self._settings = LaneSettings(
            1, incarnation=1, dedupe_ms=dedupe_hours * HOUR_MS, as_of_ms=as_of_hours * HOUR_MS
        )
        self._book = RuleBook(rules)
        self._shadow = None if shadow is None else RuleBook(shadow)
        self._lane = Lane(0, self._book, self._settings, self._shadow)
        self._told = {LOG: 0, ELSEWHERE: 0}
        self.record: Availability | None = None
        self.answers: list[Reservation] = []
        self.crossings: list[Threshold] = []
        self.divergences: list[Divergence] = []
        self.dead_letters: list[DeadLetter] = []
        self.proposals: list[Replenishment] = []
        self.shadow: list[ShadowDifference] = []

    def tell(self, kind: str, quantity: int | None = None, *, at: float | None = None, **fields: Any) -> LaneResult:  # noqa: ANN401  # whatever a record carries
        """Send a record about SKU `A`, at location `east` and from source `wms` unless said otherwise."""
        number = sum(self._told.values())
        body: dict[str, Any] = {"id": f"id-{number}", "source": "wms", "sku": "A", "kind": kind}
        body["time"] = time_of(number if at is None else at)
        if quantity is not None:
            body["quantity"] = quantity
        if kind not in ("requested", "extended", "channel_committed", "channel_uncommitted"):
            body["location"] = "east"
        if kind == "adjusted":
            body["reason"] = "cycle count"
        origin = fields.pop("origin", LOG)
        body |= {name.rstrip("_"): value for name, value in fields.items()}
        return self._send(json.dumps(body).encode(), origin)

    def tick(self, at: float) -> LaneResult:
        """Let the partition's clock show a minute."""
        return self._send(json.dumps({"kind": "tick", "time": time_of(at)}).encode(), LOG)

    def control(self, kind: str, **fields: Any) -> LaneResult:  # noqa: ANN401  # whatever a record carries
        """Send a control record."""
        return self._send(json.dumps({"kind": kind, **fields}).encode(), LOG)

    def explanation(self, sku: str = "A") -> Explanation:
        """Why the numbers of a SKU are what they are."""
        row = self._lane._stock.names.row(sku)  # noqa: SLF001  # rows are the lane's own
        self._lane._unexplained[row] = None  # noqa: SLF001
        return self._lane.explain([row]).explanations[0]

    def position(self, location: str = "east") -> LocationAvailability:
        """The quantities at a location."""
        assert self.record is not None
        return self.record.locations[location]

    def sellable(self, channel: str = "web") -> int:
        """What a channel may sell from stock."""
        return self.record.channels[channel].sellable if self.record else 0

    def promised(self, channel: str = "web") -> int:
        """What a channel may promise."""
        return self.record.channels[channel].promised if self.record else 0

    @property
    def answer(self) -> Reservation:
        """The last answer to a request."""
        return self.answers[-1]

    @property
    def outcomes(self) -> list[str]:
        """Of all answers, in their order."""
        return [answer.outcome for answer in self.answers]

    @property
    def refusals(self) -> list[str]:
        """Reasons of all dead letters."""
        return [letter.reason for letter in self.dead_letters]

    @property
    def events(self) -> list[tuple[str, str]]:
        """Event and reason of what happened to divergences."""
        return [(divergence.event, divergence.reason) for divergence in self.divergences]

    def restart(self) -> None:
        """Go on from a snapshot."""
        self._lane = Lane.restore(0, self._lane.snapshot(), self._book, self._settings, self._shadow)

    def _send(self, payload: bytes, origin: Origin) -> LaneResult:
        offset = self._told[origin]
        self._told[origin] += 1
        result = self._lane.apply([Batch(origin, [offset], [-1], [None], [payload])])
        if result.availability:
            self.record = result.availability[-1]
        self.answers += result.reservations
        self.crossings += crossings_in(result)
        self.divergences += result.divergences
        self.dead_letters += result.dead_letters
        self.proposals += result.replenishments
        self.shadow += result.shadow
        return result
