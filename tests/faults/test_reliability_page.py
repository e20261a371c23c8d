"""docs/reliability.md speaks of every invariant and every fault, and shows the table that a campaign writes."""

import re

import pytest

from tests.cli.command import CHECKOUT
from tests.faults.report import markdown
from tests.faults.schedule import FAULTS
from tests.faults.striking import SeedResult, Struck

PAGE = (CHECKOUT / "docs" / "reliability.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", range(1, 13))
def test_every_invariant_names_a_test_that_proves_it(number: int) -> None:
    """A row each, with at least one test; that these exist is looked at with all pages."""
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| I{number} |"))
    assert re.search(r"tests/[\w/]+\.py::test_\w+", row)


@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault_is_described(kind: str) -> None:
    """What is done to the processes stands in one table, with its results in the other."""
    described, results = PAGE.split("### Its last results")
    assert re.search(rf"^\|.*\b{kind}\b.*\|", described, re.MULTILINE)
    assert re.search(rf"^\| {kind}\b.*\|", results, re.MULTILINE)


def test_the_table_counts_what_struck_and_names_what_failed() -> None:
    """One row for each fault, whatever happened; a seed with violations is named with its number."""
    calm = SeedResult(
        1, faults=[Struck("drain", struck=1, recovery_seconds=2.0)], messages=1000, reads=5, as_changes=True
    )
    hurt = SeedResult(
        2,
        violations=["I3"],
        faults=[Struck("drain", 2, 7, 3.5), Struck("disk full", skipped="only root")],
        messages=234,
    )
    text = markdown([calm, hurt], "make faults SEEDS=2")
    assert "| drain | 2 | 3 | 7 | 3.5 s | 1 |" in text
    assert "| disk full (1 times it could not strike) | 0 | 0 | 0 | – | 1 |" in text
    assert "`make faults SEEDS=2`" in text
    assert "2 seeds, in 1 of them lanes kept as changes, 1 234 records" in text
    assert "1 violations (seeds 2)" in text
    assert all(f"| {kind}" in text for kind in FAULTS)
