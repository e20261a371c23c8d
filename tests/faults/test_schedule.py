"""Schedules and load of the campaign: a seed says everything, and all faults have their turn."""

import itertools

import pytest

from schemas.complaints import Complaint, read_toml
from schemas.movements import Decoded, decode
from schemas.rules import rules_from
from tests.faults.load import load, rules_text
from tests.faults.schedule import FAULTS, draw, slowed

NOW_MS = 1_795_219_200_000
SEEDS = range(1, 201)
MESSAGES = 3000


def test_a_seed_always_gives_the_same_schedule_and_load() -> None:
    """So that a failure can be looked at again."""
    for seed in SEEDS:
        assert draw(seed) == draw(seed)
    plan = draw(7).load
    first, second = (list(itertools.islice(load(plan, 7, lambda: NOW_MS), MESSAGES)) for _ in range(2))
    assert first == second


def test_every_fault_strikes_as_often_as_the_others() -> None:
    """The first fault of a seed goes round; together with the others drawn, each has its share of 200 seeds."""
    met = [fault.kind for seed in SEEDS for fault in draw(seed).faults]
    assert all(met.count(kind) >= len(SEEDS) // len(FAULTS) for kind in FAULTS)


@pytest.mark.parametrize("kind", FAULTS)
def test_one_fault_alone_can_be_asked_for(kind: str) -> None:
    """ONLY=… gives schedules of nothing else."""
    for seed in range(1, 20):
        faults = draw(seed, kind).faults  # type: ignore[arg-type]  # one of them
        assert {fault.kind for fault in faults} == {kind}


@pytest.mark.parametrize("seed", range(1, 30))
def test_the_rules_of_a_load_are_valid_and_each_generation_is_another(seed: int) -> None:
    """A campaign never fails because of its own rules."""
    texts = [rules_text(draw(seed).load, seed, generation, NOW_MS) for generation in range(1, 5)]
    for text in texts:
        document = read_toml(text)
        assert not isinstance(document, Complaint)
        assert [complaint for complaint in rules_from(document)[1] if complaint.severity == "error"] == []
    assert len(set(texts)) == len(texts)


def test_a_load_has_facts_of_all_sorts_and_nothing_from_the_future() -> None:
    """Over some seeds every kind is there, and no time that a broker of now would refuse."""
    kinds = set()
    for seed in range(1, 12):
        for _, _, payload in itertools.islice(load(draw(seed).load, seed, lambda: NOW_MS), MESSAGES):
            decoded = decode(payload)
            if isinstance(decoded, Decoded):
                kinds.add(str(decoded.record.__struct_config__.tag))
                assert decoded.time_ms < NOW_MS + 300_000
    assert kinds >= {"received", "shipped", "counted", "stated", "requested", "extended", "tick", "location"}
    assert kinds >= {"channel_committed", "reserved", "released", "allocated", "transfer_shipped", "expected"}


def test_half_of_the_flows_keep_lanes_as_changes_and_points_of_bases_are_passed() -> None:
    """A point that no process passes would strike nobody."""
    drawn = [draw(seed) for seed in SEEDS]
    assert len(SEEDS) // 3 < sum(schedule.bases for schedule in drawn) < 2 * len(SEEDS) // 3
    armed = {(schedule.bases, point) for schedule in drawn for fault in schedule.faults for point in fault.points}
    assert {bases for bases, point in armed if point.startswith(("base", "forget"))} == {True}


def test_a_slow_machine_has_the_same_faults_and_less_to_do() -> None:
    """A half of the records a second, epochs twice as long, all else as drawn."""
    plain = draw(5)
    slow = slowed(plain, 2.0)
    assert slow.load.messages_per_second * 2 == plain.load.messages_per_second
    assert slow.snapshot_seconds == 2 * plain.snapshot_seconds
    assert (slow.faults, slow.lanes, slow.workers) == (plain.faults, plain.lanes, plain.workers)
    assert slowed(plain, 1.0) == plain
