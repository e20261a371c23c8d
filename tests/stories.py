"""Short stories of one SKU, as a planner tells them, told to a lane."""

import itertools
import json
from collections.abc import Iterator
from typing import NamedTuple

from operators.lane import Lane, LaneSettings
from operators.rules import RuleBook
from schemas.batches import Batch, Origin
from schemas.outputs import Availability, LaneResult, Threshold
from schemas.rules import ChannelRules, LocationRules, Rules
from schemas.times import format_ms
from tests.lane_runs import crossings_in

BEGIN_MS = 1_795_219_200_000  # 2026-11-21T00:00:00Z
LOG = Origin("cluster", "topic-id", 0, "inventory.movements")
RULES = Rules(
    locations={"east": LocationRules(), "west": LocationRules()},
    channels={"web": ChannelRules(safety_units=2, low_stock_at=3, recovered_at=5)},
)
DETAILS = ("from", "to", "order", "transfer", "destination", "id", "sku")


class Told(NamedTuple):
    """What came of a story."""

    record: Availability | None
    crossings: list[Threshold]
    results: list[LaneResult]

    @property
    def available(self) -> int:
        """Units available at `east`."""
        return self.record.locations["east"].available if self.record else 0

    @property
    def sellable(self) -> int:
        """Units that the web may sell."""
        return self.record.channels["web"].sellable if self.record else 0

    @property
    def levels(self) -> str:
        """The web's levels in the order in which they were reached: `in_stock low_stock`."""
        return " ".join(crossing.to for crossing in self.crossings)

    def quantities(self, location: str = "east") -> str:
        """What is not 0 of a position: `on_hand 10, reserved 3`."""
        assert self.record is not None
        position = self.record.locations[location]
        names = [name for name in position.__struct_fields__ if name not in ("available", "trust_percent")]
        return ", ".join(f"{name} {getattr(position, name)}" for name in names if getattr(position, name))


def after(story: str, rules: Rules = RULES, *, batches: bool = False) -> Told:
    """Tell `story` to a lane: clauses such as `shipped 3 from reserved`, `received 4 at west`, `scrapped 1 reversed`.

    It is told in one batch, or with `batches` in one for each clause.
    """
    lane = Lane(0, RuleBook(rules), LaneSettings(1, incarnation=1, dedupe_ms=3_600_000))
    payloads = [_payload(clause, number) for number, clause in enumerate(filter(None, story.split(", ")))]
    cut = [[place] for place in range(len(payloads))] if batches else [list(range(len(payloads)))]
    results = [lane.apply([_batch(payloads, places)]) for places in cut if places]
    assert not any(result.dead_letters for result in results), results
    records = [record for result in results for record in result.availability]
    crossings = list(itertools.chain.from_iterable(map(crossings_in, results)))
    return Told(records[-1] if records else None, crossings, results)


def _batch(payloads: list[bytes], places: list[int]) -> Batch:
    chosen: list[bytes | None] = [payloads[place] for place in places]
    return Batch(LOG, places, [-1] * len(places), [None] * len(places), chosen)


def _payload(clause: str, number: int) -> bytes:
    kind, quantity, *rest = clause.split()
    time = format_ms(BEGIN_MS + number * 1000)
    if kind == "tick":
        return json.dumps({"kind": kind, "time": quantity}).encode()
    body = {"kind": kind, "quantity": int(quantity), "time": time, "sku": "A", "source": "wms", "location": "east"}
    if kind == "adjusted":
        body["reason"] = "cycle count"
    return json.dumps({"id": str(number), **body, **dict(_details(rest))}).encode()


def _details(words: list[str]) -> Iterator[tuple[str, str | bool]]:
    remaining = iter(words)
    for word in remaining:
        if word == "reversed":
            yield "reversal", True
        elif word == "at":
            yield "location", next(remaining)
        elif word in DETAILS:
            yield word, next(remaining)
        else:
            raise ValueError(f"a story knows no {word!r}")
