"""The benchmark of the state, on a small one: real lanes, a real store, a real start."""

from pathlib import Path

import msgspec
import psutil
import pytest

from bench import state as module
from bench.drain import BenchError
from bench.generate import END_MARKER
from bench.state import StateConfig, state, write_movements

SMALL = StateConfig(positions=400, calm_epochs=3, calm_movements=200)


def test_a_small_state_is_built_kept_restored_and_gone_on_from() -> None:
    """Every figure is there; what it is depends on the machine."""
    (run,) = state(SMALL, runs=1)
    assert (run.positions, run.skus, run.movements) == (400, 100, 1200)
    assert run.snapshot_bytes_per_position == run.snapshot_bytes // 400
    assert min(run.bytes_per_position, run.snapshot_bytes) > 0
    assert 0 < run.snapshot_seconds <= run.commit_seconds
    assert min(run.restore_seconds, run.resume_seconds) > 0
    assert 0 < run.calm_snapshot_seconds <= run.calm_snapshot_seconds_max
    assert run.calm_snapshot_bytes > 0
    assert run.provenance.settings == {name: str(value) for name, value in SMALL._asdict().items()}


def test_every_position_has_as_many_movements_as_asked_for(tmp_path: Path) -> None:
    """A line each, and no end markers, which would be positions of their own."""
    write_movements(SMALL._replace(movements_per_position=2), tmp_path / "lines")
    movements = [msgspec.json.decode(line) for line in (tmp_path / "lines").read_bytes().splitlines()]
    assert len(movements) == 800
    assert len({(movement["sku"], movement["location"]) for movement in movements}) == 400
    assert not any(movement["sku"].startswith(END_MARKER) for movement in movements)


def test_a_state_that_the_machine_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is made."""
    monkeypatch.setattr(module, "BYTES_PER_POSITION_MAX", psutil.virtual_memory().total)
    with pytest.raises(BenchError, match="400 positions may not fit"):
        next(state(SMALL, runs=1))
