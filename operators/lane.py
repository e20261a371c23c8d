"""Lane: one actor over its SKUs that puts the operators in order, and its place in a dataflow."""

from base64 import b64encode
from collections.abc import Iterable
from typing import Final, NamedTuple, cast

import bytewax.operators as op
import numpy as np
from bytewax.dataflow import Stream
from bytewax.operators import KeyedStream, StatefulBatchLogic

from operators.admission import NO_TIMESTAMP, admit
from operators.duplicates import RecentIds, hash_of
from operators.levels import LEVELS
from operators.positions import effect_of, signed_units
from operators.route import Item, Routed, route
from operators.rules import RuleBook
from operators.snapshots import SnapshotError, pack, unpack
from operators.stock import Change, Stock
from operators.ticks import Clocks
from schemas.batches import Batch, Mark, Origin
from schemas.movements import Control, Decoded, Movement, Reason, Refusal, TransferShipped, decode
from schemas.outputs import Cause, DeadLetter, LaneResult, Threshold, threshold_id
from schemas.times import format_ms

NOTHING_APPLIED: Final = -1
CONTROL_LANE: Final = 0  # reports what is wrong with a control record that every lane sees, so that it is told once
IDS_PER_SKU_MAX: Final = 65_536
TRACE_HEADER: Final = "traceparent"


class LaneSettings(NamedTuple):
    """What does not change while a state lives."""

    lanes: int
    incarnation: int
    dedupe_ms: int
    ids_per_sku_max: int = IDS_PER_SKU_MAX


class _Message(NamedTuple):
    """One raw message where it stands."""

    origin: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    payload: bytes | None
    traceparent: str | None


class _Outcome:
    """What one activation leaves behind, while it is being collected."""

    def __init__(self) -> None:
        self.touched: dict[int, None] = {}  # SKU rows to publish, in the order they were met
        self.thresholds: list[Threshold] = []
        self.dead_letters: list[DeadLetter] = []
        self.marks: list[Mark] = []
        self.applied = 0
        self.duplicates = 0
        self.misplaced = 0


class Lane:
    """All state of one share of the SKUs; a pure function of the batches it was given, in their order."""

    def __init__(self, number: int, rules: RuleBook, settings: LaneSettings) -> None:
        self.number = number
        self._rules = rules
        self._settings = settings
        self._origins: dict[Origin, int] = {}
        self._applied: list[int] = []
        self._clocks = Clocks()
        self._stock = Stock(rules)
        self._ids = RecentIds(self._stock.skus, settings.dedupe_ms, settings.ids_per_sku_max)

    def apply(self, items: Iterable[Item]) -> LaneResult:
        """Applies batches in order; what an origin was applied up to already is skipped."""
        outcome = _Outcome()
        for item in items:
            if isinstance(item, Mark):
                outcome.marks.append(item)
            else:
                self._apply_batch(item, outcome)
        return LaneResult(
            self.number,
            [self._stock.availability(sku, self._settings.incarnation) for sku in outcome.touched],
            outcome.thresholds,
            outcome.dead_letters,
            outcome.marks,
            outcome.applied,
            outcome.duplicates,
            outcome.misplaced,
        )

    def snapshot(self) -> bytes:
        """The whole state as one blob."""
        return pack(
            {
                "lane": self.number,
                "lanes": self._settings.lanes,
                "incarnation": self._settings.incarnation,
                "origins": [list(origin) for origin in self._origins],
                "applied": self._applied,
                "clocks_ms": self._clocks.as_list(),
                "stock": self._stock.dump(),
                "ids": self._ids.dump(),
            }
        )

    @classmethod
    def restore(cls, number: int, blob: bytes, rules: RuleBook, settings: LaneSettings) -> "Lane":
        """The lane as it was at `snapshot`; raises SnapshotError where the blob is not this lane's."""
        state = unpack(blob)
        for name, expected in (("lane", number), ("lanes", settings.lanes)):
            if state[name] != expected:
                raise SnapshotError(f"the snapshot has {name} = {state[name]}, this run {expected}")
        lane = cls(number, rules, settings._replace(incarnation=state["incarnation"]))
        lane._origins = {Origin(*origin): row for row, origin in enumerate(state["origins"])}
        lane._applied = state["applied"]
        lane._clocks = Clocks(state["clocks_ms"])
        lane._stock.load(state["stock"], state["clocks_ms"])
        lane._ids.load(state["ids"])
        return lane

    def _apply_batch(self, batch: Batch, outcome: _Outcome) -> None:
        origin = self._origin(batch.origin)
        headers = batch.headers or [None] * len(batch.offsets)
        for offset, timestamp_ms, key, payload, pairs in zip(
            batch.offsets, batch.timestamps, batch.keys, batch.payloads, headers, strict=True
        ):
            if offset <= self._applied[origin]:
                continue
            traceparent = None if pairs is None else _traceparent(pairs)
            message = _Message(origin, offset, timestamp_ms, key, payload, traceparent)
            self._apply_message(message, batch.origin, outcome)
            self._applied[origin] = offset

    def _origin(self, origin: Origin) -> int:
        row = self._origins.setdefault(origin, len(self._origins))
        if row == len(self._applied):
            self._applied.append(NOTHING_APPLIED)
            self._clocks.add_origin()
        return row

    def _apply_message(self, message: _Message, origin: Origin, outcome: _Outcome) -> None:
        decoded = decode(message.payload)
        refusal = (
            decoded
            if isinstance(decoded, Refusal)
            else admit(decoded, message.key, message.timestamp_ms, self._rules.sources)
        )
        if refusal is None:
            decoded = cast("Decoded", decoded)
            if isinstance(decoded.record, Movement):
                refusal = self._apply_movement(decoded.record, decoded.time_ms, message, outcome)
            else:
                self._tick(decoded.time_ms, message, outcome)
        if refusal is not None and (self.number == CONTROL_LANE or message.key or not _is_control(decoded)):
            outcome.dead_letters.append(_dead_letter(message, origin, refusal))

    def _apply_movement(self, movement: Movement, time_ms: int, message: _Message, outcome: _Outcome) -> Refusal | None:
        """Duplicates out, signs applied, levels looked at."""
        sku = self._stock.names.row(movement.sku)
        hash_ = hash_of(movement.source, movement.id)
        if sku < 0:
            sku = self._stock.add_sku(movement.sku, message.origin, self._clocks[message.origin])
        elif time_ms < self._ids.horizon_ms(sku):
            return Refusal(
                Reason.TOO_LATE,
                f"dated before {format_ms(self._ids.horizon_ms(sku))}: it could be a forgotten duplicate",
                movement.source,
                movement.sku,
            )
        elif self._ids.knows(hash_, sku):
            outcome.duplicates += 1
            return None
        cells = self._stock.skus.cells
        cells["newest_ms"][sku] = max(cells["newest_ms"][sku], time_ms)
        self._ids.remember(hash_, sku, time_ms)
        self._move(sku, movement)
        outcome.applied += 1
        if cells["home"][sku] == message.origin:
            cause = Cause("movement", movement.source, movement.id)
            self._reflect(sku, time_ms, message, cause, movement.correlation, outcome)
        else:
            cells["pending"][sku] = 1
            outcome.misplaced += 1
        return None

    def _move(self, sku: int, movement: Movement) -> None:
        effect, units = effect_of(movement), signed_units(movement)
        self._stock.move(sku, movement.location, effect.here, units)
        if isinstance(movement, TransferShipped):
            self._stock.move(sku, movement.destination, effect.there, units)

    def _tick(self, time_ms: int, message: _Message, outcome: _Outcome) -> None:
        """The clock of the origin moves on; SKUs at home there follow what begins or ends with it."""
        before_ms = self._clocks[message.origin]
        moved = self._clocks.tick(message.origin, time_ms)
        rules_change = moved and self._rules.changes_between(before_ms, time_ms)
        skus = self._stock.skus
        concerned = (skus["home"] == message.origin) & ((skus["pending"] != 0) | rules_change)
        for sku in np.flatnonzero(concerned).tolist():
            changed = rules_change and self._stock.resolve_again(sku, time_ms)
            if changed or skus.cells["pending"][sku]:
                self._reflect(sku, time_ms, message, Cause("clock"), None, outcome)

    def _reflect(
        self, sku: int, time_ms: int, message: _Message, cause: Cause, correlation: str | None, outcome: _Outcome
    ) -> None:
        """`sku` reflects its home up to this message: a new version, and the crossings that came with it."""
        cells = self._stock.skus.cells
        cells["version"][sku] = message.offset
        cells["as_of_ms"][sku] = time_ms
        cells["pending"][sku] = 0
        outcome.touched[sku] = None
        for change in self._stock.offers_after(sku):
            outcome.thresholds.append(self._threshold(sku, change, format_ms(time_ms), message, cause, correlation))

    def _threshold(
        self, sku: int, change: Change, time: str, message: _Message, cause: Cause, correlation: str | None
    ) -> Threshold:
        name = self._stock.names[sku]
        return Threshold(
            id=threshold_id(name, change.rule.name, message.offset),
            sku=name,
            channel=change.rule.name,
            location=None,
            from_=LEVELS[change.before],
            to=LEVELS[change.after],
            sellable=change.sellable,
            threshold=change.threshold,
            version=message.offset,
            rules=self._rules.generation,
            time=time,
            initial=change.initial,
            cause=cause,
            correlation=correlation,
            traceparent=message.traceparent,
        )


def _is_control(decoded: Decoded | Refusal) -> bool:
    return isinstance(decoded, Decoded) and isinstance(decoded.record, Control)


def _traceparent(headers: list[tuple[str, bytes | None]]) -> str | None:
    for name, value in headers:
        if name == TRACE_HEADER and value is not None:
            return value.decode("ascii", "replace")
    return None


def _dead_letter(message: _Message, origin: Origin, refusal: Refusal) -> DeadLetter:
    place = f"{origin.name}/{origin.partition}/{message.offset}"
    return DeadLetter(
        id=place,
        reason=refusal.reason,
        detail=refusal.detail,
        origin=place,
        source=refusal.source,
        sku=refusal.sku,
        time=None if message.timestamp_ms == NO_TIMESTAMP else format_ms(message.timestamp_ms),
        key_base64=None if message.key is None else b64encode(message.key).decode(),
        payload_base64=None if message.payload is None else b64encode(message.payload).decode(),
        traceparent=message.traceparent,
    )


class _LaneLogic(StatefulBatchLogic[Routed, LaneResult, bytes]):
    """A lane as a step of a dataflow: one state, one snapshot."""

    def __init__(self, resume_state: bytes | None, rules: RuleBook, settings: LaneSettings) -> None:
        self._blob = resume_state
        self._rules = rules
        self._settings = settings
        self._lane: Lane | None = None

    def on_batch(self, values: list[Routed]) -> tuple[Iterable[LaneResult], bool]:
        lane = self._lane_for(values[0][0])
        result = lane.apply(item for _, item in values)
        return ((result,) if _has_content(result) else ()), StatefulBatchLogic.RETAIN

    def snapshot(self) -> bytes:
        if self._lane is None:
            raise RuntimeError("a lane that was never woken has nothing to snapshot")
        return self._lane.snapshot()

    def _lane_for(self, number: int) -> Lane:
        """Bytewax tells a logic its state but not its key: the first item does."""
        if self._lane is None:
            self._lane = (
                Lane(number, self._rules, self._settings)
                if self._blob is None
                else Lane.restore(number, self._blob, self._rules, self._settings)
            )
            self._blob = None
        return self._lane


def _has_content(result: LaneResult) -> bool:
    return any(result[1:])  # all but its number


def run_lanes(step_id: str, items: Stream[Item], rules: RuleBook, settings: LaneSettings) -> KeyedStream[LaneResult]:
    """Items ─▶ route ─▶ lane: the results of every lane, keyed by its number as text."""

    def route_all(batch: list[Item]) -> Iterable[tuple[str, Routed]]:
        return [(str(routed[0]), routed) for item in batch for routed in route(item, settings.lanes)]

    routed: KeyedStream[Routed] = op.flat_map_batch(f"{step_id}_route", items, route_all)
    return op.stateful_batch(step_id, routed, lambda state: _LaneLogic(state, rules, settings))
