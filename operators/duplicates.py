"""Duplicates: a movement applied before is known again by (source, id, SKU), as long as its SKU's horizon reaches."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from operators.columns import Columns, record_of
from operators.plain import MEMBER_FACTOR, insert_ids

Array = NDArray[Any]
FREE: Final = 0  # marks a free slot; a hash of 0 is stored as 1
FIRST_CAPACITY: Final = 64
_ID: Final = record_of([("hash", np.uint64), ("sku", np.int32), ("time_ms", np.int64)])


def hash_of(source: str, id_: str) -> int:
    """64 bits that stand for (source, id); never FREE. Names hold no NUL, so the pair is unambiguous."""
    return xxh3_64_intdigest(f"{source}\x00{id_}".encode()) or 1


class RecentIds:
    """Ids applied lately, in one open-addressed table of columns: hash, SKU row and time (ms since 1970).

    A SKU's horizon is `dedupe_ms` behind its newest time, or later where more than `ids_per_sku_max` ids would have
    to be kept. What lies before the horizon is forgotten at once in meaning, and in memory when the table is cleaned.
    """

    def __init__(self, skus: Columns, dedupe_ms: int, ids_per_sku_max: int) -> None:
        self._skus = skus
        self._dedupe_ms = dedupe_ms
        self._ids_per_sku_max = ids_per_sku_max
        self._used = 0
        self.moves = 0
        self._allocate(FIRST_CAPACITY)

    def horizon_ms(self, sku: int) -> int:
        """Movements of `sku` dated before this could be forgotten duplicates."""
        cells = self._skus.cells
        return max(cells["newest_ms"][sku] - self._dedupe_ms, cells["floor_ms"][sku])

    def memory_ms(self, sku: int) -> int:
        """As far back as things about `sku` are remembered where their number does not shorten it."""
        return int(self._skus.cells["newest_ms"][sku]) - self._dedupe_ms

    def knows(self, hash_: int, sku: int) -> bool:
        """Whether the movement was applied to `sku`, at a time that its horizon still reaches."""
        slot = self._find(hash_, sku)
        return self._hash_cells[slot] != FREE and self._time_cells[slot] >= self.horizon_ms(sku)

    def remember(self, hash_: int, sku: int, time_ms: int) -> None:
        """Notes an applied movement, after `newest_ms` of its SKU was brought up to date."""
        if (self._used + 1) * 2 > len(self._hashes):
            self._clean()
        slot = self._find(hash_, sku)
        if self._hash_cells[slot] == FREE:
            self._used += 1
            self._skus.cells["ids"][sku] += 1
        self._hash_cells[slot] = hash_
        self._sku_cells[slot] = sku
        self._time_cells[slot] = time_ms
        if self._skus.cells["ids"][sku] > self._ids_per_sku_max:
            self._shorten(sku)

    def dump(self) -> dict[str, bytes]:
        """The ids that horizons still reach, in an order that is theirs alone."""
        live = np.flatnonzero(self._live())
        # Sorting by one number of both takes a tenth of what sorting by hash and SKU does.
        live = live[np.argsort(self._hashes[live] ^ self._owners[live].astype(np.uint64) * MEMBER_FACTOR)]
        return {
            "hash": self._hashes[live].astype("<u8").tobytes(),
            "sku": self._owners[live].astype("<i4").tobytes(),
            "time_ms": self._times[live].astype("<i8").tobytes(),
        }

    def load(self, dumped: dict[str, bytes]) -> None:
        """Replaces all ids; the SKUs' columns have been loaded before."""
        hashes = np.frombuffer(dumped["hash"], "<u8")
        owners, times = np.frombuffer(dumped["sku"], "<i4"), np.frombuffer(dumped["time_ms"], "<i8")
        ids = np.zeros(len(hashes), _ID)
        ids["hash"], ids["sku"], ids["time_ms"] = hashes, owners, times
        self._refill(ids)

    @property
    def used(self) -> int:
        """How many slots are taken."""
        return self._used

    @property
    def room(self) -> int:
        """How many may be taken before room has to be made."""
        return len(self._hashes) // 2

    def set_used(self, used: int) -> None:
        """So many slots are taken now."""
        self._used = used

    def make_room(self, ids: int) -> None:
        """Room for at least this many more: what is forgotten goes first."""
        if (self._used + ids) * 2 > len(self._hashes):
            self._clean(ids)

    def _find(self, hash_: int, sku: int) -> int:
        """The slot of the id, or the free one where it would go; linear probing."""
        hashes, owners, mask = self._hash_cells, self._sku_cells, self._mask
        slot = (hash_ >> 20) & mask
        while (found := hashes[slot]) != FREE and (found != hash_ or owners[slot] != sku):
            slot = (slot + 1) & mask
        return slot

    def _live(self) -> NDArray[np.bool_]:
        horizons = np.maximum(self._skus["newest_ms"] - self._dedupe_ms, self._skus["floor_ms"])
        live: NDArray[np.bool_] = self._hashes != FREE
        live[live] = self._times[live] >= horizons[self._owners[live]]
        return live

    def _clean(self, ids: int = 0) -> None:
        """Drops what is forgotten and makes room: at most a quarter of the slots are taken with `ids` more."""
        live = self._live()
        self._refill(self.table[live], ids)

    def _refill(self, ids: Array, more: int = 0) -> None:
        """Distinct ids into a table of the size for them and `more`."""
        capacity = FIRST_CAPACITY
        while capacity < 4 * (len(ids) + more):
            capacity *= 2
        self._allocate(capacity)
        insert_ids(self.table, ids)
        self._used = len(ids)
        counts = np.bincount(ids["sku"], minlength=self._skus.rows)
        self._skus["ids"][:] = counts[: self._skus.rows]

    def _shorten(self, sku: int) -> None:
        """Too many ids of one SKU: its horizon moves up until three quarters are left."""
        horizon_ms = self.horizon_ms(sku)
        mine = np.flatnonzero((self._hashes != FREE) & (self._owners == sku) & (self._times >= horizon_ms))
        if len(mine) > self._ids_per_sku_max:
            times = np.sort(self._times[mine])
            floor_ms = int(times[len(times) // 4])
            if np.count_nonzero(times >= floor_ms) > self._ids_per_sku_max:
                floor_ms += 1  # one single time holds them all
            self._skus.cells["floor_ms"][sku] = floor_ms
        self._clean()

    def _allocate(self, capacity: int) -> None:
        self.moves += 1
        self._mask = capacity - 1
        self.table: Array = np.zeros(capacity, _ID)
        self._hashes, self._owners, self._times = (self.table[name] for name in _ID.names or ())
        self._hash_cells = self._hashes.data
        self._sku_cells = self._owners.data
        self._time_cells = self._times.data
