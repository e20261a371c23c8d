"""The formula of what a channel may sell, number by number."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.oracle_offers import fits
from operators.pools import Pool
from operators.rules import ResolvedChannel, RuleBook
from operators.sellable import Offer, offer_of
from schemas.rules import ChannelRules, LocationRules, Rule, Rules
from tests.stories import after


def web(**numbers: int | bool | None) -> ResolvedChannel:
    """The web with nothing kept back, but for `numbers`."""
    rules = Rules(channels={"web": msgspec.convert(numbers, ChannelRules)})
    return RuleBook(rules).resolve("A", clock_ms=0).channels[0]


@pytest.mark.parametrize(
    ("rule", "units", "sellable"),
    [
        (web(), 0, 0),
        (web(), 10, 10),
        (web(safety_units=3), 10, 7),
        (web(safety_units=11), 10, 0),
        (web(share_percent=50), 10, 5),
        (web(share_percent=50), 11, 5),
        (web(share_percent=0), 10, 0),
        (web(safety_percent=10), 10, 9),
        (web(safety_percent=10), 11, 9),
        (web(safety_percent=100), 7, 0),
        (web(safety_units=3, safety_percent=10), 10, 7),
        (web(safety_units=1, safety_percent=25), 10, 7),
        (web(share_percent=50, safety_units=2), 10, 3),
        (web(share_percent=33, safety_percent=1), 10, 2),
        (web(sell=False), 10, 0),
        (web(sell=False, commitment_only=True), 10, 0),
        (web(commitment_only=True), 10, 0),
    ],
)
def test_a_channel_sells_its_share_of_what_is_free_less_its_safety_stock(
    rule: ResolvedChannel, units: int, sellable: int
) -> None:
    """Shares are rounded down, safety in per cent of what is free is rounded up, and nothing goes below zero."""
    assert offer_of(rule, Pool(units, shortfall=0)) == Offer(sellable, sellable)


@pytest.mark.parametrize(
    ("rule", "units", "own", "committed", "sellable"),
    [
        (web(), 10, 4, 4, 10),
        (web(), 10, 0, 4, 6),
        (web(), 10, 4, 7, 7),
        (web(), 10, 4, 12, 4),
        (web(share_percent=50), 10, 4, 4, 7),
        (web(safety_units=9), 10, 4, 4, 4),
        (web(safety_percent=50), 10, 4, 4, 7),
        (web(commitment_only=True), 10, 4, 4, 4),
        (web(sell=False), 10, 4, 4, 0),
    ],
)
def test_a_commitment_is_kept_for_its_channel(
    rule: ResolvedChannel, units: int, own: int, committed: int, sellable: int
) -> None:
    """A channel's own commitment is sold whole, and share and safety go by what nobody has a contract for."""
    assert offer_of(rule, Pool(units, shortfall=0), own, committed).sellable == sellable


@pytest.mark.parametrize(
    ("rule", "pool", "backordered", "promised"),
    [
        (web(backorder_units=5), Pool(10, 0), 0, 15),
        (web(backorder_units=5), Pool(10, 2), 0, 13),
        (web(backorder_units=5), Pool(0, 7), 0, 0),
        (web(backorder_units=5), Pool(10, 2), 2, 11),
        (web(backorder_units=5), Pool(10, 2), 4, 10),
        (web(cap_units=3), Pool(10, 0), 0, 3),
        (web(cap_units=0), Pool(10, 0), 0, 0),
        (web(cap_units=12, backorder_units=5), Pool(10, 0), 0, 12),
        (web(cap_units=20, backorder_units=5), Pool(10, 0), 0, 15),
        (web(sell=False, backorder_units=5), Pool(10, 0), 0, 0),
        (web(commitment_only=True, backorder_units=5), Pool(10, 0), 0, 0),
    ],
)
def test_backorders_add_to_what_is_promised_and_a_cap_bounds_it(
    rule: ResolvedChannel, pool: Pool, backordered: int, promised: int
) -> None:
    """What is owed already, at locations or to customers, uses up the backorder limit; the cap comes last."""
    assert offer_of(rule, pool, backordered=backordered).promised == promised


@given(
    st.builds(
        web,
        share_percent=st.integers(0, 100),
        safety_units=st.integers(0, 9),
        safety_percent=st.integers(0, 100),
        cap_units=st.none() | st.integers(0, 9),
        backorder_units=st.integers(0, 9),
    ),
    st.integers(0, 100),
    st.integers(0, 20),
)
def test_nobody_sells_more_than_there_is(rule: ResolvedChannel, units: int, shortfall: int) -> None:
    """Sellable lies between 0 and the pool; what is promised beyond it is within the backorder limit."""
    sellable, promised = offer_of(rule, Pool(units, shortfall))
    assert 0 <= sellable <= units
    assert 0 <= promised <= sellable + rule.backorder_units


@pytest.mark.parametrize(
    ("rules", "story", "sellable"),
    [
        (Rules(), "received 10, received 4 at west", 14),
        (Rules(locations={"east": LocationRules(safety_units=1)}), "received 10, received 4 at west", 13),
        (Rules(locations={"east": LocationRules(safety_units=11)}), "received 10, received 4 at west", 4),
        (Rules(locations={"west": LocationRules(kind="supplier")}), "received 10, received 4 at west", 10),
        (Rules(rules=(Rule(sku="A", location="east", safety_units=3),)), "received 10, received 4 at west", 11),
        (Rules(rules=(Rule(sku="A", safety_units=3),)), "received 10, received 4 at west", 11),
        (Rules(rules=(Rule(sku="B", safety_units=3),)), "received 10, received 4 at west", 14),
        (Rules(), "received 10, shipped 4 at west", 10),
    ],
)
def test_a_pool_is_what_the_locations_can_spare(rules: Rules, story: str, sellable: int) -> None:
    """Each location keeps its own safety stock; suppliers do not count unless they are named."""
    told = Rules(channels={"web": ChannelRules()}, locations=rules.locations, rules=rules.rules)
    assert after(story, told).sellable == sellable


CATEGORIES: dict[str, tuple[str, ...]] = {"all": ("*",), "none": ("A*A",), "a": ("A",)}


@pytest.mark.parametrize(
    ("exceptions", "sellable"),
    [
        ([Rule(category="all", safety_units=3)], 7),
        ([Rule(category="none", safety_units=3)], 10),
        ([Rule(category="a", safety_units=3)], 7),
        ([Rule(category="all", safety_units=3), Rule(category="a", safety_units=4)], 6),
        ([Rule(category="a", safety_units=4), Rule(category="all", safety_units=3)], 7),
        ([Rule(sku="A", safety_units=5), Rule(category="all", safety_units=3)], 5),
        ([Rule(sku="A", safety_units=5), Rule(sku="A", safety_units=1)], 9),
        ([Rule(category="all", channel="web", safety_units=3), Rule(sku="A", share_percent=50)], 2),
        ([Rule(category="all", safety_units=0)], 10),
    ],
)
def test_a_sku_outdoes_its_category_and_the_later_rule_the_earlier(exceptions: list[Rule], sellable: int) -> None:
    """Rules are laid over the channel's table, weakest first; what one leaves out stays as it was."""
    rules = Rules(channels={"web": ChannelRules()}, categories={**CATEGORIES}, rules=tuple(exceptions))
    assert after("received 10", rules).sellable == sellable


@pytest.mark.parametrize(
    ("pattern", "sku", "is_member"),
    [
        ("SKU-8*", "SKU-81", True),
        ("SKU-8*", "SKU-8", True),
        ("SKU-8*", "MY-SKU-8", False),
        ("*-8", "SKU-8", True),
        ("*-8", "SKU-81", False),
        ("S*-*1", "SKU-8-1", True),
        ("S*-*1", "SKU-8-2", False),
        ("A*A", "AA", True),
        ("A*A", "A", False),
        ("A.*", "A.B", True),
        ("A.*", "AxB", False),
        ("A?*", "AB", False),
        ("[AB]*", "A", False),
        ("a*", "A", False),
        ("SKU-8", "SKU-8", True),
        ("SKU-8", "SKU-81", False),
    ],
)
def test_a_star_in_a_category_stands_for_anything_and_nothing_else_does(
    pattern: str,
    sku: str,
    is_member: bool,  # noqa: FBT001  # a column of the table
) -> None:
    """A pattern is the whole SKU, letter by letter; the oracle reads it in the same way."""
    rules = Rules(
        channels={"web": ChannelRules()}, categories={"c": (pattern,)}, rules=(Rule(category="c", safety_units=3),)
    )
    assert after(f"received 10 sku {sku}", rules).sellable == (7 if is_member else 10)
    assert fits(sku, pattern) == is_member


def test_an_account_has_a_field_only_where_a_rule_names_it() -> None:
    """`b2b/acme` reads `b2b` where it has nothing of its own."""
    channels = {"web": ChannelRules(), "b2b/acme": ChannelRules(), "b2b/zen": ChannelRules()}
    rules = Rules(channels=channels, rules=(Rule(sku="A", channel="b2b/acme", cap_units=3), Rule(sku="A", sell=True)))
    record = after("received 10", rules).record
    assert record is not None
    assert list(record.channels) == ["web", "b2b/acme"]
