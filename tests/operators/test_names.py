"""Names come back as they were, whether an object of each is kept or only their bytes, and compiled loops find them."""

import sys
import tracemalloc
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.columns import FIRST_CAPACITY, IndexedNames, NameIndex
from operators.plain import row_of_name
from tests.operators.test_history import stock_of

Kind = type[NameIndex] | type[IndexedNames]
MANY = 20_000
ODD = ("", "A", "B", "AB", "SKU-0001", "SKU-00010", "SKU-00011", "Grüße", "Gru\u0308ße", "日本", "😀", "x" * 300)
LONE_SURROGATES = ("\ud83d", "\ude00", "\ud83d\ude00")  # the last is no 😀
both_kinds = pytest.mark.parametrize("kind", [NameIndex, IndexedNames])


@both_kinds
def test_names_come_back_by_row_and_rows_by_name(kind: Kind) -> None:
    """Empty ones, beginnings of others, and those that no valid UTF-8 stands for."""
    assert_known(names_of(kind, ODD, LONE_SURROGATES), [*ODD, *LONE_SURROGATES])


@both_kinds
@given(st.lists(st.text("aä€😀\ud800\udc00\0", max_size=20), unique=True), st.integers(0, 40))
def test_any_names_in_two_pieces_come_back(kind: Kind, names: list[str], cut: int) -> None:
    """Pieces may be empty."""
    assert_known(names_of(kind, names[:cut], names[cut:]), names)


@both_kinds
def test_names_are_found_while_their_table_grows(kind: Kind) -> None:
    """A few at a time: slots, bytes and their ends get longer at different times."""
    chance, names, known = Random(1), kind(), list[str]()
    while len(known) < 20 * FIRST_CAPACITY:
        added = [f"{number}-{'x' * chance.randrange(40)}" for number in range(len(known), len(known) + 7)]
        moves = names.moves
        names.extend(added)
        known += added
        assert names.moves > moves  # else compiled loops would go on with the memory of before
        assert_known(names, known)


@both_kinds
def test_who_has_no_row_is_not_taken_for_another(kind: Kind) -> None:
    """Neither a name that begins as one that is there, nor one of which there is more."""
    assert kind().row("") == kind().row("A") == -1
    names = names_of(kind, [name for name in ODD if name])
    assert {names.row(name) for name in ("", "a", "SKU-000", "SKU-000100", "x" * 299, "\ud83d\ude00", "\0")} == {-1}


def test_a_row_that_there_is_not_has_no_name() -> None:
    """Behind the last row there is room, and before the first the end of the memory: neither is read as a name."""
    names = names_of(NameIndex, ["A", "B"])
    for row in (-1, 2, FIRST_CAPACITY, 10**6):
        with pytest.raises(IndexError, match=f"row {row} of 2 names"):
            names[row]


def test_a_name_is_added_once() -> None:
    """Whoever adds it again gets its row, and compiled loops are told nothing new."""
    names = IndexedNames()
    assert [names.add(name) for name in ("east", "west")] == [0, 1]
    moves = names.moves
    assert (names.add("east"), names.moves) == (0, moves)
    assert_known(names, ["east", "west"])


def test_no_object_of_a_name_stays() -> None:
    """Many names take what their bytes, ends and slots do: an object of each would take several times as much."""
    names = NameIndex()
    tracemalloc.start()
    names.extend(f"SKU-{number:06d}" for number in range(MANY))
    assert {names.row(f"SKU-{number:06d}") < 0 for number in range(MANY)} == {False}
    assert len({names[row] for row in range(MANY)} | {*names}) == MANY
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_bytes < sum(len(values.data) * values.itemsize for values in names.table) + MANY


def test_stock_keeps_no_object_of_a_sku() -> None:
    """Nobody holds on to the name that it was given: there are many of them."""
    stock, sku = stock_of(), f"SKU-{MANY}"
    known = sys.getrefcount(sku)
    assert stock.names.row(sku) < 0
    row = stock.add_sku(sku, 0, 0)
    assert (stock.names.row(sku), stock.names[row]) == (row, sku)
    assert sys.getrefcount(sku) == known


def names_of(kind: Kind, *pieces: list[str] | tuple[str, ...]) -> NameIndex | IndexedNames:
    """Names that were added piece by piece."""
    names = kind()
    for piece in pieces:
        names.extend(piece)
    return names


def assert_known(names: NameIndex | IndexedNames, known: list[str]) -> None:
    """These names, in this order, whichever way they are looked at."""
    rows = range(len(known))
    assert len(names) == len(known)
    assert [*names] == known
    assert [names[row] for row in rows] == known
    assert [names.row(name) for name in known] == [*rows]
    texts = [np.frombuffer(name.encode("utf-8", "surrogatepass"), np.uint8) for name in known]
    assert [row_of_name(*names.table, text) for text in texts] == [*rows]
