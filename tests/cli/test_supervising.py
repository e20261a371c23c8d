"""The supervisor over real processes, which do as little as it takes: who ends all, who is started again, who waits."""

import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli import supervising, worker_spec
from cli.failures import DONE, FAILED, INTERRUPTED, MISUSED, CliError
from cli.supervising import Supervisor, free_addresses
from cli.worker_group import Group
from cli.worker_spec import BROKEN, UNREACHABLE, WorkerSpec, hear, tell, words_from
from flows.board import Board
from tests.cli.command import CHECKOUT

# A worker that does what `script` says with the board, its number, and how often it was started before.
WORKER = """
import os, socket, sys, time
from pathlib import Path
from cli.worker_spec import WorkerSpec, hear, monotonic_ms, say
from flows.board import Board
line = socket.socket(fileno=int(sys.argv[1]))
spec, (board, *_) = hear(line) or sys.exit()
board, number, folder = Board(board, spec.processes), spec.process, Path(spec.store)
with (folder / f"starts-{number}").open("a") as file:
    file.write(f"{os.getpid()}\\n")
start = len((folder / f"starts-{number}").read_text().splitlines())
def live(seconds=60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not board.draining():
        board.beat(number, monotonic_ms()); board.run(number); time.sleep(0.01)
"""


class Bench:
    """A supervisor of some such workers, and what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.drain_at: float | None = None
        self.said = ""
        self.rules: dict[str, Any] = {}
        self.supervisor: Supervisor | None = None

    def run(
        self,
        script: str,
        workers: int = 2,
        *,
        drain_seconds_max: float = 5.0,
        restarts: bool = True,
        before: str = "",
    ) -> int:
        """The exit code of the supervisor; workers do what `before` says while they load."""
        board = Board.make(workers)
        self.supervisor = Supervisor(
            Group(workers, ("-c", before + WORKER + script)),
            lambda: [self.spec(number, workers) for number in range(workers)],
            board,
            lambda: self.drain_at is not None and time.monotonic() > self.drain_at,
            drain_seconds_max=drain_seconds_max,
            restarts=restarts,
            chance=random.Random(1),
        )
        try:
            self.supervisor.run()
        except CliError as error:
            self.said = str(error)
            return error.exit_code
        return DONE

    def starts(self, number: int = 0) -> list[int]:
        """The process ids of a worker, one for each start."""
        file = self.folder / f"starts-{number}"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def drain_when(self, condition: Callable[[], bool]) -> None:
        """Ask for a drain once `condition` holds, from another thread."""

        def drain() -> None:
            self.drain_at = time.monotonic()

        self._when(condition, drain)

    def kill_when(self, condition: Callable[[], bool]) -> None:
        """End all at once when `condition` holds, from another thread."""

        def kill() -> None:
            assert self.supervisor is not None
            self.supervisor.kill()

        self._when(condition, kill)

    def _when(self, condition: Callable[[], bool], act: Callable[[], None]) -> None:
        def look() -> None:
            while not condition():
                time.sleep(0.01)
            act()

        threading.Thread(target=look, daemon=True).start()

    def spec(self, number: int, workers: int) -> WorkerSpec:
        """What the worker `number` is told."""
        return WorkerSpec(
            config=None,
            process=number,
            processes=workers,
            first=0,
            addresses=[],
            incarnation=1,
            by_crc32=False,
            rules=self.rules,
            redis_url="",
            store=str(self.folder),
            is_behind=False,
            accept_truncated=False,
        )


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Short waits."""
    monkeypatch.setattr(supervising, "WAIT_SECONDS_FIRST", 0.05)
    monkeypatch.setattr(supervising, "WAIT_SECONDS_MAX", 0.2)
    monkeypatch.setattr(supervising, "FROZEN_SECONDS_MAX", 1.0)
    monkeypatch.setattr(supervising, "OTHERS_SECONDS_MAX", 0.5)
    return Bench(tmp_path)


def test_the_end_of_the_input_is_the_end(bench: Bench) -> None:
    """All workers end by themselves."""
    assert bench.run("live(0.1)") == DONE
    assert len(bench.starts()) == 1


@pytest.mark.parametrize("code", [BROKEN, UNREACHABLE, -9])
def test_where_one_dies_all_start_again(bench: Bench, code: int) -> None:
    """Bytewax would not go on without it; the others are ended first."""
    die = "os.kill(os.getpid(), 9)" if code < 0 else f"sys.exit({code})"
    bench.drain_when(lambda: len(bench.starts(0)) == 3 and len(bench.starts(1)) == 3)
    assert bench.run(f"if number == 1 and start < 3: {die}\nlive()") == DONE
    assert (len(bench.starts(0)), len(bench.starts(1))) == (3, 3)
    assert not any(map(psutil.pid_exists, bench.starts(0) + bench.starts(1)))


@pytest.mark.parametrize("code", [FAILED, MISUSED])
def test_what_a_person_has_to_put_right_ends_all(bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Even where a peer, which only sees that it is alone, says something else first."""
    monkeypatch.setattr(supervising, "OTHERS_SECONDS_MAX", 20.0)  # it ends as soon as both have said something
    script = f"if number == 0: sys.exit({BROKEN})\ntime.sleep(0.2)\nsay(line, 'do this'); sys.exit({code})"
    assert bench.run(script) == code
    assert bench.said == "do this"
    assert len(bench.starts()) == 1


def test_a_pipe_cannot_be_read_again(bench: Bench) -> None:
    """So nothing is started again."""
    assert bench.run(f"sys.exit({BROKEN})", 1, restarts=False) == FAILED
    assert len(bench.starts()) == 1


def test_a_worker_without_a_sign_of_life_is_replaced(bench: Bench) -> None:
    """Whether it stands still or only its heart does."""
    bench.drain_when(lambda: len(bench.starts(0)) == 2)
    assert bench.run("if number == 1 and start == 1:\n  live(0.3)\n  os.kill(os.getpid(), 19)\nlive()") == DONE
    assert not any(map(psutil.pid_exists, bench.starts(0) + bench.starts(1)))


def test_a_worker_that_starts_is_given_time(bench: Bench) -> None:
    """A large state takes longer to load than a heart may stand still."""
    assert bench.run("time.sleep(2)\nlive(0.1)", 1) == DONE
    assert len(bench.starts()) == 1


def test_a_worker_may_die_before_it_hears_what_to_do(bench: Bench) -> None:
    """It is started again like one that dies at work."""
    die_at_first = f"""
from pathlib import Path
if not (died := Path({str(bench.folder / "died")!r})).exists():
    died.touch()
    raise SystemExit({BROKEN})
"""
    assert bench.run("live(0.1)", 1, before=die_at_first) == DONE
    assert len(bench.starts()) == 1


def test_one_that_has_ended_is_told_nothing_and_says_nothing(bench: Bench) -> None:
    """What was sent to it and never read is no error of who watches it."""
    ours, far = socket.socketpair()
    with ours:
        tell(ours, bench.spec(0, 1), [])
        far.close()
        assert not words_from(ours)
        tell(ours, bench.spec(0, 1), [])


def test_one_that_starts_again_is_given_time_too(bench: Bench) -> None:
    """The beats of the one before it are not its own."""
    assert bench.run(f"if start == 1: live(0.2); sys.exit({BROKEN})\ntime.sleep(2)\nlive(0.1)", 1) == DONE
    assert len(bench.starts()) == 2


def test_a_worker_hears_rules_that_no_socket_takes_at_once(bench: Bench) -> None:
    """It reads them when it has loaded its code."""
    bench.rules = {"text": "x" * 5_000_000}
    assert (
        bench.run("sys.exit(0 if len(spec.rules['text']) == 5_000_000 else 1)", before="import time; time.sleep(0.3)")
        == DONE
    )


def test_one_that_never_hears_is_replaced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor that waited for it would wait for ever."""
    monkeypatch.setattr(supervising, "START_SECONDS_MAX", 2.0)
    monkeypatch.setattr(worker_spec, "TELL_SECONDS_MAX", 1.0)
    bench.rules = {"text": "x" * 5_000_000}
    stop_at_first = f"""
import os
from pathlib import Path
if not (stopped := Path({str(bench.folder / "stopped")!r})).exists():
    stopped.touch()
    os.kill(os.getpid(), 19)
"""
    assert bench.run("live(0.1)", 1, before=stop_at_first) == DONE
    assert len(bench.starts()) == 1


def test_without_work_workers_end_with_the_command(tmp_path: Path) -> None:
    """It may find that it cannot run while they load."""
    here = f"import os; from pathlib import Path; Path({str(tmp_path)!r}, str(os.getpid())).touch()\n"
    with Group(2, ("-c", here + WORKER)):
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
    assert not any(psutil.pid_exists(int(file.name)) for file in tmp_path.iterdir())


def test_workers_that_load_end_with_a_command_that_is_killed(tmp_path: Path) -> None:
    """Nothing but the kernel can end them then."""
    here = (
        f"import os, time; from pathlib import Path; Path({str(tmp_path)!r}, str(os.getpid())).touch(); time.sleep(60)"
    )
    code = f"import time; from cli.worker_group import Group; group = Group(2, ('-c', {here!r})); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT) as command:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        command.kill()
    deadline = time.monotonic() + 5
    while any(psutil.pid_exists(int(file.name)) for file in tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_cannot_be_handed_over_is_an_error(bench: Bench) -> None:
    """A worker that was told nothing would only be found when it has been silent for minutes."""
    ours, far = socket.socketpair()
    with ours, far, pytest.raises(OSError, match="Bad file descriptor"):
        tell(ours, bench.spec(0, 1), [9999])


def test_a_worker_whose_supervisor_has_no_work_ends_by_itself() -> None:
    """Where no kernel kills it."""
    ours, far = socket.socketpair()
    with far:
        ours.close()
        assert hear(far) is None


def test_a_drain_that_takes_too_long_is_ended(bench: Bench) -> None:
    """With an exit code that says so."""
    bench.drain_when(lambda: len(bench.starts(0)) == 1)
    begun = time.monotonic()
    script = "while True: board.beat(number, monotonic_ms()); board.run(number); time.sleep(0.01)"
    assert bench.run(script, drain_seconds_max=0.5) == FAILED
    assert time.monotonic() - begun < 5
    assert not any(map(psutil.pid_exists, bench.starts(0)))


def test_who_dies_while_draining_is_not_started_again(bench: Bench) -> None:
    """Nothing is lost: the next start goes on from the last snapshot."""
    bench.drain_when(lambda: len(bench.starts(0)) == 1)
    assert bench.run(f"live()\nsys.exit({BROKEN})", 1) == FAILED
    assert "died while draining" in bench.said
    assert len(bench.starts()) == 1


def test_a_drain_ends_the_wait_for_the_next_start(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing runs, so there is nothing to wait for."""
    monkeypatch.setattr(supervising, "WAIT_SECONDS_FIRST", 30.0)
    bench.drain_when(lambda: len(bench.starts(0)) == 1 and not psutil.pid_exists(bench.starts(0)[0]))
    begun = time.monotonic()
    assert bench.run(f"sys.exit({BROKEN})", 1) == DONE
    assert time.monotonic() - begun < 10


def test_a_drain_that_is_asked_for_after_a_death_finds_nothing_to_do(bench: Bench) -> None:
    """While the others are still waited for, too: nobody died while draining."""
    bench.drain_when(lambda: len(bench.starts(0)) == 1 and not psutil.pid_exists(bench.starts(0)[0]))
    assert bench.run(f"if number == 0: sys.exit({BROKEN})\nlive()") == DONE
    assert not bench.said


def test_who_is_ended_at_once_says_so_whoever_is_first(bench: Bench) -> None:
    """Neither a death nor a drain is told of: the thread that ends all is followed by the one that watches."""
    bench.kill_when(lambda: len(bench.starts(0)) == 1)
    bench.drain_when(lambda: len(bench.starts(0)) == 1)
    assert bench.run("live()") == INTERRUPTED
    assert "ended at once" in bench.said
    assert len(bench.starts(0)) == 1
    assert not any(map(psutil.pid_exists, bench.starts(0)))


def test_a_supervisor_loads_no_lanes() -> None:
    """They and their compiler would double its memory and the time that a start takes."""
    code = "import sys, cli.availability; print(sorted({'numba', 'operators.lane'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_cluster_has_an_address_for_each_process() -> None:
    """One process needs none."""
    assert free_addresses(1) == []
    addresses = free_addresses(3)
    assert len(set(addresses)) == 3
    assert all(address.startswith("127.0.0.1:") for address in addresses)
