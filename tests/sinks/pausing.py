"""A Redis that answers nobody for a while, so that a test sees who waits for it, however slow the machine is."""

import contextlib
import time
from collections.abc import Callable, Iterator

from redis import Redis

SECONDS = 3.0  # less than a sink waits for an answer


@contextlib.contextmanager
def paused(client: Redis, *, reads: bool = False) -> Iterator[Callable[[], bool]]:
    """Let a server put off all writes, or all commands; gives whether it still does."""
    ends = time.monotonic() + SECONDS
    client.client_pause(int(SECONDS * 1000), all=reads)
    try:
        yield lambda: time.monotonic() < ends
    finally:
        client.client_unpause()
