"""The campaign's command: what it is told that it cannot do, it says before it starts a server."""

import subprocess
import sys

import pytest

from tests.cli.command import CHECKOUT
from tests.faults.campaign import MISUSED


@pytest.mark.parametrize("times", ["0", "0.9", "21", "nan", "inf", "often"])
def test_a_machine_is_as_fast_as_ours_or_slower(times: str) -> None:
    """Faster, nothing would be measured; very slow, no seed would end."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.campaign", "--slow", times],
        check=False, cwd=CHECKOUT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == MISUSED
    assert f"argument --slow: '{times}' is no number between 1 and 20" in done.stderr
