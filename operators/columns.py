"""Columns: the numbers of a lane, one dense row per thing, in arrays that grow together."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
FIRST_CAPACITY: Final = 16
INT32_MAX: Final = 2**31 - 1


class Columns:
    """Named columns of equal length; `cells` gives the same memory to code that goes row by row.

    A cell of a memoryview reads and writes as a plain int, several times faster than one of an array. After
    `add_row` both have to be taken anew, because growing moves the memory.
    """

    def __init__(self, types: Mapping[str, type[np.generic]]) -> None:
        self.rows = 0
        self._types = dict(types)
        self._arrays: dict[str, Array] = {name: np.zeros(FIRST_CAPACITY, type_) for name, type_ in types.items()}
        self.cells: dict[str, memoryview] = {}
        self._view()

    def add_row(self) -> int:
        """A new row of zeros; returns its number."""
        row = self.rows
        if row == len(next(iter(self._arrays.values()))):
            self._grow(2 * row)
        self.rows = row + 1
        return row

    def __getitem__(self, name: str) -> Array:
        """The column's values, one per row, as an array over the same memory."""
        return self._arrays[name][: self.rows]

    def keep(self, wanted: Array) -> None:
        """Drops every row that `wanted`, a mask, does not name; the others move up in their order."""
        kept = {name: self[name][wanted] for name in self._arrays}
        self.rows = int(np.count_nonzero(wanted))
        self._grow(max(FIRST_CAPACITY, self.rows))
        for name, values in kept.items():
            self._arrays[name][: self.rows] = values

    def dump(self) -> dict[str, bytes]:
        """Every column's bytes, little-endian."""
        return {name: self[name].astype(self._little_endian(name), copy=False).tobytes() for name in self._arrays}

    def load(self, dumped: Mapping[str, bytes]) -> None:
        """Replaces all rows; raises ValueError where columns are missing or not of one length."""
        loaded = {name: np.frombuffer(dumped[name], self._little_endian(name)) for name in self._types}
        lengths = {len(values) for values in loaded.values()}
        if len(lengths) != 1:
            raise ValueError(f"columns of different lengths: {sorted(lengths)}")
        self.rows = lengths.pop()
        self._grow(max(FIRST_CAPACITY, self.rows))
        for name, values in loaded.items():
            self._arrays[name][: self.rows] = values

    def _grow(self, capacity: int) -> None:
        for name, array in self._arrays.items():
            grown = np.zeros(capacity, self._types[name])
            kept = min(len(array), capacity)
            grown[:kept] = array[:kept]
            self._arrays[name] = grown
        self._view()

    def _view(self) -> None:
        self.cells = {name: array.data for name, array in self._arrays.items()}

    def _little_endian(self, name: str) -> np.dtype[Any]:
        return np.dtype(self._types[name]).newbyteorder("<")


class Grid:
    """Rows of `width` whole numbers each; 32 bits wide until one does not fit."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._rows = 0
        self._values: Array = np.zeros(FIRST_CAPACITY * width, np.int32)
        self._cells = self._values.data

    def add_row(self) -> None:
        """A new row of zeros."""
        self._rows += 1
        if self._rows * self.width > len(self._values):
            self._values = np.concatenate([self._values, np.zeros_like(self._values)])
            self._cells = self._values.data

    def row(self, row: int) -> list[int]:
        """The numbers of one row."""
        values: list[int] = self._cells[row * self.width : (row + 1) * self.width].tolist()
        return values

    def set(self, row: int, column: int, value: int) -> None:
        """Writes one number down, which fits."""
        self._cells[row * self.width + column] = value

    def add(self, row: int, column: int, units: int) -> None:
        """Adds to one number."""
        cell = row * self.width + column
        value = self._cells[cell] + units
        if not -INT32_MAX <= value <= INT32_MAX and self._values.dtype == np.int32:
            self._values = self._values.astype(np.int64)
            self._cells = self._values.data
        self._cells[cell] = value

    def dump(self) -> list[Any]:
        """Bytes of a number, and all numbers' bytes, little-endian."""
        values = self._values[: self._rows * self.width]
        size = values.dtype.itemsize
        return [size, values.astype(f"<i{size}", copy=False).tobytes()]

    def load(self, dumped: list[Any]) -> None:
        """Replaces all rows."""
        size, values = dumped
        loaded = np.frombuffer(values, f"<i{size}")
        self._rows = len(loaded) // self.width
        self._values = np.zeros(max(FIRST_CAPACITY, self._rows) * self.width, f"i{size}")
        self._values[: len(loaded)] = loaded
        self._cells = self._values.data


class Names:
    """Names by dense row number, and back."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, row: int) -> str:
        return self._names[row]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def row(self, name: str) -> int:
        """The row of `name`, −1 where it has none."""
        return self._rows.get(name, -1)

    def add(self, name: str) -> int:
        """The row of `name`, made where it has none."""
        row = self._rows.setdefault(name, len(self._names))
        if row == len(self._names):
            self._names.append(name)
        return row


class Pairs:
    """Rows for pairs such as (SKU, location); the rows of one owner can be walked in the order they were made."""

    def __init__(self, columns: Columns, owner: str, member: str) -> None:
        self._columns = columns
        self._owner = owner
        self._member = member
        self._rows: dict[int, int] = {}
        self._of_owner: list[list[int]] = []

    def row(self, owner: int, member: int) -> int:
        """The row of the pair, −1 where it has none."""
        return self._rows.get(owner << 32 | member, -1)

    def of(self, owner: int) -> list[int]:
        """All rows of `owner`; not to be changed."""
        return self._of_owner[owner] if owner < len(self._of_owner) else []

    def add(self, owner: int, member: int) -> int:
        """The row of the pair, made where it has none."""
        row = self._rows.get(owner << 32 | member, -1)
        if row < 0:
            row = self._columns.add_row()
            self._columns.cells[self._owner][row] = owner
            self._columns.cells[self._member][row] = member
            self._enter(owner, member, row)
        return row

    def rebuild(self) -> None:
        """Finds the pairs in the columns again, after these were loaded."""
        self._rows, self._of_owner = {}, []
        owners, members = self._columns[self._owner].tolist(), self._columns[self._member].tolist()
        for row, (owner, member) in enumerate(zip(owners, members, strict=True)):
            self._enter(owner, member, row)

    def _enter(self, owner: int, member: int, row: int) -> None:
        self._rows[owner << 32 | member] = row
        while len(self._of_owner) <= owner:
            self._of_owner.append([])
        self._of_owner[owner].append(row)
