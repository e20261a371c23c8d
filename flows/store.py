"""The store of a flow's state: a directory with the parts that Bytewax recovers from, and what they are made for."""

import fcntl
import io
import os
import pickle
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from bytewax.recovery import init_db_dir

from flows.bases import base_in
from operators.snapshots import SnapshotError, check_base, is_whole, unpack

FORMAT: Final = 2
BY_CRC32_FORMAT: Final = 1  # whose SKUs live in lanes by CRC-32, for ever
PARTS: Final = 8
META_FILE: Final = "onhand.json"
LOCK_FILE: Final = "lock"
LOCK_SECONDS_MAX: Final = 10.0
LOCK_LOOK_SECONDS: Final = 0.05
LANE_STEP: Final = "availability.lane"
SOURCE_STEP: Final = "availability.movements"


class StoreError(ValueError):
    """A store that a flow cannot go on from, in one line that says what to do."""


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What a store is made for: all of it is fixed as long as it lives.

    `machines` directories hold the `parts` together, that of `machine` those whose number modulo `machines` is its own.
    """

    format: int
    lanes: int
    incarnation: int
    parts: int
    created: str
    machines: int = 1
    machine: int = 0

    @property
    def by_crc32(self) -> bool:
        """How SKUs are shared out to lanes: by CRC-32, or as Kafka's clients find a partition."""
        return self.format == BY_CRC32_FORMAT

    @property
    def own_parts(self) -> list[int]:
        """The parts that this directory holds."""
        return [part for part in range(self.parts) if part % self.machines == self.machine]


class Finding(NamedTuple):
    """What is wrong with a store, and what to do."""

    what: str
    advice: str


class Report(NamedTuple):
    """What a store holds: where a flow goes on, its rows, their bytes, and what is wrong with it."""

    meta: Meta | None
    resume_epoch: int
    lanes_found: int
    slots_found: int
    bytes: int
    newest: str | None  # when the newest snapshot was written, ISO 8601
    findings: list[Finding]


def part_file(path: Path, part: int) -> Path:
    """The file of one part, as Bytewax names it."""
    return path / f"part-{part}.sqlite3"


def is_new(path: Path) -> bool:
    """Whether nothing was ever kept at `path`."""
    return not path.exists() or (not any(path.glob("part-*.sqlite3")) and not (path / META_FILE).exists())


def create(path: Path, meta: Meta) -> None:
    """Makes the store; StoreError where there is one already, or nothing can be written.

    The file that says what it is made for comes last: without it, nothing was ever kept.
    """
    if not is_new(path):
        raise StoreError(f"{path} holds a state already: take another state.path, or remove it")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)  # what stands in it is unpickled: who can write there runs code here
        init_db_dir(path, meta.parts)  # type: ignore[no-untyped-call]  # as Bytewax has it
        for part in range(meta.parts):
            if part not in meta.own_parts:
                part_file(path, part).unlink()
        making = path / f"{META_FILE}.new"
        with making.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(meta), indent=2))
            file.flush()
            os.fsync(file.fileno())
        making.rename(path / META_FILE)
    except OSError as error:
        raise StoreError(
            f"the state cannot be made in {path} ({error.strerror}): make it writable, or set state.path"
        ) from error


def opened(path: Path, lanes: int) -> Meta:
    """What the store at `path` is made for; StoreError where a flow of so many lanes cannot go on from it."""
    meta = _meta(path)
    if meta.lanes != lanes:
        raise StoreError(
            f"the state in {path} has {meta.lanes} lanes, state.lanes says {lanes}: set it back,"
            " or begin anew with another state.path"
        )
    findings = _file_findings(path, meta)
    if findings:
        raise StoreError(f"{findings[0].what}: {findings[0].advice}")
    return meta


def has_run(path: Path) -> bool:
    """Whether a flow has ever run on the store at `path`; of several machines each may know of its own part alone."""
    meta = _meta(path)
    return meta.machines > 1 or any(_executions(path, part) for part in meta.own_parts)


def _executions(path: Path, part: int) -> int:
    with closing(_connected(part_file(path, part))) as store:
        return int(store.execute("SELECT COUNT(*) FROM exs").fetchone()[0])


def report(path: Path) -> Report:
    """Reads all of a store, and tells what is wrong with it; changes nothing."""
    try:
        meta = _meta(path)
    except StoreError as error:
        what, _, advice = str(error).partition(": ")
        return Report(None, 0, 0, 0, 0, None, [Finding(what, advice)])
    findings = _file_findings(path, meta)
    size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    if findings:
        return Report(meta, 0, 0, 0, size, None, findings)
    resume = _resume_epoch(path, meta)
    lanes, slots, newest = 0, 0, None
    for part in meta.own_parts:
        with closing(_connected(part_file(path, part))) as store:
            for row in _newest_rows(store, resume):
                newest = max(newest or row.created, row.created)
                if row.step == LANE_STEP:
                    lanes += 1
                    findings.extend(_lane_findings(path, row, meta))
                elif row.step == SOURCE_STEP:
                    slots += 1
    if 0 < lanes < meta.lanes and meta.machines == 1:
        found = f"only {lanes} of {meta.lanes} lanes are in the state"
        findings.append(Finding(found, "put a backup of all its parts back, or begin anew with another state.path"))
    return Report(meta, resume, lanes, slots, size, newest, findings)


def lane_snapshots(path: Path) -> Iterator[tuple[int, bytes]]:
    """The number of each lane and the snapshot that a flow would go on from; StoreError where there is no store.

    `operators.keeping.restored` makes a lane of it: it may name a base.
    """
    meta = _meta(path)
    resume = _resume_epoch(path, meta)
    for part in meta.own_parts:
        with closing(_connected(part_file(path, part))) as store:
            for row in _newest_rows(store, resume):
                if row.step == LANE_STEP:
                    yield int(row.key), _blob_in(row)


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Keeps everybody else from running on this store; yields a descriptor that children hold it by, too.

    StoreError where another run does not end within LOCK_SECONDS_MAX.
    """
    descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + LOCK_SECONDS_MAX
        while not _took(descriptor):
            if time.monotonic() > deadline:
                raise StoreError(f"another run uses the state in {path}: end it, or set another state.path")
            time.sleep(LOCK_LOOK_SECONDS)
        yield descriptor
    finally:
        os.close(descriptor)


def _took(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _meta(path: Path) -> Meta:
    try:
        meta = msgspec.json.decode((path / META_FILE).read_bytes(), type=Meta)
    except FileNotFoundError:
        raise StoreError(
            f"{path} holds parts of a state but no {META_FILE}: put it back from a backup,"
            " or remove the directory and begin anew"
            if not is_new(path)
            else f"there is no state in {path}: `onhand recovery create` makes one, and so does the first start"
        ) from None
    except (OSError, msgspec.DecodeError) as error:
        raise StoreError(
            f"{path / META_FILE} cannot be read ({error}): put it back from a backup, or begin anew"
            " with another state.path"
        ) from error
    if meta.format > FORMAT:
        raise StoreError(
            f"the state in {path} has format {meta.format}, this release reads up to {FORMAT}: use a newer release"
        )
    return meta


def _file_findings(path: Path, meta: Meta) -> list[Finding]:
    """What can be said without reading the rows' content: every part is there and sound."""
    findings: list[Finding] = []
    for part in meta.own_parts:
        file = part_file(path, part)
        if not file.exists():
            advice = "put it back from a backup of all parts, or begin anew with another state.path"
            findings.append(Finding(f"{file} is missing", advice))
            continue
        wrong = _wrong_with(file, part, meta.parts)
        if wrong:
            advice = "put a backup of all parts back, or begin anew with another state.path (the log is read again)"
            findings.append(Finding(f"{file} is damaged ({wrong})", advice))
    return findings


def _wrong_with(file: Path, part: int, parts: int) -> str | None:
    try:
        with closing(_connected(file)) as store:
            found = store.execute("SELECT part_index, part_count FROM parts").fetchall()
            if found != [(part, parts)]:
                return f"it says that it is part {found}, not {part} of {parts}"
            said = str(store.execute("PRAGMA quick_check(1)").fetchone()[0])
            return None if said == "ok" else " ".join(said.split())
    except (sqlite3.Error, OverflowError, ValueError) as error:
        return " ".join(str(error).split())


def _connected(file: Path) -> sqlite3.Connection:
    """Opened for reading; a journal that a run left behind is read with it."""
    store = sqlite3.connect(f"file:{file}?mode=rw", uri=True, timeout=5.0)
    store.execute("PRAGMA query_only = 1")
    return store


class _Row(NamedTuple):
    """The newest snapshot of one key of a step."""

    step: str
    key: str
    epoch: int
    created: str
    state: Any


def _resume_epoch(path: Path, meta: Meta) -> int:
    """Where the next run goes on: what all workers of the last run have completed, as Bytewax works it out."""
    runs: dict[int, tuple[int, int]] = {}
    fronts: dict[tuple[int, int], int] = {}
    for part in meta.own_parts:
        with closing(_connected(part_file(path, part))) as store:
            for run, workers, epoch in store.execute("SELECT ex_num, worker_count, resume_epoch FROM exs"):
                runs[run] = (workers, epoch)
            for run, worker, front in store.execute("SELECT ex_num, worker_index, worker_frontier FROM fronts"):
                fronts[run, worker] = max(front, fronts.get((run, worker), 0))
    if not runs:
        return 0
    last = max(runs)
    workers, began = runs[last]
    return min(max(began, fronts.get((last, worker), 0)) for worker in range(workers))


def _newest_rows(store: sqlite3.Connection, before_epoch: int) -> Iterator[_Row]:
    """The newest row of each key that a run from `before_epoch` on would load."""
    query = """SELECT step_id, state_key, MAX(snap_epoch), created_at, ser_change FROM snaps
               WHERE snap_epoch < ? GROUP BY step_id, state_key"""
    for step, key, epoch, created, change in store.execute(query, (before_epoch,)):
        yield _Row(step, key, epoch, created, change)


class _Plain(pickle.Unpickler):
    """Reads values of the language itself and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401  # as pickle has it
        raise pickle.UnpicklingError(f"a snapshot never holds a {module}.{name}")


def _blob_in(row: _Row) -> bytes:
    blob: bytes = _Plain(io.BytesIO(row.state)).load()
    return blob


def _lane_findings(path: Path, row: _Row, meta: Meta) -> Iterator[Finding]:
    advice = "put a backup of all parts back, or begin anew with another state.path"
    try:
        state = unpack(_blob_in(row))
        if not is_whole(state):
            check_base(int(row.key), state["base"], base_in(path, state["base"]))
    except SnapshotError as error:
        yield Finding(f"lane {row.key}: {error}", advice)
        return
    except Exception as error:  # noqa: BLE001  # damaged pickles raise whatever their bytes say
        yield Finding(f"lane {row.key}: the row is damaged ({type(error).__name__})", advice)
        return
    expected = {"lane": int(row.key), "lanes": meta.lanes, "incarnation": meta.incarnation}
    for name, value in expected.items():
        if state.get(name) != value:
            yield Finding(f"lane {row.key}: {name} is {state.get(name)}, the state's is {value}", advice)
