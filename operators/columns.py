"""Columns: the numbers of a lane, one dense row per thing, in arrays that grow together."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from operators.compiling import direct
from operators.memory import lengthened, roomier, zeros
from operators.packing import packed, places_of, places_of_row, scratch, unpack
from operators.plain import MEMBER_FACTOR, OWNER_FACTOR, NameTable, PairTable, enter_names, enter_pairs, row_of_name
from operators.snapshots import Dense

Array = NDArray[Any]
FIRST_CAPACITY: Final = 16
INT32_MAX: Final = 2**31 - 1
SLOT_BYTES: Final = 4
NAME_BYTES_USUAL: Final = 16
CODEC: Final = ("utf-8", "surrogatepass")  # every text can be encoded by it, and comes back as it was
FACTORS: Final = (int(OWNER_FACTOR), int(MEMBER_FACTOR))  # as `pair_slot` has them
HALF_BITS: Final = 32
MASK_64: Final = 2**64 - 1

_row_of: Final = direct(row_of_name, held=())


def record_of(fields: Sequence[tuple[str, type[np.generic]]]) -> np.dtype[Any]:
    """A record whose fields can be named as attributes, too: so compiled loops run uncompiled as well."""
    return np.dtype((np.record, np.dtype(list(fields), align=True)))


def grown(array: Array, size: int) -> Array:
    """`array`, or where it is shorter than `size` a longer one that begins with it."""
    if size <= len(array):
        return array
    return lengthened(array, roomier(len(array), size, array.itemsize))


class _Cells(dict[str, memoryview]):
    """Memory of columns by their names, made when it is asked for: compiled loops move it without asking."""

    def __init__(self, table: Array) -> None:
        self._table = table

    def __missing__(self, name: str) -> memoryview:
        cells = self[name] = self._table[name].data
        return cells


class Columns:
    """Named columns of equal length, side by side in one array of records, so that a row lies in one place.

    `cells` gives the same memory to code that goes row by row: a cell of a memoryview reads and writes as a plain int,
    several times faster than one of an array. After `add_row` both have to be taken anew, because growing moves the
    memory; `moves` counts how often it did. `derived` columns are not part of dumps: they begin with 0.
    """

    def __init__(
        self, types: Mapping[str, type[np.generic]], derived: Mapping[str, type[np.generic]] = MappingProxyType({})
    ) -> None:
        self.rows = 0
        self._types = dict(types)
        fields = sorted({**types, **derived}.items(), key=lambda field: -np.dtype(field[1]).itemsize)
        self._dtype = record_of(fields)
        self._places = places_of(self._dtype, self._types)
        self.table: Array = zeros(FIRST_CAPACITY, self._dtype)
        self.moves = 0
        self._view()

    def add_row(self) -> int:
        """A new row of zeros; returns its number."""
        row = self.rows
        if row == self.capacity:
            self._grow(row + 1)
        self.rows = row + 1
        return row

    def add_rows(self, rows: int) -> None:
        """So many new rows of zeros."""
        self.make_room(rows)
        self.rows += rows

    def __getitem__(self, name: str) -> Array:
        """The column's values, one per row, as an array over the same memory."""
        return self.table[name][: self.rows]

    @property
    def capacity(self) -> int:
        """How many rows fit without growing."""
        return len(self.table)

    def make_room(self, rows: int) -> None:
        """Room for at least `rows` more."""
        if self.rows + rows > self.capacity:
            self._grow(self.rows + rows)

    def keep(self, wanted: Array) -> None:
        """Drops every row that `wanted`, a mask, does not name; the others move up in their order."""
        kept = self.table[: self.rows][wanted]
        self.rows = len(kept)
        self.table = lengthened(kept, max(FIRST_CAPACITY, self.rows))
        self._view()

    def begin(self, rows: int) -> None:
        """So many rows of zeros, and no others."""
        self.rows = rows
        self.table = zeros(max(FIRST_CAPACITY, rows), self._dtype)
        self._view()

    def dump(self) -> dict[str, Any]:
        """How many rows, the columns' names, and all numbers of them."""
        numbers = Dense(packed(self.table, self._places, self.rows))
        return {"rows": self.rows, "names": list(self._types), "numbers": numbers}

    def load(self, dumped: Mapping[str, Any]) -> None:
        """Replaces all rows; raises ValueError where the columns are others or not of one length."""
        if "numbers" not in dumped:
            self._load_second_format(dumped)
            return
        if dumped["names"] != list(self._types):
            raise ValueError(f"columns {dumped['names']}, not {list(self._types)}")
        self.begin(dumped["rows"])
        unpack(dumped["numbers"], self.table, self._places, self.rows)

    def _load_second_format(self, dumped: Mapping[str, bytes]) -> None:
        """As `load`, of every column's bytes, little-endian."""
        loaded = {name: np.frombuffer(dumped[name], self._little_endian(name)) for name in self._types}
        lengths = {len(values) for values in loaded.values()}
        if len(lengths) != 1:
            raise ValueError(f"columns of different lengths: {sorted(lengths)}")
        self.begin(lengths.pop())
        for name, values in loaded.items():
            self.table[name][: self.rows] = values

    def _grow(self, rows: int) -> None:
        """Room for this many rows."""
        self.table = lengthened(self.table[: self.rows], roomier(self.capacity, rows, self._dtype.itemsize))
        self._view()

    def _view(self) -> None:
        self.moves += 1
        self.cells = _Cells(self.table)

    def _little_endian(self, name: str) -> np.dtype[Any]:
        return np.dtype(self._types[name]).newbyteorder("<")


def dump_of(columns: Mapping[str, Array]) -> dict[str, Any]:
    """What `Columns` with these values would dump, for those whose numbers stand elsewhere, or otherwise, in memory."""
    rows = len(next(iter(columns.values())))
    numbers = scratch.array("columns", np.int64, rows * len(columns))[: rows * len(columns)]
    for number, values in enumerate(columns.values()):
        numbers[number * rows : (number + 1) * rows] = values
    places = [place for number in range(len(columns)) for place in (numbers.itemsize, number * rows, 1)]
    return {"rows": rows, "names": list(columns), "numbers": Dense(packed(numbers, np.array(places, np.int64), rows))}


class Grid:
    """Rows of `width` whole numbers each; 32 bits wide until one does not fit."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.rows = 0
        self.moves = 0  # how often the memory of `values` moved
        self._values: Array = zeros(FIRST_CAPACITY * width, np.int32)
        self._cells = self._values.data

    @property
    def capacity(self) -> int:
        """How many rows fit without growing."""
        return len(self._values) // self.width

    @property
    def values(self) -> Array:
        """All numbers, row by row, with the room behind them; as long as nothing is added."""
        return self._values

    @property
    def is_wide(self) -> bool:
        """Whether a number did not fit into 32 bits."""
        return self._values.dtype != np.int32

    def set_rows(self, rows: int) -> None:
        """There are this many rows now, of the room that was made."""
        self.rows = rows

    def make_room(self, rows: int) -> None:
        """Room for at least `rows` more."""
        wanted = (self.rows + rows) * self.width
        if wanted > len(self._values):
            self._take(grown(self._values, wanted))

    def add_row(self) -> int:
        """A new row of zeros; returns its number."""
        self.make_room(1)
        self.rows += 1
        return self.rows - 1

    def replace(self, values: Array, rows: int) -> None:
        """The first `rows` of `values`, no more than before, instead of all; memory that many leave is given back."""
        if 2 * rows < self.rows:
            self._take(zeros(len(self._values), self._values.dtype))
        else:
            self._values[rows * self.width : self.rows * self.width] = 0
        self._values[: rows * self.width] = values[: rows * self.width]
        self.rows = rows

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
            self._take(self._values.astype(np.int64))
        self._cells[cell] = value

    def dump(self) -> dict[str, Any]:
        """How many rows, bytes of a number, and all numbers: column by column, because many of them are empty."""
        size = self._values.dtype.itemsize
        numbers = Dense(packed(self._values, places_of_row(self.width, size), self.rows))
        return {"rows": self.rows, "size": size, "numbers": numbers}

    def load(self, dumped: Any) -> None:  # noqa: ANN401  # a list in the second format, with the bytes of all numbers
        """Replaces all rows."""
        is_of_second_format = isinstance(dumped, list)
        size = dumped[0] if is_of_second_format else dumped["size"]
        rows = len(dumped[1]) // size // self.width if is_of_second_format else dumped["rows"]
        self.rows = rows
        self._take(zeros(max(FIRST_CAPACITY, rows) * self.width, f"i{size}"))
        if is_of_second_format:
            self._values[: rows * self.width] = np.frombuffer(dumped[1], f"<i{size}")
        else:
            unpack(dumped["numbers"], self._values, places_of_row(self.width, size), rows)

    def _take(self, values: Array) -> None:
        """All numbers stand there from now on."""
        self._values = values
        self._cells = values.data
        self.moves += 1


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


class NameIndex:
    """Many names by dense row number, and back: nothing but their bytes, in a table that compiled loops search, too.

    An object of each, known to a list and a dictionary, took some 120 bytes; so one is made for whoever asks.
    """

    def __init__(self) -> None:
        self.moves = 0
        self._rows = 0
        self._take(
            NameTable(
                zeros(FIRST_CAPACITY, np.int32),
                zeros(FIRST_CAPACITY * NAME_BYTES_USUAL, np.uint8),
                zeros(FIRST_CAPACITY + 1, np.int64),
            )
        )

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> str:
        if not 0 <= row < self._rows:  # behind the last one there is room, which would read as a name
            raise IndexError(f"row {row} of {self._rows} names")
        return str(self._texts[self._ends[row] : self._ends[row + 1]], *CODEC)

    def __iter__(self) -> Iterator[str]:
        ends = self.table.ends[: self._rows + 1].tolist()
        texts = self._texts[: ends[-1]].tobytes()
        return (texts[begin:end].decode(*CODEC) for begin, end in pairwise(ends))

    def row(self, name: str) -> int:
        """The row of `name`, −1 where it has none."""
        return _row_of(*self.table, np.frombuffer(name.encode(*CODEC), np.uint8))

    def extend(self, names: Iterable[str]) -> None:
        """Adds names that are not known, all of them different."""
        texts = [name.encode(*CODEC) for name in names]
        row, count = self._rows, self._rows + len(texts)
        begin = self._ends[row]
        ends = begin + np.cumsum([len(text) for text in texts], dtype=np.int64)
        end = int(ends[-1]) if texts else begin
        self._make_room(count, end)
        self._rows = count
        self.table.texts[begin:end] = np.frombuffer(b"".join(texts), np.uint8)
        self.table.ends[row + 1 : count + 1] = ends
        enter_names(*self.table, row, count)

    def _make_room(self, names: int, bytes_: int) -> None:
        slots, texts, ends = self.table
        wanted = len(slots)
        while 2 * names > wanted:
            wanted *= 2
        if wanted > len(slots):
            slots = zeros(wanted, np.int32)
            enter_names(slots, texts, ends, 0, self._rows)
        self._take(NameTable(slots, grown(texts, bytes_), grown(ends, names + 1)))

    def _take(self, table: NameTable) -> None:
        """All names stand there from now on."""
        self.table = table
        self._texts, self._ends = table.texts.data, table.ends.data
        self.moves += 1


class IndexedNames(Names):
    """Few names, asked for with most messages that go row by row: objects, beside an index for compiled loops."""

    def __init__(self) -> None:
        super().__init__()
        self._index = NameIndex()

    @property
    def table(self) -> NameTable:
        """What compiled loops search."""
        return self._index.table

    @property
    def moves(self) -> int:
        """Changes when the memory of `table` has moved, and with each name."""
        return self._index.moves

    def add(self, name: str) -> int:
        """The row of `name`, made where it has none."""
        row = super().add(name)
        if row == len(self._index):
            self._index.extend([name])
        return row

    def extend(self, names: Iterable[str]) -> None:
        """Adds names that are not known, all of them different."""
        first = len(self)
        self._names.extend(names)
        added = self._names[first:]
        self._rows.update(zip(added, range(first, len(self)), strict=True))
        self._index.extend(added)


class Pairs:
    """Rows for pairs such as (SKU, location); the rows of one owner can be walked in the order they were made.

    An open-addressed table of row + 1, 0 where a slot is free; and for each owner a chain through its rows.
    """

    def __init__(self, columns: Columns, owner: str, member: str) -> None:
        self._columns = columns
        self._owner = owner
        self._member = member
        self.moves = 0
        self._allocate(FIRST_CAPACITY, FIRST_CAPACITY, FIRST_CAPACITY)

    def row(self, owner: int, member: int) -> int:
        """The row of the pair, −1 where it has none."""
        cells = self._columns.cells
        owners, members, slots = cells[self._owner], cells[self._member], self._slots
        mask = len(slots) - 1
        slot = ((owner * FACTORS[0] ^ member * FACTORS[1]) & MASK_64) >> HALF_BITS & mask
        while (row := slots[slot]) and (owners[row - 1] != owner or members[row - 1] != member):
            slot = (slot + 1) & mask
        return row - 1

    def of(self, owner: int) -> list[int]:
        """All rows of `owner`."""
        rows: list[int] = []
        if owner < len(self._firsts):
            nexts, row = self._nexts, self._firsts[owner]
            while row:
                rows.append(row - 1)
                row = nexts[row - 1]
        return rows

    def add(self, owner: int, member: int) -> int:
        """The row of the pair, made where it has none."""
        row = self.row(owner, member)
        if row < 0:
            row = self._columns.add_row()
            self._columns.cells[self._owner][row] = owner
            self._columns.cells[self._member][row] = member
            moves = self.moves
            self.make_room(0, owner + 1)
            if self.moves == moves:  # else it was entered with all others
                enter_pairs(*self.table, self._columns[self._owner], self._columns[self._member], row)
        return row

    def make_room(self, rows: int, owners: int) -> None:
        """Room for `rows` more than the columns have, and for this many owners in all."""
        before = tuple(map(len, self.table[:3]))
        if (sizes := self._sizes(rows, owners)) != before:
            self._move(*sizes)

    def rebuild(self) -> None:
        """Finds the pairs in the columns again, after these were loaded."""
        owners = int(self._columns[self._owner].max(initial=0)) + 1
        self._move(*self._sizes(0, owners))

    @property
    def room(self) -> int:
        """How many rows there may be before more room has to be made."""
        return min(len(self.table.slots) // 2, len(self.table.nexts))

    def _sizes(self, rows: int, owners: int) -> tuple[int, int, int]:
        rows += self._columns.rows
        slots, nexts, heads = map(len, self.table[:3])
        while 2 * rows > slots:
            slots *= 2
        if rows > nexts:
            nexts = roomier(nexts, rows, SLOT_BYTES)
        if owners > heads:
            heads = roomier(heads, owners, SLOT_BYTES)
        return slots, nexts, heads

    def _move(self, slots: int, nexts: int, heads: int) -> None:
        """The same pairs in arrays of these sizes."""
        self._allocate(slots, nexts, heads)
        enter_pairs(*self.table, self._columns[self._owner], self._columns[self._member], 0)

    def _allocate(self, slots: int, nexts: int, heads: int) -> None:
        self.moves += 1
        self.table = PairTable(
            zeros(slots, np.int32), zeros(nexts, np.int32), zeros(heads, np.int32), zeros(heads, np.int32)
        )
        self._slots = self.table.slots.data
        self._nexts, self._firsts = self.table.nexts.data, self.table.firsts.data
