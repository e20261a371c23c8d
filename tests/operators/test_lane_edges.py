"""Edges of a lane: odd timestamps, and records from a partition that is not a SKU's home."""

import json

import pytest

from operators.lane import Lane, LaneSettings
from operators.rules import RuleBook
from schemas.batches import Batch
from schemas.rules import ChannelRules, Rules
from tests.tales import ELSEWHERE, LOG, time_of

RULES = Rules(channels={"web": ChannelRules(), "web/x": ChannelRules()})
SETTINGS = LaneSettings(1, incarnation=1, dedupe_ms=3_600_000)


def batch(number: int, *bodies: dict[str, object], home: bool = True) -> Batch:
    """Records from offset `number` on, at home or in another partition."""
    common = {"source": "wms", "sku": "A", "location": "east", "time": time_of(number)}
    payloads: list[bytes | None] = [
        json.dumps({**common, "id": f"{home}-{number + place}", **body}).encode() for place, body in enumerate(bodies)
    ]
    offsets = [number + place for place in range(len(bodies))]
    return Batch(LOG if home else ELSEWHERE, offsets, [-1] * len(bodies), [None] * len(bodies), payloads)


@pytest.mark.parametrize("timestamp_ms", [-1, -5, 1_700_000_000_000_000, 1_700_000_000_000_000_000, 2**63 - 1])
def test_a_timestamp_that_is_no_time_stops_nothing(timestamp_ms: int) -> None:
    """A producer that dates its records in microseconds gets its dead letters too, without a time."""
    lane = Lane(0, RuleBook(RULES), SETTINGS)
    result = lane.apply([Batch(LOG, [0], [timestamp_ms], [None], [b"{"])])
    assert [(letter.reason, letter.time) for letter in result.dead_letters] == [("not_json", None)]


def test_other_rules_show_what_came_from_elsewhere() -> None:
    """They change nothing of this SKU; but its home speaks, and a misplaced movement waits to be shown."""
    lane = Lane(0, RuleBook(RULES), SETTINGS)
    elsewhere = batch(7, {"kind": "shipped", "quantity": 4}, home=False)
    lane.apply([batch(0, {"kind": "received", "quantity": 5}), elsewhere])
    changes = {"rules": [{"sku": "ANOTHER", "sell": False}]}
    payload = json.dumps({"kind": "rules", "generation": 2, "since": 1, "changes": changes}).encode()
    result = lane.apply([Batch(LOG, [1], [-1], [None], [payload])])
    assert result.dead_letters == []
    assert [(record.version, record.locations["east"].on_hand) for record in result.availability] == [(1, 1)]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_version_never_shows_what_its_home_has_not_told(at_once: bool) -> None:  # noqa: FBT001  # a table of two
    """What comes from elsewhere shows with the home's next tick, in whatever batches it was read."""
    lane = Lane(0, RuleBook(RULES), SETTINGS)
    committed: dict[str, object] = {"kind": "channel_committed", "channel": "web/x", "quantity": 2}
    away = batch(7, committed, {"kind": "shipped", "quantity": 4}, home=False)
    told = [batch(0, {"kind": "received", "quantity": 5}), away]
    results = [lane.apply(told)] if at_once else [lane.apply([one]) for one in told]
    first = [record for result in results for record in result.availability]
    assert [(record.version, list(record.channels), record.locations["east"].on_hand) for record in first] == [
        (0, ["web"], 5)
    ]
    lane = Lane.restore(0, lane.snapshot(), RuleBook(RULES), SETTINGS)
    then = lane.apply([Batch(LOG, [1], [-1], [None], [json.dumps({"kind": "tick", "time": time_of(9)}).encode()])])
    record = then.availability[0]
    assert (record.version, sorted(record.channels), record.locations["east"].on_hand) == (1, ["web", "web/x"], 1)
