"""Silence: how much a location is believed, by how long ago it was heard of."""

import pytest

from operators.silence import trust_percent, trusts_of

STALE_MS = 900_000


@pytest.mark.parametrize(
    ("age_ms", "percent"),
    [
        (-5, 100),
        (0, 100),
        (STALE_MS, 100),
        (STALE_MS + 1, 90),
        (STALE_MS + 90_000, 90),
        (STALE_MS + 90_001, 80),
        (STALE_MS + 450_000, 50),
        (2 * STALE_MS - 90_000, 10),
        (2 * STALE_MS - 89_999, 0),
        (2 * STALE_MS, 0),
        (99 * STALE_MS, 0),
    ],
)
def test_a_location_counts_less_and_less_down_to_nothing_at_twice_the_age(age_ms: int, percent: int) -> None:
    """In full up to `stale_after`, then in steps of ten."""
    assert trust_percent(age_ms, STALE_MS) == percent


def test_without_stale_after_a_location_is_always_believed() -> None:
    """Silence says nothing about it."""
    assert trust_percent(10**12, None) == 100


def test_a_silence_is_told_in_ten_steps() -> None:
    """However long it takes."""
    assert len({trust_percent(age_ms, STALE_MS) for age_ms in range(0, 3 * STALE_MS, 1000)}) == 11


def test_one_that_was_never_heard_of_is_silent_since_listening_began() -> None:
    """And one that was heard of needs no rules to be known."""
    trusts = trusts_of({"east": 1000, "west": 1000}, {"west": 4900, "south": 1}, begun_ms=3500, now_ms=5000)
    assert trusts == {"east": 50, "west": 100, "south": 100}
