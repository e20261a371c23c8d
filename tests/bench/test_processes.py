"""Functions in fresh processes: their answers, and what is said of those that give none."""

import os
import time

import pytest

from bench.drain import BenchError
from bench.processes import Start, at_once, fresh

SECONDS_MAX = 60.0


def added(_: Start, one: int, two: int) -> tuple[int, int]:
    """The sum, and the process that it was made in."""
    return one + two, os.getpid()


def failed(_: Start, text: str) -> None:
    """Raises."""
    raise ValueError(text)


def died(_: Start) -> None:
    """Ends without an answer."""
    os._exit(7)


def slept(_: Start) -> None:
    """Takes longer than anybody waits."""
    time.sleep(3600)


def met(start: Start, wait_seconds: float) -> tuple[float, float, float]:
    """What it was told; when it was ready and when it was let go, by a clock that all processes share."""
    time.sleep(wait_seconds)
    ready = time.monotonic()
    start()
    return wait_seconds, ready, time.monotonic()


def fails_where_others_wait(start: Start, fails: int) -> None:
    """One of several never gets ready."""
    if fails:
        raise ValueError("broken")
    start()


def test_a_function_is_answered_from_another_process() -> None:
    """With what was given to it."""
    total, process = fresh(added, SECONDS_MAX, 1, 2)
    assert total == 3
    assert process != os.getpid()


def test_several_begin_together() -> None:
    """None is let go before the last one is ready; answers come in the order of the arguments."""
    answers = at_once(met, [(0.5,), (0.0,)], SECONDS_MAX)
    assert [wait_seconds for wait_seconds, _, _ in answers] == [0.5, 0.0]
    assert min(let_go for _, _, let_go in answers) >= max(ready for _, ready, _ in answers)


def test_what_a_function_raises_is_told() -> None:
    """As a line, and also where others wait for it."""
    with pytest.raises(BenchError, match="failed: ValueError: broken"):
        fresh(failed, SECONDS_MAX, "broken")
    with pytest.raises(BenchError, match="failed"):
        at_once(fails_where_others_wait, [(0,), (1,)], SECONDS_MAX)


def test_a_process_that_dies_or_hangs_is_told() -> None:
    """The machine may have had no memory for it."""
    with pytest.raises(BenchError, match=r"died \(exit code 7\)"):
        fresh(died, SECONDS_MAX)
    with pytest.raises(BenchError, match="took too long"):
        fresh(slept, 1.0)
