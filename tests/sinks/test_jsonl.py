"""The JSONL sinks: one line a record, and no record twice after a resume."""

import json
import os
import resource
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, run_main

from schemas.outputs import DeadLetter
from schemas.topics import DEAD_LETTERS
from sinks.jsonl import JsonlSink
from sinks.slots import SinkError

NAME = "inventory.dead-letters.jsonl"

HOLDS_THE_FILE = """
import sys
from pathlib import Path
from schemas.topics import DEAD_LETTERS
from sinks.jsonl import JsonlSink
JsonlSink(Path(sys.argv[1]), DEAD_LETTERS).check()
"""


def letter(number: int) -> DeadLetter:
    """Make the dead letter number `number`."""
    return DeadLetter(f"log/0/{number}", "not_json", "line\nbreak", f"log/0/{number}", None, None, None, None, None)


def ids(directory: Path) -> list[str]:
    """Read the ids in the file, in its order."""
    return [json.loads(line)["id"] for line in (directory / NAME).read_text().splitlines()]


def test_each_record_is_a_line_once_its_batch_is_written(tmp_path: Path) -> None:
    """The directory is made, records of all slots share the file, and nothing waits in a buffer."""
    sink = JsonlSink(tmp_path / "out" / "deep", DEAD_LETTERS)
    slots = [sink.build_part("dead", name, None) for name in sink.list_parts()[:2]]
    slots[0].write_batch([[letter(1), letter(2)], [letter(3)]])
    slots[1].write_batch([[], [letter(4)]])
    assert ids(tmp_path / "out" / "deep") == [f"log/0/{number}" for number in (1, 2, 3, 4)]
    for slot in slots:
        slot.close()


def test_a_snapshot_is_the_length_that_reached_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synced once for all slots, and only if something was written."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    sink = JsonlSink(tmp_path, DEAD_LETTERS)
    slots = [sink.build_part("dead", name, None) for name in sink.list_parts()[:2]]
    slots[0].write_batch([[letter(1)]])
    assert {slot.snapshot() for slot in slots} == {(tmp_path / NAME).stat().st_size}
    assert len(synced) == 1
    for slot in slots:
        slot.close()


def test_a_resume_cuts_off_what_no_snapshot_saw(tmp_path: Path) -> None:
    """The longest length that any slot remembers stays, in whatever order the slots are built."""
    (tmp_path / NAME).write_bytes(b"".join(DEAD_LETTERS.encode(letter(number)) + b"\n" for number in range(5)))
    line_bytes = (tmp_path / NAME).stat().st_size // 5
    sink = JsonlSink(tmp_path, DEAD_LETTERS)
    slots = [
        sink.build_part("dead", "slot-01", 1 * line_bytes),
        sink.build_part("dead", "slot-02", 3 * line_bytes),
        sink.build_part("dead", "slot-00", None),
    ]
    slots[2].write_batch([[letter(9)]])
    assert ids(tmp_path) == [f"log/0/{number}" for number in (0, 1, 2, 9)]
    for slot in slots:
        slot.close()


def test_a_new_state_begins_the_file_anew(tmp_path: Path) -> None:
    """Without a snapshot everything is computed again, so nothing of an earlier run may stay."""
    (tmp_path / NAME).write_text("old\n")
    sink = JsonlSink(tmp_path, DEAD_LETTERS)
    slot = sink.build_part("dead", "slot-00", None)
    slot.write_batch([[letter(1)]])
    assert ids(tmp_path) == ["log/0/1"]
    slot.close()


def test_a_flow_that_is_aborted_and_resumed_writes_each_record_once(tmp_path: Path) -> None:
    """What was written after the last snapshot is written again in its place."""
    init_db_dir(tmp_path, 1)  # type: ignore[no-untyped-call]
    items: list[Any] = [(str(number % 3), [letter(number)]) for number in range(40)]
    items.insert(25, TestingSource.ABORT())
    for _ in range(2):
        flow = Dataflow("dead-letters")
        op.output("file", op.input("letters", flow, TestingSource(items, 4)), JsonlSink(tmp_path / "out", DEAD_LETTERS))
        store = RecoveryConfig(str(tmp_path))  # type: ignore[no-untyped-call]
        run_main(flow, epoch_interval=timedelta(0), recovery_config=store)  # type: ignore[no-untyped-call]
    assert sorted(ids(tmp_path / "out")) == sorted(f"log/0/{number}" for number in range(40))


def test_a_file_shorter_than_the_state_remembers_stops_the_flow(tmp_path: Path) -> None:
    """Going on would leave a hole."""
    (tmp_path / NAME).write_text("x")
    slot = JsonlSink(tmp_path, DEAD_LETTERS).build_part("dead", "slot-00", 100)
    with pytest.raises(SinkError, match="holds 1 bytes where the state remembers 100: put the file back"):
        slot.write_batch([[letter(1)]])
    slot.close()


def test_a_directory_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    """The error names the file and the setting."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match=r"dead-letters\.jsonl cannot be written \(.*\): correct output\.path"):
        JsonlSink(tmp_path / "file" / "out", DEAD_LETTERS).list_parts()


def test_a_full_disk_stops_the_flow(tmp_path: Path) -> None:
    """What the disk does not take is not passed over, and the next run cuts off the half of a line that it took."""
    slot = JsonlSink(tmp_path, DEAD_LETTERS).build_part("dead", "slot-00", None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(SinkError, match=r"cannot be written \(File too large\): correct output.path, or make room"):
            slot.write_batch([[letter(1)]])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        slot.close()
    assert (tmp_path / NAME).stat().st_size == 10
    again = JsonlSink(tmp_path, DEAD_LETTERS).build_part("dead", "slot-00", None)
    again.write_batch([[letter(1)]])
    again.close()
    assert ids(tmp_path) == ["log/0/1"]


def test_two_processes_never_mix_their_lines(tmp_path: Path) -> None:
    """The file is locked by the process that writes it."""
    sink = JsonlSink(tmp_path, DEAD_LETTERS)
    sink.check()
    other = [sys.executable, "-c", HOLDS_THE_FILE, str(tmp_path)]
    done = subprocess.run(other, capture_output=True, text=True, check=False, timeout=30)
    assert "is written by another process" in done.stderr
    sink.build_part("dead", "slot-00", None).close()
    assert subprocess.run(other, capture_output=True, check=False, timeout=30).returncode == 0
