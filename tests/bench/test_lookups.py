"""Look-ups: what counts as their time, and one short real run."""

import msgspec
import pytest

from bench.fresh import FreshServers
from bench.looking import look
from bench.lookups import LookupsConfig, LookupsRun, lookups
from bench.sending import NS, Schedule

MS = NS // 1000


class FakeRedis:
    """Answers that take as long as they are told to, on a clock of their own."""

    def __init__(self, takes_ms: dict[int, int], wakes_late_ms: int = 0) -> None:
        self.now_ns = 0
        self._takes_ms = takes_ms
        self._wakes_late_ms = wakes_late_ms

    def clock(self) -> int:
        """The instant."""
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        """Time passes, and a little more."""
        self.now_ns += round(seconds * NS) + self._wakes_late_ms * MS

    def ask(self, number: int) -> list[bytes | None]:
        """An answer after its time, 1 ms where nothing is said; each tenth SKU has no number."""
        self.now_ns += self._takes_ms.get(number, 1) * MS
        return [None if number % 10 == 9 else b"3"]


def times_ms(redis: FakeRedis, count: int = 10) -> list[float]:
    """The times of look-ups that are due each 10 ms."""
    times_ns, _ = look(Schedule(0, 100), count, redis.ask, redis.clock, redis.sleep)
    return [time_ns / MS for time_ns in times_ns]


def test_a_look_up_takes_from_the_call_to_the_answer() -> None:
    """A reader that is woken late has not waited for Redis."""
    assert times_ms(FakeRedis({3: 4}, wakes_late_ms=2)) == [1, 1, 1, 4, 1, 1, 1, 1, 1, 1]


def test_a_long_answer_counts_for_those_that_wait_behind_it() -> None:
    """No coordinated omission: three look-ups fell due during an answer of 35 ms."""
    assert times_ms(FakeRedis({2: 35})) == [1, 1, 35, 26, 17, 8, 1, 1, 1, 1]


def test_answers_without_a_number_are_counted() -> None:
    """They would be quicker, and wrong."""
    redis = FakeRedis({})
    assert look(Schedule(0, 100), 30, redis.ask, redis.clock, redis.sleep)[1] == 3


def test_a_drain_comes_last() -> None:
    """The others wait until everything is read."""
    assert LookupsConfig(writers=("drain", "idle", "500")).in_turn == ["idle", "500", "drain"]


@pytest.mark.timeout(240)
def test_a_short_real_run_looks_up_beside_an_idle_writer_and_a_drain(
    shared_servers: FreshServers,
) -> None:
    """Every look-up is timed and answered with a number."""
    config = LookupsConfig(seconds=0.5, skus=50, backlog=20_000)
    (run,) = lookups(config, seed=1, runs=1, servers=shared_servers)
    assert [(looks.writer, looks.kind) for looks in run.looks] == [
        ("idle", "one"), ("idle", "twenty"), ("drain", "one"), ("drain", "twenty"),
    ]  # fmt: skip
    assert [looks.latency_ms.count for looks in run.looks] == [500, 250, 500, 250]
    assert [looks.missing for looks in run.looks] == [0, 0, 0, 0]
    assert all(0 < looks.latency_ms.p50 <= looks.latency_ms.max for looks in run.looks)
    assert run.looks[0].written_movements_per_second < 100  # the flow's own ticks move no SKU
    assert msgspec.json.decode(msgspec.json.encode(run), type=LookupsRun) == run
