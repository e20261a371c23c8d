"""Memory: long arrays stand in pages of their own, which are the system's again as soon as an array is let go."""

from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

APART_BYTES_MIN: Final = 128 * 1024  # below, what is left over of the last page would weigh
# some systems count addresses as if they were memory, so what is longer than this does not take many more
FAST_BYTES_MAX: Final = 2 * 1024 * 1024
DOUBLED_MAX: Final = 1024  # what is longer, but has no pages of its own, grows by a quarter: memory that waits weighs


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


def roomier(size: int, wanted: int, item_bytes: int) -> int:
    """What to make of a size that is to be `wanted` at least, so that it seldom has to be made larger again.

    Pages of one's own grow faster: those that nothing was written to take no memory, and to get pages, which is what
    growing costs, takes longer than to copy them.
    """
    bytes_ = 2 * size * item_bytes
    if bytes_ >= APART_BYTES_MIN:
        return max(wanted, 4 * size if bytes_ < FAST_BYTES_MAX else 2 * size)
    return max(wanted, 2 * size if size <= DOUBLED_MAX else size + size // 4)


def lengthened(array: NDArray[Any], size: int) -> NDArray[Any]:
    """So many items, of which the first are those of `array`."""
    longer = zeros(size, array.dtype)
    copy_rows(array, longer)
    return longer


def copy_rows(rows: NDArray[Any], longer: NDArray[Any]) -> None:
    """`longer` begins with `rows`: as bytes, because numpy copies records field by field."""
    longer[: len(rows)].view(np.uint8)[:] = rows.view(np.uint8)
