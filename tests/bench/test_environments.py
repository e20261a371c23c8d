"""Environments of peers: made of what their requirements say, whole or not at all."""

from pathlib import Path

import pytest

from bench import environments
from bench.drain import BenchError


@pytest.fixture
def requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The requirements of an engine named `any`, which needs nothing yet."""
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path / "made")
    file = tmp_path / "any.txt"
    file.write_text("# nothing\n")
    return file


def test_an_environment_is_made_once_and_again_for_other_requirements(requirements: Path) -> None:
    """What is installed is what the file says now."""
    python = environments.python_of("any")
    made_at = (python.parents[1] / ".made").stat().st_mtime_ns
    assert environments.python_of("any") == python
    assert (python.parents[1] / ".made").stat().st_mtime_ns == made_at
    requirements.write_text("# still nothing\n")
    assert not environments.is_made("any")
    assert environments.environment_of("any") != python.parents[1]


def test_an_environment_without_its_packages_is_none(requirements: Path) -> None:
    """A package without a hash is not installed, and the next call tries again."""
    requirements.write_text("surely-not-there==1\n")
    with pytest.raises(BenchError, match="--require-hashes"):
        environments.python_of("any")
    assert not environments.is_made("any")
