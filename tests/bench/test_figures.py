"""Figures: medians, and how they are written."""

import pytest

from bench.figures import Spread, spread_of, told


@pytest.mark.parametrize(
    ("values", "spread"),
    [
        ([3.0], Spread(3, 3, 3)),
        ([5.0, 1.0, 2.0], Spread(2, 1, 5)),
        ([4.0, 1.0, 2.0, 9.0], Spread(3, 1, 9)),
        ([], None),
    ],
)
def test_the_median_stands_between_the_smallest_and_the_largest(values: list[float], spread: Spread | None) -> None:
    """In whatever order the runs came; of an even number it is the mean of the two in the middle."""
    assert spread_of(values) == spread


@pytest.mark.parametrize(
    ("spread", "digits", "text"),
    [
        (Spread(21_000, 20_500, 21_400), 0, "21,000 (20,500–21,400)"),
        (Spread(0, 0, 0), 0, "0"),
        (Spread(1.26, 1.24, 1.31), 1, "1.3 (1.2–1.3)"),
        (Spread(1.26, 1.26, 1.27), 0, "1"),
        (None, 0, "–"),
    ],
)
def test_a_figure_is_written_with_its_spread(spread: Spread | None, digits: int, text: str) -> None:
    """The spread is left out where it cannot be seen with so many digits."""
    assert told(spread, digits) == text
