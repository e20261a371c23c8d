"""Commitments: contract stock that only its channel can sell."""

import pytest

from operators.commitments import Claim, Grant, Ledger, grants_of
from schemas.rules import ChannelRules, LocationRules, Rules
from tests.tales import Tale

RULES = Rules(
    locations={"east": LocationRules(), "west": LocationRules()},
    channels={
        "web": ChannelRules(),
        "north": ChannelRules(locations=("west",)),
        "b2b": ChannelRules(priority=1),
        "b2b/acme": ChannelRules(commitment_only=True, priority=5),
        "b2b/beta": ChannelRules(),
    },
)


def test_others_never_sell_contract_stock() -> None:
    """Ten units, six of them Acme's: everybody else sees four, Acme sees six."""
    tale = Tale(RULES)
    tale.tell("received", 10)
    tale.tell("channel_committed", 6, channel="b2b/acme")
    assert (tale.sellable("web"), tale.sellable("b2b"), tale.sellable("b2b/acme")) == (4, 4, 6)
    tale.tell("requested", 5, channel="web")
    assert (tale.answer.outcome, tale.answer.possible) == ("refused", 4)


def test_an_account_has_a_field_only_while_it_has_a_contract() -> None:
    """Its reader falls back to the channel above it otherwise."""
    tale = Tale(RULES)
    tale.tell("received", 10)
    assert tale.record is not None
    assert "b2b/acme" not in tale.record.channels
    tale.tell("channel_committed", 6, channel="b2b/acme")
    assert "b2b/acme" in tale.record.channels
    tale.tell("channel_uncommitted", 6, channel="b2b/acme")
    assert "b2b/acme" not in tale.record.channels


def test_a_request_uses_the_commitment_up_and_release_restores_it_but_shipping_does_not() -> None:
    """Held, given back, and gone for good."""
    tale = Tale(RULES)
    tale.tell("received", 10)
    tale.tell("channel_committed", 6, channel="b2b/acme")
    tale.tell("requested", 4, channel="b2b/acme", id="R-1")
    assert (tale.sellable("b2b/acme"), tale.sellable("web")) == (2, 4)
    tale.tell("released", 1, request="R-1")
    assert (tale.sellable("b2b/acme"), tale.sellable("web")) == (3, 4)
    tale.restart()
    tale.tell("shipped", 3, request="R-1", from_="reserved")
    assert (tale.sellable("b2b/acme"), tale.sellable("web")) == (3, 4)


def test_an_expired_request_gives_its_contract_stock_back() -> None:
    """A tick past the end restores what it had used."""
    tale = Tale(RULES)
    tale.tell("received", 10)
    tale.tell("channel_committed", 6, channel="b2b/acme")
    tale.tell("requested", 4, channel="b2b/acme", expires="2026-11-21T00:10:00Z")
    tale.tick(11)
    assert (tale.sellable("b2b/acme"), tale.sellable("web")) == (6, 4)


def test_plain_facts_of_the_channel_draw_on_its_commitment_too() -> None:
    """An order management that only tells what happened uses the contract up all the same."""
    tale = Tale(RULES)
    tale.tell("received", 10)
    tale.tell("channel_committed", 6, channel="b2b/acme")
    tale.tell("reserved", 2, channel="b2b/acme")
    assert (tale.sellable("b2b/acme"), tale.sellable("web")) == (4, 4)
    tale.tell("released", 1, channel="b2b/acme")
    tale.tell("shipped", 1, channel="b2b/acme", from_="reserved")
    tale.tell("shipped", 2, channel="b2b/acme")
    assert (tale.sellable("b2b/acme"), tale.sellable("web")) == (3, 4)


def test_what_exceeds_the_pool_goes_by_priority_and_is_reported() -> None:
    """Five units, four promised to each: Acme first, the rest for Beta."""
    tale = Tale(RULES)
    tale.tell("received", 5)
    tale.tell("channel_committed", 4, channel="b2b/beta")
    tale.tell("channel_committed", 4, channel="b2b/acme")
    assert tale.record is not None
    channels = tale.record.channels
    assert [(channels[name].sellable, channels[name].overcommitted) for name in ("b2b/acme", "b2b/beta")] == [
        (4, 0), (1, 3),
    ]  # fmt: skip
    assert channels["web"].sellable == 0


def test_a_channel_that_shares_no_location_is_not_touched() -> None:
    """North sells from the west alone, where the contract's channel does not."""
    rules = Rules(channels={"north": ChannelRules(locations=("west",)), "south": ChannelRules(locations=("east",))})
    tale = Tale(rules)
    tale.tell("received", 5)
    tale.tell("received", 5, location="west")
    tale.tell("channel_committed", 5, channel="south")
    assert (tale.sellable("north"), tale.sellable("south")) == (5, 5)


def test_a_commitment_to_nobody_is_a_dead_letter() -> None:
    """The rules know no such channel."""
    tale = Tale(RULES)
    tale.tell("channel_committed", 5, channel="b2b/nobody")
    assert tale.refusals == ["unknown_channel"]


@pytest.mark.parametrize(
    ("ledger", "after"),
    [
        (Ledger().commit(5).reserve(7), Ledger(5, 0, 5)),
        (Ledger(5, 0, 5).release(9), Ledger(5, 5, 0)),
        (Ledger(5, 3, 2).ship(4, unreserved=True), Ledger(5, 1, 0)),
        (Ledger(5, 3, 2).ship(4, unreserved=False), Ledger(5, 3, 0)),
        (Ledger(5, 3, 2).commit(-5), Ledger(0, -2, 2)),
        (Ledger(0, -2, 2).reserve(1), Ledger(0, -2, 2)),
    ],
)
def test_a_ledger_moves_only_what_it_has(ledger: Ledger, after: Ledger) -> None:
    """Open and drawn stock never come from nowhere."""
    assert ledger == after


def test_grants_go_by_rank_where_locations_are_shared() -> None:
    """The lower rank gets the rest; who shares nothing with the others gets its own."""
    both, east, west = frozenset({1, 2}), frozenset({1}), frozenset({2})
    claims = [Claim(4, 6, 1, east), Claim(5, 8, 9, both), Claim(2, 2, 0, west), Claim(3, 3, 0, frozenset({3}))]
    assert grants_of(claims) == [Grant(1, 9), Grant(5, 11), Grant(0, 7), Grant(3, 3)]
