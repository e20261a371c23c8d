"""Lines: stored runs of benchmarks, one JSON object a line, and what is read from them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from bench.provenance import Provenance

RESULTS: Final = Path(__file__).with_name("results")
Value: TypeAlias = int | float | str | bool | None


class ReportError(ValueError):
    """A stored line that cannot be reported, with its place and what it lacks."""


class _Common(msgspec.Struct):
    """What every line has."""

    started_at: str
    versions: dict[str, str]
    provenance: Provenance


class Run(NamedTuple):
    """One stored run: where it stands, when it began (ISO 8601), where it comes from, and its own fields."""

    place: str
    started_at: str
    versions: dict[str, str]
    provenance: Provenance
    fields: dict[str, Any]  # every benchmark names its own

    def value(self, field: str) -> Value:
        """The plain value of `field`, whose parts are cut by dots; ReportError where there is none."""
        found: Any = self.fields
        for part in field.split("."):
            if not isinstance(found, dict) or part not in found:
                raise ReportError(f"{self.place} has no {field}: measure again, or correct the table")
            found = found[part]
        if isinstance(found, dict | list):
            raise ReportError(f"{self.place}: {field} is no single value")
        value: Value = found
        return value

    def number(self, field: str) -> float | None:
        """The number in `field`; None where the run did not measure it."""
        value = self.value(field)
        if isinstance(value, str | bool):
            raise ReportError(f"{self.place}: {field} is {value!r}, not a number")
        return value

    def each(self, field: str) -> "list[Run]":
        """A run for each object in the list `field`, whose fields come on top; ReportError where there is no list."""
        parts = self.fields.get(field)
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise ReportError(f"{self.place}: {field} is no list of objects")
        return [self._replace(fields=self.fields | part) for part in parts]

    @property
    def is_valid(self) -> bool:
        """Whether it measured what it was to measure; one that did not says so itself."""
        return self.fields.get("valid") is not False

    @property
    def series(self) -> tuple[str, int, str]:
        """What runs have in common whose figures may stand in one median."""
        return self.provenance.cpu, self.provenance.cores, self.provenance.revision


def read_runs(data: Path, name: str) -> list[Run]:
    """The runs in `<data>/<name>.jsonl`, none where there is no such file; ReportError where a line is none."""
    path = data / f"{name}.jsonl"
    if not path.exists():
        return []
    lines = enumerate(path.read_bytes().splitlines(), 1)
    return [read_run(f"{path.name} line {number}", line) for number, line in lines if line.strip()]


def read_run(place: str, line: bytes) -> Run:
    """A run; ReportError where the line does not say when, with which versions and on what it was measured."""
    try:
        common = msgspec.json.decode(line, type=_Common)
        fields = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ReportError(f"{place} is no run: {error}") from error
    return Run(place, common.started_at, common.versions, common.provenance, fields)


def newest_series(runs: Sequence[Run]) -> list[Run]:
    """Those of the processor and revision that the newest of `runs` was measured with."""
    newest = max(runs, key=lambda run: run.started_at)
    return [run for run in runs if run.series == newest.series]
