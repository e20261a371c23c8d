"""Memory: long arrays stand in pages of their own, which are the system's again as soon as an array is let go."""

from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

APART_BYTES_MIN: Final = 128 * 1024  # below, what is left over of the last page would weigh


def zeros(size: int, type_: DTypeLike) -> NDArray[Any]:
    """So many zeros.

    Columns are replaced by longer ones all the time. What malloc is given back it keeps for others, which seldom fit;
    and pages of one's own take no memory before something is written there. A kernel allows some 65,000 such pieces:
    beyond that malloc gives what it has.
    """
    dtype = np.dtype(type_)
    bytes_ = size * dtype.itemsize
    if bytes_ < APART_BYTES_MIN:
        return np.zeros(size, dtype)
    try:
        pages = mmap(-1, bytes_, MAP_PRIVATE | MAP_ANONYMOUS)
    except OSError:
        return np.zeros(size, dtype)
    return np.frombuffer(pages, dtype, size)
