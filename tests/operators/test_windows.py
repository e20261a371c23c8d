"""Demand by hour and day, days in stock, reorder points, order quantities and cover: tables and properties."""

from math import ceil, sqrt
from random import Random
from statistics import NormalDist, variance

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from operators.columns import INT32_MAX
from operators.cover import by_weekday, runs_out_ms
from operators.plain import SIZE_DEMAND, _count_units, _fits
from operators.reorder import (
    NO_DEMAND,
    Demand,
    Planning,
    days_of_cover,
    dynamic_safety_units,
    order_units,
    planning_of,
    reorder_point_units,
)
from operators.snapshots import pack, unpack
from operators.windows import DAYS, HOUR_MS, HOURS, Windows
from schemas.outputs import LocationExplanation
from schemas.rules import ChannelRules, Rules
from schemas.times import DAY_MS, parse_ms
from tests.tales import Tale, time_of

DAY = 20_000  # since 1970
MINUTES_A_DAY = 1440
RULES = Rules(channels={"web": ChannelRules()})
PLANNING = planning_of(7, 2, 1, 98, 1, 1)

Sale = tuple[int, int, int]  # position, hour, units


def told(sales: list[Sale]) -> Windows:
    """Windows that heard of `sales` in their order."""
    windows = Windows()
    for position, hour, units in sales:
        windows.add(position, hour * HOUR_MS + 1, units)
    return windows


def grouped(sales: list[Sale], hours_each: int, width: int) -> dict[int, dict[int, int]]:
    """What a plain group-by says: by position, the latest `width` spans of `hours_each` hours that hold units."""
    found: dict[int, dict[int, int]] = {}
    for position in {position for position, _, _ in sales}:
        spans = [(hour // hours_each, units) for owner, hour, units in sales if owner == position]
        first = max(at for at, _ in spans) - width + 1
        sums = {at: sum(units for other, units in spans if other == at) for at, _ in spans if at >= first}
        found[position] = {at: units for at, units in sums.items() if units}
    return found


SALES = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(DAY * 24, DAY * 24 + 40 * 24) | st.integers(0, 2_000_000),
        st.integers(-5, 9) | st.sampled_from([-(2**40), -(2**31), -1, 1, 2**31, 2**40]),
    ),
    max_size=60,
)


# Windows


@given(sales=SALES, seed=st.integers(0, 1000))
@example(sales=[(0, 480_000, 1), (0, 480_000 - 23, 2), (0, 480_000 - 24, 4)], seed=1)
@example(sales=[(0, 480_000, 1), (0, 480_000 - 28 * 24, 2), (0, 480_000 - 29 * 24, 4)], seed=1)
def test_windows_are_a_group_by_however_they_are_told(sales: list[Sale], seed: int) -> None:
    """The latest 24 hours and 29 days of each position, in whatever order, across a snapshot at any place."""
    shuffled = list(sales)
    Random(seed).shuffle(shuffled)
    half = told(shuffled[: seed % (len(sales) + 1)])
    again = Windows()
    again.load(unpack(pack(half.dump())))
    for position, hour, units in shuffled[seed % (len(sales) + 1) :]:
        again.add(position, hour * HOUR_MS + 1, units)
    for windows in (told(sales), again):
        for position in range(3):
            assert windows.hours(position) == grouped(sales, 1, HOURS).get(position, {})
            assert windows.days(position) == grouped(sales, 24, DAYS).get(position, {})
            assert (position in windows) == any(owner == position for owner, _, _ in sales)


@given(sales=SALES, seed=st.integers(0, 1000))
def test_compiled_loops_add_as_rows_do(sales: list[Sale], seed: int) -> None:
    """Some of the sales through the loops that ordinary movements go through, where these say that they fit."""
    windows, chance = Windows(), Random(seed)
    for position, hour, units in sales:
        if chance.random() < 0.3:
            windows.dump()
        windows.make_room(2, position + 1)
        if chance.random() < 0.3 or not _fits(windows.columns(), position, hour * HOUR_MS, abs(units)):
            windows.add(position, hour * HOUR_MS + 1, units)
            continue
        sizes = np.zeros(SIZE_DEMAND + 3, np.int64)
        sizes[SIZE_DEMAND:] = windows.rows
        _count_units(windows.columns(), sizes, SIZE_DEMAND, position, hour * HOUR_MS + 1, units)
        windows.set_rows(*sizes[SIZE_DEMAND:].tolist())
    for position in range(3):
        assert windows.hours(position) == grouped(sales, 1, HOURS).get(position, {})
        assert windows.days(position) == grouped(sales, 24, DAYS).get(position, {})


@given(sales=SALES)
def test_compiled_loops_add_small_numbers_always(sales: list[Sale]) -> None:
    """What stays within 32 bits fits; what does not, never."""
    windows = Windows()
    for position, hour, units in sales:
        windows.make_room(2, position + 1)
        held = (*windows.hours(position).values(), *windows.days(position).values(), 0)
        fits = _fits(windows.columns(), position, hour * HOUR_MS, abs(units))
        if max(map(abs, held)) + abs(units) <= INT32_MAX:
            assert fits
        if abs(units) > INT32_MAX:
            assert not fits
        windows.add(position, hour * HOUR_MS, units)


@pytest.mark.parametrize(
    ("ago_hours", "hours_kept", "days_kept"),
    [(0, True, True), (23, True, True), (24, False, True), (28 * 24, False, True), (29 * 24, False, False)],
)
def test_what_comes_late_counts_in_its_own_hour_and_day(ago_hours: int, *, hours_kept: bool, days_kept: bool) -> None:
    """A sale told after a newer one lands where it happened, unless that lies before the window."""
    newest = DAY * 24
    late = newest - ago_hours
    windows = told([(0, newest, 3), (0, late, 5)])
    assert (windows.hours(0).get(late, 0) >= 5) == hours_kept
    assert (windows.days(0).get(late // 24, 0) >= 5) == days_kept
    assert windows.hours(0)[newest] == (8 if late == newest else 3)


@pytest.mark.parametrize("width", [1, 23, 24, 25, 28 * 24, 29 * 24, 30 * 24, 10_000])
def test_a_newer_hour_pushes_out_only_what_is_too_old(width: int) -> None:
    """Nothing of an old hour or day shows up under a new one, however far it jumps."""
    begin = DAY * 24
    sales = [(0, begin + at, at + 1) for at in range(30)] + [(0, begin + 29 + width, 1000)]
    windows = told(sales)
    assert windows.hours(0) == grouped(sales, 1, HOURS)[0]
    assert windows.days(0) == grouped(sales, 24, DAYS)[0]


@pytest.mark.parametrize(("newest_hour", "days"), [(DAY * 24 + 1, {DAY: 7}), (DAY * 24 + 24, {DAY: 7})])
def test_a_reversal_subtracts_and_moves_the_window_like_any_sale(newest_hour: int, days: dict[int, int]) -> None:
    """10 sold, 3 taken back: 7 of that day, also where what takes back and what sells again are of a later one."""
    windows = told([(0, DAY * 24, 10), (0, DAY * 24, -3), (0, newest_hour, 4), (0, newest_hour, -4)])
    assert windows.days(0) == days
    assert told([(0, DAY * 24, 10), (0, DAY * 24 + 29 * 24, -1)]).days(0) == {DAY + 29: -1}


@pytest.mark.parametrize("units", [INT32_MAX, -INT32_MAX])
def test_huge_quantities_widen_the_numbers_of_all_positions(units: int) -> None:
    """More than 32 bits hold do not wrap, before and after a snapshot, and what was small stays."""
    windows = told([(0, DAY * 24, 5), *[(1, DAY * 24, units)] * 3])
    restored = Windows()
    restored.load(unpack(pack(windows.dump())))
    restored.add(1, DAY * DAY_MS, units)
    assert windows.days(1) == {DAY: 3 * units}
    assert restored.days(1) == {DAY: 4 * units}
    assert restored.hours(0) == {DAY * 24: 5}


def test_what_sells_seldom_takes_no_rows() -> None:
    """Rows of hours and days begin with a second hour, and day, that lies in the window of the latest."""
    begin = DAY * 24
    windows = told([(position, begin, 1) for position in range(100)])
    assert windows.rows == (100, 0, 0)
    for position, hours, rows in [(3, 0, (0, 0)), (3, 29 * 24, (0, 0)), (3, 30 * 24, (0, 1)), (3, 30 * 24 + 1, (1, 1))]:
        windows.add(position, (begin + hours) * HOUR_MS, 2)
        assert windows.rows == (100, *rows)
    windows.add(4, (begin - 24) * HOUR_MS, 5)
    assert (windows.hours(4), windows.days(4)) == ({begin: 1}, {DAY: 1, DAY - 1: 5})
    assert windows.rows[1] == 1


@pytest.mark.parametrize("given_up", [{1}, {1, 2}])  # of each three positions
def test_rows_are_given_up_by_a_snapshot(given_up: set[int]) -> None:
    """What sold in several hours once, and long after in one, has no row any more, and the others keep theirs."""
    begin, many = DAY * 24, 40_000
    windows = told([(position, begin + hour, position + 1) for position in range(many) for hour in (0, 1, 24)])
    assert windows.rows == (many, many, many)
    before = windows.columns()
    for position in range(many):
        if position % 3 in given_up:
            windows.add(position, (begin + 24 * 40) * HOUR_MS, 7)
    dumped = windows.dump()
    kept = sum(position % 3 not in given_up for position in range(many))
    assert windows.rows == (many, kept, kept)
    assert (windows.columns().hours is not before.hours) == (2 * kept < many), "the memory of many goes back"
    again = Windows()
    again.load(unpack(pack(dumped)))
    for some in (windows, again):
        some.add(1, (begin + 24 * 40 + 1) * HOUR_MS, 9)
        assert some.hours(1) == {begin + 24 * 40: 7, begin + 24 * 40 + 1: 9}
        assert some.hours(3) == {begin + 1: 4, begin + 24: 4}
        assert some.days(3) == {DAY: 8, DAY + 1: 4}
        assert some.days(4) == {DAY + 40: 7}


def test_many_positions_keep_apart() -> None:
    """Rows grow with the positions; each is its own."""
    sales = [(position, DAY * 24 + position, position + 1) for position in range(200)]
    windows = told(sales)
    assert [windows.days(position) for position in range(200)] == [
        grouped(sales, 24, DAYS)[position] for position in range(200)
    ]


# What counts as demand, told to a lane


def explained(tale: Tale, location: str = "east") -> LocationExplanation:
    """The location of SKU A."""
    return tale.explanation().locations[location]


@pytest.mark.parametrize(
    ("kind", "fields", "sold", "returned"),
    [
        ("shipped", {}, 3, 0),
        ("shipped", {"from_": "reserved"}, 3, 0),
        ("shipped", {"from_": "quarantined"}, 3, 0),
        ("shipped", {"reversal": True}, -3, 0),
        ("transfer_shipped", {"destination": "west"}, 3, 0),
        ("transfer_shipped", {"destination": "west", "reversal": True}, -3, 0),
        ("returned", {}, 0, 3),
        ("returned", {"to": "quarantined"}, 0, 3),
        ("returned", {"reversal": True}, 0, -3),
        ("scrapped", {}, 0, 0),
        ("received", {}, 0, 0),
        ("adjusted", {}, 0, 0),
        ("picked", {}, 0, 0),
        ("reserved", {}, 0, 0),
    ],
)
def test_what_was_shipped_or_transferred_out_is_demand_and_returns_stand_apart(
    kind: str, fields: dict[str, object], sold: int, returned: int
) -> None:
    """The whole quantity, wherever it was taken from, at the location that it left."""
    tale = Tale(RULES)
    tale.tell("received", 20, at=0)
    tale.tell(kind, 3, at=1, **fields)
    place = explained(tale)
    assert sum(place.demand_days.values()) == sum(place.demand_hours.values()) == sold
    assert sum(place.return_days.values()) == sum(place.return_hours.values()) == returned
    if kind == "transfer_shipped":
        assert not explained(tale, "west").demand_days


def test_duplicates_and_what_is_set_aside_are_no_demand() -> None:
    """Only what is applied counts, and it counts once."""
    tale = Tale(RULES)
    tale.tell("received", 20, at=10_000)
    for _ in range(2):
        tale.tell("shipped", 3, at=10_001, id="one")
    tale.tell("shipped", 4, at=0)
    assert tale.refusals == ["too_late"]
    assert explained(tale).demand_days == {"2026-11-27": 3}


# Days in stock


def days_after(*records: tuple[str, int, float], until: float) -> list[str]:
    """Days of the window at which something was there; records are (kind, units, day of the tale)."""
    tale = Tale(RULES, dedupe_hours=24 * 60, as_of_hours=24 * 60)
    for kind, units, day in records:
        tale.tell(kind, units, at=day * MINUTES_A_DAY)
    tale.tell("shipped", 1, at=until * MINUTES_A_DAY)
    return sorted(day[5:] for day in explained(tale).in_stock_days)


@pytest.mark.parametrize(
    ("records", "until", "days"),
    [
        ([("received", 5, 0.5)], 3, ["11-21", "11-22", "11-23"]),
        ([("received", 5, 0.5), ("shipped", 5, 0.6)], 3, ["11-21"]),
        ([("received", 5, 0.5), ("shipped", 5, 1.5)], 4, ["11-21", "11-22"]),
        ([("received", 5, 0.5), ("shipped", 5, 0.6), ("received", 5, 2.5)], 4, ["11-21", "11-23", "11-24"]),
        ([("received", 5, 0.5), ("reserved", 5, 0.6)], 3, ["11-21"]),
        ([("received", 5, 0.5), ("counted", 0, 1.5), ("counted", 2, 3.5)], 5, ["11-21", "11-22", "11-24", "11-25"]),
        ([("adjusted", -5, 0.5), ("received", 4, 2.5)], 4, []),
        ([("received", 9, 2.5), ("shipped", 9, 2.6), ("received", 3, 0.5), ("shipped", 3, 3.5)], 5, ["11-23", "11-24"]),
    ],
)
def test_a_day_is_in_stock_where_something_was_available_in_it(
    records: list[tuple[str, int, float]], until: float, days: list[str]
) -> None:
    """At its beginning or after any change in it; what is told late changes today's stock, not days gone by."""
    assert days_after(*records, until=until) == days


def test_days_without_stock_and_without_sales_are_not_observed() -> None:
    """Two days of 4 in stock, three without: a mean of 4, not of 1.6."""
    tale = Tale(RULES)
    tale.tell("received", 8, at=0)
    for day in (0.5, 1.5):
        tale.tell("shipped", 4, at=day * MINUTES_A_DAY)
    tale.tell("received", 1, at=5 * MINUTES_A_DAY)
    place = explained(tale)
    assert place.in_stock_days == ["2026-11-21", "2026-11-22"]
    assert (place.observed_days, place.observed_units, place.observed_squares) == (2, 8, 32)
    assert (place.demand_per_day, place.demand_sigma, place.days_of_cover) == (4, 0, 0.2)


STOCKED = st.lists(
    st.tuples(st.sampled_from(["received", "shipped", "adjusted", "counted"]), st.integers(1, 6), st.integers(0, 2000)),
    min_size=1,
    max_size=25,
)


def plain_days(records: list[tuple[str, int, int]], today: int) -> tuple[set[int], dict[int, int]]:
    """Days in stock and units sold by day of the tale, from the records (kind, units, hour) in the order of time."""
    levels: list[tuple[int, int]] = []  # day, what was there from then on
    sold: dict[int, int] = {}
    on_hand = 0
    for kind, units, hour in records:
        on_hand = units if kind == "counted" else on_hand + (units if kind == "received" else -units)
        levels.append((hour // 24, on_hand))
        if kind == "shipped":
            sold[hour // 24] = sold.get(hour // 24, 0) + units
    in_stock = {day for day, left in levels if left > 0}
    for (begin, left), (end, _) in zip(levels, [*levels[1:], (today, 0)], strict=True):
        if left > 0:
            in_stock |= set(range(begin, end + 1))
    return {day for day in in_stock if today - 28 <= day < today}, sold


@given(records=STOCKED, later=st.integers(0, 40 * 24), ticks=st.booleans())
def test_demand_and_days_in_stock_are_those_of_a_plain_replay(
    records: list[tuple[str, int, int]], later: int, *, ticks: bool
) -> None:
    """Told in the order of time, each day of the window is what a replay of the records says."""
    told_records = sorted(((kind, units, hour) for kind, units, hour in records), key=lambda record: record[2])
    tale = Tale(RULES, dedupe_hours=24 * 365, as_of_hours=24 * 365)
    for minute, (kind, units, hour) in enumerate(told_records, 1):  # no two at once: a count holds what is not later
        tale.tell(kind, -units if kind == "adjusted" else units, at=hour * 60 + minute)
    last = told_records[-1][2] + later
    if ticks:
        tale.tick(last * 60 + 30)
    tale.tell("reserved", 1, at=last * 60 + 30)
    place = explained(tale)
    in_stock, sold = plain_days(told_records, last // 24)
    begin = parse_ms(time_of(0)) // DAY_MS
    if not sold:
        assert not place.in_stock_days  # nobody asks
        return
    assert {parse_ms(f"{day}T00:00:00Z") // DAY_MS - begin for day in place.in_stock_days} == in_stock
    kept = {day for day in range(last // 24 - 28, last // 24) if day > max(sold) - 29}
    observed = in_stock | {day for day in kept if sold.get(day, 0) > 0}
    units_sold = [sold.get(day, 0) if day in kept else 0 for day in observed]
    assert (place.observed_days, place.observed_units) == (len(observed), sum(units_sold))
    assert place.observed_squares == sum(units * units for units in units_sold)


def test_demand_and_days_in_stock_survive_a_snapshot() -> None:
    """A restored lane explains the same, and goes on the same."""
    tales = [Tale(RULES) for _ in range(2)]
    for number, tale in enumerate(tales):
        tale.tell("received", 50, at=0)
        for day in range(1, 40):
            tale.tell("shipped", day % 5 + 1, at=day * MINUTES_A_DAY)
            if day % 7 == 0:
                tale.tell("returned", 2, at=day * MINUTES_A_DAY + 1)
            if day % 9 == 0:
                tale.tell("received", 12, at=day * MINUTES_A_DAY + 2)
            if number and day % 4 == 0:
                tale.restart()
    assert explained(tales[0]) == explained(tales[1])
    assert explained(tales[0]).demand_days


# Reorder points and quantities


UNITS_BY_DAY = st.lists(st.integers(0, 60), min_size=1, max_size=28)
DAYS_LONG = st.floats(0, 60, allow_nan=False).map(lambda days: round(days, 2))


def demand_of(units: list[int]) -> Demand:
    """The demand of some days."""
    return Demand(len(units), sum(units), sum(count * count for count in units))


@given(units=UNITS_BY_DAY, lead=DAYS_LONG, deviation=DAYS_LONG, level=st.sampled_from([1, 50, 90, 95, 98, 99.9]))
def test_the_reorder_point_is_the_formula(units: list[int], lead: float, deviation: float, level: float) -> None:
    """d·L + z·√(L·σ² + d²·σ_L²), rounded up after six decimals, and never below 0."""
    mean = sum(units) / len(units)
    spread = variance(units) if len(units) > 1 else 0.0
    buffer = NormalDist().inv_cdf(level / 100) * sqrt(lead * spread + mean**2 * deviation**2)
    planning = planning_of(lead, deviation, 1, level, 1, 1)
    assert reorder_point_units(demand_of(units), planning) == pytest.approx(
        max(0, ceil(mean * lead + buffer - 1e-5)), abs=1
    )
    exact = mean * lead + buffer
    if abs(exact - round(exact)) > 1e-4:
        assert reorder_point_units(demand_of(units), planning) == max(0, ceil(exact))
    if abs(buffer - round(buffer)) > 1e-4:
        assert dynamic_safety_units(demand_of(units), planning) == max(0, ceil(buffer))


@pytest.mark.parametrize(
    ("units", "planning", "point", "safety"),
    [
        ([4, 4, 4], planning_of(7, 0, 1, 95, 1, 1), 28, 0),
        ([2, 4, 6], planning_of(4, 0, 1, 97.72498680518208, 1, 1), 24, 8),  # z = 2, σ = 2, √4 = 2
        ([3, 3, 3], planning_of(7, 2, 1, 97.72498680518208, 1, 1), 33, 12),  # z = 2, d·σ_L = 6
        ([5], planning_of(2, 0, 1, 99, 1, 1), 10, 0),
        ([1, 2], planning_of(0, 0, 1, 99, 1, 1), 0, 0),
        ([0, 9], planning_of(1, 0, 1, 1, 1, 1), 0, 0),  # a service level below 50 % asks for less than the mean
        ([], planning_of(7, 2, 1, 95, 1, 1), 0, 0),
        ([7, 7, 7, 7], planning_of(3, 0, 1, 95, 1, 1), 21, 0),
    ],
)
def test_reorder_points_of_a_table(units: list[int], planning: Planning, point: int, safety: int) -> None:
    """Some that a planner would work out on paper."""
    assert reorder_point_units(demand_of(units), planning) == point
    assert dynamic_safety_units(demand_of(units), planning) == safety


@pytest.mark.parametrize(
    ("position", "review", "pack", "minimum", "quantity"),
    [
        (28, 1, 1, 1, 4),
        (20, 1, 1, 1, 12),
        (-5, 1, 1, 1, 37),
        (28, 0, 1, 1, 1),
        (28, 0.5, 1, 0, 2),
        (20, 1, 5, 1, 15),
        (20, 1, 12, 1, 12),
        (20, 1, 12, 13, 24),
        (20, 1, 1, 50, 50),
        (200, 1, 6, 1, 6),
        (200, 1, 1, 0, 1),
    ],
)
def test_an_order_lifts_to_the_target_in_whole_packs_and_at_least_the_minimum(
    position: int, review: float, pack: int, minimum: int, quantity: int
) -> None:
    """4 a day and 7 days of lead time: from the position to 28 and the review days."""
    planning = planning_of(7, 0, review, 95, pack, minimum)
    assert order_units(demand_of([4, 4, 4]), planning, position) == quantity


@given(
    units=UNITS_BY_DAY,
    position=st.integers(-1000, 3000),
    review=DAYS_LONG,
    pack=st.integers(1, 100),
    minimum=st.integers(0, 500),
)
def test_an_order_is_the_least_that_is_enough(
    units: list[int], position: int, review: float, pack: int, minimum: int
) -> None:
    """Whole packs; one pack less would miss the target or the minimum, or be nothing."""
    planning = planning_of(7, 2, review, 95, pack, minimum)
    demand = demand_of(units)
    quantity = order_units(demand, planning, position)
    target = reorder_point_units(demand, planning) + demand.per_day * review
    assert quantity % pack == 0
    assert quantity >= max(minimum, 1)
    assert position + quantity >= target - 1e-5
    less = quantity - pack
    assert less < max(minimum, 1) or position + less < target


# Cover


@pytest.mark.parametrize(
    ("available", "units", "days"),
    [(10, [4, 4, 4], 2.5), (10, [3, 3, 3], 3.3), (2, [3], 0.6), (0, [3], 0.0), (-5, [3], 0.0), (10, [0, 0], None),
     (10, [], None), (1, [1000], 0.0), (29, [10], 2.9), (10**12, [1], 1e12)],
)  # fmt: skip
def test_days_of_cover_are_rounded_down_to_tenths(available: int, units: list[int], days: float | None) -> None:
    """No day is promised that is not covered; None where nothing sells."""
    assert days_of_cover(demand_of(units), available) == days


def test_nothing_is_known_of_what_never_sold() -> None:
    """No days: no mean, no deviation, no cover, no reorder point."""
    assert (NO_DEMAND.per_day, NO_DEMAND.variance) == (0, 0)
    assert days_of_cover(NO_DEMAND, 5) is None
    assert reorder_point_units(NO_DEMAND, PLANNING) == 0


MONDAY = 20_003  # 2024-10-07
WEEK = [10.0, 20.0, 0.0, 5.0, None, 0.0, 0.0]


def test_weekdays_have_means_of_their_own() -> None:
    """Monday first; a day that sold nothing counts, one that was not observed does not, a negative one is 0."""
    observed = [MONDAY, MONDAY + 7, MONDAY + 1, MONDAY + 8, MONDAY + 6]
    sold = {MONDAY: 4, MONDAY + 7: 8, MONDAY + 1: 3, MONDAY + 6: -2, MONDAY + 2: 50}
    assert by_weekday(sold, observed) == [6.0, 1.5, None, None, None, None, 0.0]


@pytest.mark.parametrize(
    ("available", "begin_day", "days"),
    [
        (5, 0, 0.5),
        (10, 0, 1.0),
        (20, 0, 1.5),
        (30, 0, 2.0),
        (31, 0, 3.2),  # nothing is sold on Wednesday
        (5, 0.75, 0.375),  # 2.5 on Monday's last quarter, 2.5 of 20 on Tuesday
        (35, 0, 4.0),
        (38, 0, 4.5),  # Friday was never seen: 6 a day
        (41, 0, 5.0),
        (42, 0, 7.1),
        (0, 0, 0.0),
        (-7, 0, 0.0),
    ],
)
def test_stock_runs_out_as_its_weekdays_sell(available: int, begin_day: float, days: float) -> None:
    """Units go evenly through a day, and each day at its own rate."""
    begin_ms = MONDAY * DAY_MS + round(begin_day * DAY_MS)
    assert runs_out_ms(available, begin_ms, WEEK, per_day=6.0) == begin_ms + round(days * DAY_MS)


@pytest.mark.parametrize(
    ("available", "per_day", "weekdays"),
    [(5, 0.0, [None] * 7), (10_000, 1.0, [None] * 7), (1, 1.0, [0.0] * 7)],
)
def test_stock_that_lasts_a_year_has_no_end(available: int, per_day: float, weekdays: list[float | None]) -> None:
    """None where nothing sells, or for more than a year."""
    assert runs_out_ms(available, MONDAY * DAY_MS, weekdays, per_day) is None
