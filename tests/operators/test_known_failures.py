"""Failures that stock systems are known for, each named after what goes wrong there, and what happens here instead."""

import pytest

from schemas.rules import ChannelRules, LocationRules, Rules, SourceRules
from tests.tales import Tale

RULES = Rules(
    locations={"east": LocationRules(), "west": LocationRules()},
    channels={"web": ChannelRules(low_stock_at=3), "shop": ChannelRules(low_stock_at=3)},
)


def test_a_snapshot_clobbers_orders_placed_since() -> None:
    """A count of 10 made before 4 were sold says 10 then, so 6 now: what moved after it stays moved."""
    tale = Tale(RULES)
    tale.tell("received", 12, at=0)
    tale.tell("shipped", 4, at=30)
    tale.tell("counted", 10, at=20)
    assert tale.position().on_hand == 6


def test_a_movement_inside_a_count_is_not_counted_twice() -> None:
    """What was shipped before the count, and is told after it, is in the count already."""
    tale = Tale(RULES)
    tale.tell("received", 12, at=0)
    tale.tell("counted", 8, at=20)
    tale.tell("shipped", 4, at=10, from_="on_hand")
    assert tale.position().on_hand == 8


def test_double_compensation() -> None:
    """An order that is released twice, and expires on top, gives its units back once."""
    tale = Tale(RULES)
    tale.tell("received", 5)
    tale.tell("requested", 5, channel="web", id="R-1", order="SO-1", expires="2026-11-21T01:00:00Z")
    tale.tell("released", 5, request="R-1")
    tale.tell("released", 5, request="R-1")
    tale.tell("released", 5, order="SO-1")
    tale.tick(90)
    assert (tale.position().reserved, tale.sellable()) == (0, 5)
    assert tale.outcomes == ["confirmed"]


def test_a_reservation_leaks() -> None:
    """A basket that nobody pays for is free again at the first tick past its time, exactly once."""
    tale = Tale(RULES)
    tale.tell("received", 5)
    tale.tell("requested", 2, channel="web", expires="2026-11-21T00:10:00Z")
    assert tale.sellable() == 3
    tale.tick(10)
    assert tale.sellable() == 3
    tale.tick(10.1)
    tale.tick(11)
    assert (tale.sellable(), tale.outcomes) == (5, ["confirmed", "expired"])


def test_own_hold_blocks_the_shopper() -> None:
    """The last unit is in the shopper's own basket: nothing is left to sell, yet the basket can be bought."""
    tale = Tale(RULES)
    tale.tell("received", 1)
    tale.tell("requested", 1, channel="web", id="basket")
    assert tale.sellable() == 0
    tale.tell("allocated", 1, request="basket", from_="reserved")
    tale.tell("shipped", 1, request="basket", from_="allocated")
    position = tale.position()
    assert (position.on_hand, position.reserved, position.allocated) == (0, 0, 0)


def test_a_statement_of_salable_stock_has_reservations_subtracted_twice() -> None:
    """A shop that says 7 of 10 are salable while 3 are reserved agrees; the reservations are not taken off again."""
    rules = Rules(channels={"web": ChannelRules()}, sources={
        "wms": SourceRules(), "shop": SourceRules(corrects=True),
    })  # fmt: skip
    tale = Tale(rules)
    tale.tell("received", 10)
    tale.tell("reserved", 3)
    tale.tick(5)
    tale.tell("stated", 7, of="available", source="shop", at=4)
    assert (tale.events, tale.sellable()) == ([], 7)
    tale.tell("stated", 6, of="available", source="shop", at=4)
    assert (tale.position().on_hand, tale.position().reserved, tale.sellable()) == (9, 3, 6)
    tale.tell("stated", 9, of="available", basis="on_shelf", source="shop", at=4)
    assert tale.sellable() == 6


def test_a_threshold_missed_when_availability_moves_by_allocation() -> None:
    """Nothing leaves the shelf, and still the level falls."""
    tale = Tale(RULES)
    tale.tell("received", 10)
    tale.tell("allocated", 8)
    assert [(crossing.channel, crossing.to) for crossing in tale.crossings[-2:]] == [
        ("web", "low_stock"), ("shop", "low_stock"),
    ]  # fmt: skip


def test_one_location_feeding_two_pools_oversells() -> None:
    """Two channels see the same unit; the first that asks gets it, the other is told that nothing is left."""
    tale = Tale(RULES)
    tale.tell("received", 1)
    assert tale.sellable("web") == tale.sellable("shop") == 1
    tale.tell("requested", 1, channel="web")
    tale.tell("requested", 1, channel="shop")
    assert tale.outcomes == ["confirmed", "refused"]
    assert tale.answer.possible == 0


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1)])
def test_backdated_entries(order: tuple[int, ...]) -> None:
    """Two counts and what moved between and after them end the same in whatever order they are told."""
    entries = [("counted", 20, 10), ("shipped", 3, 15), ("counted", 16, 20), ("shipped", 5, 25)]
    tale = Tale(RULES)
    for index in order:
        kind, quantity, minute = entries[index]
        tale.tell(kind, quantity, at=minute, id=f"entry-{index}")
    assert tale.position().on_hand == 11


def test_events_out_of_order() -> None:
    """Shipped before received, and released before reserved: the sums are what they are in the end."""
    tale = Tale(RULES)
    tale.tell("shipped", 3, at=10)
    tale.tell("released", 2, at=11)
    assert tale.sellable() == 0
    tale.tell("received", 10, at=5)
    tale.tell("reserved", 2, at=6)
    assert (tale.position().on_hand, tale.position().reserved, tale.sellable()) == (7, 0, 7)


def test_an_order_edited_after_its_allocation() -> None:
    """Five were allocated, the customer wants three: two go back to the shelf, three ship, nothing is left over."""
    tale = Tale(RULES)
    tale.tell("received", 10)
    tale.tell("requested", 5, channel="web", id="R-1")
    tale.tell("allocated", 5, request="R-1", from_="reserved")
    tale.tell("deallocated", 2, to="on_hand", order="SO-1")
    tale.tell("shipped", 3, request="R-1", from_="allocated")
    position = tale.position()
    assert (position.on_hand, position.reserved, position.allocated) == (7, 0, 0)


def test_a_hold_that_expires_and_is_then_released() -> None:
    """The release comes after the units were given back: it finds nothing open and takes nothing."""
    tale = Tale(RULES)
    tale.tell("received", 5)
    tale.tell("requested", 3, channel="web", id="R-1", expires="2026-11-21T00:10:00Z")
    tale.tick(11)
    tale.tell("released", 3, request="R-1")
    assert (tale.position().reserved, tale.sellable()) == (0, 5)


def test_a_hold_that_expires_and_is_then_shipped() -> None:
    """The goods left all the same: on_hand falls, and nobody else's reservation is touched."""
    tale = Tale(RULES)
    tale.tell("received", 5)
    tale.tell("requested", 3, channel="web", id="R-1", expires="2026-11-21T00:10:00Z")
    tale.tell("requested", 1, channel="shop", id="R-2")
    tale.tick(11)
    tale.tell("shipped", 3, request="R-1", from_="reserved")
    assert (tale.position().on_hand, tale.position().reserved, tale.sellable()) == (2, 1, 1)


def test_a_negative_reserved_that_makes_stock_appear() -> None:
    """A release of what was never reserved makes nothing sellable, and a count of the reservations repairs it."""
    tale = Tale(RULES)
    tale.tell("received", 5)
    tale.tell("released", 4)
    assert (tale.position().reserved, tale.sellable()) == (-4, 5)
    tale.tell("counted", 1, of="reserved")
    assert (tale.position().reserved, tale.sellable()) == (1, 4)


def test_a_request_for_8_at_a_location_with_5() -> None:
    """What lies elsewhere does not help a request that names its location."""
    tale = Tale(RULES)
    tale.tell("received", 5)
    tale.tell("received", 20, location="west")
    tale.tell("requested", 8, channel="web", location="east")
    assert (tale.answer.outcome, tale.answer.possible) == ("refused", 5)
    tale.tell("requested", 8, channel="web", location="east", partial=True)
    assert (tale.answer.outcome, tale.answer.parts) == ("confirmed", [("east", 5)])
    tale.tell("requested", 8, channel="web")
    assert tale.answer.parts == [("west", 8)]
