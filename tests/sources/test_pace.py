"""When a source's partition speaks, looks again and ends."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from schemas.batches import Batch, CaughtUp, Mark, Origin, Wake
from sources.pace import ALONE, LOOK_AGAIN_MS, PacedPartition, Surroundings, next_look

ORIGIN = Origin("c", "t", 0, "n")
BATCH = Batch(ORIGIN, [0], [-1], [None], [b"x"])


class _Script(PacedPartition[None]):
    """Reads what the test laid ready."""

    def __init__(self, reads: list[list[Batch] | None], around: Surroundings = ALONE, slot: int = 0) -> None:
        self.clock_ms = 0
        self.drain = False
        self.caught_up = False
        self._reads = iter(reads)
        super().__init__(lambda: self.clock_ms, lambda: self.drain, around, slot)

    def read(self, now_ms: int) -> Sequence[Batch] | None:
        return next(self._reads)

    def marks(self, now_ms: int) -> list[Mark]:
        return [Mark(ORIGIN, 0, 0, -1, now_ms)]

    def state(self) -> None:
        return None

    def has_caught_up(self) -> bool:
        return self.caught_up


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


def kinds(part: _Script) -> list[str]:
    """What the next batch holds."""
    return [type(item).__name__ for item in part.next_batch()]


def test_the_first_slot_wakes_all_lanes_at_the_beginning_of_every_epoch() -> None:
    """A lane that slept through an epoch would go on from the snapshot of a run that died in it."""
    part = _Script([[BATCH]] * 4, Surroundings(wakes=True))
    assert kinds(part) == ["Wake", "Batch", "Mark"]
    assert kinds(part) == ["Batch"]
    part.snapshot()
    assert kinds(part) == ["Wake", "Batch"]
    assert kinds(part) == ["Batch"]


def test_an_epoch_behind_the_end_is_woken_too() -> None:
    """The epoch may end between the last marks and the end of the partition."""
    part = _Script([None], Surroundings(wakes=True))
    assert kinds(part) == ["Wake", "Mark"]
    part.snapshot()
    assert part.next_batch() == [Wake()]
    with pytest.raises(StopIteration):
        part.next_batch()


def test_only_the_first_slot_wakes_and_only_where_that_is_asked_for() -> None:
    """Once is enough, and a flow without a store needs none."""
    assert kinds(_Script([[BATCH]], Surroundings(wakes=True), slot=1)) == ["Batch", "Mark"]
    assert kinds(_Script([[BATCH]])) == ["Batch", "Mark"]


def test_each_slot_tells_once_that_it_has_caught_up() -> None:
    """Behind the last record of those that were there, and to nobody where no state is kept."""
    part = _Script([[BATCH]] * 4, Surroundings(wakes=True), slot=1)
    assert kinds(part) == ["Batch", "Mark"]
    part.caught_up = True
    assert part.next_batch() == [BATCH, CaughtUp(1, 1)]
    assert kinds(part) == ["Batch"]
    alone = _Script([[BATCH]])
    alone.caught_up = True
    assert kinds(alone) == ["Batch", "Mark"]


def test_a_slot_reads_nothing_while_its_lanes_have_too_much_to_do() -> None:
    """It goes on telling how far it is, and beats, and reads on when there is room."""
    beats: list[int] = []
    full = [True, True, False]
    part = _Script([[BATCH]], Surroundings(beat=lambda: beats.append(1), is_full=lambda _slot: full.pop(0)), slot=3)
    assert kinds(part) == ["Mark"]
    assert part.next_batch() == []
    assert part.next_awake() is not None
    assert kinds(part) == ["Batch"]
    assert len(beats) == 3
