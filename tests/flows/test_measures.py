"""What a worker counts: sums over results, how far its slowest lane has come, and how long records take."""

import sys
from threading import Event, Thread
from typing import Any

import pytest

from flows.measures import LATENCY_BOUNDS, Measures, Standing
from schemas.batches import Mark, Origin
from schemas.outputs import Availability, DeadLetter, LaneResult

TOPIC = "inventory.movements"
SKU = Availability("SKU-1", 1, 1, "2026-11-21T09:00:00.000Z", 1, {}, {})
LETTER = DeadLetter("1", "not_json", "", "", None, None, None, None, None)


def mark(offset: int, *, end: int | None = None, partition: int = 0, read_ms: int = 0) -> Mark:
    """A mark of the topic; at its end where none is given."""
    return Mark(Origin("c", "t", partition, TOPIC), offset, offset if end is None else end, -1, read_ms)


def result(lane: int = 0, *marks: Mark, **other: Any) -> LaneResult:  # noqa: ANN401  # any field of a result
    """A result that holds nothing but what is given."""
    nothing = LaneResult(lane, [], [], [], [], [], [], [], [], [], [], 0, 0, 0)
    return nothing._replace(marks=list(marks), **other)


def standing_after(*results: LaneResult, partition: int = 0) -> Standing:
    """How far a partition has come once these were seen."""
    measures = Measures()
    for each in results:
        measures.saw([each], 0)
    return measures.standings()[TOPIC, partition]


def test_results_add_up() -> None:
    """Each count is the sum over all results, dead letters by reason."""
    measures = Measures()
    measures.saw([result(applied=3, duplicates=1), result(1, applied=2, misplaced=4, dead_letters=[LETTER])], 0)
    measures.saw([result(dead_letters=[LETTER, LETTER])], 0)
    assert (measures.applied, measures.duplicates, measures.misplaced) == (5, 1, 4)
    assert measures.dead_letters == {"not_json": 3}


def test_a_partition_has_come_as_far_as_its_slowest_lane() -> None:
    """What one lane has passed on is not yet in the numbers of another."""
    assert standing_after(result(0, mark(10)), result(1, mark(10)), result(0, mark(20))).mark == mark(10)
    assert standing_after(result(0, mark(10)), result(1, mark(20)), result(0, mark(20))).mark == mark(20)


def test_in_a_quiet_log_the_slowest_lane_is_the_one_not_heard_of() -> None:
    """At equal offsets, the mark that was read first counts."""
    seen = standing_after(
        result(1, mark(10, read_ms=1)), result(0, mark(10, read_ms=1)), result(1, mark(10, read_ms=2))
    )
    assert seen.mark.read_ms == 1


@pytest.mark.parametrize("first", [True, False])
def test_a_lane_that_never_passed_on_a_mark_holds_the_partition_back(first: bool) -> None:  # noqa: FBT001  # a case
    """A lane is known by any result; where it stands is at best where the first mark was."""
    silent = result(1, applied=1)
    told = [result(0, mark(10)), result(0, mark(20)), result(0, mark(30))]
    assert standing_after(*([silent, *told] if first else [*told, silent])).mark == mark(10)


def test_the_end_of_a_log_is_what_any_lane_was_told_last() -> None:
    """What waits in front of a slow lane grows with the log."""
    seen = standing_after(result(0, mark(10)), result(1, mark(10)), result(0, mark(15, end=40)), result(1, mark(10)))
    assert seen == Standing(mark(10), 40)


def test_partitions_are_apart() -> None:
    """Each has a slowest lane of its own."""
    results = [result(0, mark(10), mark(90, partition=1)), result(1, mark(20), mark(70, partition=1))]
    assert standing_after(*results).mark.offset == 10
    assert standing_after(*results, partition=1).mark.offset == 70


def test_nothing_is_known_before_the_first_mark() -> None:
    """No partition is made up."""
    measures = Measures()
    measures.saw([result(applied=1)], 0)
    assert measures.standings() == {}


@pytest.mark.parametrize(
    ("took_ms", "bucket"),
    [(-5, 0), (0, 0), (1, 0), (2, 1), (3, 2), (1000, 9), (1001, 10), (60_000, 14), (60_001, 15)],
)
def test_a_latency_counts_in_the_first_bucket_that_it_is_not_above(took_ms: int, bucket: int) -> None:
    """Bounds belong to their bucket; a broker's clock that is ahead is no time at all; the last bucket has no bound."""
    measures = Measures()
    measures.saw([result(oldest_ms=100_000, availability=[SKU])], 100_000 + took_ms)
    assert [number for number, count in enumerate(measures.latency_counts) if count] == [bucket]
    assert len(measures.latency_counts) == len(LATENCY_BOUNDS) + 1
    assert measures.latency_sum_seconds == max(0, took_ms) / 1000


@pytest.mark.parametrize("seen", [result(oldest_ms=1), result(availability=[SKU])])
def test_what_has_no_time_or_shows_nothing_has_no_latency(seen: LaneResult) -> None:
    """A refill and a tick that changes nothing are not measured."""
    measures = Measures()
    measures.saw([seen], 100_000)
    assert sum(measures.latency_counts) == 0


def test_standings_may_be_asked_while_the_worker_writes() -> None:
    """Partitions and lanes that are just being added neither break the answer nor stand in it half."""
    measures, done, interval = Measures(), Event(), sys.getswitchinterval()

    def write() -> None:
        for number in range(500):
            measures.saw([result(number, mark(1, partition=number))], 0)
        done.set()

    sys.setswitchinterval(1e-6)  # so that each step of one meets each of the other
    try:
        writer = Thread(target=write)
        writer.start()
        while not done.is_set():
            assert all(standing.mark.offset == 1 for standing in measures.standings().values())
        writer.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(measures.standings()) == 500
