"""Whatever changes a lane's columns beside compiled loops, these see them as they are."""

import itertools
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from operators.columns import Columns, Pairs
from operators.lane import Lane, LaneSettings
from operators.plain import _standing_of
from operators.plain_path import ROOM_NEW_MAX
from operators.rules import RuleBook
from schemas.batches import Batch
from schemas.rules import ChannelRules, Rules
from tests.lane_runs import assert_columns_known
from tests.movement_strategies import origin

SETTINGS = LaneSettings(1, 7, dedupe_ms=3_600_000)
KEPT_MANY = 3000


class Log:
    """A lane, and records for it; after each batch its columns are looked at."""

    def __init__(self) -> None:
        self.lane = Lane(0, RuleBook(Rules(channels={"web": ChannelRules()})), SETTINGS)
        self._numbers: Iterator[int] = itertools.count()

    def given(self, *records: tuple[str, str, str]) -> None:
        """Kind, SKU and location of each."""
        numbers = [next(self._numbers) for _ in records]
        payloads: list[bytes | None] = [
            msgspec.json.encode(
                {
                    "id": str(number),
                    "source": "wms",
                    "kind": kind,
                    "sku": sku,
                    "location": location,
                    "quantity": 1,
                    "time": "2026-11-21T09:00:00Z",
                    **({"of": "on_hand"} if kind == "counted" else {}),
                    **({"destination": location} if kind == "transfer_shipped" else {}),
                }
            )
            for number, (kind, sku, location) in zip(numbers, records, strict=True)
        ]
        keys: list[bytes | None] = [sku.encode() for _, sku, _ in records]
        self.lane.apply([Batch(origin(0), numbers, [-1] * len(numbers), keys, payloads)])
        assert_columns_known(self.lane)


@pytest.fixture
def log() -> Log:
    """One with a plain movement behind it."""
    log = Log()
    log.given(("received", "A", "east"))
    assert log.lane._plain._is_current  # noqa: SLF001  # else nothing is looked at here
    return log


def test_a_large_batch_leaves_no_room_for_as_many_new_positions(log: Log) -> None:
    """What a catch-up brings are mostly positions that are known: tables for all of it would stay that long."""
    log.given(*(("received", "A", "east") for _ in range(8 * ROOM_NEW_MAX)))
    positions, _, standings, _ = log.lane._stock.tables()  # noqa: SLF001
    assert positions.capacity < 2 * ROOM_NEW_MAX
    assert standings.capacity < 2 * ROOM_NEW_MAX
    log.given(*(("received", f"S{number}", "east") for number in range(3 * ROOM_NEW_MAX)))
    assert positions.rows == 1 + 3 * ROOM_NEW_MAX  # there was room for these


def test_a_record_that_went_by_itself_is_seen(log: Log) -> None:
    """A count makes a position, an entry of its history and an id."""
    log.given(("counted", "A", "west"))
    log.given(("received", "A", "west"), ("counted", "B", "east"), ("received", "A", "west"))


def test_new_skus_and_locations_are_seen(log: Log) -> None:
    """So many that tables move."""
    log.given(*(("received", f"SKU-{number}", f"place-{number % 7}") for number in range(500)))
    log.given(*(("received", f"SKU-{number}", f"place-{number % 40}") for number in range(300, 700)))


def test_a_snapshot_is_seen(log: Log) -> None:
    """It cleans what it packs."""
    for _ in range(3):
        log.given(*(("received", "A", "east") for _ in range(20)))
        log.lane.snapshot()
        assert_columns_known(log.lane)


def test_a_transfer_to_where_it_comes_from_makes_one_position() -> None:
    """Both ends are looked for before either is made."""
    log = Log()
    log.given(("transfer_shipped", "A", "east"))
    assert log.lane._plain._is_current  # noqa: SLF001  # it went through compiled loops
    assert log.lane.position_count == 1


def test_a_standing_is_the_right_one_wherever_it_is_looked_for_first() -> None:
    """A guess may lead to another SKU, to another channel, or behind the last row, where there are zeros."""
    standings = Columns({"sku": np.int32, "channel": np.int32})
    pairs = Pairs(standings, "sku", "channel")
    known = [(5, 0), (5, 2), (6, 2), (7, 1), (7, 0)]
    rows = {pair: pairs.add(*pair) for pair in known}
    for sku, channel in [*known, (0, 0), (6, 0), (5, 1)]:
        for guess in range(-1, 9):
            found = _standing_of(standings.table, pairs.table.slots, standings.rows, sku, channel, guess)
            assert found == rows.get((sku, channel), -1)


def test_nothing_is_left_to_compile_after_warming_up() -> None:
    """In a process of its own: what a flow meets is compiled before its first movement, or it would wait for that."""
    subprocess.run([sys.executable, "-c", COMPILED_LATER], check=True)


COMPILED_LATER = """
from operators import packing, plain
from operators.lane import Lane, warm_up
from operators.route import lane_of_sku, route
from operators.rules import RuleBook
from tests.lane_runs import batch_of
from tests.operators.test_telling import PREFIX, SETTINGS, batch_for, shipped
from tests.rule_storms import Storm

def compiled():
    functions = {**vars(packing), **vars(plain)}
    return {name: len(value.overloads) for name, value in functions.items() if hasattr(value, "overloads")}

warm_up()
before = compiled()
for seed in range(40):
    storm = Storm(seed, misplaced=False, calm=seed % 2 == 0)
    lane = Lane(0, RuleBook(storm.rules), SETTINGS)
    teller = lane.teller(PREFIX)
    for log in storm.logs():
        for _, part in route(batch_of(log), 1):
            lane.apply([part], teller=teller)
    lane_of_sku("A", 1)
    lane.tell(teller, 100)
    lane.begin_refill()
    lane.refill(100, teller)
    Lane.restore(0, lane.snapshot(), RuleBook(storm.rules), SETTINGS)
huge = [shipped(number, "A", "east", day).replace(b":3,", b":2000000000,") for number, day in enumerate([1, 2, 2])]
lane = Lane(0, RuleBook(storm.rules), SETTINGS)
lane.apply([batch_for("A", huge)])
assert lane._stock.demand_windows.is_wide
Lane.restore(0, lane.snapshot(), RuleBook(storm.rules), SETTINGS)
assert len(before) > 30
assert compiled() == before, set(compiled().items()) - set(before.items())
"""


def test_room_that_was_made_is_seen(log: Log) -> None:
    """Everything grows in the middle of a batch."""
    log.given(*(("shipped", f"SKU-{number % 50}", "east") for number in range(KEPT_MANY)))
    assert log.lane.apply([]).applied == 0
    assert_columns_known(log.lane)
