"""The house stands: our packages come from the checkout, the locks fit pyproject.toml, the import rules bite."""

import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bench.comparison import PEERS

CHECKOUT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["importlinter"]["root_packages"]
PEERS_LOCKS = [f"bench/peers/{engine}.txt" for engine in PEERS]
LINT_SECONDS_MAX = 60


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_is_loaded_from_the_checkout(name: str) -> None:
    """No other package of that common name is taken for ours."""
    assert importlib.import_module(name).__file__ == str(CHECKOUT / name / "__init__.py")


def test_the_installed_command_finds_our_packages_from_anywhere(tmp_path: Path) -> None:
    """The editable install puts the checkout on the path, whatever the working directory."""
    code = f"import {', '.join(PACKAGES)}; print({PACKAGES[0]}.__file__)"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == str(CHECKOUT / PACKAGES[0] / "__init__.py")


def test_make_compiles_every_package_beforehand() -> None:
    """Or each process of one that is missing would do it anew where Python is told to write no bytecode."""
    (listed,) = re.findall(r"compileall -q ([a-z ]+)", (CHECKOUT / "Makefile").read_text())
    assert set(listed.split()) == set(PACKAGES)


def locked(name: str) -> dict[str, str]:
    """Return the requirements of a lock file by package name, each with its hashes."""
    text = (CHECKOUT / name).read_text()
    return {canonicalize_name(entry.split("==")[0]): entry for entry in re.split(r"\n(?=[a-z])", text.strip())}


@pytest.mark.parametrize(
    ("lock", "extras"), [("requirements.lock", ("build",)), ("requirements-dev.lock", ("build", "dev"))]
)
def test_a_lock_pins_what_pyproject_asks_for(lock: str, extras: tuple[str, ...]) -> None:
    """Every dependency is in the lock, in a version that pyproject.toml allows, with a hash."""
    entries = locked(lock)
    asked = PROJECT["project"]["dependencies"] + [
        line for extra in extras for line in PROJECT["project"]["optional-dependencies"][extra]
    ]
    for requirement in map(Requirement, asked):
        entry = entries[canonicalize_name(requirement.name)]
        version = entry.split("==")[1].split()[0]
        assert requirement.specifier.contains(version), f"{requirement} is locked as {version}: make lock"
        assert "--hash=sha256:" in entry


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock", *PEERS_LOCKS])
def test_a_lock_names_no_address(lock: str) -> None:
    """Where packages come from is the machine's business."""
    assert not re.search(r"https?://|--index-url|--find-links|file:", (CHECKOUT / lock).read_text())


def test_both_locks_pin_the_same_versions() -> None:
    """What is tested is what runs."""
    running, developing = locked("requirements.lock"), locked("requirements-dev.lock")
    assert {name: entry.split()[0] for name, entry in running.items()} == {
        name: developing[name].split()[0] for name in running
    }


@pytest.mark.parametrize("engine", PEERS)
def test_a_peers_lock_pins_what_it_asks_for(engine: str) -> None:
    """With hashes, and with every package whose version stands beside its figures."""
    entries = locked(f"bench/peers/{engine}.txt")
    asked = list(map(Requirement, (CHECKOUT / f"bench/peers/{engine}.in").read_text().split()))
    for requirement in asked:
        entry = entries[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(entry.split("==")[1].split()[0])
    assert all("--hash=sha256:" in entry for entry in entries.values())
    assert set(PEERS[engine].packages) <= entries.keys()


@pytest.mark.parametrize("engine", ["loop", "bytewax"])
def test_peers_that_need_nothing_else_run_on_the_same_versions_as_onhand(engine: str) -> None:
    """So their figures differ by what they do, and tests may run them in the project's own environment."""
    ours, theirs = locked("requirements.lock"), locked(f"bench/peers/{engine}.txt")
    shared = ours.keys() & theirs.keys()
    assert {"confluent-kafka", "hiredis", "msgspec", "redis"} <= shared
    assert {name: theirs[name].split()[0] for name in shared} == {name: ours[name].split()[0] for name in shared}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the import rules of the checkout or of a copy of it."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=LINT_SECONDS_MAX)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of our packages and rules, to be broken."""
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    for name in PACKAGES:
        shutil.copytree(CHECKOUT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_import_rules_hold(house: Path) -> None:
    """The house as it is keeps every contract."""
    assert (done := lint_imports(house)).returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("operators/broken.py", "import redis", "operators and schemas touch no I/O"),
        ("schemas/broken.py", "from time import monotonic", "operators and schemas touch no I/O"),
        ("operators/broken.py", "import bytewax.operators", "bytewax only in flows"),
        ("sinks/broken.py", "import sources", "each floor imports only those below it"),
        ("schemas/broken.py", "import operators", "each floor imports only those below it"),
        ("bench/broken.py", "import cli", "each floor imports only those below it"),
        ("bench/peers/broken.py", "import bench.drain", "the benchmark's peers know nothing of onhand"),
    ],
)
def test_an_import_against_the_rules_is_found(house: Path, file: str, line: str, contract: str) -> None:
    """Each contract names the import that breaks it."""
    (house / file).write_text(f"{line}\n")
    done = lint_imports(house)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(rf"{contract}.* BROKEN", done.stdout)
    assert file.removesuffix(".py").replace("/", ".") in done.stdout


def test_the_lane_s_step_alone_among_operators_may_wire_bytewax(house: Path) -> None:
    """The one wiring function of the operators keeps the contract."""
    (house / "operators" / "lane_step.py").write_text("import bytewax.operators\n")
    assert (done := lint_imports(house)).returncode == 0, done.stdout
