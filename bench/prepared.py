"""Prepared: messages made in advance, in files that a sending process maps, so that none is made while a clock runs."""

from array import array
from collections.abc import Iterable
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from bench.generate import Message

BYTES_NAME = "messages.bytes"
ENDS_NAME = "messages.ends"
PARTITIONS_NAME = "messages.partitions"


class Prepared(NamedTuple):
    """Keys and payloads in one run of bytes, key before payload; `ends` has the end of both for each message."""

    data: mmap
    ends: NDArray[np.int64]
    partitions: NDArray[np.int32]

    @classmethod
    def opened(cls, directory: Path) -> Self:
        """What `prepare` has written there; at least one message."""
        ends = np.fromfile(directory / ENDS_NAME, dtype=np.int64).reshape(-1, 2)
        partitions = np.fromfile(directory / PARTITIONS_NAME, dtype=np.int32)
        with (directory / BYTES_NAME).open("rb") as file:
            return cls(mmap(file.fileno(), 0, access=ACCESS_READ), ends, partitions)

    def between(self, first: int, end: int) -> list[Message]:
        """Messages `first` to `end` − 1."""
        data, begin = self.data, int(self.ends[first - 1, 1]) if first else 0
        messages: list[Message] = []
        for partition, (key_end, payload_end) in zip(
            self.partitions[first:end].tolist(), self.ends[first:end].tolist(), strict=True
        ):
            messages.append((partition, data[begin:key_end], data[key_end:payload_end]))
            begin = payload_end
        return messages


def prepare(directory: Path, messages: Iterable[Message]) -> None:
    """Writes all messages, one after the other, so that millions need no memory."""
    ends, partitions, position = array("q"), array("i"), 0
    with (directory / BYTES_NAME).open("wb") as file:
        for partition, key, payload in messages:
            file.write(key)
            file.write(payload)
            ends.append(position + len(key))
            position += len(key) + len(payload)
            ends.append(position)
            partitions.append(partition)
    (directory / ENDS_NAME).write_bytes(ends.tobytes())
    (directory / PARTITIONS_NAME).write_bytes(partitions.tobytes())
