"""The page about performance: what a template makes of stored runs, and that nobody edited the figures by hand."""

from pathlib import Path

import pytest

from bench.lines import RESULTS, ReportError
from bench.reporting import PAGE, PLOTS, TEMPLATE, Page, report, write
from bench.sections import SECTIONS
from tests.bench.stored import drain, line, store

KERNEL = {
    "dataset": "uniform", "movements_per_second": 30_000, "decoding_per_second": 1_000_000, "times_decoding": 33.3,
    "opening_movements_per_second": 20_000, "steady_movements_per_second": 32_000, "steady_times_decoding": 31.2,
    "bytes_per_position": 2000, "snapshot_bytes_per_position": 300,
}  # fmt: skip
HEADS = (
    "| SKUs | movements/s | decoding alone, movements/s | times decoding | all SKUs new, movements/s"
    " | steady, movements/s | steady, times decoding | bytes per position | snapshot, bytes per position |"
)
RUNS = (
    "Medians of 2 runs a row, the smallest and the largest in brackets; 2026-11-26, revision abc, Some CPU, 2 cores;"
    " python 3.11."
)


def test_the_page_is_what_the_stored_runs_and_the_template_give() -> None:
    """Who wants other figures measures again, and runs `onhand bench report`."""
    made = report(RESULTS, TEMPLATE.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == made.text
    folder = PAGE.parent / PLOTS
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*")} == made.plots


def test_every_section_has_its_table_in_the_template() -> None:
    """No stored runs go unseen."""
    template = TEMPLATE.read_text(encoding="utf-8")
    assert [one.name for one in SECTIONS if f"{{{{table {one.name}}}}}" not in template] == []


def test_text_stays_and_fields_become_tables(tmp_path: Path) -> None:
    """With its command, its plot, and what the figures are medians of."""
    store(tmp_path, "kernel", line(**KERNEL), line(**KERNEL | {"movements_per_second": 31_000}))
    template = "# Kernel\n\n{{command kernel}}\n\nText.\n\n{{table kernel}}\n\n{{runs kernel}}\n\n{{plot kernel}}\n"
    made = report(tmp_path, template)
    assert made.text.splitlines() == [
        "# Kernel", "",
        "```console", "onhand bench kernel --runs 5", "```", "",
        "Text.", "",
        HEADS,
        "|---|---|---|---|---|---|---|---|---|",
        "| uniform | 30,500 (30,000–31,000) | 1,000,000 | 33.3 | 20,000 | 32,000 | 31.2 | 2,000 | 300 |", "",
        RUNS, "",
        "![kernel: movements/s; decoding alone, movements/s](performance/kernel.svg)",
    ]  # fmt: skip
    assert made.plots.keys() == {"kernel.svg"}


def test_a_section_without_runs_says_what_gives_them_and_shows_no_figure(tmp_path: Path) -> None:
    """Nothing is invented, and no hole is left where command, runs and plot would be."""
    template = "A\n\n{{command drain}}\n\n{{table drain}}\n\n{{runs drain}}\n\n{{plot drain}}\n\n{{model check}}\n"
    made = report(tmp_path, template)
    assert made == Page(
        "A\n\nNot measured yet: `bench drain --runs 5`, a command of onhand, gives the figures.\n\n"
        "Not measured yet: it takes drains with one and with two processes.\n",
        {},
    )


def test_runs_that_are_not_valid_are_told(tmp_path: Path) -> None:
    """They are in no median, and nobody wonders where they went."""
    store(tmp_path, "kernel", line(**KERNEL), line(**KERNEL, valid=False))
    text = report(tmp_path, "{{runs kernel}}").text
    assert text.startswith("Medians of 1 run a row")
    assert text.endswith("Runs left out because they say that they are not valid: 1.")


def test_runs_that_are_all_not_valid_are_told_where_the_table_would_be(tmp_path: Path) -> None:
    """Else somebody who has just measured would read that nobody has."""
    store(tmp_path, "kernel", line(**KERNEL, valid=False))
    made = report(tmp_path, "{{table kernel}}{{runs kernel}}")
    assert made.text.startswith("Not measured yet")
    assert made.text.endswith("Runs left out because they say that they are not valid: 1.")


@pytest.mark.parametrize("field", ["{{table nothing}}", "{{figure drain}}"])
def test_a_field_that_nothing_fills_is_told(tmp_path: Path, field: str) -> None:
    """A slip in the template does not reach the page."""
    with pytest.raises(ReportError, match="the template asks for"):
        report(tmp_path, field)


def test_what_the_model_says_stands_beside_what_two_processes_did(tmp_path: Path) -> None:
    """Both from the same file: 50 + 3 + 7 CPU seconds for a million movements on 2 cores are 33,333 a second."""
    store(tmp_path, "scale", drain(), drain(rate=20_100), drain(2, 25_000), drain(2, 26_000, wrong_skus=0))
    check = report(tmp_path, "{{model check}}").text.splitlines()
    assert check[-1] == "| 2 | 33,333 | machine | 25,500 (25,000–26,000) | 76% |"
    inputs = report(tmp_path, "{{model inputs}}").text.splitlines()
    assert inputs[0] == "| input | median | field in `scale.jsonl`, lines 1, 2 |"
    assert inputs[2] == "| worker seconds per million | 50.000 | `cpu_seconds_per_million` |"
    predicted = report(tmp_path, "{{model predictions}}").text.splitlines()
    assert [row.split(" | ")[0:3] for row in predicted[2:]] == [
        ["| 1", "20,000", "workers"], ["| 8", "160,000", "workers"], ["| 32", "333,333", "Redis"],
        ["| 64", "333,333", "Redis"],
    ]  # fmt: skip


def test_writing_leaves_no_plot_of_before(tmp_path: Path) -> None:
    """A plot that nothing shows any more is gone."""
    page = tmp_path / "page.md"
    write(Page("one", {"a.svg": "<svg/>"}), page)
    write(Page("two", {"b.svg": "<svg/>"}), page)
    assert page.read_text() == "two"
    assert [path.name for path in (tmp_path / PLOTS).iterdir()] == ["b.svg"]
