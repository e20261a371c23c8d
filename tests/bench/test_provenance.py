"""Where a figure comes from: told by the system and by git, and nothing where there is neither."""

import platform
import subprocess
from pathlib import Path

import msgspec
import pytest

from bench import provenance as module
from bench.provenance import CHANGED, UNKNOWN, cpu_name, provenance, revision


def committed(path: Path) -> str:
    """A repository at `path` with one commit; returns it."""
    (path / "file").write_text("1")
    name = ["-c", "user.name=test", "-c", "user.email=test"]
    for words in (["init", "-q"], ["add", "."], [*name, "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", str(path), *words], check=True)
    done = subprocess.run(["git", "-C", str(path), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()[:12]


def test_a_run_tells_where_it_was_made() -> None:
    """Processor, cores, revision and the settings that it was given, as one JSON object."""
    told = msgspec.json.decode(msgspec.json.encode(provenance({"runs": "5"})))
    assert told.keys() == {"cpu", "cores", "revision", "settings"}
    assert told["cpu"]
    assert told["cores"] >= 1
    assert told["settings"] == {"runs": "5"}


def test_a_changed_file_marks_the_revision_but_results_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure of files that no commit holds says so; the lines that a series writes meanwhile are no such files."""
    monkeypatch.setattr(module, "CHECKOUT", tmp_path)
    commit = committed(tmp_path)
    assert revision() == commit
    (tmp_path / "bench" / "results").mkdir(parents=True)
    (tmp_path / "bench" / "results" / "drain.jsonl").write_text("{}")
    assert revision() == commit
    (tmp_path / "file").write_text("2")
    assert revision() == commit + CHANGED


def test_without_a_repository_the_revision_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image holds no git directory, and benchmarks run there, too."""
    monkeypatch.setattr(module, "CHECKOUT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert revision() == UNKNOWN


@pytest.mark.parametrize(
    ("text", "name"), [("model name\t: Some  CPU @ 2 GHz\nflags: x\n", "Some CPU @ 2 GHz"), ("", None)]
)
def test_the_processor_is_named_as_the_system_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str | None
) -> None:
    """The model where it is told, else the architecture."""
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    monkeypatch.setattr(module, "CPU_FILE", file)
    assert cpu_name() == (name or platform.machine())
