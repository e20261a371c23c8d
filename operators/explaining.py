"""Explaining: why the numbers of a SKU are what they are, from the stock to each channel."""

from collections.abc import Mapping
from typing import Final

from operators.cover import by_weekday, runs_out_ms
from operators.last_facts import LastFacts
from operators.offers import View
from operators.pools import Spare
from operators.positions import QUANTITIES
from operators.reorder import days_of_cover, dynamic_safety_units
from operators.replenishing import Replenishing
from operators.requesting import Requesting
from operators.requests import NEVER_MS, Request
from operators.rules import SkuRules
from operators.stating import Stating
from operators.steps import safety_rule_of, steps_of
from operators.stock import Stock
from operators.trust import trusted_units
from schemas.batches import Origin
from schemas.outputs import (
    ChannelAvailability,
    ChannelExplanation,
    Explanation,
    LocationExplanation,
    OpenRequest,
)
from schemas.times import DAY_MS, format_day, format_hour, format_ms

REQUESTS_MAX: Final = 20
DECIMALS: Final = 3


class Explaining:
    """Puts together what the operators of a lane know about one SKU; changes nothing."""

    def __init__(
        self, stock: Stock, requesting: Requesting, stating: Stating, replenishing: Replenishing, facts: LastFacts
    ) -> None:
        self._stock = stock
        self._requesting = requesting
        self._stating = stating
        self._replenishing = replenishing
        self._facts = facts

    def explain(self, sku: int, home: Origin, incarnation: int) -> Explanation:
        """Everything behind the numbers that `sku` shows; `home` is where it is at home."""
        stock, cells = self._stock, self._stock.skus.cells
        seen_ms, clock_ms = cells["seen_ms"][sku], stock.clock_ms(sku)
        resolved = stock.rules_of(sku)
        spares, views = stock.views(sku, resolved, seen_ms)
        shown = stock.channels_of(sku, resolved)
        requests = self._requesting.open_of(sku)
        return Explanation(
            sku=stock.names[sku],
            incarnation=incarnation,
            version=cells["version"][sku],
            as_of=format_ms(cells["as_of_ms"][sku]),
            clock=format_ms(clock_ms) if clock_ms else None,
            rules=cells["generation"][sku],
            home=f"{home.name}/{home.partition}",
            channels={
                view.rule.name: self._channel(sku, view, shown[view.rule.name], spares, resolved)
                for view in views
                if view.rule.name in shown
            },
            locations={
                stock.location_of(row): self._location(row, spare, resolved, seen_ms)
                for row, spare in zip(stock.positions_of(sku), spares, strict=True)
            },
            requests=[_open(request) for request in requests[:REQUESTS_MAX]],
            requests_left_out=max(0, len(requests) - REQUESTS_MAX),
            divergences=self._stating.open_of(sku),
            movements=self._facts.of(sku),
        )

    def _channel(
        self, sku: int, view: View, shown: ChannelAvailability, spares: list[Spare], resolved: SkuRules
    ) -> ChannelExplanation:
        stock, rule = self._stock, view.rule
        ledgers = stock.ledgers(sku)
        draws = stock.draws(resolved, rule)
        return ChannelExplanation(
            promised=shown.promised,
            sellable=shown.sellable,
            level=shown.level,
            low_stock_at=rule.low_stock_at,
            recovered_at=rule.recovered_at,
            steps=steps_of(view, spares, draws, stock.locations, resolved, contracts=bool(ledgers)),
            committed=ledgers[rule.name].open if rule.name in ledgers else 0,
            contract_units=ledgers[rule.name].committed if rule.name in ledgers else 0,
            backordered=stock.backordered(sku, rule.name),
        )

    def _location(self, row: int, spare: Spare, resolved: SkuRules, seen_ms: int) -> LocationExplanation:
        stock, cells = self._stock, self._stock.positions.cells
        location, available = stock.location_of(row), stock.available(row)
        trust_percent, place = stock.trust_percent(row), stock.place(row)
        on_hand, reserved, allocated, picked, quarantined, in_transit, incoming = (
            cells[quantity][row] for quantity in QUANTITIES
        )
        explained = LocationExplanation(
            on_hand=on_hand,
            reserved=reserved,
            allocated=allocated,
            picked=picked,
            quarantined=quarantined,
            in_transit=in_transit,
            incoming=incoming,
            available=available,
            trust_percent=trust_percent,
            trusted=trusted_units(available, trust_percent),
            safety_units=stock.safety_units(row, seen_ms),
            safety_rule=safety_rule_of(resolved, location),
            spare=spare.units,
            newest=format_ms(cells["newest_ms"][row]),
            proposed=cells["proposed"][row],
        )
        if place.is_planned:
            need = self._replenishing.need(row, seen_ms)
            explained.reorder_point, explained.position = need.reorder_point, need.position_units
        self._add_demand(explained, row, seen_ms)
        return explained

    def _add_demand(self, explained: LocationExplanation, row: int, seen_ms: int) -> None:
        """How the position sells; nothing where it never sold."""
        stock = self._stock
        returned = stock.return_windows
        explained.return_days = _named_days(returned.days(row))
        explained.return_hours = _named_hours(returned.hours(row))
        if row not in stock.demand_windows:
            return
        day, sold = seen_ms // DAY_MS, stock.demand_windows.days(row)
        demand, observed = stock.demand(row, seen_ms), stock.observed_days(row, day)
        weekdays = by_weekday(sold, observed)
        out_ms = runs_out_ms(explained.available, seen_ms, weekdays, demand.per_day)
        explained.demand_per_day = round(demand.per_day, DECIMALS)
        explained.demand_sigma = round(demand.variance**0.5, DECIMALS)
        explained.demand_by_weekday = [None if mean is None else round(mean, DECIMALS) for mean in weekdays]
        explained.observed_days, explained.observed_units, explained.observed_squares = demand
        explained.days_of_cover = days_of_cover(demand, explained.available)
        explained.runs_out = None if out_ms is None else format_ms(out_ms)
        explained.dynamic_safety_units = dynamic_safety_units(demand, stock.place(row).planning)
        explained.demand_days = _named_days(sold)
        explained.demand_hours = _named_hours(stock.demand_windows.hours(row))
        explained.in_stock_days = [format_day(at) for at in sorted(stock.in_stock_days(row, day))]


def _open(request: Request) -> OpenRequest:
    return OpenRequest(
        request=request.id,
        source=request.source,
        channel=request.channel,
        parts={location: units for location, units in request.parts.items() if units},
        backordered=request.backordered,
        expires=None if request.expires_ms == NEVER_MS else format_ms(request.expires_ms),
    )


def _named_days(units: Mapping[int, int]) -> dict[str, int]:
    """By date, as 2026-11-24."""
    return {format_day(day): count for day, count in units.items()}


def _named_hours(units: Mapping[int, int]) -> dict[str, int]:
    """By hour, as 2026-11-24T09."""
    return {format_hour(hour): count for hour, count in units.items()}
