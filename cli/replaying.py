"""Replaying: the log of movements read from its beginning by one lane, to know what every SKU should show."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final, NamedTuple, Protocol, cast

from confluent_kafka import Message
from redis import Redis
from redis.exceptions import ResponseError

from cli.comparing import Stand
from cli.configuration import Configuration, load_rules
from cli.connections import cluster_of, kafka_admin
from cli.failures import MISUSED, CliError, one_line
from cli.kafka_log import KafkaLog
from cli.pacing import Progress
from cli.rules_at_start import rule_log
from operators.lane import Lane, LaneSettings
from operators.rules import RuleBook
from schemas.batches import Batch, Origin
from schemas.movements import Decoded, Fact, decode
from schemas.outputs import Availability
from schemas.rule_changes import rules_of_document
from schemas.rules import Rules
from schemas.settings import Settings
from schemas.times import parse_ms
from schemas.topics import GENERATIONS
from schemas.watch import Generation
from sinks.slots import SinkError
from sources.errors import SourceError
from sources.jsonl import STDIN, JsonlSource
from sources.redis_stream import SEQUENCE_BITS, RedisStreamReading, RedisStreamSource

HOUR_MS: Final = 3_600_000
LOOK_AGAIN_SECONDS: Final = 0.01
ALONE: Final = 0  # the partition of a log that has one
Ends = Mapping[int, int]  # by partition, the offset behind its last record


class Movements(Protocol):
    """The log of movements, read once, from its beginning."""

    def ends(self) -> Ends:
        """Where every partition ends now."""

    def left(self, ends: Ends) -> int:
        """How many records are left up to there, more or less."""

    def read(self, ends: Ends) -> Iterator[Batch]:
        """What stands between the last one that was read and `ends`; CliError where it cannot be read."""


class Replayed(NamedTuple):
    """What a replay up to `ends` knows: what each SKU should show, its home, and which have moved in others, too.

    SKUs of `homes` and `misplaced` are as bytes. A SKU is at home where its first movement stood; for one that is
    misplaced this is a guess, since the order between partitions is in no log.
    """

    ends: Ends
    records: int
    stands: dict[str, Stand]
    homes: dict[bytes, int]
    misplaced: set[bytes]

    def home_end(self, sku: str) -> int:
        """Where the home of `sku` ended."""
        return self.ends[self.homes.get(sku.encode(), ALONE)]


def replay(movements: Movements, lane: Lane) -> Replayed:
    """Reads the log's ends, then everything up to there."""
    ends = movements.ends()
    stands: dict[str, Stand] = {}
    homes: dict[bytes, int] = {}
    misplaced: set[bytes] = set()
    records = 0
    with Progress("movements replayed", movements.left(ends)) as progress:
        for batch in movements.read(ends):
            for sku in skus_of(batch):
                if homes.setdefault(sku, batch.origin.partition) != batch.origin.partition:
                    misplaced.add(sku)
            for record in lane.apply([batch]).availability:
                stands[record.sku] = stand_of(record)
            records += len(batch.offsets)
            for _ in batch.offsets:
                progress.advance(counts=True)
    return Replayed(ends, records, stands, homes, misplaced)


def stand_of(record: Availability) -> Stand:
    """What a record shows."""
    promised = {name: channel.promised for name, channel in record.channels.items()}
    return Stand(record.version, parse_ms(record.as_of), promised)


def skus_of(batch: Batch) -> set[bytes]:
    """The SKUs that a batch names: by its keys, and by their payloads where they have none."""
    skus = {key for key in batch.keys if key}
    for key, payload in zip(batch.keys, batch.payloads, strict=True):
        if not key and isinstance(decoded := decode(payload), Decoded) and isinstance(decoded.record, Fact):
            skus.add(decoded.record.sku.encode())
    return skus


def lane_of_all(configuration: Configuration, redis_url: str) -> Lane:
    """A lane that has every SKU, with the settings and the first rules of the flow."""
    reads = configuration.settings.input
    settings = LaneSettings(
        lanes=1, incarnation=0, dedupe_ms=reads.dedupe_hours * HOUR_MS, as_of_ms=reads.as_of_hours * HOUR_MS
    )
    return Lane(0, RuleBook(first_rules(configuration, redis_url)), settings)


def first_rules(configuration: Configuration, redis_url: str) -> Rules:
    """The rules that hold where the log has told none yet, as a start of the flow finds them; writes nothing."""
    settings = configuration.settings
    if settings.input.kind == "jsonl" or not _has_registry(settings):
        return load_rules(configuration.rules_path)
    try:
        generations = rule_log(settings, redis_url).generations()
        first = min(generations, key=lambda generation: generation.generation, default=None)
    except SinkError as error:
        raise CliError(one_line(error)) from error
    return load_rules(configuration.rules_path) if first is None else _rules_in(first)


def _has_registry(settings: Settings) -> bool:
    if settings.input.kind != "kafka":
        return True
    return GENERATIONS.name in cluster_of(kafka_admin(settings.kafka), settings.kafka).topics


def _rules_in(generation: Generation) -> Rules:
    rules, complaints = rules_of_document(generation.document)
    for complaint in complaints:
        if complaint.severity == "error":
            raise CliError(
                f"generation {generation.generation} in {GENERATIONS.name} cannot be used by this version: "
                f"{complaint.path}: {complaint.message}"
            )
    return rules


@contextmanager
def opened_movements(configuration: Configuration, redis_url: str, client: Redis) -> Iterator[Movements]:
    """The log that the settings name; CliError where it is missing, or has lost its beginning."""
    reads, kafka = configuration.settings.input, configuration.settings.kafka
    if reads.kind == "kafka":
        with KafkaLog(kafka, reads.topic) as log:
            yield KafkaMovements(log)
    elif reads.kind == "redis_stream":
        yield StreamMovements(redis_url, reads.topic, client)
    elif reads.topic == STDIN:
        raise CliError("standard input cannot be read again: give the file's path as input.topic", MISUSED)
    else:
        yield FileMovements(str(configuration.at(reads.topic)))


class KafkaMovements:
    """The topic of movements, one partition after the other."""

    def __init__(self, log: KafkaLog) -> None:
        self._log = log
        self._next: dict[int, int] = {}
        for partition, extent in log.extents().items():
            if extent.first > 0:
                raise _truncated(
                    f"{log.name}, partition {partition}, begins at offset {extent.first}",
                    "give the topic retention.ms=-1 and retention.bytes=-1",
                )

    def ends(self) -> Ends:
        """As in `Movements`."""
        return {partition: extent.end for partition, extent in self._log.extents().items()}

    def left(self, ends: Ends) -> int:
        """As in `Movements`."""
        return sum(end - self._next.get(partition, 0) for partition, end in ends.items())

    def read(self, ends: Ends) -> Iterator[Batch]:
        """As in `Movements`."""
        for partition, end in sorted(ends.items()):
            origin = Origin(self._log.cluster_id, self._log.topic_id, partition, self._log.name)
            for messages in self._log.read(partition, self._next.get(partition, 0), end):
                yield _batch(origin, messages)
            self._next[partition] = end


class StreamMovements:
    """The entries of a Redis stream, as the flow's own source reads them."""

    def __init__(self, redis_url: str, stream: str, client: Redis) -> None:
        self._stream = stream
        self._client = client
        self._next = 0
        self._read = 0
        self._kept: list[Batch] = []  # what was read already and stands behind an end
        self._check_beginning()
        reading = RedisStreamReading(url=redis_url, stream=stream, accept_truncated=True)  # what is lost was looked at
        with _told():
            self._part = RedisStreamSource(reading, now_ms=_now_ms, draining=lambda: False).build_part("", "", None)

    def ends(self) -> Ends:
        """As in `Movements`."""
        newest = cast("list[tuple[bytes, Any]]", self._client.xrevrange(self._stream, count=1))
        if not newest:
            return {ALONE: 0}
        time_ms, _, sequence = newest[0][0].partition(b"-")
        return {ALONE: (int(time_ms) << SEQUENCE_BITS | int(sequence)) + 1}

    def left(self, ends: Ends) -> int:
        """As in `Movements`."""
        return max(0, self._client.xlen(self._stream) - self._read)

    def read(self, ends: Ends) -> Iterator[Batch]:
        """As in `Movements`."""
        end = ends[ALONE]
        while self._next < end:
            batches = self._looked()
            if not batches and self.ends()[ALONE] < end:
                return  # its last entries were deleted meanwhile
            for batch in batches:
                here, behind = _cut(batch, end)
                self._kept += [behind] if behind.offsets else []
                self._next = batch.offsets[-1] + 1 if not behind.offsets else end
                self._read += len(here.offsets)
                yield here

    def _looked(self) -> list[Batch]:
        """What comes next; nothing, after a moment, while Redis is away, which the source bears for a while."""
        kept, self._kept = self._kept, []
        if kept:
            return kept
        with _told():
            batches = list(self._part.read(_now_ms()))
        if not batches:
            time.sleep(LOOK_AGAIN_SECONDS)
        return batches

    def _check_beginning(self) -> None:
        try:
            info = self._client.xinfo_stream(self._stream)
        except ResponseError as error:
            raise CliError(
                f"there is no Redis stream {self._stream} ({one_line(error)}): is input.topic right?"
            ) from error
        if lost := int(info["entries-added"]) - int(info["length"]):
            raise _truncated(f"stream {self._stream} has lost {lost} entries", "do not trim it")


class FileMovements:
    """The lines of a file, as the flow's own source reads them; it ends where it ends, and is read once."""

    def __init__(self, path: str) -> None:
        self._path = path
        with _told():
            for _ in self._batches():
                pass

    def ends(self) -> Ends:
        """As in `Movements`."""
        return {ALONE: self._lines}

    def left(self, ends: Ends) -> int:
        """As in `Movements`."""
        return self._lines

    def read(self, ends: Ends) -> Iterator[Batch]:
        """As in `Movements`."""
        with _told():
            yield from chain.from_iterable(self._batches())

    def _batches(self) -> Iterator[list[Batch]]:
        part = JsonlSource(self._path, now_ms=_now_ms, draining=lambda: False).build_part("", "", None)
        try:
            while (batches := part.read(_now_ms())) is not None:
                yield batches
            self._lines = part.marks(_now_ms())[0].end_offset
        finally:
            part.close()


def _batch(origin: Origin, messages: list[Message]) -> Batch:
    """As the flow's source cuts them, without the headers, which change no number."""
    return Batch(
        origin,
        [message.offset() or 0 for message in messages],
        [time_ms if kind else -1 for kind, time_ms in map(Message.timestamp, messages)],
        [message.key() for message in messages],
        [message.value() for message in messages],
    )


def _cut(batch: Batch, end: int) -> tuple[Batch, Batch]:
    """What of a batch stands before offset `end`, and what behind it."""
    count = sum(offset < end for offset in batch.offsets)
    columns = (batch.offsets, batch.timestamps, batch.keys, batch.payloads)
    here, behind = [column[:count] for column in columns], [column[count:] for column in columns]
    return Batch(batch.origin, *here), Batch(batch.origin, *behind)  # type: ignore[arg-type]  # column by column


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except SourceError as error:
        raise CliError(one_line(error)) from error


def _truncated(what: str, advice: str) -> CliError:
    return CliError(
        f"{what}: its beginning is gone, so what the numbers should be cannot be computed again; "
        f"{advice}, so that a log begun anew stays whole"
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
