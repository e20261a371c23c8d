"""Records in one text are the same records."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.records import Encoded, Records, as_records, each

TEXTS = st.binary(max_size=4)
MAYBE = st.none() | TEXTS
ONES = st.builds(Encoded, MAYBE, TEXTS, MAYBE, TEXTS, MAYBE)


@given(st.lists(ONES), st.integers(0, 5), st.integers(0, 5))
def test_records_are_those_that_they_were_made_of(records: list[Encoded], begin: int, end: int) -> None:
    """One by one, by place, in part, and after another process was given them; what is not there is not empty."""
    made = Records.of(records)
    assert len(made) == len(records)
    assert [*made] == records
    assert [made[place] for place in range(len(records))] == records
    assert [*made[begin:end]] == records[begin:end]
    assert [*pickle.loads(pickle.dumps(made))] == records  # noqa: S301  # our own


def test_records_are_compared_one_by_one() -> None:
    """Wherever they stand in a text."""
    one, other = (Encoded(key, b"id", None, b"value") for key in (b"A", b"B"))
    assert Records.of([one, other])[1:] == Records.of([other])
    assert Records.of([one]) != Records.of([other])
    assert Records.of([one]) != [one]
    with pytest.raises(IndexError):
        Records.of([one])[1]


@given(st.lists(ONES | st.lists(ONES, min_size=1, max_size=3).map(Records.of)))
def test_what_was_written_and_what_was_not_stay_in_their_order(records: list[Encoded | Records]) -> None:
    """Neighbours that were not written yet are written together."""
    pieces = [*as_records(records, lambda record: record)]
    assert [record for piece in pieces for record in piece] == [*each(records)]
    assert all(len(piece) for piece in pieces)
    written = sum(isinstance(record, Records) for record in records)
    assert len(pieces) <= 2 * written + 1
