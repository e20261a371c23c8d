"""The availability flow as Bytewax runs it."""

from datetime import timedelta
from typing import Any

import pytest
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.testing import TestingSource, run_main

from flows.availability import Sinks, availability_flow
from flows.board import Board
from operators.lane import Lane, LaneSettings
from operators.lane_step import LaneHooks, LaneMaking
from operators.route import Item
from operators.rules import RuleBook
from schemas.batches import Batch, Mark, Origin, Wake
from schemas.rules import ChannelRules, LocationRules, Rules
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


class _Heard(FixedPartitionedSink[Any, None]):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def list_parts(self) -> list[str]:
        return ["slot-00"]

    def part_fn(self, item_key: str) -> int:
        return 0

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> StatefulSinkPartition[Any, None]:
        return _HeardPart(self.values)


class _HeardPart(StatefulSinkPartition[Any, None]):
    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def write_batch(self, values: list[Any]) -> None:
        self._values.extend(values)

    def snapshot(self) -> None:
        """Nothing to go on from."""


def test_redis_alone_is_filled_again_and_every_sink_hears_of_a_new_epoch() -> None:
    """A topic still has what Redis has lost; a file that slept through an epoch would go on from that of a dead run."""
    heard = {name: _Heard() for name in Sinks._fields}
    body = (
        b'{"id":"1","source":"s","kind":"received","sku":"A","location":"e","quantity":9,"time":"2026-11-21T00:00:00Z"}'
    )
    items: list[Item] = [Wake(), Batch(Origin("c", "t", 0, "log"), [0], [-1], [b"A"], [body])]
    rules = RuleBook(Rules(locations={"e": LocationRules()}, channels={"web": ChannelRules()}))
    hooks = LaneHooks(refills=lambda: 1)
    making = LaneMaking(rules, LaneSettings(1, 1, dedupe_ms=10**9), lambda: 0, hooks=hooks)
    run_main(availability_flow(TestingSource(items, batch_size=2), Sinks(**heard), making))  # type: ignore[no-untyped-call]
    told = [result.is_refill for result in heard["redis"].values if result.availability]
    assert sorted(told) == [False, True]
    assert [record.sku for records in heard["availability"].values for record in records] == ["A"]
    assert heard["divergences"].values == [[]]
