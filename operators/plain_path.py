"""Plain path: gives a lane's columns to the compiled loops of `plain.py`, and takes them back."""

from typing import Final, NamedTuple

import numpy as np

from operators import plain
from operators.causes import Sightings
from operators.columns import record_of
from operators.compiling import Held, direct, hold
from operators.duplicates import RecentIds
from operators.last_facts import LastFacts
from operators.plain import (
    KIND_NAMES,
    NUMBERS,
    QUALIFIERS,
    SIZES,
    TEXTS,
    Home,
    Moment,
    Plan,
    Told,
    Work,
    apply_plain,
    new_skus,
)
from operators.positions import EFFECTS, QUANTITIES
from operators.reorder_points import ReorderPoints
from operators.route import Part
from operators.stock import Stock
from schemas.movements import Movement

TOUCHED_MAX: Final = 8192
CROSSED_MAX: Final = 4096
NEW_MAX: Final = 4096
STEPS_MAX: Final = 3  # quantities that one movement changes at one place
ROOM_ROWS: Final = 64
ROOM_ROWS_MAX: Final = 4096  # room that is made at once: all of a large batch would take memory that is seldom used,
ROOM_NEW_MAX: Final = 512  # most of all where few messages have something new: positions, standings, windows
_CROSSING: Final = ("message", "time_ms", "sku", "row", "before", "after", "units", "threshold", "initial")
CROSSING: Final = record_of([(name, np.int64) for name in _CROSSING])  # the first fields of a Crossing
BUFFER_BYTES: Final = 2 * plain.PLAIN_TEXT_MAX + 1
_DEMAND_KINDS: Final = ("shipped", "transfer_shipped")
_RETURN_KINDS: Final = ("returned",)


class Crossing(NamedTuple):
    """A level that changed: at which message of a batch, of which SKU and row, and how."""

    message: int
    time_ms: int
    sku: int
    row: int  # of the standing, or −1 − row of the position
    before: int
    after: int
    units: int
    threshold: int
    initial: bool
    source: str
    id: str
    correlation: str | None


class PlainResult(NamedTuple):
    """What a call has done: why it ended and before which message, SKUs by their first touch, crossings in order."""

    ended: int
    place: int
    applied: int
    duplicates: int
    last_offset: int
    touched: list[int]
    crossed: int


class Surroundings(NamedTuple):
    """What holds for an origin now."""

    home: Held[Home]
    clock_ms: int
    generation: int
    moment: plain.Ints  # as compiled loops want it, but for the call


class Bounds(NamedTuple):
    """How much a lane remembers: spans in ms, and how many of each SKU or position."""

    dedupe_ms: int
    as_of_ms: int
    ids_per_sku_max: int
    history_max: int


class Tables(NamedTuple):
    """What a lane keeps in columns."""

    stock: Stock
    ids: RecentIds
    facts: LastFacts
    sightings: Sightings
    points: ReorderPoints


class PlainPath:
    """The columns of a lane as compiled loops want them, and which SKUs are not for these: `special`.

    Whoever else adds to the columns, or cleans them, has to say so by `has_changed`.
    """

    def __init__(self, tables: Tables, bounds: Bounds) -> None:
        self._stock, self._ids, self._facts, self._sightings, self._points = tables
        self._bounds = bounds
        self._calls = 0
        self.changes = 0  # how often something was changed by others
        self._is_current = False
        self._is_ahead = False  # compiled loops have added rows that nobody else knows of
        self._fits = False
        self._known: tuple[object, ...] = ()
        self._held: Held[plain.Lane] | None = None
        self._sizes = np.zeros(2 * SIZES, np.int64)

    def has_changed(self) -> None:
        """Columns have more rows than compiled loops left, or have moved; or will have: it is said before, too."""
        self.give_back()
        self._is_current = False
        self.changes += 1

    def give_back(self) -> None:
        """Tells everything how many rows it has now: before others look at columns, or add to them."""
        if self._is_ahead:
            self._is_ahead = False
            self._take_back()

    def surroundings(self, origin: int, home: Held[Home], clock_ms: int, generation: int) -> Surroundings:
        """What holds for the origin with this row."""
        moment = Moment(origin, clock_ms, generation, *self._bounds, 0)
        return Surroundings(home, clock_ms, generation, np.array(moment, np.int64))

    def apply(self, part: Part, begin: int, around: Surroundings, last: int) -> PlainResult:
        """Applies messages of `part` from the one at `begin` on until one is not plain.

        `last` is the offset that was applied last.
        """
        self._calls += 1
        _COUNTS[:] = _NOTHING_DONE
        _COUNTS[plain.LAST_OFFSET] = last
        WORK.moment[:] = around.moment
        _MOMENT[_CALL] = self._calls
        ended = _apply_plain(part.messages.held, part.places, begin, self.lane, around.home, HELD_WORK)
        self._is_ahead = True
        applied, duplicates, touched, crossed, last_offset, place = _COUNTS.tolist()
        return PlainResult(
            ended,
            place,
            applied,
            duplicates,
            last_offset,
            WORK.told.touched[:touched].tolist(),
            crossed,
        )

    def new_skus(self, part: Part, begin: int, home: Held[Home]) -> list[str]:
        """Names of SKUs that are not known yet, of plain movements from `begin` on, in their order; some repeated."""
        count = new_skus(part.messages.held, part.places, begin, self.lane, home, HELD_WORK, _FOUND)
        found, ends, keys = _FOUND[:count], part.messages.arrays.key_ends, part.messages.arrays.keys.data
        spans = zip(ends[found].tolist(), ends[found + 1].tolist(), strict=True)
        return [str(keys[begin:end], "ascii") for begin, end in spans]

    @property
    def lane(self) -> Held[plain.Lane]:
        """The memory of all columns as it is now, and the sizes of what may grow."""
        if self._held is None or not self._is_current:
            self._held = self._brought_up_to_date()
            self._is_current = True
        return self._held

    def make_room(self, messages: int) -> None:
        """Room for what this many messages may add, or for some of it."""
        self.has_changed()
        stock, rows = self._stock, max(ROOM_ROWS, min(messages, ROOM_ROWS_MAX))
        new = min(rows, ROOM_NEW_MAX)
        positions, position_pairs, standings, standing_pairs = stock.tables()
        positions.make_room(new + 2)
        position_pairs.make_room(new + 2, stock.skus.rows)
        wide = stock.plain_rules.channels_max
        standings.make_room(new + wide)
        standing_pairs.make_room(new + wide, stock.skus.rows)
        stock.history.make_room(rows + 2 * plain.MOVED_MAX)
        self._ids.make_room(rows + 2)
        for windows in (stock.demand_windows, stock.return_windows):
            windows.make_room(new + 2, positions.capacity)
        self._facts.make_room(rows * plain.FACT_HEAD_BYTES * 2, stock.skus.rows)
        self._sightings.heard.make_room(new + 2)
        self._sightings.rows.make_room(new + 2, len(self._sightings.sources))

    @property
    def fits(self) -> bool:
        """Whether all numbers are as wide as compiled loops take them."""
        return self._fits if self._is_current else self._fits_now()

    def _fits_now(self) -> bool:
        return not (self._stock.demand_windows.is_wide or self._stock.return_windows.is_wide)

    def _brought_up_to_date(self) -> Held[plain.Lane]:
        if self._is_short():
            self.make_room(ROOM_ROWS)
        known, held = self._moved(), self._held
        if held is None or known != self._known:
            held, self._known = hold(self._built()), known
        self._measure()
        self._fits = self._fits_now()
        return held

    def _is_short(self) -> bool:
        """Whether something that is as long as there are SKUs or positions is shorter."""
        stock = self._stock
        _, position_pairs, _, standing_pairs = stock.tables()
        shortest = min(len(position_pairs.table.firsts), len(standing_pairs.table.firsts), self._facts.skus)
        sightings = self._sightings
        return shortest < stock.skus.rows or len(sightings.rows.table.firsts) < len(sightings.sources)

    def _moved(self) -> tuple[object, ...]:
        """Changes when any memory did."""
        stock = self._stock
        positions, position_pairs, standings, standing_pairs = stock.tables()
        return (
            stock.skus.moves, positions.moves, position_pairs.moves, standings.moves, standing_pairs.moves,
            stock.names.moves, stock.locations.moves, stock.plain_rules.columns.begins.ctypes.data, stock.history.moves,
            self._ids.moves, stock.demand_windows.moves, stock.return_windows.moves, self._facts.moves,
            self._sightings.heard.moves, self._sightings.rows.moves, self._points.moves,
        )  # fmt: skip

    def _built(self) -> plain.Lane:
        stock = self._stock
        positions, position_pairs, standings, standing_pairs = stock.tables()
        return plain.Lane(
            stock.names.table,
            stock.locations.table,
            stock.skus.table,
            positions.table,
            position_pairs.table,
            stock.history.table,
            self._ids.columns(),
            stock.demand_windows.columns(),
            stock.return_windows.columns(),
            standings.table,
            standing_pairs.table,
            self._facts.columns(),
            self._sightings.heard.table,
            self._sightings.rows.table,
            self._points.table,
            stock.plain_rules.columns,
            self._sizes,
        )

    def _measure(self) -> None:
        stock, sizes = self._stock, self._sizes
        positions, position_pairs, standings, standing_pairs = stock.tables()
        history, demand, returns = stock.history, stock.demand_windows, stock.return_windows
        sizes[:SIZES] = (
            positions.rows, history.rows, self._ids.rows, standings.rows, self._facts.used_bytes,
            self._sightings.heard.rows, *demand.rows, *returns.rows,
        )  # fmt: skip
        of_positions = (positions.capacity, position_pairs.room, demand.reach, returns.reach)
        sizes[SIZES:] = (
            min(of_positions) - 2,
            history.room - 2 * plain.MOVED_MAX,
            self._ids.room - 1,
            min(standings.capacity, standing_pairs.room) - stock.plain_rules.channels_max,
            self._facts.room_bytes,
            min(self._sightings.heard.capacity, self._sightings.rows.room) - 2,
            *(room - 2 for windows in (demand, returns) for room in windows.room),
        )

    def _take_back(self) -> None:
        """Tells everything how many rows it has now."""
        stock = self._stock
        positions, _, standings, _ = stock.tables()
        rows = self._sizes[:SIZES].tolist()
        positions.rows, standings.rows = rows[plain.SIZE_POSITIONS], rows[plain.SIZE_STANDINGS]
        stock.history.set_rows(rows[plain.SIZE_ENTRIES])
        self._ids.rows = rows[plain.SIZE_IDS]
        stock.demand_windows.set_rows(*rows[plain.SIZE_DEMAND : plain.SIZE_RETURNS])
        stock.return_windows.set_rows(*rows[plain.SIZE_RETURNS : SIZES])
        self._facts.set_used(rows[plain.SIZE_FACTS])
        self._sightings.heard.rows = rows[plain.SIZE_HEARD]


def text_of(part: Part, text: int) -> str:
    """A text of the message that was looked at last."""
    begin, end = WORK.texts[2 * text : 2 * text + 2].tolist()
    return part.messages.arrays.payloads[begin:end].tobytes().decode()


def crossings_of(part: Part, count: int) -> list[Crossing]:
    """The crossings of the call that was the last, so many."""
    told, text = WORK.told, part.messages.arrays.payloads.data
    spans = told.texts[: count * 2 * TEXTS].reshape(count, 2 * TEXTS)
    wanted = spans[
        :,
        [2 * plain.SOURCE, 2 * plain.SOURCE + 1, 2 * plain.ID, 2 * plain.ID + 1,
         2 * plain.CORRELATION, 2 * plain.CORRELATION + 1],
    ].tolist()  # fmt: skip
    return [
        Crossing(  # type: ignore[call-arg]  # the numbers are those of its first fields
            *numbers,
            str(text[at[0] : at[1]], "ascii"),
            str(text[at[2] : at[3]], "ascii"),
            None if at[4] < 0 else str(text[at[4] : at[5]], "ascii"),
        )
        for numbers, at in zip(told.crossings[:count].tolist(), wanted, strict=True)
    ]


def _plan() -> Plan:
    """The sign table as arrays."""
    kinds, qualifiers = len(KIND_NAMES), len(QUALIFIERS)
    counts = np.full((kinds, qualifiers), -1, np.int8)
    quantities = np.zeros((kinds, qualifiers, STEPS_MAX), np.int8)
    signs = np.zeros((kinds, qualifiers, STEPS_MAX), np.int8)
    destinations, outgoing = np.zeros(kinds, np.int8), np.zeros(kinds, np.int8)
    for (kind, qualifier), effect in EFFECTS.items():
        name = _name(kind)
        if name not in KIND_NAMES:
            continue
        row = KIND_NAMES.index(name)
        column = QUALIFIERS.index(qualifier) if qualifier in QUALIFIERS else int(qualifier == "named")
        counts[row, column] = len(effect.here)
        for step, (quantity, sign) in enumerate(effect.here.items()):
            quantities[row, column, step], signs[row, column, step] = QUANTITIES.index(quantity), sign
        destinations[row] = bool(effect.there)
        outgoing[row] = plain.DEMAND * (name in _DEMAND_KINDS) + plain.RETURNS * (name in _RETURN_KINDS)
    return Plan(counts, quantities, signs, destinations, outgoing)


def _name(kind: type[Movement]) -> str:
    return str(kind.__struct_config__.tag)


def _work() -> Work:
    told = Told(
        np.zeros(TOUCHED_MAX, np.int32), np.zeros(CROSSED_MAX, CROSSING), np.zeros(CROSSED_MAX * 2 * TEXTS, np.int64)
    )
    zeros = (np.zeros(plain.COUNTS, np.int64), np.zeros(2 * TEXTS, np.int64), np.zeros(NUMBERS, np.int64))
    return Work(_plan(), told, *zeros, np.zeros(BUFFER_BYTES, np.uint8), np.zeros(len(Moment._fields), np.int64))


WORK: Final = _work()  # one for all lanes of a process, which take turns
HELD_WORK: Final = hold(WORK)
_FOUND: Final = np.zeros(NEW_MAX, np.int64)
_COUNTS: Final = WORK.counts.data
_NOTHING_DONE: Final = np.zeros(plain.COUNTS, np.int64).data
_MOMENT: Final = WORK.moment.data
_CALL: Final = Moment._fields.index("call")
_apply_plain: Final = direct(apply_plain, held=(0, 3, 4, 5))
