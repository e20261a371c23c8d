"""Windows: units per hour and per day of each position, by the time at which they moved."""

from typing import Any, Final

import numpy as np

from operators.columns import FIRST_CAPACITY, Columns, Grid, grown
from operators.memory import zeros
from operators.plain import WindowColumns
from schemas.times import DAY_MS

HOURS: Final = 24
DAYS: Final = 29  # the latest day, which is not over, and the 28 before it
HOUR_MS: Final = 3_600_000

_COLUMNS: Final[dict[str, type[np.generic]]] = {
    "position": np.int32,
    "hour": np.int32,  # the latest that had any
    "day": np.int32,
}

_DERIVED: Final[dict[str, type[np.generic]]] = {"edits": np.int32}  # how often another day than the latest one changed


class Windows:
    """What one thing (demand, or returns) came to in the latest 24 hours and 29 days of each position that had any.

    A unit counts in the hour and the day in which it moved, however late it is told; so the order of telling makes no
    difference. Positions without any take no memory, others 436 bytes.
    """

    def __init__(self) -> None:
        self._rows = zeros(FIRST_CAPACITY, np.int32)  # by position: row + 1
        self._columns = Columns(_COLUMNS, _DERIVED)
        self._hours = Grid(HOURS)
        self._days = Grid(DAYS)

    def add(self, position: int, time_ms: int, units: int) -> None:
        """`units` moved at `time_ms`; what lies before the window is left out."""
        hour, day = time_ms // HOUR_MS, time_ms // DAY_MS
        row = self._row(position)
        if row < 0:
            row = self._begin(position, hour, day)
        cells = self._columns.cells
        cells["edits"][row] += day != cells["day"][row]
        _put(self._hours, cells["hour"], row, hour, units)
        _put(self._days, cells["day"], row, day, units)

    def __contains__(self, position: int) -> bool:
        """Whether the position ever had any."""
        return self._row(position) >= 0

    def as_of(self, position: int, day: int) -> tuple[int, int]:
        """Two numbers that stay the same as long as what `days` says of the days before `day` does."""
        row = self._row(position)
        if row < 0:
            return 0, 0
        newest = self._columns.cells["day"][row]
        return self._columns.cells["edits"][row], self._days.row(row)[newest % DAYS] if newest < day else 0

    def columns(self) -> WindowColumns:
        """The memory of it all, for compiled loops."""
        return WindowColumns(self._rows, self._columns.table, self._hours.values, self._days.values)

    @property
    def moves(self) -> tuple[int, ...]:
        """Changes when the memory of `columns` did."""
        grids = (len(self._hours.values), len(self._days.values), self._hours.is_wide, self._days.is_wide)
        return (self._columns.moves, len(self._rows), *grids)

    @property
    def reach(self) -> int:
        """How many positions may be asked about before room has to be made."""
        return len(self._rows)

    @property
    def is_wide(self) -> bool:
        """Whether a number did not fit into 32 bits."""
        return self._hours.is_wide or self._days.is_wide

    @property
    def rows(self) -> int:
        """How many positions have had any."""
        return self._columns.rows

    @property
    def room(self) -> int:
        """How many there may be before more room has to be made."""
        return min(self._columns.capacity, len(self._hours.values) // HOURS, len(self._days.values) // DAYS)

    def set_rows(self, rows: int) -> None:
        """There are this many now, of the room that was made."""
        self._columns.rows = rows
        self._hours.set_rows(rows)
        self._days.set_rows(rows)

    def make_room(self, rows: int, positions: int) -> None:
        """Room for at least `rows` more, of this many positions in all."""
        self._columns.make_room(rows)
        more = self._columns.capacity - self._columns.rows
        self._hours.make_room(more)
        self._days.make_room(more)
        self._rows = grown(self._rows, positions)

    def days(self, position: int) -> dict[int, int]:
        """Units by day (since 1970), without the days that had none."""
        return self._entries(position, self._days, "day")

    def hours(self, position: int) -> dict[int, int]:
        """Units by hour (since 1970), without the hours that had none."""
        return self._entries(position, self._hours, "hour")

    def dump(self) -> dict[str, Any]:
        """Everything, as plain values and bytes."""
        return {"columns": self._columns.dump(), "hours": self._hours.dump(), "days": self._days.dump()}

    def load(self, dumped: dict[str, Any]) -> None:
        """Replaces everything."""
        self._columns.load(dumped["columns"])
        self._hours.load(dumped["hours"])
        self._days.load(dumped["days"])
        positions = self._columns["position"]
        self._rows = zeros(max(FIRST_CAPACITY, int(positions.max(initial=0)) + 1), np.int32)
        self._rows[positions] = np.arange(1, len(positions) + 1)

    def _row(self, position: int) -> int:
        return int(self._rows[position]) - 1 if position < len(self._rows) else -1

    def _begin(self, position: int, hour: int, day: int) -> int:
        row = self._columns.add_row()
        self._hours.add_row()
        self._days.add_row()
        self._rows = grown(self._rows, position + 1)
        self._rows[position] = row + 1
        cells = self._columns.cells
        cells["position"][row], cells["hour"][row], cells["day"][row] = position, hour, day
        return row

    def _entries(self, position: int, grid: Grid, unit: str) -> dict[int, int]:
        row = self._row(position)
        if row < 0:
            return {}
        newest, width = self._columns.cells[unit][row], grid.width
        values = grid.row(row)
        return {at: units for at in range(newest - width + 1, newest + 1) if (units := values[at % width])}


def _put(grid: Grid, newest: memoryview, row: int, at: int, units: int) -> None:
    """Adds to the cell of `at`; a newer one pushes the oldest out."""
    width, last = grid.width, newest[row]
    if at <= last - width:
        return
    if at > last:
        for gone in range(last + 1, min(at, last + width) + 1):
            grid.set(row, gone % width, 0)
        newest[row] = at
    grid.add(row, at % width, units)
