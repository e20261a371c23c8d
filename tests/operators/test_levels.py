"""Levels and crossings: hysteresis, the first crossing, the threshold that was met, and crossings within a batch."""

from collections.abc import Sequence

import msgspec
import pytest

from schemas.outputs import Cause, threshold_id
from schemas.rules import ChannelRules, Rule, Rules
from tests.stories import after

# The web keeps 2, is low at 3 and has recovered at 5: on hand 5 is low, 6 is between, 7 has recovered.
LEVELS = [
    ("received 1", ""),
    ("received 2", ""),
    ("received 3", "low_stock"),
    ("received 5", "low_stock"),
    ("received 6", "low_stock"),
    ("received 7", "in_stock"),
    ("received 7, shipped 1", "in_stock"),
    ("received 7, shipped 2", "in_stock low_stock"),
    ("received 7, shipped 2, received 1", "in_stock low_stock"),
    ("received 7, shipped 2, received 2", "in_stock low_stock in_stock"),
    ("received 7, shipped 7", "in_stock out_of_stock"),
    ("received 7, shipped 7, received 6", "in_stock out_of_stock low_stock"),
    ("received 7, shipped 7, received 6, received 1", "in_stock out_of_stock low_stock in_stock"),
    ("received 4, shipped 2, received 2", "low_stock out_of_stock low_stock"),
    ("received 7, reserved 5, released 5", "in_stock out_of_stock in_stock"),
]


@pytest.mark.parametrize("batches", [False, True])
@pytest.mark.parametrize(("story", "levels"), LEVELS)
def test_a_level_changes_at_its_thresholds_and_not_between(story: str, levels: str, *, batches: bool) -> None:
    """Between the two thresholds everything stays as it was, however the story is cut into batches."""
    assert after(story, batches=batches).levels == levels


def test_a_batch_that_ends_where_it_began_still_tells_what_happened_in_it() -> None:
    """Crossings go by every movement: down and up again within one batch is two of them."""
    before = after("received 7")
    told = after("received 7, shipped 5, received 5")
    assert told.levels == "in_stock out_of_stock in_stock"
    assert told.record is not None
    assert before.record is not None
    assert told.record.channels == before.record.channels
    assert [crossing.version for crossing in told.crossings] == [0, 1, 2]


@pytest.mark.parametrize(
    ("story", "thresholds"),
    [
        ("received 7", [5]),
        ("received 7, shipped 2", [5, 3]),
        ("received 7, shipped 7", [5, 0]),
        ("received 3", [0]),
        ("received 3, shipped 1", [0, 0]),
        ("received 3, received 4", [0, 5]),
    ],
)
def test_the_threshold_is_the_number_that_was_met(story: str, thresholds: list[int]) -> None:
    """`recovered_at` on the way into stock, `low_stock_at` on the way down from it, else nothing left: 0."""
    assert [crossing.threshold for crossing in after(story).crossings] == thresholds


def test_only_the_first_crossing_is_initial() -> None:
    """Whoever must not be woken by a first load can tell it from a change."""
    told = after("received 7, shipped 7, received 7")
    assert [crossing.initial for crossing in told.crossings] == [True, False, False]


def test_a_crossing_names_what_caused_it() -> None:
    """Version, time and cause are those of the one movement after which the level was another."""
    crossing = after("received 1, received 6").crossings[0]
    assert crossing.cause == Cause("movement", "wms", "1")
    assert (crossing.version, crossing.time) == (1, "2026-11-21T00:00:01.000Z")
    assert crossing.id == threshold_id("A", "web", 1)
    assert (crossing.from_, crossing.to, crossing.sellable) == ("out_of_stock", "in_stock", 5)


def test_crossings_of_one_movement_come_in_the_order_of_the_channels() -> None:
    """As in rules.toml, not by name."""
    rules = Rules(channels={"web": ChannelRules(), "b2b": ChannelRules(), "auction": ChannelRules()})
    assert [crossing.channel for crossing in after("received 1", rules).crossings] == ["web", "b2b", "auction"]


def _rule(**values: object) -> Rule:
    return msgspec.convert({"sku": "A", "channel": "web", **values}, Rule)


DAY, MORNING = "2026-11-21T00:00:00Z", "2026-11-21T09:00:00Z"


@pytest.mark.parametrize(
    ("rules", "story", "levels"),
    [
        ([_rule(sell=False, valid_from=MORNING)], f"received 9, tick {DAY}", "in_stock"),
        ([_rule(sell=False, valid_from=MORNING)], f"received 9, tick {MORNING}", "in_stock out_of_stock"),
        ([_rule(sell=False, valid_to=MORNING)], f"received 9, tick {DAY}", ""),
        ([_rule(sell=False, valid_to=MORNING)], f"received 9, tick {MORNING}", "in_stock"),
        ([_rule(sell=False, valid_to=MORNING)], f"tick {MORNING}, received 9", "in_stock"),
        ([_rule(low_stock_at=7, valid_from=MORNING)], f"received 9, tick {MORNING}", "in_stock low_stock"),
        ([_rule(low_stock_at=6, recovered_at=8, valid_from=MORNING)], f"received 9, tick {MORNING}", "in_stock"),
        ([_rule(low_stock_at=7)], "received 9, received 1", "low_stock in_stock"),
        ([_rule(low_stock_at=5)], "received 7, received 1", "low_stock in_stock"),
        ([_rule(recovered_at=2)], "received 5, received 1", "low_stock in_stock"),
    ],
)
def test_rules_change_levels_at_ticks(rules: Sequence[Rule], story: str, levels: str) -> None:
    """A rule holds from the tick that reaches `valid_from` to the one that reaches `valid_to`."""
    channels = {"web": ChannelRules(safety_units=2, low_stock_at=3, recovered_at=5)}
    assert after(story, Rules(channels=channels, rules=tuple(rules))).levels == levels


def test_a_crossing_at_a_tick_is_caused_by_the_clock() -> None:
    """Nobody moved anything: the crossing carries the tick's offset and time."""
    channels = {"web": ChannelRules()}
    rules = Rules(channels=channels, rules=(_rule(sell=False, valid_from=MORNING),))
    crossing = after("received 9, tick 2026-11-21T09:00:07Z", rules).crossings[-1]
    assert crossing.cause == Cause("clock")
    assert (crossing.version, crossing.time) == (1, "2026-11-21T09:00:07.000Z")
