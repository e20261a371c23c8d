"""Demand, cover and reorder points over a wholesaler's real sales lines, beside plain sums over the same lines."""

from collections import Counter, defaultdict
from fractions import Fraction
from math import ceil, floor, sqrt
from pathlib import Path
from statistics import NormalDist, mean, stdev
from typing import NamedTuple

import msgspec
import pytest

from bench.retail import movements, read_lines
from operators.lane import Lane, LaneSettings
from operators.rules import RuleBook
from schemas.batches import Batch, Origin
from schemas.outputs import Explanation
from schemas.rules import ChannelRules, Rule, Rules
from schemas.times import parse_ms

REPOSITORY = Path(__file__).parents[2]
ALL_LINES = REPOSITORY.parent / "shared" / "data" / "online_retail_2010-12_to_2011-07.csv.gz"
ONE_MONTH = REPOSITORY / "examples" / "movements" / "online_retail_2010-12.csv.gz"
LOG = Origin("cluster", "topic-id", 0, "retail")
BATCH = 5000
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
LEAD, LEAD_SIGMA, SERVICE = 7, 2, 98
PLANNED = 10  # SKUs that sell the most; planning all of them takes too long for a test

pytestmark = pytest.mark.timeout(300)


class Moved(NamedTuple):
    """One movement of the data."""

    kind: str
    sku: str
    location: str
    quantity: int
    time_ms: int


class Told(NamedTuple):
    """The movements of the data, those SKUs that are planned, and what a lane explains after all of them."""

    moved: list[Moved]
    planned: list[str]
    explanations: dict[str, Explanation]


def rules_for(planned: list[str]) -> Rules:
    """Purchases of `planned` are proposed."""
    rules = (
        Rule(sku=sku, lead_time_days=LEAD, lead_time_sigma_days=LEAD_SIGMA, service_level_percent=SERVICE)
        for sku in planned
    )
    return Rules(channels={"web": ChannelRules()}, rules=tuple(rules))


@pytest.fixture(scope="module")
def told() -> Told:
    """All lines where the data is there, else the month that is shipped, with a tick in every hour."""
    messages = list(movements(read_lines(ALL_LINES if ALL_LINES.exists() else ONE_MONTH)))
    bodies = [msgspec.json.decode(payload) for key, payload in messages if key]
    moved = [
        Moved(body["kind"], body["sku"], body["location"], body["quantity"], parse_ms(body["time"]))
        for body in bodies
        if "location" in body and body["quantity"]
    ]
    sold: Counter[str] = Counter()
    for movement in moved:
        sold[movement.sku] += movement.quantity if movement.kind == "shipped" else 0
    planned = [sku for sku, _ in sold.most_common(PLANNED)]
    lane = Lane(0, RuleBook(rules_for(planned)), LaneSettings(1, incarnation=1, dedupe_ms=72 * HOUR_MS))
    for start in range(0, len(messages), BATCH):
        part = messages[start : start + BATCH]
        offsets = list(range(start, start + len(part)))
        keys: list[bytes | None] = [key or None for key, _ in part]
        lane.apply([Batch(LOG, offsets, [-1] * len(part), keys, [payload for _, payload in part])])
    found = lane.explain(list(lane.unexplained)).explanations
    return Told(moved, planned, {explanation.sku: explanation for explanation in found})


def grouped(told: Told, kind: str, unit_ms: int) -> dict[tuple[str, str], Counter[int]]:
    """Units of a kind by position and hour or day."""
    units: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
    for movement in told.moved:
        if movement.kind == kind:
            units[movement.sku, movement.location][movement.time_ms // unit_ms] += movement.quantity
    return units


def latest(units: Counter[int], width: int) -> dict[int, int]:
    """Those of the latest `width` hours or days."""
    first = max(units) - width + 1
    return {at: count for at, count in units.items() if at >= first}


@pytest.mark.parametrize(
    ("kind", "field", "unit_ms", "width", "letters"),
    [
        ("shipped", "demand_days", DAY_MS, 29, 10),
        ("shipped", "demand_hours", HOUR_MS, 24, 13),
        ("returned", "return_days", DAY_MS, 29, 10),
        ("returned", "return_hours", HOUR_MS, 24, 13),
    ],
)
def test_the_windows_of_every_position_are_those_of_a_group_by(
    told: Told, kind: str, field: str, unit_ms: int, width: int, letters: int
) -> None:
    """The latest 29 days and 24 hours that had any, and nothing else."""
    expected = {position: latest(units, width) for position, units in grouped(told, kind, unit_ms).items()}
    found = {
        (sku, location): {
            parse_ms(f"{at}T00:00:00Z"[:20] if letters == 10 else f"{at}:00:00Z") // unit_ms: units
            for at, units in getattr(place, field).items()
        }
        for sku, explanation in told.explanations.items()
        for location, place in explanation.locations.items()
        if getattr(place, field)
    }
    assert found == expected
    assert len(found) > 100


def days_in_stock(told: Told, sku: str, location: str, until: int) -> set[int]:
    """The days before `until` on which something was there at some time, from the movements themselves."""
    signs = {"received": 1, "returned": 1, "adjusted": 1, "shipped": -1}
    on_hand, known_until = 0, 0
    days: set[int] = set()
    for movement in told.moved:
        if (movement.sku, movement.location) != (sku, location):
            continue
        day = movement.time_ms // DAY_MS
        if on_hand > 0:
            days.update(range(known_until, day + 1))
        on_hand += signs[movement.kind] * movement.quantity
        known_until = day
        if on_hand > 0:
            days.add(day)
    if on_hand > 0:
        days.update(range(known_until, until))
    return {day for day in days if day < until}


def test_cover_and_reorder_points_of_ten_skus_are_those_of_plain_formulas(told: Told) -> None:
    """Mean, deviation, quantile and roots, from the lines of the ten that sell the most, at both locations."""
    by_day = grouped(told, "shipped", DAY_MS)
    quantile = NormalDist().inv_cdf(SERVICE / 100)
    checked = partly_out = 0
    for sku in told.planned:
        explanation = told.explanations[sku]
        today = parse_ms(explanation.as_of) // DAY_MS
        for location, place in explanation.locations.items():
            sold = by_day[sku, location]
            window = {day for day in range(today - 28, today) if day > max(sold) - 29}
            days = {day for day in days_in_stock(told, sku, location, today) if day >= today - 28}
            days |= {day for day in window if sold[day] > 0}
            units = [sold[day] if day in window else 0 for day in sorted(days)]
            if not sum(units):
                continue
            d, sigma = mean(units), stdev(units)
            buffer = quantile * sqrt(LEAD * sigma**2 + d**2 * LEAD_SIGMA**2)
            assert (place.observed_days, place.observed_units) == (len(units), sum(units))
            assert place.demand_per_day == round(d, 3)
            assert place.demand_sigma == pytest.approx(sigma, abs=0.0006)
            assert place.reorder_point == ceil(round(d * LEAD + buffer, 6))
            assert place.dynamic_safety_units == ceil(round(buffer, 6))
            assert place.days_of_cover == floor(Fraction(max(0, place.available) * len(units) * 10, sum(units))) / 10
            checked += 1
            partly_out += len(units) < 28
    assert checked >= PLANNED
    assert partly_out
