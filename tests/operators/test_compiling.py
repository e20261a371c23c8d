"""Compiled functions give the same, whichever way they are called."""

import numpy as np

from operators.compiling import Held, compiled, direct, entered, hold, prefetch


@entered
def first_of(held: Held[tuple[np.ndarray]], place: int) -> int:
    """A number of the array that is held."""
    return held.value[0][place]  # type: ignore[no-any-return]


def test_a_direct_call_takes_the_entry_of_the_types_that_it_is_given() -> None:
    """Numbers of four bytes read as eight would be others, without any error."""
    called = direct(first_of, held=(0,))
    narrow, wide = np.arange(1, 9, dtype=np.int32), np.arange(10, 90, 10, dtype=np.int64)
    for _ in range(3):
        assert [called(hold((narrow,)), place) for place in range(8)] == narrow.tolist()
        assert [called(hold((wide,)), place) for place in range(8)] == wide.tolist()


@compiled
def prefetched(numbers: np.ndarray, places: np.ndarray) -> int:
    """The last number, behind prefetches of all these places."""
    for place in places:
        prefetch(numbers, place)
    return int(numbers[-1])


def test_a_place_outside_of_an_array_may_be_prefetched() -> None:
    """What lies ahead is guessed: it may be behind the last row, or before the first one."""
    numbers = np.arange(8, dtype=np.int64)
    places = np.array([0, 7, 8, -1, 10**6, -(10**6), 2**40, -(2**40), 2**59], np.int64)
    assert prefetched(numbers, places) == 7
    assert numbers.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
