"""When a source's partition speaks, looks again and ends."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from schemas.batches import Batch, CaughtUp, Mark, Origin, Wake
from sources.pace import ALONE, LOOK_AGAIN_MS, Epochs, PacedPartition, Surroundings, next_look

ORIGIN = Origin("c", "t", 0, "n")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
BATCH = Batch(ORIGIN, [0], [-1], [None], [b"x"])


class _Script(PacedPartition[None]):
    """Reads what the test laid ready."""

    def __init__(
        self, reads: list[list[Batch] | None], around: Surroundings = ALONE, slot: int = 0, slots: int = 1
    ) -> None:
        self.clock_ms = 0
        self.drain = False
        self.caught_up = False
        self._reads = iter(reads)
        super().__init__(lambda: self.clock_ms, lambda: self.drain, around, slot, slots)

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


def test_slots_mark_at_instants_of_their_own() -> None:
    """Each mark goes to every lane: those of all slots at one instant would make movements wait."""
    marked: list[list[int]] = []
    for slot in range(4):
        part = _Script([[]] * 50, slot=slot, slots=4)
        marked.append([])
        for clock_ms in range(5_010, 7_400, 50):
            part.clock_ms = clock_ms
            marked[slot].extend(item.read_ms for item in part.next_batch() if isinstance(item, Mark))
    assert marked == [[5_010, 6_010, 7_010], [5_010, 5_260, 6_260, 7_260], [5_010, 5_510, 6_510], [5_010, 5_760, 6_760]]


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
    looks = {next_look(EPOCH + timedelta(microseconds=at), 2).microsecond % 2000 for at in range(0, 4000, 7)}
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


class _Process:
    """One process as Bytewax 0.21.1 runs its partitions (src/inputs.rs), on a clock that passes by itself.

    `closing_ms` is how long it takes until an epoch has gone through all processes; a look at all takes `LOOK_MS`.
    """

    LOOK_MS = 0.25
    INTERVAL_MS = 800.0

    def __init__(self, busy: Sequence[bool], closing_ms: float) -> None:
        self.now_ms = 0.0
        self.looks_while_closing = 0
        self.reads = 0
        self.ended_ms: list[float] = []
        self.closing_ms = closing_ms
        self._closed_ms = 0.0
        around = Surroundings(epochs=Epochs(self.INTERVAL_MS, self._clock), clock=self._clock)
        self._parts = [
            _Script([[BATCH] if is_busy else []] * 50_000, around, slot) for slot, is_busy in enumerate(busy)
        ]
        self._wakes_ms = [0.0] * len(busy)
        self._began_ms = 0.0

    def run(self, seconds: float) -> None:
        """Look at the partitions, again and again."""
        end_ms = self.now_ms + 1000 * seconds
        while self.now_ms < end_ms:
            self._look()

    def _look(self) -> None:
        now_ms = self.now_ms
        self.now_ms += self.LOOK_MS
        ends = now_ms - self._began_ms >= self.INTERVAL_MS
        if now_ms < self._closed_ms:
            self.looks_while_closing += 1
        else:
            for slot, part in enumerate(self._parts):
                if self._wakes_ms[slot] <= now_ms:
                    self.reads += 1
                    part.next_batch()
                    self.now_ms += self.LOOK_MS
                    awake = part.next_awake()
                    self._wakes_ms[slot] = self.now_ms if awake is None else (awake - EPOCH) / timedelta(milliseconds=1)
                if ends:
                    part.snapshot()
            if ends:
                self.ended_ms.append(now_ms)
                self._began_ms, self._closed_ms = now_ms, now_ms + self.closing_ms
        self.now_ms = max(self.now_ms, min(self._wakes_ms))

    def _clock(self) -> datetime:
        return EPOCH + timedelta(milliseconds=self.now_ms)


@pytest.mark.parametrize("busy", [[False] * 4, [True, False, False], [False, True], [True, True]])
@pytest.mark.parametrize("closing_ms", [0.0, 3.0, 40.0, 300.0])
def test_a_process_that_waits_for_others_rests(busy: list[bool], closing_ms: float) -> None:
    """Bytewax would come back at once all the while: thousands of times a second. Epochs keep their length, though."""
    process = _Process(busy, closing_ms)
    process.run(5)
    learned = process.looks_while_closing
    process.run(15)
    epochs = [later - earlier for earlier, later in pairwise(process.ended_ms[4:])]
    at_once = closing_ms / process.LOOK_MS * len(epochs)
    assert process.looks_while_closing - learned <= 0.3 * at_once
    assert max(epochs) < process.INTERVAL_MS + 12
    assert process.reads > 20_000 / LOOK_AGAIN_MS * 0.5 * (process.INTERVAL_MS - closing_ms) / process.INTERVAL_MS


def test_a_closing_that_was_long_once_is_forgotten() -> None:
    """The rest is what most of the last closings took, and less than that: it finds the way back."""
    process = _Process([False, False], 400.0)
    process.run(10)
    process.closing_ms = 0.0
    process.run(30)
    reads = process.reads
    process.run(10)
    assert process.reads - reads > 2 * 10_000 / LOOK_AGAIN_MS * 0.95


def test_no_rest_is_longer_than_half_a_second() -> None:
    """After a Redis that was away for a minute the next epochs go on as ever."""
    process = _Process([False, False], 60_000.0)
    process.run(190)
    process.closing_ms = 0.0
    process.run(54)
    reads = process.reads
    process.run(1)
    assert process.now_ms < 246_000
    assert process.reads > reads
