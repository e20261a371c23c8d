"""Calls of scripts for one Redis server, or for a cluster, where each call is divided among the servers of its keys."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, NoPermissionError, RedisError

from sinks.redis_pipeline import (
    Node,
    NodePipeline,
    PipelineBounds,
    PipelineCounters,
    RedisPipeline,
    again_order,
    is_elsewhere,
    may_pass,
    retry,
    stopped,
)
from sinks.slots import SinkError

TAGS_MAX: Final = 300_000  # looked at for a key on each server; one that has a single slot is found among 16384

_TAGGED = re.compile(r"\{[^}]+\}")
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[str | int]).decode

Text = str | int


class RedisServers:
    """The server of `url` or, where that is one of a cluster, all of its primaries; whichever it is, learnt once.

    Like a RedisPipeline, but for `send`, whose argument is not packed yet: a flat array of texts for each key, which
    comes first. What a cluster does not take at once (a slot was moved, a server is gone) is given to the servers
    key by key, by a map read anew, until it is answered, or `bounds.retry_seconds_max` are over.
    """

    def __init__(
        self, url: str, scripts: Mapping[str, str], bounds: PipelineBounds, beat: Callable[[], None] = lambda: None
    ) -> None:
        self._only = RedisPipeline(url, scripts, bounds, beat)
        self._cluster: _Cluster | None = None
        self._make = partial(_Cluster, url, scripts, bounds, beat)
        self._is_known = False

    @property
    def counters(self) -> PipelineCounters:
        """What was sent and what it took; in a cluster a call counts once for each of its servers."""
        return self._only.counters

    def connect(self) -> None:
        """Connect if that is not done; SinkError at once where a server cannot be reached."""
        if self._cluster is None:
            self._only.connect()
        if not self._is_known:
            self._is_known = True
            if _is_of_a_cluster(self._only):
                self._only.close()
                self._cluster = self._make(self.counters)

    def send(self, script: str, texts: Sequence[Text], answered: Callable[[int], None]) -> None:
        """Send one call; `answered` gets the sum of the servers' answers. Waits and fails as RedisPipeline.send."""
        if self._cluster is None:
            self._only.send(script, _pack(texts), answered)
        else:
            self._cluster.send(script, texts, answered)

    def send_packed(self, script: str, argument: bytes, answered: Callable[[int], None]) -> None:
        """As `send`, with the texts packed beforehand."""
        if self._cluster is None:
            self._only.send(script, argument, answered)
        else:
            self._cluster.send(script, _unpack(argument), answered)

    def read_ready(self) -> None:
        """Take the answers that are there, without waiting."""
        (self._cluster or self._only).read_ready()

    @property
    def has_waiting(self) -> bool:
        """Whether a call waits for room, so that it is worth looking for answers soon."""
        return (self._cluster or self._only).has_waiting

    def drain(self) -> None:
        """Wait until every call has been answered."""
        (self._cluster or self._only).drain()

    def answered_through(self, number: int) -> bool:
        """Whether every call up to `number` has been answered."""
        return (self._cluster or self._only).answered_through(number)

    @property
    def last_number(self) -> int:
        """The number of the call sent last, 0 before the first."""
        return (self._cluster or self._only).last_number

    def close(self) -> None:
        """Take what answers still come, then disconnect; raises nothing."""
        (self._cluster or self._only).close()

    def keys_everywhere(self, key: str) -> list[str]:
        """`key`, or in a cluster one that begins with it on each server; on one alone where `key` has a {tag}."""
        return [key] if self._cluster is None else self._cluster.keys_everywhere(key)


def _is_of_a_cluster(pipeline: RedisPipeline) -> bool:
    try:
        return b"cluster_enabled:1" in pipeline.command("INFO", "cluster")
    except NoPermissionError:
        return False
    except RedisError as error:
        raise stopped(pipeline.address, error) from error


class _Call:
    """A call whose parts have not all been answered."""

    def __init__(self, answered: Callable[[int], None]) -> None:
        self.parts = 0
        self.sum = 0
        self.answered = answered


class _Part(NamedTuple):
    """What one server was to get of a call: for each key its texts, which begin with the key."""

    number: int  # of the call
    script: str
    items: list[Sequence[Text]]


class _Cluster:
    """A pipeline for each primary, by address, and which slots it has."""

    def __init__(
        self,
        url: str,
        scripts: Mapping[str, str],
        bounds: PipelineBounds,
        beat: Callable[[], None],
        counters: PipelineCounters,
    ) -> None:
        self.last_number = 0
        self._bounds = bounds
        self._beat = beat
        self._counters = counters
        self._make = partial(NodePipeline, url, scripts, bounds, counters=counters)
        self._first = self._make()  # the one of the url, which is only asked for the map
        self._nodes: dict[Node, NodePipeline] = {}
        self._node_of_slot: dict[int, Node] = {}
        self._primaries: set[Node] = set()
        self._turn = -1
        self._calls: dict[int, _Call] = {}  # unanswered, by number
        self._parts: dict[int, _Part] = {}  # the same
        self._last_part = 0
        self._everywhere: dict[str, list[str]] = {}
        self._failure: SinkError | None = None
        self._mend()

    def send(self, script: str, texts: Sequence[Text], answered: Callable[[int], None]) -> None:
        """Divide one call by server, and send its parts."""
        self._refuse_after_failure()
        self.last_number += 1
        self._calls[self.last_number] = _Call(answered)
        by_node: dict[Node | None, list[Sequence[Text]]] = {}
        for item in _items(script, texts):
            by_node.setdefault(self._node_of(item), []).append(item)
        parts = {node: self._note(_Part(self.last_number, script, items)) for node, items in by_node.items()}
        self._mending(lambda: self._send(parts))

    def read_ready(self) -> None:
        """Take the answers that are there, without waiting."""
        self._refuse_after_failure()
        self._mending(lambda: self._each(RedisPipeline.read_ready))

    def drain(self) -> None:
        """Wait until every call has been answered."""
        self._refuse_after_failure()
        self._mending(lambda: self._each(RedisPipeline.drain))

    def answered_through(self, number: int) -> bool:
        """Whether every call up to `number` has been answered."""
        return next(iter(self._calls), number + 1) > number

    @property
    def has_waiting(self) -> bool:
        """Whether a call waits for room on any server."""
        return any(pipeline.has_waiting for pipeline in self._nodes.values())

    def close(self) -> None:
        """Take what answers still come, then disconnect; raises nothing."""
        self._first.close()
        self._each(RedisPipeline.close)

    def keys_everywhere(self, key: str) -> list[str]:
        """One key on each server, which begins with `key`."""
        if key not in self._everywhere:
            self._everywhere[key] = list(self._keys_by_node(key).values())
        return self._everywhere[key]

    def _keys_by_node(self, key: str) -> dict[Node, str]:
        """The first tags that lead to each server: as long as no slot moves, the same ones in every run."""
        if _TAGGED.search(key):
            return {self._node_of_slot[key_slot(key.encode())]: key}
        found: dict[Node, str] = {}
        for tag in range(TAGS_MAX):
            tagged = f"{key}{{{tag}}}"
            if (node := self._node_of([tagged])) is not None:
                found.setdefault(node, tagged)
            if len(found) == len(self._primaries):
                break
        return found

    def _node_of(self, item: Sequence[Text]) -> Node | None:
        """The server that had the slot of this key when the map was read, None where none had."""
        return self._node_of_slot.get(key_slot(str(item[0]).encode()))

    def _note(self, part: _Part) -> int:
        self._last_part += 1
        self._parts[self._last_part] = part
        self._calls[part.number].parts += 1
        return self._last_part

    def _send(self, parts: Mapping[Node | None, int]) -> None:
        for node, number in parts.items():
            part = self._parts[number]
            if node is None:
                raise RedisError("CLUSTERDOWN no server has the slot of a key")
            texts = [text for item in part.items for text in item]
            self._nodes[node].send(part.script, _pack(texts), partial(self._answered, number))

    def _answered(self, part: int, answer: int) -> None:
        number = self._parts.pop(part).number
        call = self._calls[number]
        call.sum += answer
        call.parts -= 1
        if not call.parts:
            del self._calls[number]
            call.answered(call.sum)

    def _each(self, what: Callable[[NodePipeline], None]) -> None:
        for pipeline in self._nodes.values():
            what(pipeline)

    def _mending(self, what: Callable[[], None]) -> None:
        try:
            what()
        except RedisError:
            self._mend()

    def _mend(self) -> None:
        """Read the map anew and give the servers whatever they have not answered, until they have."""
        try:
            retry(self._bounds, self._beat, _may_be_mended, self._repeat)
        except RedisError as error:
            self._failure = stopped(self._first.address, error)
            raise self._failure from error

    def _repeat(self) -> None:
        self._each(NodePipeline.abandon)
        self._read_map()
        for number, part in sorted(self._parts.items(), key=lambda item: again_order(item[1].script, item[0])):
            answers = [self._written(part.script, item) for item in part.items]
            self._answered(number, sum(answers))

    def _written(self, script: str, item: Sequence[Text]) -> int:
        """Give the servers what belongs to one key, which is named, so that Redis says where it is right now."""
        node = self._node_of(item)
        if node is None:
            raise RedisError("CLUSTERDOWN no server has the slot of a key")
        pipeline = self._pipeline(node)
        pipeline.connect()
        self._counters.resent += 1
        try:
            return self._called(pipeline, script, item)
        except AskError as error:
            if isinstance(error, MovedError):
                raise
            other = self._pipeline(Node(error.host or pipeline.host, error.port))
            other.connect()
            other.command("ASKING")  # this key is there already, or new, while the others of its slot follow
            return self._called(other, script, item)

    def _called(self, pipeline: NodePipeline, script: str, item: Sequence[Text]) -> int:
        return int(pipeline.command("EVALSHA", pipeline.script(script), 1, str(item[0]), _pack(item)))

    def _read_map(self) -> None:
        """Ask any server that answers which one has which slots."""
        asked, rows = self._map()
        self._everywhere.clear()
        self._node_of_slot = {
            slot: Node(primary[0].decode() or asked.host, int(primary[1]))
            for first, last, primary, *_ in rows
            for slot in range(first, last + 1)
        }
        self._primaries = set(self._node_of_slot.values())
        if self._nodes:
            self._counters.reconnects += len(self._primaries - self._nodes.keys())
        for gone in self._nodes.keys() - self._primaries:
            self._nodes.pop(gone).close()
        for node in self._primaries:
            self._pipeline(node)

    def _map(self) -> tuple[NodePipeline, Any]:
        """The answer of any server, each time beginning with another; RedisError where none gives one."""
        servers = [*self._nodes.values(), self._first]
        self._turn = (self._turn + 1) % len(servers)
        trouble = RedisError()
        for server in servers[self._turn :] + servers[: self._turn]:
            try:
                server.connect()
                return server, server.command("CLUSTER", "SLOTS")
            except RedisError as error:
                if not may_pass(error):
                    raise
                trouble = error
        raise trouble

    def _pipeline(self, node: Node) -> NodePipeline:
        if node not in self._nodes:
            self._nodes[node] = self._make(node=node)
        return self._nodes[node]

    def _refuse_after_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def _items(script: str, texts: Sequence[Text]) -> Iterator[Sequence[Text]]:
    """What belongs to one key each, as the scripts read it: see the head of each."""
    if script == "availability":
        at = 0
        while at < len(texts):
            end = at + 2 + abs(int(texts[at + 1]))
            yield texts[at:end]
            at = end
    elif script == "explanations":
        yield from (texts[at : at + 4] for at in range(0, len(texts), 4))
    else:
        yield texts


def _may_be_mended(error: Exception) -> bool:
    return may_pass(error) or is_elsewhere(error)
