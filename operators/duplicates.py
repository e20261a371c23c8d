"""Duplicates: a movement applied before is known again by (source, id, SKU), as long as its SKU's horizon reaches."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from operators.columns import Columns, grown, packed_columns, unpacked_columns
from operators.memory import lengthened, zeros
from operators.packing import mark_live_ids
from operators.plain import HALF, ID_SHIFT, IdColumns, enter_ids
from operators.snapshots import Dense

Array = NDArray[Any]
NO_HASH: Final = 0  # stored as 1: compiled loops leave what has none to others
FIRST_CAPACITY: Final = 64
DEAD_SHARE_MIN: Final = 4  # one in so many: then those that are forgotten are worth being taken out
FULL_FIFTHS: Final = 4  # of the slots; a search for what is not there then looks at 13 of them (Knuth, 6.4)
_HASH: Final = np.dtype("<u8")
_SECOND_FORMAT: Final = (("time_ms", "<i8"), ("sku", "<i4"))
_SLOT_SHIFT: Final = int(ID_SHIFT)
_TAG_SHIFT: Final = int(HALF)


def hash_of(source: str, id_: str) -> int:
    """64 bits that stand for (source, id); never NO_HASH. Names hold no NUL, so the pair is unambiguous."""
    return xxh3_64_intdigest(f"{source}\x00{id_}".encode()) or NO_HASH + 1


class Ids(NamedTuple):
    """The numbers of ids, a row each; apart, because as a record they would take four bytes more."""

    hashes: Array  # uint64
    times_ms: Array  # int64, since 1970
    skus: Array  # int32, rows

    def map(self, change: Callable[[Array], Array]) -> "Ids":
        """`change` done to each column."""
        return Ids(*map(change, self))


class RecentIds:
    """Ids applied lately, in the order in which they came: hash, SKU row and time (ms since 1970).

    `slots` is an open-addressed table, at most four fifths full, whose size is a power of two. The bits of a slot that
    are below its size are an id's row + 1, 0 where it is free; those above are as many of the id's hash, so that the
    rows of others are seldom looked at. A SKU's horizon is `dedupe_ms` behind its newest time, or later where more than
    `ids_per_sku_max` ids would have to be kept. What lies before the horizon is forgotten at once in meaning, and in
    memory when there is enough of it.
    """

    def __init__(self, skus: Columns, dedupe_ms: int, ids_per_sku_max: int) -> None:
        self._skus = skus
        self._dedupe_ms = dedupe_ms
        self._ids_per_sku_max = ids_per_sku_max
        self.rows = 0
        self.moves = 0
        self._keep(Ids(zeros(0, np.uint64), zeros(0, np.int64), zeros(0, np.int32)))

    def horizon_ms(self, sku: int) -> int:
        """Movements of `sku` dated before this could be forgotten duplicates."""
        cells = self._skus.cells
        return max(cells["newest_ms"][sku] - self._dedupe_ms, cells["floor_ms"][sku])

    def memory_ms(self, sku: int) -> int:
        """As far back as things about `sku` are remembered where their number does not shorten it."""
        return int(self._skus.cells["newest_ms"][sku]) - self._dedupe_ms

    def knows(self, hash_: int, sku: int) -> bool:
        """Whether the movement was applied to `sku`, at a time that its horizon still reaches."""
        row = self._row_at(self._find(hash_, sku))
        return row >= 0 and self._time_cells[row] >= self.horizon_ms(sku)

    def remember(self, hash_: int, sku: int, time_ms: int) -> None:
        """Notes an applied movement, after `newest_ms` of its SKU was brought up to date."""
        self.make_room(1)
        slot = self._find(hash_, sku)
        row = self._row_at(slot)
        if row < 0:
            row = self.rows
            self.rows = row + 1
            self._slot_cells[slot] = self._tag_of(hash_) | row + 1
            self._hash_cells[row], self._sku_cells[row] = hash_, sku
            self._skus.cells["ids"][sku] += 1
        self._time_cells[row] = time_ms
        if self._skus.cells["ids"][sku] > self._ids_per_sku_max:
            self._shorten(sku)

    @property
    def ids(self) -> Ids:
        """All that are in memory, forgotten ones among them."""
        return self._table.map(lambda column: column[: self.rows])

    def columns(self) -> IdColumns:
        """The memory of it all, for compiled loops."""
        return IdColumns(*self._table, self._slots)

    def dump(self) -> dict[str, Any]:
        """The ids that horizons still reach, in the order in which they came; hashes as they are."""
        live, count = self._marked()
        ids = self.ids.map(lambda column: column[live]) if count < self.rows else self.ids
        hashes = ids.hashes.astype(_HASH, copy=False).tobytes()
        return {"rows": count, "hash": Dense(hashes), "numbers": Dense(packed_columns([ids.times_ms, ids.skus]))}

    def load(self, dumped: dict[str, Any]) -> None:
        """Replaces all ids; the SKUs' columns have been loaded before."""
        hashes = np.frombuffer(dumped["hash"], _HASH)
        if "numbers" in dumped:
            times_ms, skus = unpacked_columns(dumped["numbers"], 2, len(hashes))
        else:  # of the second format
            times_ms, skus = (np.frombuffer(dumped[name], type_, len(hashes)) for name, type_ in _SECOND_FORMAT)
        self._keep(Ids(hashes.astype(np.uint64, copy=False), times_ms, skus.astype(np.int32, copy=False)))

    @property
    def room(self) -> int:
        """How many there may be before room has to be made."""
        return min(*map(len, self._table), FULL_FIFTHS * len(self._slots) // 5)

    def make_room(self, ids: int) -> None:
        """Room for at least this many more: what is forgotten goes first, if it is much."""
        if self.rows + ids <= self.room:
            return
        live, count = self._marked()
        if DEAD_SHARE_MIN * (self.rows - count) >= self.rows:
            self._keep(self.ids.map(lambda column: column[live]))
        self._grow(self.rows + ids)

    def _find(self, hash_: int, sku: int) -> int:
        """The slot of the id, or the free one where it would go; linear probing."""
        slots, hashes, owners = self._slot_cells, self._hash_cells, self._sku_cells
        mask, tag = len(slots) - 1, self._tag_of(hash_)
        slot = hash_ >> _SLOT_SHIFT & mask
        while known := slots[slot]:
            row = (known & mask) - 1
            if known & ~mask == tag and hashes[row] == hash_ and owners[row] == sku:
                break
            slot = (slot + 1) & mask
        return slot

    def _row_at(self, slot: int) -> int:
        """The row of the id at a slot, −1 where it is free."""
        return (self._slot_cells[slot] & len(self._slots) - 1) - 1

    def _tag_of(self, hash_: int) -> int:
        """What a slot tells of an id's hash, above the bits of the row."""
        return hash_ >> _TAG_SHIFT & ~(len(self._slots) - 1)

    def _marked(self) -> tuple[NDArray[np.bool_], int]:
        """Which ids horizons still reach, and how many they are."""
        live, ids = np.empty(self.rows, np.bool_), self._table
        return live, int(mark_live_ids(ids.times_ms, ids.skus, self._skus.table, self._dedupe_ms, live))

    def _shorten(self, sku: int) -> None:
        """Too many ids of one SKU: its horizon moves up until three quarters are left."""
        ids = self.ids
        times_ms = np.sort(ids.times_ms[(ids.skus == sku) & (ids.times_ms >= self.horizon_ms(sku))])
        if len(times_ms) > self._ids_per_sku_max:
            floor_ms = int(times_ms[len(times_ms) // 4])
            if np.count_nonzero(times_ms >= floor_ms) > self._ids_per_sku_max:
                floor_ms += 1  # one single time holds them all
            self._skus.cells["floor_ms"][sku] = floor_ms
        live, _ = self._marked()
        self._keep(ids.map(lambda column: column[live]))

    def _keep(self, ids: Ids) -> None:
        """These ids, all different, and no others."""
        self.rows = len(ids.hashes)
        self._table = ids.map(lambda column: lengthened(column, max(FIRST_CAPACITY, self.rows)))
        counts = np.bincount(ids.skus, minlength=self._skus.rows)
        self._skus["ids"][:] = counts[: self._skus.rows]
        self._enter(self.rows)

    def _grow(self, ids: int) -> None:
        """Room for this many ids."""
        self._table = self._table.map(lambda column: grown(column, ids))
        if ids > self.room:
            self._enter(ids)
        else:
            self._view()

    def _enter(self, ids: int) -> None:
        """Gives each id a slot, in a table of the size for this many."""
        size = 2 * FIRST_CAPACITY
        while FULL_FIFTHS * size < 5 * ids:
            size *= 2
        self._slots: NDArray[np.uint32] = zeros(size, np.uint32)
        enter_ids(self._slots, self._table.hashes, self.rows)
        self._view()

    def _view(self) -> None:
        self.moves += 1
        self._hash_cells, self._time_cells, self._sku_cells = (column.data for column in self._table)
        self._slot_cells = self._slots.data
