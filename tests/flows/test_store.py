"""The store: made once, checked before it is used, and refused with what to do."""

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flows import store
from flows.availability import Sinks, availability_flow
from flows.running import run_flow
from flows.store import (
    FORMAT,
    META_FILE,
    Meta,
    StoreError,
    create,
    has_run,
    lane_snapshots,
    locked,
    opened,
    part_file,
    report,
)
from operators.lane import Lane, LaneSettings
from operators.lane_step import LaneMaking
from operators.rules import RuleBook
from schemas.rules import ChannelRules, LocationRules, Rules
from sinks.nowhere import NowhereSink
from sources.jsonl import JsonlSource
from sources.pace import Surroundings

LANES = 4
META = Meta(format=FORMAT, lanes=LANES, incarnation=7, parts=3, created="2026-11-21T00:00:00+00:00")


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """A store that a run has written, with a record in each of its lanes."""
    path = tmp_path / "state"
    create(path, META)
    lines = [
        msgspec.json.encode(
            {
                "id": str(number),
                "source": "wms",
                "kind": "received",
                "sku": f"S{number}",
                "location": "east",
                "quantity": 1,
                "time": "2026-11-21T00:00:00Z",
            }
        )
        for number in range(40)
    ]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    book = RuleBook(Rules(locations={"east": LocationRules()}, channels={"web": ChannelRules()}))
    nowhere: list[NowhereSink[Any]] = [NowhereSink() for _ in Sinks._fields]
    source = JsonlSource(
        str(tmp_path / "in.jsonl"), now_ms=lambda: 0, draining=lambda: False, around=Surroundings(wakes=True)
    )
    making = LaneMaking(book, LaneSettings(LANES, 7, dedupe_ms=10**12), lambda: 0, durable=True)
    run_flow(availability_flow(source, Sinks(*nowhere), making), snapshot_seconds=10, store=path)
    return path


def test_a_new_store_is_this_users_alone_and_whole(tmp_path: Path) -> None:
    """What stands in it is unpickled, so nobody else may write there."""
    path = tmp_path / "deep" / "state"
    create(path, META)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert opened(path, LANES) == META
    assert [part_file(path, part).exists() for part in range(4)] == [True, True, True, False]
    assert report(path).findings == []


def test_a_store_knows_whether_a_flow_has_run_on_it(used: Path, tmp_path: Path) -> None:
    """Whoever goes on from it may know less than what was shown; a new one was never shown anything of."""
    create(tmp_path / "new", META)
    assert not has_run(tmp_path / "new")
    assert has_run(used)


def test_one_of_several_machines_cannot_say_that_nothing_has_run(tmp_path: Path) -> None:
    """Its parts may be those that no run has written to."""
    create(tmp_path / "new", msgspec.structs.replace(META, machines=2, machine=1))
    assert has_run(tmp_path / "new")


def test_a_store_is_made_once(used: Path) -> None:
    """What is there is never overwritten."""
    with pytest.raises(StoreError, match="holds a state already"):
        create(used, META)


def test_a_used_store_is_reported(used: Path) -> None:
    """All its lanes and slots, and where it goes on."""
    found = report(used)
    assert (found.lanes_found, found.slots_found, found.findings) == (LANES, 1, [])
    assert found.resume_epoch > 0
    assert found.newest is not None


def test_lanes_come_back_from_their_snapshots(used: Path) -> None:
    """Each lane once, with the positions that the run has left in it."""
    settings, book = LaneSettings(LANES, 7, dedupe_ms=10**12), RuleBook(Rules())
    lanes = {number: Lane.restore(number, blob, book, settings) for number, blob in lane_snapshots(used)}
    assert sorted(lanes) == list(range(LANES))
    assert sum(lane.position_count for lane in lanes.values()) == 40


def test_another_number_of_lanes_is_refused(used: Path) -> None:
    """A SKU lives in one lane for ever."""
    with pytest.raises(StoreError, match=r"has 4 lanes, state\.lanes says 8: set it back"):
        opened(used, 8)


def test_a_newer_format_is_refused(used: Path) -> None:
    """An older release must not guess."""
    (used / META_FILE).write_bytes(msgspec.json.encode(msgspec.structs.replace(META, format=FORMAT + 1)))
    refused = f"has format {FORMAT + 1}, this release reads up to {FORMAT}: use a newer release"
    with pytest.raises(StoreError, match=refused):
        opened(used, LANES)


def test_a_state_of_the_first_format_keeps_its_skus_in_their_lanes(used: Path) -> None:
    """A SKU lives in one lane for ever: those of a newer state are found by another hash."""
    assert not opened(used, LANES).by_crc32
    (used / META_FILE).write_bytes(msgspec.json.encode(msgspec.structs.replace(META, format=1)))
    assert opened(used, LANES).by_crc32


def test_a_missing_part_is_named(used: Path) -> None:
    """Bytewax would say which, but not what to do."""
    part_file(used, 1).unlink()
    with pytest.raises(StoreError, match=r"part-1\.sqlite3 is missing: put it back from a backup"):
        opened(used, LANES)


def test_parts_without_the_file_that_says_what_they_are_for_are_refused(used: Path) -> None:
    """It may be half of a backup."""
    (used / META_FILE).unlink()
    with pytest.raises(StoreError, match=r"no onhand\.json: put it back from a backup"):
        opened(used, LANES)
    assert [finding.advice[:11] for finding in report(used).findings] == ["put it back"]


def test_nothing_at_all_is_said_to_be_new(tmp_path: Path) -> None:
    """`recovery check` before the first start."""
    with pytest.raises(StoreError, match="the first start"):
        opened(tmp_path / "none", LANES)


def _swapped(path: Path) -> None:
    part_file(path, 0).write_bytes(part_file(path, 1).read_bytes())


def _cut(path: Path) -> None:
    file = part_file(path, 0)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2 + 100])


def _scribbled(path: Path) -> None:
    file = part_file(path, 0)
    file.write_bytes(b"not a database at all".ljust(file.stat().st_size, b"."))


@pytest.mark.parametrize("harm", [_swapped, _cut, _scribbled])
def test_a_damaged_part_is_named(used: Path, harm: Callable[[Path], None]) -> None:
    """Before anything is begun."""
    with closing(sqlite3.connect(part_file(used, 0))) as part:
        part.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    harm(used)
    with pytest.raises(StoreError, match=r"part-0\.sqlite3 is damaged .*: put a backup of all parts back"):
        opened(used, LANES)
    assert report(used).findings


@pytest.mark.parametrize("change", ["flip", "plain", "code"])
def test_a_damaged_row_is_found_by_the_check(used: Path, change: str) -> None:
    """SQLite has no checksums of its content; the lanes have. Nothing in a row is ever run."""
    ran = used / "ran"
    for part in range(META.parts):
        with closing(sqlite3.connect(part_file(used, part))) as rows:
            for key, epoch, row in rows.execute(
                "SELECT state_key, snap_epoch, ser_change FROM snaps WHERE step_id = 'availability.lane'"
            ).fetchall():
                damaged = {
                    "flip": row[:200] + bytes([row[200] ^ 1]) + row[201:],
                    "plain": b"\x80\x04]\x94.",
                    "code": f"cos\nsystem\n(S'touch {ran}'\ntR.".encode(),
                }[change]
                rows.execute(
                    "UPDATE snaps SET ser_change = ? WHERE state_key = ? AND snap_epoch = ?", (damaged, key, epoch)
                )
            rows.commit()
    found = report(used)
    assert len(found.findings) == LANES
    assert all(finding.what.startswith("lane ") for finding in found.findings)
    assert not ran.exists()


def test_lanes_that_are_gone_are_missed(used: Path) -> None:
    """A part from before they were written, beside newer ones."""
    for part in range(META.parts):
        with closing(sqlite3.connect(part_file(used, part))) as rows:
            rows.execute("DELETE FROM snaps WHERE step_id = 'availability.lane' AND state_key = '2'")
            rows.commit()
    assert [finding.what for finding in report(used).findings] == ["only 3 of 4 lanes are in the state"]


def test_several_machines_hold_a_share_each(tmp_path: Path) -> None:
    """All parts are there once, and each directory knows its own."""
    for machine in range(2):
        create(tmp_path / str(machine), msgspec.structs.replace(META, machines=2, machine=machine))
    held = [sorted(file.name for file in (tmp_path / str(machine)).glob("part-*")) for machine in range(2)]
    assert held == [["part-0.sqlite3", "part-2.sqlite3"], ["part-1.sqlite3"]]
    for machine in range(2):
        assert opened(tmp_path / str(machine), LANES).machine == machine


def test_two_runs_never_use_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not while a child of a dead run still has it."""
    monkeypatch.setattr(store, "LOCK_SECONDS_MAX", 0.2)
    path = tmp_path / "state"
    create(path, META)
    with locked(path) as descriptor:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor])
        with pytest.raises(StoreError, match="another run uses the state"), locked(path):
            pass
    with pytest.raises(StoreError, match="another run uses the state"), locked(path):
        pass
    child.communicate(b"\n")
    with locked(path):
        pass


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """One line instead of an engine's panic."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made in"):
        create(tmp_path / "file" / "state", META)
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
