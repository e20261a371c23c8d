"""Shadow rules over a restart: what was told of other shadow rules does not count."""

import json

from operators.lane import Lane, LaneSettings
from operators.rules import RuleBook
from schemas.batches import Batch, Origin
from schemas.outputs import ShadowOffer
from schemas.rules import ChannelRules, Rules

LOG = Origin("cluster", "topic", 0, "inventory.movements")
SETTINGS = LaneSettings(1, 7, dedupe_ms=3_600_000)
RULES = RuleBook(Rules(channels={"web": ChannelRules()}))
SAFER, CAPPED = (
    RuleBook(Rules(channels={"web": channel})) for channel in (ChannelRules(safety_units=2), ChannelRules(cap_units=3))
)


def told(lane: Lane, offset: int, kind: str, units: int, channel: str | None = None) -> list[dict[str, ShadowOffer]]:
    """What is told of the shadow when something becomes of a SKU's units, or of a channel's contract about them."""
    place = {"location": "east"} if channel is None else {"channel": channel}
    body = {"id": str(offset), "source": "wms", "kind": kind, "sku": "A", "quantity": units, **place}
    payload = json.dumps(body | {"time": "2026-11-21T09:00:00Z"}).encode()
    batch = Batch(LOG, [offset], [-1], [None], [payload])
    return [difference.channels for difference in lane.apply([batch]).shadow]


def test_a_difference_is_told_once_and_again_of_other_shadow_rules() -> None:
    """5 against 3, by either set; a restart remembers what was told, but only of the same set."""
    lane = Lane(0, RULES, SETTINGS, SAFER)
    assert told(lane, 0, "received", 5) == [{"web": ShadowOffer(5, 3)}]
    same, other = (Lane.restore(0, lane.snapshot(), RULES, SETTINGS, shadow) for shadow in (SAFER, CAPPED))
    for restored, again in ((lane, []), (same, []), (other, [{"web": ShadowOffer(5, 3)}])):
        assert told(restored, 1, "expected", 4) == again


def test_an_account_is_compared_while_it_has_a_contract() -> None:
    """Afterwards it has no number of its own, under either set: nothing of it may differ."""
    web = ChannelRules(safety_units=2)
    live = RuleBook(Rules(channels={"web": web, "web/x": ChannelRules()}))
    shadow = RuleBook(Rules(channels={"web": web, "web/x": ChannelRules(cap_units=1)}))
    lane = Lane(0, live, SETTINGS, shadow)
    assert told(lane, 0, "received", 9) == []
    assert told(lane, 1, "channel_committed", 4, "web/x") == [{"web/x": ShadowOffer(9, 1)}]
    assert told(lane, 2, "channel_uncommitted", 4, "web/x") == [{}]
