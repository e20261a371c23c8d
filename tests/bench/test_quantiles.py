"""Quantiles: by nearest rank, so that each is a value that was measured."""

from random import Random

import pytest

from bench.quantiles import Quantiles, nearest_rank, quantiles_ms

MS = 1_000_000


@pytest.mark.parametrize(
    ("count", "per_mille", "expected"),
    [
        (1, 500, 1),
        (2, 500, 1),
        (3, 500, 2),
        (100, 990, 99),
        (101, 990, 100),
        (1000, 999, 999),
        (999, 999, 999),
        (10_000, 999, 9990),
        (7, 1000, 7),
    ],
)
def test_a_quantile_is_the_smallest_value_that_enough_do_not_exceed(count: int, per_mille: int, expected: int) -> None:
    """Of the numbers 1 to `count`."""
    assert nearest_rank(range(1, count + 1), per_mille) == expected


def test_quantiles_are_in_milliseconds_whatever_the_order() -> None:
    """A thousand latencies of 1 to 1000 ms."""
    values_ns = [number * MS for number in range(1, 1001)]
    Random(1).shuffle(values_ns)
    assert quantiles_ms(values_ns) == Quantiles(1000, 500.0, 990.0, 999.0, 1000.0)


def test_few_values_have_no_quantile_beyond_their_greatest() -> None:
    """Nothing is interpolated; the count says how far to trust."""
    assert quantiles_ms([3 * MS, 1_234_567]) == Quantiles(2, 1.235, 3.0, 3.0, 3.0)


def test_no_value_gives_no_figure() -> None:
    """The count says so."""
    assert quantiles_ms([]).count == 0
