"""Times as text: what is written is what the calendar says, and is read back as it was."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.times import DAY_MS, LATEST_MS, format_day, format_hour, format_ms, parse_ms

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMES_MS = st.integers(0, LATEST_MS) | st.sampled_from([0, 999, DAY_MS - 1, DAY_MS, LATEST_MS])


@given(TIMES_MS)
def test_a_time_is_written_as_the_calendar_has_it_and_read_back(time_ms: int) -> None:
    """With milliseconds, in UTC, all the way to the end of the year 9999."""
    moment = EPOCH + timedelta(milliseconds=time_ms)
    assert format_ms(time_ms) == f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"
    assert parse_ms(format_ms(time_ms)) == time_ms


@given(TIMES_MS)
def test_days_and_hours_are_the_beginning_of_a_time(time_ms: int) -> None:
    """Windows name theirs so."""
    assert format_ms(time_ms).startswith(format_day(time_ms // DAY_MS))
    assert format_ms(time_ms).startswith(format_hour(time_ms // 3_600_000))


def test_behind_the_last_day_there_is_none() -> None:
    """A number that is no time is no time, here too."""
    with pytest.raises(OverflowError):
        format_ms(LATEST_MS + 1)
