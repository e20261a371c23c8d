"""Latency: what the sheet of a run says, and one short real run."""

from pathlib import Path
from random import Random

import msgspec
import pytest

from bench.fresh import FreshServers
from bench.latency import Figures, LatencyConfig, LatencyRun, Measured, faults_of, figures_of, latency
from bench.probes import Sheet, draw_up
from bench.quantiles import Quantiles
from bench.sending import NS, Schedule

MS = NS // 1000
RATE = 1000
SCHEDULE = Schedule(7 * NS, RATE)
MEASURED = Measured(movements=3000, warm_up_movements=1000, every=10, after_seconds_max=2.0)


def sheet_of(tmp_path: Path, latency_ms: int, send_late_ms: int = 0) -> Sheet:
    """A run of 3 s in which each probe was seen `latency_ms` after it was due."""
    sheet = draw_up(tmp_path, MEASURED.movements, MEASURED.every, Random(1))
    for row in sheet:
        due_ns = SCHEDULE.due_ns(int(row["message"]))
        row["sent_ns"] = due_ns + send_late_ms * MS
        row["acknowledged_ns"] = due_ns + (send_late_ms + 2) * MS
        row["seen_ns"] = due_ns + latency_ms * MS
        row["unseen_ns"] = row["seen_ns"] - MS
        row["offset"] = 1
    return sheet


def test_latency_counts_from_when_a_movement_was_due(tmp_path: Path) -> None:
    """A sender that was 30 ms late does not make it shorter."""
    figures = figures_of(sheet_of(tmp_path, 40, send_late_ms=30), SCHEDULE, MEASURED)
    assert figures.latency_ms == Quantiles(200, 40.0, 40.0, 40.0, 40.0)
    assert figures.send_late_ms.p50 == 30
    assert figures.acknowledged_ms.p50 == 32
    assert figures.resolution_ms.max == 1
    assert figures.sent_per_second == pytest.approx(RATE, rel=0.01)


def test_the_warm_up_is_told_apart(tmp_path: Path) -> None:
    """Its latencies are in none of the other figures."""
    sheet = sheet_of(tmp_path, 40)
    warm_up = sheet["message"] < MEASURED.warm_up_movements
    sheet["seen_ns"][warm_up] += 500 * MS
    figures = figures_of(sheet, SCHEDULE, MEASURED)
    assert (figures.latency_ms.count, figures.latency_ms.max) == (200, 40)
    assert (figures.warm_up_latency_ms.count, figures.warm_up_latency_ms.p50) == (100, 540)


def test_what_was_never_seen_counts_as_long_as_it_was_waited_for(tmp_path: Path) -> None:
    """Leaving it out would tell the slowest ones away."""
    sheet = sheet_of(tmp_path, 40)
    sheet["seen_ns"][-3:] = -1
    figures = figures_of(sheet, SCHEDULE, MEASURED)
    assert figures.probes_unseen == 3
    assert figures.latency_ms.count == 200
    assert 2000 <= figures.latency_ms.max <= 2030


def test_a_flow_that_falls_behind_shows_in_quarters_and_in_what_is_left(tmp_path: Path) -> None:
    """Half as fast as the sender: a latency that grows with the run, and a lag at its end."""
    sheet = sheet_of(tmp_path, 0)
    sheet["seen_ns"] = SCHEDULE.start_ns + sheet["message"] * (2 * NS // RATE)
    sheet["unseen_ns"] = sheet["seen_ns"] - MS
    figures = figures_of(sheet, SCHEDULE, MEASURED)
    assert figures.p50_by_quarter == pytest.approx([1250, 1750, 2250, 2750], abs=20)
    assert figures.lag_movements_at_end == pytest.approx(1500, abs=20)
    assert figures.lag_seconds_at_end == pytest.approx(1.5, abs=0.02)
    assert faults_of(figures, RATE) == []  # the flow is slow, the measuring is not


def test_nothing_is_left_of_a_flow_that_keeps_up(tmp_path: Path) -> None:
    """But what came in the last moment."""
    figures = figures_of(sheet_of(tmp_path, 15), SCHEDULE, MEASURED)
    assert 0 <= figures.lag_seconds_at_end <= 0.015
    assert 0 <= figures.lag_movements_at_end <= 20


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"sent_per_second": 989.0}, "the sender sent 989 a second instead of 1000"),
        ({"send_late_ms": Quantiles(9, 1.0, 11.0, 11.0, 11.0)}, "the sender was 11 ms behind its schedule (p99)"),
        ({"resolution_ms": Quantiles(9, 1.0, 6.0, 6.0, 6.0)}, "the reader looked only every 6 ms (p99)"),
    ],
)
def test_a_run_whose_measuring_was_too_slow_is_not_valid(
    change: dict[str, object], fault: str | None, tmp_path: Path
) -> None:
    """The sender did not keep its schedule, or the reader could not tell."""
    figures: Figures = figures_of(sheet_of(tmp_path, 40), SCHEDULE, MEASURED)._replace(**change)  # type: ignore[arg-type]
    assert faults_of(figures, RATE) == ([] if fault is None else [fault])


def test_a_long_latency_allows_a_coarser_look(tmp_path: Path) -> None:
    """A twentieth of it is enough to tell it."""
    coarse = Quantiles(9, 1.0, 40.0, 40.0, 40.0)
    figures = figures_of(sheet_of(tmp_path, 1000), SCHEDULE, MEASURED)._replace(resolution_ms=coarse)
    assert faults_of(figures, RATE) == []


def test_a_short_real_run_sees_every_probe(shared_servers: FreshServers) -> None:
    """From a sender of its own through Kafka, the flow and Redis to a reader of its own; half of it on one SKU."""
    config = LatencyConfig(seconds=2.0, skus=50, hot_share=0.5, warm_up_seconds=1.0)
    (run,) = latency(config, [200], seed=1, runs=1, servers=shared_servers)
    assert run.probes_unseen == 0
    assert (run.latency_ms.count, run.warm_up_latency_ms.count) == (200, 100)
    assert run.dataset == "uniform, hot 0.5"
    assert run.acknowledged_ms.p50 > 0
    assert 0 < run.latency_ms.p50 <= run.latency_ms.p99 <= run.latency_ms.p999 <= run.latency_ms.max
    assert run.resolution_ms.max > 0
    assert run.valid == (not run.faults)
    assert run.provenance.settings["snapshot_seconds"] == "10"
    assert msgspec.json.decode(msgspec.json.encode(run), type=LatencyRun) == run
