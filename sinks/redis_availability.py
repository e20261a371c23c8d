"""What channels read: the availability of each SKU as a hash in Redis, which only ever changes to a newer one."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from bytewax.outputs import StatefulSinkPartition

from schemas.batches import Mark, Origin
from schemas.outputs import Availability, Explanation, HashCall, LaneResult, RulesInForce
from schemas.times import parse_ms
from sinks.redis_cluster import RedisServers
from sinks.redis_keys import (
    AS_OF,
    EXPLAIN_PREFIX,
    INCARNATION,
    UNKNOWN_LAG,
    VERSION,
    Held,
    availability_key,
    explain_key,
    health_key,
    rules_key,
    sentinel_key,
)
from sinks.redis_pipeline import PipelineBounds
from sinks.redis_sentinel import Refilling, Sentinel
from sinks.slots import SLOTS, SlottedSink, slot_name

SKUS_PER_CALL_MAX = 128  # a reader behind one call still gets its answer within a millisecond
EXPLANATIONS_PER_CALL_MAX = 64
ARRAY_32: Final = b"\xdd"
HEAD_BYTES: Final = 5
UNDER_WAY_MS = 3000  # a mark comes each second, about what was heard a second before, and is told a second later
HEALTH_INTERVAL_MS = 1000
LANES = 64

_SCRIPTS: Final = {
    name: (Path(__file__).parent / f"redis_{name}.lua").read_text(encoding="utf-8")
    for name in ("availability", "explanations", "health", "rules", "sentinel")
}
_encode = msgspec.json.Encoder().encode


class RedisAvailabilitySink(SlottedSink[LaneResult, None]):
    """Writes the availability of every LaneResult to `<prefix><sku>`, and the age of it all to `<prefix>@health`.

    Explanations go to `<explain_prefix><sku>`, the rules in force to `<prefix>@rules`.
    `now_ms` is the wall clock in ms since 1970. `write_batch` sends and does not wait; `snapshot` waits until Redis has
    answered everything; `visible` is called with the results of each batch once they can be read. SinkError, in one
    line, where Redis cannot be reached at the start, or does not take a write within `bounds.retry_seconds_max`.

    Redis that has lost something (it was flushed, restored, or another server took over) is noticed within about a
    second, and each slot calls `refill` once. Its lanes, those of `lanes` that are the slot's number modulo `slots`,
    then write everything again and say so (`LaneResult.refilled`, at least what `refills` was after the call). Without
    `refill` nobody looks. `incarnation` is that of the state, 0: that of the first result.
    """

    def __init__(  # noqa: PLR0913  # each is a choice of its own, and has a default
        self,
        url: str,
        prefix: str,
        now_ms: Callable[[], int],
        *,
        explain_prefix: str = EXPLAIN_PREFIX,
        slots: int = SLOTS,
        lanes: int = LANES,
        bounds: PipelineBounds = PipelineBounds(),  # noqa: B008  # immutable
        beat: Callable[[], None] = lambda: None,
        refill: Callable[[], None] | None = None,
        refills: Callable[[], int] = lambda: 0,
        visible: Callable[[list[LaneResult]], None] = lambda _: None,
        incarnation: int = 0,
    ) -> None:
        super().__init__(slots)
        self._lanes = lanes
        self._refilling = None if refill is None else Refilling(refill, refills)
        self._servers = RedisServers(url, _SCRIPTS, bounds, beat)
        slots_used = Counter(slot_name(self.part_fn(str(lane)) % slots) for lane in range(lanes))
        self._writer = _Writer(self._servers, prefix, explain_prefix, now_ms, visible, incarnation, slots_used)

    @property
    def counters(self) -> "RedisCounters":
        """What was written so far, by all slots of this process."""
        writer, servers = self._writer, self._servers.counters
        return RedisCounters(
            writer.written, writer.refused, servers.calls, servers.reconnects, servers.resent, writer.refills
        )

    def check(self) -> None:
        """Connect; SinkError where Redis does not answer or refuses the login."""
        self._servers.connect()

    def take_answers(self) -> None:
        """Take the answers that are there, without waiting for others: so `visible` is told in time in a quiet flow.

        For the thread that writes, between two batches.
        """
        self._writer.take_answers()

    def send_waiting(self) -> None:
        """Send what waits for answers that may be there by now: so Redis works while a long batch is applied.

        For the thread that writes, now and then in the middle of a batch.
        """
        self._writer.send_waiting()

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "_Slot":
        """One slot's view of the shared writer; there is nothing to resume, since Redis itself knows the versions."""
        if self._refilling is None:
            return _Slot(for_part, self._writer, None)
        slot = int(for_part.removeprefix("slot-"))
        lanes = (lane for lane in range(self._lanes) if self.part_fn(str(lane)) % self._slots == slot)
        return _Slot(for_part, self._writer, Sentinel(for_part, lanes, self._refilling))


class RedisCounters(NamedTuple):
    """SKUs written, SKUs refused (Redis had something as new, or has lost it), calls answered, connections made anew.

    `resent` are calls sent again, `refills` those that slots here have asked for because Redis had lost something.
    """

    written: int
    refused: int
    calls: int
    reconnects: int
    resent: int
    refills: int


class _Slot(StatefulSinkPartition[LaneResult, None]):
    def __init__(self, name: str, writer: "_Writer", sentinel: Sentinel | None) -> None:
        self._name = name
        self._writer = writer
        writer.open(name, sentinel)

    def write_batch(self, values: list[LaneResult]) -> None:
        self._writer.write(self._name, values)

    def snapshot(self) -> None:
        self._writer.settle()

    def close(self) -> None:
        self._writer.close(self._name)


class _Writer:
    """All slots of one process: what they write, and how old it is."""

    def __init__(
        self,
        servers: RedisServers,
        prefix: str,
        explain_prefix: str,
        now_ms: Callable[[], int],
        visible: Callable[[list[LaneResult]], None],
        incarnation: int,
        lanes: Mapping[str, int],
    ) -> None:
        self.written = 0
        self.refused = 0
        self.refills = 0
        self._slots: dict[str, Sentinel | None] = {}  # that are open
        self._servers = servers
        self._prefix = prefix
        self._explain_prefix = explain_prefix
        self._now_ms = now_ms
        self._visible = visible
        self._unseen: deque[_Unseen] = deque()
        self._incarnation = incarnation  # the greatest known; 0: none
        self._claimed = 0  # the one that this server has been told of
        self._reconnects = 0
        self._health = _Health(now_ms, lanes)
        self._slots_used = len(lanes)

    def open(self, slot: str, sentinel: Sentinel | None) -> None:
        """Begin to write for `slot`, and look whether Redis holds what it wrote before."""
        self._slots[slot] = sentinel
        self._look()

    def write(self, slot: str, results: list[LaneResult]) -> None:
        """Send the availability in `results`, and the health when it is due."""
        self._servers.read_ready()
        self._learn(results)
        self._claim()
        for skus, texts in calls_of(self._prefix, results):
            self._servers.send("availability", texts, self._counting(skus))
        for call in merged(call for result in results for call in result.hashes):
            self._servers.send_packed("availability", call.argument, self._counting(call.skus))
        self._send_explanations([explanation for result in results for explanation in result.explanations])
        self._send_rules([held for result in results for held in result.rules])
        for result in results:
            if result.marks:
                self._health.told(slot, result.lane, result.marks)
        self._unseen.append(_Unseen(self._servers.last_number, results))
        if sentinel := self._slots[slot]:
            sentinel.told(results, self._servers.last_number)
        self._health.draw_up(self._servers.last_number, self._slots)
        self._follow_up()

    def take_answers(self) -> None:
        """Tell of batches that can be read by now, where any is waited for."""
        if self._unseen:
            self._servers.read_ready()
            self._show()

    def send_waiting(self) -> None:
        """Send what waits for answers that may be there by now."""
        if self._servers.has_waiting:
            self._servers.read_ready()

    def settle(self) -> None:
        """Wait until everything sent has been answered."""
        self._servers.drain()
        self._follow_up()
        self._servers.drain()

    def close(self, slot: str) -> None:
        """Forget `slot`, and with the last one the connection."""
        self._slots.pop(slot, None)
        if not self._slots:
            self._servers.close()

    def _follow_up(self) -> None:
        """Do what had to wait for answers, and send what is due beside the results."""
        self._notice_reconnect()
        self._show()
        self._claim()
        self._send_health()
        self._look()

    def _notice_reconnect(self) -> None:
        """After a new connection, which may lead to another server, tell it what is told once, and look at it."""
        if self._reconnects != self._servers.counters.reconnects:
            self._reconnects = self._servers.counters.reconnects
            self._claimed = 0
            for sentinel in self._sentinels():
                sentinel.look_soon()

    def _show(self) -> None:
        """Tell of the batches that can be read by now."""
        while self._unseen and self._servers.answered_through(self._unseen[0].last_number):
            self._visible(self._unseen.popleft().results)

    def _look(self) -> None:
        """Ask on behalf of each slot whether Redis holds what was written, where that is due."""
        if not self._incarnation:
            return
        now_ms = self._now_ms()
        for sentinel in self._sentinels():
            if step := sentinel.due(now_ms, self._servers.answered_through):
                keys = self._servers.keys_everywhere(sentinel_key(self._prefix))
                sentinel.begin(step, now_ms, len(keys))
                for texts in [sentinel.texts(key, self._incarnation) for key in keys]:
                    self._servers.send("sentinel", texts, partial(self._looked, sentinel))

    def _looked(self, sentinel: Sentinel, answer: int) -> None:
        if sentinel.answered(answer):
            self.refills += 1
            self._claimed = 0

    def _sentinels(self) -> list[Sentinel]:
        return [sentinel for sentinel in self._slots.values() if sentinel]

    def _counting(self, skus: int) -> Callable[[int], None]:
        """What is done with the answer to a call that holds this many SKUs."""

        def answered(written: int) -> None:
            self.written += written
            self.refused += skus - written

        return answered

    def _send_explanations(self, explanations: list[Explanation]) -> None:
        for start in range(0, len(explanations), EXPLANATIONS_PER_CALL_MAX):
            texts: list[str] = []
            for explanation in explanations[start : start + EXPLANATIONS_PER_CALL_MAX]:
                key = explain_key(self._explain_prefix, explanation.sku)
                texts += (key, str(explanation.incarnation), str(explanation.version), _encode(explanation).decode())
            self._servers.send("explanations", texts, lambda _: None)

    def _send_rules(self, held: list[RulesInForce]) -> None:
        if not held:
            return
        greatest = max(reversed(held), key=lambda rules: rules.generation)  # of equal ones the latest
        texts = [
            rules_key(self._prefix),
            str(greatest.incarnation),
            str(greatest.generation),
            bytes(greatest.document).decode(),
        ]
        for rules in held:
            said = _encode(Held(rules.generation, rules.digest, rules.offset, rules.time)).decode()
            texts += (str(rules.partition), str(rules.offset), said)
        self._servers.send("rules", texts, lambda _: None)

    def _learn(self, results: list[LaneResult]) -> None:
        of_skus = (result.availability[0].incarnation for result in results if result.availability)
        of_rules = (result.rules[0].incarnation for result in results if result.rules)
        of_calls = (result.hashes[0].incarnation for result in results if result.hashes)
        self._incarnation = max((self._incarnation, *of_skus, *of_rules, *of_calls))

    def _claim(self) -> None:
        """Tell Redis of a new incarnation ahead of its first write, so that the next state draws a greater one."""
        if self._incarnation > self._claimed:
            self._claimed = self._incarnation
            self._tell_health([])

    def _send_health(self) -> None:
        """Send the health that was drawn up, once everything that it speaks of has been answered."""
        drawn_up = self._health.drawn_up
        if drawn_up is not None and self._servers.answered_through(drawn_up.after):
            self._health.drawn_up = None
            self._tell_health(drawn_up.parts)

    def _tell_health(self, parts: list[str]) -> None:
        texts = [health_key(self._prefix), str(self._incarnation), str(self._slots_used), *parts]
        self._servers.send("health", texts, lambda _: None)


def calls_of(prefix: str, results: Iterable[LaneResult]) -> Iterator[tuple[int, list[str | int]]]:
    """The availability in `results` as arguments of the Lua script, each with how many SKUs (at most 128) it holds."""
    skus, texts = 0, []
    for result in results:
        for record in result.availability:
            texts += _texts(prefix, record, is_behind=result.is_behind)
            skus += 1
            if skus == SKUS_PER_CALL_MAX:
                yield skus, texts
                skus, texts = 0, []
    if skus:
        yield skus, texts


def merged(calls: Iterable[HashCall]) -> Iterator[HashCall]:
    """The same SKUs in the same order in fewer calls, of at most 128 each where each of `calls` has no more.

    Each call costs us and Redis some 10 µs besides its SKUs, and a quiet flow has one or two of them in each lane's.
    """
    waiting: list[HashCall] = []
    skus = 0
    for call in calls:
        if waiting and skus + call.skus > SKUS_PER_CALL_MAX:
            yield _joined(waiting)
            waiting, skus = [], 0
        waiting.append(call)
        skus += call.skus
    if waiting:
        yield _joined(waiting)


def _joined(calls: list[HashCall]) -> HashCall:
    """One call; each argument is a MessagePack array of up to 2^32 − 1 texts, whose head has five bytes."""
    if len(calls) == 1:
        return calls[0]
    count = sum(int.from_bytes(call.argument[1:HEAD_BYTES], "big") for call in calls)
    head = ARRAY_32 + count.to_bytes(HEAD_BYTES - 1, "big")
    argument = b"".join([head, *(call.argument[HEAD_BYTES:] for call in calls)])
    return HashCall(sum(call.skus for call in calls), max(call.incarnation for call in calls), argument)


def _texts(prefix: str, record: Availability, *, is_behind: bool) -> list[str | int]:
    """One SKU as the script reads it: key, number of texts, texts."""
    channels = record.channels
    width = 6 + 2 * len(channels)
    texts: list[str | int] = [
        availability_key(prefix, record.sku),
        -width if is_behind else width,
        INCARNATION,
        str(record.incarnation),
        VERSION,
        str(record.version),
        AS_OF,
        _ms_text(record.as_of),
    ]
    for name, channel in channels.items():
        texts += (name, str(channel.promised))
    return texts


def _ms_text(time: str) -> str:
    """Milliseconds since 1970 as text; quick for times as onhand writes them, whose seconds come again and again."""
    if len(time) == 24 and time[19] == "." and time[23] == "Z":  # noqa: PLR2004  # 2026-11-21T09:00:00.123Z
        return (_second_text(time[:19]) + time[20:23]).lstrip("0") or "0"  # zeros: the first second of 1970
    return str(parse_ms(time))


@lru_cache(maxsize=4096)
def _second_text(time: str) -> str:
    return str(parse_ms(time + "Z") // 1000)


class _Unseen(NamedTuple):
    """Results of one batch, which can be read once every call up to `last_number` has been answered."""

    last_number: int
    results: list[LaneResult]


class _DrawnUp(NamedTuple):
    """A health report that holds once every call up to `after` has been answered."""

    after: int
    parts: list[str]  # slot, part, slot, part, …


class _Health:
    """What the marks say about the age of the numbers, per slot, at most once a second.

    Nothing is said before all `lanes` of the slots here have told how far they are with all origins: what is not heard
    of may be behind.
    """

    def __init__(self, now_ms: Callable[[], int], lanes: Mapping[str, int]) -> None:
        self.drawn_up: _DrawnUp | None = None
        self._now_ms = now_ms
        self._lanes = lanes
        self._next_ms = 0
        self._slots: dict[str, dict[Origin, dict[int, Mark]]] = {}

    def told(self, slot: str, lane: int, marks: list[Mark]) -> None:
        """Note how far `lane` has come."""
        origins = self._slots.setdefault(slot, {})
        for mark in marks:
            origins.setdefault(mark.origin, {})[lane] = mark

    def draw_up(self, after: int, slots: Iterable[str]) -> None:
        """Draw up a report about `slots` when the last one is a second old and has been sent."""
        now_ms = self._now_ms()
        if self.drawn_up is not None or now_ms < self._next_ms:
            return
        if not all(self._is_whole(slot) for slot in slots):
            return
        self._next_ms = now_ms + HEALTH_INTERVAL_MS
        parts: list[str] = []
        for slot, origins in self._slots.items():
            watermark_ms, lag = age_of([_slowest(lanes) for lanes in origins.values()], now_ms)
            parts += (slot, f"{watermark_ms} {lag} {now_ms}")
        self.drawn_up = _DrawnUp(after, parts)

    def _is_whole(self, slot: str) -> bool:
        lanes, origins = self._lanes.get(slot, 0), self._slots.get(slot, {})
        if not lanes or not origins:
            return not lanes
        known = max(mark.origins for marks in origins.values() for mark in marks.values())
        return len(origins) >= known and all(len(marks) >= lanes for marks in origins.values())


def _slowest(lanes: dict[int, Mark]) -> Mark:
    return min(lanes.values(), key=lambda mark: mark.offset)


def age_of(marks: list[Mark], now_ms: int) -> tuple[int, str]:
    """Watermark in ms since 1970 and lag in seconds, as text, of origins that have come as far as `marks` say.

    An origin read to its end is as new as its reading. Before that it is as old as the record read last; where that
    has no time, the watermark is 0 and the lag `inf`. A mark that took longer than UNDER_WAY_MS to come, or after
    which none came, makes its origin older: what is under way with it is not in the numbers.
    """
    watermarks_ms, lags_ms = [], []
    for mark in marks:
        late_ms = max(0, now_ms - mark.read_ms - UNDER_WAY_MS)
        if mark.offset >= mark.end_offset:
            watermarks_ms.append(mark.read_ms)
            lags_ms.append(late_ms)
        elif mark.record_ms < 0:
            return 0, UNKNOWN_LAG
        else:
            watermarks_ms.append(mark.record_ms)
            lags_ms.append(late_ms + max(0, mark.read_ms - mark.record_ms))
    return min(watermarks_ms), f"{max(lags_ms) / 1000:.3f}"
