"""Bases: whole snapshots of lanes as files beside the parts of a store, whose rows name them."""

import os
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final, Self

from operators.snapshots import SnapshotError

UNFINISHED: Final = ".new"
BYTES_WAITING_MAX: Final = 256 << 20


class FileBases:
    """Bases in the folder of a store; a thread writes and removes them, because movements must not wait for a disk.

    Where one cannot be written or removed, `failed` is told by that thread; a lane without a base is kept as a whole.
    One is not written where more than `bytes_waiting_max` would have to wait.
    """

    def __init__(
        self, folder: Path, failed: Callable[[str, OSError], None], bytes_waiting_max: int = BYTES_WAITING_MAX
    ) -> None:
        self._folder = folder
        self._failed = failed
        self._bytes_waiting_max = bytes_waiting_max
        self._kept: dict[str, set[str]] = {}  # by lane
        self._there: dict[str, set[str]] | None = None  # by lane: what may be in the folder, once it was looked through
        self._lock = Lock()  # of what both threads change
        self._bytes_waiting = 0
        self._broken: BaseException | None = None
        self._writer = ThreadPoolExecutor(1, "bases")

    def keep(self, name: str, blob: bytes) -> None:
        """Begins to write `blob`, where not too much waits already."""
        with self._lock:
            if self._bytes_waiting + len(blob) > self._bytes_waiting_max:
                return
            self._bytes_waiting += len(blob)
        self._begin(self._write, name, blob)

    def has(self, name: str) -> bool:
        """Whether it is on disk."""
        with self._lock:
            return name in self._kept.get(_lane_of(name), ())

    def read(self, name: str) -> bytes:
        """All of it; SnapshotError where it is not there."""
        blob = base_in(self._folder, name)
        with self._lock:
            self._kept.setdefault(_lane_of(name), set()).add(name)
        return blob

    @property
    def bytes_waiting(self) -> int:
        """How much is to be written still."""
        with self._lock:
            return self._bytes_waiting

    def keep_only(self, lane: int, names: Collection[str]) -> None:
        """Begins to remove all other bases of the lane."""
        self._begin(self._remove_others, lane, frozenset(names))

    def close(self) -> None:
        """Ends when all that was begun is done."""
        self._writer.shutdown()
        self._check()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, do: Callable[..., None], *arguments: object) -> None:
        self._check()
        self._writer.submit(do, *arguments).add_done_callback(self._ended)

    def _ended(self, done: Future[None]) -> None:
        self._broken = self._broken or done.exception()

    def _check(self) -> None:
        """Raises what the thread has raised beside what disks do."""
        if self._broken is not None:
            raise self._broken

    def _write(self, name: str, blob: bytes) -> None:
        """The file is there whole, or not at all, and so is its name in the folder."""
        unfinished = self._folder / f"{name}{UNFINISHED}"
        there = set[str]() if self._there is None else self._there.setdefault(_lane_of(name), set())
        there.update((name, unfinished.name))
        try:
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(blob)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(self._folder / name)
            _sync(self._folder)
        except OSError as error:
            with suppress(OSError):  # it may be the disk that is gone; the lane's next bases come by here, too
                unfinished.unlink(missing_ok=True)
            self._failed(name, error)
        else:
            there.discard(unfinished.name)
            with self._lock:
                self._kept.setdefault(_lane_of(name), set()).add(name)
        finally:
            with self._lock:
                self._bytes_waiting -= len(blob)

    def _remove_others(self, lane: int, names: frozenset[str]) -> None:
        """Also what a run that died has left half written; what cannot be removed is in nobody's way."""
        with self._lock:
            self._kept.get(f"lane-{lane}", set()).intersection_update(names)
        if self._there is None:  # once: to look through it for each lane and epoch takes the core from who works
            self._there = {}
            for ending in ("", UNFINISHED):
                for file in self._folder.glob(f"lane-*.base{ending}"):
                    self._there.setdefault(_lane_of(file.name), set()).add(file.name)
        there = self._there.get(f"lane-{lane}", set())
        for name in sorted(there - names):
            try:
                (self._folder / name).unlink(missing_ok=True)
                there.discard(name)
            except OSError as error:
                self._failed(name, error)


def _lane_of(name: str) -> str:
    """How the names of all bases of the same lane begin."""
    return name.rpartition("-")[0]


def base_in(folder: Path, name: str) -> bytes:
    """All of a base; SnapshotError where it is not there."""
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise SnapshotError(f"its base {folder / name} cannot be read ({error.strerror})") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
