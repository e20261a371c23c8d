"""How a worker ends: what may pass by itself is told from what a person has to put right."""

import errno
import os
from pathlib import Path

import pytest
from redis.exceptions import AuthenticationError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from cli.failures import FAILED, MISUSED, CliError
from cli.worker import failure_of
from cli.worker_spec import BROKEN, UNREACHABLE
from operators.snapshots import SnapshotError
from sinks.redis_pipeline import stopped
from sinks.slots import SinkError, SinkUnreachableError
from sources.errors import SourceError, SourceUnreachableError


def wrapped(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """`error` as Bytewax raises it, itself raised from `cause`."""
    error.__cause__ = cause
    outer = RuntimeError('error calling `next_batch` in step "availability.movements"')
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (wrapped(SourceError("records were deleted")), FAILED),
        (wrapped(SourceUnreachableError("no broker answered")), UNREACHABLE),
        (wrapped(SinkError("the topic is missing")), FAILED),
        (wrapped(SinkUnreachableError("not acknowledged in 120 s")), UNREACHABLE),
        (wrapped(stopped("redis", RedisConnectionError("refused"))), UNREACHABLE),
        (wrapped(stopped("redis", ReadOnlyError("You can't write against a read only replica."))), UNREACHABLE),
        (wrapped(stopped("redis", ResponseError("MISCONF cannot save to disk"))), UNREACHABLE),
        (wrapped(stopped("redis", ResponseError("CLUSTERDOWN the cluster is down"))), UNREACHABLE),
        (wrapped(stopped("redis", AuthenticationError("WRONGPASS"))), FAILED),
        (wrapped(stopped("redis", ResponseError("ERR unknown command"))), FAILED),
        (CliError("wrong rules", MISUSED), MISUSED),
        (RuntimeError("Connection reset by peer"), BROKEN),
    ],
)
def test_the_exit_code_says_who_can_help(error: BaseException, code: int) -> None:
    """The supervisor starts again what may come back, and nothing else."""
    assert failure_of(error, "state")[0] == code


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (wrapped(SnapshotError("the snapshot is damaged")), "onhand recovery check"),
        (RuntimeError("SqliteFailure(Error { code: DiskFull, extended_code: 13 })"), "free space there"),
        (RuntimeError("SqliteFailure(Error { code: DatabaseCorrupt })"), "put a backup of all its parts back"),
        (wrapped(RuntimeError("InconsistentPartitionsError: too old to resume")), "put all parts of one backup back"),
    ],
)
def test_trouble_with_the_state_says_what_to_do(error: BaseException, said: str) -> None:
    """One line, with the folder, instead of an engine's panic."""
    code, line = failure_of(error, "/var/lib/onhand")
    assert code == FAILED
    assert said in line
    assert "/var/lib/onhand" in line


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_an_engine_that_failed_beside_a_full_disk_failed_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """SQLite gives its journals back when it fails, so there is some room again; the panic may be another thread's."""
    room = 5_000_000

    def full(_descriptor: int, _offset: int, length: int) -> None:
        if length > room:
            raise OSError(number, "no room")

    broken = RuntimeError("Send thread panic: Any { .. }")
    assert failure_of(broken, str(tmp_path))[0] == BROKEN
    monkeypatch.setattr(os, "posix_fallocate", full)
    code, line = failure_of(broken, str(tmp_path))
    assert code == FAILED
    assert "free space there" in line
