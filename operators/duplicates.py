"""Duplicates: a movement applied before is known again by (source, id, SKU), as long as its SKU's horizon reaches."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from operators.columns import Columns, grown, record_of
from operators.memory import lengthened, zeros
from operators.packing import mark_live_ids, packed, places_of, unpack
from operators.plain import HALF, ID_SHIFT, IdColumns, enter_ids
from operators.snapshots import Dense

Array = NDArray[Any]
NO_HASH: Final = 0  # stored as 1: compiled loops leave what has none to others
FIRST_CAPACITY: Final = 64
DEAD_SHARE_MIN: Final = 4  # one in so many: then those that are forgotten are worth being taken out
FULL_FIFTHS: Final = 4  # of the slots; a search for what is not there then looks at 13 of them (Knuth, 6.4)
_ID: Final = record_of([("hash", np.uint64), ("time_ms", np.int64), ("sku", np.int32)])
_HASH: Final = np.dtype("<u8")
_PACKED: Final = ("time_ms", "sku")
_PLACES: Final = places_of(_ID, _PACKED)
_SLOT_SHIFT: Final = int(ID_SHIFT)
_TAG_SHIFT: Final = int(HALF)


def hash_of(source: str, id_: str) -> int:
    """64 bits that stand for (source, id); never NO_HASH. Names hold no NUL, so the pair is unambiguous."""
    return xxh3_64_intdigest(f"{source}\x00{id_}".encode()) or NO_HASH + 1


class RecentIds:
    """Ids applied lately, in the order in which they came: hash, SKU row and time (ms since 1970).

    They are found in an open-addressed table, at most four fifths full, whose size is a power of two. The bits of a
    slot that are below its size are an id's row + 1, 0 where it is free; those above are as many of the id's hash, so
    that the rows of others are seldom looked at. A SKU's horizon is `dedupe_ms` behind its newest time, or later where
    more than `ids_per_sku_max` ids would have to be kept. What lies before the horizon is forgotten at once in meaning,
    and in memory when there is enough of it.
    """

    def __init__(self, skus: Columns, dedupe_ms: int, ids_per_sku_max: int) -> None:
        self._skus = skus
        self._dedupe_ms = dedupe_ms
        self._ids_per_sku_max = ids_per_sku_max
        self.rows = 0
        self.moves = 0
        self._keep(zeros(0, _ID))

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
    def ids(self) -> Array:
        """All that are in memory, forgotten ones among them."""
        return self._table[: self.rows]

    def columns(self) -> IdColumns:
        """The memory of it all, for compiled loops."""
        return IdColumns(self._table, self._slots)

    def dump(self) -> dict[str, Any]:
        """The ids that horizons still reach, in the order in which they came; hashes as they are."""
        ids = self.ids
        live, count = self._marked()
        if count < self.rows:
            ids = ids[live]
        hashes = ids["hash"].astype(_HASH, copy=False).tobytes()
        return {"rows": count, "hash": Dense(hashes), "numbers": Dense(packed(ids, _PLACES, count))}

    def load(self, dumped: dict[str, Any]) -> None:
        """Replaces all ids; the SKUs' columns have been loaded before."""
        rows = len(dumped["hash"]) // _HASH.itemsize
        ids = zeros(max(FIRST_CAPACITY, rows), _ID)
        ids["hash"][:rows] = np.frombuffer(dumped["hash"], _HASH)
        if "numbers" in dumped:
            unpack(dumped["numbers"], ids, _PLACES, rows)
        else:  # of the second format
            for name in _PACKED:
                ids[name][:rows] = np.frombuffer(dumped[name], _ID[name].newbyteorder("<"))
        self._take(ids, rows)

    @property
    def room(self) -> int:
        """How many there may be before room has to be made."""
        return min(len(self._table), FULL_FIFTHS * len(self._slots) // 5)

    def make_room(self, ids: int) -> None:
        """Room for at least this many more: what is forgotten goes first, if it is much."""
        if self.rows + ids <= self.room:
            return
        live, count = self._marked()
        if DEAD_SHARE_MIN * (self.rows - count) >= self.rows:
            self._keep(self.ids[live])
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
        live = np.empty(self.rows, np.bool_)
        return live, int(mark_live_ids(self._table, self.rows, self._skus.table, self._dedupe_ms, live))

    def _shorten(self, sku: int) -> None:
        """Too many ids of one SKU: its horizon moves up until three quarters are left."""
        ids = self.ids
        times = np.sort(ids["time_ms"][(ids["sku"] == sku) & (ids["time_ms"] >= self.horizon_ms(sku))])
        if len(times) > self._ids_per_sku_max:
            floor_ms = int(times[len(times) // 4])
            if np.count_nonzero(times >= floor_ms) > self._ids_per_sku_max:
                floor_ms += 1  # one single time holds them all
            self._skus.cells["floor_ms"][sku] = floor_ms
        live, _ = self._marked()
        self._keep(ids[live])

    def _keep(self, ids: Array) -> None:
        """These ids, all different, and no others."""
        self._take(lengthened(ids, max(FIRST_CAPACITY, len(ids))), len(ids))

    def _take(self, table: Array, rows: int) -> None:
        """These rows are the ids now."""
        self._table: Array = table
        self.rows = rows
        counts = np.bincount(table["sku"][:rows], minlength=self._skus.rows)
        self._skus["ids"][:] = counts[: self._skus.rows]
        self._enter(rows)

    def _grow(self, ids: int) -> None:
        """Room for this many ids."""
        self._table = grown(self._table, ids)
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
        enter_ids(self._slots, self._table, self.rows)
        self._view()

    def _view(self) -> None:
        self.moves += 1
        self._hash_cells, self._time_cells, self._sku_cells = (self._table[name].data for name in _ID.names or ())
        self._slot_cells = self._slots.data
