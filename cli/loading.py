"""Loading: modules are loaded without looks for garbage, which take a fifth of the time and find next to none."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Objects are only made; what was loaded by its end lives as long as the process, and is never looked at."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
