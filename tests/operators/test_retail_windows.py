"""Demand, cover and reorder points over a wholesaler's real sales lines, beside plain sums over the same lines."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from math import ceil, sqrt
from pathlib import Path
from statistics import NormalDist, mean, stdev
from typing import Any, NamedTuple

import pytest

from bench.retail import movements, read_lines
from operators.lane import Lane, LaneSettings
from operators.rules import RuleBook
from schemas.batches import Batch, Origin
from schemas.outputs import Explanation
from schemas.rules import ChannelRules, ReplenishmentRules, Rules
from schemas.times import parse_ms

REPOSITORY = Path(__file__).parents[2]
ALL_LINES = REPOSITORY.parent / "shared" / "data" / "online_retail_2010-12_to_2011-07.csv.gz"
ONE_MONTH = REPOSITORY / "examples" / "movements" / "online_retail_2010-12.csv.gz"
LOG = Origin("cluster", "topic-id", 0, "retail")
BATCH = 5000
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
LEAD, LEAD_SIGMA, SERVICE = 7, 2, 98
RULES = Rules(
    channels={"web": ChannelRules()},
    replenishment=ReplenishmentRules(
        lead_time_days=LEAD, lead_time_sigma_days=LEAD_SIGMA, service_level_percent=SERVICE
    ),
)

pytestmark = pytest.mark.timeout(300)


class Told(NamedTuple):
    """The movements of the data as plain objects, and what a lane explains after all of them."""

    bodies: list[dict[str, Any]]
    explanations: dict[str, Explanation]


@pytest.fixture(scope="module")
def told() -> Told:
    """All lines where the data is there, else the month that is shipped."""
    messages = list(movements(read_lines(ALL_LINES if ALL_LINES.exists() else ONE_MONTH)))
    lane = Lane(0, RuleBook(RULES), LaneSettings(1, incarnation=1, dedupe_ms=72 * HOUR_MS))
    for start in range(0, len(messages), BATCH):
        part = messages[start : start + BATCH]
        offsets = list(range(start, start + len(part)))
        keys: list[bytes | None] = [key or None for key, _ in part]
        lane.apply([Batch(LOG, offsets, [-1] * len(part), keys, [payload for _, payload in part])])
    found = lane.explain(list(lane.unexplained)).explanations
    bodies = [body for _, payload in messages if (body := json.loads(payload)).get("location")]
    return Told([body for body in bodies if body["quantity"]], {explanation.sku: explanation for explanation in found})


def grouped(told: Told, kind: str, unit_ms: int) -> dict[tuple[str, str], Counter[int]]:
    """Units of a kind by position and hour or day."""
    units: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
    for body in told.bodies:
        if body["kind"] == kind:
            units[body["sku"], body["location"]][parse_ms(body["time"]) // unit_ms] += body["quantity"]
    return units


def latest(units: Counter[int], width: int) -> dict[int, int]:
    """Those of the latest `width` hours or days."""
    return {at: count for at, count in units.items() if at > max(units) - width}


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


def days_in_stock(told: Told, sku: str, location: str, until: int) -> Iterator[int]:
    """The days before `until` on which something was there at some time, from the movements themselves."""
    on_hand, known_until = 0, 0
    signs = {"received": 1, "returned": 1, "adjusted": 1, "shipped": -1}
    for body in told.bodies:
        if (body["sku"], body["location"]) != (sku, location):
            continue
        day = parse_ms(body["time"]) // DAY_MS
        if on_hand > 0:
            yield from range(known_until, min(day, until - 1) + 1)
        on_hand += signs[body["kind"]] * body["quantity"]
        known_until = day
        if on_hand > 0 and day < until:
            yield day
    if on_hand > 0:
        yield from range(known_until, until)


def test_cover_and_reorder_points_of_ten_skus_are_those_of_plain_formulas(told: Told) -> None:
    """Mean, deviation, quantile and roots, from the lines of the ten that sell the most."""
    by_day = grouped(told, "shipped", DAY_MS)
    totals = {position: sum(units.values()) for position, units in by_day.items()}
    checked = 0
    for sku, location in sorted(totals, key=lambda position: -totals[position])[:10]:
        explanation = told.explanations[sku]
        place = explanation.locations[location]
        today = parse_ms(explanation.as_of) // DAY_MS
        window = range(today - 28, today)
        sold = by_day[sku, location]
        days = {day for day in days_in_stock(told, sku, location, today) if day in window}
        days |= {day for day in window if sold[day] > 0}
        units = [sold[day] for day in sorted(days)]
        d, sigma = mean(units), stdev(units)
        z = NormalDist().inv_cdf(SERVICE / 100)
        reorder_point = ceil(round(d * LEAD + z * sqrt(LEAD * sigma**2 + d**2 * LEAD_SIGMA**2), 6))
        assert place.observed_days == len(units)
        assert place.demand_per_day == pytest.approx(d, abs=0.001)
        assert place.demand_sigma == pytest.approx(sigma, abs=0.001)
        assert place.reorder_point == reorder_point
        assert place.days_of_cover == pytest.approx(max(0, place.available) / d, abs=0.1)
        checked += 1
    assert checked == 10
