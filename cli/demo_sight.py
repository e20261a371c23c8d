"""What the demo sees of its flow from outside: how soon a channel reads a movement, levels, crossings, dead letters."""

import threading
import time
from collections import Counter, deque
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, NamedTuple, Self

from redis import Redis

from schemas.movements import Movement, Refusal
from schemas.outputs import DeadLetter, Threshold
from schemas.topics import DEAD_LETTERS, MOVEMENTS, THRESHOLDS
from sinks.redis_keys import VERSION, availability_key

PROBE_SECONDS_MAX: Final = 2.0
LOOK_SECONDS: Final = 0.0002
READ_SECONDS: Final = 0.2
CROSSINGS_SHOWN: Final = 5
SAMPLES_MAX: Final = 20_000
ANSWER_SECONDS_MAX: Final = 5.0
IN_STOCK, LOW, OUT = "in_stock", "low_stock", "out_of_stock"


class Probe(NamedTuple):
    """A line just written to the flow: its number, its SKU and when it was written (s, monotonic)."""

    line: int
    sku: str
    written_seconds: float


class Sight:
    """Looks at Redis and at the output files in a thread of its own while it is entered.

    A probe is a line whose SKU is asked for in Redis, as a channel would, until its version has reached the line.
    """

    def __init__(self, url: str, prefix: str, outputs: Path, channel: str) -> None:
        self.latencies_ms: deque[float] = deque(maxlen=SAMPLES_MAX)
        self.unseen = 0
        self.crossings: deque[Threshold] = deque(maxlen=CROSSINGS_SHOWN)
        self.dead_letters: Counter[str] = Counter()
        self.skus = 0
        self._channel = channel
        self._levels: dict[str, str] = {}
        self._prefix = prefix
        self._redis = Redis.from_url(url, socket_timeout=ANSWER_SECONDS_MAX)
        self._thresholds = _Lines(outputs / f"{THRESHOLDS.name}.jsonl")
        self._refused = _Lines(outputs / f"{DEAD_LETTERS.name}.jsonl")
        self._probe: Probe | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="sight", daemon=True)

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread and close what it looked at."""
        self._ended.set()
        self._thread.join(PROBE_SECONDS_MAX + ANSWER_SECONDS_MAX)
        self._redis.close()
        self._thresholds.close()
        self._refused.close()

    @property
    def wants_probe(self) -> bool:
        """Whether the last probe has been seen."""
        return self._probe is None

    def watch(self, probe: Probe) -> None:
        """Look for this line next."""
        self._probe = probe

    def levels(self) -> dict[str, int]:
        """How many SKUs stand at each level for the channel; one that never crossed is out of stock."""
        counts = Counter(self._levels.values())
        return {
            IN_STOCK: counts[IN_STOCK],
            LOW: counts[LOW],
            OUT: max(0, self.skus - counts[IN_STOCK] - counts[LOW]),
        }

    def latency_ms(self, percent: float) -> float | None:
        """A percentile of all latencies seen; None without any."""
        latencies = sorted(self.latencies_ms)
        return latencies[min(len(latencies) - 1, int(len(latencies) * percent / 100))] if latencies else None

    def settle(self) -> None:
        """Wait until the last probe has been seen and the files have been read once more; bounded."""
        deadline = time.monotonic() + PROBE_SECONDS_MAX + READ_SECONDS
        while not self.wants_probe and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        time.sleep(2 * READ_SECONDS)

    def _look(self) -> None:
        next_read = 0.0
        while not self._ended.is_set():
            probe = self._probe
            if probe is not None and self._seen(probe):
                self._probe = None
            now = time.monotonic()
            if self._probe is None and now >= next_read:
                self._read_files()
                next_read = now + READ_SECONDS
            time.sleep(LOOK_SECONDS)

    def _seen(self, probe: Probe) -> bool:
        """Whether Redis has the probe's line by now, or never will."""
        version = self._redis.hget(availability_key(self._prefix, probe.sku), VERSION)
        waited_seconds = time.monotonic() - probe.written_seconds
        if version is not None and int(version) >= probe.line:
            self.latencies_ms.append(waited_seconds * 1000)
            return True
        self.unseen += waited_seconds > PROBE_SECONDS_MAX
        return waited_seconds > PROBE_SECONDS_MAX

    def _read_files(self) -> None:
        for line in self._thresholds.new():
            crossing = THRESHOLDS.decode(line)
            if crossing.channel == self._channel:
                self._levels[crossing.sku] = crossing.to
            if not crossing.initial:
                self.crossings.append(crossing)
        refused: list[DeadLetter] = [DEAD_LETTERS.decode(line) for line in self._refused.new()]
        self.dead_letters.update(letter.reason for letter in refused)
        self.skus = max(0, self._redis.dbsize() - 1)  # the health is a key too


def sku_to_probe(payload: bytes) -> str | None:
    """The SKU of a plain movement; None for all that changes nothing a channel could read."""
    decoded = MOVEMENTS.decode(payload)
    if isinstance(decoded, Refusal) or not isinstance(decoded.record, Movement):
        return None
    return decoded.record.sku


class _Lines:
    """Whole lines of a file that grows, once it is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""

    def new(self) -> list[bytes]:
        """The lines that were added since the last call."""
        if self._file is None:
            if not self._path.exists():
                return []
            self._file = self._path.open("rb")
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        return lines

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
