"""Silence: how much a location is believed that has not been heard of for a while."""

from collections.abc import Mapping
from typing import Final

from operators.trust import TRUSTED_PERCENT

STEP_PERCENT: Final = 10  # so that a silence is told in ten steps, however long it takes


def trust_percent(age_ms: int, stale_after_ms: int | None) -> int:
    """100 up to `stale_after_ms` (None: for ever), then less and less, down to 0 at twice that age; in steps of 10."""
    if stale_after_ms is None or age_ms <= stale_after_ms:
        return TRUSTED_PERCENT
    left = TRUSTED_PERCENT * (2 * stale_after_ms - age_ms) // stale_after_ms
    return max(0, left // STEP_PERCENT * STEP_PERCENT)


def trusts_of(
    stale_after_ms: Mapping[str, int | None], heard_ms: Mapping[str, int], begun_ms: int, now_ms: int
) -> dict[str, int]:
    """How much each location is believed at `now_ms`: those named, and those that were ever heard of.

    One that was never heard of is silent since `begun_ms`, when listening began.
    """
    names = dict.fromkeys((*stale_after_ms, *heard_ms))
    return {name: trust_percent(now_ms - heard_ms.get(name, begun_ms), stale_after_ms.get(name)) for name in names}
