"""What all sinks share: a fixed number of slots, and the error with which a sink stops the flow."""

from abc import abstractmethod
from typing import TypeVar

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from schemas.outputs import AnyRecord

SLOTS = 8

ValueT = TypeVar("ValueT")
StateT = TypeVar("StateT")
RecordT = TypeVar("RecordT", bound=AnyRecord)


def slot_name(slot: int) -> str:
    """What a slot is called for ever."""
    return f"slot-{slot:02}"


class SinkError(RuntimeError):
    """What a sink cannot get over, in one line that says what to do; it stops the flow."""


class SinkUnreachableError(SinkError):
    """What is written to was away for too long; trying again later may help."""


class SlottedSink(FixedPartitionedSink[ValueT, StateT]):
    """A sink with `slots` partitions, at least as many as there are workers; keys are lane numbers as text.

    A slot keeps its name for ever: Bytewax does not resume where one is missing.
    """

    def __init__(self, slots: int = SLOTS) -> None:
        self._slots = slots

    @abstractmethod
    def check(self) -> None:
        """Reach what is written to; SinkError where that is impossible."""

    def list_parts(self) -> list[str]:
        """The names of all slots; Bytewax asks for them when a run starts, so SinkError where `check` fails."""
        self.check()
        return [slot_name(slot) for slot in range(self._slots)]

    def part_fn(self, item_key: str) -> int:
        """The lane, which Bytewax takes modulo the slots."""
        return int(item_key)

    @abstractmethod
    def build_part(
        self, step_id: str, for_part: str, resume_state: StateT | None
    ) -> StatefulSinkPartition[ValueT, StateT]:
        """The slot `for_part`; all slots of a process share one connection, producer or file."""
