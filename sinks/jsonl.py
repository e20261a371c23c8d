"""The JSONL sinks: one file per topic, one record a line, cut back on resume to what a snapshot saw."""

import fcntl
import os
from io import FileIO
from pathlib import Path
from typing import Generic

from bytewax.outputs import StatefulSinkPartition

from schemas.records import Encoded, Records, each
from schemas.topics import Topic
from sinks.slots import SLOTS, RecordT, SinkError, SlottedSink


class JsonlSink(SlottedSink[list[RecordT | Records], int], Generic[RecordT]):
    """Writes lists of records to `<directory>/<topic name>.jsonl`; a slot's state is the file's length in bytes.

    A run with a new state starts the file anew, because it computes everything again. SinkError, in one line, where
    the file cannot be written, is another process's, or is shorter than the state remembers.
    """

    def __init__(self, directory: Path, topic: Topic[RecordT, RecordT], slots: int = SLOTS) -> None:
        super().__init__(slots)
        self._topic = topic
        self._file = _JsonlFile(directory / f"{topic.name}.jsonl")

    def check(self) -> None:
        """Make the directory and open the file; SinkError where that is impossible."""
        self._file.open()

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> "_Slot[RecordT]":
        """One slot's view of the shared file, which goes on behind the longest length that any slot remembers."""
        self._file.open()
        self._file.keep(resume_state or 0)
        return _Slot(for_part, self._file, self._topic)


class _Slot(StatefulSinkPartition[list[RecordT | Records], int], Generic[RecordT]):
    def __init__(self, name: str, file: "_JsonlFile", topic: Topic[RecordT, RecordT]) -> None:
        self._name = name
        self._file = file
        self._encode = topic.encode
        file.slots_open.add(name)

    def write_batch(self, values: list[list[RecordT | Records]]) -> None:
        self._file.append(b"".join(self._line(record) for records in values for record in each(records)))

    def _line(self, record: RecordT | Encoded) -> bytes:
        value = record.value if isinstance(record, Encoded) else self._encode(record)
        return value + b"\n"

    def snapshot(self) -> int:
        return self._file.sync()

    def close(self) -> None:
        self._file.close(self._name)


class _JsonlFile:
    """One file that all slots of a process write; locked, so that two processes never mix their lines."""

    def __init__(self, path: Path) -> None:
        self.slots_open: set[str] = set()
        self._path = path
        self._file: FileIO | None = None
        self._length = 0
        self._is_cut = False
        self._is_synced = True

    def open(self) -> None:
        if self._file is not None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = FileIO(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644), "r+")
        except OSError as error:
            raise self._error(error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise SinkError(f"{self._path} is written by another process: JSONL output needs --workers 1") from None
        self._file = file

    def keep(self, length_bytes: int) -> None:
        """Keep at least the first `length_bytes`; called for every slot of a resumed run before the first `append`."""
        self._length = max(self._length, length_bytes)

    def append(self, lines: bytes) -> None:
        """Write `lines` whole; SinkError where the disk does not take them."""
        try:
            file = self._cut()
            while lines:
                written = file.write(lines)
                self._length += written
                lines = lines[written:]
        except OSError as error:
            raise self._error(error) from error
        self._is_synced = False

    def sync(self) -> int:
        """Put on disk what was written, and return the length in bytes."""
        if self._file is not None and not self._is_synced:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                raise self._error(error) from error
            self._is_synced = True
        return self._length

    def close(self, slot: str) -> None:
        """Forget `slot`, and with the last one the file and its lock."""
        self.slots_open.discard(slot)
        if not self.slots_open and self._file is not None:
            self._file.close()
            self._file = None
            self._is_cut = False

    def _cut(self) -> FileIO:
        """The file, cut to what is kept: once, and only now, because slots tell their lengths one by one."""
        if self._file is None:
            raise SinkError(f"{self._path} is closed")
        if not self._is_cut:
            found = self._file.seek(0, os.SEEK_END)
            if found < self._length:
                raise SinkError(
                    f"{self._path} holds {found} bytes where the state remembers {self._length}: "
                    "put the file back, or begin with a new state"
                )
            self._file.truncate(self._length)
            self._file.seek(self._length)
            self._is_cut = True
        return self._file

    def _error(self, error: OSError) -> SinkError:
        return SinkError(f"{self._path} cannot be written ({error.strerror}): correct output.path, or make room there")
