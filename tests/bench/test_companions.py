"""Companions: one that cannot do its part says why."""

from pathlib import Path

import pytest

from bench import looking
from bench.companions import Companion, start_together
from bench.drain import BenchError
from bench.looking import Looked, LookingPlan, times_in
from bench.servers import RedisServer

PLAN = LookingPlan("redis://127.0.0.1:9/0", "avail:", ["SKU-1"], "web", "one", 1000, 20, 1)


def test_a_companion_that_fails_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    """Nobody waits for what will not come."""
    with (
        Companion(looking, PLAN, tmp_path, Looked) as companion,
        pytest.raises(BenchError, match=r"(?s)bench.looking did not get ready.*Connection refused"),
    ):
        companion.wait_ready()


def test_a_companion_hands_back_what_it_found(redis_server: RedisServer, tmp_path: Path) -> None:
    """A struct on its output, and its times in a file."""
    plan = LookingPlan(redis_server.url, "absent:", ["SKU-1"], "web", "one", 1000, 20, 1)
    with Companion(looking, plan, tmp_path, Looked) as companion:
        companion.wait_ready()
        start_together([companion])
        looked = companion.result(30, lambda: None)
    assert looked.missing == 20
    assert len(times_in(tmp_path)) == 20
