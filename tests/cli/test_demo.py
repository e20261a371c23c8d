"""`onhand demo`: ends by itself, leaves something to read, and takes everything it started with it."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cli.command import CHECKOUT, assert_failed_in_one_line, onhand, started, wait_until

CONFIGURATION = str(CHECKOUT / "examples" / "demo" / "onhand.toml")


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No process that a demo started is there after it."""
    yield
    wait_until(lambda: not children_of_demos())


def children_of_demos() -> list[psutil.Process]:
    """Flows that run with the demo's configuration."""
    return [process for process in psutil.process_iter(["cmdline"]) if CONFIGURATION in (process.info["cmdline"] or [])]


@pytest.mark.alone
def test_in_a_pipe_it_ends_by_itself_with_a_summary(tmp_path: Path) -> None:
    """And the command that it names reads what the flow has left."""
    done = onhand("demo", "--seconds", "8", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    text = done.stdout
    assert re.search(r"^[\d,]+ of [\d,]+ movements in [\d.]+ s \([\d,]+/s\)$", text, re.MULTILINE)
    assert re.search(r"p50 [\d.]+ ms, p99 [\d.]+ ms \(\d+ samples", text)
    assert re.search(r"^web: \d+ SKUs in stock, \d+ low, \d+ out of stock$", text, re.MULTILINE)
    assert re.search(r"^dead letters: \d+ missing_field", text, re.MULTILINE)
    sold = re.search(r"^web may sell (\d+) of (\S+) now", text, re.MULTILINE)
    command = re.search(r"^  \S*onhand (get .*)$", text, re.MULTILINE)
    assert sold is not None
    assert command is not None
    read = onhand(*command[1].split(), cwd=tmp_path)
    assert f"web          {sold[1]}\n" in read.stdout


def test_movements_of_ones_own(tmp_path: Path) -> None:
    """A file of JSON lines, as `onhand load` writes them."""
    load = ("load", "--movements", "500", "--skus", "20", "--to", "lines.jsonl", "--start", "2026-01-01T00:00:00Z")
    assert onhand(*load, cwd=tmp_path).returncode == 0
    done = onhand("demo", "--seconds", "3", "--movements", "lines.jsonl", "--rate", "5000", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\n501 of 501 movements" in done.stdout


def test_ctrl_c_ends_everything(tmp_path: Path) -> None:
    """Exit code 130, no traceback."""
    with started("demo", "--seconds", "60", cwd=tmp_path) as demo:
        wait_until(lambda: "movements (" in (tmp_path / "out").read_text())
        demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 130
    assert (tmp_path / "err").read_text() == ""


def test_a_demo_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    """The flow ends with its pipe, and its Redis with it."""
    with started("demo", "--seconds", "60", cwd=tmp_path) as demo:
        wait_until(children_of_demos)
        demo.kill()


@pytest.mark.parametrize(("name", "text"), [("absent.jsonl", None), ("empty.jsonl", ""), ("odd.csv", "a,b\n")])
def test_movements_that_cannot_be_read_are_told(name: str, text: str | None, tmp_path: Path) -> None:
    """Exit code 2: the command line names them."""
    if text is not None:
        (tmp_path / name).write_text(text)
    assert name in assert_failed_in_one_line(onhand("demo", "--movements", name, cwd=tmp_path), 2)
