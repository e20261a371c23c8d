"""The sink for `output.kind = "none"`: records go nowhere, because Redis alone is wanted."""

from typing import TypeVar

from bytewax.outputs import StatefulSinkPartition

from sinks.slots import SlottedSink

ValueT = TypeVar("ValueT")


class NowhereSink(SlottedSink[ValueT, None]):
    """Takes everything and keeps nothing."""

    def check(self) -> None:
        """There is nothing to reach."""

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "_Slot[ValueT]":
        """One slot, without state."""
        return _Slot()


class _Slot(StatefulSinkPartition[ValueT, None]):
    def write_batch(self, values: list[ValueT]) -> None:
        """Forget them."""

    def snapshot(self) -> None:
        """Nothing is kept back."""
