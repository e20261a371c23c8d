"""Turns: instants for what nobody waits for, each for one lane."""

import pytest

from operators.turns import BORROWED_MS_MAX, BUSY_SHARE, Busyness, SpareTurns, Turns


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


def test_turns_that_come_closer_together_again_stay_those_that_were_handed_out() -> None:
    """That the last of them is far away does not show that the clock was set back."""
    turns = SpareTurns(0.25, 0.05, takers=64)
    turns.pressed(10_000)
    apart_ms = apart_after(turns, 0.004, 10_000)
    handed_out = [turns.next_ms(10_000) for _ in range(60)]
    turns.took(0.004, 11_500)
    assert turns.next_ms(11_500) == pytest.approx(handed_out[-1] + apart_ms)


def test_a_thread_is_busy_with_what_is_no_spare_work_over_the_last_second() -> None:
    """Looks come when they come; what was long ago does not count, and one look after a long rest tells of the rest."""
    busyness = Busyness()
    worked = 0.0
    seen = []
    for look in range(40):  # a quarter of a second each: half of it work, of which a tenth is spare
        busyness.look(100.0 + worked, 7000.0 + look / 4)
        worked += 0.125 if look < 20 else 0.025
        busyness.spent(0.025)
        seen.append(round(busyness.share, 3))
    assert seen[:4] == [0.0] * 4  # nothing is known within the first second
    assert seen[4:20] == [0.4] * 16
    assert seen[24:] == [0.0] * 16


@pytest.mark.parametrize(("busy", "apart_ms"), [(BUSY_SHARE - 0.05, 16.0), (BUSY_SHARE + 0.05, 80.0)])
def test_while_a_thread_is_busy_spare_turns_take_less(busy: float, apart_ms: float) -> None:
    """What waits behind a long batch is not old yet when that begins."""
    turns = SpareTurns(0.25, 0.05, takers=64)
    worked = 0.0
    for turn in range(100):
        turns.worked(worked, turn / 10)
        turns.took(0.004, 100 * turn)
        worked += 0.1 * busy + 0.004
    first = turns.next_ms(50_000)
    assert turns.next_ms(50_000) - first == pytest.approx(apart_ms, rel=0.01)


def test_what_somebody_waits_for_borrows_from_the_turns_to_come() -> None:
    """At once, as long as it is not more than a second's; after it nobody has a turn until that is made up for."""
    turns = SpareTurns(0.25, 0.05, takers=64)
    borrowed = 0
    while turns.may_borrow(5000):
        turns.borrowed(0.004, 5000)
        borrowed += 1
    assert borrowed == BORROWED_MS_MAX // 16 + 1
    assert turns.next_ms(5000) == pytest.approx(5000 + 16 * borrowed)
    assert not turns.may_borrow(5000)
    assert turns.may_borrow(5100)
    assert turns.next_ms(7000) == pytest.approx(7000)


def test_what_was_borrowed_is_soon_forgotten_whatever_the_clock_says() -> None:
    """One that took very long, and a clock that was set back, make nobody wait for long."""
    turns = SpareTurns(0.25, 0.05, takers=64)
    turns.borrowed(60.0, 3_600_000)
    assert turns.next_ms(3_600_000) == 3_600_000 + 2 * BORROWED_MS_MAX
    assert turns.may_borrow(1000)
    assert SpareTurns(0.25, 0.05, takers=64).may_borrow(0)


def apart_after(turns: SpareTurns, seconds: float, now_ms: float) -> float:
    """How far turns are apart after many that took so long."""
    for _ in range(200):
        turns.took(seconds, now_ms)
    first = turns.next_ms(now_ms)
    return turns.next_ms(now_ms) - first
