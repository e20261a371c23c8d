"""The oracle against cases worked out by hand, and its independence of what it judges."""

import ast
import json
import sys
from pathlib import Path

import msgspec
import pytest

from bench import oracle
from bench.oracle import Message, Oracle, fold
from bench.oracle_article import Offer
from schemas.batches import Batch, Mark, Origin
from schemas.movements import Reason
from schemas.outputs import Cause, ShadowOffer, Threshold
from schemas.rules import ReplenishmentRules, Rule, Rules

HOME, AWAY = (Origin("cluster", "topic-id", partition, "inventory.movements") for partition in (0, 1))
DEDUPE_MS = 3_600_000
CONTROLS = ("tick", "rules", "location")
LATE_MS = 1_900_000_000_000  # 2030-03-17T17:46:40Z, the broker's clock
RULES = msgspec.convert(
    {
        "locations": {"east": {"safety_units": 1}, "maker": {"kind": "supplier"}},
        "channels": {
            "web": {"safety_units": 2, "low_stock_at": 3, "recovered_at": 5},
            "b2b": {"share_percent": 80, "safety_percent": 10, "cap_units": 4},
            "b2b/acme": {},
            "maker": {"locations": ["maker"], "backorder_units": 5},
        },
    },
    Rules,
)


def told(*bodies: dict[str, object], rules: Rules = RULES, origins: str = "", shadow: Rules | None = None) -> Oracle:
    """The oracle after `bodies`, one a minute; `origins` may say `HHA`: home, home, away."""
    read = [AWAY if origin == "A" else HOME for origin in origins.ljust(len(bodies), "H")]
    messages = [
        Message(origin, number, LATE_MS, None, json.dumps(_whole(body, number)).encode())
        for number, (origin, body) in enumerate(zip(read, bodies, strict=True))
    ]
    return fold(messages, rules, dedupe_ms=DEDUPE_MS, shadow=shadow)


def _whole(body: dict[str, object], number: int) -> dict[str, object]:
    time = f"2026-11-21T00:{number:02}:00Z"
    common = {"id": str(number), "source": "wms", "sku": "A", "location": "east", "time": time}
    return {"time": time, **body} if body["kind"] in CONTROLS else {**common, **body}


def test_a_morning_in_a_warehouse() -> None:
    """20 in, 6 reserved, 2 quarantined, 4 of the reserved shipped: 16 there, 12 free, the web sees 9."""
    oracle = told(
        {"kind": "received", "quantity": 20},
        {"kind": "reserved", "quantity": 6},
        {"kind": "quarantined", "quantity": 2},
        {"kind": "shipped", "quantity": 4, "from": "reserved"},
        {"kind": "received", "quantity": 3, "location": "maker"},
    )
    assert oracle.positions["A", "east"] == {
        "on_hand": 16, "reserved": 2, "allocated": 0, "picked": 0, "quarantined": 2, "in_transit": 0, "incoming": 0,
    }  # fmt: skip
    assert oracle.channels == {
        ("A", "web"): Offer(promised=9, sellable=9, level="in_stock"),  # 12 − 1 − 2
        ("A", "b2b"): Offer(promised=4, sellable=6, level="in_stock"),  # 11 × 80 % − ⌈11 × 10 %⌉, capped at 4
        ("A", "maker"): Offer(promised=8, sellable=3, level="in_stock"),  # 3 of the supplier's, 5 on backorder
    }
    assert oracle.redis(incarnation=7)["A"] == {
        "web": 9, "b2b": 4, "maker": 8, "@version": 4, "@incarnation": 7, "@as_of": 1_795_219_440_000,
    }  # fmt: skip
    assert (oracle.applied, oracle.duplicates, oracle.misplaced, oracle.dead_letters) == (5, 0, 0, {})


def test_a_crossing_worked_out_by_hand() -> None:
    """8 on hand less 1 and 2 is 5, recovered; one more shipped is 4, still in stock; another is 3, low."""
    rules = msgspec.structs.replace(RULES, channels={"web": RULES.channels["web"]})
    oracle = told(
        {"kind": "received", "quantity": 8},
        {"kind": "shipped", "quantity": 1},
        {"kind": "shipped", "quantity": 1, "correlation": "c0ffee"},
        rules=rules,
    )
    assert [(crossing.from_, crossing.to, crossing.initial) for crossing in oracle.crossings] == [
        ("out_of_stock", "in_stock", True),
        ("in_stock", "low_stock", False),
    ]
    assert oracle.crossings[1] == Threshold(
        id="A:channel=web:2", sku="A", channel="web", location=None, from_="in_stock", to="low_stock", sellable=3,
        threshold=3, version=2, rules=1, time="2026-11-21T00:02:00.000Z", initial=False,
        cause=Cause("movement", "wms", "2"), correlation="c0ffee",
    )  # fmt: skip


RECEIVED = {"kind": "received", "quantity": 9}


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ({**RECEIVED, "time": "2026-11-20T22:59:59Z"}, "too_late"),
        ({**RECEIVED, "time": "2026-11-20T23:00:00Z"}, None),
        ({**RECEIVED, "time": "2030-03-17T17:51:40Z"}, None),
        ({**RECEIVED, "time": "2030-03-17T17:51:40.001Z"}, "from_the_future"),
        ({**RECEIVED, "kind": "channel_committed", "channel": "nobody"}, "unknown_channel"),
        ({"kind": "location", "location": "@east", "trust_percent": 50}, "bad_name"),
        ({"kind": "rules", "generation": 2, "changes": []}, "bad_rules"),
        ({**RECEIVED, "quantity": 0}, "out_of_range"),
        ({"kind": "tick", "time": "2030-03-17T17:51:40.001Z"}, "from_the_future"),
    ],
)
def test_what_cannot_be_used_is_set_aside(second: dict[str, object], reason: str | None) -> None:
    """Each with the reason that comes first, and it changes nothing."""
    found = told(RECEIVED, second)
    assert found.dead_letters == ({"inventory.movements/0/1": reason} if reason else {})
    assert found.applied == (1 if reason else 2)


def test_a_duplicate_is_forgotten_when_its_own_time_lies_before_the_horizon() -> None:
    """An id counts again once its first movement is older than what is remembered."""
    later = {**RECEIVED, "time": "2026-11-21T01:00:00.001Z"}
    again = {**later, "id": "0"}
    assert told(RECEIVED, again).duplicates == 1
    found = told(RECEIVED, later, again, again)
    assert (found.applied, found.duplicates) == (3, 1)


def test_a_misplaced_movement_shows_when_its_home_speaks() -> None:
    """It changes the position at once; channels and version follow with the home's next movement or tick."""
    misplaced = told(RECEIVED, {"kind": "shipped", "quantity": 9}, origins="HA")
    assert (misplaced.positions["A", "east"]["on_hand"], misplaced.misplaced) == (0, 1)
    assert (misplaced.channels["A", "web"].sellable, misplaced.articles["A"].version) == (6, 0)
    spoken = told(RECEIVED, {"kind": "shipped", "quantity": 9}, {"kind": "tick"}, origins="HAH")
    assert (spoken.channels["A", "web"].sellable, spoken.articles["A"].version) == (0, 2)
    assert spoken.crossings[-1].cause == Cause("clock")


def test_rules_hold_from_tick_to_tick() -> None:
    """A rule for the morning begins and ends where ticks pass its times."""
    morning = {"valid_from": "2026-11-21T00:01:00Z", "valid_to": "2026-11-21T00:03:00Z"}
    rule = msgspec.convert({"sku": "A", "channel": "web", "sell": False, **morning}, Rule)
    rules = msgspec.structs.replace(RULES, rules=(rule,))
    ticks: list[dict[str, object]] = [{"kind": "tick"}] * 3
    levels = [told(RECEIVED, *ticks[:count], rules=rules).channels["A", "web"].sellable for count in range(4)]
    assert levels == [6, 0, 0, 6]


SAFER = {"kind": "rules", "generation": 2, "since": 1, "changes": {"channels": {"web": {"safety_units": 5}}}}


def test_a_change_of_rules_holds_from_its_record_on() -> None:
    """9 less 1 and 2 is 6; with 5 instead of 2 it is 3, which is low, and the rules are the cause."""
    oracle = told(RECEIVED, SAFER)
    assert oracle.channels["A", "web"] == Offer(promised=3, sellable=3, level="low_stock")
    (first, second) = [crossing for crossing in oracle.crossings if crossing.channel == "web"]
    assert (first.initial, first.rules, second.rules, second.version) == (True, 1, 2, 1)
    assert (second.from_, second.to, second.cause) == ("in_stock", "low_stock", Cause("rules"))
    assert (oracle.applied, oracle.controls, oracle.articles["A"].version) == (1, 1, 1)


@pytest.mark.parametrize(
    "change",
    [
        {**SAFER, "since": 7},
        {**SAFER, "generation": 1, "since": 3},
        {**SAFER, "changes": {"channels": {"web": {"safety_units": -5}}}},
        {**SAFER, "changes": 5},
        {**SAFER, "part": 2, "parts": 2, "changes": "{}"},
    ],
)
def test_a_change_that_does_not_fit_leaves_the_rules(change: dict[str, object]) -> None:
    """It is refused, and the numbers stay; the next good one is taken."""
    broken = told(RECEIVED, change)
    assert list(broken.dead_letters.values()) == [Reason.BAD_RULES]
    assert broken.channels["A", "web"].sellable == 6
    assert told(RECEIVED, change, SAFER).channels["A", "web"].sellable == 3


def test_a_change_of_rules_is_of_the_partition_that_says_it() -> None:
    """What another partition was told changes nothing of a SKU that is at home here."""
    assert told(RECEIVED, SAFER, origins="HA").channels["A", "web"].sellable == 6


def test_rules_of_others_show_what_came_from_elsewhere() -> None:
    """The home speaks, so that 9 shipped in another partition are shown as of its record."""
    others = {**SAFER, "changes": {"rules": [{"sku": "ANOTHER", "sell": False}]}}
    oracle = told(RECEIVED, {"kind": "shipped", "quantity": 9}, others, origins="HAH")
    assert (oracle.channels["A", "web"].sellable, oracle.articles["A"].version) == (0, 2)


def test_the_same_rules_again_are_no_news() -> None:
    """No new version, whatever the number of the generation."""
    oracle = told(RECEIVED, {"kind": "rules", "generation": 2, "since": 1, "changes": {}})
    assert (oracle.articles["A"].version, oracle.dead_letters) == (0, {})


def test_a_location_that_is_believed_less_promises_less() -> None:
    """40 % of 9 is 3 and nothing is left behind 1 and 2; what is stored stays, and comes back with trust."""
    silent = {"kind": "location", "location": "east", "trust_percent": 40}
    oracle = told(RECEIVED, silent)
    assert (oracle.channels["A", "web"].sellable, oracle.positions["A", "east"]["on_hand"]) == (0, 9)
    (opened,) = oracle.divergences
    assert (opened.id, opened.sku, opened.stated, opened.derived, opened.reason) == (
        "@east:divergence=east=heartbeats:opened:1", None, 40, 100, "silent",
    )  # fmt: skip
    heard = told(RECEIVED, silent, {**silent, "trust_percent": 100})
    assert heard.channels["A", "web"].sellable == 6
    assert [(event.event, event.reason) for event in heard.divergences] == [("opened", "silent"), ("closed", "heard")]


def test_a_purchase_worked_out_by_hand() -> None:
    """2 and 4 sold on two days: d = 3, σ² = 2, 3·7 + 1.645·√(7·2) = 27.15, so 28; at 22, 28 + 3 − 22 = 9 are missing.

    One day earlier it was d = 2, σ² = 0, reorder point 14, and 24 were there.
    """
    rules = msgspec.structs.replace(RULES, replenishment=ReplenishmentRules())
    oracle = told(
        {"kind": "received", "quantity": 30, "time": "2026-11-01T00:00:00Z"},
        {"kind": "shipped", "quantity": 2, "time": "2026-11-01T12:00:00Z"},
        {"kind": "shipped", "quantity": 4, "time": "2026-11-02T12:00:00Z"},
        {"kind": "shipped", "quantity": 2, "time": "2026-11-03T12:00:00Z"},
        {"kind": "expected", "quantity": 9, "time": "2026-11-03T13:00:00Z"},
        rules=rules,
    )
    proposed, closed = oracle.replenishments
    assert (proposed.id, proposed.event, proposed.quantity) == ("A:replenishment=east:proposed:3", "proposed", 9)
    assert (proposed.position, proposed.reorder_point, proposed.demand_per_day) == (22, 28, 3.0)
    assert (closed.event, closed.reason, closed.quantity, closed.version) == ("closed", "expected", 9, 4)


def test_safety_stock_that_follows_demand() -> None:
    """z·√(L·σ²) of 2 and 4 sold on two days is 6.15, so 7 instead of 1 are kept back: 22 − 7 − 2 = 13."""
    rule = msgspec.convert({"sku": "A", "location": "east", "safety_units": "dynamic"}, Rule)
    oracle = told(
        {"kind": "received", "quantity": 30, "time": "2026-11-01T00:00:00Z"},
        {"kind": "shipped", "quantity": 2, "time": "2026-11-01T12:00:00Z"},
        {"kind": "shipped", "quantity": 4, "time": "2026-11-02T12:00:00Z"},
        {"kind": "shipped", "quantity": 2, "time": "2026-11-03T12:00:00Z"},
        rules=msgspec.structs.replace(RULES, rules=(rule,)),
    )
    assert oracle.channels["A", "web"].sellable == 13


def test_shadow_rules_are_compared_and_never_sold_from() -> None:
    """5 instead of 2 would leave 3 of 6."""
    channels = {**RULES.channels, "web": msgspec.structs.replace(RULES.channels["web"], safety_units=5)}
    oracle = told(RECEIVED, shadow=msgspec.structs.replace(RULES, channels=channels))
    assert oracle.channels["A", "web"].sellable == 6
    (difference,) = oracle.shadow
    assert (difference.sku, difference.version, difference.channels) == ("A", 0, {"web": ShadowOffer(6, 3)})


def test_batches_are_read_message_by_message_and_marks_are_not_stock() -> None:
    """The oracle takes what a source gives; what it has read before it skips."""
    payload = json.dumps(_whole(RECEIVED, 0)).encode()
    batch = Batch(HOME, [3, 4], [-1, -1], [b"A", b"B"], [payload, payload])
    found = fold([batch, Mark(HOME, 5, 5, -1, 0), batch], RULES, dedupe_ms=DEDUPE_MS)
    assert (found.applied, found.duplicates, found.dead_letters) == (
        1, 0, {"inventory.movements/0/4": "key_mismatch"},
    )  # fmt: skip


def test_the_oracle_imports_nothing_of_what_it_judges() -> None:
    """Only schemas, the reader of JSON and the standard library: a fault shared with the operators would go unseen."""
    files = Path(oracle.__file__).parent.glob("oracle*.py")
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    modules = {f"{node.module}.{alias.name}" for node in froms for alias in node.names}
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    others = {
        module for module in modules if module.split(".")[0] not in {*sys.stdlib_module_names, "schemas", "msgspec"}
    }
    assert {module for module in others if not module.startswith("bench.oracle")} == set()
