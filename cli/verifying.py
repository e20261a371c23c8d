"""Verifying: every SKU in Redis and in the topic held against a replay of the movements; nothing is changed."""

import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Final, NamedTuple, Protocol, cast

import msgspec
from confluent_kafka import Message
from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from cli.availability_topic import Unreadable, availability_of, incarnation_of
from cli.comparing import Difference, Found, Place, Stand, differences_of
from cli.configuration import Configuration
from cli.connections import redis_client
from cli.embedded import is_embedded, reading_redis
from cli.failures import CliError, one_line
from cli.get import freshness
from cli.kafka_log import KafkaLog
from cli.pacing import Progress
from cli.replaying import Movements, Replayed, lane_of_all, opened_movements, replay, skus_of, stand_of
from schemas.outputs import Availability
from schemas.settings import RedisSettings
from schemas.topics import AVAILABILITY
from sinks.redis_keys import availability_key, parse_promises, read_health

BEHIND_SECONDS_MAX: Final = 10.0
LOOK_AGAIN_SECONDS: Final = 0.25
SKUS_AT_ONCE: Final = 500
KEYS_AT_ONCE: Final = 1000


class Tally(msgspec.Struct):
    """The SKUs of one place, by what came out.

    `moved`: shows a record that came after the replay's end. `undecided`: has moved in several partitions and shows
    something else than the replay, whose order between partitions is another. `left_over`: in the topic from older
    states alone.
    """

    equal: int = 0
    moved: int = 0
    undecided: int = 0
    left_over: int = 0
    different: int = 0


class Verified(msgspec.Struct, tag_field="kind", tag="summary"):
    """What was compared: records replayed, SKUs that they show, how each place stands, and how many fields differ."""

    records: int
    skus: int
    redis: Tally
    topic: Tally | None  # None: there is none with this output.kind
    differences: int
    health: str
    seconds: float = 0.0


class Outcome(msgspec.Struct):
    """The summary, and the differences that are to be shown."""

    summary: Verified
    shown: list[Difference]


class View(Protocol):
    """A place that shows SKUs."""

    where: Place

    def refresh(self) -> None:
        """Take in what came since; Redis needs none."""

    def found(self, skus: Sequence[str]) -> Iterable[tuple[str, Found]]:
        """What it shows of each of them."""

    def others(self, known: Container[str]) -> Iterator[tuple[str, Found]]:
        """The SKUs that are not known, and what it shows of them."""

    def left_over(self) -> int:
        """How many SKUs it has from older states alone, which are not looked at."""


def verify_all(configuration: Configuration, limit: int) -> Outcome:
    """Replay, compare, and wait for what is behind; at most `limit` differences are kept, all are counted."""
    settings = configuration.settings
    topic = KafkaLog(settings.kafka, AVAILABILITY.name) if settings.output.kind == "kafka" else None
    with topic or nullcontext(), _found_redis(configuration) as found, redis_client(found) as client, _allowed():
        client.ping()
        url = found.settings.redis.url
        with opened_movements(found, url, client) as movements:
            replayed = replay(movements, lane_of_all(found, url))
            views: list[View] = [RedisView(client, settings.redis)] + ([] if topic is None else [TopicView(topic)])
            comparison = Comparison(replayed, limit)
            _look(comparison, views)
            _wait(comparison, views)
            comparison.settle(movements)
        health = freshness(read_health(client, settings.redis.prefix), time.time_ns() // 1_000_000).text
    for view in views:
        comparison.tally(view.where).left_over = view.left_over()
    redis, of_topic = comparison.tally("redis"), None if topic is None else comparison.tally("topic")
    counts = replayed.records, len(replayed.stands)
    return Outcome(Verified(*counts, redis, of_topic, comparison.differences, health), comparison.shown)


def _look(comparison: "Comparison", views: list[View]) -> None:
    """At every SKU in every place."""
    skus = comparison.skus
    with Progress("SKUs compared", len(skus) * len(views)) as progress:
        for view in views:
            for sku, found in view.found(skus):
                comparison.judge(view.where, sku, found)
                progress.advance(counts=True)
            for sku, found in view.others(comparison.replayed.stands):
                comparison.judge(view.where, sku, found)


def _wait(comparison: "Comparison", views: list[View]) -> None:
    """For what is behind, or not there yet: a flow that runs brings it within moments."""
    deadline = time.monotonic() + BEHIND_SECONDS_MAX
    while comparison.open and time.monotonic() < deadline:
        time.sleep(LOOK_AGAIN_SECONDS)
        for view in views:
            if skus := [sku for where, sku in comparison.open if where == view.where]:
                view.refresh()
                for sku, found in view.found(skus):
                    comparison.judge(view.where, sku, found)


class Comparison:
    """Every SKU against the replay: decided where it can be, kept where it must be looked at again."""

    def __init__(self, replayed: Replayed, limit: int) -> None:
        self.replayed = replayed
        self.tallies: dict[Place, Tally] = {}
        self.open: dict[tuple[Place, str], Found] = {}  # behind, or not there
        self.shown: list[Difference] = []
        self.differences = 0
        self._ahead: dict[tuple[Place, str], Stand] = {}
        self._unknown: dict[tuple[Place, str], Found] = {}
        self._limit = limit

    @property
    def skus(self) -> list[str]:
        """All that the replay shows."""
        return list(self.replayed.stands)

    def judge(self, where: Place, sku: str, found: Found) -> None:
        """Take in what a place shows of a SKU; what it showed before counts no more."""
        expected, at = self.replayed.stands.get(sku), (where, sku)
        self.open.pop(at, None)
        if expected is None:
            self._unknown[at] = found
        elif found == expected:
            self.tally(where).equal += 1
        elif isinstance(found, Unreadable):
            self._differ(where, sku, found)
        elif found is not None and sku.encode() in self.replayed.misplaced:
            self.tally(where).undecided += 1
        elif found is None or found.version < expected.version:
            self.open[at] = found
        elif found.version >= self.replayed.home_end(sku):
            self._ahead[at] = found
        else:
            self._differ(where, sku, found)

    def settle(self, movements: Movements) -> None:
        """Decide what is left, by what came into the log since the replay."""
        ends = movements.ends()
        arrived = self._arrived(movements) if self._unknown else set()
        for (where, sku), found in self.open.items():
            self._differ(where, sku, found)
        for (where, sku), stand in self._ahead.items():
            home = self.replayed.homes.get(sku.encode(), 0)
            self._moved_or_different(where, sku, stand, has_moved=stand.version < ends[home])
        for (where, sku), found in self._unknown.items():
            self._moved_or_different(where, sku, found, has_moved=sku.encode() in arrived)

    def _arrived(self, movements: Movements) -> set[bytes]:
        """The SKUs that the log has named since the replay."""
        return {sku for batch in movements.read(movements.ends()) for sku in skus_of(batch)}

    def _moved_or_different(self, where: Place, sku: str, found: Found, *, has_moved: bool) -> None:
        if has_moved:
            self.tally(where).moved += 1
        else:
            self._differ(where, sku, found)

    def _differ(self, where: Place, sku: str, found: Found) -> None:
        differences = differences_of(sku, where, self.replayed.stands.get(sku), found)
        self.shown += differences[: max(0, self._limit - len(self.shown))]
        self.differences += len(differences)
        self.tally(where).different += 1

    def tally(self, where: Place) -> Tally:
        """What came out of a place so far."""
        return self.tallies.setdefault(where, Tally())


class RedisView:
    """The hashes that channels read."""

    where: Place = "redis"

    def __init__(self, client: Redis, settings: RedisSettings) -> None:
        self._client = client
        self._prefix = settings.prefix
        self._explain_prefix = settings.explain_prefix

    def refresh(self) -> None:
        """As in `View`."""

    def left_over(self) -> int:
        """As in `View`."""
        return 0

    def found(self, skus: Sequence[str]) -> Iterator[tuple[str, Found]]:
        """As in `View`."""
        for start in range(0, len(skus), SKUS_AT_ONCE):
            chunk = skus[start : start + SKUS_AT_ONCE]
            yield from zip(chunk, self._read([availability_key(self._prefix, sku) for sku in chunk]), strict=True)

    def others(self, known: Container[str]) -> Iterator[tuple[str, Found]]:
        """As in `View`."""
        keys = ((key, self._sku(key)) for key in self._keys())
        unknown = ((key, sku) for key, sku in keys if sku is not None and sku not in known)
        while chunk := dict(islice(unknown, SKUS_AT_ONCE)):
            yield from zip(chunk.values(), self._read(list(chunk)), strict=True)

    def _keys(self) -> Iterator[bytes]:
        """All keys under the prefix, each once: a scan may tell one twice."""
        pattern = "".join(f"[{letter}]" if letter in "*?[]^\\" else letter for letter in self._prefix) + "*"
        return iter(dict.fromkeys(self._client.scan_iter(pattern, count=KEYS_AT_ONCE)))

    def _sku(self, key: bytes) -> str | None:
        """The SKU of a key, None where it is another one of onhand's."""
        text = key.decode(errors="replace")
        is_nested = len(self._explain_prefix) > len(self._prefix) and text.startswith(self._explain_prefix)
        sku = text[len(self._prefix) :]
        return None if is_nested or sku.startswith("@") else sku

    def _read(self, keys: Sequence[str | bytes]) -> list[Found]:
        with self._client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.hgetall(key)
            return [_shown(answer) for answer in pipeline.execute(raise_on_error=False)]


class _Last(NamedTuple):
    """The last record of a SKU: what it shows, which state wrote it, and the partition that it stands in."""

    found: Stand | Unreadable
    incarnation: int
    partition: int


class TopicView:
    """The last record of each SKU in inventory.availability; in another partition, the newest counts."""

    where: Place = "topic"

    def __init__(self, log: KafkaLog) -> None:
        self._log = log
        self._next: dict[int, int] = {}
        self._last: dict[str, _Last] = {}
        self._left_over = 0
        records = sum(extent.end - extent.first for extent in log.extents().values())
        with Progress("availability records read", records) as progress:
            self._read_on(lambda: progress.advance(counts=True))

    def refresh(self) -> None:
        """As in `View`."""
        self._read_on(lambda: None)

    def left_over(self) -> int:
        """As in `View`."""
        return self._left_over

    def found(self, skus: Sequence[str]) -> Iterator[tuple[str, Found]]:
        """As in `View`."""
        return ((sku, self._last[sku].found if sku in self._last else None) for sku in skus)

    def others(self, known: Container[str]) -> Iterator[tuple[str, Found]]:
        """As in `View`; what older states alone have written is left over from another log, and nobody reads it."""
        greatest = max((last.incarnation for last in self._last.values()), default=0)
        for sku, last in self._last.items():
            if sku in known:
                continue
            if last.incarnation < greatest and isinstance(last.found, Stand):
                self._left_over += 1
            else:
                yield sku, last.found

    def _read_on(self, advance: Callable[[], None]) -> None:
        for partition, extent in self._log.extents().items():
            first = max(extent.first, self._next.get(partition, 0))
            for messages in self._log.read(partition, first, extent.end):
                for message in messages:
                    self._take(message, partition)
                    advance()
            self._next[partition] = extent.end

    def _take(self, message: Message, partition: int) -> None:
        sku = (message.key() or b"").decode(errors="replace")
        record, last = availability_of(message), self._last.get(sku)
        if record is None:
            if last is not None and last.partition == partition:
                del self._last[sku]
        elif isinstance(record, Unreadable):
            self._last[sku] = _Last(record, incarnation_of(message), partition)
        elif last is None or last.partition == partition or _is_newer(record, last):
            self._last[sku] = _Last(stand_of(record), record.incarnation, partition)


def _is_newer(record: Availability, last: _Last) -> bool:
    """Whether a record of another partition outdoes the last one; what cannot be read is kept, to be told."""
    if isinstance(last.found, Unreadable):
        return False
    return (record.incarnation, record.version) > (last.incarnation, last.found.version)


def _shown(answer: object) -> Found:
    """What a hash shows; None where there is none."""
    if isinstance(answer, ResponseError) and not isinstance(answer, NoPermissionError):
        return Unreadable(one_line(answer))
    if isinstance(answer, Exception):
        raise answer
    try:
        promises = parse_promises(cast("dict[bytes, bytes]", answer))
    except ValueError as error:
        return Unreadable(one_line(error))
    return None if promises is None else Stand(promises.version, promises.as_of_ms, promises.promised)


@contextmanager
def _found_redis(configuration: Configuration) -> Iterator[Configuration]:
    """The configuration with an address that answers, where it asks for an embedded server."""
    if not is_embedded(configuration):
        yield configuration
        return
    settings = configuration.settings
    with reading_redis(configuration) as url:
        redis = msgspec.structs.replace(settings.redis, url=url)
        yield configuration._replace(settings=msgspec.structs.replace(settings, redis=redis))


@contextmanager
def _allowed() -> Iterator[None]:
    try:
        yield
    except NoPermissionError as error:
        raise CliError(
            f"Redis does not let this user verify ({one_line(error)}): allow it +scan and +hgetall, by ACL SETUSER"
        ) from error
