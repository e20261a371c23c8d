"""Provenance: on which processor, of which revision and with which settings a figure was measured."""

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

CHECKOUT: Final = Path(__file__).resolve().parents[1]
CPU_FILE: Final = Path("/proc/cpuinfo")
GIT_SECONDS_MAX: Final = 30.0
UNKNOWN: Final = "unknown"
CHANGED: Final = "+changes"
MADE_BY_MEASURING: Final = (":!bench/results", ":!docs")  # what a series of benchmarks changes itself


class Provenance(msgspec.Struct, frozen=True):
    """Where a figure comes from: `revision` is a commit, `settings` are those that another run needs to repeat it."""

    cpu: str
    cores: int
    revision: str
    settings: dict[str, str]


def provenance(settings: Mapping[str, str] = {}) -> Provenance:
    """That of a run which is made here and now."""
    return Provenance(cpu_name(), os.cpu_count() or 1, revision(), dict(settings))


def cpu_name() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    if CPU_FILE.exists():
        for line in CPU_FILE.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return " ".join(value.split())
    return platform.machine() or UNKNOWN


def revision() -> str:
    """The commit that is checked out, marked where files differ from it; `unknown` without git."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return UNKNOWN
    return commit + CHANGED if _git("status", "--porcelain", "--", ".", *MADE_BY_MEASURING) else commit


def _git(*arguments: str) -> str:
    """What git says; nothing where there is no git, or no repository."""
    command = ["git", "-C", str(CHECKOUT), *arguments]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=GIT_SECONDS_MAX)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
