"""The availability flow as Bytewax runs it."""

from datetime import timedelta
from typing import Any

import pytest
from bytewax.testing import TestingSource, run_main

from flows.availability import Sinks, availability_flow
from operators.lane import Lane, LaneMaking, LaneSettings
from operators.route import Item
from operators.rules import RuleBook
from schemas.batches import Batch, Origin
from schemas.rules import ChannelRules, Rules
from sinks.nowhere import NowhereSink


def test_lanes_pack_no_state_that_no_store_would_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every movement would wait for it, and it would be thrown away."""
    packed: list[int] = []
    monkeypatch.setattr(Lane, "snapshot", lambda lane: packed.append(lane.number))
    items: list[Item] = [Batch(Origin("c", "t", 0, "log"), [0], [-1], [b"A"], [b"{"])]
    nowhere: list[NowhereSink[Any]] = [NowhereSink() for _ in Sinks._fields]
    sinks = Sinks(*nowhere)
    rules, settings = RuleBook(Rules(channels={"web": ChannelRules()})), LaneSettings(2, 1, dedupe_ms=1)
    flow = availability_flow(TestingSource(items), sinks, LaneMaking(rules, settings, now_ms=lambda: 0))
    run_main(flow, epoch_interval=timedelta(0))  # type: ignore[no-untyped-call]  # as Bytewax has it
    assert packed == []
