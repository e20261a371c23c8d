"""Provenance: on what machine, from which sources and with which settings a figure was measured."""

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

CHECKOUT: Final = Path(__file__).resolve().parents[1]
GIT_SECONDS_MAX: Final = 10.0
UNKNOWN: Final = "unknown"
NO_SETTINGS: Final[Mapping[str, str]] = MappingProxyType({})


class Provenance(msgspec.Struct, frozen=True):
    """What a figure depends on beside the versions; `cores` are those that this process may use.

    A `revision` that ends with `-dirty` is not all that was measured: something was changed and not committed.
    """

    cpu: str
    cores: int
    revision: str
    settings: dict[str, str]


def provenance(settings: Mapping[str, str] = NO_SETTINGS) -> Provenance:
    """What is known of this machine and these sources; `settings` are those that differ from run to run."""
    return Provenance(cpu_model(), len(os.sched_getaffinity(0)), git_revision(), dict(settings))


def now_text() -> str:
    """The wall clock as lines have it in `started_at`, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def cpu_model() -> str:
    """The processor by the name that it gives itself."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def git_revision(checkout: Path = CHECKOUT) -> str:
    """The commit that `checkout` stands at, `unknown` where it is no checkout of git."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=GIT_SECONDS_MAX)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return UNKNOWN
    return told.stdout.strip() or UNKNOWN
