"""Planned SKUs go through compiled loops, and each proposal comes and goes as if they went row by row."""

from typing import Any

import msgspec
import pytest

from bench.oracle import Message, fold
from operators.lane import Lane, LaneSettings
from operators.rules import RuleBook
from schemas.batches import Batch
from schemas.movements import QUANTITY_MAX, encode
from schemas.rule_changes import document_of, patch_between, records_of
from schemas.rules import ChannelRules, ReplenishmentRules, Rules, SourceRules
from schemas.times import DAY_MS, format_ms
from tests.lane_runs import Feed, Restart, Run, Save, Step, Work, assert_columns_known, assert_equal
from tests.movement_strategies import origin

BEGIN_MS = 1_795_219_200_000  # 2026-11-21T00:00:00Z
HOUR_MS = 3_600_000
WEEKS_MS = 60 * DAY_MS
RULES = Rules(channels={"web": ChannelRules()}, replenishment=ReplenishmentRules(lead_time_days=1, review_days=1))
LATER = Rules(channels={"web": ChannelRules()}, replenishment=ReplenishmentRules(lead_time_days=20, review_days=1))


class Log:
    """Messages of one SKU, one after the other."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.now_ms = BEGIN_MS

    def moved(self, kind: str, units: int, place: str = "east", *, late_ms: int = 0, **more: str) -> None:
        """A movement, a minute after what was before it; dated `late_ms` before that."""
        self.now_ms += 60_000
        body: dict[str, Any] = {
            "id": str(len(self.messages)), "source": "wms", "kind": kind, "sku": "A", "location": place,
            "quantity": units, "time": format_ms(self.now_ms - late_ms), **more,
        }  # fmt: skip
        self.add(b"A", msgspec.json.encode(body))

    def ticked(self) -> None:
        """The clock shows what it is now."""
        self.add(None, msgspec.json.encode({"kind": "tick", "time": format_ms(self.now_ms)}))

    def ruled(self, rules: Rules, before: Rules = RULES) -> None:
        """Other rules."""
        patch = patch_between(document_of(before), document_of(rules))
        for record in records_of(2, 1, patch, None):
            self.add(None, encode(record))

    def add(self, key: bytes | None, payload: bytes) -> None:
        """One more message."""
        self.messages.append(Message(origin(0), len(self.messages), -1, key, payload))

    def sold_for_days(self, units: int) -> None:
        """Opening stock, and five days on which some were sold."""
        self.moved("received", 100)
        for _ in range(5):
            self.moved("shipped", units)
            self.now_ms += DAY_MS
            self.ticked()

    def events(self) -> list[tuple[str, str]]:
        """What the proposals came to, as the oracle has it: in one batch, one by one, and with restarts between."""
        expected = fold(self.messages, RULES, dedupe_ms=WEEKS_MS, as_of_ms=WEEKS_MS)
        one: list[Step] = [Feed(0, 1), Work()]
        ways: list[list[Step]] = [[], one, [*one, Save()], [*one, Save(), *one, Restart(2)]]
        for steps in ways:
            run = Run((tuple(self.messages),), RULES, 1, WEEKS_MS, dedupe_ms=WEEKS_MS)
            assert_equal(run.take(steps * len(self.messages)), expected)
        return [(proposal.event, proposal.reason) for proposal in expected.replenishments]


def test_a_proposal_comes_with_the_movement_that_makes_it_necessary() -> None:
    """And goes with the one that brings enough, wherever that is said; afterwards another may come."""
    log = Log()
    log.sold_for_days(3)
    for units in (20, 30, 25, 4, 3):
        log.moved("shipped", units)
    log.moved("transfer_shipped", 50, "west", destination="east")
    log.moved("shipped", 40)
    log.moved("shipped", 10)
    assert [event for event, _ in log.events()] == ["proposed", "closed", "proposed"]


def test_a_proposal_that_other_rules_brought_is_closed_by_what_comes_the_same_day() -> None:
    """The point that the planning noted is not reached any more, and still somebody has to say so."""
    log = Log()
    log.sold_for_days(5)
    log.moved("shipped", 1)
    log.ruled(LATER)
    log.moved("received", 200)
    log.moved("shipped", 1)
    events = log.events()
    assert [event for event, _ in events] == ["proposed", "closed"]
    assert events[1][1] == "recovered"


def test_a_proposal_that_the_daily_look_brought_is_closed_in_the_middle_of_the_day() -> None:
    """By the second movement of that day: the first one finds another day than the look has noted."""
    log = Log()
    log.sold_for_days(3)
    log.moved("shipped", 60)  # what the look of the next day takes for demand
    for _ in range(36):
        log.now_ms += HOUR_MS
        log.ticked()
    log.moved("shipped", 1)
    log.moved("received", 200)
    log.moved("shipped", 1)
    assert [event for event, _ in log.events()] == ["proposed", "closed"]


def test_what_is_known_late_changes_what_was_noted() -> None:
    """That nothing was there for weeks makes the same sales more a day, and what is on its way too little."""
    log = Log()
    log.moved("received", 120)
    log.moved("shipped", 20)
    log.moved("expected", 15, order="PO-1")
    for _ in range(25):
        log.now_ms += DAY_MS
        log.ticked()
    log.moved("adjusted", -100, late_ms=25 * DAY_MS, reason="found missing")
    assert [event for event, _ in log.events()] == ["proposed"]


@pytest.mark.parametrize("units", [QUANTITY_MAX, 1_200_000_000])
def test_demand_of_any_width_is_planned(units: int) -> None:
    """A day's units beyond 32 bits are no poison."""
    log = Log()
    log.moved("shipped", units)
    log.moved("shipped", units)
    log.now_ms += DAY_MS
    log.ticked()
    log.moved("received", 1)
    log.moved("received", 5, "west")
    log.events()


def test_columns_are_known_where_sources_and_plans_add_to_them() -> None:
    """Kinds heard at hundreds of positions, and a reorder point of each."""
    rules = msgspec.structs.replace(RULES, sources={"wms": SourceRules(kinds=("received", "shipped", "counted"))})
    lane = Lane(0, RuleBook(rules), LaneSettings(1, 7, dedupe_ms=WEEKS_MS))
    for first in (0, 300):
        numbers = list(range(first, first + 600))
        payloads: list[bytes | None] = [
            msgspec.json.encode(
                {
                    "id": str(number), "source": "wms", "kind": ("received", "shipped")[number % 2],
                    "sku": f"SKU-{number % 150}", "location": f"place-{number % 7}", "quantity": 2,
                    "time": format_ms(BEGIN_MS + number),
                }
            )
            for number in numbers
        ]  # fmt: skip
        keys: list[bytes | None] = [f"SKU-{number % 150}".encode() for number in numbers]
        result = lane.apply([Batch(origin(0), numbers, [-1] * len(numbers), keys, payloads)])
        assert not result.dead_letters
        assert_columns_known(lane)
    heard = lane._stating.sightings.heard  # noqa: SLF001  # what causes of divergences are looked for in
    assert heard.rows == lane.position_count
    again = Lane.restore(0, lane.snapshot(), RuleBook(rules), LaneSettings(1, 7, dedupe_ms=WEEKS_MS))
    assert again.snapshot() == lane.snapshot()
