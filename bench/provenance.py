"""Provenance: what a figure depends on beside the program, for the line of any benchmark."""

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

CHECKOUT: Final = Path(__file__).resolve().parents[1]
CPU_INFORMATION: Final = Path("/proc/cpuinfo")
GIT_SECONDS_MAX: Final = 20.0

Setting = str | int | float


class Provenance(msgspec.Struct):
    """The machine, the code and the settings of a run."""

    cpu_model: str
    cpus: int
    revision: str  # of git, with `-dirty` where files differ from it
    settings: dict[str, Setting]


def provenance(settings: Mapping[str, Setting]) -> Provenance:
    """Of a run with `settings` on this machine."""
    return Provenance(cpu_model(), os.cpu_count() or 1, revision(), dict(settings))


def cpu_model() -> str:
    """The processor's name, as far as the system tells it."""
    if CPU_INFORMATION.exists():
        for line in CPU_INFORMATION.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def revision() -> str:
    """What git calls the checkout; "unknown" where there is no git, or no repository."""
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=GIT_SECONDS_MAX)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"
