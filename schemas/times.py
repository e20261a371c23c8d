"""Times on the wire: RFC 3339 text in, milliseconds since 1970 inside."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)",
    re.ASCII,
)
DURATION = re.compile(r"([0-9]{1,6})(ms|s|m|h|d)", re.ASCII)
LATEST_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
TEXT_LENGTH_MAX = 35
DAY_MS = 86_400_000
DAYS_KNOWN_MAX = 4096
SECONDS_KNOWN_MAX = 1024  # times are told within a few seconds of one another, by thousands


def parse_ms(text: str) -> int:
    """Milliseconds since 1970 of an RFC 3339 time with an offset; finer fractions are cut off.

    Raises ValueError where `text` is no such time, lies before 1970 or after 9999 in UTC, or has no offset.
    """
    if not RFC_3339.fullmatch(text):
        raise ValueError(text)
    moment = datetime.fromisoformat(text)
    delta = moment - _EPOCH
    if not 0 <= delta.days < _DAYS_MAX:
        raise ValueError(text)
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


def format_ms(time_ms: int) -> str:
    """ISO-8601 UTC with milliseconds, as every record of ours writes it."""
    second, millis = divmod(time_ms, 1000)
    return f"{_format_second(second)}.{millis:03}Z"


def format_hour(hour: int) -> str:
    """An hour since 1970, as 2026-11-24T09."""
    return f"{format_day(hour // 24)}T{hour % 24:02}"


@lru_cache(maxsize=SECONDS_KNOWN_MAX)
def _format_second(second: int) -> str:
    day, of_day = divmod(second, 86_400)
    minutes, seconds = divmod(of_day, 60)
    return f"{format_day(day)}T{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"


@lru_cache(maxsize=DAYS_KNOWN_MAX)
def format_day(day: int) -> str:
    """A day since 1970, as 2026-11-24; raises OverflowError where it lies before year 1 or after 9999."""
    return (_EPOCH + timedelta(days=day)).date().isoformat()


def duration_ms(text: str) -> int:
    """Milliseconds of a duration such as 500ms, 15m or 2d; raises ValueError where `text` is none."""
    found = DURATION.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return int(found[1]) * _UNITS_MS[found[2]]


_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY_MS}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAYS_MAX = (datetime.max.replace(tzinfo=UTC) - _EPOCH).days + 1  # what `format_ms` can write
