"""An interrupted campaign goes on where it was, and mixes no results of different products."""

from pathlib import Path

import pytest

from tests.faults import campaign
from tests.faults.results import Noted, note, noted, product_of
from tests.faults.striking import SeedResult, Struck

DRAINED = SeedResult(3, faults=[Struck("drain", 1, 0, 2.5)], messages=1000, reads=7)
HURT = SeedResult(4, violations=["I3: lost"], faults=[Struck("disk full", skipped="only root")])


def test_results_are_read_as_they_were_noted(tmp_path: Path) -> None:
    """Those of another product or of one fault alone are passed over; the last one of a seed counts."""
    path = tmp_path / "results.jsonl"
    assert noted(path, "one", None) == {}
    for entry in (Noted("one", None, SeedResult(3)), Noted("one", None, DRAINED), Noted("one", None, HURT)):
        note(path, entry)
    note(path, Noted("other", None, SeedResult(5)))
    note(path, Noted("one", "drain", SeedResult(6)))
    assert noted(path, "one", None) == {3: DRAINED, 4: HURT}
    assert list(noted(path, "one", "drain")) == [6]


def test_a_line_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A disk may have been full; nothing is run then."""
    path = tmp_path / "results.jsonl"
    note(path, Noted("one", None, DRAINED))
    path.write_bytes(path.read_bytes() + b'{"product":"one","on')
    with pytest.raises(ValueError, match=r"results\.jsonl:2: .*take this line out"):
        noted(path, "one", None)
    assert campaign.main(["--seeds", "1", "--results", str(path)]) == campaign.MISUSED
    assert capsys.readouterr().out.startswith(f"error: {path}:2: ")


def test_a_product_is_its_code_and_its_libraries(tmp_path: Path) -> None:
    """Tests and pages may change between two parts of a campaign, a Lua script may not."""
    for name in ("schemas", "operators", "sources", "sinks", "flows", "cli", "tests", "docs"):
        (tmp_path / name).mkdir()
    (tmp_path / "requirements.lock").write_text("numpy==2\n")
    (tmp_path / "sinks" / "write.lua").write_text("return 1")
    first = product_of(tmp_path)
    (tmp_path / "tests" / "test.py").write_text("1")
    (tmp_path / "cli" / "notes.txt").write_text("1")
    assert product_of(tmp_path) == first
    (tmp_path / "sinks" / "write.lua").write_text("return 2")
    second = product_of(tmp_path)
    (tmp_path / "requirements.lock").write_text("numpy==3\n")
    assert len({first, second, product_of(tmp_path)}) == 3


def test_seeds_that_were_noted_are_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are part of the table and of the verdict all the same."""
    path, report = tmp_path / "results.jsonl", tmp_path / "table.md"
    product = product_of(campaign.CHECKOUT)
    for result in (DRAINED, HURT):
        note(path, Noted(product, None, result))
    monkeypatch.setattr(campaign, "Servers", NoServers)
    ended = campaign.main(["--first", "3", "--seeds", "2", "--results", str(path), "--report", str(report)])
    assert ended == campaign.FOUND_SOMETHING
    assert "2 seeds, 1 with violations: [4]" in capsys.readouterr().out
    assert "| drain | 1 | 1 | 0 | 2.5 s | 0 |" in report.read_text(encoding="utf-8")


class NoServers:
    """Nothing is to be run with them."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None
