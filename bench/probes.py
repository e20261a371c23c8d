"""Probes: movements of the stream whose effect is waited for, one row each in a file that sender and reader both map.

A probe is an ordinary movement, drawn from the stream before it is sent. The sender writes when it was sent, when it
was acknowledged, and its offset, which Kafka gives; the reader writes when its effect was seen. Neither touches the
other's fields, and each is eight bytes on their own, so nobody waits for anybody.
"""

from pathlib import Path
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

NAME: Final = "probes"
FIELDS: Final = np.dtype(
    [
        ("message", np.int64),  # its number in the stream; from it follows when it was to be sent
        ("sent_ns", np.int64),  # when the producer was given it
        ("acknowledged_ns", np.int64),
        ("offset", np.int64),
        ("unseen_ns", np.int64),  # when Redis was last asked and did not show it yet; the asking's begin
        ("seen_ns", np.int64),  # when Redis had answered and did
    ]
)
UNKNOWN: Final = -1

Sheet = NDArray[np.void]


def draw_up(directory: Path, count: int, every: int, random: Random) -> Sheet:
    """One probe out of each `every` of `count` messages, any of them, so that no period of anything is met."""
    sheet: Sheet = np.memmap(directory / NAME, FIELDS, "w+", shape=(count // every,))
    sheet[:] = np.array((UNKNOWN,) * len(FIELDS.names or ()), FIELDS)
    sheet["message"] = [block * every + random.randrange(every) for block in range(count // every)]
    return sheet


def mapped(directory: Path) -> Sheet:
    """The sheet drawn up there, as all processes see and write it."""
    return np.memmap(directory / NAME, FIELDS, "r+")
