"""The cost model: its arithmetic, limit by limit."""

import pytest

from bench.lines import ReportError, read_run
from bench.model import Costs, Place, costs_of, predict
from tests.bench.stored import drain, line

COSTS = Costs(
    worker_seconds_per_million=50.0,
    redis_seconds_per_million_skus=5.0,
    skus_written_per_movement=0.6,
    broker_seconds_per_million=7.0,
    redis_bytes_per_movement=100.0,
    broker_bytes_per_movement=500.0,
)
FREE = COSTS._replace(redis_seconds_per_million_skus=0.5, broker_seconds_per_million=0.1)
OWN = Place(broker_cores=8)


@pytest.mark.parametrize(
    ("costs", "processes", "place", "limit", "rate"),
    [
        (COSTS, 1, OWN, "workers", 20_000),
        (COSTS, 8, OWN, "workers", 160_000),
        (COSTS, 32, OWN, "Redis", 333_333),
        (COSTS._replace(redis_seconds_per_million_skus=0.5), 64, OWN, "broker", 1_142_857),
        (FREE, 64, OWN, "workers", 1_280_000),
        (COSTS._replace(broker_bytes_per_movement=1e6), 64, OWN, "network", 1250),
        (COSTS._replace(redis_bytes_per_movement=1e6), 64, OWN, "network", 1250),
        (COSTS, 2, Place(2, shared_cores=2), "machine", 33_333),
        (COSTS, 1, Place(2, shared_cores=2), "workers", 20_000),
    ],
)  # fmt: skip
def test_the_smallest_limit_is_the_throughput(
    costs: Costs, processes: int, place: Place, limit: str, rate: float
) -> None:
    """Each of them worked out by hand from the docstring's formulas."""
    prediction = predict(costs, processes, place)
    assert (prediction.limit, round(prediction.movements_per_second)) == (limit, rate)


def test_the_next_limit_is_the_one_behind_it() -> None:
    """What would be met if the first limit were lifted."""
    for processes, limit, rate in ((64, "broker", 8e6 / 7), (8, "Redis", 1e6 / 3)):
        name, next_rate = predict(COSTS, processes, OWN).next_limit
        assert name == limit
        assert next_rate == pytest.approx(rate)


def test_inputs_are_medians_of_the_runs() -> None:
    """Of one field each, whatever else a line says."""
    rates = (48.0, 50.0, 90.0)
    runs = [read_run("scale.jsonl line 1", drain(cpu_seconds_per_million=rate)) for rate in rates]
    assert costs_of(runs) == COSTS
    assert costs_of(runs[:2]).worker_seconds_per_million == 49.0


def test_an_input_that_was_not_measured_is_told() -> None:
    """No figure is made up for it."""
    with pytest.raises(ReportError, match="cpu_seconds_per_million"):
        costs_of([])
    with pytest.raises(ReportError, match="has no cpu_seconds_per_million"):
        costs_of([read_run("scale.jsonl line 1", line(part="drain"))])
