"""`onhand bench peers`: lines as they come, and an exit code that scripts can read."""

from collections.abc import Iterator

import msgspec
import pytest
import typer

from bench import comparison
from bench.provenance import provenance
from cli.bench_peers import peers
from cli.failures import DIFFERENT, MISUSED, CliError


def line(*, wrong_skus: int = 0, missing: int = 0, extra: int = 0) -> comparison.ComparisonRun:
    """A run of onhand with so many differences."""
    return comparison.ComparisonRun(
        "onhand", "uniform", 1000, 1, 1.0, 1, wrong_skus, missing, extra, 1, {}, "2025-01-01", provenance({})
    )


@pytest.mark.parametrize("different", [{"wrong_skus": 1}, {"missing": 1}, {"extra": 1}])
def test_any_difference_ends_with_its_exit_code_after_every_line(
    different: dict[str, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A figure with a wrong number is no figure, but the others are printed."""

    def compared(*_: object) -> Iterator[comparison.ComparisonRun]:
        yield line(**different)
        yield line()

    monkeypatch.setattr(comparison, "compare", compared)
    with pytest.raises(typer.Exit) as ended:
        peers(movements=1000, skus=10, engines="onhand")
    assert ended.value.exit_code == DIFFERENT
    printed = [
        msgspec.json.decode(text, type=comparison.ComparisonRun) for text in capsys.readouterr().out.splitlines()
    ]
    assert [run.differs for run in printed] == [True, False]


@pytest.mark.parametrize(
    ("engines", "dataset", "named"), [("onhand,flink", "generated", "flink"), ("onhand", "wholesale", "wholesale")]
)
def test_an_unknown_engine_or_dataset_is_named(engines: str, dataset: str, named: str) -> None:
    """Before anything is started."""
    with pytest.raises(CliError, match=named) as told:
        peers(engines=engines, dataset=dataset)
    assert told.value.exit_code == MISUSED
