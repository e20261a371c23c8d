"""A channel that reads Redis all the time and asserts that nothing ever steps back: `python -m tests.faults.reader`."""

import random
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final, cast

import msgspec
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from sinks.redis_keys import INCARNATION, VERSION
from tests.faults.writes import StepBack

READS_AT_ONCE: Final = 64
PAUSE_SECONDS: Final = 0.02
KEYS_EVERY_SECONDS: Final = 1.0
ANSWER_SECONDS_MAX: Final = 2.0


class ReaderReport(msgspec.Struct):
    """What a reader saw until it was ended."""

    reads: int = 0
    values: int = 0
    keys: int = 0
    unanswered: int = 0
    steps_back: list[StepBack] = []


class _Reader:
    """Remembers the newest that it has seen of each key."""

    def __init__(self, url: str, prefix: str, seed: int) -> None:
        self.report = ReaderReport()
        self._client = Redis.from_url(
            url, socket_timeout=ANSWER_SECONDS_MAX, decode_responses=True, retry=Retry(NoBackoff(), 0)
        )
        self._prefix = prefix
        self._chance = random.Random(seed)
        self._seen: dict[str, tuple[int, int]] = {}
        self._gone: set[str] = set()
        self._keys: list[str] = []
        self._asked_at = 0.0

    def read(self) -> None:
        """Some random keys, once."""
        now = time.monotonic()
        if now - self._asked_at > KEYS_EVERY_SECONDS:
            self._asked_at = now
            found = {key for key in self._client.scan_iter(f"{self._prefix}*", count=5000) if "@" not in key}
            self._keys = sorted(found | self._seen.keys())
        if not self._keys:
            return
        keys = self._chance.choices(self._keys, k=READS_AT_ONCE)
        with self._client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.hmget(key, [INCARNATION, VERSION])
            answers = cast("list[list[str | None]]", pipeline.execute())
        for key, (incarnation, version) in zip(keys, answers, strict=True):
            self._saw(key, None if incarnation is None or version is None else (int(incarnation), int(version)))

    def _saw(self, key: str, now: tuple[int, int] | None) -> None:
        self.report.reads += 1
        if now is None:
            self._gone.add(key)
            return
        self.report.values += 1
        then = self._seen.get(key, now)
        if now < then:
            self.report.steps_back.append(StepBack(key, then, now, key in self._gone))
        self._seen[key] = max(then, now)
        self._gone.discard(key)
        self.report.keys = len(self._seen)


def main(url: str, prefix: str, out: Path, seed: int) -> None:
    """Read until SIGTERM, then write the report to `out`."""
    ending = False

    def end(_signal: int, _frame: FrameType | None) -> None:
        nonlocal ending
        ending = True

    signal.signal(signal.SIGTERM, end)
    reader = _Reader(url, prefix, seed)
    while not ending:
        try:
            reader.read()
        except RedisError:
            reader.report.unanswered += 1
        time.sleep(PAUSE_SECONDS)
    out.write_bytes(msgspec.json.encode(reader.report))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
