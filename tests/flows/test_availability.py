"""The availability flow as Bytewax runs it."""

from datetime import timedelta
from typing import Any

import pytest
from bytewax.testing import TestingSource, run_main

from flows.availability import Sinks, availability_flow
from flows.board import Board
from operators.lane import Lane, LaneHooks, LaneMaking, LaneSettings
from operators.route import Item
from operators.rules import RuleBook
from schemas.batches import Batch, Mark, Origin, Wake
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


def test_what_leaves_a_reader_is_what_lanes_apply_in_the_end() -> None:
    """Bytes that were counted on one side alone would hold the reader back for ever."""
    board, process = Board.make(1), 0
    log = Origin("c", "t", 3, "log")
    payloads: list[bytes | None] = [b'{"kind":"tick","time":"2026-11-21T00:00:00Z"}', b"{", None]
    keys: list[bytes | None] = [None, b"A", b"B"]
    items: list[Item] = [Batch(log, [0, 1, 2], [-1] * 3, keys, payloads), Mark(log, 3, 3, -1, 0), Wake()]
    sent: list[int] = []

    def left(partition: int, bytes_: int) -> None:
        sent.append(bytes_)
        board.sent(partition, bytes_)

    hooks = LaneHooks(sent=left, applied=lambda partition, bytes_: board.applied(process, partition, bytes_))
    rules, settings = RuleBook(Rules(channels={"web": ChannelRules()})), LaneSettings(4, 1, dedupe_ms=1)
    nowhere: list[NowhereSink[Any]] = [NowhereSink() for _ in Sinks._fields]
    making = LaneMaking(rules, settings, now_ms=lambda: 0, hooks=hooks)
    run_main(availability_flow(TestingSource(items), Sinks(*nowhere), making))  # type: ignore[no-untyped-call]
    assert sum(sent) == 4 * len(payloads[0] or b"") + len(b"{A") + len(b"B")
    assert board.in_flight(3) == 0
