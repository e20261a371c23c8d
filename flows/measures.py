"""Measures: what one worker process has counted and seen, for whoever asks after its health."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from schemas.batches import Mark
from schemas.outputs import LaneResult

# Upper bounds in seconds, from written to Kafka until readable in Redis.
LATENCY_BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


@dataclass(slots=True)
class Measures:
    """Counters since the start of the process; times in ms since 1970, 0: never.

    `latency_counts` has one more entry than LATENCY_BOUNDS, for what took longer; each is a result of one lane.
    """

    applied: int = 0
    duplicates: int = 0
    misplaced: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)  # by reason
    marks: dict[tuple[str, int], Mark] = field(default_factory=dict)  # by topic and partition, the slowest lane's
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
            self.applied += result.applied
            self.duplicates += result.duplicates
            self.misplaced += result.misplaced
            for letter in result.dead_letters:
                self.dead_letters[letter.reason] += 1
            for mark in result.marks:
                self.marks[mark.origin.name, mark.origin.partition] = mark
            if result.oldest_ms > 0 and result.availability:
                seconds = max(0, now_ms - result.oldest_ms) / 1000
                self.latency_counts[bisect_left(LATENCY_BOUNDS, seconds)] += 1
                self.latency_sum_seconds += seconds
