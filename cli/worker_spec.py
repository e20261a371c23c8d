"""What a supervisor and its workers say to each other; light, because a supervisor needs no lanes."""

import time
from typing import Any, Final

import msgspec

UNREACHABLE: Final = 75  # what is away may come back by itself: start again (EX_TEMPFAIL of sysexits)
BROKEN: Final = 70  # the engine or a peer failed: start again (EX_SOFTWARE)
LAST_WORDS_BYTES_MAX: Final = 4096  # what a pipe takes without a reader


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor tells a worker, through a pipe of theirs: the address of Redis may hold a password.

    Settings come by the same file and environment as the supervisor's own.
    """

    config: str | None
    process: int  # on this machine, from 0
    processes: int  # on this machine
    first: int  # the place of this machine's first process among `addresses`
    addresses: list[str]  # of all processes of the cluster; none where there is one
    board: int  # the descriptor of the Board
    last_words: int  # the descriptor to which it writes what a person has to know, once, when that ends it
    incarnation: int
    by_crc32: bool  # how SKUs are shared out to lanes: as states of the first format do
    rules: dict[str, Any]  # the document of the first generation
    redis_url: str
    store: str | None
    is_behind: bool  # runs before this one may have told more than the store holds
    accept_truncated: bool


def now_ms() -> int:
    """The wall clock, ms since 1970."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """A clock that all processes of this machine share and nobody sets, in ms."""
    return time.monotonic_ns() // 1_000_000
