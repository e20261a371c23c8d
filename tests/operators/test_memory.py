"""Memory: columns that have grown step by step take what their rows take, and what is let go is the system's again."""

import errno
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NoReturn

import numpy as np
import psutil
import pytest

from operators import memory
from operators.columns import Columns, record_of
from operators.memory import APART_BYTES_MIN, zeros

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
