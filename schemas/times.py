"""Times on the wire: RFC 3339 text in, milliseconds since 1970 inside."""

import re
from datetime import UTC, datetime, timedelta

RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)",
    re.ASCII,
)
TEXT_LENGTH_MAX = 35


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
    moment = _EPOCH + timedelta(milliseconds=time_ms)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAYS_MAX = (datetime.max.replace(tzinfo=UTC) - _EPOCH).days + 1  # what `format_ms` can write
