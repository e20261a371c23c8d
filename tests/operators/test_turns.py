"""Turns: instants for what nobody waits for, each for one lane."""

import pytest

from operators.turns import SpareTurns, Turns


def test_turns_are_apart_whoever_asks() -> None:
    """Lanes that ask at once are not served at once."""
    turns = Turns(10.0, takers=4)
    assert [turns.next_ms(1000) for _ in range(3)] == [1000, 1010, 1020]
    assert turns.next_ms(1500) == 1500
    assert turns.next_ms(1505) == 1510


def test_a_clock_that_was_set_back_makes_nobody_wait_for_the_time_that_was() -> None:
    """An hour in which nothing is told would be worse than two turns at once."""
    turns = Turns(10.0, takers=4)
    turns.next_ms(3_600_000)
    assert turns.next_ms(1000) == 1000
    assert turns.next_ms(1000) == 1010


@pytest.mark.parametrize(("seconds", "apart_ms"), [(0.0, 0.8), (0.0005, 2.0), (0.004, 16.0)])
def test_spare_turns_take_their_share_of_a_core(seconds: float, apart_ms: float) -> None:
    """The longer a turn takes, the later is the next one; the shortest for a fifth of a millisecond."""
    turns = SpareTurns(0.25, 0.05, takers=64)
    assert apart_after(turns, seconds, 5000) == pytest.approx(apart_ms, rel=0.01)


def test_while_movements_wait_spare_turns_take_less() -> None:
    """For a second after the last that had to; a clock that was set back does not make it longer."""
    turns = SpareTurns(0.25, 0.05, takers=64)
    turns.pressed(10_000)
    expected = {9000: 16.0, 10_000: 80.0, 10_999: 80.0, 11_000: 16.0}
    assert {at: pytest.approx(apart_after(turns, 0.004, at), rel=0.01) for at in expected} == expected


def apart_after(turns: SpareTurns, seconds: float, now_ms: float) -> float:
    """How far turns are apart after many that took so long."""
    for _ in range(200):
        turns.took(seconds, now_ms)
    first = turns.next_ms(now_ms)
    return turns.next_ms(now_ms) - first
