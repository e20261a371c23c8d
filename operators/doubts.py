"""Doubts: locations that are not heard of, told as divergences between what is stored and what is believed."""

from typing import Literal

from operators.outcome import Happening
from operators.trust import TRUSTED_PERCENT
from schemas.movements import LocationTrusted
from schemas.outputs import Divergence, divergence_id
from schemas.times import format_ms

Event = Literal["opened", "changed", "closed"]
SYSTEM = "heartbeats"
SILENT, HEARD = "silent", "heard"


class Doubts:
    """The locations that are not fully believed, and since when."""

    def __init__(self) -> None:
        self._opened: dict[str, str] = {}  # by location

    def tell(self, record: LocationTrusted, before_percent: int, happening: Happening) -> Divergence:
        """The event of a location that was believed by `before_percent` and now is by another number."""
        location, percent, time = record.location, record.trust_percent, format_ms(happening.time_ms)
        is_over = percent == TRUSTED_PERCENT
        event: Event = "closed" if is_over else "opened" if before_percent == TRUSTED_PERCENT else "changed"
        opened_at = self._opened.pop(location, time) if is_over else self._opened.setdefault(location, time)
        return Divergence(
            id=divergence_id(f"@{location}", location, SYSTEM, event, happening.offset),
            event=event,
            sku=None,
            location=location,
            system=SYSTEM,
            of="trust_percent",
            stated=percent,
            derived=TRUSTED_PERCENT,
            time=time,
            reason=HEARD if is_over else SILENT,
            evidence=[] if record.last_heard is None else [f"last heard {record.last_heard}"],
            opened_at=opened_at,
        )

    def dump(self) -> dict[str, str]:
        """Everything, as plain values."""
        return self._opened

    def load(self, dumped: dict[str, str]) -> None:
        """Replaces everything."""
        self._opened = dict(dumped)
