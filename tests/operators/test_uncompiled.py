"""Loops run uncompiled, too, where a place behind an array's end is an error and not whatever stands there."""

import os
import subprocess
import sys

# Batches are shorter and longer than loops look ahead.
SAME = """
import hashlib
from random import Random

from bench.drain import HOUR_MS, as_batches
from bench.generate import LoadConfig, benchmark_rules, movements
from bench.kernel import cut
from operators.lane import Lane, LaneSettings
from operators.route import route
from operators.rules import RuleBook

config = LoadConfig(movements=600, skus=30, partitions=1, duplicate_share=0.05, tick_ms=60_000)
lanes = [Lane(number, RuleBook(benchmark_rules()), LaneSettings(2, 1, 72 * HOUR_MS)) for number in range(2)]
tellers = [lane.teller("avail:") for lane in lanes]
(log,) = as_batches(list(movements(config, Random(1))))
at, told = 0, hashlib.sha256()
for size in (1, 3, 200, 5, 90, 1000):
    for batch in cut(log, at, min(at + size, len(log.offsets))):
        for number, part in route(batch, 2):
            result = lanes[number].apply([part], teller=tellers[number])
            told.update(repr(list(result.hashes)).encode())
    at += size
for lane, teller in zip(lanes, tellers):
    told.update(repr([list(records) for records in lane.tell(teller, 1000)[0].told]).encode())
    told.update(lane.snapshot())
    assert lane.row_wise < len(log.offsets) // 20  # ticks
    Lane.restore(lane.number, lane.snapshot(), RuleBook(benchmark_rules()), lane.settings)
print(told.hexdigest())
"""


def test_loops_do_the_same_uncompiled() -> None:
    """Every call, record and snapshot, byte for byte."""
    assert told_by({"NUMBA_DISABLE_JIT": "1"}) == told_by({})


def told_by(environment: dict[str, str]) -> str:
    """What lanes told, and what they knew in the end."""
    run = [sys.executable, "-W", "ignore", "-c", SAME]  # numpy warns of numbers that wrap round, as hashes do
    return subprocess.run(run, env={**os.environ, **environment}, capture_output=True, text=True, check=True).stdout
