"""Windows: units per hour and per day of each position, by the time at which they moved."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from operators.columns import FIRST_CAPACITY, Columns, Grid, grown
from operators.memory import zeros
from operators.packing import keep_spans, scratch
from operators.plain import WindowColumns
from schemas.times import DAY_MS

HOURS: Final = 24
DAYS: Final = 29  # the latest day, which is not over, and the 28 before it
HOUR_MS: Final = 3_600_000

_COLUMNS_BEFORE: Final[dict[str, type[np.generic]]] = {  # up to snapshots of the fourth format
    "position": np.int32,
    "hour": np.int32,  # the latest that had any
    "day": np.int32,
}
_COLUMNS: Final[dict[str, type[np.generic]]] = {
    **_COLUMNS_BEFORE,
    "hour_row": np.int32,  # row + 1 in the grid of hours; 0: no other hour than the latest has any
    "hour_units": np.int64,  # of the latest, without a row
    "day_row": np.int32,
    "day_units": np.int64,
}
_DERIVED: Final[dict[str, type[np.generic]]] = {"edits": np.int32}  # how often another day than the latest one changed


class Windows:
    """What one thing (demand, or returns) came to in the latest 24 hours and 29 days of each position that had any.

    A unit counts in the hour and the day in which it moved, however late it is told; so the order of telling makes no
    difference. Positions without any take 4 bytes, others 40 more. Most articles of a warehouse sell seldom: only where
    two different hours have any are 24 of them kept (96 bytes), and 29 days (116 bytes) likewise.
    """

    def __init__(self) -> None:
        self._rows = zeros(FIRST_CAPACITY, np.int32)  # by position: row + 1
        self._columns = Columns(_COLUMNS, _DERIVED)
        self._hours = _Spans(self._columns, "hour", HOURS)
        self._days = _Spans(self._columns, "day", DAYS)

    def add(self, position: int, time_ms: int, units: int) -> None:
        """`units` moved at `time_ms`; what lies before the window is left out."""
        hour, day = time_ms // HOUR_MS, time_ms // DAY_MS
        row = self._row(position)
        if row < 0:
            row = self._begin(position, hour, day)
        cells = self._columns.cells
        cells["edits"][row] += day != cells["day"][row]
        self._hours.put(row, hour, units)
        self._days.put(row, day, units)

    def __contains__(self, position: int) -> bool:
        """Whether the position ever had any."""
        return self._row(position) >= 0

    def as_of(self, position: int, day: int) -> tuple[int, int]:
        """Two numbers that stay the same as long as what `days` says of the days before `day` does."""
        row = self._row(position)
        if row < 0:
            return 0, 0
        newest = self._columns.cells["day"][row]
        return self._columns.cells["edits"][row], self._days.units(row, newest) if newest < day else 0

    def columns(self) -> WindowColumns:
        """The memory of it all, for compiled loops."""
        return WindowColumns(self._rows, self._columns.table, self._hours.grid.values, self._days.grid.values)

    @property
    def moves(self) -> tuple[int, ...]:
        """Changes when the memory of `columns` did."""
        return (self._columns.moves, len(self._rows), self._hours.grid.moves, self._days.grid.moves)

    @property
    def reach(self) -> int:
        """How many positions may be asked about before room has to be made."""
        return len(self._rows)

    @property
    def is_wide(self) -> bool:
        """Whether a number of a row did not fit into 32 bits."""
        return self._hours.grid.is_wide or self._days.grid.is_wide

    @property
    def rows(self) -> tuple[int, int, int]:
        """How many positions have had any, and how many of these more than one hour, and day."""
        return self._columns.rows, self._hours.grid.rows, self._days.grid.rows

    @property
    def room(self) -> tuple[int, int, int]:
        """How many there may be of each before more room has to be made."""
        return self._columns.capacity, self._hours.grid.capacity, self._days.grid.capacity

    def set_rows(self, rows: int, hour_rows: int, day_rows: int) -> None:
        """There are this many of each now, of the room that was made."""
        self._columns.rows = rows
        self._hours.grid.set_rows(hour_rows)
        self._days.grid.set_rows(day_rows)

    def make_room(self, rows: int, positions: int) -> None:
        """Room for at least `rows` more of each, of this many positions in all."""
        self._columns.make_room(rows)
        self._hours.grid.make_room(rows)
        self._days.grid.make_room(rows)
        self._rows = grown(self._rows, positions)

    def days(self, position: int) -> dict[int, int]:
        """Units by day (since 1970), without the days that had none."""
        row = self._row(position)
        return self._days.entries(row) if row >= 0 else {}

    def hours(self, position: int) -> dict[int, int]:
        """Units by hour (since 1970), without the hours that had none."""
        row = self._row(position)
        return self._hours.entries(row) if row >= 0 else {}

    def dump(self) -> dict[str, Any]:
        """Everything, as plain values and bytes; rows of which only the latest hour or day is left are given up."""
        self._hours.clean()
        self._days.clean()
        return {"columns": self._columns.dump(), "hours": self._hours.grid.dump(), "days": self._days.grid.dump()}

    def load(self, dumped: dict[str, Any]) -> None:
        """Replaces everything."""
        of_before = not _has_rows(dumped["columns"])
        if of_before:
            self._load_before(dumped["columns"])
        else:
            self._columns.load(dumped["columns"])
        self._hours.grid.load(dumped["hours"])
        self._days.grid.load(dumped["days"])
        if of_before:
            self._hours.clean()
            self._days.clean()
        positions = self._columns["position"]
        self._rows = zeros(max(FIRST_CAPACITY, int(positions.max(initial=0)) + 1), np.int32)
        self._rows[positions] = np.arange(1, len(positions) + 1)

    def _load_before(self, dumped: Mapping[str, Any]) -> None:
        """Columns of snapshots in which each position had rows in both grids."""
        before = Columns(_COLUMNS_BEFORE)
        before.load(dumped)
        self._columns.rows = 0
        self._columns.add_rows(before.rows)
        for name in _COLUMNS_BEFORE:
            self._columns[name][:] = before[name]
        for name in ("hour_row", "day_row"):
            self._columns[name][:] = np.arange(1, before.rows + 1)

    def _row(self, position: int) -> int:
        return int(self._rows[position]) - 1 if position < len(self._rows) else -1

    def _begin(self, position: int, hour: int, day: int) -> int:
        row = self._columns.add_row()
        self._rows = grown(self._rows, position + 1)
        self._rows[position] = row + 1
        cells = self._columns.cells
        cells["position"][row], cells["hour"][row], cells["day"][row] = position, hour, day
        return row


class _Spans:
    """Units by hour or by day: of the latest one beside its number; where others have any, too, in a row of a grid."""

    def __init__(self, columns: Columns, unit: str, width: int) -> None:
        self._columns = columns
        self._newest, self._row, self._units = unit, f"{unit}_row", f"{unit}_units"
        self.grid = Grid(width)

    def put(self, row: int, at: int, units: int) -> None:
        """Adds to the cell of `at`; a newer one pushes out what is too old."""
        cells, width = self._columns.cells, self.grid.width
        newest, alone = cells[self._newest], cells[self._units]
        last = newest[row]
        if at <= last - width:
            return
        if not cells[self._row][row]:
            if at == last or at >= last + width:
                alone[row] = units + (alone[row] if at == last else 0)
                newest[row] = at
                return
            self._begin_row(row, last)
        place = cells[self._row][row] - 1
        for gone in range(last + 1, min(at, last + width) + 1):
            self.grid.set(place, gone % width, 0)
        newest[row] = max(at, last)
        self.grid.add(place, at % width, units)

    def units(self, row: int, at: int) -> int:
        """Of a span that lies in the window."""
        cells, width = self._columns.cells, self.grid.width
        if place := cells[self._row][row]:
            return self.grid.row(place - 1)[at % width]
        return int(cells[self._units][row]) if at == cells[self._newest][row] else 0

    def entries(self, row: int) -> dict[int, int]:
        """Units by span, without those that had none."""
        cells, width = self._columns.cells, self.grid.width
        newest, place = cells[self._newest][row], cells[self._row][row]
        if not place:
            units = cells[self._units][row]
            return {newest: units} if units else {}
        values = self.grid.row(place - 1)
        return {at: units for at in range(newest - width + 1, newest + 1) if (units := values[at % width])}

    def clean(self) -> None:
        """Gives up rows with nothing but the latest span; the others stand in the order of the positions' rows."""
        columns, values, width = self._columns, self.grid.values, self.grid.width
        kept = scratch.array(f"spans of {values.itemsize} bytes", values.dtype, self.grid.rows * width)
        # with the room behind them: a column of one row has a type of its own, for which all would be compiled again
        newest, units, rows = (columns.table[name] for name in (self._newest, self._units, self._row))
        self.grid.replace(kept, int(keep_spans(newest, units, rows, columns.rows, values, width, kept)))

    def _begin_row(self, row: int, last: int) -> None:
        """Its only span goes into a row of the grid."""
        place = self.grid.add_row()
        cells = self._columns.cells
        cells[self._row][row] = place + 1
        self.grid.add(place, last % self.grid.width, cells[self._units][row])
        cells[self._units][row] = 0


def _has_rows(columns: Mapping[str, Any]) -> bool:
    """Whether the columns say which positions have rows in the grids."""
    return "hour_row" in columns.get("names", ())
