"""Reorder: when stock should be bought again and how much, from demand, lead time and service level."""

from functools import lru_cache
from math import ceil, sqrt
from statistics import NormalDist
from typing import Final, NamedTuple

DECIMALS: Final = 6  # of a sum of floats before it is rounded up, so that 21.000000000000004 units are 21
PERCENT: Final = 100
ORDER_UNITS_MAX: Final = 2**53  # what every reader of JSON takes for a whole number


class Planning(NamedTuple):
    """The numbers of one position's planning: days, units, and `z` of the cycle service level."""

    lead_time_days: float
    lead_time_sigma_days: float
    review_days: float
    z: float
    pack_units: int
    minimum_units: int


class Demand(NamedTuple):
    """Units per day over the observed days of a window: how many days, the sum, and the sum of squares."""

    days: int = 0
    units: int = 0
    squares: int = 0

    @property
    def per_day(self) -> float:
        """The mean; 0 where no day was observed."""
        return self.units / self.days if self.days else 0.0

    @property
    def variance(self) -> float:
        """Of a day's units, with n − 1; 0 where fewer than two days were observed."""
        if self.days <= 1:
            return 0.0
        return (self.days * self.squares - self.units**2) / (self.days * (self.days - 1))


NO_DEMAND: Final = Demand()


def planning_of(
    lead_time_days: float,
    lead_time_sigma_days: float,
    review_days: float,
    service_level_percent: float,
    pack_units: int,
    minimum_units: int,
) -> Planning:
    """The numbers as the rules give them, with the service level as a quantile of the normal distribution."""
    return Planning(
        lead_time_days, lead_time_sigma_days, review_days, _quantile(service_level_percent), pack_units, minimum_units
    )


def buffer_units(demand: Demand, planning: Planning) -> float:
    """z·√(L·σ² + d²·σ_L²): what covers the swings of demand and of the lead time.

    Silver, Pyke and Thomas, Inventory and Production Management in Supply Chains, 4th edition, chapter 6: cycle
    service level, normal demand over the lead time.
    """
    d, lead, deviation = demand.per_day, planning.lead_time_days, planning.lead_time_sigma_days
    return planning.z * sqrt(lead * demand.variance + d * d * deviation * deviation)


def dynamic_safety_units(demand: Demand, planning: Planning) -> int:
    """The buffer in whole units, never below 0."""
    return max(0, _rounded_up(buffer_units(demand, planning)))


@lru_cache(maxsize=16_384)
def reorder_point_units(demand: Demand, planning: Planning) -> int:
    """d·L + the buffer, in whole units: at or below it, a purchase arrives too late for what is likely to be sold."""
    return max(0, _rounded_up(demand.per_day * planning.lead_time_days + buffer_units(demand, planning)))


def order_units(demand: Demand, planning: Planning, position_units: int) -> int:
    """What lifts the position to the reorder point and over the review days, as whole packs, at least the minimum."""
    target = reorder_point_units(demand, planning) + demand.per_day * planning.review_days
    units = min(max(_rounded_up(target - position_units), planning.minimum_units, 1), ORDER_UNITS_MAX)
    return -(-units // planning.pack_units) * planning.pack_units


def days_of_cover(demand: Demand, available: int) -> float | None:
    """How long `available` units last, in tenths of a day, rounded down; None where nothing sells."""
    if not demand.units:
        return None
    return max(0, available) * demand.days * 10 // demand.units / 10


def _rounded_up(units: float) -> int:
    return ceil(round(units, DECIMALS))


@lru_cache(maxsize=1024)
def _quantile(service_level_percent: float) -> float:
    return NormalDist().inv_cdf(service_level_percent / PERCENT)
