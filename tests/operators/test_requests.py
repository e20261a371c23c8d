"""Requests: who gets what, what later facts draw on, and what is owed."""

from typing import Any

import pytest

from operators.requests import Requests
from schemas.movements import Requested
from schemas.rules import ChannelRules, LocationRules, Rule, Rules
from tests.tales import ELSEWHERE, Tale

RULES = Rules(
    locations={"east": LocationRules(safety_units=1), "west": LocationRules(), "maker": LocationRules(kind="supplier")},
    channels={
        "web": ChannelRules(locations=("west", "east"), backorder_units=3),
        "shop": ChannelRules(share_percent=50, cap_units=4),
        "closed": ChannelRules(sell=False),
    },
    rules=(Rule(sku="B", channel="web", sell=False),),
)


def stocked() -> Tale:
    """Six in the east, of which one stays there, and four in the west."""
    tale = Tale(RULES)
    tale.tell("received", 6)
    tale.tell("received", 4, location="west")
    tale.tell("received", 9, location="maker")
    return tale


def test_units_come_from_the_channels_locations_in_its_order() -> None:
    """The west first, and the safety stock of the east stays there."""
    tale = stocked()
    tale.tell("requested", 7, channel="web")
    assert (tale.answer.outcome, tale.answer.parts, tale.answer.possible) == (
        "confirmed",
        [("west", 4), ("east", 3)],
        7,
    )
    assert tale.position("west").reserved == 4
    assert tale.sellable() == 2


def test_what_is_not_there_is_owed_up_to_the_limit() -> None:
    """Backorders belong to the SKU and channel and to no location; the room for them shrinks."""
    tale = stocked()
    tale.tell("requested", 11, channel="web", id="R-1")
    assert (tale.answer.parts, tale.answer.backordered) == ([("west", 4), ("east", 5)], 2)
    assert (tale.sellable(), tale.promised()) == (0, 1)
    tale.tell("requested", 2, channel="web")
    assert (tale.answer.outcome, tale.answer.possible) == ("refused", 1)
    tale.tell("released", 2, request="R-1", location="maker")
    assert tale.promised() == 3


def test_a_request_is_bounded_by_share_and_cap() -> None:
    """Half of nine units, and never more than four at a time."""
    tale = stocked()
    tale.tell("requested", 5, channel="shop")
    assert (tale.answer.outcome, tale.answer.possible) == ("refused", 4)
    tale.tell("requested", 5, channel="shop", partial=True)
    assert sum(units for _, units in tale.answer.parts) == 4


@pytest.mark.parametrize(
    "fields", [{"channel": "nobody"}, {"channel": "closed"}, {"channel": "web", "location": "maker"}]
)
def test_a_channel_that_may_not_sell_there_is_refused(fields: dict[str, Any]) -> None:
    """An unknown channel, one that is closed, a location that is not the channel's."""
    tale = stocked()
    tale.tell("requested", 1, partial=True, **fields)
    assert (tale.answer.outcome, tale.answer.possible, tale.answer.parts) == ("refused", 0, [])


def test_the_same_request_gets_the_same_answer_and_another_body_is_a_conflict() -> None:
    """However often it is sent, whatever has happened since."""
    tale = stocked()
    tale.tell("requested", 2, channel="web", id="R-1")
    tale.restart()
    tale.tell("shipped", 2, request="R-1", location="west", from_="reserved")
    tale.tell("requested", 2, channel="web", id="R-1")
    tale.tell("requested", 3, channel="web", id="R-1")
    assert tale.outcomes == ["confirmed", "confirmed", "conflict"]
    assert tale.answers[0] == tale.answers[1]
    assert tale.sellable() == 7


def test_a_request_away_from_home_is_not_decided() -> None:
    """Only the SKU's home partition orders who asked first."""
    tale = stocked()
    tale.tell("requested", 1, channel="web", origin=ELSEWHERE)
    assert (tale.outcomes, tale.sellable()) == (["wrong_partition"], 9)


def test_a_request_that_is_over_before_it_is_read_is_expired() -> None:
    """It gets its one answer, and holds nothing."""
    tale = stocked()
    tale.tick(60)
    tale.tell("requested", 1, channel="web", expires="2026-11-21T00:30:00Z")
    assert (tale.outcomes, tale.sellable()) == (["expired"], 9)


def test_facts_draw_on_what_is_open_and_never_more() -> None:
    """Three were held: shipping five takes five off the shelf, and three off the reservations."""
    tale = stocked()
    tale.tell("requested", 3, channel="web", id="R-1")
    tale.tell("reserved", 1, location="west")
    tale.tell("shipped", 5, request="R-1", location="west", from_="reserved")
    assert (tale.position("west").on_hand, tale.position("west").reserved) == (-1, 1)
    tale.tell("released", 3, request="R-1", location="west")
    assert tale.position("west").reserved == 1


def test_an_allocated_request_does_not_expire() -> None:
    """Work has begun on it; only people end it now."""
    tale = stocked()
    tale.tell("requested", 3, channel="web", id="R-1", expires="2026-11-21T00:30:00Z")
    tale.tell("allocated", 1, request="R-1", location="west", from_="reserved")
    tale.tick(60)
    assert tale.outcomes == ["confirmed"]
    assert (tale.position("west").reserved, tale.position("west").allocated) == (2, 1)


def test_an_extension_moves_or_removes_the_end() -> None:
    """The shopper is still there; then the basket is kept for good."""
    tale = stocked()
    tale.tell("requested", 3, channel="web", id="R-1", expires="2026-11-21T00:30:00Z")
    tale.tell("extended", request="R-1", expires="2026-11-21T01:30:00Z")
    tale.tick(60)
    tale.tell("extended", request="R-1")
    tale.restart()
    tale.tick(120)
    assert tale.outcomes == ["confirmed", "extended", "extended"]
    assert tale.answer.parts == [("west", 3)]
    assert tale.answer.expires is None


def test_an_extension_of_nothing_is_a_dead_letter() -> None:
    """A request that nobody knows, and one that has ended."""
    tale = stocked()
    tale.tell("extended", request="R-9")
    tale.tell("requested", 99, channel="web", id="R-1")
    tale.tell("extended", request="R-1")
    assert tale.refusals == ["unknown_request", "request_ended"]


def test_an_order_is_compensated_by_its_name() -> None:
    """One line of it was refused elsewhere, so all its requests here are let go, the first first."""
    tale = stocked()
    tale.tell("requested", 2, channel="web", order="SO-1")
    tale.tell("requested", 1, channel="web", order="SO-1")
    tale.tell("requested", 1, channel="web", order="SO-2")
    tale.tell("released", 9, order="SO-1", location="west")
    assert tale.position("west").reserved == 1


def test_an_answer_is_given_for_a_sku_nobody_has_heard_of() -> None:
    """There is nothing of it, and there is still one answer."""
    tale = Tale(RULES)
    tale.tell("requested", 1, channel="shop", sku="NEW")
    assert (tale.answer.outcome, tale.answer.possible, tale.record) == ("refused", 0, None)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"quantity": 1}, "missing_field"),
        ({"channel": "web"}, "missing_field"),
        ({"channel": "@x", "quantity": 1}, "bad_name"),
        ({"channel": "web", "quantity": 1, "expires": "soon"}, "bad_time"),
    ],
)
def test_what_cannot_be_a_request_is_refused(fields: dict[str, object], reason: str) -> None:
    """A request without channel, without quantity, with a name or time that is none."""
    tale = stocked()
    tale.tell("requested", **fields)  # type: ignore[arg-type]  # wrong on purpose
    assert (tale.refusals, tale.answers) == ([reason], [])


@pytest.mark.parametrize("kind", ["shipped", "allocated", "released"])
def test_what_arrives_for_a_backorder_ends_it(kind: str) -> None:
    """Owed units that are shipped, allocated or let go are owed no longer, and leave room for others."""
    tale = Tale(RULES)
    tale.tell("requested", 3, channel="web", id="R-1")
    assert (tale.answer.backordered, tale.promised()) == (3, 0)
    tale.tell("received", 20, location="west")
    tale.tell(kind, 3, request="R-1", location="west")
    left = 20 if kind == "released" else 17
    assert (tale.sellable(), tale.promised()) == (left, left + 3)
    tale.tell("extended", request="R-1")
    assert tale.refusals == ["request_ended"]


def test_ended_requests_are_forgotten_in_the_end() -> None:
    """What ended before the SKU's horizon takes no memory, however many there were."""
    requests = Requests()
    for number in range(5_000):
        requested = Requested(id=str(number), source="shop", sku="A", time="", channel="web", quantity=1)
        requests.add(0, requested, horizon_ms=number - 10).ended_ms = number
    assert len(requests.dump()["requests"]) < 100
    assert requests.find(0, "4999", horizon_ms=4_000) is not None


def test_a_location_named_twice_gives_its_units_once() -> None:
    """Whatever the rules say, no shelf is emptied twice."""
    tale = Tale(Rules(channels={"web": ChannelRules(locations=("east", "east", "west"))}))
    tale.tell("received", 5)
    tale.tell("received", 5, location="west")
    tale.tell("requested", 10, channel="web")
    assert tale.answer.parts == [("east", 5), ("west", 5)]
