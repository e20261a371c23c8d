"""Reads a file of lines (plain, gzip, or standard input), one message a line, resumed by counting lines."""

import gzip
import os
import select
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final, NotRequired, TypedDict, cast

from bytewax.inputs import FixedPartitionedSource

from schemas.batches import Batch, CaughtUp, Mark, Origin, Wake
from schemas.movements import PAYLOAD_BYTES_MAX
from sources.errors import SourceError
from sources.pace import ALONE, PacedPartition, Surroundings
from sources.states import checked, sealed

STATE_FORMAT: Final = 1
STDIN: Final = "-"
LINE_BYTES_MAX: Final = 1024 * 1024
READ_BYTES_MAX: Final = 256 * 1024


class FileState(TypedDict):
    """Where a file goes on: the number of the next line, from 0."""

    format: int
    path: str
    line: int
    checksum: NotRequired[int]


class JsonlSource(FixedPartitionedSource[Batch | Mark | Wake | CaughtUp, FileState]):
    """The lines of `path` (`-`: standard input; `.gz`: compressed), ended by the end of the file.

    A message's offset is its line's number from 0; blank lines are counted and give none. There are no keys and no
    timestamps (-1). A line above 1 MiB is cut to one byte more than a payload may have, which is refused downstream.
    `now_ms` is the wall clock in ms since 1970; once `draining` returns True reading ends. Building and reading raise
    SourceError: no such file, a damaged one, one shorter than where the state goes on, a state for standard input.
    """

    def __init__(
        self,
        path: str,
        *,
        now_ms: Callable[[], int],
        draining: Callable[[], bool],
        around: Surroundings = ALONE,
        stdin_descriptor: int = 0,
    ) -> None:
        self._path = path
        self._now_ms = now_ms
        self._draining = draining
        self._around = around
        self._stdin_descriptor = stdin_descriptor

    def list_parts(self) -> list[str]:
        """One part: a file is read in one piece."""
        return ["file"]

    def build_part(self, step_id: str, for_part: str, resume_state: FileState | None) -> "_File":
        """The opened file, going on at the state's line or else at the first."""
        first_line = _first_line(self._path, resume_state)
        if self._path == STDIN:
            reader: _Stdin | _Opened = _Stdin(self._stdin_descriptor)
        else:
            reader = _Opened(self._path)
        return _File(self._path, reader, first_line, self._now_ms, self._draining, self._around)


def _first_line(path: str, state: FileState | None) -> int:
    if state is None:
        return 0
    state = checked(state, STATE_FORMAT)
    if state["path"] != path:
        raise SourceError(f"the state was made from {state['path']}, not from {path}: start with a new state")
    if path == STDIN and state["line"] > 0:
        raise SourceError("standard input cannot be read again: start with a new state, or read from a file")
    return state["line"]


class _File(PacedPartition[FileState]):
    """The lines of one input from `first_line` on; those before it are read and passed over."""

    def __init__(
        self,
        path: str,
        reader: "_Stdin | _Opened",
        first_line: int,
        now_ms: Callable[[], int],
        draining: Callable[[], bool],
        around: Surroundings,
    ) -> None:
        super().__init__(now_ms, draining, around)
        self._origin = Origin("file", path, 0, path)
        self._reader = reader
        self._splitter = LineSplitter()
        self._first_line = first_line
        self._next_line = 0
        self._finished = False

    def read(self, now_ms: int) -> list[Batch] | None:
        """The messages of the next piece of the input, or None at its end."""
        if self._finished:
            return None
        piece = self._reader.read()
        if piece is None:
            return []
        if piece:
            return self._batches(self._splitter.split(piece))
        self._finished = True
        batches = self._batches(self._splitter.rest())
        if self._next_line < self._first_line:
            raise SourceError(
                f"{self._origin.name} has {self._next_line} lines, but the state goes on at line {self._first_line}:"
                " it is not the file that the state was made from; start with a new state"
            )
        return batches

    def _batches(self, lines: list[bytes]) -> list[Batch]:
        start = self._next_line
        self._next_line += len(lines)
        from_line = max(start, self._first_line)
        kept = enumerate(lines[from_line - start :], from_line)
        offsets, payloads = [], []
        for offset, line in kept:
            if line and not line.isspace():
                offsets.append(offset)
                payloads.append(line)
        if not offsets:
            return []
        count = len(offsets)
        return [Batch(self._origin, offsets, [-1] * count, [None] * count, cast("list[bytes | None]", payloads))]

    def has_caught_up(self) -> bool:
        """Whether its end is read: where that was when it was opened, a pipe cannot say."""
        return self._finished

    def marks(self, now_ms: int) -> list[Mark]:
        """How far it is read; before its end, or a pause of its writer, there is at least one line more."""
        next_line = max(self._next_line, self._first_line)
        end_line = next_line if self._finished or self._idle else next_line + 1
        return [Mark(self._origin, next_line, end_line, -1, now_ms)]

    def state(self) -> FileState:
        """The number of the line to go on with."""
        line = max(self._next_line, self._first_line)
        state: FileState = {"format": STATE_FORMAT, "path": self._origin.topic, "line": line}
        return sealed(state)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


class LineSplitter:
    """Cuts pieces of bytes into lines, whichever way they were cut before; holds at most one line of bounded size."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False  # the rest of a line that is too long already

    def split(self, piece: bytes) -> list[bytes]:
        """The lines that `piece` completes, without their ends."""
        if not self._skipping:
            return self._complete(self._rest + piece)
        _, newline, behind = piece.partition(b"\n")
        if not newline:
            return []
        self._skipping = False
        line = self._rest
        return [line, *self._complete(behind)]

    def _complete(self, data: bytes) -> list[bytes]:
        lines = data.split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LINE_BYTES_MAX:
            self._rest = _cut(self._rest)
            self._skipping = True
        return [line if len(line) <= LINE_BYTES_MAX else _cut(line) for line in lines]

    def rest(self) -> list[bytes]:
        """The last line, where no line end follows it."""
        return [self._rest] if self._rest else []


def _cut(line: bytes) -> bytes:
    return line[: PAYLOAD_BYTES_MAX + 1]


class _Opened:
    """A file, plain or compressed."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._file = _open(path)
        except OSError as error:
            raise _unreadable(path, error) from error

    def read(self) -> bytes:
        """The next piece; empty at the end."""
        try:
            return self._file.read(READ_BYTES_MAX)
        except EOFError as error:
            raise SourceError(
                f"{self._path} ends in the middle of its compressed data: get the whole file and start again"
            ) from error
        except (zlib.error, gzip.BadGzipFile) as error:
            raise SourceError(f"{self._path} is no gzip file, or a damaged one ({error}): get it anew") from error
        except OSError as error:
            raise _unreadable(self._path, error) from error

    def close(self) -> None:
        self._file.close()


def _open(path: str) -> BinaryIO:
    if path.endswith(".gz"):
        return cast("BinaryIO", gzip.open(path, "rb"))
    return Path(path).open("rb")


def _unreadable(path: str, error: OSError) -> SourceError:
    return SourceError(f"{path} cannot be read ({error.strerror}): correct [input] topic, which is the file's path")


class _Stdin:
    """A descriptor read only when it has something, so that a pipe that pauses holds up nobody.

    The descriptor stays blocking: the flag would also change for the process at the other end of a terminal.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def read(self) -> bytes | None:
        """The next piece, None while there is none, empty at the end."""
        if not self._poll.poll(0):
            return None
        return os.read(self._descriptor, READ_BYTES_MAX)

    def close(self) -> None:
        """The descriptor belongs to the process."""
