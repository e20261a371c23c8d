"""What every peer is told on its command line, and how it starts and stops."""

import argparse
import gc
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

MOVEMENTS: Final = "inventory.movements"
CROSSINGS: Final = "inventory.crossings"
SNAPSHOT_SECONDS: Final = 10.0

# the fetcher sleeps this long when its queue is full; librdkafka's own second starves a consumer that catches up
FETCH: Final = {"fetch.queue.backoff.ms": 5}
PRODUCE: Final = {"enable.idempotence": True, "linger.ms": 20}


class Options(NamedTuple):
    """Where to read, to write and to keep the state."""

    bootstrap_servers: str
    redis_url: str
    group: str
    rules: Path
    state: Path


def options_from(arguments: Sequence[str]) -> Options:
    """The options of a command line; SystemExit with the usage where one is missing."""
    parser = argparse.ArgumentParser(description="The benchmark's job on one engine, until SIGTERM.")
    for name in ("bootstrap-servers", "redis-url", "group"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("rules", "state"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    found = parser.parse_args(arguments)
    return Options(found.bootstrap_servers, found.redis_url, found.group, found.rules, found.state)


def tune_garbage_collector() -> None:
    """Never look again at what was imported, and seldom at what lives for long."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


def told_to_stop() -> threading.Event:
    """An event that SIGTERM sets."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    return stop
