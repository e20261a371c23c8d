"""History: whatever changed is known with its time and its quantity, however early, late, small or large."""

import msgspec
import pytest

from operators.generations import Generations
from operators.history import NEVER, Entries, stamp_of
from operators.lane import Lane, LaneSettings
from operators.plain import KIND_NAMES
from operators.positions import QUANTITIES
from operators.rules import RuleBook
from operators.snapshots import pack, unpack
from operators.stock import Stock
from operators.ticks import Clocks
from operators.trust import Trust
from schemas.batches import Batch
from schemas.rules import ChannelRules, Rules
from schemas.times import LATEST_MS, format_ms
from tests.stories import BEGIN_MS, LOG

BOOK = RuleBook(Rules(channels={"web": ChannelRules()}))
TIMES_MS = (0, 1, 255, 256, BEGIN_MS, BEGIN_MS + 1, LATEST_MS - 1, LATEST_MS)
BYTES_MAX = 24  # of an entry: a position has several
FOR_EVER_MS = 2**60


def stock_of(as_of_ms: int = FOR_EVER_MS) -> Stock:
    """One with two positions of a SKU, whose rows are 0 and 1."""
    generations, clocks = Generations(BOOK), Clocks()
    generations.add_origin()
    clocks.add_origin()
    stock = Stock(generations, clocks, Trust(), as_of_ms, history_max=100)
    stock.add_sku("A", 0, 0)
    for location in ("east", "west"):
        stock.reach(0, location, 1)
    return stock


def restored(stock: Stock, as_of_ms: int = FOR_EVER_MS) -> Stock:
    """What is left of it after a snapshot."""
    generations, clocks = Generations(BOOK), Clocks()
    generations.add_origin()
    clocks.add_origin()
    again = Stock(generations, clocks, Trust(), as_of_ms, history_max=100)
    again.load(unpack(pack(stock.dump())))
    return again


def test_an_entry_takes_few_bytes() -> None:
    """There are several for each position."""
    assert Entries().table.dtype.itemsize <= BYTES_MAX


@pytest.mark.parametrize("quantity", range(len(QUANTITIES)))
def test_a_change_counts_from_its_own_millisecond_on(quantity: int) -> None:
    """From the first time that is heard to the last one, for its quantity and its position alone."""
    stock, other = stock_of(), (quantity + 1) % len(QUANTITIES)
    for place, time_ms in enumerate(TIMES_MS):
        stock.history.change(0, quantity, time_ms, 10**place)
        stock.history.change(0, other, time_ms, -(2**40) - place)
        stock.history.change(1, quantity, time_ms, 7)
    for one in (stock, restored(stock)):
        for at_ms in {time_ms + more for time_ms in TIMES_MS for more in (-1, 0, 1)}:
            told = [place for place, time_ms in enumerate(TIMES_MS) if time_ms <= at_ms]
            assert one.history.value_at(0, quantity, at_ms) == sum(10**place for place in told)
            assert one.history.value_at(0, other, at_ms) == sum(-(2**40) - place for place in told)
            assert one.history.value_at(1, quantity, at_ms) == 7 * len(told)


@pytest.mark.parametrize("quantity", range(len(QUANTITIES)))
@pytest.mark.parametrize("time_ms", TIMES_MS)
def test_a_count_holds_as_of_its_own_millisecond(quantity: int, time_ms: int) -> None:
    """What is dated at or before it is part of it, of its quantity alone, across a snapshot as well."""
    stock = stock_of()
    stock.history.change(0, quantity, 0, 3)
    stock.history.count(0, quantity, time_ms, 50)
    for one in (stock, restored(stock)):
        for at_ms, units in ((time_ms, 4), (max(0, time_ms - 1), 8), (time_ms + 1, 16)):
            for of in range(len(QUANTITIES)):
                one.history.change(0, of, at_ms, units)
        assert [one.history.value_at(0, of, time_ms) for of in range(len(QUANTITIES))] == [
            50 if of == quantity else 4 + 8 for of in range(len(QUANTITIES))
        ]
        assert one.history.value_at(0, quantity, time_ms + 1) == 50 + 16
        assert time_ms == 0 or one.history.value_at(0, quantity, time_ms - 1) == 3 + 8


def test_a_change_between_two_counts_is_part_of_the_later_one() -> None:
    """Each a millisecond away: the earlier one stays as it was counted, and so does what came of the later one."""
    stock = stock_of()
    stock.history.count(0, 2, BEGIN_MS - 1, 20)
    stock.history.count(0, 2, BEGIN_MS + 1, 50)
    stock.history.count(0, 1, BEGIN_MS, 70)
    for one in (stock, restored(stock)):
        one.history.change(0, 2, BEGIN_MS, 4)
        found = [one.history.value_at(0, 2, BEGIN_MS + more) for more in (-2, -1, 0, 1)]
        assert found == [0, 20, 24, 50]
        assert (one.value(0, QUANTITIES[2]), one.value(0, QUANTITIES[1])) == (50, 70)


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_count_that_is_forgotten_leaves_its_time_with_its_quantity(*, is_whole: bool) -> None:
    """Nothing dated at or before it may count twice; of those that are kept nothing is said."""
    stock = stock_of(as_of_ms=1000)
    for time_ms, quantity in ((5000, 6), (4000, 3), (4500, 3)):
        stock.history.count(0, quantity, time_ms, 9)
    stock.reach(0, "east", 5600)  # its horizon is 4600 now
    one = restored(stock, as_of_ms=1000) if is_whole else stock
    one.history.dump()
    anchors = one.history._anchors  # noqa: SLF001
    found = zip(*(anchors[name].tolist() for name in ("quantity", "last_ms", "dropped_ms")), strict=True)
    assert sorted(found) == [(3, 4500, 4500), (6, 5000, NEVER)]
    one.history.count(0, 6, 4900, 5)
    assert (one.value(0, QUANTITIES[6]), one.history.value_at(0, 6, 4950)) == (9, 5)


def test_stamps_go_by_time() -> None:
    """However they differ otherwise, and before 1970 as well, though nobody tells of that."""
    times_ms = (-(2**50), -257, -1, *TIMES_MS)
    stamps = [
        stamp_of(time_ms, of, is_count=is_count) for time_ms in times_ms for is_count in (False, True) for of in (0, 6)
    ]
    assert stamps == sorted(stamps)
    entries = Entries()
    entries.add_rows(len(stamps))
    entries["stamp"][:] = stamps
    assert entries.times_ms.tolist() == [time_ms for time_ms in times_ms for _ in range(4)]
    assert entries.quantities.tolist() == [0, 6, 0, 6] * len(times_ms)
    assert entries.counts.tolist() == [False, False, True, True] * len(times_ms)


@pytest.mark.parametrize("time_ms", [1, LATEST_MS])
def test_loops_enter_what_rows_do(time_ms: int) -> None:
    """Movements of all plain kinds, at the first time that loops take and at the last one."""
    entered = []
    for by_rows in (False, True):
        lane = Lane(0, BOOK, LaneSettings(1, 1, 3_600_000))
        if by_rows:
            lane._is_plain = lambda: False  # type: ignore[method-assign]  # noqa: SLF001
        payloads = [movement(kind, time_ms) for kind in KIND_NAMES]
        count = len(payloads)
        result = lane.apply([Batch(LOG, list(range(count)), [-1] * count, [b"A"] * count, [*payloads])])
        assert result.applied == count
        assert lane.row_wise == (count if by_rows else 0)
        entries = lane._stock.history._entries.without_stamps()  # noqa: SLF001
        entered.append({name: column.tolist() for name, column in entries.items()})
    assert entered[0] == entered[1]
    assert set(entered[0]["time_ms"]) == {time_ms}
    assert {QUANTITIES[of] for of in entered[0]["quantity"]} == {*QUANTITIES} - {"incoming"}
    assert set(entered[0]["anchor"]) == {0}


def movement(kind: str, time_ms: int) -> bytes:
    """Three units at `east`; a transfer goes to `west`."""
    more = {"destination": "west"} if kind == "transfer_shipped" else {"reason": "x"} if kind == "adjusted" else {}
    common = {"id": kind, "source": "wms", "kind": kind, "sku": "A", "location": "east", "quantity": 3}
    return msgspec.json.encode(common | {"time": format_ms(time_ms)} | more)
