"""Windows: units per hour and per day of each position, by the time at which they moved."""

from typing import Any, Final

import numpy as np

from operators.columns import Columns, Grid

HOURS: Final = 24
DAYS: Final = 29  # the latest day, which is not over, and the 28 before it
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000

_COLUMNS: Final[dict[str, type[np.generic]]] = {
    "position": np.int32,
    "hour": np.int32,  # the latest that had any
    "day": np.int32,
}


class Windows:
    """What one thing (demand, or returns) came to in the latest 24 hours and 29 days of each position that had any.

    A unit counts in the hour and the day in which it moved, however late it is told; so the order of telling makes no
    difference. Positions without any take no memory, others 436 bytes.
    """

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}
        self._columns = Columns(_COLUMNS)
        self._hours = Grid(HOURS)
        self._days = Grid(DAYS)

    def add(self, position: int, time_ms: int, units: int) -> None:
        """`units` moved at `time_ms`; what lies before the window is left out."""
        hour, day = time_ms // HOUR_MS, time_ms // DAY_MS
        row = self._rows.get(position)
        if row is None:
            row = self._begin(position, hour, day)
        cells = self._columns.cells
        _put(self._hours, cells["hour"], row, hour, units)
        _put(self._days, cells["day"], row, day, units)

    def __contains__(self, position: int) -> bool:
        """Whether the position ever had any."""
        return position in self._rows

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
        self._rows = {position: row for row, position in enumerate(self._columns["position"].tolist())}

    def _begin(self, position: int, hour: int, day: int) -> int:
        row = self._rows[position] = self._columns.add_row()
        self._hours.add_row()
        self._days.add_row()
        cells = self._columns.cells
        cells["position"][row], cells["hour"][row], cells["day"][row] = position, hour, day
        return row

    def _entries(self, position: int, grid: Grid, unit: str) -> dict[int, int]:
        row = self._rows.get(position)
        if row is None:
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
