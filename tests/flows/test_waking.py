"""Why every lane is woken in every epoch: two crashes in a row must not lose what was never published."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bytewax.inputs import FixedPartitionedSource
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from flows.availability import Sinks, availability_flow
from flows.running import run_flow
from flows.store import Meta, create
from operators.lane import LaneSettings
from operators.lane_step import LaneMaking
from operators.route import Item
from operators.rules import RuleBook
from schemas.batches import Batch, Mark, Origin
from schemas.outputs import Threshold
from schemas.rules import ChannelRules, LocationRules, Rules
from sinks.nowhere import NowhereSink
from sources.pace import PacedPartition, Surroundings

LANES = 4
LOG = Origin("c", "t", 0, "log")
BOOK = RuleBook(Rules(locations={"east": LocationRules()}, channels={"web": ChannelRules(low_stock_at=3)}))
Plan = Sequence[int | None]  # the offset to read next, or a look that finds nothing


class _CrashError(RuntimeError):
    """The fault that a test injects."""


def _message(offset: int) -> bytes:
    body = {"id": str(offset), "source": "wms", "kind": "received", "sku": f"S{offset}", "location": "east"}
    return msgspec.json.encode({**body, "quantity": 10, "time": "2026-11-21T00:00:00Z"})


class _Log(PacedPartition[int]):
    """A log whose records come as planned, one for each look and epoch."""

    def __init__(self, plan: Plan, begin: int, *, wakes: bool) -> None:
        self._plan = iter(plan)
        self._next = begin
        super().__init__(lambda: 0, lambda: False, Surroundings(wakes=wakes))

    def read(self, now_ms: int) -> list[Batch] | None:
        """The record that is planned, if the state has not gone beyond it."""
        offset = next(self._plan, -1)
        if offset == -1:
            return None
        if offset is None:
            return []
        assert offset == self._next
        self._next += 1
        return [Batch(LOG, [offset], [-1], [f"S{offset}".encode()], [_message(offset)])]

    def marks(self, now_ms: int) -> list[Mark]:
        """None: marks would wake the lanes, too, but not in every epoch."""
        return []

    def state(self) -> int:
        """The offset to go on with."""
        return self._next

    def has_caught_up(self) -> bool:
        """Nobody asks for it here."""
        return False


class _Source(FixedPartitionedSource[Item, int]):
    def __init__(self, plan: Plan, *, wakes: bool) -> None:
        self._plan = plan
        self._wakes = wakes

    def list_parts(self) -> list[str]:
        return ["slot-00"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Log:
        return _Log(self._plan, resume_state or 0, wakes=self._wakes)


class _Outbox(FixedPartitionedSink[list[Threshold], None]):
    """Publishes at the end of an epoch; dies before that when the `fatal` record is among what is to be published."""

    def __init__(self, published: list[str], fatal: str | None) -> None:
        self.published = published
        self.fatal = fatal

    def list_parts(self) -> list[str]:
        return ["slot-00"]

    def part_fn(self, item_key: str) -> int:
        return 0

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> StatefulSinkPartition[Any, None]:
        return _OutboxPart(self)


class _OutboxPart(StatefulSinkPartition[list[Threshold], None]):
    def __init__(self, outbox: _Outbox) -> None:
        self._outbox = outbox
        self._waiting: list[str] = []

    def write_batch(self, values: list[list[Threshold]]) -> None:
        self._waiting.extend(record.sku for records in values for record in records)

    def snapshot(self) -> None:
        if self._outbox.fatal in self._waiting:
            raise _CrashError
        self._outbox.published.extend(self._waiting)
        self._waiting.clear()


def _is_crash(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, _CrashError):
        seen = seen.__cause__
    return seen is not None


def _run(store: Path, plan: Plan, published: list[str], *, wakes: bool, fatal: str | None = None) -> None:
    """One run; with `fatal` it dies before the crossing of that SKU is out."""
    nowhere: list[NowhereSink[Any]] = [NowhereSink() for _ in Sinks._fields]
    sinks = Sinks(*nowhere)._replace(thresholds=_Outbox(published, fatal))
    making = LaneMaking(BOOK, LaneSettings(LANES, 1, dedupe_ms=1000), lambda: 0, durable=True)
    flow = availability_flow(_Source(plan, wakes=wakes), sinks, making)
    if fatal is None:
        run_flow(flow, snapshot_seconds=0, store=store)
        return
    with pytest.raises(BaseException, check=_is_crash):  # noqa: B017  # Bytewax wraps it, or panics
        run_flow(flow, snapshot_seconds=0, store=store)


def _published_after_two_crashes(tmp_path: Path, *, wakes: bool) -> set[str]:
    """S1 is applied by a run that dies before it is published; the next run dies before it has read it again."""
    store, published = tmp_path / "state", list[str]()
    create(store, Meta(format=1, lanes=LANES, incarnation=1, parts=2, created="now"))
    _run(store, [0], published, wakes=wakes)
    _run(store, [1], published, wakes=wakes, fatal="S1")
    _run(store, [None, None, 1], published, wakes=wakes, fatal="S1")
    _run(store, [1, 2], published, wakes=wakes)
    return set(published)


def test_nothing_is_lost_by_two_crashes_in_a_row(tmp_path: Path) -> None:
    """A lane that sleeps through an epoch keeps the row that a dead run wrote in it, and skips what it applied."""
    assert _published_after_two_crashes(tmp_path, wakes=True) == {"S0", "S1", "S2"}


def test_without_waking_it_would_be_lost(tmp_path: Path) -> None:
    """The trap is real: if this fails, the engine has changed and waking may go."""
    assert _published_after_two_crashes(tmp_path, wakes=False) == {"S0", "S2"}
