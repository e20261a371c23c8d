"""Provenance: what a figure can be traced back to."""

import subprocess
from pathlib import Path

from bench.provenance import UNKNOWN, git_revision, provenance


def test_it_names_processor_cores_and_settings() -> None:
    """Enough to know a figure of another machine."""
    told = provenance({"partitions": "8"})
    assert told.cpu
    assert told.cores > 0
    assert told.settings == {"partitions": "8"}


def test_the_revision_is_the_commit_and_tells_of_changes(tmp_path: Path) -> None:
    """A figure of changed sources is marked as one."""
    assert git_revision(tmp_path) == UNKNOWN
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("1")
    for arguments in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "one"], ["tag", "v1"]):
        subprocess.run([*git, *arguments], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert git_revision(tmp_path) == head
    (tmp_path / "drain.jsonl").write_text("{}")  # lines that a series leaves there are no such change
    assert git_revision(tmp_path) == head
    (tmp_path / "file").write_text("2")
    assert git_revision(tmp_path) == f"{head}-dirty"
