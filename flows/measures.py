"""Measures: what one worker process has counted and seen, for whoever asks after its health."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from schemas.batches import Mark
from schemas.outputs import LaneResult

# Upper bounds in seconds, from written to Kafka until readable in Redis.
LATENCY_BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Standing(NamedTuple):
    """How far one partition has come: the mark that its slowest lane has passed on, and the log's end as last seen."""

    mark: Mark
    end_offset: int


@dataclass(slots=True)
class Passage:
    """The marks of one partition on their way through the lanes of this process."""

    first: Mark  # where a lane stands, at best, that has passed on none
    end_offset: int = 0  # as last seen
    by_lane: dict[int, Mark] = field(default_factory=dict)


@dataclass(slots=True)
class Measures:
    """Counters since the start of the process; times in ms since 1970, 0: never.

    `latency_counts` has one more entry than LATENCY_BOUNDS, for what took longer; each is a result of one lane. One
    thread writes; others may read at any time.
    """

    applied: int = 0
    duplicates: int = 0
    misplaced: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)  # by reason
    passages: dict[tuple[str, int], Passage] = field(default_factory=dict)  # by topic and partition
    lanes: set[int] = field(default_factory=set)  # that have left a result
    latency_counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS) + 1))
    latency_sum_seconds: float = 0.0
    epoch_began_ms: int = 0
    epochs: int = 0
    snapshot_bytes: int = 0  # of all lanes here, the last time
    snapshot_seconds: float = 0.0  # what packing them took, the last time
    lane_snapshot_bytes: dict[int, int] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)  # by lane

    def saw(self, results: list[LaneResult], now_ms: int) -> None:
        """Count what lanes here have done, readable in Redis as of `now_ms`."""
        for result in results:
            self.lanes.add(result.lane)
            self.applied += result.applied
            self.duplicates += result.duplicates
            self.misplaced += result.misplaced
            for letter in result.dead_letters:
                self.dead_letters[letter.reason] += 1
            for mark in result.marks:
                self._passed_on(result.lane, mark)
            if result.oldest_ms > 0 and (result.availability or result.hashes):
                seconds = max(0, now_ms - result.oldest_ms) / 1000
                self.latency_counts[bisect_left(LATENCY_BOUNDS, seconds)] += 1
                self.latency_sum_seconds += seconds

    def _passed_on(self, lane: int, mark: Mark) -> None:
        where = mark.origin.name, mark.origin.partition
        passage = self.passages.get(where)
        if passage is None:
            passage = self.passages[where] = Passage(mark)
        passage.end_offset = max(passage.end_offset, mark.end_offset)
        passage.by_lane[lane] = mark

    def standings(self) -> dict[tuple[str, int], Standing]:
        """How far each topic and partition has come in all lanes here; a lane that is not heard of holds it back.

        Every lane is told every mark, whichever process reads the partition.
        """
        passages = self.passages.copy()  # each copy in one step, since the worker goes on writing,
        lanes = self.lanes.copy()  # and in this order: no passage without a lane
        return {
            where: Standing(
                min((passage.by_lane.get(lane, passage.first) for lane in lanes), key=_progress),
                passage.end_offset,
            )
            for where, passage in passages.items()
        }


def _progress(mark: Mark) -> tuple[int, int]:
    """In a quiet log only the time moves on."""
    return mark.offset, mark.read_ms
