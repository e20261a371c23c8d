"""What a supervisor and its workers say to each other; light, because a supervisor needs no lanes."""

import socket
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

UNREACHABLE: Final = 75  # what is away may come back by itself: start again (EX_TEMPFAIL of sysexits)
BROKEN: Final = 70  # the engine or a peer failed: start again (EX_SOFTWARE)
LAST_WORDS_BYTES_MAX: Final = 4096  # what a socket takes without a reader
TELL_SECONDS_MAX: Final = 120.0  # for a worker to load its code, where its spec is larger than a socket takes at once
DESCRIPTORS_MAX: Final = 8


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor tells a worker, through a socket of theirs: the address of Redis may hold a password.

    The board's descriptor comes beside it, settings by the same file and environment as the supervisor's own.
    """

    config: str | None
    process: int  # on this machine, from 0
    processes: int  # on this machine
    first: int  # the place of this machine's first process among `addresses`
    addresses: list[str]  # of all processes of the cluster; none where there is one
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


def tell(line: socket.socket, spec: WorkerSpec, descriptors: Sequence[int]) -> None:
    """Hand `spec` and copies of `descriptors` to the worker at the other end, once; nothing where it has ended."""
    line.settimeout(TELL_SECONDS_MAX)
    try:
        socket.send_fds(line, [b"\n"], descriptors)
        line.sendall(msgspec.json.encode(spec))
        line.shutdown(socket.SHUT_WR)
    except (ConnectionError, TimeoutError):  # ended, or frozen: the supervisor sees either
        return


def hear(line: socket.socket) -> tuple[WorkerSpec, list[int]] | None:
    """What `tell` has handed over, waited for; None where the supervisor has ended without having work."""
    begun, descriptors, _, _ = socket.recv_fds(line, 1, DESCRIPTORS_MAX)
    if not begun:
        return None
    with line.makefile("rb") as told:
        return msgspec.json.decode(told.read(), type=WorkerSpec), descriptors


def say(line: socket.socket, words: str) -> None:
    """What a person has to know, said by a worker that ends by it."""
    line.sendall(words.encode()[:LAST_WORDS_BYTES_MAX])


def words_from(line: socket.socket) -> str:
    """What the worker at the other end, which has ended, has said of it; empty where it was killed."""
    try:
        return line.recv(LAST_WORDS_BYTES_MAX).decode(errors="replace")
    except ConnectionError:  # it ended before it had heard all
        return ""
