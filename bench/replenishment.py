"""Replenishment: real sales, day by day, bought by a lane's proposals and by reorder points that are set once.

Both policies meet the same demand, begin with the same stock and use the same formulas; they differ in the demand that
these are given. The fixed one goes by the first month for ever, as a planner would set it once. The other one is the
real lane: it is told every delivery and sale, and what it proposes at the end of a day is ordered.

- A day's demand of a SKU is what its invoices say, all countries together. What the shelf does not hold is lost: it
  does not come back the next day, and the lane, like any shop, only hears of what was sold.
- The data knows no lost sales of the real wholesaler, so its sales are taken for the demand.
- Cancelled invoices and corrections are left out, and so is a sale that was cancelled on its own day (an error at the
  till). What is returned later does not come back to the shelf.
- Nobody orders in the first month. Its demand, and the stock that the fixed policy aims at, is on the shelf at the
  beginning, so that nothing is lost in it and both enter the second month with the same stock.
- What is ordered at the end of a day is there `lead_time_days` whole days later, always and in full.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec

from bench.drain import BenchError, versions
from bench.retail import ARTICLE, DAY_MS, Line, read_lines
from operators.lane import Lane, LaneSettings
from operators.reorder import Demand, Planning, order_units, planning_of, reorder_point_units
from operators.rules import RuleBook
from schemas.batches import Batch, Origin
from schemas.rules import ChannelRules, ReplenishmentRules, Rules
from schemas.times import format_ms

LINES_NAME: Final = "online_retail_2010-12_to_2011-07.csv.gz"
LINES_PATH: Final = Path(__file__).parents[2] / "shared" / "data" / LINES_NAME
SERVICE_LEVELS: Final = (90.0, 95.0, 98.0)
LOCATION: Final = "dc"
LOG: Final = Origin("bench", "bench", 0, "replenishment")
DEDUPE_MS: Final = 3 * DAY_MS
NOON_MS: Final = DAY_MS // 2

Units = dict[str, int]  # by SKU


@dataclass(frozen=True, slots=True)
class ReplenishmentConfig:
    """How to buy; days are whole days."""

    lead_time_days: int = 7
    review_days: int = 7
    first_days: int = 31
    first_units_min: int = 100  # that a SKU sold in the first days, to take part
    skus_max: int | None = None  # None: all that sold enough


class Story(NamedTuple):
    """The demand of each day by SKU, from `begin_ms` on, of SKUs that sold enough in the first days."""

    begin_ms: int
    days: list[Units]
    first: dict[str, Demand]  # of the first days
    taken_back: int  # lines that were cancelled on their own day


class Policy(Protocol):
    """Somebody who buys: hears what came and what was sold in a day, and says what to order at its end."""

    def close(self, day: int, came: Units, sold: Units, *, is_ordering: bool) -> Units:
        """What to order."""


class Figures(NamedTuple):
    """What a policy came to in the days after the first ones."""

    units_demanded: int
    units_sold: int
    stock_units_days: int  # sum of what was there at the end of each day
    days: int
    orders: int
    units_ordered: int
    stock: Units  # at the end


class ReplenishmentRun(msgspec.Struct):
    """One policy at one target, as one JSON line."""

    policy: str
    service_level_percent: float
    fill_rate_percent: float  # units sold of units demanded
    stock_units_mean: float  # of a SKU, at the end of a day
    orders: int
    units_demanded: int
    units_lost: int
    units_ordered: int
    skus: int
    days: int
    first_days: int
    first_units_min: int
    lead_time_days: int
    review_days: int
    lines_taken_back: int
    versions: dict[str, str]
    started_at: str


def replenishment(
    lines_path: Path, config: ReplenishmentConfig, service_levels: Sequence[float] = SERVICE_LEVELS
) -> Iterator[ReplenishmentRun]:
    """Both policies at each target; raises BenchError where there are no lines, or too few."""
    try:
        lines = read_lines(lines_path)
    except (OSError, ValueError) as error:
        raise BenchError(f"cannot read sales lines: {error}") from error
    story = story_of(lines, config)
    for level in service_levels:
        rules = rules_of(config, level)
        opening = opening_stock(story, rules)
        started_at = _now()
        fixed = simulate(story, config, opening, Fixed(story, rules, opening))
        yield _run("fixed", story, config, level, fixed, started_at)
        started_at = _now()
        proposals = Proposals(story, rules, opening)
        proposed = simulate(story, config, opening, proposals)
        proposals.check(proposed.stock)
        yield _run("onhand", story, config, level, proposed, started_at)


def rules_of(config: ReplenishmentConfig, service_level_percent: float) -> ReplenishmentRules:
    """The `[replenishment]` table of both policies."""
    return ReplenishmentRules(
        lead_time_days=config.lead_time_days,
        review_days=config.review_days,
        service_level_percent=service_level_percent,
    )


def story_of(lines: Sequence[Line], config: ReplenishmentConfig) -> Story:
    """The demand of each day; raises BenchError where the lines end with the first days, or no SKU sold enough."""
    goods = [line for line in lines if ARTICLE.fullmatch(line.sku)]
    if not goods:
        raise BenchError("there are no sales lines of goods")
    first_day = goods[0].time_ms // DAY_MS
    count = goods[-1].time_ms // DAY_MS - first_day + 1
    if count <= config.first_days:
        raise BenchError(f"the lines cover {count} days, there must be more than the first {config.first_days}")
    sales, taken_back = sales_of(goods)
    days: list[Counter[str]] = [Counter() for _ in range(count)]
    for line in sales:
        days[line.time_ms // DAY_MS - first_day][line.sku] += line.quantity
    first: Counter[str] = Counter()
    for day in days[: config.first_days]:
        first.update(day)
    chosen = [sku for sku, units in first.most_common(config.skus_max) if units >= config.first_units_min]
    if not chosen:
        raise BenchError(f"no SKU sold {config.first_units_min} units in the first {config.first_days} days")
    kept = [{sku: day[sku] for sku in chosen if sku in day} for day in days]
    demands = {sku: _demand_of([day.get(sku, 0) for day in kept[: config.first_days]]) for sku in chosen}
    return Story(first_day * DAY_MS, kept, demands, taken_back)


def sales_of(goods: Sequence[Line]) -> tuple[list[Line], int]:
    """The lines that sold something, and how many were left out because as much was cancelled later on their day."""
    sales: list[Line] = []
    cancelled: Counter[tuple[str, int, int]] = Counter()
    left_out = 0
    for line in reversed(goods):
        day = line.time_ms // DAY_MS
        if line.invoice.startswith("C"):
            cancelled[line.sku, -line.quantity, day] += 1
        elif line.quantity > 0 and cancelled[line.sku, line.quantity, day]:
            cancelled[line.sku, line.quantity, day] -= 1
            left_out += 1
        elif line.quantity > 0:
            sales.append(line)
    return sales[::-1], left_out


def opening_stock(story: Story, rules: ReplenishmentRules) -> Units:
    """What the first days will sell, and what the fixed policy aims at after them."""
    planning = _planning(rules)
    return {sku: demand.units + order_units(demand, planning, 0) for sku, demand in story.first.items()}


class Fixed:
    """Reorder points and targets of the first days, never revised."""

    def __init__(self, story: Story, rules: ReplenishmentRules, opening: Units) -> None:
        self._demands = story.first
        self._planning = _planning(rules)
        self._points = {sku: reorder_point_units(demand, self._planning) for sku, demand in story.first.items()}
        self._positions = Counter(opening)  # what is here and ordered

    def close(self, _day: int, _came: Units, sold: Units, *, is_ordering: bool) -> Units:
        """Orders what is at or below its point, up to its target."""
        self._positions.subtract(sold)
        if not is_ordering:
            return {}
        orders = {
            sku: order_units(self._demands[sku], self._planning, self._positions[sku])
            for sku, point in self._points.items()
            if self._positions[sku] <= point
        }
        self._positions.update(orders)
        return orders


class Proposals:
    """The proposals of a lane that hears of every delivery, sale and order, and of midnight."""

    def __init__(self, story: Story, rules: ReplenishmentRules, opening: Units) -> None:
        book = RuleBook(Rules(channels={"web": ChannelRules()}, replenishment=rules))
        self._lane = Lane(0, book, LaneSettings(1, incarnation=1, dedupe_ms=DEDUPE_MS))
        self._begin_ms = story.begin_ms
        self._told = 0
        self._waiting: list[bytes] = []
        self._proposed: Units = {}
        self._on_hand: Units = {}
        self._tell_all("received", opening, self._begin_ms)

    def close(self, day: int, came: Units, sold: Units, *, is_ordering: bool) -> Units:
        """Tells the lane of the day; orders what it proposes when the day is over."""
        begin_ms = self._begin_ms + day * DAY_MS
        self._tell_all("received", came, begin_ms, order=True)
        self._tell_all("shipped", sold, begin_ms + NOON_MS)
        self._waiting.append(_encode({"kind": "tick", "time": format_ms(begin_ms + DAY_MS)}))
        self._work()
        orders = dict(self._proposed) if is_ordering else {}
        self._tell_all("expected", orders, begin_ms + DAY_MS)
        return orders

    def check(self, stock: Units) -> None:
        """Raises BenchError where the lane counted another stock than the simulation."""
        self._work()
        wrong = sorted(sku for sku, units in stock.items() if self._on_hand[sku] != units)
        if wrong:
            sku = wrong[0]
            raise BenchError(
                f"the lane's stock of {len(wrong)} SKUs is wrong: {self._on_hand[sku]} not {stock[sku]} of {sku}"
            )

    def _tell_all(self, kind: str, units: Units, time_ms: int, *, order: bool = False) -> None:
        time = format_ms(time_ms)
        for sku, quantity in units.items():
            self._waiting.append(_encode(self._body(kind, sku, quantity, time) | ({"order": "PO"} if order else {})))

    def _body(self, kind: str, sku: str, quantity: int, time: str) -> dict[str, str | int]:
        number = self._told + len(self._waiting)
        names: dict[str, str | int] = {"id": str(number), "source": "bench", "sku": sku, "location": LOCATION}
        return names | {"kind": kind, "quantity": quantity, "time": time}

    def _work(self) -> None:
        count = len(self._waiting)
        offsets = list(range(self._told, self._told + count))
        result = self._lane.apply([Batch(LOG, offsets, [-1] * count, [None] * count, list(self._waiting))])
        self._told += count
        self._waiting.clear()
        if result.dead_letters:
            raise BenchError(f"the lane set a record aside: {result.dead_letters[0].detail}")
        for record in result.replenishments:
            if record.event == "closed":
                self._proposed.pop(record.sku, None)
            else:
                self._proposed[record.sku] = record.quantity
        self._on_hand.update((record.sku, record.locations[LOCATION].on_hand) for record in result.availability)


def simulate(story: Story, config: ReplenishmentConfig, opening: Units, policy: Policy) -> Figures:
    """Lives through the days: deliveries in the morning, then sales, and orders at the end."""
    stock = dict(opening)
    on_their_way: dict[int, Units] = {}  # by the day on which they are there
    demanded = sold_units = stock_units_days = orders_count = ordered = 0
    for day, demand in enumerate(story.days):
        came = on_their_way.pop(day, {})
        for sku, units in came.items():
            stock[sku] += units
        sold = {sku: units for sku, wanted in demand.items() if (units := min(stock[sku], wanted))}
        for sku, units in sold.items():
            stock[sku] -= units
        orders = policy.close(day, came, sold, is_ordering=day >= config.first_days - 1)
        on_their_way[day + config.lead_time_days + 1] = orders
        if day >= config.first_days:
            demanded += sum(demand.values())
            sold_units += sum(sold.values())
            stock_units_days += sum(stock.values())
        orders_count += len(orders)
        ordered += sum(orders.values())
    days = len(story.days) - config.first_days
    return Figures(demanded, sold_units, stock_units_days, days, orders_count, ordered, stock)


def _run(  # what a run was, and left
    policy: str, story: Story, config: ReplenishmentConfig, level: float, figures: Figures, started_at: str
) -> ReplenishmentRun:
    skus = len(story.first)
    return ReplenishmentRun(
        policy=policy,
        service_level_percent=level,
        fill_rate_percent=round(100 * figures.units_sold / max(1, figures.units_demanded), 2),
        stock_units_mean=round(figures.stock_units_days / (figures.days * skus), 1),
        orders=figures.orders,
        units_demanded=figures.units_demanded,
        units_lost=figures.units_demanded - figures.units_sold,
        units_ordered=figures.units_ordered,
        skus=skus,
        days=figures.days,
        first_days=config.first_days,
        first_units_min=config.first_units_min,
        lead_time_days=config.lead_time_days,
        review_days=config.review_days,
        lines_taken_back=story.taken_back,
        versions=versions(),
        started_at=started_at,
    )


def _demand_of(units: Sequence[int]) -> Demand:
    return Demand(len(units), sum(units), sum(count * count for count in units))


def _planning(rules: ReplenishmentRules) -> Planning:
    return planning_of(
        rules.lead_time_days,
        rules.lead_time_sigma_days,
        rules.review_days,
        rules.service_level_percent,
        rules.pack_units,
        rules.minimum_units,
    )


def _encode(body: Mapping[str, str | int]) -> bytes:
    return msgspec.json.encode(body)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
