"""Lane: one actor over its SKUs that puts the operators in order."""

from base64 import b64encode
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, Final, NamedTuple, cast

import msgspec
import numpy as np

from operators.admission import admit
from operators.columns import INT32_MAX, Array
from operators.commitments import Ledger, ledger_after
from operators.compiling import Held
from operators.doubts import Doubts
from operators.duplicates import RecentIds, hash_of
from operators.explaining import Explaining
from operators.generations import Generations, InForce
from operators.homes import Homes
from operators.last_facts import LastFacts
from operators.levels import LEVELS
from operators.outcome import Happening, Outcome
from operators.plain import (
    DESTINATION,
    ID,
    LOCATION,
    NEW_DESTINATION,
    NEW_LOCATION,
    NEW_SKU,
    NO_ROOM,
    PLAN,
    ROW_BY_ROW,
    SKU,
    SOURCE,
    Home,
)
from operators.plain_path import (
    Bounds,
    Crossing,
    PlainPath,
    PlainResult,
    Surroundings,
    Tables,
    crossings_of,
    text_of,
)
from operators.positions import effect_of, signed_units
from operators.replenishing import Replenishing
from operators.requesting import Requesting, answer_to
from operators.route import Item, Part, lane_of_sku, route, sku_of
from operators.rules import RuleBook, SkuRules
from operators.shadow import Shadow
from operators.snapshots import SnapshotError, pack, unpack
from operators.stating import Stating
from operators.stock import Change, Stock
from operators.telling import Teller
from operators.ticks import Clocks
from operators.trust import Trust
from operators.windows import HOUR_MS, Windows
from schemas.batches import Batch, CaughtUp, Mark, Origin, Wake
from schemas.movements import (
    NO_TIME_MS,
    ChannelCommitted,
    ChannelUncommitted,
    Control,
    Counted,
    Decoded,
    Expected,
    Extended,
    Fact,
    LocationTrusted,
    Movement,
    Reason,
    Refusal,
    Requested,
    Returned,
    RulesChanged,
    Shipped,
    Stated,
    Tick,
    TransferShipped,
    decode,
)
from schemas.outputs import (
    Availability,
    Cause,
    DeadLetter,
    HashCall,
    LaneResult,
    Replenishment,
    RulesInForce,
    Threshold,
    position_threshold_id,
    threshold_id,
)
from schemas.records import Records
from schemas.rules import ChannelRules, Rules
from schemas.times import LATEST_MS, format_ms

NOTHING_APPLIED: Final = -1
CONTROL_LANE: Final = 0  # reports what is wrong with a control record that every lane sees, so that it is told once
IDS_PER_SKU_MAX: Final = 65_536
BEAT_EVERY: Final = 256  # messages
ROWS_AT_ONCE_MAX: Final = 64
FIRST_PARTITION: Final = 0  # what every partition is told is told on by this one
HISTORY_MAX: Final = 4096  # entries of one position
CONTROLS_KEPT: Final = 16  # ticks of partitions whose batches are applied in turn
_UNTOUCHED: Final = object()
TRACE_HEADER: Final = "traceparent"


class LaneSettings(NamedTuple):
    """What does not change while a state lives."""

    lanes: int
    incarnation: int
    dedupe_ms: int
    as_of_ms: int = 72 * 3_600_000
    ids_per_sku_max: int = IDS_PER_SKU_MAX
    history_max: int = HISTORY_MAX
    by_crc32: bool = False  # how SKUs are shared out to lanes: as states of the first format do


class _Message(NamedTuple):
    """One raw message where it stands."""

    origin: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    payload: bytes | None
    traceparent: str | None


class Lane:
    """All state of one share of the SKUs; a pure function of the batches it was given, in their order.

    One that `is_behind` may know less than what was shown before it was restored, until it is told that all parts of
    the source have caught up.
    """

    def __init__(
        self,
        number: int,
        rules: RuleBook,
        settings: LaneSettings,
        shadow: RuleBook | None = None,
        *,
        is_behind: bool = False,
    ) -> None:
        self.number = number
        self._settings = settings
        self._origins: dict[Origin, int] = {}
        self._applied: list[int] = []
        self._clocks = Clocks()
        self._generations = Generations(rules)
        self._trust = Trust()
        self._stock = Stock(self._generations, self._clocks, self._trust, settings.as_of_ms, settings.history_max)
        self._pending: set[int] = set()  # SKUs that changed from outside their homes and have not shown it
        self._ids = RecentIds(self._stock.skus, settings.dedupe_ms, settings.ids_per_sku_max)
        self._requesting = Requesting(self._stock)
        self._facts = LastFacts(self._stock.locations)
        self._stating = Stating(self._stock, self._facts)
        self._replenishing = Replenishing(self._stock)
        sightings = self._stating.sightings
        tables = Tables(self._stock, self._ids, self._facts, sightings, self._replenishing.points)
        bounds = Bounds(settings.dedupe_ms, settings.as_of_ms, settings.ids_per_sku_max, settings.history_max)
        self._plain = PlainPath(tables, bounds)
        self._homes = Homes(sightings.sources, self._stock.locations, self._trust, self._plain.has_changed)
        self._around: dict[int, Surroundings] = {}  # by origin
        self._around_changes = 0  # as of which of the changes by others
        self._explaining = Explaining(self._stock, self._requesting, self._stating, self._replenishing, self._facts)
        self._shadow = None if shadow is None else Shadow(self._stock, shadow)
        self._doubts = Doubts()
        self._unexplained: dict[int, None] = {}  # SKUs about which there is something new to explain, the oldest first
        self._told_rules: set[Origin] = set()
        self._refilling: Iterator[int] = iter(())  # the SKUs to go on with while what Redis has lost is told again
        self._is_behind = is_behind
        self._parts_caught_up: set[int] = set()
        self._untold: dict[int, None] = {}  # plain SKUs that have changed since the topic was told of them
        self._held: dict[int, None] = {}  # SKUs told while behind, which Redis may not have been given
        self.row_wise = 0  # messages that were applied row by row, so far

    @property
    def is_behind(self) -> bool:
        """Whether readers may have seen newer than what is known here."""
        return self._is_behind

    @property
    def position_count(self) -> int:
        """How many positions the lane knows."""
        self._plain.give_back()
        return self._stock.positions.rows

    def apply(
        self, items: Iterable[Item | Part], beat: Callable[[], None] = lambda: None, *, teller: Teller | None = None
    ) -> LaneResult:
        """Applies batches in order; what an origin was applied up to already is skipped.

        With a `teller` plain SKUs become calls for Redis at once, and records with the next `tell`.
        `beat` is called every few hundred messages: a long backlog of a busy SKU is no frozen worker.
        """
        outcome = Outcome()
        oldest_ms, woken = 0, False
        for item in items:
            if isinstance(item, Wake):
                woken = True
                continue
            if isinstance(item, CaughtUp):
                self._caught_up(item)
                continue
            origin = item.batch.origin if isinstance(item, Part) else item.origin
            if self.number == CONTROL_LANE and origin not in self._told_rules:
                self._tell_rules(origin, outcome)
            if isinstance(item, Mark):
                outcome.marks.append(item)
            else:
                part = Part.whole(item) if isinstance(item, Batch) else item
                oldest_ms = _older(oldest_ms, part)
                self._apply_part(part, outcome, beat, teller)
        if self._is_behind:
            self._held.update(dict.fromkeys(outcome.touched))
        hashes: list[HashCall] = []
        if teller is not None:
            hashes = self._tell_redis(outcome, teller)
        return LaneResult(
            self.number,
            [record or self._availability(sku) for sku, record in outcome.touched.items()],
            outcome.thresholds,
            outcome.divergences,
            outcome.reservations,
            outcome.replenishments,
            outcome.shadow,
            outcome.rules,
            [],
            outcome.dead_letters,
            outcome.marks,
            outcome.applied,
            outcome.duplicates,
            outcome.misplaced,
            oldest_ms,
            woken,
            is_behind=self._is_behind,
            hashes=hashes,
        )

    def _tell_redis(self, outcome: Outcome, teller: Teller) -> list[HashCall]:
        """Takes plain SKUs out of the outcome: calls for Redis now, records later; the others are told at once."""
        if not outcome.touched:
            return []
        if outcome.is_plain:
            told = cast("dict[int, None]", outcome.touched)
            plain, outcome.touched = np.fromiter(told, np.int32, len(told)), {}
        else:
            plain = self._plain_of([sku for sku, record in outcome.touched.items() if record is None])
            told = dict.fromkeys(plain.tolist())
            for sku in told:
                del outcome.touched[sku]
            for sku in outcome.touched:
                self._untold.pop(sku, None)
        self._untold.update(told)
        return teller.hashes(self._plain.lane, plain, is_behind=self._is_behind) if told else []

    def _plain_of(self, skus: list[int]) -> Array:
        """Those of `skus` of which numbers alone are told."""
        rows = np.array(skus, np.int32)
        if not skus or not self._plain.fits:
            return rows[:0]
        table = self._stock.skus
        is_plain: Array = (table["classes"][rows] >= 0) & (table["special"][rows] == 0)
        return cast("Array", rows[is_plain])

    @property
    def has_untold(self) -> bool:
        """Whether `tell` has anything to tell."""
        return bool(self._untold)

    def tell(self, teller: Teller, skus_max: int) -> tuple[LaneResult, bool]:
        """Records of plain SKUs that have changed since they were told last, oldest first; whether these are all."""
        skus = list(islice(self._untold, skus_max))
        for sku in skus:
            del self._untold[sku]
        plain = self._plain_of(skus)
        told, left = teller.records(self._plain.lane, plain) if len(plain) else ([], [])
        left += sorted(set(skus).difference(plain.tolist()))
        rest = [self._availability(sku) for sku in left if sku not in self._pending]
        return nothing_of(self.number)._replace(told=[*told, *rest]), not self._untold

    def _caught_up(self, told: CaughtUp) -> None:
        """With the last part that has caught up, all is known again that was ever shown."""
        self._parts_caught_up.add(told.part)
        self._is_behind = self._is_behind and len(self._parts_caught_up) < told.parts

    @property
    def identity(self) -> dict[str, int]:
        """What every blob of the lane says of itself."""
        return {"lane": self.number, "lanes": self._settings.lanes, "incarnation": self._settings.incarnation}

    @property
    def settings(self) -> LaneSettings:
        """What the lane was made with."""
        return self._settings

    def knows(self, origin: Origin) -> bool:
        """Whether the lane was given anything of it."""
        return origin in self._origins

    def only_moves_clock(self, part: Part) -> bool:
        """Whether the part is one tick that can do nothing here but move the clock of its origin."""
        row = self._origins.get(part.batch.origin)
        if row is None or row in self._stock.homes or not _is_control_alone(part):
            return False
        decoded = _decode_for_all(part.batch.payloads[part.places[0]])
        return isinstance(decoded, Decoded) and isinstance(decoded.record, Tick)

    def clock_of(self, origin: Origin) -> tuple[int, int]:
        """How far a known origin is applied, and its clock, ms since 1970."""
        row = self._origins[origin]
        return self._applied[row], self._clocks[row]

    def set_clock(self, origin: Origin, applied: int, time_ms: int) -> None:
        """As after ticks that did nothing else."""
        row = self._origins[origin]
        self._applied[row] = applied
        self._clocks.tick(row, time_ms)

    def repeat(self, batch: Batch) -> None:
        """Applies what was applied before this lane was restored from an older state; what it led to was told then."""
        is_behind, self._is_behind = self._is_behind, False  # else it would be told once more
        self.apply([batch])
        self._is_behind = is_behind
        self._told_rules.clear()

    @property
    def waiting(self) -> tuple[list[int], list[int], list[int]]:
        """SKUs (rows) that the topic is to be told of, to be explained, and held; others than `apply` take some."""
        return list(self._untold), list(self._unexplained), list(self._held)

    def wait_again(self, untold: Iterable[int], unexplained: Iterable[int], held: Iterable[int]) -> None:
        """These wait, and no others."""
        self._untold = dict.fromkeys(untold)
        self._unexplained = dict.fromkeys(unexplained)
        self._held = dict.fromkeys(held)

    def snapshot(self) -> bytes:
        """The whole state as one blob."""
        self._plain.has_changed()  # what is packed is cleaned before
        return pack(
            {
                **self.identity,
                "origins": [list(origin) for origin in self._origins],
                "applied": self._applied,
                "clocks_ms": self._clocks.as_list(),
                "generations": self._generations.dump(),
                "trust": self._trust.dump(),
                "doubts": self._doubts.dump(),
                "stock": self._stock.dump(),
                "ids": self._ids.dump(),
                "requesting": self._requesting.dump(),
                "stating": self._stating.dump(),
                "facts": self._facts.dump(),
                "untold": list(self._untold),
                "unexplained": list(self._unexplained),
                "held": list(self._held),
                "shadow": None if self._shadow is None else self._shadow.dump(),
            }
        )

    @classmethod
    def restore(
        cls,
        number: int,
        blob: bytes,
        rules: RuleBook,
        settings: LaneSettings,
        shadow: RuleBook | None = None,
        *,
        is_behind: bool = False,
    ) -> "Lane":
        """The lane as it was at `snapshot`; raises SnapshotError where the blob is not this lane's."""
        return cls.of_state(number, unpack(blob), rules, settings, shadow, is_behind=is_behind)

    @classmethod
    def of_state(
        cls,
        number: int,
        state: dict[str, Any],
        rules: RuleBook,
        settings: LaneSettings,
        shadow: RuleBook | None = None,
        *,
        is_behind: bool = False,
    ) -> "Lane":
        """As `restore`, from what the blob holds."""
        lane = cls(number, rules, settings, shadow, is_behind=is_behind)
        for name, expected in lane.identity.items():
            if state[name] != expected:
                raise SnapshotError(f"the snapshot has {name} = {state[name]}, this run {expected}")
        lane._origins = {Origin(*origin): row for row, origin in enumerate(state["origins"])}
        lane._applied = state["applied"]
        lane._clocks.load(state["clocks_ms"])
        lane._generations.load(state["generations"])
        lane._trust.load(state["trust"])
        lane._doubts.load(state["doubts"])
        lane._stock.load(state["stock"])
        lane._pending = {int(sku) for sku in np.flatnonzero(lane._stock.skus["pending"])}
        lane._ids.load(state["ids"])
        lane._requesting.load(state["requesting"])
        lane._stating.load(state["stating"])
        if "facts" in state:
            lane._facts.load(state["facts"])
        else:
            sightings = state["stating"]["sightings"]["recent"]
            lane._facts.load_first_format(state["recent"], sightings, lane._stock.location_of)
        if lane._shadow is not None and state["shadow"] is not None:
            lane._shadow.load(state["shadow"])
        lane._untold = dict.fromkeys(state.get("untold", ()))
        lane._unexplained = dict.fromkeys(state.get("unexplained", ()))
        lane._held = dict.fromkeys(state.get("held", ()))
        lane._review_all()
        return lane

    def teller(self, prefix: str) -> Teller:
        """Who tells of this lane's plain SKUs, to Redis under keys that begin with `prefix`."""
        return Teller(self._stock, self._stock.channels, self._settings.incarnation, prefix)

    @property
    def unexplained(self) -> Collection[int]:
        """SKUs (their rows) about which there is something new to explain, the one that waits longest first."""
        return self._unexplained.keys()

    def asked_rows(self, names: Iterable[str]) -> list[int]:
        """Those of the SKUs of these names that are known, and about which there is something new to explain."""
        rows = (self._stock.names.row(name) for name in dict.fromkeys(names))
        return [sku for sku in rows if sku in self._unexplained]

    def explain(self, skus: Iterable[int]) -> LaneResult:
        """What there is to explain about `skus` now; one that waits for its home to show a change goes on waiting."""
        self._plain.give_back()
        explanations = []
        homes = list(self._origins)
        for sku in skus:
            if sku not in self._pending:
                home = homes[self._stock.skus.cells["home"][sku]]
                explanations.append(self._explaining.explain(sku, home, self._settings.incarnation))
                del self._unexplained[sku]
        return nothing_of(self.number)._replace(explanations=explanations)

    def begin_refill(self) -> None:
        """Redis has lost what it was told: everything is to be told again, SKUs by `refill`."""
        self._refilling = iter(range(self._stock.skus.rows))
        self._held.clear()
        self._told_rules.clear()
        self._unexplained.update((sku, None) for sku in range(self._stock.skus.rows) if self._stock.is_shown(sku))

    def begin_refill_of_held(self) -> bool:
        """What was told while behind is to be told again by `refill`; whether there is any.

        It is held until then, by every snapshot, too: whoever goes on from one is behind again and hears nothing of it.
        """
        self._refilling = iter(list(self._held))
        return bool(self._held)

    def refill(self, skus_max: int, teller: Teller | None = None) -> tuple[LaneResult, bool]:
        """The next SKUs that Redis is to be told again, and whether these were the last.

        One that waits for its home to show a change is left out: it comes when it shows.
        """
        stock, skus = self._stock, list(islice(self._refilling, skus_max))
        for sku in skus:
            self._held.pop(sku, None)
        shown = [sku for sku in skus if stock.is_shown(sku) and sku not in self._pending]
        plain = self._plain_of([] if teller is None else shown)
        hashes: list[HashCall] = []
        if teller is not None and len(plain):
            hashes = teller.hashes(self._plain.lane, plain, is_behind=self._is_behind)
        told = [self._availability(sku) for sku in sorted(set(shown).difference(plain.tolist()))]
        result = nothing_of(self.number)._replace(availability=told, hashes=hashes, is_refill=True)
        return result, len(skus) < skus_max

    def _tell_rules(self, origin: Origin, outcome: Outcome) -> None:
        """Which rules an origin goes by: told when it is first met, and again when they change."""
        self._told_rules.add(origin)
        row = self._origins.get(origin)
        rules = self._generations.first if row is None else self._generations[row]
        offset = NOTHING_APPLIED if row is None else self._applied[row]
        outcome.rules.append(self._in_force(rules, origin, offset, None))

    def _in_force(self, rules: InForce, origin: Origin, offset: int, time: str | None) -> RulesInForce:
        return RulesInForce(
            partition=origin.partition,
            incarnation=self._settings.incarnation,
            generation=rules.generation,
            digest=rules.book.digest,
            offset=offset,
            time=time,
            document=msgspec.Raw(msgspec.json.encode(rules.book.document)),
        )

    def _apply_part(self, part: Part, outcome: Outcome, beat: Callable[[], None], teller: Teller | None) -> None:
        origin, begin = self._origin(part.batch.origin), 0
        if self._is_plain() and not _is_control_alone(part):
            begin = self._apply_plain(part, origin, outcome, beat, teller)
        for number, place in enumerate(part.places[begin:].tolist()):
            if number % BEAT_EVERY == 0:
                beat()
            self._apply_row(part.batch, place, origin, outcome)

    def _apply_row(self, batch: Batch, place: int, origin: int, outcome: Outcome) -> None:
        """Applies one message of a batch; the definition of what it means begins here."""
        self._plain.give_back()
        outcome.is_plain = False
        self.row_wise += 1
        offset, key, payload = batch.offsets[place], batch.keys[place], batch.payloads[place]
        if offset <= self._applied[origin]:
            self._show_again(key, payload, outcome)
            return
        pairs = None if batch.headers is None else batch.headers[place]
        traceparent = None if pairs is None else _traceparent(pairs)
        message = _Message(origin, offset, batch.timestamps[place], key, payload, traceparent)
        self._apply_message(message, batch.origin, outcome)
        self._applied[origin] = offset

    def _apply_plain(
        self, part: Part, origin: int, outcome: Outcome, beat: Callable[[], None], teller: Teller | None
    ) -> int:
        """Applies a part by compiled loops, what is not plain row by row in its place; where the loops gave up."""
        batch, at, count, rows = part.batch, 0, len(part.places), 1
        while at < count and self._is_plain():
            begun = at
            beat()
            around = self._surroundings(origin)
            done = self._plain.apply(part, at, around, self._applied[origin])
            self._applied[origin] = done.last_offset
            self._take(done, outcome)
            if done.crossed:
                outcome.thresholds.extend(self._crossings(part, done.crossed, around.generation, teller))
            at = done.place
            if done.ended == ROW_BY_ROW:
                # Where nothing is plain, a call costs more than the rows that it finds to be none.
                rows = min(2 * rows, ROWS_AT_ONCE_MAX) if at == begun else 1
                places = part.places[at : at + rows].tolist()
                for place in places:
                    self._apply_row(batch, place, origin, outcome)
                at += len(places)
            elif done.ended == NEW_SKU:
                self._add_skus(part, at, origin, around.home)
            elif done.ended == NEW_LOCATION:
                self._add_location(text_of(part, LOCATION))
            elif done.ended == NEW_DESTINATION:
                self._add_location(text_of(part, DESTINATION))
            elif done.ended == PLAN:
                rows = 1
                self._plan_after(part, origin, outcome)
            elif done.ended == NO_ROOM:
                self._plain.make_room(count - at)
        return at

    def _surroundings(self, origin: int) -> Surroundings:
        """What holds for the origin; as it was the last time where nothing but compiled loops has worked since."""
        if self._around_changes != self._plain.changes:
            self._around_changes = self._plain.changes
            self._around.clear()
        around = self._around.get(origin)
        if around is None or around.clock_ms != self._clocks[origin]:
            rules = self._generations[origin]
            home = self._homes.of(origin, rules.book)
            around = self._around[origin] = self._plain.surroundings(
                origin, home, self._clocks[origin], rules.generation
            )
        return around

    def _plan_after(self, part: Part, origin: int, outcome: Outcome) -> None:
        """What the movement that compiled loops have applied last means for purchases."""
        sku, cells = self._stock.names.row(text_of(part, SKU)), self._stock.skus.cells
        self._plain.has_changed()
        cause = Cause("movement", text_of(part, SOURCE), text_of(part, ID))
        happening = Happening(
            origin, cells["version"][sku], cells["as_of_ms"][sku], self._clocks[origin], cause, None, None
        )
        if plans := self._replenishing.plan(sku, happening, is_daily=False):
            outcome.replenishments.extend(plans)
            outcome.is_plain = False
            self._review(sku)

    def _add_location(self, name: str) -> None:
        self._plain.has_changed()
        self._stock.locations.add(name)

    def _add_skus(self, part: Part, begin: int, origin: int, home: Held[Home]) -> None:
        """SKUs met for the first time by plain movements from the one at `begin` on: their home is here."""
        names = list(dict.fromkeys(self._plain.new_skus(part, begin, home)))
        self._plain.has_changed()
        self._stock.add_skus(names, origin, self._clocks[origin])

    def _is_plain(self) -> bool:
        """Whether nothing about the lane makes every movement more than a sum."""
        return self._shadow is None and self._plain.fits

    def _take(self, done: PlainResult, outcome: Outcome) -> None:
        """What compiled loops have done becomes part of the outcome."""
        outcome.applied += done.applied
        outcome.duplicates += done.duplicates
        told: dict[int, Availability | None] = dict.fromkeys(done.touched)
        self._unexplained.update(cast("dict[int, None]", told))
        if outcome.touched:
            outcome.touched.update(told)
        else:
            outcome.touched = told

    def _crossings(self, part: Part, count: int, generation: int, teller: Teller | None) -> list[Threshold | Records]:
        """The crossings that compiled loops have told last: ready for their topic where somebody tells, and can."""
        written: list[Records | int] = [*range(count)]
        if teller is not None and part.batch.headers is None:
            written = teller.crossings(self._plain.lane, part.messages, count, generation, is_behind=self._is_behind)
        made = crossings_of(part, count) if any(isinstance(piece, int) for piece in written) else []
        return [
            self._crossed(made[piece], part.batch, generation) if isinstance(piece, int) else piece for piece in written
        ]

    def _crossed(self, crossing: Crossing, batch: Batch, generation: int) -> Threshold:
        stock, version = self._stock, batch.offsets[crossing.message]
        name = stock.names[crossing.sku]
        channel = location = None
        if crossing.row >= 0:
            channel = stock.channel_of(crossing.row)
            id_ = threshold_id(name, channel, version)
        else:
            location = stock.location_of(-1 - crossing.row)
            id_ = position_threshold_id(name, location, version)
        pairs = None if batch.headers is None else batch.headers[crossing.message]
        return Threshold(
            id=id_,
            sku=name,
            channel=channel,
            location=location,
            from_=LEVELS[crossing.before],
            to=LEVELS[crossing.after],
            sellable=crossing.units,
            threshold=crossing.threshold,
            version=version,
            rules=generation,
            time=format_ms(crossing.time_ms),
            initial=bool(crossing.initial),
            cause=Cause("movement", crossing.source, crossing.id),
            correlation=crossing.correlation,
            traceparent=None if pairs is None else _traceparent(pairs),
        )

    def _review(self, sku: int) -> None:
        """Whether more than plain movements concern `sku` from now on."""
        cells = self._stock.positions.cells
        self._stock.skus.cells["special"][sku] = (
            bool(self._stock.skus.cells["ledgers"][sku])
            or sku in self._pending
            or self._requesting.remembers(sku)
            or self._stating.waits_for(sku)
            or any(cells["proposed"][row] or cells["expected"][row] for row in self._stock.positions_of(sku))
        )

    def _review_all(self) -> None:
        """As `_review`, for every SKU after a restore: few are special."""
        positions = self._stock.positions
        planned = positions["sku"][(positions["proposed"] != 0) | (positions["expected"] != 0)].tolist()
        special = self._stock.skus["special"]
        special[:] = self._stock.skus["ledgers"]
        special[[*self._pending, *self._requesting.skus(), *self._stating.waiting_skus(), *planned]] = 1

    def _show_again(self, key: bytes | None, payload: bytes | None, outcome: Outcome) -> None:
        """A record that is in the state already: what it led to may never have got out, so its SKU is told again."""
        name = sku_of(key, payload)
        sku = -1 if name is None else self._stock.names.row(name)
        if sku >= 0 and self._stock.is_shown(sku) and sku not in self._pending:
            outcome.touched.setdefault(sku, None)

    def _origin(self, origin: Origin) -> int:
        row = self._origins.setdefault(origin, len(self._origins))
        if row == len(self._applied):
            self._applied.append(NOTHING_APPLIED)
            self._clocks.add_origin()
            self._generations.add_origin()
        return row

    def _apply_message(self, message: _Message, origin: Origin, outcome: Outcome) -> None:
        decoded = decode(message.payload) if message.key else _decode_for_all(message.payload)
        refusal = (
            decoded
            if isinstance(decoded, Refusal)
            else admit(decoded, message.key, message.timestamp_ms, self._generations[message.origin].book.sources)
        )
        if refusal is None:
            refusal = self._apply_record(cast("Decoded", decoded), message, origin, outcome)
        if refusal is not None and (self.number == CONTROL_LANE or message.key or not _is_control(decoded)):
            outcome.dead_letters.append(_dead_letter(message, origin, refusal))

    def _apply_record(self, decoded: Decoded, message: _Message, origin: Origin, outcome: Outcome) -> Refusal | None:
        """Gives a record to the operators of its kind; what it says about divergences is told at its end."""
        record, time_ms = decoded
        refusal = None
        if not isinstance(record, Tick):
            self._plain.has_changed()  # most ticks change nothing, and there are many
        if isinstance(record, Requested):
            refusal = self._ask(record, time_ms, message, outcome)
        elif isinstance(record, Fact):
            refusal = self._apply_fact(record, time_ms, message, outcome)
        elif isinstance(record, Tick):
            self._tick(time_ms, message, outcome)
        elif isinstance(record, RulesChanged):
            refusal = self._change_rules(record, time_ms, message, origin, outcome)
        else:
            self._trust_location(record, time_ms, message, origin, outcome)
        outcome.divergences.extend(self._stating.collect(message.offset))
        if isinstance(record, Fact) and (sku := self._stock.names.row(record.sku)) >= 0:
            self._review(sku)
        return refusal

    def _ask(self, requested: Requested, time_ms: int, message: _Message, outcome: Outcome) -> Refusal | None:
        """A request is known or new; a new one is decided here and now, if this is its SKU's home."""
        sku = self._stock.names.row(requested.sku)
        happening = self._happening(requested, time_ms, message, sku)
        if sku >= 0:
            repeated = self._requesting.repeated(sku, requested, self._ids.memory_ms(sku), happening)
            if repeated is not None:
                outcome.reservations.append(repeated)
                is_conflict = repeated.outcome == "conflict"
                outcome.applied += is_conflict
                outcome.duplicates += not is_conflict
                return None
            if self._stock.skus.cells["home"][sku] != message.origin:
                outcome.reservations.append(answer_to(requested, "wrong_partition", happening))
                outcome.applied += 1
                return None
            if time_ms < self._ids.horizon_ms(sku):
                return self._too_late(requested, sku)
        else:
            sku = self._stock.add_sku(requested.sku, message.origin, self._clocks[message.origin])
        self._grow_older(sku, time_ms)
        outcome.applied += 1
        self._facts.note(sku, requested, time_ms)
        self._unexplained[sku] = None
        reservation, has_changed = self._requesting.decide(sku, requested, self._ids.memory_ms(sku), happening)
        outcome.reservations.append(reservation)
        if has_changed:
            self._reflect(sku, happening, outcome)
        return None

    def _apply_fact(self, fact: Fact, time_ms: int, message: _Message, outcome: Outcome) -> Refusal | None:
        """Duplicates and what came too late are taken out, then the fact changes its SKU."""
        sku = self._stock.names.row(fact.sku)
        if refusal := self._objection(sku, fact, time_ms, message):
            return refusal
        hash_ = hash_of(fact.source, fact.id)
        if sku < 0:
            sku = self._stock.add_sku(fact.sku, message.origin, self._clocks[message.origin])
        elif self._ids.knows(hash_, sku):
            outcome.duplicates += 1
            return None
        happening = self._happening(fact, time_ms, message, sku)
        if isinstance(fact, Extended):
            answer = self._requesting.extend(sku, fact, self._ids.memory_ms(sku), happening)
            if isinstance(answer, Refusal):
                return answer
            outcome.reservations.append(answer)
        self._grow_older(sku, time_ms)
        self._ids.remember(hash_, sku, time_ms)
        outcome.applied += 1
        self._facts.note(sku, fact, time_ms)
        self._unexplained[sku] = None
        is_at_home = self._stock.skus.cells["home"][sku] == message.origin
        if not is_at_home and (outcome.touched.get(sku, _UNTOUCHED) is None or sku in self._untold):
            outcome.touched[sku] = self._availability(sku)  # its version does not reflect what comes now
        happening, has_changed = self._change(sku, fact, happening)
        if not is_at_home:
            outcome.misplaced += 1
            self._wait_for_home(sku, has_changed=has_changed)
        elif has_changed:
            self._reflect(sku, happening, outcome)
        return None

    def _wait_for_home(self, sku: int, *, has_changed: bool) -> None:
        """A change from another partition shows with the next record of the SKU's home that speaks of it."""
        if has_changed:
            self._stock.skus.cells["pending"][sku] = 1
            self._pending.add(sku)

    def _availability(self, sku: int) -> Availability:
        self._plain.give_back()
        return self._stock.availability(sku, self._settings.incarnation)

    def _objection(self, sku: int, fact: Fact, time_ms: int, message: _Message) -> Refusal | None:
        """Why a fact that was admitted cannot be used for its SKU, whose row is −1 where it is new."""
        if isinstance(fact, ChannelCommitted | ChannelUncommitted) and not self._generations[
            message.origin
        ].book.knows_channel(fact.channel):
            return _refused(fact, Reason.UNKNOWN_CHANNEL, f"channel {fact.channel!r} has no table in the rules")
        if isinstance(fact, Extended) and sku < 0:
            return _refused(fact, Reason.UNKNOWN_REQUEST, "nothing was ever requested of this SKU")
        if sku < 0:
            return None
        if isinstance(fact, Extended | Stated) and self._stock.skus.cells["home"][sku] != message.origin:
            return _refused(fact, Reason.WRONG_PARTITION, "this is not the partition that the SKU is at home in")
        if isinstance(fact, Counted):
            return None
        if isinstance(fact, Stated):
            is_too_late = self._stating.is_too_old(sku, fact, time_ms)
        else:
            is_too_late = time_ms < self._ids.horizon_ms(sku)
        return self._too_late(fact, sku) if is_too_late else None

    def _too_late(self, fact: Fact, sku: int) -> Refusal:
        horizon = format_ms(max(0, self._ids.horizon_ms(sku)))
        return _refused(fact, Reason.TOO_LATE, f"too old: what is remembered of this SKU begins at {horizon}")

    def _change(self, sku: int, fact: Fact, happening: Happening) -> tuple[Happening, bool]:
        """What the fact does; whether its SKU changed, and what is the cause of that."""
        if isinstance(fact, Movement):
            self._move(sku, fact, happening)
            return happening, True
        if isinstance(fact, Counted):
            return happening, self._stating.count(sku, fact, happening.time_ms)
        if isinstance(fact, Stated):
            corrections = self._stating.state(sku, fact, happening.time_ms, happening.origin, happening.clock_ms)
            return happening, bool(corrections)
        if isinstance(fact, ChannelCommitted | ChannelUncommitted):
            units = fact.quantity if isinstance(fact, ChannelCommitted) != fact.reversal else -fact.quantity
            ledger = self._stock.ledger(sku, fact.channel) or Ledger()
            self._stock.set_ledger(sku, fact.channel, ledger.commit(units), happening.clock_ms)
            return happening, True
        return happening, False

    def _move(self, sku: int, movement: Movement, happening: Happening) -> None:
        """The signs of a plain kind, or what it may draw of requests instead; a named channel's contract follows."""
        effect, units = effect_of(movement), signed_units(movement)
        here = self._requesting.signs_of(sku, movement, effect.here, self._ids.memory_ms(sku), happening)
        if here is None:
            position = self._stock.move(sku, movement.location, effect.here, units, happening.time_ms)
            self._follow_contract(sku, movement, happening)
        else:
            position = self._stock.move(sku, movement.location, here, 1, happening.time_ms)
        if isinstance(movement, Shipped | TransferShipped):
            self._stock.sell(position, happening.time_ms, units)
        elif isinstance(movement, Returned):
            self._stock.return_windows.add(position, happening.time_ms, units)
        elif isinstance(movement, Expected) and not movement.reversal:
            self._replenishing.announced(position)
        if isinstance(movement, TransferShipped):
            self._stock.move(sku, movement.destination, effect.there, units, happening.time_ms)
        self._stating.note_movement(sku, movement, happening.time_ms)

    def _follow_contract(self, sku: int, movement: Movement, happening: Happening) -> None:
        if movement.channel is None or movement.request is not None:
            return
        ledger = self._stock.ledger(sku, movement.channel)
        if ledger is not None:
            self._stock.set_ledger(sku, movement.channel, ledger_after(ledger, movement), happening.clock_ms)

    def _tick(self, time_ms: int, message: _Message, outcome: Outcome) -> None:
        """The clock of the origin moves on; SKUs at home there follow what begins or ends with it."""
        home, before_ms = message.origin, self._clocks[message.origin]
        moved = self._clocks.tick(home, time_ms)
        if home not in self._stock.homes:
            return  # as most often: a lane has SKUs of few partitions, and every partition ticks each second
        clock_ms = self._clocks[home]
        happening = Happening(home, message.offset, time_ms, clock_ms, Cause("clock"), None, message.traceparent)
        changed: dict[int, Happening] = {}
        for sku, reservation in self._requesting.expire(home, happening):
            outcome.reservations.append(reservation)
            changed[sku] = happening
        for correction in self._stating.judge_due(home, clock_ms):
            cause = Cause("movement", correction.source, correction.id)
            changed[correction.sku] = happening._replace(cause=cause)
        due = self._due(home, before_ms, clock_ms) if moved else set()
        rules_change = moved and self._generations[home].book.changes_between(before_ms, time_ms)
        candidates = self._at_home(home) if rules_change else sorted(due.union(changed, self._pending_at(home)))
        if candidates:
            self._plain.has_changed()
        for sku in candidates:
            before = self._stock.resolve_again(sku, clock_ms) if rules_change else None
            if rules_change:
                self._review(sku)
            if sku in changed:
                self._reflect(sku, changed[sku], outcome, is_daily=sku in due)
            elif before is not None or sku in due or self._may_show_more(sku):
                self._settle(sku, before, happening, outcome, is_daily=sku in due)

    def _due(self, home: int, before_ms: int, after_ms: int) -> set[int]:
        """SKUs at home there whose daily look at their demand has come, where anything follows from it."""
        stock, homes = self._stock, self._stock.skus.cells["home"]
        return {
            sku
            for sku in self._replenishing.due_between(before_ms, after_ms)
            if homes[sku] == home and stock.follows_demand(sku)
        }

    def _may_show_more(self, sku: int) -> bool:
        """Whether `sku` may show something new although its own rules are the same."""
        return sku in self._pending or not self._stock.is_evaluated(sku)

    def _change_rules(
        self, record: RulesChanged, time_ms: int, message: _Message, origin: Origin, outcome: Outcome
    ) -> Refusal | None:
        """Brings a generation of rules in force for the SKUs at home there; those that it changes show it."""
        home = message.origin
        generation = self._generations[home].generation
        before = self._generations.take(home, record)
        if isinstance(before, Refusal):
            return before
        if self.number == CONTROL_LANE and (before is not None or generation != self._generations[home].generation):
            outcome.rules.append(self._in_force(self._generations[home], origin, message.offset, record.time))
        if before is None:
            return None
        self._stock.forget_lookups()
        self._replenishing.points.forget()
        happening = self._at_clock(time_ms, message, Cause("rules"))
        for sku in self._at_home(home):
            others = self._stock.resolve_again(sku, happening.clock_ms)
            self._review(sku)
            if others is not None or self._may_show_more(sku):
                self._unexplained[sku] = None
                self._settle(sku, others, happening, outcome)
        return None

    def _trust_location(
        self, record: LocationTrusted, time_ms: int, message: _Message, origin: Origin, outcome: Outcome
    ) -> None:
        """A location is believed more or less; what the SKUs at home there show of it follows."""
        home, percent = message.origin, record.trust_percent
        before = self._trust.tell(home, record.location, percent)
        if before == percent:
            return
        happening = self._at_clock(time_ms, message, Cause("clock"))
        if self.number == CONTROL_LANE and origin.partition == FIRST_PARTITION:
            outcome.divergences.append(self._doubts.tell(record, before, happening))
        for sku in self._at_home(home):
            if self._stock.position(sku, record.location) >= 0 or sku in self._pending:
                self._reflect(sku, happening, outcome)

    def _at_clock(self, time_ms: int, message: _Message, cause: Cause) -> Happening:
        """A control record as a happening; where it tells no time, it happens at the clock."""
        clock_ms = self._clocks[message.origin]
        at_ms = clock_ms if time_ms == NO_TIME_MS else time_ms
        return Happening(message.origin, message.offset, at_ms, clock_ms, cause, None, message.traceparent)

    def _pending_at(self, home: int) -> list[int]:
        homes = self._stock.skus.cells["home"]
        return [sku for sku in self._pending if homes[sku] == home]

    def _at_home(self, origin: int) -> list[int]:
        return [int(sku) for sku in np.flatnonzero(self._stock.skus["home"] == origin)]

    def _grow_older(self, sku: int, time_ms: int) -> None:
        newest_ms = self._stock.skus.cells["newest_ms"]
        newest_ms[sku] = max(newest_ms[sku], time_ms)

    def _happening(self, fact: Fact, time_ms: int, message: _Message, sku: int) -> Happening:
        home = message.origin if sku < 0 else self._stock.skus.cells["home"][sku]
        cause = Cause("movement", fact.source, fact.id)
        return Happening(
            message.origin, message.offset, time_ms, self._clocks[home], cause, fact.correlation, message.traceparent
        )

    def _reflect(self, sku: int, happening: Happening, outcome: Outcome, *, is_daily: bool = False) -> None:
        """`sku` reflects its home up to this record: a new version, and what came with it."""
        changes = self._stock.evaluate(sku)
        plans = self._replenishing.plan(sku, happening, is_daily=is_daily)
        self._show(sku, happening, changes, plans, outcome)

    def _settle(
        self,
        sku: int,
        rules_before: SkuRules | None,
        happening: Happening,
        outcome: Outcome,
        *,
        is_daily: bool = False,
    ) -> None:
        """Looks at `sku` again after a control record; only where that shows something new, it reflects it.

        `rules_before` held until now, None where the same ones hold still.
        """
        stock, resolved = self._stock, self._stock.rules_of(sku)
        if not stock.is_shown(sku) and sku not in self._pending:
            return
        if rules_before is None and sku not in self._pending and not resolved.is_dynamic:
            self._plan_alone(sku, happening, outcome, is_daily=is_daily)
            return
        before = stock.channels_of(sku, resolved if rules_before is None else rules_before)
        changes = stock.evaluate(sku)
        plans = self._replenishing.plan(sku, happening, is_daily=is_daily)
        if changes or plans or sku in self._pending or stock.channels_of(sku, resolved) != before:
            self._show(sku, happening, changes, plans, outcome)

    def _plan_alone(self, sku: int, happening: Happening, outcome: Outcome, *, is_daily: bool) -> None:
        """The look at a SKU whose offers cannot have changed: nothing of them follows from its demand."""
        self._stock.is_looked_at(sku)
        if plans := self._replenishing.plan(sku, happening, is_daily=is_daily):
            self._show(sku, happening, [], plans, outcome)

    def _show(
        self, sku: int, happening: Happening, changes: list[Change], plans: list[Replenishment], outcome: Outcome
    ) -> None:
        """Gives `sku` a new version, and tells everybody."""
        self._stock.reflects(sku, happening.offset, happening.time_ms)
        self._pending.discard(sku)
        self._unexplained[sku] = None
        outcome.touched[sku] = None
        outcome.thresholds.extend(self._threshold(sku, change, happening) for change in changes)
        if plans:
            outcome.replenishments.extend(plans)
            self._review(sku)  # what is open now has to be looked at with every movement
        if self._shadow is not None and (difference := self._shadow.difference(sku)) is not None:
            outcome.shadow.append(difference)

    def _threshold(self, sku: int, change: Change, happening: Happening) -> Threshold:
        name, version = self._stock.names[sku], happening.offset
        return Threshold(
            id=position_threshold_id(name, change.location, version)
            if change.location is not None
            else threshold_id(name, str(change.channel), version),
            sku=name,
            channel=change.channel,
            location=change.location,
            from_=LEVELS[change.before],
            to=LEVELS[change.after],
            sellable=change.units,
            threshold=change.threshold,
            version=version,
            rules=self._stock.skus.cells["generation"][sku],
            time=format_ms(happening.time_ms),
            initial=change.initial,
            cause=happening.cause,
            correlation=happening.correlation,
            traceparent=happening.traceparent,
        )


@lru_cache(maxsize=CONTROLS_KEPT)
def _decode_for_all(payload: bytes | None) -> Decoded | Refusal:
    """As `decode`, of what every lane of the process is given: a tick of each partition each second."""
    return decode(payload)


def warm_up() -> None:
    """Lets compiled loops be compiled, or loaded where they were before, so that no movement waits for it."""
    rules, settings = RuleBook(Rules(channels={"web": ChannelRules()})), LaneSettings(1, 1, dedupe_ms=1, as_of_ms=1)
    lane = Lane(0, rules, settings)
    teller = lane.teller("")
    by_row = [_warming(0, "east", b',"sequence":1'), _warming(1, "west", b',"sequence":1')]
    lane.apply(
        [_log_of([payload], first) for first, payload in enumerate(by_row)]
    )  # a column of one row has its own type
    result = lane.apply([_log_of([_warming(2, "east"), _warming(3, "east")], 2)], teller=teller)
    told, _ = lane.tell(teller, 1)
    if not (result.hashes and told.told):
        raise RuntimeError("the movements to warm up with were not plain")
    fresh, ((lane_of_a, part),) = Lane(0, rules, settings), route(_log_of([_warming(0, "east")], 0), lanes=1)
    (crossing,) = fresh.apply([cast("Part", part)], teller=fresh.teller("")).thresholds
    if lane_of_sku("A", lanes=1) != lane_of_a:
        raise RuntimeError("the message to warm up with went to the lane of another SKU")
    if not isinstance(crossing, Records):
        raise TypeError("the crossing to warm up with was not plain")
    Lane.restore(0, lane.snapshot(), RuleBook(Rules()), settings)
    wide = Windows()  # of numbers that do not fit into 32 bits, which seldom come
    for time_ms in (0, HOUR_MS):
        wide.add(0, time_ms, INT32_MAX + 1)
    wide.dump()


def _warming(number: int, location: str, more: bytes = b"") -> bytes:
    """A movement to warm up with, an hour after the one before."""
    return (
        b'{"id":"%d","source":"warm","kind":"received","sku":"A","location":"%s","quantity":100,'
        b'"time":"2026-01-01T%02d:00:00Z"%s}'
    ) % (number, location.encode(), number, more)


def _log_of(payloads: list[bytes], first: int) -> Batch:
    numbers = list(range(first, first + len(payloads)))
    return Batch(Origin("", "", 0, ""), numbers, [-1] * len(numbers), [b"A"] * len(numbers), list(payloads))


def _older(oldest_ms: int, part: Part) -> int:
    """The older of `oldest_ms` and the part's first time, where 0 and less say that there is none."""
    first_ms = part.batch.timestamps[part.places[0]] if len(part.places) else 0
    return min(first_ms, oldest_ms or first_ms) if first_ms > 0 else oldest_ms


def _is_control_alone(part: Part) -> bool:
    """Whether the part is one record that speaks of no SKU: it need not be shown to compiled loops."""
    places = part.places
    if len(places) != 1 or part.batch.keys[places[0]]:
        return False
    ends = part.messages.arrays.key_ends
    return bool(ends[places[0]] == ends[places[0] + 1])


def nothing_of(lane: int) -> LaneResult:
    """The result of a lane to which nothing happened."""
    return LaneResult(lane, [], [], [], [], [], [], [], [], [], [], 0, 0, 0)


def _refused(fact: Fact, reason: Reason, detail: str) -> Refusal:
    return Refusal(reason, detail, fact.source, fact.sku)


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
        time=format_ms(message.timestamp_ms) if 0 <= message.timestamp_ms <= LATEST_MS else None,
        key_base64=None if message.key is None else b64encode(message.key).decode(),
        payload_base64=None if message.payload is None else b64encode(message.payload).decode(),
        traceparent=message.traceparent,
    )
