"""Recent: the last facts that were applied to each SKU, for those who ask why."""

from typing import Any, Final

import msgspec

from schemas.movements import Fact
from schemas.outputs import RecentRecord
from schemas.times import format_ms

KEPT: Final = 8

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


class Recent:
    """A ring per SKU; each fact is packed, which takes a third of the memory of its parts."""

    def __init__(self) -> None:
        self._of_sku: dict[int, list[bytes]] = {}

    def note(self, sku: int, fact: Fact, time_ms: int) -> None:
        """`fact`, of `time_ms`, was applied to `sku`."""
        ring = self._of_sku.setdefault(sku, [])
        if len(ring) == KEPT:
            del ring[0]
        ring.append(
            _pack(
                (
                    time_ms,
                    fact.__struct_config__.tag,
                    fact.source,
                    fact.id,
                    getattr(fact, "quantity", None),
                    getattr(fact, "location", None),
                    getattr(fact, "channel", None),
                )
            )
        )

    def of(self, sku: int) -> list[RecentRecord]:
        """The last facts of `sku`, the newest first."""
        return [_record(*_unpack(packed)) for packed in reversed(self._of_sku.get(sku, ()))]

    def dump(self) -> list[Any]:
        """Everything, as plain values."""
        return [[sku, ring] for sku, ring in self._of_sku.items()]

    def load(self, dumped: list[Any]) -> None:
        """Replaces everything."""
        self._of_sku = dict(dumped)


def _record(  # as they were packed
    time_ms: int, kind: str, source: str, id_: str, quantity: int | None, location: str | None, channel: str | None
) -> RecentRecord:
    return RecentRecord(
        time=format_ms(time_ms),
        kind=kind,
        source=source,
        id=id_,
        quantity=quantity,
        location=location,
        channel=channel,
    )
