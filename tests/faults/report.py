"""The table of a campaign, as docs/reliability.md shows it."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime

import psutil

from bench.drain import versions
from bench.servers import POM
from sinks.redis_server import server_program
from tests.faults.schedule import FAULTS
from tests.faults.striking import SeedResult, Struck


def markdown(results: Sequence[SeedResult], command: str) -> str:
    """One row for each fault, and below it with what and when that was found."""
    rows = [
        "| fault | seeds | struck | records read again | slowest recovery | violations |",
        "|---|---|---|---|---|---|",
    ]
    rows += [_row(kind, results) for kind in FAULTS]
    failed = [result.seed for result in results if result.violations]
    messages = sum(result.messages for result in results)
    said = [
        f"`{command}`, {datetime.now(UTC):%Y-%m-%d}: {len(results)} seeds, "
        f"in {sum(result.as_changes for result in results)} of them lanes kept as changes, "
        f"{messages:_} records in the logs, "
        f"{sum(result.crossings for result in results):_} crossings, "
        f"{sum(result.written_again for result in results):_} records written again, "
        f"{sum(result.writes for result in results):_} writes to Redis looked at, "
        f"{sum(result.reads for result in results):_} values read meanwhile, "
        f"{sum(len(result.violations) for result in results)} violations"
        + (f" (seeds {', '.join(map(str, failed))})." if failed else "."),
        f"{_versions()}; {os.cpu_count()} cores, {psutil.virtual_memory().total >> 30} GiB.",
    ]
    return "\n".join([*rows, "", *(text.replace("_", " ") for text in said)]) + "\n"


def _row(kind: str, results: Sequence[SeedResult]) -> str:
    met: list[tuple[SeedResult, Struck]] = [
        (result, fault) for result in results for fault in result.faults if fault.kind == kind
    ]
    struck = sum(fault.struck for _, fault in met)
    again = sum(fault.read_again for _, fault in met)
    recoveries = [fault.recovery_seconds for _, fault in met if fault.recovery_seconds is not None]
    slowest = f"{max(recoveries):.1f} s" if recoveries else "–"
    seeds = {result.seed for result, fault in met if not fault.skipped}
    violated = {result.seed for result, _ in met if result.violations}
    skipped = sum(1 for _, fault in met if fault.skipped)
    name = f"{kind} ({skipped} times it could not strike)" if skipped else kind
    return f"| {name} | {len(seeds)} | {struck} | {again} | {slowest} | {len(violated)} |"


def _versions() -> str:
    """Of everything that took part."""
    names = {
        **versions(),
        "Kafka": _kafka_version(),
        "Redis": _redis_version(),
        "Linux": platform.release().split("-")[0],
    }
    return ", ".join(f"{name} {version}" for name, version in names.items())


def _kafka_version() -> str:
    found = re.search(r"kafka_[\d.]+</artifactId>\s*<version>([^<]+)", POM.read_text(encoding="utf-8"))
    return found[1] if found else "unknown"


def _redis_version() -> str:
    done = subprocess.run([server_program(), "--version"], check=False, capture_output=True, text=True, timeout=10)
    found = re.search(r"v=([\d.]+)", done.stdout)
    return found[1] if found else done.stdout.strip()
