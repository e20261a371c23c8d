"""The flow of the demo: `onhand run availability` as a child process that reads movements from a pipe."""

import os
import signal
import subprocess
import sys
import time
from types import TracebackType
from typing import IO, Final, Self

from redis import Redis
from redis.exceptions import RedisError

from cli.configuration import Configuration
from cli.embedded import SAVED_FILE, URL_FILE, running_url
from cli.failures import CliError
from schemas.settings import ENVIRONMENT_PREFIX
from sinks.redis_keys import read_health

START_SECONDS_MAX: Final = 30.0
END_SECONDS_MAX: Final = 20.0
LOOK_SECONDS: Final = 0.05
ANSWER_SECONDS_MAX: Final = 5.0
LOG_FILE: Final = "run.log"


class DemoFlow:
    """The child process, from a state made anew; it ends with the pipe, so that it never outlives its parent."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._folder = configuration.at(configuration.settings.state.path)
        self.outputs = configuration.at(configuration.settings.output.path)
        self._child: subprocess.Popen[bytes] | None = None

    def write(self, payload: bytes) -> None:
        """Write one line to it, which reaches it with the next `flush` at the latest; CliError where it has ended."""
        try:
            self._pipe.write(payload + b"\n")
        except BrokenPipeError:
            raise self._ended_early() from None

    def flush(self) -> None:
        """Let it have all lines now; CliError where it has ended."""
        try:
            self._pipe.flush()
        except BrokenPipeError:
            raise self._ended_early() from None

    def __enter__(self) -> Self:
        """Start it; `wait_until_ready` says when it reads."""
        if running_url(self._folder) is not None:
            raise CliError(f"another demo runs in {self._folder}; wait for its end")
        self._clear()
        command = [sys.executable, "-m", "cli.main", "run", "availability", "--config", str(self._configuration.file)]
        with (self._folder / LOG_FILE).open("wb") as log:
            self._child = subprocess.Popen(  # noqa: S603  # this interpreter and our own arguments
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=_environment(), start_new_session=True
            )
        return self

    def wait_until_ready(self) -> str:
        """The address of its Redis, once it reads; CliError, with its last words, where it does not come to that."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            self.check()
            url = running_url(self._folder)
            if url is not None and _reads(url, self._configuration.settings.redis.prefix):
                return url
            time.sleep(LOOK_SECONDS)
        raise CliError(f"the flow did not begin to read within {START_SECONDS_MAX:.0f} s: {self._last_words()}")

    def check(self) -> None:
        """CliError, with its last words, where it has ended."""
        if self._child is not None and self._child.poll() is not None:
            raise self._ended_early()

    def end(self) -> None:
        """Close the pipe and wait until all is written; CliError where that fails or takes END_SECONDS_MAX."""
        if self._child is None:
            return
        self._close_pipe()
        try:
            code = self._child.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            raise CliError(f"the flow did not end within {END_SECONDS_MAX:.0f} s: {self._last_words()}") from None
        if code:
            raise CliError(f"the flow ended with exit code {code}: {self._last_words()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, whatever happened; by SIGKILL where nothing else helps."""
        if self._child is None or self._child.poll() is not None:
            return
        self._child.send_signal(signal.SIGTERM)
        self._close_pipe()
        try:
            self._child.wait(END_SECONDS_MAX)
        except BaseException:
            self._child.kill()
            self._child.wait(END_SECONDS_MAX)
            raise

    @property
    def _pipe(self) -> IO[bytes]:
        if self._child is None or self._child.stdin is None:
            raise CliError("the flow of the demo does not run")
        return self._child.stdin

    def _ended_early(self) -> CliError:
        return CliError(f"the flow ended by itself: {self._last_words()}")

    def _close_pipe(self) -> None:
        try:
            self._pipe.close()
        except BrokenPipeError:
            return  # it has ended before reading all

    def _clear(self) -> None:
        """Remove what an earlier demo left, so that this one begins with nothing."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in (self._folder / URL_FILE, self._folder / SAVED_FILE, *self.outputs.glob("*.jsonl")):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise CliError(f"{self._folder} cannot be written ({error.strerror}): make it writable") from error

    def _last_words(self) -> str:
        lines = (self._folder / LOG_FILE).read_text(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), f"see {self._folder / LOG_FILE}")
        return last.removeprefix("onhand: ")


def _environment() -> dict[str, str]:
    """This process's environment without settings of onhand, which are meant for another flow."""
    return {name: text for name, text in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}


def _reads(url: str, prefix: str) -> bool:
    """Whether the flow has begun to read: it says so in its health."""
    with Redis.from_url(url, socket_timeout=ANSWER_SECONDS_MAX) as client:
        try:
            return read_health(client, prefix) is not None
        except RedisError:
            return False
