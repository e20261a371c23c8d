"""Replenishing: proposes a purchase where what is here and on its way will not last until one arrives."""

from typing import Final, Literal, NamedTuple
from zlib import crc32

from operators.outcome import Happening
from operators.reorder import Demand, Planning, order_units, reorder_point_units
from operators.reorder_points import ReorderPoints
from operators.stock import Stock
from schemas.outputs import Replenishment, replenishment_id
from schemas.times import DAY_MS, format_ms

MINUTE_MS: Final = 60_000
MINUTES_A_DAY: Final = 1440
DEMAND_DECIMALS: Final = 3


class Need(NamedTuple):
    """Where one position stands: what it has, when it should be bought, and how much of it."""

    demand: Demand
    planning: Planning | None  # None: nothing is proposed here
    position_units: int
    reorder_point: int

    @property
    def is_short(self) -> bool:
        """Whether a purchase should be proposed."""
        return self.planning is not None and self.demand.units > 0 and self.position_units <= self.reorder_point

    def why_not(self) -> str | None:
        """Why an open proposal is none any more; None where it still is one."""
        if self.planning is None:
            return "not planned"
        if not self.demand.units:
            return "no demand"
        return None if self.is_short else "recovered"


class Replenishing:
    """The open proposals of a lane's positions: at most one each, kept in the positions' columns.

    `points` are reorder points as they were worked out last, so that compiled loops see when they are reached.
    """

    def __init__(self, stock: Stock) -> None:
        self._stock = stock
        self.points = ReorderPoints()
        self._by_minute: dict[int, list[int]] = {}  # SKUs by the minute of the day at which they are looked at
        self._scheduled = 0

    def announced(self, position: int) -> None:
        """A purchase is on its way to the position."""
        self._stock.positions.cells["expected"][position] = 1

    def due_between(self, before_ms: int, after_ms: int) -> list[int]:
        """SKUs whose daily look falls between two times of their clock, in the order in which they were met."""
        self._schedule()
        if after_ms - before_ms >= DAY_MS:
            return list(range(self._scheduled))
        first, last = before_ms // MINUTE_MS + 1, after_ms // MINUTE_MS
        return sorted(
            sku for minute in range(first, last + 1) for sku in self._by_minute.get(minute % MINUTES_A_DAY, ())
        )

    def plan(self, sku: int, happening: Happening, *, is_daily: bool) -> list[Replenishment]:
        """What changes about the proposals for `sku`; the quantity of an open one only follows once a day."""
        cells = self._stock.positions.cells
        rows = self._stock.positions_of(sku)
        is_idle = not any(cells["proposed"][row] or cells["expected"][row] for row in rows)
        if is_idle and not self._stock.rules_of(sku).is_planned:
            return []
        events = []
        for row in rows:
            events += self._plan_position(row, happening, is_daily=is_daily)
            cells["expected"][row] = 0
        return events

    def need(self, position: int, moment_ms: int) -> Need:
        """Where the position stands now, with the demand as of `moment_ms`."""
        stock, cells = self._stock, self._stock.positions.cells
        units = stock.available(position) + max(0, cells["incoming"][position]) + max(0, cells["in_transit"][position])
        place, demand = stock.place(position), stock.demand(position, moment_ms)
        if not place.is_planned:
            return Need(demand, None, units, 0)
        reorder_point = reorder_point_units(demand, place.planning) if demand.units else 0
        return Need(demand, place.planning, units, reorder_point)

    def _schedule(self) -> None:
        names = self._stock.names
        while self._scheduled < len(names):
            minute = planning_minute(names[self._scheduled])
            self._by_minute.setdefault(minute, []).append(self._scheduled)
            self._scheduled += 1

    def _plan_position(self, row: int, happening: Happening, *, is_daily: bool) -> list[Replenishment]:
        cells = self._stock.positions.cells
        moment_ms = self._stock.moment_ms(cells["sku"][row])
        need = self.need(row, moment_ms)
        self._note(row, moment_ms, need)
        proposed = cells["proposed"]
        events = []

        def tell(event: Literal["proposed", "changed", "closed"], quantity: int, reason: str) -> None:
            proposed[row] = 0 if event == "closed" else quantity
            events.append(self._record(row, event, quantity, reason, need, happening))

        if proposed[row]:
            why = "expected" if cells["expected"][row] else need.why_not()
            if why is not None:
                tell("closed", proposed[row], why)
        if need.planning is None or not need.is_short:
            return events
        if not proposed[row]:
            reason = f"position {need.position_units} at or below reorder point {need.reorder_point}"
            tell("proposed", order_units(need.demand, need.planning, need.position_units), reason)
        elif is_daily:
            quantity = order_units(need.demand, need.planning, need.position_units)
            if quantity != proposed[row]:
                tell("changed", quantity, f"{quantity} needed instead of {proposed[row]}")
        return events

    def _note(self, row: int, moment_ms: int, need: Need) -> None:
        class_ = self._stock.skus.cells["classes"][self._stock.positions.cells["sku"][row]]
        if need.planning is not None and class_ >= 0:
            state = self._stock.demand_state(row, moment_ms // DAY_MS)
            self.points.note(row, class_, state, need.reorder_point if need.demand.units > 0 else None)

    def _record(  # what a record is made of
        self,
        row: int,
        event: Literal["proposed", "changed", "closed"],
        quantity: int,
        reason: str,
        need: Need,
        happening: Happening,
    ) -> Replenishment:
        sku = self._stock.names[self._stock.positions.cells["sku"][row]]
        location = self._stock.location_of(row)
        return Replenishment(
            id=replenishment_id(sku, location, event, happening.offset),
            event=event,
            sku=sku,
            location=location,
            quantity=quantity,
            reorder_point=need.reorder_point,
            position=need.position_units,
            demand_per_day=round(need.demand.per_day, DEMAND_DECIMALS),
            reason=reason,
            version=happening.offset,
            time=format_ms(happening.time_ms),
        )


def planning_minute(sku: str) -> int:
    """The minute of the day (UTC) at which `sku` is looked at, so that not all are at midnight."""
    return crc32(sku.encode()) % MINUTES_A_DAY
