"""A short fault campaign: what `make faults` does, for a few seeds."""

import subprocess
import sys
from pathlib import Path

import pytest

from sinks.tether import tethered
from tests.cli.command import CHECKOUT

SEEDS = 4
FIRST = 19  # kills at marked points and at random, rescaling, an emptied Redis, a full one
SECONDS_MAX = 420.0


@pytest.mark.alone
@pytest.mark.timeout(SECONDS_MAX + 60)
def test_a_short_campaign_finds_no_violation(tmp_path: Path) -> None:
    """Killed, rescaled and emptied under load: in the end everything equals the oracle, and nothing stepped back."""
    report = tmp_path / "table.md"
    arguments = ["--seeds", str(SEEDS), "--first", str(FIRST), "--report", str(report)]
    done = subprocess.run(
        tethered([sys.executable, "-m", "tests.faults.campaign", *arguments]),
        check=False, cwd=CHECKOUT, capture_output=True, text=True, timeout=SECONDS_MAX,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SEEDS} seeds, 0 with violations" in done.stdout
    assert "| worker killed |" in report.read_text(encoding="utf-8")
