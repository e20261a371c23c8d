"""The kernel: every movement once, the opening stock first and told apart."""

from dataclasses import replace
from random import Random

from bench.generate import LoadConfig, movements
from bench.kernel import kernel, phases_of

LOAD = LoadConfig(movements=2000, skus=100)


def test_phases_hold_every_movement_once_and_the_opening_stock_first() -> None:
    """Each partition's in their order, with offsets as in its log."""
    messages = list(movements(LOAD, Random(1)))
    phases = phases_of(messages, LOAD.opening_count)
    assert sum(len(batch.offsets) for batch in phases.opening) == LOAD.opening_count == 400
    logs: dict[int, list[tuple[int, bytes | None]]] = {}
    for batch in (*phases.opening, *phases.steady):
        logs.setdefault(batch.origin.partition, []).extend(zip(batch.offsets, batch.payloads, strict=True))
    for partition, log in logs.items():
        sent = [payload for place, _, payload in messages if place == partition]
        assert log == list(enumerate(sent))
    assert sum(map(len, logs.values())) == len(messages)


def test_a_run_tells_opening_and_steady_apart() -> None:
    """And where all is opening stock there is nothing steady."""
    (run,) = kernel(LOAD, 1, 1)
    assert run.opening_movements_per_second
    assert run.steady_movements_per_second
    assert run.steady_times_decoding
    assert run.positions >= 400
    (run,) = kernel(replace(LOAD, movements=400, end_markers=False), 1, 1)
    assert run.opening_movements_per_second
    assert (run.steady_movements_per_second, run.steady_times_decoding) == (None, None)
