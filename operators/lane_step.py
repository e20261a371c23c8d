"""Lane step: a lane's place in a dataflow, where it also does in turns what nobody waits for."""

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Final, NamedTuple, cast

import bytewax.operators as op
from bytewax.dataflow import Stream
from bytewax.operators import KeyedStream, StatefulBatchLogic

from operators.keeping import LIMITS, Bases, BaseTurns, Keeping, Limits, restored
from operators.lane import Lane, LaneSettings, nothing_of
from operators.route import Item, Part, Routed, route
from operators.rules import RuleBook
from operators.telling import Teller
from operators.turns import SpareTurns, Turns
from schemas.outputs import Explanation, LaneResult

EXPLAINED_EVERY_MS: Final = 1000  # a SKU, at most
EXPLAINING_SHARE: Final = 0.25  # of a core, that all lanes of a process together spend on it at most,
EXPLAINING_SHARE_PRESSED: Final = 0.02  # and while movements have to wait, or are older than this when they are applied
PRESSED_AGE_MS: Final = 50
EXPLAINS_WITHIN_MS: Final = 150_000  # how far away a turn can be
ASKED_AT_ONCE_MAX: Final = 4  # SKUs of one lane, explained because somebody asked: who waits longer asks again
CATCH_UP_MS: Final = 100
BEHIND_MS: Final = 2000  # explanations wait while what is read is older than this
EXPLAINED_AT_END_MAX: Final = 100  # SKUs of one lane: a drain does not wait for all that nobody asked about,
EXPLAINING_AT_END_SECONDS: Final = 0.25  # nor longer than this, of one core, for all lanes together
TOLD_AT_ONCE_MAX: Final = 1024  # SKUs of one lane, whose records the topic is told
TOLD_RARELY: Final = 10  # times `tell_ms` while movements have to wait: they are not made to wait for records, too
REFILLED_AT_ONCE_MAX: Final = 128  # SKUs of one lane: so what is new never waits long behind what was lost
REFILLED_EVERY_MS: Final = 50
_CONTENT_END: Final = LaneResult._fields.index("oldest_ms")  # all before it but the lane's number is content


class LaneHooks(NamedTuple):
    """What surrounds the lanes of a process, and is told of their work.

    `sent` and `applied` get a reader slot's partition and bytes that left for lanes, or were applied by them. `refills`
    says how often Redis was found to have lost what it was told. `snapshotted` gets a lane, the bytes of its snapshot,
    its positions, and the seconds that packing them took by `monotonic`. `worked` are the seconds for which this thread
    had a processor. `beat` is told at each activation that the worker is alive. At each activation `asked` gives the
    names of the SKUs of a lane that somebody wants explained now.
    """

    sent: Callable[[int, int], None] | None = None
    applied: Callable[[int, int], None] | None = None
    refills: Callable[[], int] = lambda: 0
    snapshotted: Callable[[int, int, int, float], None] = lambda *_: None
    beat: Callable[[], None] = lambda: None
    monotonic: Callable[[], float] = lambda: 0.0
    worked: Callable[[], float] = lambda: 0.0
    asked: Callable[[int], Sequence[str]] = lambda _: ()


UNWATCHED: Final = LaneHooks()


class LaneMaking(NamedTuple):
    """What every lane of a step is made with.

    `now_ms` is the wall clock: it decides nothing but how often a SKU is explained, and how often the topic is told of
    it, which is each `tell_ms`. Without `redis_prefix`, how keys begin, all is told at once, and nothing is written
    beforehand for Redis. `shadow` are rules to compare with.
    `durable` where the dataflow runs with a store that keeps the lanes' snapshots, at the ends of epochs of
    `epoch_seconds`, 0 where that is not known; `is_behind` where a run before this
    one has told more than the store may hold. With `bases` a lane that was given little is kept as what it was given,
    within `limits`; never one with `shadow` rules, which may be others in the next run.
    """

    rules: RuleBook
    settings: LaneSettings
    now_ms: Callable[[], int]
    shadow: RuleBook | None = None
    redis_prefix: str | None = None
    tell_ms: int = 0
    durable: bool = False
    is_behind: bool = False
    hooks: LaneHooks = UNWATCHED
    bases: Bases | None = None
    limits: Limits = LIMITS
    epoch_seconds: float = 0.0


class LaneTurns(NamedTuple):
    """Whose turn it is, shared by the lanes of a process: to tell the topic, to explain, and to begin a base."""

    telling: Turns
    explaining: SpareTurns
    bases: BaseTurns

    @classmethod
    def of(cls, making: LaneMaking) -> "LaneTurns":
        """Nobody has had one yet."""
        lanes = making.settings.lanes
        explaining = SpareTurns(EXPLAINING_SHARE, EXPLAINING_SHARE_PRESSED, lanes)
        return cls(Turns(making.tell_ms / lanes, lanes), explaining, BaseTurns(making.epoch_seconds))


class LaneLogic(StatefulBatchLogic[Routed, LaneResult, bytes]):
    """A lane as a step of a dataflow: one state, one snapshot; when it explains itself and tells Redis again."""

    def __init__(self, resume_state: bytes | None, making: LaneMaking, turns: LaneTurns | None = None) -> None:
        self._blob = resume_state
        self._making = making
        self._hooks = making.hooks
        self._turns = turns or LaneTurns.of(making)
        self._lane: Lane | None = None
        self._keeping: Keeping | None = None
        self._explained_ms: dict[int, int] = {}  # by SKU, in the last second
        self._explains_ms: float | None = None  # its turn
        self._behind_ms = 0  # when it was last seen to be behind
        self._was_behind = False
        self._refills = 0  # how many it has begun
        self._refilling = False
        self._refills_next: datetime | None = None
        self._teller: Teller | None = None
        self._told_ms = 0  # when the topic was told of all that had changed
        self._tells_ms = 0.0  # its turn

    def on_batch(self, values: list[Routed]) -> tuple[Iterable[LaneResult], bool]:
        """What a batch leads to, and what else is due."""
        self._hooks.beat()
        lane = self._lane_for(values[0][0])
        items = [item for _, item in values]
        if self._keeping is not None:
            self._keeping.given(items)
        result = lane.apply(items, self._hooks.beat, teller=self._teller)
        if self._hooks.applied is not None:
            _count(values, self._hooks.applied)
        now_ms = self._making.now_ms()
        age_ms = _age_ms(values, now_ms)
        if age_ms > PRESSED_AGE_MS:
            self._turns.explaining.pressed(now_ms)
        if age_ms > BEHIND_MS:
            self._behind_ms = now_ms
        results = [result] if _has_content(result) else []
        return self._and_what_is_due(results, lane, now_ms)

    def on_notify(self) -> tuple[Iterable[LaneResult], bool]:
        """What could not be told at once is told when there is time for it."""
        self._hooks.beat()
        return self._and_what_is_due([], cast("Lane", self._lane), self._making.now_ms())

    def _and_what_is_due(self, results: list[LaneResult], lane: Lane, now_ms: int) -> tuple[list[LaneResult], bool]:
        results += self._refilled(lane, now_ms)
        results += self._told(lane, now_ms)
        results += self._explained(lane, now_ms)
        if self._keeping is not None:
            self._keeping.prepare()
        return results, StatefulBatchLogic.RETAIN

    def on_eof(self) -> tuple[Iterable[LaneResult], bool]:
        """All that the topic was not told yet, and what there is time to explain."""
        self._hooks.beat()
        lane, results = self._lane, []
        while lane is not None and self._teller is not None and lane.has_untold:
            results.append(lane.tell(self._teller, TOLD_AT_ONCE_MAX)[0])
        if lane is not None and not lane.is_behind:
            result = self._explained_at_end(lane)
            results.extend([result] if result.explanations else [])
        return results, StatefulBatchLogic.RETAIN

    def _explained_at_end(self, lane: Lane) -> LaneResult:
        """What there is time for, one at least; the rest is in the snapshot, and explained by the next run."""
        explanations: list[Explanation] = []
        until = self._hooks.worked() + EXPLAINING_AT_END_SECONDS / self._making.settings.lanes
        for sku in list(islice(lane.unexplained, EXPLAINED_AT_END_MAX)):
            explanations += lane.explain([sku]).explanations
            if self._hooks.worked() > until:
                break
        return nothing_of(lane.number)._replace(explanations=explanations)

    def notify_at(self) -> datetime | None:
        """When something is due next."""
        due = [] if self._refills_next is None else [self._refills_next]
        if self._explains_ms is not None:
            due.append(_instant(self._explains_ms))
        if self._lane is not None and self._lane.has_untold:
            due.append(_instant(self._tells_from_ms(self._making.now_ms())))
        return min(due, default=None)

    def snapshot(self) -> bytes:
        """The lane's state, or nothing where no store would keep it: packing it makes every movement wait."""
        if not self._making.durable:
            return b""
        if self._lane is None:  # an epoch that ended before the lane was woken, so nothing has changed
            if self._blob is None:
                raise RuntimeError("a lane that was never woken has nothing to snapshot")
            return self._blob
        self._hooks.beat()
        began = self._hooks.monotonic()
        blob = self._lane.snapshot() if self._keeping is None else self._keeping.snapshot()
        seconds = self._hooks.monotonic() - began
        self._hooks.snapshotted(self._lane.number, len(blob), self._lane.position_count, seconds)
        return blob

    def _lane_for(self, number: int) -> Lane:
        """Bytewax tells a logic its state but not its key: the first item does."""
        if self._lane is None:
            making, changes = self._making, None
            made = (making.rules, making.settings, making.shadow)
            if self._blob is None:
                self._lane = Lane(number, *made, is_behind=making.is_behind)
            else:
                self._lane, changes = restored(number, self._blob, making.bases, *made, is_behind=making.is_behind)
            if making.durable and making.bases is not None and making.shadow is None:
                turns, clock = self._turns.bases, self._hooks.monotonic
                self._keeping = Keeping(self._lane, making.bases, turns, changes, making.limits, clock)
            self._was_behind = making.is_behind
            self._blob = None
            if making.redis_prefix is not None:
                self._teller = self._lane.teller(making.redis_prefix)
        return self._lane

    def _refilled(self, lane: Lane, now_ms: int) -> Iterable[LaneResult]:
        """What Redis is told again in this activation: nothing while readers may have seen newer."""
        if lane.is_behind:
            return []
        if self._was_behind:
            self._was_behind = False
            self._refilling = lane.begin_refill_of_held()
        asked = self._hooks.refills()
        if asked > self._refills:
            self._refills = asked
            self._refilling = True
            lane.begin_refill()
        if not self._refilling or (self._refills_next is not None and now_ms < _ms_of(self._refills_next)):
            return []
        result, is_last = lane.refill(REFILLED_AT_ONCE_MAX, self._teller)
        self._refilling = not is_last
        self._refills_next = None if is_last else _instant(now_ms + REFILLED_EVERY_MS)
        return [result._replace(refilled=self._refills if is_last else 0)]

    def _told(self, lane: Lane, now_ms: int) -> list[LaneResult]:
        """What the topic is told in this activation; what is left has waited long enough, too."""
        if self._teller is None or not lane.has_untold or now_ms < self._tells_from_ms(now_ms):
            return []
        tell_ms, is_pressed = self._making.tell_ms, self._turns.explaining.is_pressed(now_ms)
        if is_pressed and self._told_ms <= now_ms < self._told_ms + TOLD_RARELY * tell_ms:
            self._tells_ms = self._turns.telling.next_ms(now_ms + tell_ms)
            return []
        result, is_all = lane.tell(self._teller, TOLD_AT_ONCE_MAX)
        if is_all:
            self._told_ms = now_ms
            self._tells_ms = self._turns.telling.next_ms(now_ms + tell_ms)
        return [result]

    def _tells_from_ms(self, now_ms: int) -> float:
        """When the topic may be told again: at once where the clock was set back."""
        return self._tells_ms if now_ms >= self._told_ms else now_ms

    def _is_behind_at(self, now_ms: int) -> bool:
        return now_ms < self._behind_ms + EXPLAINED_EVERY_MS

    def _explained(self, lane: Lane, now_ms: int) -> list[LaneResult]:
        """SKUs that somebody asked for, and one more where it is the lane's turn."""
        asked = self._hooks.asked(lane.number)
        if not lane.unexplained:
            self._explains_ms = None
            return []
        if lane.is_behind or self._is_behind_at(now_ms):
            self._passes(now_ms)
            return []
        results = self._explained_as_asked(lane, asked, now_ms) if asked else []
        return results + self._explained_in_turn(lane, now_ms) if lane.unexplained else results

    def _explained_as_asked(self, lane: Lane, names: Sequence[str], now_ms: int) -> list[LaneResult]:
        """At once, though it be explained twice in a second; turns are later by it. Who waits in vain asks again."""
        turns, results = self._turns.explaining, []
        for sku in lane.asked_rows(names)[:ASKED_AT_ONCE_MAX]:
            if not turns.may_borrow(now_ms):
                break
            self._explained_ms[sku] = now_ms
            result, seconds = self._explanation(lane, sku)
            turns.borrowed(seconds, now_ms)
            results.append(result)
        return [result for result in results if result.explanations]

    def _explained_in_turn(self, lane: Lane, now_ms: int) -> list[LaneResult]:
        """One SKU, where it is the lane's turn; what that took says when the turn after it may be."""
        if self._explains_ms is None:
            self._explains_ms = self._turns.explaining.next_ms(now_ms)
        if now_ms < self._explains_ms <= now_ms + EXPLAINS_WITHIN_MS:
            return []  # a turn further away was taken before the clock was set back
        sku = self._due(lane, now_ms)
        if sku is None:
            self._passes(now_ms)
            return []
        result, seconds = self._explanation(lane, sku)
        self._turns.explaining.took(seconds, now_ms)
        self._explains_ms = self._turns.explaining.next_ms(now_ms) if lane.unexplained else None
        return [result] if result.explanations else []

    def _passes(self, now_ms: int) -> None:
        """Its turn, where it has come, is not used: it takes another, or all lanes would have theirs at once."""
        if self._explains_ms is None or self._explains_ms <= now_ms:
            self._explains_ms = self._turns.explaining.next_ms(now_ms + CATCH_UP_MS)

    def _explanation(self, lane: Lane, sku: int) -> tuple[LaneResult, float]:
        """What there is to explain about one SKU, and the seconds that took; a good moment to see how busy we are."""
        began = self._hooks.worked()
        self._turns.explaining.worked(began, self._hooks.monotonic())
        result = lane.explain([sku])
        return result, self._hooks.worked() - began

    def _due(self, lane: Lane, now_ms: int) -> int | None:
        """The SKU that has waited longest, of those that were not explained within the last second."""
        before_ms = now_ms - EXPLAINED_EVERY_MS
        self._explained_ms = {sku: at_ms for sku, at_ms in self._explained_ms.items() if before_ms < at_ms <= now_ms}
        sku = next((sku for sku in lane.unexplained if sku not in self._explained_ms), None)
        if sku is not None:
            self._explained_ms[sku] = now_ms
        return sku


def _instant(at_ms: float) -> datetime:
    """At a whole millisecond, which the clock has then reached."""
    return datetime.fromtimestamp(math.ceil(at_ms) / 1000, UTC)


def _ms_of(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


def _age_ms(values: list[Routed], now_ms: int) -> int:
    """How old the newest record is; a source whose records have no time is always new."""
    for _, item in reversed(values):
        if isinstance(item, Part):
            newest_ms: int = item.batch.timestamps[item.places[-1]]
            return now_ms - newest_ms if newest_ms >= 0 else 0
    return 0


def _count(routed: Iterable[Routed], told: Callable[[int, int], None]) -> None:
    """Tells how many bytes of keys and payloads the parts hold, by partition."""
    for _, item in routed:
        if isinstance(item, Part):
            told(item.batch.origin.partition, item.bytes_)


def _has_content(result: LaneResult) -> bool:
    return result.woken or bool(result.hashes) or any(result[1:_CONTENT_END])


def run_lanes(step_id: str, items: Stream[Item], making: LaneMaking) -> KeyedStream[LaneResult]:
    """Items ─▶ route ─▶ lane: the results of every lane, keyed by its number as text."""
    lanes, by_crc32 = making.settings.lanes, making.settings.by_crc32
    sent, turns = making.hooks.sent, LaneTurns.of(making)

    def route_all(batch: list[Item]) -> Iterable[tuple[str, Routed]]:
        routed = [part for item in batch for part in route(item, lanes, by_crc32=by_crc32)]
        if sent is not None:
            _count(routed, sent)
        return [(str(part[0]), part) for part in routed]

    routed: KeyedStream[Routed] = op.flat_map_batch(f"{step_id}_route", items, route_all)
    return op.stateful_batch(step_id, routed, lambda state: LaneLogic(state, making, turns))
