"""Where a figure comes from: told by the system and by git, and nothing where there is neither."""

import subprocess
from pathlib import Path

import msgspec
import pytest

from bench.provenance import UNKNOWN, git_revision, provenance


def committed(path: Path) -> str:
    """A repository at `path` with one commit; returns it."""
    (path / "file").write_text("1")
    name = ["-c", "user.name=test", "-c", "user.email=test"]
    for words in (["init", "-q"], ["add", "."], [*name, "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", str(path), *words], check=True)
    done = subprocess.run(["git", "-C", str(path), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_run_tells_where_it_was_made() -> None:
    """Processor, cores, revision and the settings that it was given, as one JSON object."""
    told = msgspec.json.decode(msgspec.json.encode(provenance({"runs": "5"})))
    assert told.keys() == {"cpu", "cores", "revision", "settings"}
    assert told["cpu"]
    assert told["cores"] >= 1
    assert told["settings"] == {"runs": "5"}


def test_a_changed_file_marks_the_revision_and_a_new_one_does_not(tmp_path: Path) -> None:
    """A figure of files that no commit holds says so; lines that a series leaves beside them are no such files."""
    commit = committed(tmp_path)
    assert git_revision(tmp_path) == commit
    (tmp_path / "drain.jsonl").write_text("{}")
    assert git_revision(tmp_path) == commit
    (tmp_path / "file").write_text("2")
    assert git_revision(tmp_path) == f"{commit}-dirty"


def test_without_a_repository_the_revision_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image holds no git directory, and benchmarks run there, too."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_revision(tmp_path) == UNKNOWN
