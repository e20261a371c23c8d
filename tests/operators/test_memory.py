"""Memory: columns that have grown step by step take what their rows take, and what is let go is the system's again."""

import errno
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NoReturn

import numpy as np
import psutil
import pytest

from operators import memory
from operators.columns import Columns, IndexedNames, record_of
from operators.last_facts import LastFacts
from operators.memory import APART_BYTES_MIN, lengthened, roomier, zeros
from operators.plain import KEPT
from schemas.movements import Released

ROWS, TABLES = 20_000, 40


@pytest.mark.parametrize("bytes_", [0, 8, APART_BYTES_MIN - 8, APART_BYTES_MIN, 10 * APART_BYTES_MIN + 8])
def test_they_are_zeros_that_can_be_written(bytes_: int) -> None:
    """Short or long: of the wanted size and type."""
    values = zeros(bytes_ // 8, np.int64)
    assert (values.dtype, values.nbytes, values.flags.c_contiguous) == (np.dtype(np.int64), bytes_, True)
    assert not values.any()
    values[:] = 7
    assert (values == 7).all()


def test_records_keep_their_fields() -> None:
    """Compiled loops name them as attributes, also uncompiled."""
    type_ = record_of([("units", np.int64), ("row", np.int32)])
    for rows in (3, APART_BYTES_MIN):
        values = zeros(rows, type_)
        values[2].units = 5
        assert (values.dtype, values["units"].sum()) == (type_, 5)


def test_where_no_more_pages_are_to_be_had_malloc_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel counts pieces of memory: many lanes have many of them."""

    def refused(*_: int) -> NoReturn:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(memory, "mmap", refused)
    values = zeros(APART_BYTES_MIN, np.int64)
    values[:] = 7
    assert (values == 7).all()


@pytest.mark.parametrize(
    ("size", "wanted", "item_bytes", "made"),
    [
        (16, 17, 8, 32),
        (1024, 1025, 8, 2048),
        (2048, 2049, 8, 2560),  # no pages of its own: a quarter
        (8191, 8192, 8, 10_238),
        (8192, 8193, 8, 32_768),  # pages of its own, which take nothing before they are written to
        (8192, 50_000, 8, 50_000),
        (131_072, 131_073, 8, 262_144),  # two MiB
    ],
)
def test_what_grows_has_room_for_more(size: int, wanted: int, item_bytes: int, made: int) -> None:
    """So that it is seldom copied, and does not weigh."""
    assert roomier(size, wanted, item_bytes) == made


def test_a_longer_array_begins_with_the_shorter_one() -> None:
    """All fields of its records; what follows is zeros."""
    rows = zeros(3, record_of([("units", np.int64), ("row", np.int32), ("kind", np.int8)]))
    rows[:] = [(1, 2, 3), (-4, -5, -6), (7, 8, 9)]
    for size in (3, 4, APART_BYTES_MIN):
        longer = lengthened(rows, size)
        assert (longer.dtype, longer[:3].tolist()) == (rows.dtype, rows.tolist())
        assert len(longer) == size
        assert not longer["units"][3:].any()


def test_facts_that_got_shorter_give_memory_back() -> None:
    """And are the same facts as before."""
    facts = LastFacts(IndexedNames())
    longer, shorter = bytes_after(facts, id_bytes=250), bytes_after(facts, id_bytes=1)
    assert facts.used_bytes < shorter < longer / 2


def bytes_after(facts: LastFacts, id_bytes: int) -> int:
    """What the texts take when enough facts were noted to clean them several times; a third is of no use at most."""
    skus, numbers, used_bytes = range(2000), range(4 * KEPT), 0
    for number in numbers:
        for sku in skus:
            facts.note(sku, _note(sku, number, id_bytes), number)
            used_bytes = max(used_bytes, facts.used_bytes) if number >= 2 * KEPT else 0
    assert used_bytes < 1.6 * facts.dump()["bytes"]
    for sku in skus:
        kept = [_note(sku, number, id_bytes).id for number in reversed(numbers[-KEPT:])]
        assert [record.id for record in facts.of(sku)] == kept
    return len(facts.columns().texts)


def _note(sku: int, number: int, id_bytes: int) -> Released:
    id_ = f"{sku}-{number}".ljust(id_bytes, ".")
    return Released(id=id_, source="wms", time="2026-11-21T09:00:00Z", sku=str(sku), location="dc", quantity=1)


def test_tables_that_grew_take_hardly_more_than_their_rows() -> None:
    """Neither the shorter ones before them, nor the room behind their rows."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        assert fresh.submit(bytes_per_byte).result(60) < 1.06


def bytes_per_byte() -> float:
    """What this process grows by for each byte of rows, when tables grow in turn."""
    before = psutil.Process().memory_info().rss
    tables = [Columns({"sku": np.int64, "on_hand": np.int64, "newest_ms": np.int64}) for _ in range(TABLES)]
    for begin in range(0, ROWS, 100):
        for table in tables:
            table.add_rows(100)
            table.table[begin : begin + 100] = 1
    return (psutil.Process().memory_info().rss - before) / (ROWS * tables[0].table.itemsize * TABLES)
