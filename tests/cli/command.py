"""The onhand command as a user starts it: a process of its own, in a folder of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
ONHAND = str(Path(sys.executable).with_name("onhand"))
NOWHERE = "127.0.0.1:9"  # the discard port: nobody listens
SECONDS_MAX = 60.0


def onhand(
    *arguments: str,
    cwd: Path,
    settings: Mapping[str, str] | None = None,
    stdin: str = "",
    seconds_max: float = SECONDS_MAX,
) -> subprocess.CompletedProcess[str]:
    """Run `onhand` with `arguments` in `cwd` to its end."""
    return subprocess.run(
        [ONHAND, *arguments],
        check=False,
        cwd=cwd,
        env=environment(settings),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds_max,
    )


@contextmanager
def started(*arguments: str, cwd: Path, settings: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """`onhand` with `arguments` in `cwd`, its output going to `out` and `err` there; killed if it does not end."""
    with (cwd / "out").open("wb") as out, (cwd / "err").open("wb") as err:
        process = subprocess.Popen(
            [ONHAND, *arguments],
            cwd=cwd,
            env=environment(settings),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def environment(settings: Mapping[str, str] | None) -> dict[str, str]:
    """This process's environment without settings of onhand but those given, `redis.url` as a key."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("ONHAND_")}
    return kept | {f"ONHAND_{name.replace('.', '__').upper()}": text for name, text in (settings or {}).items()}


def wait_until(true: Callable[[], object], seconds_max: float = 30.0) -> None:
    """Wait until `true()` is; AssertionError when that takes too long."""
    deadline = time.monotonic() + seconds_max
    while not true():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def assert_failed_in_one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The exit code, no traceback, and the one line on standard error, which is returned."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "panicked" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("onhand")
    return last
