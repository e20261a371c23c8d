"""Calls of Lua scripts sent to Redis without waiting for the answers, and sent again until each has been answered."""

import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, cast

import stamina
from redis import ConnectionPool
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,  # noqa: A004  # redis-py's is no OSError
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004  # the same
)

from sinks.slots import SinkError, SinkUnreachableError

WAIT_SECONDS_FIRST = 0.05
WAIT_SECONDS_MAX = 2.0

_LOST = (ConnectionError, TimeoutError)
_NAMED: Final = {  # those whose code redis-py takes out of their text
    BusyLoadingError: "LOADING",
    MasterDownError: "MASTERDOWN",
    NoScriptError: "NOSCRIPT",
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
}
_WITHOUT_ADVICE: Final = "look into its log, then start again"
_ADVICE: Final = {  # replies that may pass, and what to do where they do not
    "NOSCRIPT": "something keeps emptying its script cache (SCRIPT FLUSH): stop that",
    "OOM": "it has reached its maxmemory: raise maxmemory or free memory, then start again",
    "READONLY": "it is a replica: let redis.url name the primary, then start again",
    "BUSY": "another client's script does not end: look at SCRIPT KILL, then start again",
    "LOADING": "it is still reading its data: start again when it is done",
    "MASTERDOWN": "it is a replica without a primary: bring the primary back, then start again",
    "MISCONF": "it cannot save to its disk: free space there, then start again",
    "NOREPLICAS": "too few replicas answer it (min-replicas-to-write): bring them back, then start again",
    "CLUSTERDOWN": "its cluster is incomplete: bring the missing nodes back, then start again",
    "TRYAGAIN": "its cluster is being moved: start again when that is done",
}
# An error inside a script begins with its code from Redis 7 on; before, it is quoted inside another.
_CODE = re.compile(rf"(?:^|: -)({'|'.join(_ADVICE)}) ")


# Of these the newest call is sent again first, before all others: it may have been carried out and read, and a Redis
# that came back empty would show what is older. The others keep their order: among equals the last one stays.
_NEWEST_FIRST: Final = frozenset({"availability"})

# What a script is told that touches a key of another server, in the words of Redis 6, 7 and Valkey.
_ELSEWHERE = re.compile(r"ttempted to (access a non local key|execute a (write )?command while the cluster is down)")


class PipelineBounds(NamedTuple):
    """How much may be under way and how long it may take; times in seconds.

    Redis reads all that a connection has sent and carries it out before it turns to the next one: who looks something
    up waits for all of it. So few bytes are under way, two calls of 128 SKUs; one call may be, however long it is. More
    calls wait here until there is room, as long as they are not too many bytes.
    """

    calls_in_flight_max: int = 64
    bytes_in_flight_max: int = 24 * 1024
    bytes_waiting_max: int = 1024 * 1024
    answer_seconds_max: float = 5.0
    retry_seconds_max: float = 120.0


@dataclass(slots=True)
class PipelineCounters:
    """What was sent and what it took, since the start: calls answered, calls sent again, connections made anew."""

    calls: int = 0
    resent: int = 0
    reconnects: int = 0


class _Call(NamedTuple):
    number: int
    script: str
    packed: list[bytes]
    answered: Callable[[int], None]
    bytes_: int


def again_order(script: str, number: int) -> tuple[bool, int]:
    """By what calls without an answer are sorted to be sent again."""
    is_first = script in _NEWEST_FIRST
    return not is_first, -number if is_first else number


class _Connection(Protocol):
    """What is used of redis-py's connections, which carry no types."""

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def pack_command(self, *args: str | bytes | int) -> list[bytes]: ...
    def send_packed_command(self, command: list[bytes]) -> None: ...
    def can_read(self, timeout: float) -> bool: ...
    def read_response(self) -> Any: ...  # noqa: ANN401  # whatever Redis answers


class Node(NamedTuple):
    """Where a server of a cluster listens."""

    host: str
    port: int


class RedisPipeline:
    """One connection on which calls of `scripts` (name to Lua text) are under way; each takes one argument.

    Whatever was sent and not answered is sent again when the connection was lost, when the scripts are gone or when
    Redis cannot write for a while: so a call must change nothing when it comes a second time, or after a later one.
    `again_order` says in which order. `beat` is called before every wait for Redis to come back. `node` takes the
    place of host and port in `url`.
    """

    def __init__(
        self,
        url: str,
        scripts: Mapping[str, str],
        bounds: PipelineBounds,
        beat: Callable[[], None] = lambda: None,
        *,
        node: Node | None = None,
        counters: PipelineCounters | None = None,
    ) -> None:
        self.counters = counters or PipelineCounters()
        self._connection, self.address = _unconnected(url, bounds.answer_seconds_max, node)
        self._connected = False
        self._scripts = scripts
        self._bounds = bounds
        self._beat = beat
        self._sha: dict[str, bytes] = {}
        self._last = 0
        self._sent: deque[_Call] = deque()  # on this connection, in the order in which answers come
        self._bytes_sent = 0  # of these
        self._waiting: deque[_Call] = deque()  # for room, all of them later than those that were sent
        self._bytes_waiting = 0  # of these
        self._again: list[_Call] = []
        self._failure: SinkError | None = None

    def connect(self) -> None:
        """Connect and load the scripts if that is not done; waits for a Redis that is reading its data.

        SinkError at once where it cannot be reached.
        """
        if not self._connected:
            self._retrying(_is_loading, self._reach)

    def send(self, script: str, argument: bytes, answered: Callable[[int], None]) -> int:
        """Send one call, or let it wait for room, and return its number; waits itself where too much does.

        `answered` gets the script's result, once, whatever happened in between. SinkError where Redis cannot be
        brought to answer within `retry_seconds_max`.
        """
        self._refuse_after_failure()
        self.connect()
        self._last += 1
        packed = self._connection.pack_command("EVALSHA", self._sha[script], 0, argument)
        call = _Call(self._last, script, packed, answered, len(argument))
        self._waiting.append(call)
        self._bytes_waiting += call.bytes_
        try:
            self._send_waiting()
            while self._bytes_waiting > self._bounds.bytes_waiting_max and not self._again:
                self._read_one()
                self._send_waiting()
        except _LOST as error:
            self._lost(error)
        self._heal()
        return call.number

    def command(self, *words: str | bytes | int) -> Any:  # noqa: ANN401  # whatever Redis answers
        """Send one command and wait for its answer, with no call under way; RedisError where it fails."""
        assert not self._sent, "the answer would be taken for that of a call"  # noqa: S101
        try:
            self._connection.send_packed_command(self._connection.pack_command(*words))
            return self._connection.read_response()
        except _LOST:
            self._disconnect()
            raise

    def read_ready(self) -> None:
        """Take the answers that are there, without waiting, and send what waits for them; SinkError as in `send`."""
        self._refuse_after_failure()
        try:
            while self._sent and self._connection.can_read(0):
                self._read_one()
            self._send_waiting()
        except _LOST as error:
            self._lost(error)
        self._heal()

    def drain(self) -> None:
        """Wait until every call has been answered; SinkError as in `send`."""
        self._refuse_after_failure()
        while self._sent or self._waiting:
            try:
                self._read_all()
            except _LOST as error:
                self._lost(error)
            self._heal()

    @property
    def has_waiting(self) -> bool:
        """Whether a call waits for room, so that it is worth looking for answers soon."""
        return bool(self._waiting)

    def answered_through(self, number: int) -> bool:
        """Whether every call up to `number` has been answered."""
        oldest = self._sent or self._waiting
        return not oldest or oldest[0].number > number

    @property
    def last_number(self) -> int:
        """The number of the call sent last, 0 before the first."""
        return self._last

    def close(self) -> None:
        """Take what answers still come, then disconnect; raises nothing.

        After a `drain` nothing is left. Without one the run ends unfinished, and what was not answered will be
        computed again: so there is no retry here, and an error would only hide the one that ended the run. What waits
        after a failure is not sent any more.
        """
        try:
            if self._failure is None:
                self._read_all()
            else:
                self._read_sent()
        except (RedisError, SinkError):
            self._forget_all()
        finally:
            self._disconnect()

    def _send_waiting(self) -> None:
        """Send what waits, as far as there is room; nothing that is newer than a call that is to be sent again."""
        while self._waiting and not self._again and self._has_room_for(self._waiting[0]):
            call = self._waiting.popleft()
            self._bytes_waiting -= call.bytes_
            self._put(call)

    def _has_room_for(self, call: _Call) -> bool:
        calls_max, bytes_max = self._bounds.calls_in_flight_max, self._bounds.bytes_in_flight_max
        return not self._sent or (len(self._sent) < calls_max and self._bytes_sent + call.bytes_ <= bytes_max)

    def _put(self, call: _Call) -> None:
        self._sent.append(call)  # first, so that a call that breaks on its way is among those to send again
        self._bytes_sent += call.bytes_
        self._connection.send_packed_command(call.packed)

    def _read_all(self) -> None:
        """Send all that waits, and take all answers; what waits goes on to wait where a call is to be sent again."""
        self._send_waiting()
        while self._sent:
            self._read_one()
            self._send_waiting()

    def _read_sent(self) -> None:
        while self._sent:
            self._read_one()

    def _read_one(self) -> None:
        """Take one answer; a call that failed but may pass another time is set aside."""
        try:
            reply = int(self._connection.read_response())
        except ResponseError as error:
            call = self._taken()
            if not self._passes(error):
                raise self._stopped(error) from error
            self._again.append(call)
            self._trouble: RedisError = error
        else:
            self.counters.calls += 1
            self._taken().answered(reply)

    def _taken(self) -> _Call:
        """The call that was answered, which is under way no longer."""
        call = self._sent.popleft()
        self._bytes_sent -= call.bytes_
        return call

    def _forget_sent(self) -> None:
        self._sent.clear()
        self._bytes_sent = 0

    def _forget_all(self) -> None:
        self._forget_sent()
        self._again.clear()
        self._waiting.clear()
        self._bytes_waiting = 0

    def _lost(self, error: RedisError) -> None:
        self._disconnect()
        self._again.extend(self._sent)
        self._forget_sent()
        self._trouble = error
        if not may_pass(error):
            raise self._stopped(error) from error

    def _heal(self) -> None:
        """Where calls are set aside: repeat them until all are answered, waiting longer and longer in between."""
        if self._again:
            self._retrying(may_pass, self._repeat)

    def _retrying(self, on: Callable[[Exception], bool], what: Callable[[], None]) -> None:
        try:
            retry(self._bounds, self._beat, on, what)
        except RedisError as error:
            raise self._stopped(error) from error

    def _passes(self, error: Exception) -> bool:
        return may_pass(error)

    def _repeat(self) -> None:
        """Send everything unanswered once more and wait for it; raises what still stands in the way."""
        try:
            self._read_sent()  # what was sent before the trouble was noticed
            if isinstance(self._trouble, ReadOnlyError):
                self._disconnect()  # a demoted primary: the name may lead elsewhere by now
            self._reach()
            self._again.sort(key=lambda call: again_order(call.script, call.number))
            while self._again:
                self._put(self._again.pop(0))
                self.counters.resent += 1
            self._read_sent()
        except _LOST as error:
            self._lost(error)
        if self._again:
            raise self._trouble

    def _reach(self) -> None:
        """Connect where there is no connection, and load the scripts."""
        if not self._connected:
            self._connection.connect()
            self._connected = True
            self.counters.reconnects += bool(self._sha)
        for name, text in self._scripts.items():
            self._connection.send_packed_command(self._connection.pack_command("SCRIPT", "LOAD", text))
            self._sha[name] = self._connection.read_response()

    def _disconnect(self) -> None:
        self._connection.disconnect()
        self._connected = False

    def _refuse_after_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _stopped(self, error: RedisError) -> SinkError:
        """The error with which this pipeline ends."""
        self._failure = stopped(self.address, error)
        return self._failure


class NodePipeline(RedisPipeline):
    """The pipeline of one server of a cluster, which leaves trouble to whoever knows the others: it raises RedisError.

    What was not answered then is forgotten with `abandon`.
    """

    _is_loaded = False  # that the scripts are there is not known after trouble

    @property
    def host(self) -> str:
        """Where this server is, as it was named."""
        return self.address.rpartition(":")[0]

    def connect(self) -> None:
        """Connect and load the scripts if that is not done; RedisError where that fails."""
        if not (self._connected and self._is_loaded):
            try:
                self._reach()
            except _LOST:
                self._disconnect()
                raise
            self._is_loaded = True

    def script(self, name: str) -> bytes:
        """The name that Redis has given to a script."""
        return self._sha[name]

    def abandon(self) -> None:
        """Take the answers that still come, and forget the calls that have none; raises SinkError alone."""
        try:
            self._read_sent()
        except _LOST:
            self._disconnect()
        self._forget_all()
        self._is_loaded = False

    def _heal(self) -> None:
        if self._again:
            raise self._trouble

    def _passes(self, error: Exception) -> bool:
        return may_pass(error) or is_elsewhere(error)


def retry(
    bounds: PipelineBounds, beat: Callable[[], None], on: Callable[[Exception], bool], what: Callable[[], None]
) -> None:
    """Do `what`, and again after an error that passes `on`, waiting longer and longer, within `bounds`."""
    for attempt in stamina.retry_context(
        on,
        attempts=None,
        timeout=bounds.retry_seconds_max,
        wait_initial=WAIT_SECONDS_FIRST,
        wait_max=WAIT_SECONDS_MAX,
        wait_jitter=WAIT_SECONDS_FIRST,
    ):
        with attempt:
            beat()
            what()


def stopped(address: str, error: RedisError) -> SinkError:
    """The error with which writing to `address` ends, in one line, without what the url keeps secret.

    A SinkUnreachableError where trying again later can help.
    """
    said = " ".join(str(error).split())
    if code := _code(error):
        said = f"refuses writes ({code} {said.removeprefix(code).lstrip()}): {_ADVICE[code]}"
    elif isinstance(error, AuthenticationError):
        said = f"refuses the login ({said}): check user and password in redis.url (ONHAND_REDIS__URL)"
    elif isinstance(error, _LOST):
        said = f"does not answer ({said}): start it, or correct redis.url (ONHAND_REDIS__URL)"
    elif is_elsewhere(error):
        said = f"is one of a cluster and does not hold a key ({said}): {_ADVICE['TRYAGAIN']}"
    else:
        said = f"answered with an error ({said}): {_WITHOUT_ADVICE}"
    kind = SinkUnreachableError if may_pass(error) or is_elsewhere(error) else SinkError
    return kind(f"Redis at {address} {said}")


def _unconnected(url: str, answer_seconds_max: float, node: Node | None) -> tuple[_Connection, str]:
    """A connection that is yet to be made, and the server's name without user and password."""
    try:
        pool = ConnectionPool.from_url(
            url, protocol=2, socket_timeout=answer_seconds_max, socket_connect_timeout=answer_seconds_max
        )
    except ValueError:  # its text may quote a piece of the password
        raise SinkError(
            "redis.url is no address: write redis://host:port/db, rediss://… or unix://path, "
            "with special characters of user and password percent-encoded"
        ) from None
    known = pool.connection_kwargs
    if node is not None:
        known |= node._asdict()
    where = known["path"] if "path" in known else f"{known.get('host', 'localhost')}:{known.get('port', 6379)}"
    return cast("_Connection", pool.make_connection()), f"{where}/{known.get('db', 0)}"


def _code(error: Exception) -> str | None:
    """The error code of a reply that may pass, None of any other."""
    for type_, code in _NAMED.items():
        if isinstance(error, type_):
            return code
    found = _CODE.search(f"{getattr(error, 'status_code', None) or ''} {error}".lstrip())
    return found[1] if found else None


def may_pass(error: Exception) -> bool:
    """Whether trying again later can help."""
    if isinstance(error, AuthenticationError):
        return False
    return isinstance(error, _LOST) or _code(error) is not None


def is_elsewhere(error: Exception) -> bool:
    """Whether this says that another server of the cluster holds the key, or that none of them does."""
    return isinstance(error, AskError) or _ELSEWHERE.search(str(error)) is not None


def _is_loading(error: Exception) -> bool:
    return isinstance(error, BusyLoadingError)
