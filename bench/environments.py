"""Environments: a virtual environment for each peer of the benchmark, made anew where its requirements change."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Final

from bench.drain import BenchError
from bench.servers import CHECKOUT

ENVIRONMENTS: Final = CHECKOUT / ".cache" / "peers"
REQUIREMENTS: Final = CHECKOUT / "bench" / "peers"
MAKE_SECONDS_MAX: Final = 600.0


def environment_of(engine: str) -> Path:
    """Where the environment of a peer is, whether it has been made or not."""
    made_of = requirements_of(engine).read_bytes() + sys.version.encode()
    return ENVIRONMENTS / hashlib.sha256(made_of).hexdigest()[:12]


def requirements_of(engine: str) -> Path:
    """The versions and hashes of a peer's packages."""
    return REQUIREMENTS / f"{engine}.txt"


def is_made(engine: str) -> bool:
    """Whether the environment of a peer is complete."""
    return _mark(engine).exists()


def python_of(engine: str) -> Path:
    """The interpreter of a peer's environment, made if it is missing; BenchError where that fails."""
    directory = environment_of(engine)
    python = directory / "bin" / "python"
    if not is_made(engine):
        _run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(directory)])
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--python", str(python)]
        _run([*pip, "install", "--require-hashes", "--requirement", str(requirements_of(engine))])
        _mark(engine).touch()
    return python


def _mark(engine: str) -> Path:
    return environment_of(engine) / ".made"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=MAKE_SECONDS_MAX)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)} ended with exit code {done.returncode}: {done.stderr[-2000:]}")
