"""Stored runs as tests make them up."""

from pathlib import Path

import msgspec

from bench.lines import Run, read_run

PROVENANCE: dict[str, object] = {"cpu": "Some CPU", "cores": 2, "revision": "abc", "settings": {}}


def line(**fields: object) -> bytes:
    """A run as a benchmark prints it; what every run has is there, and `fields` come on top."""
    common: dict[str, object] = {
        "started_at": "2026-11-26T10:00:00+00:00",
        "versions": {"python": "3.11"},
        "provenance": PROVENANCE,
    }
    return msgspec.json.encode(common | fields)


def run(**fields: object) -> Run:
    """The same, read."""
    return read_run("x.jsonl line 1", line(**fields))


def of_revision(revision: str) -> dict[str, object]:
    """The provenance of another revision."""
    return PROVENANCE | {"revision": revision}


def store(data: Path, name: str, *lines: bytes) -> None:
    """The lines as a file of results."""
    data.mkdir(exist_ok=True)
    (data / f"{name}.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def drain(processes: int = 1, rate: int = 20_000, **fields: object) -> bytes:
    """A line of the drain that `bench scale` prints."""
    figures: dict[str, object] = {
        "part": "drain", "processes": processes, "movements_per_second": rate, "cpu_seconds_per_million": 50.0,
        "redis_cpu_seconds_per_million_skus": 5.0, "skus_written_per_movement": 0.6,
        "broker_cpu_seconds_per_million": 7.0, "redis_bytes_per_movement": 100.0, "broker_bytes_per_movement": 500.0,
        "wrong_skus": 0, "missing_crossings": 0, "extra_crossings": 0,
    }  # fmt: skip
    return line(**(figures | fields))
