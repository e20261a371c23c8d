"""Reads a Redis stream without a group, resumed from our own state, and notices what was trimmed away unread."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, NotRequired, TypedDict

import redis
import structlog
from bytewax.inputs import FixedPartitionedSource
from redis.backoff import NoBackoff
from redis.retry import Retry

from schemas.batches import Batch, CaughtUp, Mark, Origin, Wake
from sources.errors import SourceError, SourceUnreachableError
from sources.pace import ALONE, LOOK_AGAIN_MS, PacedPartition, Surroundings
from sources.states import checked, sealed

STATE_FORMAT: Final = 1
SEQUENCE_BITS: Final = 20
SEQUENCE_MAX: Final = 2**SEQUENCE_BITS - 1
TIME_MS_MAX: Final = 2 ** (63 - SEQUENCE_BITS) - 1
ANSWER_SECONDS_MAX: Final = 2.0
RECONNECT_MS_MAX: Final = 250

log = structlog.get_logger(__name__)
Entry = tuple[bytes, Mapping[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisStreamReading:
    """What to read; when Redis has been away for longer than `away_seconds_max`, reading gives up."""

    url: str
    stream: str
    batch_entries_max: int = 1000
    away_seconds_max: float = 120.0
    accept_truncated: bool = False  # begin at a stream that has lost its beginning


class StreamState(TypedDict):
    """Where a stream goes on: behind the entry `offset`; `entries_read` is how many were ever added up to it."""

    format: int
    stream: str
    offset: int
    entries_read: int
    checksum: NotRequired[int]


class RedisStreamSource(FixedPartitionedSource[Batch | Mark | Wake | CaughtUp, StreamState]):
    """The entries of one stream: field `payload`, and where present `key` and `traceparent` (a header).

    An entry's offset is its id as one number, time in ms · 2²⁰ + sequence; its timestamp is the id's time. An entry
    without `payload` has None there, which is refused downstream.

    Redis gives a stream no identity of its own, so the origin is the cluster "redis" and the stream's name. A stream
    made anew is told from the one that the state knows by its counters instead: the last id, and how many entries were
    ever added, never decrease. The same counters tell whether entries were trimmed away before they were read. They
    come in one transaction with the entries (XINFO STREAM, XRANGE: XREAD without blocking, in the same shape under
    both protocols).

    `now_ms` is the wall clock in ms since 1970; once `draining` returns True reading ends. Building and reading raise
    SourceError: Redis out of reach at the start or for too long, no stream under that name but something else, a
    stream that went backwards or lost unread entries, an id beyond 2²⁰ entries in a millisecond.
    """

    def __init__(
        self,
        reading: RedisStreamReading,
        *,
        now_ms: Callable[[], int],
        draining: Callable[[], bool],
        around: Surroundings = ALONE,
    ) -> None:
        self._reading = reading
        self._now_ms = now_ms
        self._draining = draining
        self._around = around

    def list_parts(self) -> list[str]:
        """One part: a stream has one order."""
        return ["stream"]

    def build_part(self, step_id: str, for_part: str, resume_state: StreamState | None) -> "_Stream":
        """The stream, going on behind the state's entry or else at its beginning."""
        client = _client(self._reading.url)
        return _Stream(self._reading, client, resume_state, self._now_ms, self._draining, self._around)


class Extent(NamedTuple):
    """What Redis holds of a stream: ids as offsets (`first` 0 when it holds none), and how many were ever added."""

    first: int
    last: int
    length: int
    added: int


class _Stream(PacedPartition[StreamState]):
    """One stream, behind the entry `offset`."""

    def __init__(
        self,
        reading: RedisStreamReading,
        client: redis.Redis,
        resume_state: StreamState | None,
        now_ms: Callable[[], int],
        draining: Callable[[], bool],
        around: Surroundings,
    ) -> None:
        super().__init__(now_ms, draining, around)
        self._reading = reading
        self._client = client
        self._origin = Origin("redis", reading.stream, 0, reading.stream)
        self._offset = 0
        self._entries_read: int | None = None  # None: begin with what the stream holds
        self._record_ms = -1
        self._away_since_ms: int | None = None
        try:
            if resume_state is not None:
                self._resume(resume_state)
            self._extent = self._first_look()
        except SourceError:
            self.close()
            raise
        self._last_at_start = self._extent.last

    def _resume(self, state: StreamState) -> None:
        state = checked(state, STATE_FORMAT)
        if state["stream"] != self._reading.stream:
            raise SourceError(
                f"the state was made from stream {state['stream']}, not from {self._reading.stream}:"
                " start with a new state"
            )
        self._offset = state["offset"]
        self._entries_read = state["entries_read"]

    def _first_look(self) -> Extent:
        """Is it there, and does it fit the state? Reads nothing yet."""
        try:
            extent, _ = self._ask(1)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise SourceUnreachableError(
                f"Redis did not answer ({error}): check that it runs and that [redis] url is right"
            ) from error
        return self._checked(extent)

    def read(self, now_ms: int) -> list[Batch]:
        """The next entries; an unreachable Redis is asked again at the next look, for a bounded time."""
        try:
            extent, entries = self._ask(self._reading.batch_entries_max)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            self._away(now_ms, error)
            return []
        if self._away_since_ms is not None:
            self._here_again()
        self._extent = self._checked(extent)
        return [self._batch(entries)] if entries else []

    def _ask(self, entries_max: int) -> tuple[Extent, Sequence[Entry]]:
        """Extent and entries of the same instant; raises SourceError where it is no stream or not allowed."""
        stream = self._reading.stream
        try:
            with self._client.pipeline(transaction=True) as asked:
                asked.xinfo_stream(stream)
                asked.xrange(stream, min=f"({_text(self._offset)}", count=entries_max)
                info, entries = asked.execute(raise_on_error=False)
        except redis.AuthenticationError as error:
            raise SourceError(
                f"Redis refused the connection ({error}): check user name and password in [redis] url"
            ) from error
        except redis.ResponseError as error:
            raise _unreadable(stream, error) from error
        for answer in (info, entries):
            if isinstance(answer, redis.ResponseError) and "no such key" not in str(answer):
                raise _unreadable(stream, answer)
        return _extent(info), entries

    def _checked(self, extent: Extent) -> Extent:
        """`extent`, if the stream is still the one that was read and holds all that was not; else SourceError."""
        stream, removed = self._reading.stream, extent.added - extent.length
        if self._entries_read is None:
            if removed > 0 and not self._reading.accept_truncated:
                raise SourceError(
                    f"Redis stream {stream}: {removed} entries were trimmed or deleted, so stock would be computed"
                    " without what happened before; do not trim it, and start with --accept-truncated if opening stock"
                    " stands in what is left"
                )
            self._entries_read = removed
        if extent.last < self._offset or extent.added < self._entries_read:
            raise SourceError(
                f"Redis stream {stream} went backwards: it ends at {_text(extent.last)} after {extent.added} entries,"
                f" but {_text(self._offset)} was read; it was made anew or restored: start with a new state"
            )
        all_read_are_gone = extent.length == 0 or extent.first > self._offset
        if all_read_are_gone and removed > self._entries_read:
            raise SourceError(
                f"Redis stream {stream}: {removed - self._entries_read} entries behind {_text(self._offset)} were"
                " trimmed or deleted before they were read; start with a new state, and trim later"
            )
        if extent.last == self._offset:
            self._entries_read = extent.added  # also those that were deleted one by one
        return extent

    def _away(self, now_ms: int, error: redis.RedisError) -> None:
        if self._away_since_ms is None:
            self._away_since_ms = now_ms
            log.warning("redis does not answer, trying again", stream=self._reading.stream, error=str(error))
        if now_ms - self._away_since_ms > self._reading.away_seconds_max * 1000:
            raise SourceUnreachableError(
                f"Redis did not answer for {self._reading.away_seconds_max:g} s ({error}): check that it runs"
            ) from error
        self.look_again_ms = min(2 * self.look_again_ms, RECONNECT_MS_MAX)

    def _here_again(self) -> None:
        self._away_since_ms = None
        self.look_again_ms = LOOK_AGAIN_MS
        log.info("redis answers again", stream=self._reading.stream)

    def _batch(self, entries: Sequence[Entry]) -> Batch:
        offsets = [_offset(entry_id) for entry_id, _ in entries]
        timestamps = [offset >> SEQUENCE_BITS for offset in offsets]
        headers = [_headers(fields) for _, fields in entries]
        self._offset = offsets[-1]
        self._record_ms = timestamps[-1]
        self._entries_read = (self._entries_read or 0) + len(entries)
        return Batch(
            self._origin,
            offsets,
            timestamps,
            [fields.get(b"key") for _, fields in entries],
            [fields.get(b"payload") for _, fields in entries],
            headers if any(headers) else None,
        )

    def has_caught_up(self) -> bool:
        """Whether the entry is read that was the last one when the stream was first looked at."""
        return self._offset >= self._last_at_start

    def marks(self, now_ms: int) -> list[Mark]:
        """How far it is read, and where it ended when last looked at."""
        end = max(self._extent.last, self._offset) + 1
        return [Mark(self._origin, self._offset + 1, end, self._record_ms, now_ms)]

    def state(self) -> StreamState:
        """The entry to go on behind."""
        state: StreamState = {
            "format": STATE_FORMAT,
            "stream": self._reading.stream,
            "offset": self._offset,
            "entries_read": self._entries_read or 0,
        }
        return sealed(state)

    def close(self) -> None:
        """Leave Redis."""
        self._client.close()


def _client(url: str) -> redis.Redis:
    """A client that fails at once: waiting is the partition's affair, in looks that hold up nobody."""
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=ANSWER_SECONDS_MAX,
            socket_connect_timeout=ANSWER_SECONDS_MAX,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise SourceError(f"[redis] url is not usable: {error}") from error


def _unreadable(stream: str, error: redis.ResponseError) -> SourceError:
    return SourceError(f"Redis stream {stream} cannot be read ({error}): correct [input] topic, or the user's rights")


def _extent(info: Mapping[str, Any] | redis.ResponseError) -> Extent:
    """What XINFO STREAM told; no stream yet is an empty one."""
    if isinstance(info, redis.ResponseError):
        return Extent(0, 0, 0, 0)
    if "entries-added" not in info:
        raise SourceError("this Redis does not count a stream's entries: Redis 7 or newer is needed")
    first = _offset(info["recorded-first-entry-id"])
    return Extent(first, _offset(info["last-generated-id"]), int(info["length"]), int(info["entries-added"]))


def _offset(entry_id: bytes) -> int:
    """An id such as 1700000000000-3 as one number; raises SourceError where it does not fit 63 bits."""
    time_text, _, sequence_text = entry_id.partition(b"-")
    time_ms, sequence = int(time_text), int(sequence_text)
    if sequence > SEQUENCE_MAX or time_ms > TIME_MS_MAX:
        raise SourceError(
            f"the entry id {entry_id.decode()} is out of range: sequences go up to {SEQUENCE_MAX}, times to"
            f" {TIME_MS_MAX}; let Redis choose the ids (XADD with *)"
        )
    return time_ms << SEQUENCE_BITS | sequence


def _text(offset: int) -> str:
    return f"{offset >> SEQUENCE_BITS}-{offset & SEQUENCE_MAX}"


def _headers(fields: Mapping[bytes, bytes]) -> list[tuple[str, bytes | None]] | None:
    traceparent = fields.get(b"traceparent")
    return None if traceparent is None else [("traceparent", traceparent)]
