"""Levels of single positions, where the rules give them a threshold."""

from schemas.rules import ChannelRules, LocationRules, Rule, Rules
from tests.tales import Tale

RULES = Rules(
    locations={
        "east": LocationRules(),
        "west": LocationRules(low_stock_at=2),
        "maker": LocationRules(kind="supplier"),
    },
    channels={"web": ChannelRules()},
    rules=(Rule(sku="A", location="east", low_stock_at=5), Rule(sku="B", location="west", low_stock_at=50)),
)


def crossings(location: str, *units: int) -> list[tuple[str, int, int]]:
    """Level, available units and threshold of a position's crossings while it is received at and shipped from."""
    tale = Tale(RULES)
    for change in units:
        tale.tell("adjusted", change, location=location)
    told = [crossing for crossing in tale.crossings if crossing.location == location]
    return [(crossing.to, crossing.sellable, crossing.threshold) for crossing in told]


def test_a_rule_for_the_sku_gives_its_position_a_level() -> None:
    """In stock from six on, low at five, with the numbers behind each crossing."""
    assert crossings("east", 6, -1, -5) == [("in_stock", 6, 6), ("low_stock", 5, 5), ("out_of_stock", 0, 0)]


def test_a_location_gives_all_its_positions_a_level() -> None:
    """Where no rule says otherwise for the SKU."""
    assert crossings("west", 3, -1) == [("in_stock", 3, 3), ("low_stock", 2, 2)]


def test_suppliers_have_a_level_of_their_own() -> None:
    """Nine or fewer at a supplier is low, unless the rules say otherwise."""
    assert crossings("maker", 10, -1) == [("in_stock", 10, 10), ("low_stock", 9, 9)]


def test_a_position_without_a_threshold_has_no_level() -> None:
    """No rule, no crossing."""
    assert crossings("elsewhere", 10, -10) == []


def test_a_crossing_of_a_position_names_the_movement_and_has_an_id_of_its_own() -> None:
    """It stands beside the channel's crossing of the same movement."""
    tale = Tale(RULES)
    tale.tell("received", 3, location="west", id="m-1")
    web, west = tale.crossings
    assert (web.id, west.id) == ("A:channel=web:0", "A:location=west:0")
    assert (west.channel, west.cause.id, west.initial) == (None, "m-1", True)
