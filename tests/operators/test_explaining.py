"""Explanations: each channel's steps add up to what is shown, under rules of every kind, and name the right rule."""

import json
from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.oracle import Message
from operators.lane import Lane, LaneSettings
from operators.rules import RuleBook
from operators.stock import DEMANDS_MAX
from schemas.batches import Batch
from schemas.outputs import Availability, ChannelExplanation, Explanation
from schemas.rules import CategoryFile, ChannelRules, LocationRules, ReplenishmentRules, Rule, Rules, SourceRules
from tests.fact_strategies import LOCATIONS, fact_logs, fact_rules
from tests.lane_runs import batch_of
from tests.movement_strategies import AS_OF_MS, DEDUPE_MS
from tests.tales import ELSEWHERE, LOG, Tale, time_of

MINUTES_A_DAY = 1440
RECENT_MAX = 8
REQUESTS_MAX = 20


# Steps


@st.composite
def _rules(draw: st.DrawFn) -> Rules:
    """Those of the other stories, with dynamic safety stock and purchases for some."""
    rules = draw(fact_rules())
    dynamic = st.builds(
        lambda owner, location, days: Rule(**owner, location=location, safety_units="dynamic", lead_time_days=days),
        st.sampled_from([{"sku": "A"}, {"category": "everything"}]),
        st.sampled_from([None, *LOCATIONS]),
        st.integers(0, 9),
    )
    more = draw(st.lists(dynamic, max_size=2))
    planned = draw(st.sampled_from([None, ReplenishmentRules(lead_time_days=2, service_level_percent=98)]))
    return msgspec.structs.replace(rules, rules=(*rules.rules, *more), replenishment=planned)


def _with_trust(messages: tuple[Message, ...], trusts: list[tuple[int, str, int]]) -> list[Message]:
    """The log with some records of trust in between."""
    payloads: list[Message] = list(messages)
    for place, location, percent in trusts:
        record = {"kind": "location", "location": location, "trust_percent": percent}
        template = payloads[place % len(payloads)]
        told = template._replace(key=None, payload=json.dumps(record).encode(), headers=None)
        payloads.insert(place % len(payloads), told)
    first = payloads[0].offset
    return [message._replace(offset=first + number) for number, message in enumerate(payloads)]


def _assert_explains(explanation: Explanation, record: Availability) -> None:
    """Nothing is explained but what is shown, and all of that."""
    assert explanation.version == record.version
    assert (explanation.as_of, explanation.rules) == (record.as_of, record.rules)
    assert explanation.channels.keys() == record.channels.keys()
    for name, channel in explanation.channels.items():
        shown = record.channels[name]
        assert sum(step.units for step in channel.steps) == channel.promised == shown.promised
        assert (channel.sellable, channel.level) == (shown.sellable, shown.level)
    assert explanation.locations.keys() == record.locations.keys()
    for name, place in explanation.locations.items():
        position = record.locations[name]
        for field in position.__struct_fields__:
            assert getattr(place, field) == getattr(position, field)
        trusted = position.available * position.trust_percent // 100 if position.available > 0 else position.available
        assert place.trusted == trusted
        assert place.spare == max(0, trusted - place.safety_units)


@given(
    logs=fact_logs(),
    rules=_rules(),
    trusts=st.lists(st.tuples(st.integers(0, 60), st.sampled_from(LOCATIONS), st.sampled_from([0, 33, 50, 100]))),
    cut=st.integers(1, 12),
    restarts=st.booleans(),
)
def test_the_steps_of_every_channel_add_up_to_what_is_shown(
    logs: tuple[tuple[Message, ...], ...],
    rules: Rules,
    trusts: list[tuple[int, str, int]],
    cut: int,
    *,
    restarts: bool,
) -> None:
    """At any moment of any story: shares, safety, caps, backorders, contracts, trust, rules that begin and end."""
    settings = LaneSettings(1, incarnation=1, dedupe_ms=DEDUPE_MS, as_of_ms=AS_OF_MS)
    book = RuleBook(rules)
    lane = Lane(0, book, settings)
    for log in logs:
        messages = _with_trust(log, trusts)
        for start in range(0, len(messages), cut):
            result = lane.apply([batch_of(messages[start : start + cut])])
            if restarts and start == cut:
                lane = Lane.restore(0, lane.snapshot(), book, settings)
            rows = [lane._stock.names.row(record.sku) for record in result.availability]  # noqa: SLF001
            for row, record in zip(rows, result.availability, strict=True):
                lane._unexplained[row] = None  # noqa: SLF001
                (explanation,) = lane.explain([row]).explanations
                _assert_explains(explanation, record)
                assert len(explanation.movements) <= RECENT_MAX
                assert len(explanation.requests) <= REQUESTS_MAX


# Labels and numbers of each step


def told(rules: Rules) -> Tale:
    """20 units of SKU A at `east`, 4 at `west`."""
    tale = Tale(rules)
    tale.tell("received", 20, at=0)
    tale.tell("received", 4, at=1, location="west")
    return tale


def steps(explained: ChannelExplanation) -> dict[str, tuple[int, str | None]]:
    """Units and rule of each step but the locations."""
    return {step.step: (step.units, step.rule) for step in explained.steps if step.step != "location"}


def web(**fields: Any) -> dict[str, ChannelRules]:  # noqa: ANN401  # whatever a channel may say
    """The channel `web`, with numbers of its own."""
    return {"web": ChannelRules(**fields)}


OTHER = Rule(sku="B", sell=False)
EVERYTHING: dict[str, tuple[str, ...] | CategoryFile] = {"everything": ("*",), "fireworks": ("A*",)}


@pytest.mark.parametrize(
    ("rules", "step", "units", "label"),
    [
        (Rules(channels=web()), "share", 0, "default"),
        (Rules(channels=web()), "safety", 0, "default"),
        (Rules(channels=web(share_percent=50)), "share", -12, "channels.web.share_percent"),
        (Rules(channels=web(safety_units=3)), "safety", -3, "channels.web.safety_units"),
        (Rules(channels=web(safety_units=30)), "safety", -24, "channels.web.safety_units"),
        (Rules(channels=web(safety_percent=10)), "safety", -3, "channels.web.safety_percent"),
        (Rules(channels=web(safety_percent=10, safety_units=5)), "safety", -5, "channels.web.safety_units"),
        (Rules(channels=web(cap_units=7)), "cap", -17, "channels.web.cap_units"),
        (Rules(channels=web(cap_units=90)), "cap", 0, "channels.web.cap_units"),
        (Rules(channels=web(backorder_units=6)), "backorder", 6, "channels.web.backorder_units"),
        (Rules(channels=web(sell=False)), "not_for_sale", -24, "channels.web.sell"),
        (Rules(channels=web(commitment_only=True)), "contract_only", -24, "channels.web.commitment_only"),
        (
            Rules(channels=web(safety_units=1), rules=(OTHER, Rule(sku="A", safety_units=4)), categories=EVERYTHING),
            "safety", -4, "rules[1].safety_units (sku A)",
        ),
        (
            Rules(
                channels=web(),
                rules=(OTHER, OTHER, Rule(category="fireworks", safety_units=6)),
                categories=EVERYTHING,
            ),
            "safety", -6, "rules[2].safety_units (category fireworks)",
        ),
        (
            Rules(
                channels=web(),
                rules=(
                    Rule(sku="A", cap_units=5),
                    Rule(category="fireworks", cap_units=6),
                    Rule(category="everything", cap_units=7),
                ),
                categories=EVERYTHING,
            ),
            "cap", -19, "rules[0].cap_units (sku A)",
        ),
        (
            Rules(
                channels=web(),
                rules=(Rule(category="fireworks", share_percent=25), Rule(category="everything", share_percent=75)),
                categories=EVERYTHING,
            ),
            "share", -6, "rules[1].share_percent (category everything)",
        ),
        (
            Rules(
                channels={"web": ChannelRules(), "b2b": ChannelRules()},
                rules=(Rule(sku="A", channel="b2b", cap_units=2), Rule(sku="A", channel="web", cap_units=3)),
            ),
            "cap", -21, "rules[1].cap_units (sku A)",
        ),
        (
            Rules(channels=web(), rules=(Rule(sku="A", sell=False),)),
            "not_for_sale", -24, "rules[0].sell (sku A)",
        ),
    ],
)  # fmt: skip
def test_a_step_names_the_rule_that_it_follows(rules: Rules, step: str, units: int, label: str) -> None:
    """An exception by its place and whom it concerns, a table by its path, else the default."""
    assert steps(told(rules).explanation().channels["web"])[step] == (units, label)


@pytest.mark.parametrize(
    ("rules", "label", "spare"),
    [
        (Rules(channels=web()), "default", 20),
        (Rules(channels=web(), locations={"east": LocationRules()}), "default", 20),
        (Rules(channels=web(), locations={"east": LocationRules(safety_units=3)}), "locations.east.safety_units", 17),
        (
            Rules(channels=web(), rules=(OTHER, Rule(sku="A", location="east", safety_units=5))),
            "rules[1].safety_units (sku A, location east)", 15,
        ),
        (
            Rules(
                channels=web(),
                locations={"east": LocationRules(safety_units=3)},
                rules=(
                    Rule(location="east", safety_units=2),
                    Rule(category="fireworks", location="west", safety_units=1),
                ),
                categories=EVERYTHING,
            ),
            "rules[0].safety_units (location east)", 18,
        ),
        (
            Rules(
                channels=web(),
                rules=(
                    Rule(category="fireworks", location="east", safety_units=4),
                    Rule(location="east", safety_units=2),
                ),
                categories=EVERYTHING,
            ),
            "rules[0].safety_units (category fireworks, location east)", 16,
        ),
        (
            Rules(channels=web(), rules=(Rule(sku="A", location="east", safety_units="dynamic"),)),
            "rules[0].safety_units (sku A, location east)", 20,
        ),
    ],
)  # fmt: skip
def test_a_location_names_the_rule_of_its_safety_stock(rules: Rules, label: str, spare: int) -> None:
    """And gives to the pools what is beyond it."""
    explanation = told(rules).explanation()
    place = explanation.locations["east"]
    assert (place.safety_rule, place.spare) == (label, spare)
    named = {step.value: step for step in explanation.channels["web"].steps if step.step == "location"}
    assert (named["east"].units, named["east"].rule) == (spare, "channels.web.locations")


def test_only_locations_that_a_channel_sells_from_are_steps_of_it() -> None:
    """A supplier's stock is no part of a channel that does not name it."""
    locations = {"east": LocationRules(kind="supplier"), "west": LocationRules()}
    channels = {"web": ChannelRules(), "b2b": ChannelRules(locations=("east",))}
    explanation = told(Rules(channels=channels, locations=locations)).explanation()
    drawn = {
        name: [(step.value, step.units) for step in channel.steps if step.step == "location"]
        for name, channel in explanation.channels.items()
    }
    assert drawn == {"web": [("west", 4)], "b2b": [("east", 20)]}


def test_a_dynamic_safety_stock_is_a_step_with_the_buffer_of_demand() -> None:
    """4 and 6 sold on two days, 9 days of lead time, 98 %: ⌈z·√9·√2⌉ = 9 stay."""
    rule = Rule(sku="A", safety_units="dynamic", lead_time_days=9, service_level_percent=98)
    tale = Tale(Rules(channels=web(safety_units=50), rules=(rule,)))
    tale.tell("received", 40, at=0)
    tale.tell("shipped", 4, at=1)
    tale.tell("shipped", 6, at=MINUTES_A_DAY)
    tale.tell("shipped", 1, at=2 * MINUTES_A_DAY)
    explanation = tale.explanation()
    assert steps(explanation.channels["web"])["safety"] == (-9, "rules[0].safety_units (sku A)")
    assert explanation.channels["web"].promised == 29 - 9
    assert explanation.locations["east"].dynamic_safety_units == 9


def test_demand_is_remembered_of_some_positions_only() -> None:
    """However many SKUs are explained; and of none is anything else told than of one that is explained alone."""
    rules, count = RuleBook(Rules(channels=web())), DEMANDS_MAX + 100
    lane = Lane(0, rules, LaneSettings(1, 1, dedupe_ms=DEDUPE_MS, as_of_ms=AS_OF_MS))
    payloads: list[bytes | None] = [
        f'{{"id":"{number}","source":"shop","kind":"shipped","sku":"{number}","location":"east","quantity":'
        f'{1 + number},"time":"2026-11-21T09:00:00Z"}}'.encode()
        for number in range(count)
    ]
    keys: list[bytes | None] = [str(number).encode() for number in range(count)]
    lane.apply([Batch(LOG, list(range(count)), [-1] * count, keys, payloads)])
    first, *others = lane.explain(range(count)).explanations
    assert len(lane._stock._demands) <= DEMANDS_MAX  # noqa: SLF001
    assert [other.locations["east"].demand_days for other in others] == [
        {"2026-11-21": 1 + number} for number in range(1, count)
    ]
    lane.begin_refill()
    assert lane.explain([0]).explanations == [first]


def test_contract_stock_is_taken_out_for_all_and_given_back_to_its_own() -> None:
    """24 in all, 10 of them for acme: web has 14, acme 14 and its 10; of these 3 are used up."""
    tale = told(
        Rules(channels={"web": ChannelRules(), "b2b": ChannelRules(), "b2b/acme": ChannelRules(share_percent=50)})
    )
    tale.tell("channel_committed", 10, at=2, channel="b2b/acme")
    explanation = tale.explanation()
    assert steps(explanation.channels["web"]) == {
        "contracts": (-10, None), "share": (0, "default"), "safety": (0, "default"), "own_contract": (0, None),
    }  # fmt: skip
    acme = explanation.channels["b2b/acme"]
    assert steps(acme) == {
        "contracts": (-10, None),
        "share": (-7, "channels.b2b/acme.share_percent"),
        "safety": (0, "default"),
        "own_contract": (10, None),
    }
    assert (acme.promised, acme.committed, acme.contract_units) == (17, 10, 10)
    tale.tell("reserved", 3, at=3, channel="b2b/acme")
    acme = tale.explanation().channels["b2b/acme"]
    assert (acme.committed, acme.contract_units) == (7, 10)


def test_a_rule_that_begins_shows_in_the_steps_after_its_tick() -> None:
    """Before: the default; after: the rule, by its place."""
    begins = Rule(sku="A", cap_units=5, valid_from=datetime.fromisoformat(time_of(10)))
    tale = told(Rules(channels=web(), rules=(begins,)))
    assert "cap" not in steps(tale.explanation().channels["web"])
    tale.tick(11)
    assert steps(tale.explanation().channels["web"])["cap"] == (-19, "rules[0].cap_units (sku A)")


def test_a_location_that_is_trusted_less_spares_less() -> None:
    """Half of 20 units, less the safety stock."""
    tale = told(Rules(channels=web(), locations={"east": LocationRules(safety_units=3)}))
    tale.control("location", location="east", trust_percent=50)
    explanation = tale.explanation()
    place = explanation.locations["east"]
    assert (place.available, place.trust_percent, place.trusted, place.spare) == (20, 50, 10, 7)
    assert explanation.channels["web"].promised == 11


# What else is told


def test_open_requests_are_listed_until_they_end() -> None:
    """Where their units lie, what is owed, and when they expire."""
    tale = told(Rules(channels=web(backorder_units=9, locations=("east", "west"))))
    tale.tell("requested", 22, at=2, id="R-1", channel="web", expires=time_of(60))
    tale.tell("requested", 5, at=3, id="R-2", channel="web")
    assert msgspec.to_builtins(tale.explanation().requests) == [
        {
            "request": "R-1",
            "source": "wms",
            "channel": "web",
            "parts": {"east": 20, "west": 2},
            "expires": time_of(60),
        },
        {"request": "R-2", "source": "wms", "channel": "web", "parts": {"west": 2}, "backordered": 3},
    ]
    assert tale.explanation().channels["web"].backordered == 3
    tale.tell("shipped", 2, at=4, location="west", request="R-2", from_="reserved")
    tale.tick(61)
    (left,) = tale.explanation().requests
    assert (left.request, left.parts, left.backordered) == ("R-2", {}, 3)


def test_no_more_than_twenty_requests_are_listed() -> None:
    """The others are counted."""
    tale = told(Rules(channels=web()))
    for number in range(23):
        tale.tell("requested", 1, at=2 + number, id=f"R-{number}", channel="web")
    explanation = tale.explanation()
    assert len(explanation.requests) == REQUESTS_MAX
    assert explanation.requests_left_out == 3
    assert explanation.requests[0].request == "R-0"


def test_open_divergences_are_listed_until_they_close() -> None:
    """Who says what else of which quantity."""
    tale = told(Rules(channels=web(), sources={"erp": SourceRules(), "wms": SourceRules()}))
    tale.tell("stated", 15, at=2, source="erp")
    tale.tick(3)
    (found,) = tale.explanation().divergences
    assert (found.location, found.system, found.of, found.stated, found.derived) == ("east", "erp", "on_hand", 15, 20)
    tale.tell("stated", 20, at=4, source="erp")
    tale.tick(5)
    assert tale.explanation().divergences == []


def test_the_last_eight_records_are_listed_the_newest_first() -> None:
    """As they were told, also across a snapshot; duplicates and dead letters are not among them."""
    tale = Tale(Rules(channels=web()))
    for number in range(12):
        tale.tell("received", number + 1, at=number, id=f"m-{number}")
    tale.tell("received", 1, at=11, id="m-11")
    tale.tell("received", 1, at=-6000, id="late")
    tale.restart()
    tale.tell("channel_committed", 3, at=20, id="c", channel="web")
    tale.tell("requested", 2, at=21, id="R", channel="web")
    found = tale.explanation().movements
    assert [record.id for record in found] == ["R", "c", "m-11", "m-10", "m-9", "m-8", "m-7", "m-6"]
    newest, contract, received = found[:3]
    assert (newest.kind, newest.channel, newest.quantity, newest.time) == ("requested", "web", 2, time_of(21))
    assert (contract.kind, contract.location) == ("channel_committed", None)
    assert (received.kind, received.location, received.quantity, received.source) == ("received", "east", 12, "wms")


def test_home_clock_and_position_are_told() -> None:
    """Where the SKU is at home, what its clock shows, and what is on its way."""
    tale = told(Rules(channels=web(), replenishment=ReplenishmentRules()))
    tale.tell("expected", 6, at=2)
    tale.tell("transfer_shipped", 2, at=3, location="west", destination="east")
    tale.tick(4)
    explanation = tale.explanation()
    place = explanation.locations["east"]
    assert (explanation.home, explanation.clock) == ("inventory.movements/0", time_of(4))
    assert (place.incoming, place.in_transit, place.position, place.reorder_point) == (6, 2, 28, 0)
    assert place.newest == time_of(3)


def test_a_change_from_elsewhere_is_explained_when_the_home_shows_it() -> None:
    """Until then the explanation waits, as the number does."""
    tale = told(Rules(channels=web()))
    tale.tell("shipped", 5, at=2, origin=ELSEWHERE)
    lane = tale._lane  # noqa: SLF001
    assert lane.explain(list(lane.unexplained)).explanations == []
    tale.tick(3)
    (explanation,) = lane.explain(list(lane.unexplained)).explanations
    assert explanation.channels["web"].promised == tale.promised() == 19
    assert not lane.unexplained
