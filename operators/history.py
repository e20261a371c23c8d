"""History: what changed a position's quantities and when, so that counts and statements hold as of their time."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from operators.columns import Array, Columns, Pairs, dump_of
from operators.packing import mark_live_entries
from operators.plain import STAMP_BITS, STAMP_COUNT, STAMP_QUANTITY, chain_entries
from operators.positions import QUANTITIES

_ENTRY_COLUMNS: Final[dict[str, type[np.generic]]] = {
    "position": np.int32,
    "stamp": np.int64,  # as `stamp_of` makes it
    "amount": np.int64,  # of a count the jump that it made
}
_ENTRY_COLUMNS_DERIVED: Final[dict[str, type[np.generic]]] = {
    "previous": np.int32,  # row + 1 of the position's entry before this one, 0: none
}
_SNAPSHOT_COLUMNS: Final[dict[str, type[np.generic]]] = {  # as they once stood in memory
    "position": np.int32,
    "quantity": np.int8,
    "anchor": np.int8,
    "time_ms": np.int64,
    "amount": np.int64,
}
_ANCHOR_COLUMNS: Final[dict[str, type[np.generic]]] = {
    "position": np.int32,
    "quantity": np.int32,
    "last_ms": np.int64,  # of the quantity's latest count
    "dropped_ms": np.int64,  # of the latest count whose entry is no longer kept, −1: none
}
ROWS_BEFORE_CLEANING: Final = 1024
NEVER: Final = -1


def stamp_of(time_ms: int, quantity: int, *, is_count: bool) -> int:
    """When something changed, an index of QUANTITIES, and whether that was a count, in one number of 64 bits.

    The time comes first, so of one quantity's counts the later one has the larger stamp.
    """
    return time_ms << STAMP_BITS | is_count * STAMP_COUNT | quantity


class Entries(Columns):
    """Changes of quantities, in the order in which they came."""

    def __init__(self) -> None:
        super().__init__(_ENTRY_COLUMNS, _ENTRY_COLUMNS_DERIVED)

    @property
    def times_ms(self) -> Array:
        """When each was."""
        times_ms: Array = self["stamp"] >> STAMP_BITS
        return times_ms

    @property
    def quantities(self) -> Array:
        """Which quantity each changed, as an index of QUANTITIES."""
        return (self["stamp"] & STAMP_QUANTITY).astype(np.int8)

    @property
    def counts(self) -> Array:
        """Whether each is a count."""
        counts: Array = (self["stamp"] & STAMP_COUNT) != 0
        return counts

    def told(self, wanted: Array) -> list[tuple[int, int, int]]:
        """Position, quantity and time of those that `wanted`, a mask or their rows, names."""
        stamps = self["stamp"][wanted]
        columns = self["position"][wanted], stamps & STAMP_QUANTITY, stamps >> STAMP_BITS
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def without_stamps(self) -> dict[str, Array]:
        """All that is known of each, in columns of its own."""
        return {
            "position": self["position"],
            "quantity": self.quantities,
            "anchor": self.counts.view(np.int8),
            "time_ms": self.times_ms,
            "amount": self["amount"],
        }

    def dump(self) -> dict[str, Any]:
        """All entries, without stamps."""
        return dump_of(self.without_stamps())

    def load(self, dumped: Mapping[str, Any]) -> None:
        """Replaces all entries."""
        loaded = Columns(_SNAPSHOT_COLUMNS)
        loaded.load(dumped)
        self.begin(loaded.rows)
        self["position"][:], self["amount"][:] = loaded["position"], loaded["amount"]
        self["stamp"][:] = loaded["time_ms"] << STAMP_BITS | loaded["anchor"] * STAMP_COUNT | loaded["quantity"]


class History:
    """The changes of every quantity of every position, back to the position's horizon.

    An entry is an amount at a time. A count is an entry too: the jump from what the entries up to its time add up to,
    to what was counted. So the value at a time is the current one less all entries after it, and what lies before the
    horizon can be dropped without a trace. A movement dated at or before a count shrinks the count's jump instead of
    changing what comes after.
    """

    def __init__(self, positions: Columns, as_of_ms: int, entries_max: int) -> None:
        self._positions = positions
        self._as_of_ms = as_of_ms
        self._entries_max = entries_max
        self._entries = Entries()
        self._anchors = Columns(_ANCHOR_COLUMNS)
        self._anchor_rows = Pairs(self._anchors, "position", "quantity")
        self._kept = 0
        self._counts: dict[tuple[int, int], list[int]] = {}  # by position and quantity: entries of counts, as they came

    def horizon_ms(self, position: int) -> int:
        """Before this, what the position held is not known any more."""
        cells = self._positions.cells
        return max(cells["newest_ms"][position] - self._as_of_ms, cells["floor_ms"][position])

    def change(self, position: int, quantity: int, time_ms: int, amount: int) -> None:
        """A quantity changed by `amount` at `time_ms`; what was counted at or after that time stays as counted."""
        anchor = self._anchor_rows.row(position, quantity)
        if anchor >= 0 and self._anchors.cells["last_ms"][anchor] >= time_ms:
            if self._anchors.cells["dropped_ms"][anchor] < time_ms:
                self._shrink_jump(position, quantity, time_ms, amount)
        else:
            self._positions.cells[QUANTITIES[quantity]][position] += amount
        if time_ms >= self.horizon_ms(position):
            self._enter(position, quantity, time_ms, amount, is_anchor=False)

    def count(self, position: int, quantity: int, time_ms: int, value: int) -> None:
        """The quantity was `value` at `time_ms`, which lies within the horizon."""
        jump = value - self.value_at(position, quantity, time_ms)
        anchor = self._anchor_rows.row(position, quantity)
        if anchor < 0:
            anchor = self._anchor_rows.add(position, quantity)
            self._anchors.cells["last_ms"][anchor] = self._anchors.cells["dropped_ms"][anchor] = NEVER
        cells = self._anchors.cells
        if cells["last_ms"][anchor] > time_ms:
            self._shrink_jump(position, quantity, time_ms + 1, jump)
        else:
            cells["last_ms"][anchor] = time_ms
            counted_ms = self._positions.cells["counted_ms"]
            counted_ms[position] = max(counted_ms[position], time_ms)
            self._positions.cells[QUANTITIES[quantity]][position] += jump
        self._enter(position, quantity, time_ms, jump, is_anchor=True)

    def value_at(self, position: int, quantity: int, time_ms: int) -> int:
        """What the quantity was at `time_ms`, which lies within the horizon."""
        value = int(self._positions.cells[QUANTITIES[quantity]][position])
        cells = self._entries.cells
        stamps, amounts, previous = cells["stamp"], cells["amount"], cells["previous"]
        later = stamp_of(time_ms + 1, 0, is_count=False)  # the least stamp after that time
        row = self._positions.cells["entry"][position] - 1
        while row >= 0:
            if stamps[row] >= later and stamps[row] & STAMP_QUANTITY == quantity:
                value -= amounts[row]
            row = previous[row] - 1
        return value

    def dump(self) -> dict[str, Any]:
        """Entries within their horizons, and the counts' times."""
        self._clean()
        return {"entries": self._entries.dump(), "anchors": self._anchors.dump()}

    def load(self, dumped: dict[str, Any]) -> None:
        """Replaces everything; the positions' columns have been loaded before."""
        self._entries.load(dumped["entries"])
        self._anchors.load(dumped["anchors"])
        self._anchor_rows.rebuild()
        np.maximum.at(self._positions["counted_ms"], self._anchors["position"], self._anchors["last_ms"])
        self._kept = self._entries.rows
        self._chain()
        self._find_counts()

    @property
    def table(self) -> Array:
        """The entries' memory, for compiled loops."""
        return self._entries.table

    @property
    def moves(self) -> int:
        """Changes when the memory of `table` did."""
        return self._entries.moves

    @property
    def rows(self) -> int:
        """How many entries there are."""
        return self._entries.rows

    @property
    def room(self) -> int:
        """How many there may be before room has to be made."""
        return min(self._entries.capacity, 2 * self._kept + ROWS_BEFORE_CLEANING)

    def set_rows(self, rows: int) -> None:
        """There are this many entries now, of the room that was made."""
        self._entries.rows = rows

    def make_room(self, rows: int) -> None:
        """Room for at least `rows` more: what is not needed any more goes first."""
        if self._entries.rows + rows > 2 * self._kept + ROWS_BEFORE_CLEANING:
            self._clean()
        self._entries.make_room(rows)

    def _shrink_jump(self, position: int, quantity: int, time_ms: int, amount: int) -> None:
        """The first count at or after `time_ms` takes up `amount`, so that nothing after it moves."""
        cells = self._entries.cells
        stamps, least = cells["stamp"], stamp_of(time_ms, quantity, is_count=True)
        later = [row for row in self._counts.get((position, quantity), ()) if stamps[row] >= least]
        if later:
            first = min(later, key=stamps.__getitem__)  # of several at one time the one that was read first
            cells["amount"][first] -= amount

    def _enter(self, position: int, quantity: int, time_ms: int, amount: int, *, is_anchor: bool) -> None:
        row = self._entries.add_row()
        cells, last = self._entries.cells, self._positions.cells["entry"]
        cells["position"][row] = position
        cells["stamp"][row] = stamp_of(time_ms, quantity, is_count=is_anchor)
        cells["amount"][row] = amount
        cells["previous"][row] = last[position]
        last[position] = row + 1
        if is_anchor:
            self._counts.setdefault((position, quantity), []).append(row)
        self._positions.cells["entries"][position] += 1
        if self._positions.cells["entries"][position] > self._entries_max:
            self._shorten(position)
        elif row + 1 > 2 * self._kept + ROWS_BEFORE_CLEANING:
            self._clean()

    def _shorten(self, position: int) -> None:
        """Too many entries of one position: its horizon moves up until three quarters are left."""
        entries = self._entries
        of_all = entries.times_ms
        mine = (entries["position"] == position) & (of_all >= self.horizon_ms(position))
        times_ms = np.sort(of_all[mine])
        if len(times_ms) > self._entries_max:
            floor_ms = int(times_ms[len(times_ms) // 4])
            if np.count_nonzero(times_ms >= floor_ms) > self._entries_max:
                floor_ms += 1  # one single time holds them all
            self._positions.cells["floor_ms"][position] = floor_ms
        self._clean()

    def _clean(self) -> None:
        """Drops entries before their horizons, and remembers the latest count among them."""
        entries, positions = self._entries, self._positions
        live = np.empty(entries.rows, np.bool_)
        if mark_live_entries(entries.table, entries.rows, positions.table, self._as_of_ms, live) == entries.rows:
            self._kept = entries.rows
            return
        dropped_ms = self._anchors.cells["dropped_ms"]
        for position, quantity, time_ms in entries.told(~live & entries.counts):
            anchor = self._anchor_rows.row(position, quantity)
            dropped_ms[anchor] = max(dropped_ms[anchor], time_ms)
        entries.keep(live)
        self._kept = entries.rows
        self._chain()
        self._find_counts()

    def _find_counts(self) -> None:
        """Where the counts stand among the entries, of which there are many more."""
        self._counts.clear()
        rows = np.flatnonzero(self._entries.counts)
        for row, (position, quantity, _) in zip(rows.tolist(), self._entries.told(rows), strict=True):
            self._counts.setdefault((position, quantity), []).append(row)

    def _chain(self) -> None:
        """Links each entry to the one before it at the same position, in the order in which they came."""
        chain_entries(self._entries.table, self._entries.rows, self._positions.table)
