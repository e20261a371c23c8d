"""Refilling: what inventory.availability holds, written to Redis as a flow writes it, to go on where it was ended."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, cast
from uuid import uuid4

import msgspec
from confluent_kafka import Message
from redis import Redis

from cli.availability_topic import NO_INCARNATION, Unreadable, availability_of, incarnation_of, place_of
from cli.configuration import Configuration
from cli.connections import redis_client
from cli.embedded import is_embedded, running_url
from cli.failures import CliError, one_line
from cli.kafka_log import Extent, KafkaLog
from cli.pacing import Progress
from schemas.outputs import Availability, LaneResult
from schemas.topics import AVAILABILITY
from sinks import redis_availability
from sinks.redis_availability import calls_of
from sinks.redis_cluster import RedisServers
from sinks.redis_keys import health_key
from sinks.redis_pipeline import PipelineBounds
from sinks.slots import SinkError

REBUILD: Final = "@rebuild"
BEGINNINGS_MAX: Final = 3
NO_KEY: Final = b""
SCRIPTS: Final = ("availability", "health")

# Keeps what was done, if the key is still this run's; returns whose it is, nothing where Redis was emptied.
KEEP: Final = """
local run = redis.call('HGET', KEYS[1], 'run') or ''
if run == ARGV[1] then redis.call('HSET', KEYS[1], 'done', ARGV[2]) end
return run
"""
END: Final = """
local run = redis.call('HGET', KEYS[1], 'run') or ''
if run == ARGV[1] then redis.call('DEL', KEYS[1]) end
return run
"""


class Refilled(msgspec.Struct):
    """What a refill has done so far, also in runs that were ended before it was: counts of records, and of hashes."""

    incarnation: int = NO_INCARNATION  # the greatest; nothing else is written
    records: int = 0
    written: int = 0
    refused: int = 0  # Redis had them as new, or newer
    older: int = 0  # written by older states
    unreadable: int = 0
    first_unreadable: str | None = None


class Done(msgspec.Struct):
    """How far a refill is: of which log, and per partition the next offset to look at, and to write from."""

    cluster: str
    topic: str
    looked: dict[int, int] = {}
    written: dict[int, int] = {}
    refilled: Refilled = msgspec.field(default_factory=Refilled)


class EmptiedError(Exception):
    """Redis lost what was written so far."""


def refill(configuration: Configuration, tell: Callable[[str], None]) -> Refilled:
    """Write the topic's records to Redis; CliError where that fails, and what was done is kept for the next run.

    Two passes, both streamed: the first finds the greatest incarnation, the second writes its records alone. One pass
    would do for SKUs that the newest state knows, since Redis takes what is newer. But a SKU that stands in the topic
    from an older state alone would come back, with a number that nobody keeps up any more.
    """
    url = _url_of(configuration)
    with KafkaLog(configuration.settings.kafka, AVAILABILITY.name) as log, redis_client(configuration) as client:
        client.ping()
        for _ in range(BEGINNINGS_MAX):
            kept = _Kept(client, configuration.settings.redis.prefix + REBUILD)
            writer = _Writer(url, configuration.settings.redis.prefix)
            try:
                return _Refill(log, writer, kept, tell).run()
            except SinkError as error:
                raise CliError(one_line(error)) from error
            except EmptiedError:
                tell("Redis was emptied meanwhile: beginning again")
            finally:
                writer.close()
    raise CliError("Redis was emptied again and again while it was refilled: find out by whom, then try again")


class _Refill:
    def __init__(self, log: KafkaLog, writer: "_Writer", kept: "_Kept", tell: Callable[[str], None]) -> None:
        self._log = log
        self._writer = writer
        self._kept = kept
        self._tell = tell
        self._extents = log.extents()
        self._done = Done(log.cluster_id, log.topic_id)

    def run(self) -> Refilled:
        """Everything that the topic holds now; EmptiedError where Redis lost what was written before."""
        if not any(extent.first < extent.end for extent in self._extents.values()):
            raise CliError(f"{AVAILABILITY.name} holds nothing: `onhand run availability` writes it, and Redis")
        self._done = self._kept.begin(self._done)
        if self._done.refilled.records:
            self._tell(f"going on behind the {self._done.refilled.records} records of a rebuild that was ended")
        self._look()
        self._writer.claim(self._done.refilled.incarnation)
        self._write()
        self._kept.end()
        return self._done.refilled

    def _look(self) -> None:
        """The greatest incarnation; where it is greater than the one that was being written, writing begins anew."""
        done = self._done
        with self._progress("records looked at", done.looked) as progress:
            for partition, extent in self._extents.items():
                for messages in self._log.read(partition, _start(done.looked, partition, extent), extent.end):
                    greatest = max(map(incarnation_of, messages))
                    if greatest > done.refilled.incarnation:
                        done.refilled, done.written = Refilled(greatest), {}
                    _advance(done.looked, partition, messages, progress)
                    self._kept.keep(done)

    def _write(self) -> None:
        done = self._done
        with self._progress("records read", done.written) as progress:
            for partition, extent in self._extents.items():
                for messages in self._log.read(partition, _start(done.written, partition, extent), extent.end):
                    written, refused = self._writer.write(self._newest(messages))
                    done.refilled.written += written
                    done.refilled.refused += refused
                    _advance(done.written, partition, messages, progress)
                    self._kept.keep(done)

    def _newest(self, messages: list[Message]) -> list[Availability]:
        """Of the records of the greatest incarnation the newest of each SKU."""
        newest: dict[str, Availability] = {}
        refilled = self._done.refilled
        refilled.records += len(messages)
        for message in messages:
            record = availability_of(message)
            if isinstance(record, Unreadable):
                refilled.unreadable += 1
                refilled.first_unreadable = refilled.first_unreadable or f"{place_of(message)}: {record.why}"
            elif record is not None and record.incarnation < refilled.incarnation:
                refilled.older += 1
            elif record is not None:
                known = newest.get(record.sku)
                if known is None or known.version <= record.version:
                    newest[record.sku] = record
        return list(newest.values())

    def _progress(self, title: str, offsets: Mapping[int, int]) -> Progress:
        left = sum(
            max(0, extent.end - _start(offsets, partition, extent)) for partition, extent in self._extents.items()
        )
        return Progress(title, left)


class _Writer:
    """Writes records by the script of the flow, with which only what is newer gets in."""

    def __init__(self, url: str, prefix: str) -> None:
        folder = Path(redis_availability.__file__).parent
        scripts = {name: (folder / f"redis_{name}.lua").read_text(encoding="utf-8") for name in SCRIPTS}
        self._pipeline = RedisServers(url, scripts, PipelineBounds())
        self._pipeline.connect()
        self._prefix = prefix
        self._newer = 0

    def claim(self, incarnation: int) -> None:
        """Tell Redis of the incarnation, so that a state made anew draws a greater one; of its age nothing is said."""
        self._pipeline.send("health", [health_key(self._prefix), str(incarnation), "0"], lambda _: None)
        self._pipeline.drain()

    def write(self, records: list[Availability]) -> tuple[int, int]:
        """How many of the records were newer than what Redis had, and how many were not; waits for its answers."""
        self._newer = 0
        for _, texts in calls_of(self._prefix, [_result_of(records)]):
            self._pipeline.send("availability", texts, self._answered)
        self._pipeline.drain()
        return self._newer, len(records) - self._newer

    def close(self) -> None:
        """Leave Redis."""
        self._pipeline.close()

    def _answered(self, newer: int) -> None:
        self._newer += newer


class _Kept:
    """What was done, in Redis itself: when Redis loses what was written, it loses that, too."""

    def __init__(self, client: Redis, key: str) -> None:
        self._client = client
        self._key = key
        self._run = uuid4().hex.encode()
        self._encode = msgspec.json.Encoder().encode

    def begin(self, fresh: Done) -> Done:
        """Take over what an ended run has done with the same log; else begin with `fresh`."""
        done = _parsed(cast("bytes | None", self._client.hget(self._key, "done")))
        if done is None or (done.cluster, done.topic) != (fresh.cluster, fresh.topic):
            done = fresh
        self._client.hset(self._key, mapping={"run": self._run, "done": self._encode(done)})
        return done

    def keep(self, done: Done) -> None:
        """Keep what was done, once Redis has all of it; EmptiedError where it has lost it since."""
        self._check(self._client.eval(KEEP, 1, self._key, self._run, self._encode(done)))

    def end(self) -> None:
        """Everything is done; EmptiedError where Redis has lost it since."""
        self._check(self._client.eval(END, 1, self._key, self._run))

    def _check(self, run: object) -> None:
        if run == NO_KEY:
            raise EmptiedError
        if run != self._run:
            raise CliError("another `onhand rebuild redis` has taken over from this one: let that end")


def _parsed(text: bytes | None) -> Done | None:
    """What was kept; None where there is nothing, or another version wrote it."""
    try:
        return None if text is None else msgspec.json.decode(text, type=Done)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _start(offsets: Mapping[int, int], partition: int, extent: Extent) -> int:
    return max(offsets.get(partition, extent.first), extent.first)


def _advance(offsets: dict[int, int], partition: int, messages: list[Message], progress: Progress) -> None:
    offsets[partition] = (messages[-1].offset() or 0) + 1
    for _ in messages:
        progress.advance(counts=True)


def _result_of(records: Iterable[Availability]) -> LaneResult:
    return LaneResult(0, list(records), [], [], [], [], [], [], [], [], [], 0, 0, 0)


def _url_of(configuration: Configuration) -> str:
    """Where to write; CliError where the server is one that only a run has."""
    settings = configuration.settings
    if not is_embedded(configuration):
        return settings.redis.url
    url = running_url(configuration.at(settings.state.path))
    if url is None:
        raise CliError("the embedded Redis is there while `onhand run availability` runs, which fills it: start that")
    return url
