"""Rules that change, silence, demand and proposals over weeks: lanes and oracle say the same, however it is read."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.oracle import fold
from operators.plain_path import PlainPath, PlainResult
from tests.lane_runs import Run, Step, assert_equal, steps
from tests.movement_strategies import AS_OF_MS, DEDUPE_MS
from tests.rule_storms import Storm, last_ticks

pytestmark = pytest.mark.timeout(3600)  # finding the smallest counterexample takes its time
LANES = st.integers(1, 3)
SEEDS = st.integers(0, 2**32)
WEEKS_MS = 60 * 86_400_000  # nothing is too late


@given(SEEDS, steps(), LANES)
def test_storms_of_rules_silence_and_demand_equal_the_oracle(seed: int, steps: list[Step], lanes: int) -> None:
    """Any batching, interleaving, snapshot and restart in between ends as if each log were read from end to end."""
    storm = Storm(seed, misplaced=False)
    logs = storm.logs()
    run = Run(logs, storm.rules, lanes, WEEKS_MS, dedupe_ms=WEEKS_MS, shadow=storm.shadow).take(steps)
    messages = (message for log in logs for message in log)
    assert_equal(run, fold(messages, storm.rules, dedupe_ms=WEEKS_MS, as_of_ms=WEEKS_MS, shadow=storm.shadow))


@given(SEEDS, steps(), LANES)
def test_calm_storms_equal_the_oracle(seed: int, steps: list[Step], lanes: int) -> None:
    """Movements alone, many of which go through compiled loops: under sources, mistrust and proposals, too."""
    storm = Storm(seed, misplaced=False, calm=True)
    logs = storm.logs()
    run = Run(logs, storm.rules, lanes, WEEKS_MS, dedupe_ms=WEEKS_MS).take(steps)
    messages = (message for log in logs for message in log)
    assert_equal(run, fold(messages, storm.rules, dedupe_ms=WEEKS_MS, as_of_ms=WEEKS_MS))


def test_calm_storms_go_through_compiled_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above looks at them: in each kind of world a tenth of the movements at least, between all else."""
    compiled = 0
    apply = PlainPath.apply

    def counted(path: PlainPath, *arguments: Any) -> PlainResult:  # noqa: ANN401  # as they are
        nonlocal compiled
        done = apply(path, *arguments)
        compiled += done.applied
        return done

    monkeypatch.setattr(PlainPath, "apply", counted)
    shares: dict[str, list[int]] = {}
    for seed in range(200):
        storm = Storm(seed, misplaced=False, calm=True)
        compiled = 0
        run = Run(storm.logs(), storm.rules, 1, WEEKS_MS, dedupe_ms=WEEKS_MS).take([])
        for world, is_it in (("sources", storm.rules.sources), ("planned", storm.rules.replenishment), ("all", True)):
            if is_it:
                counts = shares.setdefault(world, [0, 0])
                counts[0] += compiled
                counts[1] += run.counts["applied"]
    assert all(10 * fast > all_ > 0 for fast, all_ in shares.values())


@given(SEEDS, steps(), LANES)
def test_they_do_so_where_ids_and_history_are_forgotten(seed: int, steps: list[Step], lanes: int) -> None:
    """The same with memories of hours, so that much is too late."""
    storm = Storm(seed, misplaced=False)
    logs = storm.logs()
    run = Run(logs, storm.rules, lanes, AS_OF_MS, shadow=storm.shadow).take(steps)
    messages = (message for log in logs for message in log)
    assert_equal(run, fold(messages, storm.rules, dedupe_ms=DEDUPE_MS, as_of_ms=AS_OF_MS, shadow=storm.shadow))


@given(SEEDS, steps(restarts=False), LANES)
def test_misplaced_storms_of_rules_equal_the_oracle(seed: int, steps: list[Step], lanes: int) -> None:
    """With facts of a SKU in several logs the interleaving matters, and the same one gives the same outcome."""
    storm = Storm(seed, misplaced=True)
    logs = storm.logs()
    run = Run(logs, storm.rules, lanes, WEEKS_MS, dedupe_ms=WEEKS_MS, shadow=storm.shadow).take(steps)
    run.go_on(last_ticks(logs))
    assert_equal(run, fold(run.order, storm.rules, dedupe_ms=WEEKS_MS, as_of_ms=WEEKS_MS, shadow=storm.shadow))
