"""Compiled functions give the same, whichever way they are called."""

import numpy as np

from operators.compiling import Held, direct, entered, hold


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
