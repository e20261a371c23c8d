"""When a source's partition speaks, looks again and ends."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from schemas.batches import Batch, Mark, Origin
from sources.pace import LOOK_AGAIN_MS, PacedPartition, next_look

ORIGIN = Origin("c", "t", 0, "n")
BATCH = Batch(ORIGIN, [0], [-1], [None], [b"x"])


class _Script(PacedPartition[None]):
    """Reads what the test laid ready."""

    def __init__(self, reads: list[list[Batch] | None]) -> None:
        self.clock_ms = 0
        self.drain = False
        self._reads = iter(reads)
        super().__init__(lambda: self.clock_ms, lambda: self.drain)

    def read(self, now_ms: int) -> Sequence[Batch] | None:
        return next(self._reads)

    def marks(self, now_ms: int) -> list[Mark]:
        return [Mark(ORIGIN, 0, 0, -1, now_ms)]

    def snapshot(self) -> None:
        return None


def test_a_mark_comes_first_each_second_and_after_the_clock_was_set_back() -> None:
    """A quiet partition is told about once a second, whatever happens to the clock."""
    part = _Script([[]] * 6)
    marked: list[int] = []
    for clock_ms in (5_000, 5_999, 6_000, 6_500, 4_000, 4_500):
        part.clock_ms = clock_ms
        marked.extend(item.read_ms for item in part.next_batch() if isinstance(item, Mark))
    assert marked == [5_000, 6_000, 4_000]


@pytest.mark.parametrize("drained", [True, False])
def test_the_end_is_a_mark_and_then_stop_iteration(*, drained: bool) -> None:
    """At the end of the input, or drained with messages waiting, the last thing said is how far it is read."""
    part = _Script([[BATCH], [BATCH] if drained else None, [BATCH]])
    part.next_batch()
    part.drain = drained
    assert list(part.next_batch()) == [Mark(ORIGIN, 0, 0, -1, 0)]
    with pytest.raises(StopIteration):
        part.next_batch()


def test_only_an_idle_partition_waits_and_never_longer_than_its_look() -> None:
    """With messages the next look is at once; without, within LOOK_AGAIN_MS."""
    part = _Script([[BATCH], []])
    part.next_batch()
    assert part.next_awake() is None
    part.next_batch()
    awake = part.next_awake()
    assert awake is not None
    assert (
        timedelta(0)
        < awake - datetime.now(UTC) + timedelta(seconds=1)
        <= timedelta(seconds=1, milliseconds=LOOK_AGAIN_MS)
    )


def test_partitions_look_at_the_same_instants() -> None:
    """All looks fall on one grid, so that one activation of the worker serves all partitions."""
    looks = {next_look(2).microsecond % 2000 for _ in range(100)}
    assert looks == {0}
