"""Packed columns are the sequences that they stand for."""

import pickle
from itertools import accumulate

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.packed import Headers, Numbers, Pairs, Texts, values_at

TEXTS = st.lists(st.none() | st.binary(max_size=5), max_size=8)
PAIRS = st.lists(st.tuples(st.text(max_size=3), st.none() | st.binary(max_size=3)), max_size=3)


def texts_of(values: list[bytes | None]) -> Texts:
    """`values` in one piece."""
    text = np.frombuffer(b"".join(value or b"" for value in values) or b"\0", np.uint8)
    ends = np.array([0, *accumulate(len(value or b"") for value in values)], np.int64)
    absent = np.array([value is None for value in values], np.bool_)
    return Texts(text, ends, absent if absent.any() else None)


def headers_of(values: list[Pairs | None]) -> Headers:
    """`values` in one piece."""
    pairs = [pair for each in values for pair in each or ()]
    ends = np.array([0, *accumulate(len(each or ()) for each in values)], np.int64)
    return Headers(texts_of([name.encode() for name, _ in pairs]), texts_of([value for _, value in pairs]), ends)


@given(TEXTS, st.slices(8), st.data())
def test_texts_are_a_sequence(values: list[bytes | None], piece: slice, data: st.DataObject) -> None:
    """By place, from behind, sliced, one after the other, in any choice, and in another process."""
    packed = texts_of(values)
    assert packed == values
    assert list(packed) == values
    assert packed[piece] == values[piece]
    assert [packed[at] for at in range(-len(values), len(values))] == values + values
    places = data.draw(st.lists(st.sampled_from(range(len(values))), max_size=5) if values else st.just([]))
    assert values_at(packed, places) == [values[place] for place in places] == values_at(values, places)
    assert pickle.loads(pickle.dumps(packed)) == values  # noqa: S301  # our own
    assert packed.has_empty == (not all(values))


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=8), st.slices(8))
def test_numbers_are_a_sequence_of_python_s_own(values: list[int], piece: slice) -> None:
    """What comes out can be written as JSON, which numpy's numbers cannot."""
    packed = Numbers(np.array(values, np.int64))
    assert packed == values
    assert packed[piece] == values[piece]
    assert {type(value) for value in (*packed, *packed[:], *packed.at(range(len(values))))} <= {int}


@given(st.lists(st.none() | PAIRS.filter(bool), max_size=6))
def test_headers_are_a_sequence(values: list[Pairs | None]) -> None:
    """A message without headers has None."""
    assert headers_of(values) == values


def test_what_has_no_such_place_says_so() -> None:
    """As lists do: a loop over places must end."""
    for at in (2, -3):
        try:
            texts_of([b"a", b"b"])[at]
        except IndexError:
            continue
        raise AssertionError(at)
