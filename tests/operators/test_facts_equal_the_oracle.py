"""Counts, statements, requests and contracts: lanes and oracle say the same, and neither breaks an invariant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.oracle import fold
from schemas.rules import Rules
from tests.fact_storms import storm
from tests.fact_strategies import fact_logs, fact_rules, ticks_after
from tests.lane_runs import Run, Step, assert_equal, steps
from tests.movement_strategies import AS_OF_MS, DEDUPE_MS, Logs

pytestmark = pytest.mark.timeout(3600)  # finding the smallest counterexample takes its time
LANES = st.integers(1, 3)
AS_OF = st.sampled_from([AS_OF_MS, AS_OF_MS // 3])  # longer and shorter than ids are remembered
SEEDS = st.integers(0, 2**32)


@given(fact_logs(), fact_rules(), steps(), LANES, AS_OF)
def test_lanes_equal_the_oracle_for_facts_of_all_kinds(
    logs: Logs, rules: Rules, steps: list[Step], lanes: int, as_of_ms: int
) -> None:
    """A run in pieces, with snapshots and restarts, ends as if each log had been read once from end to end."""
    run = Run(logs, rules, lanes, as_of_ms).take(steps)
    oracle = fold((message for log in logs for message in log), rules, dedupe_ms=DEDUPE_MS, as_of_ms=as_of_ms)
    assert_equal(run, oracle)


@given(fact_logs(misplaced=True), fact_rules(), steps(restarts=False), LANES, AS_OF)
def test_misplaced_facts_of_all_kinds_equal_the_oracle(
    logs: Logs, rules: Rules, steps: list[Step], lanes: int, as_of_ms: int
) -> None:
    """With facts of a SKU in several logs the interleaving matters, and the same one gives the same outcome."""
    run = Run(logs, rules, lanes, as_of_ms).take(steps).go_on(ticks_after(logs))
    assert_equal(run, fold(run.order, rules, dedupe_ms=DEDUPE_MS, as_of_ms=as_of_ms))


@given(SEEDS, steps(), LANES, AS_OF)
def test_storms_of_facts_equal_the_oracle(seed: int, steps: list[Step], lanes: int, as_of_ms: int) -> None:
    """Long logs, in which requests are drawn on, expire and are forgotten, end as if read from end to end."""
    logs, rules = storm(seed)
    run = Run(logs, rules, lanes, as_of_ms).take(steps)
    oracle = fold((message for log in logs for message in log), rules, dedupe_ms=DEDUPE_MS, as_of_ms=as_of_ms)
    assert_equal(run, oracle)


@given(SEEDS, steps(restarts=False), LANES, AS_OF)
def test_misplaced_storms_of_facts_equal_the_oracle(seed: int, steps: list[Step], lanes: int, as_of_ms: int) -> None:
    """The same with facts of a SKU in several logs, read in one order by both."""
    logs, rules = storm(seed, misplaced=True)
    run = Run(logs, rules, lanes, as_of_ms).take(steps).go_on(ticks_after(logs))
    assert_equal(run, fold(run.order, rules, dedupe_ms=DEDUPE_MS, as_of_ms=as_of_ms))
