"""One process and several: the kernel for real, a drain for real, and what is made of their figures."""

from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import msgspec
import pytest

from bench.drain import BenchError, DrainRun
from bench.generate import LoadConfig
from bench.provenance import provenance
from bench.scale import ScaleConfig, ScaledDrain, Spent, scale, settled, share, skus_written, told
from bench.servers import free_port

TINY = ScaleConfig(LoadConfig(movements=2000, skus=100), processes=(1, 2))
RUN = DrainRun(
    engine="onhand", dataset="uniform", movements=2_000_000, movements_per_second=20_000, cpu_seconds_per_million=50.0,
    memory_mib_max=400, wrong_skus=0, missing_crossings=0, extra_crossings=0, dead_letters=0, processes=1, versions={},
    started_at="2026-11-26T10:00:00+00:00", provenance=provenance(),
)  # fmt: skip
SPENT = Spent(redis_cpu_seconds=5.0, redis_bytes=200_000_000, broker_cpu_seconds=14.0, broker_bytes=1_000_000_000)


def test_the_kernel_runs_in_one_process_and_in_two_on_the_same_movements() -> None:
    """In turn, and end markers are among the movements."""
    lines = list(scale(TINY, ["kernel"], runs=2))
    assert [line.processes for line in lines] == [1, 2, 1, 2]
    assert {line.movements for line in lines} == {2008}
    assert all(line.movements_per_second > 0 and line.cpu_seconds_per_million > 0 for line in lines)


def test_no_partition_belongs_to_two_processes() -> None:
    """Shares add up to everything, and each is there once it was let go."""
    let_go: list[int] = []
    shares = [share(partial(let_go.append, place), TINY.load, 1, 3, place) for place in range(3)]
    assert sum(one.movements for one in shares) == 2008
    assert all(0 < one.movements < 2008 and one.began < one.ended for one in shares)
    assert let_go == [0, 1, 2]


def test_two_workers_drain_a_backlog_as_the_oracle_has_it() -> None:
    """With what they, Redis and the broker have spent on a movement."""
    (run,) = scale(TINY._replace(processes=(2,)), ["drain"], runs=1)
    assert isinstance(run, ScaledDrain)
    assert (run.processes, run.movements, run.differs) == (2, 2008, False)
    assert run.broker_bytes_per_movement > 150  # at least the movement itself
    assert run.skus_written_per_movement + 0.0005 >= 108 / 2008  # every SKU, and the end markers, at least once
    assert min(run.redis_cpu_seconds_per_million_skus, run.redis_bytes_per_movement) > 0


def test_what_servers_spend_is_told_per_million() -> None:
    """5 s of Redis for 1.25 million SKUs are 4 per million; the broker's 14 s were for 2 million movements."""
    line = told(RUN, SPENT, processes=2, skus=1_250_000)
    assert line.processes == 2
    assert line.redis_cpu_seconds_per_million_skus == 4.0
    assert line.skus_written_per_movement == 0.625
    assert line.broker_cpu_seconds_per_million == 7.0
    assert (line.redis_bytes_per_movement, line.broker_bytes_per_movement) == (100.0, 500.0)


def test_what_was_spent_is_a_difference() -> None:
    """Servers have run before."""
    assert Spent(7.0, 50, 3.0, 9).since(Spent(5.0, 20, 1.0, 9)) == Spent(2.0, 30, 2.0, 0)


def test_a_count_is_taken_when_it_stands_still() -> None:
    """What Redis has taken is counted when its answer is read."""
    counts = iter([3, 5, 7, 7])
    assert settled(lambda: next(counts)) == 7


@pytest.mark.parametrize("field", ["wrong_skus", "missing_crossings", "extra_crossings", "dead_letters"])
def test_a_drain_that_is_not_the_oracles_says_so(field: str) -> None:
    """Any difference counts."""
    line = told(RUN, SPENT, processes=1, skus=1)
    assert not line.differs
    assert msgspec.structs.replace(line, **{field: 1}).differs


def test_a_run_without_a_write_gives_no_figure() -> None:
    """Nothing is divided by nothing."""
    with pytest.raises(BenchError, match="no SKU was written"):
        told(RUN, SPENT, processes=1, skus=0)


class _Metrics(BaseHTTPRequestHandler):
    """Tells what a worker would."""

    text = b"# TYPE\nonhand_redis_skus_written_total 125000.0\n"

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.text)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_written_skus_are_those_of_all_workers() -> None:
    """One that does not answer is told, because a part would look like the whole."""
    with HTTPServer(("127.0.0.1", 0), _Metrics) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        assert skus_written(server.server_port, 1) == 125_000
        _Metrics.text = b""
        with pytest.raises(BenchError, match="have no onhand_redis_skus_written_total"):
            skus_written(server.server_port, 1)
        server.shutdown()
    with pytest.raises(BenchError, match="does not tell its metrics"):
        skus_written(free_port(), 1)
