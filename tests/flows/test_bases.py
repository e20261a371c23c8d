"""Bases on disk: there whole or not at all, gone when nothing needs them, and a flow that goes on from them."""

import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flows.availability import Sinks, availability_flow
from flows.bases import FileBases
from flows.running import run_flow
from flows.store import FORMAT, Meta, create, lane_snapshots, report
from operators.keeping import Limits, restored
from operators.lane import LaneSettings
from operators.lane_step import LaneMaking
from operators.rules import RuleBook
from operators.snapshots import SnapshotError, is_whole, unpack
from schemas.rules import ChannelRules, LocationRules, Rules
from sinks.nowhere import NowhereSink
from sources.jsonl import JsonlSource
from sources.pace import Surroundings

LANES = 4
SETTINGS = LaneSettings(LANES, 7, dedupe_ms=10**12)
BOOK = RuleBook(Rules(locations={"east": LocationRules()}, channels={"web": ChannelRules()}))
META = Meta(format=FORMAT, lanes=LANES, incarnation=7, parts=3, created="2026-11-21T00:00:00+00:00")
ANY_STATE = Limits(base_bytes_min=0, share=100.0, calm=1.0)  # bases are begun and named however small a state is
SKUS = 40


class Failures:
    """What was told of bases that could not be written or removed."""

    def __init__(self) -> None:
        self.told: list[tuple[str, OSError]] = []

    def __call__(self, name: str, error: OSError) -> None:
        """One more."""
        self.told.append((name, error))


@pytest.fixture
def failures() -> Failures:
    """None yet."""
    return Failures()


@pytest.fixture
def bases(tmp_path: Path, failures: Failures) -> Iterator[FileBases]:
    """In a folder of their own."""
    with FileBases(tmp_path, failures) as bases:
        yield bases


def test_a_base_is_there_when_it_is_on_disk(bases: FileBases, tmp_path: Path) -> None:
    """Whole, under its own name, for this user alone; another run reads it."""
    assert not bases.has("lane-1-a.base")
    bases.keep("lane-1-a.base", b"all of it")
    bases.close()
    assert bases.has("lane-1-a.base")
    (file,) = tmp_path.iterdir()
    assert (file.name, file.read_bytes()) == ("lane-1-a.base", b"all of it")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with FileBases(tmp_path, Failures()) as others:
        assert not others.has("lane-1-a.base")
        assert others.read("lane-1-a.base") == b"all of it"
        assert others.has("lane-1-a.base")


def test_who_keeps_a_base_does_not_wait_for_the_disk(
    bases: FileBases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is not named before it is there for good."""
    may_sync = threading.Event()
    monkeypatch.setattr("flows.bases.os.fsync", lambda _: may_sync.wait(30))
    bases.keep("lane-1-a.base", b"all of it")
    assert not bases.has("lane-1-a.base")
    assert not (tmp_path / "lane-1-a.base").exists()
    may_sync.set()
    bases.close()
    assert bases.has("lane-1-a.base")


def test_a_base_is_not_there_before_its_name_is_on_disk(
    bases: FileBases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that dies may forget a file whose folder was not synchronised."""
    seen: list[tuple[Path, bool]] = []
    monkeypatch.setattr("flows.bases._sync", lambda folder: seen.append((folder, bases.has("lane-1-a.base"))))
    bases.keep("lane-1-a.base", b"all of it")
    bases.close()
    assert seen == [(tmp_path, False)]
    assert bases.has("lane-1-a.base")


def test_no_more_waits_than_memory_has_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too much is not begun, and its lane is kept whole; when there is room again, others are."""
    may_sync = threading.Event()
    monkeypatch.setattr("flows.bases.os.fsync", lambda _: may_sync.wait(30))
    with FileBases(tmp_path, Failures(), bytes_waiting_max=10) as bases:
        bases.keep("lane-1-a.base", b"seven b")
        bases.keep("lane-2-b.base", b"four")
        bases.keep("lane-3-c.base", b"two")
        may_sync.set()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lane-1-a.base", "lane-3-c.base"]
    assert not bases.has("lane-2-b.base")


def test_a_base_that_cannot_be_written_is_told(failures: Failures, tmp_path: Path) -> None:
    """The flow goes on without it."""
    with FileBases(tmp_path / "away", failures) as bases:
        bases.keep("lane-1-a.base", b"all of it")
    assert not bases.has("lane-1-a.base")
    ((name, error),) = failures.told
    assert name == "lane-1-a.base"
    assert isinstance(error, FileNotFoundError)


def test_what_breaks_in_the_thread_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no matter of a disk is nothing to go on with."""

    def broken(_: int) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("flows.bases.os.fsync", broken)
    bases = FileBases(tmp_path, Failures())
    bases.keep("lane-1-a.base", b"all of it")
    with pytest.raises(RuntimeError, match="broken"):
        bases.close()
    with pytest.raises(RuntimeError, match="broken"):
        bases.keep("lane-1-b.base", b"all of it")


def test_a_half_written_base_is_removed(
    bases: FileBases, failures: Failures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is not filled by what failed."""

    def no_room(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flows.bases.os.fsync", no_room)
    bases.keep("lane-1-a.base", b"all of it")
    bases.close()
    assert not bases.has("lane-1-a.base")
    assert [str(error) for _, error in failures.told] == ["[Errno 28] No space left on device"]
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_needed_stays(bases: FileBases, tmp_path: Path) -> None:
    """Of that lane; what a dead run has left half written goes, too."""
    for name in ("lane-1-a.base", "lane-1-b.base", "lane-12-c.base"):
        bases.keep(name, b"all of it")
    (tmp_path / "lane-1-d.base.new").write_bytes(b"half")
    (tmp_path / "part-0.sqlite3").write_bytes(b"")
    bases.keep_only(1, ["lane-1-b.base"])
    bases.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lane-1-b.base", "lane-12-c.base", "part-0.sqlite3"]
    assert [bases.has(f"lane-{name}.base") for name in ("1-a", "1-b", "12-c")] == [False, True, True]


def test_what_could_not_be_removed_is_tried_again(
    bases: FileBases, failures: Failures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the next of its lane, though the folder is looked through only once: also what a full disk left behind."""
    bases.keep_only(1, [])
    unlink = Path.unlink

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", read_only)
        bases.keep("lane-1-a.base", b"all of it")
        bases.keep_only(1, [])
        bases.keep("lane-2-a.base", b"of another lane")
        bases.keep_only(2, [])
        while bases.bytes_waiting or len(failures.told) < 2:
            time.sleep(0.001)
    assert Path.unlink is unlink
    (tmp_path / "lane-3-a.base").write_bytes(b"of another process")
    bases.keep_only(1, [])
    bases.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lane-2-a.base", "lane-3-a.base"]


def test_a_base_that_is_not_there_is_named(bases: FileBases, tmp_path: Path) -> None:
    """With where it was looked for."""
    with pytest.raises(SnapshotError, match=rf"{tmp_path}/lane-1-a\.base cannot be read \(No such file"):
        bases.read("lane-1-a.base")


def line(number: int) -> bytes:
    """A movement."""
    body = {"id": str(number), "source": "wms", "kind": "received", "sku": f"S{number % SKUS}", "location": "east"}
    return msgspec.json.encode({**body, "quantity": 1, "time": "2026-11-21T00:00:00Z"})


class Flow:
    """A flow over a file that grows, its store, and bases of however small a state."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state"
        self._file = folder / "in.jsonl"
        self._written = 0
        create(self.path, META)

    def run(self, movements: int) -> None:
        """Writes so many more, reads all to the end, and ends."""
        with self._file.open("ab") as file:
            file.writelines(line(self._written + number) + b"\n" for number in range(movements))
        self._written += movements
        nowhere: list[NowhereSink[Any]] = [NowhereSink() for _ in Sinks._fields]
        source = JsonlSource(str(self._file), now_ms=lambda: 0, draining=lambda: False, around=Surroundings(wakes=True))
        with FileBases(self.path, Failures()) as bases:
            making = LaneMaking(BOOK, SETTINGS, lambda: 0, durable=True, bases=bases, limits=ANY_STATE)
            flow = availability_flow(source, Sinks(*nowhere), making)
            run_flow(flow, snapshot_seconds=0, store=self.path)

    def blobs(self) -> dict[int, bytes]:
        """By lane, what the next run would go on from."""
        return dict(lane_snapshots(self.path))

    def on_hand(self) -> int:
        """Units of all lanes as the next run would have them."""
        with FileBases(self.path, Failures()) as bases:
            lanes = [restored(number, blob, bases, BOOK, SETTINGS).lane for number, blob in self.blobs().items()]
        return sum(int(lane._stock.positions["on_hand"].sum()) for lane in lanes)  # noqa: SLF001


@pytest.fixture
def flow(tmp_path: Path) -> Flow:
    """Nothing has run."""
    return Flow(tmp_path)


def test_a_flow_goes_on_from_bases_and_changes(flow: Flow) -> None:
    """Over many runs every movement counts once."""
    for _ in range(8):
        flow.run(4 * SKUS)
    assert [is_whole(unpack(blob)) for blob in flow.blobs().values()] == [False] * LANES
    assert flow.on_hand() == 8 * 4 * SKUS
    found = report(flow.path)
    assert (found.lanes_found, found.findings) == (LANES, [])


def _missing(file: Path) -> None:
    file.unlink()


def _flipped(file: Path) -> None:
    text = bytearray(file.read_bytes())
    text[len(text) // 2] ^= 4
    file.write_bytes(text)


@pytest.mark.parametrize(("spoil", "says"), [(_missing, "cannot be read"), (_flipped, "its checksum does not match")])
def test_a_base_that_is_missing_or_damaged_is_found(flow: Flow, spoil: Callable[[Path], None], says: str) -> None:
    """`onhand recovery check` tells which lane, and what to do; a flow never goes on from half a state."""
    for _ in range(8):
        flow.run(SKUS)
    number, blob = next(iter(flow.blobs().items()))
    spoil(flow.path / unpack(blob)["base"])
    (finding,) = report(flow.path).findings
    assert f"lane {number}: its base" in finding.what
    assert says in finding.what
    assert "put a backup of all parts back" in finding.advice
    with pytest.raises(SnapshotError):
        flow.on_hand()
