"""Sections: which stored runs the page about performance shows, as which tables and plots."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from bench.tables import Column, Label, Table


class Section(NamedTuple):
    """Runs of `<file>.jsonl` with the command that gives them; `plotted` are headings of columns."""

    name: str
    file: str
    command: str
    table: Table
    plotted: Sequence[str] = ()
    logarithmic: bool = False


DATASET: Final = Label("SKUs", "dataset")
ENGINE: Final = Label("engine", "engine")
MOVEMENTS: Final = Label("movements", "movements")
PROCESSES: Final = Label("processes", "processes")
RATE: Final = Column("movements/s", "movements_per_second")
CPU: Final = Column("CPU seconds per million", "cpu_seconds_per_million", digits=1)
MEMORY: Final = Column("memory, MiB", "memory_mib_max")
FAULTS: Final = (
    Column("wrong SKUs", "wrong_skus"),
    Column("missing crossings", "missing_crossings"),
    Column("extra crossings", "extra_crossings"),
)


def _quantiles(field: str, digits: int) -> tuple[Column, ...]:
    """Of milliseconds."""
    named = {"p50": "p50", "p99": "p99", "p99.9": "p999", "longest": "max"}
    return tuple(Column(f"{name}, ms", f"{field}.{part}", digits) for name, part in named.items())


SECTIONS: Final = (
    Section(
        "drain",
        "drain",
        "onhand bench drain --runs 5",
        Table((DATASET, MOVEMENTS, PROCESSES), (RATE, CPU, MEMORY, *FAULTS)),
        ("movements/s", "CPU seconds per million"),
    ),
    Section(
        "kernel",
        "kernel",
        "onhand bench kernel --runs 5",
        Table(
            (DATASET,),
            (
                RATE,
                Column("decoding alone, movements/s", "decoding_per_second"),
                Column("times decoding", "times_decoding", digits=1),
                Column("all SKUs new, movements/s", "opening_movements_per_second"),
                Column("steady, movements/s", "steady_movements_per_second"),
                Column("steady, times decoding", "steady_times_decoding", digits=1),
                Column("bytes per position", "bytes_per_position"),
                Column("snapshot, bytes per position", "snapshot_bytes_per_position"),
            ),
        ),
        ("movements/s", "decoding alone, movements/s"),
    ),
    Section(
        "latency",
        "latency",
        "onhand bench latency --runs 5",
        Table(
            (DATASET, Label("sent, movements/s", "rate")),
            (
                *_quantiles("latency_ms", digits=1),
                Column("lag at the end, s", "lag_seconds_at_end", digits=1),
                Column("reference: acknowledged by Kafka, p50, ms", "acknowledged_ms.p50", digits=1),
            ),
        ),
        ("p50, ms", "p99, ms", "p99.9, ms"),
        logarithmic=True,
    ),
    Section(
        "lookups",
        "lookups",
        "onhand bench lookups --runs 5",
        Table(
            (Label("while", "writer"), Label("looked up", "kind"), Label("readers", "readers")),
            (
                *_quantiles("latency_ms", digits=3),
                Column("look-ups/s", "looks_per_second"),
                Column("written meanwhile, movements/s", "written_movements_per_second"),
            ),
            each="looks",
        ),
        ("p50, ms", "p99, ms", "p99.9, ms"),
        logarithmic=True,
    ),
    Section(
        "peers",
        "peers",
        "onhand bench peers --runs 5",
        Table((DATASET, ENGINE, PROCESSES), (RATE, CPU, MEMORY, *FAULTS)),
        ("movements/s", "CPU seconds per million"),
    ),
    Section(
        "state",
        "state",
        "onhand bench state --positions 100000 1000000 --runs 5",
        Table(
            (Label("positions", "positions"),),
            (
                Column("memory, bytes per position", "bytes_per_position"),
                Column("snapshot, bytes per position", "snapshot_bytes_per_position"),
                Column("packing all lanes, s", "snapshot_seconds", digits=2),
                Column("the same, each given little, s", "calm_snapshot_seconds", digits=2),
                Column("the longest such, s", "calm_snapshot_seconds_max", digits=2),
                Column("until all is on disk, s", "commit_seconds", digits=2),
                Column("restoring all lanes, s", "restore_seconds", digits=2),
                Column("start until it reads again, s", "resume_seconds", digits=2),
            ),
        ),
        ("memory, bytes per position", "packing all lanes, s", "start until it reads again, s"),
    ),
    Section(
        "scale-kernel",
        "scale",
        "onhand bench scale --processes 1 2 --runs 5",
        Table((PROCESSES,), (RATE, CPU), {"part": "kernel"}),
        ("movements/s", "CPU seconds per million"),
    ),
    Section(
        "scale-drain",
        "scale",
        "onhand bench scale --processes 1 2 --runs 5",
        Table(
            (PROCESSES,),
            (
                RATE,
                CPU,
                Column("Redis, CPU s per million SKUs", "redis_cpu_seconds_per_million_skus", digits=2),
                Column("SKUs written per movement", "skus_written_per_movement", digits=2),
                Column("broker, CPU s per million", "broker_cpu_seconds_per_million", digits=2),
                *FAULTS,
            ),
            {"part": "drain"},
        ),
        ("movements/s", "CPU seconds per million"),
    ),
    Section(
        "healing",
        "healing",
        "onhand bench healing --fault flush",
        Table(
            (Label("fault", "fault"),),
            (
                RATE,
                Column("healed after, s", "seconds", digits=1),
                Column("memory at first, MiB", "memory_mib_first"),
                Column("memory at most, MiB", "memory_mib_max"),
            ),
        ),
    ),
)
