"""Healing: a flow is hurt, and looked at until it is right again."""

import pytest

from bench import healing
from bench.healing import Fault, HealingConfig

AWAY_SECONDS = 5.0


@pytest.mark.parametrize("fault", ["redis-away", "nothing"])
def test_a_short_real_run_is_hurt_and_right_again(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that is away makes the flow late; nothing, for as long, does not."""
    monkeypatch.setattr(healing, "AWAY_SECONDS", AWAY_SECONDS)
    config = HealingConfig(rate=200, skus=100, snapshot_seconds=1.0, settle_seconds=1.0)
    (run,) = healing.healing(config, fault, 1, 1)
    assert (run.lag_seconds_max > AWAY_SECONDS / 5) is (fault == "redis-away")
    assert 0 < run.memory_mib_first <= run.memory_mib_median <= run.memory_mib_max
    assert run.movements_per_second == 200
