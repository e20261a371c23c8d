"""Everything that was written to Redis, in its order: no write ever stood behind an earlier one of its SKU.

A reader sees what stands there when it happens to look; the append-only file holds every state that it could have seen.
"""

import re
from pathlib import Path
from typing import Final, NamedTuple

import hiredis
import msgspec
from redis import Redis

from bench.drain import wait_until
from sinks.redis_keys import INCARNATION, VERSION

REWRITE_SECONDS_MAX: Final = 20.0
PIECE_BYTES: Final = 1 << 20
NUMBER: Final = re.compile(r"\.(\d+)\.incr\.aof$")


class StepBack(msgspec.Struct, frozen=True):
    """A SKU stood at `then` and later at `now`, each (incarnation, version); `was_gone`: at nothing in between."""

    key: str
    then: tuple[int, int]
    now: tuple[int, int]
    was_gone: bool


class Stand(NamedTuple):
    """The greatest that a SKU ever stood at, and whether it is gone now."""

    at: tuple[int, int]
    is_gone: bool


def begin_anew(client: Redis) -> None:
    """Let the append-only file begin with what Redis holds now."""
    client.bgrewriteaof()

    def is_done() -> bool:
        told = client.info("persistence")
        return not told["aof_rewrite_in_progress"] and not told["aof_rewrite_scheduled"]

    wait_until(is_done, REWRITE_SECONDS_MAX, "the append-only file to be written anew")


class Writes:
    """Follows the writes to keys that begin with `prefix`, through as many lives of a server as there are."""

    def __init__(self, prefix: str) -> None:
        self.count = 0
        self.steps_back: list[StepBack] = []
        self._prefix = prefix.encode()
        self._own = self._prefix + b"@"
        self._stands: dict[bytes, Stand] = {}

    def take(self, directory: Path) -> None:
        """All that stands in the append-only files of a directory; the last command of a killed server may be cut."""
        for path in sorted(directory.glob("*.incr.aof"), key=_number):
            reader = hiredis.Reader()
            with path.open("rb") as file:
                while piece := file.read(PIECE_BYTES):
                    reader.feed(piece)
                    while (command := reader.gets()) is not False:
                        self._command(command)

    def _command(self, command: list[bytes]) -> None:
        name = command[0].upper()
        if name == b"HSET" and command[1].startswith(self._prefix) and not command[1].startswith(self._own):
            self._hash_set(command[1], command[2:])
        elif name in (b"DEL", b"UNLINK"):
            for key in command[1:]:
                self._gone(key)
        elif name in (b"FLUSHALL", b"FLUSHDB"):
            for key in self._stands:
                self._gone(key)

    def _hash_set(self, key: bytes, texts: list[bytes]) -> None:
        fields = dict(zip(texts[::2], texts[1::2], strict=True))
        if VERSION.encode() not in fields:
            return  # more fields of the same write
        self.count += 1
        now = int(fields[INCARNATION.encode()]), int(fields[VERSION.encode()])
        before = self._stands.get(key)
        if before is not None and now < before.at:
            self.steps_back.append(StepBack(key.decode(), before.at, now, before.is_gone))
        self._stands[key] = Stand(now if before is None else max(before.at, now), is_gone=False)

    def _gone(self, key: bytes) -> None:
        if key in self._stands:
            self._stands[key] = self._stands[key]._replace(is_gone=True)


def _number(path: Path) -> int:
    found = NUMBER.search(path.name)
    return int(found[1]) if found else 0
