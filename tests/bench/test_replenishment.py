"""Buying for real sales: a story that is counted by hand, and a few SKUs of the data."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from bench.drain import BenchError
from bench.replenishment import (
    Fixed,
    Proposals,
    ReplenishmentConfig,
    opening_stock,
    replenishment,
    rules_of,
    sales_of,
    simulate,
    story_of,
)
from bench.retail import Line

REPOSITORY = Path(__file__).parents[2]
ALL_LINES = REPOSITORY.parent / "shared" / "data" / "online_retail_2010-12_to_2011-07.csv.gz"
ONE_MONTH = REPOSITORY / "examples" / "movements" / "online_retail_2010-12.csv.gz"
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
BEGIN_MS = 14_944 * DAY_MS  # 2010-12-01
CONFIG = ReplenishmentConfig(lead_time_days=2, review_days=1, first_days=3, first_units_min=10)


def line(day: int, quantity: int, *, invoice: str = "1", sku: str = "22632", hour: int = 9) -> Line:
    """One line of a day of the story."""
    return Line(invoice, 1, sku, quantity, BEGIN_MS + day * DAY_MS + hour * HOUR_MS, "EIRE")


def sold_by_day(*units: int) -> list[Line]:
    """One line a day."""
    return [line(day, quantity) for day, quantity in enumerate(units)]


class Asked:
    """A policy that orders what it is told to, and keeps what it heard."""

    def __init__(self, orders: Sequence[int]) -> None:
        self._orders = list(orders)
        self.heard: list[tuple[int, int, bool]] = []

    def close(self, day: int, came: dict[str, int], sold: dict[str, int], *, is_ordering: bool) -> dict[str, int]:
        """Orders the next of its orders."""
        self.heard.append((came.get("22632", 0), sold.get("22632", 0), is_ordering))
        return {"22632": units} if (units := self._orders[day]) else {}


def test_a_day_sells_what_is_there_and_loses_the_rest() -> None:
    """17 units, 4 wanted a day; 6 ordered at the end of the third day are there two whole days later."""
    story = story_of(sold_by_day(4, 4, 4, 4, 4, 4, 1), CONFIG)
    asked = Asked([0, 0, 6, 0, 0, 0, 0])
    figures = simulate(story, CONFIG, {"22632": 17}, asked)
    assert asked.heard == [
        (0, 4, False), (0, 4, False), (0, 4, True), (0, 4, True), (0, 1, True), (6, 4, True), (0, 1, True),
    ]  # fmt: skip
    assert (figures.units_demanded, figures.units_sold, figures.orders, figures.units_ordered) == (13, 10, 1, 6)
    assert figures.stock_units_days == 1 + 0 + 2 + 1
    assert figures.days == 4
    assert figures.stock == {"22632": 1}


def test_the_fixed_policy_keeps_the_reorder_point_of_the_first_days() -> None:
    """4 a day without deviation: point 8, target 12; each day from 12 on it buys what was sold, whatever it is."""
    story = story_of(sold_by_day(4, 4, 4, 4, 9, 1, 0, 0, 0), CONFIG)
    rules = rules_of(CONFIG, 95)
    opening = opening_stock(story, rules)
    assert opening == {"22632": 12 + 12}
    policy = Fixed(story, rules, opening)
    sold = [4, 4, 4, 4, 9, 1, 0, 0, 0]
    orders = [
        policy.close(day, {}, {"22632": units} if units else {}, is_ordering=day >= 2).get("22632", 0)
        for day, units in enumerate(sold)
    ]
    assert orders == [0, 0, 0, 4, 9, 0, 0, 0, 0]


def test_the_proposals_follow_a_demand_that_rises() -> None:
    """After weeks of 4 a day 12 are sold each day: the lane's point rises with the mean, the fixed one stays at 8."""
    config = ReplenishmentConfig(lead_time_days=2, review_days=1, first_days=28, first_units_min=10)
    story = story_of(sold_by_day(*[4] * 28, *[12] * 60), config)
    rules = rules_of(config, 95)
    opening = opening_stock(story, rules)
    fixed = simulate(story, config, opening, Fixed(story, rules, opening))
    proposals = Proposals(story, rules, opening)
    proposed = simulate(story, config, opening, proposals)
    proposals.check(proposed.stock)
    assert fixed.units_demanded == proposed.units_demanded == 720
    assert fixed.units_sold < 300
    assert proposed.units_sold > 550


def test_the_first_proposal_is_the_reorder_point_over_the_days_before() -> None:
    """4 a day: at 8 units 4 are bought, whether the lane or the fixed policy says so."""
    story = story_of(sold_by_day(4, 4, 4, 4, 4, 4, 4, 4), CONFIG)
    rules = rules_of(CONFIG, 95)
    opening = opening_stock(story, rules)
    results = [
        simulate(story, CONFIG, opening, policy)
        for policy in (Fixed(story, rules, opening), Proposals(story, rules, opening))
    ]
    assert results[0] == results[1]
    assert results[0].orders == 5


def test_a_lane_that_counted_otherwise_is_noticed() -> None:
    """The lane's stock is compared with the simulation's at the end."""
    story = story_of(sold_by_day(4, 4, 4, 4), CONFIG)
    rules = rules_of(CONFIG, 95)
    opening = opening_stock(story, rules)
    proposals = Proposals(story, rules, opening)
    simulate(story, CONFIG, opening, proposals)
    with pytest.raises(BenchError, match="stock of 1 SKUs is wrong"):
        proposals.check({"22632": 1})


def test_a_sale_that_is_cancelled_on_its_day_is_left_out_and_no_other() -> None:
    """The same quantity, later on the same day, once for each cancellation."""
    goods = [
        line(0, 7), line(0, 5), line(0, 5), line(0, -5, invoice="C2", hour=10), line(0, -3),
        line(1, -7, invoice="C3"), line(1, 7, hour=10), line(1, 0),
    ]  # fmt: skip
    sales, left_out = sales_of(goods)
    assert [sale.quantity for sale in sales] == [7, 5, 7]
    assert left_out == 1


def test_only_skus_that_sold_enough_take_part() -> None:
    """The first days decide, and what is no goods never counts."""
    goods = [line(0, 10), line(0, 9, sku="21777"), line(1, 50, sku="POST"), line(5, 99, sku="21777")]
    assert list(story_of(goods, CONFIG).first) == ["22632"]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([], "no sales lines"),
        (sold_by_day(10, 10, 10), "cover 3 days, there must be more than the first 3"),
        (sold_by_day(1, 1, 1, 1), "no SKU sold 10 units in the first 3 days"),
    ],
)
def test_too_few_lines_are_told(lines: list[Line], complaint: str) -> None:
    """There is no figure without months to compare."""
    with pytest.raises(BenchError, match=complaint):
        story_of(lines, CONFIG)


def test_lines_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    """A path without a file is no traceback."""
    with pytest.raises(BenchError, match="cannot read sales lines"):
        list(replenishment(tmp_path / "absent.csv", CONFIG))


def test_a_few_real_skus_give_the_same_figures_twice() -> None:
    """Both policies, at every target, over the same demand; more service takes more stock."""
    config = ReplenishmentConfig(lead_time_days=3, review_days=3, first_days=14, skus_max=5)
    path = ALL_LINES if ALL_LINES.exists() else ONE_MONTH
    first, second = (
        [msgspec.structs.replace(run, started_at="") for run in replenishment(path, config, (90.0, 98.0))]
        for _ in range(2)
    )
    assert first == second
    assert [(run.policy, run.service_level_percent) for run in first] == [
        ("fixed", 90), ("onhand", 90), ("fixed", 98), ("onhand", 98),
    ]  # fmt: skip
    assert len({run.units_demanded for run in first}) == 1
    assert all(run.skus == 5 and run.orders > 0 and run.units_demanded > 0 for run in first)
    assert all(0 < run.fill_rate_percent <= 100 and run.stock_units_mean > 0 for run in first)
    by_policy = {(run.policy, run.service_level_percent): run.stock_units_mean for run in first}
    assert by_policy["fixed", 98] > by_policy["fixed", 90]
    assert by_policy["onhand", 98] > by_policy["onhand", 90]
