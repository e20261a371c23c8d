"""rules.toml: what planners write is read, and what is wrong or odd is said at its line."""

from datetime import UTC, datetime

import pytest

from schemas.complaints import Document, read_toml
from schemas.rules import (
    CategoryFile,
    ChannelRules,
    LocationRules,
    ReplenishmentRules,
    Rule,
    Rules,
    SourceRules,
    category_members,
    rules_from,
)

WEB = "[channels.web]\n"
EXCEPTION = f"{WEB}[[rules]]\nsku = 'A'\nsell = true\n"
WHOLE = """
[locations.dc-east]
kind = "store"
safety_units = 1
stale_after = "15m"
[channels.web]
locations = ["dc-east"]
priority = 10
share_percent = 90
safety_units = 2
safety_percent = 3
low_stock_at = 10
recovered_at = 12
cap_units = 500
backorder_units = 4
[channels."b2b/acme"]
commitment_only = true
[[rules]]
category = "fireworks"
channel = "web"
sell = false
valid_from = 2026-12-24T00:00:00Z
valid_to = 2027-01-02T00:00:00+01:00
[[rules]]
sku = "SKU-1"
location = "dc-east"
safety_units = 5
[categories]
fireworks = ["SKU-7", "SKU-8*"]
fragile = { file = "categories.csv" }
[sources."wms/dc-east"]
kinds = ["received", "shipped"]
locations = ["dc-east"]
authority = 10
tolerance_units = 2
tolerance_percent = 1
grace = "10m"
[replenishment]
lead_time_days = 8
service_level_percent = 98
"""


def told(text: str) -> tuple[Rules, list[str]]:
    """The rules of `text`, and its complaints as `severity line path`."""
    document = read_toml(text)
    assert isinstance(document, Document)
    rules, complaints = rules_from(document)
    return rules, [f"{complaint.severity} {complaint.line} {complaint.path}" for complaint in complaints]


def test_every_table_is_read() -> None:
    """A file that uses everything becomes rules with all of it."""
    rules, complaints = told(WHOLE)
    assert not [complaint for complaint in complaints if complaint.startswith("error")]
    assert rules == Rules(
        locations={"dc-east": LocationRules(kind="store", safety_units=1, stale_after="15m")},
        channels={
            "web": ChannelRules(
                locations=("dc-east",),
                priority=10,
                share_percent=90,
                safety_units=2,
                safety_percent=3,
                low_stock_at=10,
                recovered_at=12,
                cap_units=500,
                backorder_units=4,
            ),
            "b2b/acme": ChannelRules(commitment_only=True),
        },
        rules=(
            Rule(
                category="fireworks",
                channel="web",
                sell=False,
                valid_from=datetime(2026, 12, 24, tzinfo=UTC),
                valid_to=datetime(2027, 1, 1, 23, tzinfo=UTC),
            ),
            Rule(sku="SKU-1", location="dc-east", safety_units=5),
        ),
        categories={"fireworks": ("SKU-7", "SKU-8*"), "fragile": CategoryFile(file="categories.csv")},
        sources={
            "wms/dc-east": SourceRules(
                kinds=("received", "shipped"),
                locations=("dc-east",),
                authority=10,
                tolerance_units=2,
                tolerance_percent=1,
                grace="10m",
            )
        },
        replenishment=ReplenishmentRules(lead_time_days=8, service_level_percent=98),
    )


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        (WEB, []),
        ("", ["error None channels"]),
        (f"{WEB}[channel.b2b]", ["error 2 channel"]),
        (f"{WEB}share = 5", ["error 2 channels.web.share"]),
        (f"{WEB}share_percent = 101", ["error 2 channels.web.share_percent"]),
        (f"{WEB}share_percent = '5'\nsell = 1", ["error 2 channels.web.share_percent", "error 3 channels.web.sell"]),
        (f"{WEB}safety_units = -1", ["error 2 channels.web.safety_units"]),
        (f"{WEB}locations = []", ["error 2 channels.web.locations"]),
        (f"{WEB}low_stock_at = 10\nrecovered_at = 10", ["error 3 channels.web.recovered_at"]),
        ("channels = 5", ["error 1 channels"]),
        ("[channels]\nweb = 5", ["error 2 channels.web"]),
        (f'{WEB}[channels."@x"]\nshare_percent = 0', ["error 2 channels.@x"]),
        (f"{WEB}[locations.east]\nkind = 'shop'", ["error 3 locations.east.kind"]),
        (f"{WEB}[locations.east]\nstale_after = '15 minutes'", ["error 3 locations.east.stale_after"]),
        (f"{WEB}[locations.east]\nstale_after = '15m'", []),
        (f"{WEB}[locations.east]\nstale_after = '1s'", ["error 3 locations.east.stale_after"]),
        ("[locations.east]\n[channels.web]\nlocations = ['eats']", ["warning 3 channels.web.locations"]),
        (f"{WEB}[channels.b2b]\n[locations.east]", ["warning 2 channels.b2b.share_percent"]),
        (f"{WEB}share_percent = 50\n[channels.b2b]\nshare_percent = 50", []),
        (f"{WEB}[[rules]]\nsell = false", ["error 2 rules[0]"]),
        (f"{WEB}[[rules]]\nsku = 'A'\ncategory = 'c'\nsell = false\n[categories]\nc = ['A']", ["error 2 rules[0]"]),
        (f"{WEB}[[rules]]\nsku = '@A'\nsell = false", ["error 3 rules[0].sku"]),
        (f"{WEB}[[rules]]\ncategory = 'c'\nsell = false", ["error 3 rules[0].category"]),
        (f"{WEB}[[rules]]\nsku = 'A'\nchannel = 'wep'\nsell = false", ["error 4 rules[0].channel"]),
        (f"{WEB}[[rules]]\nsku = 'A'\nchannel = 'web'\nlocation = 'e'\nsafety_units = 1", ["error 2 rules[0]"]),
        (f"{WEB}[[rules]]\nsku = 'A'\nlocation = 'e'\nsell = false", ["error 5 rules[0].sell"]),
        (f"{WEB}[[rules]]\nsku = 'A'\nsafety_units = 'dynamic'", []),
        (f"{WEB}[[rules]]\nlocation = 'east'\nlead_time_days = 3", []),
        (f"{WEB}[[rules]]\nlead_time_days = 3", ["error 2 rules[0]"]),
        (f"{WEB}[[rules]]\nsku = 'A'\nchannel = 'web'\nreview_days = 3", ["error 5 rules[0].review_days"]),
        (f"{WEB}[[rules]]\nsku = 'A'\nsafety_units = 'a lot'", ["error 4 rules[0].safety_units"]),
        (f"{WEB}[[rules]]\nsku = 'A'", ["warning 2 rules[0]"]),
        (f"{WEB}[[rules]]\nsku = 'A'\nlow_stock_at = 3\nrecovered_at = 3", ["error 5 rules[0].recovered_at"]),
        (f"{EXCEPTION}valid_from = 2026-12-24T00:00:00", ["error 5 rules[0].valid_from"]),
        (
            f"{EXCEPTION}valid_from = 2026-12-24T00:00:00Z\nvalid_to = 2026-12-24T00:00:00Z",
            ["error 6 rules[0].valid_to"],
        ),
        (f"{WEB}rules = 5", ["error 2 channels.web.rules"]),
        (f"rules = 5\n{WEB}", ["error 1 rules"]),
        (f"{WEB}[categories]\nc = 5", ["error 3 categories.c"]),
        (f"{WEB}[categories]\nc = {{ fiel = 'x' }}", ["error 3 categories.c"]),
        (f"{WEB}[sources.wms]\nkinds = ['receivd']", ["error 3 sources.wms.kinds"]),
        (f"{WEB}[replenishment]\nreview_days = 2", []),
        (f"{WEB}[replenishment]\nservice_level_percent = 100", ["error 3 replenishment.service_level_percent"]),
    ],
)
def test_what_is_wrong_or_odd_is_said_at_its_line(text: str, complaints: list[str]) -> None:
    """One fault hides no other, and each stands where a person can put it right."""
    assert told(text)[1] == complaints


def test_members_of_a_category_come_from_lines_of_sku_and_category() -> None:
    """A header and empty lines are skipped; lines that are neither are named."""
    text = "sku,category\nA,fragile\n\nB,heavy\nC , fragile\nD\n@E,fragile\nF,\n"
    faults = [(number, "must be sku,category") for number in (6, 7, 8)]
    assert category_members("fragile", text) == (("A", "C"), faults)


def test_a_channel_that_names_a_location_twice_is_an_error() -> None:
    """It would draw on the same shelf twice."""
    document = read_toml('[channels.web]\nlocations = ["east", "east"]\n')
    assert isinstance(document, Document)
    _, complaints = rules_from(document)
    found = [(complaint.severity, complaint.line) for complaint in complaints if "twice" in complaint.message]
    assert found == [("error", 2)]
