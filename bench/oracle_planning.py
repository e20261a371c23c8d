"""Purchases by the oracle: for each position at most one proposal, opened, changed once a day and closed."""

from math import ceil
from typing import Literal, NamedTuple
from zlib import crc32

from bench.oracle_article import DAY_MS, Article, Happening, Position
from bench.oracle_demand import Figures, figures, reorder_point
from bench.oracle_offers import buying_terms, is_planned
from schemas.outputs import Replenishment, replenishment_id
from schemas.rules import ReplenishmentRules
from schemas.times import format_ms

MINUTE_MS = 60_000
MINUTES_PER_DAY = 1440


class Need(NamedTuple):
    """What a position has, and when it should have more."""

    is_planned: bool
    found: Figures
    units: int  # available and on the way
    reorder_point: int  # 0 where nothing is sold or planned
    terms: ReplenishmentRules

    @property
    def is_due(self) -> bool:
        """Whether it is time to buy."""
        return self.is_planned and self.found.total > 0 and self.units <= self.reorder_point

    @property
    def quantity(self) -> int:
        """Units to buy."""
        until_review = self.found.per_day * self.terms.review_days
        needed = ceil(round(self.reorder_point + until_review - self.units, 6))
        packs = -(-max(needed, self.terms.minimum_units, 1) // self.terms.pack_units)
        return packs * self.terms.pack_units


def minute_of(sku: str) -> int:
    """The minute of the day (UTC) at which open proposals of a SKU are worked out anew."""
    return crc32(sku.encode()) % MINUTES_PER_DAY


def has_come(minute: int, before_ms: int, after_ms: int) -> bool:
    """Whether a clock that goes from one time to another passes the minute of a day."""
    return (after_ms - minute * MINUTE_MS) // DAY_MS > (before_ms - minute * MINUTE_MS) // DAY_MS


def plan(article: Article, moment_ms: int, happening: Happening, *, at_its_minute: bool) -> list[Replenishment]:
    """What becomes of the proposals for each position."""
    records: list[Replenishment] = []
    if not article.policy.follows_demand and not article.proposed:
        return records
    for place, position in article.places.items():
        need = _need(article, place, position, moment_ms)
        is_open = article.proposed.get(place, 0)
        if is_open and (reason := _end(article, place, need)):
            records.append(_record(article, place, "closed", is_open, need, reason, happening))
            del article.proposed[place]
            is_open = 0
        if not is_open and need.is_due:
            reason = f"position {need.units} at or below reorder point {need.reorder_point}"
            records.append(_record(article, place, "proposed", need.quantity, need, reason, happening))
            article.proposed[place] = need.quantity
        elif is_open and at_its_minute and need.quantity != is_open:
            reason = f"{need.quantity} needed instead of {is_open}"
            records.append(_record(article, place, "changed", need.quantity, need, reason, happening))
            article.proposed[place] = need.quantity
    return records


def _need(article: Article, place: str, position: Position, moment_ms: int) -> Need:
    planned = is_planned(article.policy, place)
    found = figures(position, moment_ms)
    terms = buying_terms(article.policy, place)
    point = reorder_point(found, terms) if planned and found.total else 0
    units = position.available + max(0, position.now["incoming"]) + max(0, position.now["in_transit"])
    return Need(planned, found, units, point, terms)


def _end(article: Article, place: str, need: Need) -> str | None:
    """Why an open proposal is no longer needed, or None."""
    if place in article.expected:
        return "expected"
    if not need.is_planned:
        return "not planned"
    if need.found.total == 0:
        return "no demand"
    return "recovered" if need.units > need.reorder_point else None


def _record(  # one argument for each column of the record
    article: Article,
    place: str,
    event: Literal["proposed", "changed", "closed"],
    quantity: int,
    need: Need,
    reason: str,
    happening: Happening,
) -> Replenishment:
    return Replenishment(
        id=replenishment_id(article.sku, place, event, happening.offset),
        event=event,
        sku=article.sku,
        location=place,
        quantity=quantity,
        reorder_point=need.reorder_point,
        position=need.units,
        demand_per_day=round(need.found.per_day, 3),
        reason=reason,
        version=happening.offset,
        time=format_ms(happening.time_ms),
    )
