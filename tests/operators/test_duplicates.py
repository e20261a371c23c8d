"""Ids are found again whatever their hashes have in common, in Python and in compiled loops."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from operators.columns import Columns
from operators.duplicates import FULL_FIFTHS, RecentIds
from operators.plain import _find_id, _id_row
from operators.snapshots import Dense

SKUS = 3
DEDUPE_MS = 1000
NOBODY_SHORTENS = 10**6
# few values for the bits that choose a slot, for those that a slot tells, and for the others: they collide in all ways
HASHES = st.builds(
    lambda top, slot, low: (top << 44 | slot << 20 | low) or 1,
    st.integers(0, 2),
    st.integers(60, 66),
    st.integers(0, 1),
)
IDS = st.lists(st.tuples(HASHES, st.integers(0, SKUS - 1), st.integers(0, 3000)), max_size=60)
Known = dict[tuple[int, int], int]


def skus() -> Columns:
    """The columns that ids need of their SKUs."""
    columns = Columns({"newest_ms": np.int64, "floor_ms": np.int64, "ids": np.int32})
    columns.add_rows(SKUS)
    return columns


def filled(ids: list[tuple[int, int, int]]) -> tuple[RecentIds, Known]:
    """What remembers `ids`, and when each was last heard."""
    recent, known = RecentIds(skus(), DEDUPE_MS, NOBODY_SHORTENS), Known()
    for hash_, sku, time_ms in ids:
        newest_ms = recent._skus.cells["newest_ms"]  # noqa: SLF001
        newest_ms[sku] = max(newest_ms[sku], time_ms)
        recent.remember(hash_, sku, time_ms)
        known[hash_, sku] = time_ms
    return recent, known


def check(recent: RecentIds, known: Known) -> None:
    """Python and compiled loops find what is known, and nothing else."""
    columns, mask = recent.columns(), len(recent._slots) - 1  # noqa: SLF001
    for hash_ in {hash_ for hash_, _ in known} | {1, 2**63}:
        for sku in range(SKUS):
            time_ms = known.get((hash_, sku))
            assert recent.knows(hash_, sku) == (time_ms is not None and time_ms >= recent.horizon_ms(sku))
            slot = _find_id(columns, np.uint64(hash_), sku)
            row = _id_row(columns.slots, slot)
            assert (row >= 0) == ((hash_, sku) in known)
            if row >= 0:
                assert columns.table[row].tolist() == (hash_, time_ms, sku)
                assert int(columns.slots[slot]) == hash_ >> 32 & ~mask | row + 1


@given(IDS)
def test_ids_are_found_however_their_hashes_collide(ids: list[tuple[int, int, int]]) -> None:
    """The same slot, the same tag, the same hash at another SKU."""
    check(*filled(ids))


@given(IDS)
def test_ids_come_back_from_a_dump(ids: list[tuple[int, int, int]]) -> None:
    """Those that horizons reach, in their order; their number is that of each SKU again."""
    recent, known = filled(ids)
    live = {key: time_ms for key, time_ms in known.items() if time_ms >= recent.horizon_ms(key[1])}
    dumped = {name: value.bytes_ if isinstance(value, Dense) else value for name, value in recent.dump().items()}
    loaded = RecentIds(recent._skus, DEDUPE_MS, NOBODY_SHORTENS)  # noqa: SLF001
    loaded.load(dumped)
    check(loaded, live)
    assert loaded.ids.tolist() == [(hash_, time_ms, sku) for (hash_, sku), time_ms in live.items()]
    assert loaded._skus["ids"].tolist() == [sum(owner == sku for _, owner in live) for sku in range(SKUS)]  # noqa: SLF001


def test_the_table_gets_four_fifths_full_and_no_fuller() -> None:
    """So a search for what is not there always ends; and no more memory is taken than that needs."""
    recent, known, chance = RecentIds(skus(), DEDUPE_MS, NOBODY_SHORTENS), Known(), np.random.default_rng(1)
    shares = []
    for hash_ in map(int, chance.integers(1, 2**64, 5000, np.uint64)):
        recent.remember(hash_, 0, 0)
        known[hash_, 0] = 0
        shares.append(recent.rows / len(recent._slots))  # noqa: SLF001
    check(recent, known)
    assert max(shares) <= FULL_FIFTHS / 5
    assert min(shares[200:]) >= 0.35  # half of that, after growing
