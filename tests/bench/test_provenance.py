"""What stands beside every figure: the machine, the code and the settings."""

from pathlib import Path

import pytest

from bench import provenance


def test_a_run_names_its_machine_its_code_and_its_settings() -> None:
    """Nothing is empty."""
    found = provenance.provenance({"skus": 20})
    assert found.cpu_model
    assert found.cpus > 0
    assert found.revision
    assert found.settings == {"skus": 20}


def test_without_a_repository_the_revision_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an image, which holds no git."""
    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path)
    assert provenance.revision() == "unknown"
