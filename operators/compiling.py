"""Compiling: loops over columns become machine code; nothing else of numba is used."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])


def compiled(function: FunctionT) -> FunctionT:
    """`function` as machine code, made at its first call and kept beside its file until that changes.

    What is kept does not notice changes in other files: a compiled function calls compiled ones of its own file only.
    """
    return cast("FunctionT", numba.njit(cache=True, error_model="numpy")(function))
