"""What a partition lets sources say, and how much it believes of a location, holds in compiled loops, too."""

import json
from typing import Any

import pytest

from operators import rule_columns
from operators.columns import IndexedNames, Names
from operators.lane import Lane, LaneSettings
from operators.plain import ABSENT
from operators.rule_columns import PlainRules
from operators.rules import RuleBook
from operators.telling import Teller
from schemas.batches import Batch
from schemas.outputs import LaneResult
from schemas.rules import ChannelRules, Rule, Rules, SourceRules
from tests.movement_strategies import origin

RULES = Rules(
    channels={"web": ChannelRules()},
    sources={"wms": SourceRules(kinds=("received", "shipped"), locations=("east", "west")), "shop": SourceRules()},
)


class Partition:
    """A lane, and the log that it reads."""

    def __init__(self) -> None:
        self.lane = Lane(0, RuleBook(RULES), LaneSettings(1, 7, dedupe_ms=3_600_000))
        self.teller: Teller | None = None
        self._offset = 0
        self.said("received", "A")
        self.said("received", "A", "west")  # a location is met row by row
        self.said("received", "A", "west")
        assert self.lane._plain._is_current  # noqa: SLF001  # what was said last went through compiled loops

    def given(self, *bodies: dict[str, Any]) -> LaneResult:
        """Records in one batch."""
        first, self._offset = self._offset, self._offset + len(bodies)
        keys: list[bytes | None] = [body["sku"].encode() if "sku" in body else None for body in bodies]
        payloads: list[bytes | None] = [json.dumps(body).encode() for body in bodies]
        offsets = list(range(first, self._offset))
        return self.lane.apply([Batch(origin(0), offsets, [-1] * len(bodies), keys, payloads)], teller=self.teller)

    def movement(
        self, kind: str, sku: str, location: str = "east", source: str = "wms", units: int = 10
    ) -> dict[str, Any]:
        """Of a moment that is all the same."""
        return {
            "id": f"{self._offset}-{kind}-{sku}", "source": source, "kind": kind, "sku": sku, "location": location,
            "quantity": units, "time": "2026-11-21T09:00:00Z",
        }  # fmt: skip

    def said(self, kind: str, sku: str, location: str = "east", source: str = "wms") -> LaneResult:
        """One movement."""
        return self.given(self.movement(kind, sku, location, source))


@pytest.fixture
def partition() -> Partition:
    """Where a SKU is known at two locations."""
    return Partition()


@pytest.mark.parametrize(
    ("kind", "location", "source", "reason"),
    [
        ("returned", "east", "wms", "kind_not_allowed"),
        ("shipped", "north", "wms", "location_not_allowed"),
        ("shipped", "east", "nobody", "unknown_source"),
        ("shipped", "west", "wms", None),
        ("returned", "north", "shop", None),
    ],
)
def test_who_may_not_say_something_is_refused(
    partition: Partition, kind: str, location: str, source: str, reason: str | None
) -> None:
    """Of a SKU and at a location that everybody else may speak of."""
    partition.said("received", "A", "north", "shop")
    result = partition.said(kind, "A", location, source)
    assert [letter.reason for letter in result.dead_letters] == ([] if reason is None else [reason])
    assert result.applied == (reason is None)


def test_what_is_refused_makes_no_sku_known(partition: Partition) -> None:
    """Behind one that is new and allowed, in one batch."""
    result = partition.given(partition.movement("received", "B"), partition.movement("returned", "C"))
    assert (result.applied, len(result.dead_letters)) == (1, 1)
    assert list(partition.lane._stock.names) == ["A", "B"]  # noqa: SLF001  # else its home would be here


def test_the_kinds_that_were_heard_are_kept_for_each_place(partition: Partition) -> None:
    """Of sources whose kinds are known, whichever way they went."""
    partition.said("shipped", "A")
    partition.said("reserved", "A", "west", "shop")
    heard = partition.lane._stating.dump()["sightings"]["kinds"]  # noqa: SLF001
    assert heard == [[0, "wms", ["received", "shipped"]], [1, "wms", ["received"]]]


def test_a_location_is_believed_as_much_as_was_told_last(partition: Partition) -> None:
    """Each time it is told, and again after it is trusted again."""
    promised = []
    for percent in (50, 10, 100):
        partition.given({"kind": "location", "location": "east", "trust_percent": percent})
        (record,) = partition.said("reserved", "A", "east", "shop").availability
        assert partition.lane._plain._is_current  # noqa: SLF001
        promised.append(record.channels["web"].sellable - 20)  # what is in the other location
    assert promised == [0, 0, 0]
    partition.given(partition.movement("received", "A", units=1000))
    for percent, sellable in ((50, 485), (10, 96), (100, 950)):
        partition.given({"kind": "location", "location": "east", "trust_percent": percent})
        (record,) = partition.said("reserved", "A", "east", "shop").availability
        assert record.channels["web"].sellable - 20 == sellable


def test_a_location_is_believed_as_told_though_redis_was_told_in_between(partition: Partition) -> None:
    """What it is told at the end of a batch brings columns up to date, and must not hide that trust has changed."""
    partition.teller = partition.lane.teller("avail:")
    partition.given(partition.movement("received", "A", units=1000))
    for percent, sellable in ((50, 500), (10, 99), (100, 980)):
        partition.given({"kind": "location", "location": "east", "trust_percent": percent})
        partition.said("reserved", "A", "east", "shop")
        sold = partition.lane._availability(partition.lane._stock.names.row("A"))  # noqa: SLF001
        assert sold.channels["web"].sellable - 20 == sellable


def test_there_are_only_so_many_classes_of_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further SKUs go row by row: columns are made anew for each class."""
    monkeypatch.setattr(rule_columns, "CLASSES_MAX", 2)
    rules = tuple(Rule(sku=f"SKU-{number}", channel="web", safety_units=number) for number in range(4))
    book, plain = RuleBook(Rules(channels={"web": ChannelRules()}, rules=rules)), PlainRules(IndexedNames(), Names())
    assert [plain.class_of(book.resolve(f"SKU-{number}", 0)) for number in (0, 1, 2, 1)] == [0, 1, ABSENT, 1]
