"""Cover: when stock runs out at the rate at which it sells on each weekday."""

from collections.abc import Iterable, Mapping

from schemas.times import DAY_MS, LATEST_MS

WEEKDAYS = 7
MONDAY_OFFSET = 3  # day 0 of 1970 was a Thursday
AHEAD_DAYS_MAX = 366


def by_weekday(sold: Mapping[int, int], observed: Iterable[int]) -> list[float | None]:
    """Mean units of each weekday, Monday first, over the `observed` days (since 1970); None where none was observed."""
    units, days = [0] * WEEKDAYS, [0] * WEEKDAYS
    for day in observed:
        weekday = (day + MONDAY_OFFSET) % WEEKDAYS
        units[weekday] += max(0, sold.get(day, 0))
        days[weekday] += 1
    return [units[weekday] / days[weekday] if days[weekday] else None for weekday in range(WEEKDAYS)]


def runs_out_ms(available: int, moment_ms: int, weekdays: list[float | None], per_day: float) -> int | None:
    """When `available` units are sold from `moment_ms` on; None where that is more than a year away, or never.

    A weekday that was never seen sells `per_day`; units go evenly through a day.
    """
    left, at_ms = float(max(0, available)), moment_ms
    if per_day <= 0:
        return None
    for _ in range(AHEAD_DAYS_MAX):
        if at_ms > LATEST_MS - DAY_MS:
            break
        day = at_ms // DAY_MS
        usual = weekdays[(day + MONDAY_OFFSET) % WEEKDAYS]
        rate = per_day if usual is None else usual
        rest_ms = (day + 1) * DAY_MS - at_ms
        if rate * rest_ms >= left * DAY_MS:
            return at_ms + (round(left * DAY_MS / rate) if left else 0)
        left -= rate * rest_ms / DAY_MS
        at_ms += rest_ms
    return None
