"""How fast a position sells by the oracle, and what follows from it: days of cover, safety stock, reorder point.

The reorder point is that of Silver, Pyke and Thomas, Inventory and Production Management in Supply Chains, 4th edition,
chapter 6: a cycle service level, and normally distributed demand over the lead time.
"""

from math import ceil, sqrt
from statistics import NormalDist
from typing import NamedTuple

from bench.oracle_article import DAY_MS, WINDOW_DAYS, Position
from schemas.rules import ReplenishmentRules

WINDOW_HOURS = 23  # before the newest one


class Figures(NamedTuple):
    """Demand on the complete days before a moment on which something could be sold, or was."""

    observed: int  # days
    total: int
    squares: int  # sum of each day's units squared

    @property
    def per_day(self) -> float:
        """Units; 0 where no day was observed."""
        return self.total / self.observed if self.observed else 0.0

    @property
    def variance(self) -> float:
        """Of a day's units, from the sample."""
        if self.observed < 2:  # noqa: PLR2004  # one day does not vary
            return 0.0
        return (self.observed * self.squares - self.total**2) / (self.observed * (self.observed - 1))


def by_day(hours: dict[int, int]) -> dict[int, int]:
    """Units of the latest day of `hours` and the 28 before it, where there are any."""
    days: dict[int, int] = {}
    latest = max(hours, default=0) // 24
    for hour, units in hours.items():
        if hour // 24 >= latest - WINDOW_DAYS:
            days[hour // 24] = days.get(hour // 24, 0) + units
    return {day: units for day, units in sorted(days.items()) if units}


def by_hour(hours: dict[int, int]) -> dict[int, int]:
    """Units of the latest hour and the 23 before it, where there are any."""
    latest = max(hours, default=0)
    return {hour: units for hour, units in sorted(hours.items()) if hour >= latest - WINDOW_HOURS and units}


def figures(position: Position, moment_ms: int) -> Figures:
    """Demand on the 28 complete days before that of `moment_ms`."""
    today = moment_ms // DAY_MS
    sold = by_day(position.sold)
    units = {day: max(0, sold.get(day, 0)) for day in range(today - WINDOW_DAYS, today)}
    observed = [sold for day, sold in units.items() if sold or position.was_in_stock(day)]
    return Figures(len(observed), sum(observed), sum(sold**2 for sold in observed))


def days_of_cover(position: Position, moment_ms: int) -> float | None:
    """How long what is available lasts, in tenths rounded down; None without demand."""
    if not position.sold:
        return None
    found = figures(position, moment_ms)
    return max(0, position.available) * found.observed * 10 // found.total / 10 if found.total else None


def dynamic_safety(found: Figures, terms: ReplenishmentRules) -> int:
    """Units that keep the service level while demand and lead time vary."""
    return max(0, ceil(round(_buffer(found, terms), 6)))


def reorder_point(found: Figures, terms: ReplenishmentRules) -> int:
    """Units at which it is time to buy."""
    return max(0, ceil(round(found.per_day * terms.lead_time_days + _buffer(found, terms), 6)))


def _buffer(found: Figures, terms: ReplenishmentRules) -> float:
    z = NormalDist().inv_cdf(terms.service_level_percent / 100)
    of_demand = terms.lead_time_days * found.variance
    of_lead_time = found.per_day**2 * terms.lead_time_sigma_days**2
    return z * sqrt(of_demand + of_lead_time)
