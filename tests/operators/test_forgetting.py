"""Memory for ids is bounded: what is forgotten is refused, never counted twice, and never at another SKU's expense."""

import json

from hypothesis import given
from hypothesis import strategies as st

from operators.lane import Lane, LaneSettings
from operators.rules import RuleBook
from schemas.batches import Batch
from schemas.outputs import LaneResult
from schemas.rules import ChannelRules, Rules
from schemas.times import format_ms
from tests.stories import BEGIN_MS, LOG

BOOK = RuleBook(Rules(channels={"web": ChannelRules()}))
SETTINGS = LaneSettings(lanes=1, incarnation=1, dedupe_ms=3_600_000, ids_per_sku_max=4)
MINUTES = st.lists(st.integers(0, 50), max_size=30)  # all within the hour for which ids should be remembered


def sent(minutes: list[int], sku: str = "A") -> list[bytes]:
    """One unit received at each of `minutes`, each with an id of its own."""
    common = {"kind": "received", "source": "wms", "sku": sku, "location": "east", "quantity": 1}
    times = [format_ms(BEGIN_MS + minute * 60_000) for minute in minutes]
    return [json.dumps({**common, "id": f"{place}", "time": time}).encode() for place, time in enumerate(times)]


def apply(lane: Lane, payloads: list[bytes], offset: int) -> LaneResult:
    """`lane` reads `payloads` from `offset` on."""
    count = len(payloads)
    return lane.apply([Batch(LOG, list(range(offset, offset + count)), [-1] * count, [None] * count, [*payloads])])


@given(MINUTES)
def test_nothing_counts_twice_though_ids_are_forgotten(minutes: list[int]) -> None:
    """Sent a second time, everything is a duplicate or too late."""
    lane = Lane(0, BOOK, SETTINGS)
    payloads = sent(minutes)
    first, second = apply(lane, payloads, 0), apply(lane, payloads, 1000)
    assert first.applied + len(first.dead_letters) == len(payloads)
    assert (second.applied, second.duplicates + len(second.dead_letters)) == (0, len(payloads))
    assert {letter.reason for letter in (*first.dead_letters, *second.dead_letters)} <= {"too_late"}


@given(MINUTES)
def test_a_busy_sku_shortens_its_own_horizon_only(minutes: list[int]) -> None:
    """Within the hour the other SKU is never too late, however much the first one forgets."""
    lane = Lane(0, BOOK, SETTINGS)
    apply(lane, sent(minutes), 0)
    others = apply(lane, sent([50, 0], "B"), 1000)
    assert (others.applied, others.dead_letters) == (2, [])


@given(MINUTES)
def test_a_restored_lane_has_forgotten_the_same(minutes: list[int]) -> None:
    """A snapshot holds horizons as well as ids."""
    lane = Lane(0, BOOK, SETTINGS)
    payloads = sent(minutes)
    apply(lane, payloads, 0)
    restored = Lane.restore(0, lane.snapshot(), BOOK, SETTINGS)
    again = sent([*minutes, 25, 49])
    after = apply(restored, again, 1000)
    assert [rules.generation for rules in after.rules] == [1]  # told again to whoever forgot
    assert after._replace(rules=[]) == apply(lane, again, 1000)
