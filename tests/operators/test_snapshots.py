"""Snapshots: whatever stands in a lane's columns, rings and lists comes back from its blob, and nothing else does."""

import random
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.configuration import load_rules
from operators import packing, plain
from operators.columns import Array, Columns, Grid
from operators.lane import Lane, LaneSettings
from operators.packing import BLOCK, WORD_SLOTS
from operators.positions import QUANTITIES
from operators.route import route
from operators.rules import RuleBook
from operators.snapshots import Dense, SnapshotError, pack, unpack
from operators.windows import DAYS, HOURS
from schemas.batches import Batch
from schemas.outputs import LaneResult
from schemas.rules import Rules
from schemas.times import LATEST_MS
from tests.faults.load import draw_load, rules_text
from tests.operators.test_campaign_load import BEGIN_MS, Log, batches_of, log_of
from tests.stories import LOG, RULES

SECOND_FORMAT = Path(__file__).parent / "snapshots" / "lane-format-2.bin"
FOURTH_FORMAT = Path(__file__).parent / "snapshots" / "lane-format-4.bin"
FIFTH_FORMAT = Path(__file__).parent / "snapshots" / "lane-format-5.bin"
SETTINGS = LaneSettings(1, 1, 72 * 3_600_000)
TYPES: dict[str, type[np.generic]] = {"wide": np.int64, "narrow": np.int8, "middle": np.int32, "wider": np.int64}
BEFORE: dict[str, type[np.generic]] = dict.fromkeys(("position", "hour", "day"), np.int32)
BOUNDS = {np.dtype(type_): (np.iinfo(type_).min, np.iinfo(type_).max) for type_ in (np.int64, np.int32, np.int8)}
OF_THE_PROCESS = {  # how it came here, of which nothing follows
    *("touched", "edits", "classes", "special", "obligation"),
    *("hour_row", "hour_units", "day_row", "day_units"),  # what they say is compared as hours and days
}
SEEDS = st.integers(0, 2**32 - 1)


def column_of(type_: type[np.generic], shape: int, rows: int, seed: int) -> Array:
    """Numbers of one of the shapes that columns have: constant, anything, small, rising, falling, both ends."""
    low, high = BOUNDS[np.dtype(type_)]
    chance = np.random.default_rng(seed)
    anything = chance.integers(low, high, rows, np.int64, endpoint=True)
    shapes = (
        np.full(rows, low),
        anything,
        chance.integers(-3, 3, rows),
        np.cumsum(chance.integers(0, 1 << chance.integers(1, 50), rows)),
        -np.arange(rows) * int(chance.integers(1, 2**40)),
        np.where(anything > 0, high, low),
        np.where(chance.random(rows) < 0.01, anything, 7),
    )
    return shapes[shape].astype(type_)


def came_back(columns: Columns) -> Columns:
    """What is left of columns after a snapshot."""
    again = Columns(TYPES)
    again.load(unpack(pack({"columns": columns.dump()}))["columns"])
    return again


def columns_of(shapes: list[int], rows: int, seed: int) -> Columns:
    """Columns of these shapes, with room behind them that is not theirs."""
    columns = Columns(TYPES)
    columns.add_rows(rows)
    for place, (name, type_) in enumerate(TYPES.items()):
        columns[name][:] = column_of(type_, shapes[place], rows, seed + place)
    columns.make_room(3)
    return columns


@given(
    shapes=st.lists(st.integers(0, 6), min_size=4, max_size=4),
    rows=st.one_of(st.integers(0, 40), st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 2])),
    seed=SEEDS,
)
def test_columns_of_any_numbers_come_back(shapes: list[int], rows: int, seed: int) -> None:
    """The smallest and the largest beside each other, too: what does not fit into a word's bits is taken modulo."""
    columns = columns_of(shapes, rows, seed)
    again = came_back(columns)
    assert again.rows == rows
    for name in TYPES:
        assert again[name].tolist() == columns[name].tolist()


@pytest.mark.parametrize(("shape", "bytes_max"), [(0, 60), (2, 400), (6, 900)])
def test_usual_columns_take_few_bytes(shape: int, bytes_max: int) -> None:
    """A thousand numbers that are all the same, that need three bits, and of which one in a hundred is large."""
    numbers = Columns({"wide": np.int64})
    numbers.add_rows(1000)
    numbers["wide"][:] = column_of(np.int32, shape, 1000, 1)
    assert len(numbers.dump()["numbers"].bytes_) < bytes_max * (4 if shape == 6 else 1)


def test_columns_of_other_lengths_are_refused() -> None:
    """Fewer rows or bytes than were packed, or more, are another state."""
    columns = columns_of([1, 2, 3, 4], 300, 5)
    dumped = columns.dump() | {"numbers": columns.dump()["numbers"].bytes_}
    Columns(TYPES).load(dumped)
    for wrong in (
        *(dumped | {"numbers": dumped["numbers"][:end]} for end in range(0, len(dumped["numbers"]), 5)),
        dumped | {"numbers": dumped["numbers"] + b"\0"},
        dumped | {"rows": 299},
        dumped | {"rows": 600},
        dumped | {"names": ["wide", "narrow", "middle"]},
    ):
        with pytest.raises(ValueError, match="column"):
            Columns(TYPES).load(wrong)


def test_a_head_of_which_any_bit_has_flipped_is_refused() -> None:
    """One that says an older format, too: its bytes would be taken for something else."""
    blob = Lane(0, RuleBook(RULES), SETTINGS).snapshot()
    for bit in range(8 * 14):
        damaged = bytearray(blob)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SnapshotError):
            unpack(bytes(damaged))


def test_dense_bytes_come_back_in_their_places() -> None:
    """They stand outside of what is compressed, in order; what is no plain value is not packed at all."""
    state = unpack(pack({"a": Dense(b"one"), "b": [1, Dense(b""), {"c": Dense(b"three")}]}))
    assert (bytes(state["a"]), bytes(state["b"][1]), bytes(state["b"][2]["c"])) == (b"one", b"", b"three")
    with pytest.raises(TypeError, match="plain values"):
        pack({"a": object()})


def everything(lane: Lane) -> dict[str, object]:
    """All columns of a lane, with those that follow from others, and what else depends on how it is packed."""
    stock, found = lane._stock, {}  # noqa: SLF001
    ids = lane._ids.ids  # noqa: SLF001
    windows = (stock.demand_windows, stock.return_windows)
    columns = [stock.skus, stock.positions, stock.tables()[2], stock.history._entries, stock.history._anchors]  # noqa: SLF001
    for number, table in enumerate([*columns, *(window._columns for window in windows)]):  # noqa: SLF001
        for name in table.table.dtype.names or ():
            if name not in OF_THE_PROCESS:
                found[f"{number} {name}"] = table[name].tolist()
    skus, positions = range(stock.skus.rows), range(stock.positions.rows)
    return found | {
        "standings": {name: column.tolist() for name, column in stock.tables()[2].with_obligations().items()},
        "ids": [ids[name].tolist() for name in ids.dtype.names or ()],
        "known": [lane._ids.knows(int(hash_), int(sku)) for hash_, sku in zip(ids["hash"], ids["sku"], strict=True)],  # noqa: SLF001
        "facts": [(lane._facts.of(sku), lane._facts.sightings(sku)) for sku in skus],  # noqa: SLF001
        "windows": [(window.hours(row), window.days(row)) for window in windows for row in positions],
        "rules": [stock.rules_of(sku) for sku in skus],
        "shown": [lane._availability(sku) for sku in skus if stock.is_shown(sku)],  # noqa: SLF001
        "names": [stock.names.row(name) for name in stock.names],
    }


def campaign(seed: int, folder: Path) -> tuple[Log, Rules]:
    """A log with everything in it that a lane may meet, and rules for it."""
    path = folder / "rules.toml"
    path.write_text(rules_text(draw_load(random.Random(seed)), seed, 1, BEGIN_MS))
    return log_of(seed), load_rules(path)


@pytest.mark.parametrize("seed", [3, 18, 20])
def test_a_lane_goes_on_as_if_it_had_never_been_packed(seed: int, tmp_path: Path) -> None:
    """It is restored over and over, between any batches; what it tells and what it holds is the same."""
    log, rules = campaign(seed, tmp_path)
    book, chance = RuleBook(rules), random.Random(seed)
    calm, restored = Lane(0, book, SETTINGS), Lane(0, book, SETTINGS)
    for batch in batches_of(log, seed):
        ((_, part),) = route(batch, 1)
        told: list[LaneResult] = [lane.apply([part]) for lane in (calm, restored)]
        assert told[0]._replace(rules=[]) == told[1]._replace(rules=[])
        if chance.random() < 0.3:
            restored = Lane.restore(0, restored.snapshot(), book, SETTINGS)
    assert everything(restored) == everything(calm)


def test_facts_of_both_rings_come_back() -> None:
    """More sources than are found again, facts that only one ring holds, and quantities below zero."""
    lane, book = Lane(0, RuleBook(RULES), SETTINGS), RuleBook(RULES)
    payloads = [payload for number in range(3 * WORD_SLOTS) for payload in facts_of(number)]
    lane.apply([log_piece(payloads, 0)])
    before = everything(lane)
    blob = lane.snapshot()
    assert unpack(blob)["facts"]["word_count"] > WORD_SLOTS // 2
    again = Lane.restore(0, blob, book, SETTINGS)
    assert everything(again) == before
    kinds = {fact.kind for sku in range(200) for fact in again._facts.of(sku)}  # noqa: SLF001
    assert kinds == {"received", "adjusted", "counted"}
    more = [payload for number in range(4000, 4030) for payload in facts_of(number)]
    for one in (lane, again):
        one.apply([log_piece(more, len(payloads))])
    assert everything(again) == everything(lane)


def facts_of(number: int) -> list[bytes]:
    """Goods that came from a source of its own, one that is found missing, and now and then nine counts after it."""
    sku, time = f"SKU-{number % 500}", f"2026-11-21T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}Z"
    kinds = [
        ("received", f"system-{number}", 5, ""),
        ("adjusted", "wms", -(number % 7) - 1, ',"reason":"x"'),
        *(("counted", "wms", 4, "") for _ in range(9 if number % 500 < 100 else 0)),
    ]
    return [
        f'{{"id":"{kind}-{number}-{place}","source":"{source}","kind":"{kind}","sku":"{sku}","location":"east",'
        f'"quantity":{quantity},"time":"{time}"{more}}}'.encode()
        for place, (kind, source, quantity, more) in enumerate(kinds)
    ]


def log_piece(payloads: list[bytes], first: int) -> Batch:
    """These records, from offset `first` on."""
    count = len(payloads)
    keys = [msgspec.json.decode(payload)["sku"].encode() for payload in payloads]
    return Batch(LOG, list(range(first, first + count)), [-1] * count, keys, list(payloads))


def test_both_files_of_compiled_loops_have_one_layout_of_facts() -> None:
    """What one writes in memory the other packs; neither can take the other's numbers."""
    assert (packing.KEPT, packing.HEAD_BYTES) == (plain.KEPT, plain.FACT_HEAD_BYTES)
    assert (packing.KIND_AT, packing.DIRECTION_AT) == (plain.KIND_AT, plain.DIRECTION_AT)
    assert (packing.PACKED, packing.DIRECTIONS) == (plain.PACKED, plain.NEGATIVE)
    assert (packing.NEXT_MASK, packing.TIME_MASK) == (plain.NEXT_MASK, plain.TIME_MASK)


def test_both_files_of_compiled_loops_have_one_layout_of_stamps() -> None:
    """Of the history's entries; there is room for each quantity, and for all times that are heard."""
    assert packing.STAMP_BITS == plain.STAMP_BITS
    assert len(QUANTITIES) - 1 <= plain.STAMP_QUANTITY
    assert plain.STAMP_QUANTITY & plain.STAMP_COUNT == 0
    assert plain.STAMP_QUANTITY | plain.STAMP_COUNT < 1 << plain.STAMP_BITS
    assert LATEST_MS << plain.STAMP_BITS < 2**63


def test_the_second_format_is_restored() -> None:
    """A stored snapshot with requests, counts and statements in it: each column is what its bytes say."""
    blob, book = SECOND_FORMAT.read_bytes(), RuleBook(RULES)
    state = unpack(blob)
    lane = Lane.restore(0, blob, book, SETTINGS)
    stock = lane._stock  # noqa: SLF001
    positions, entries = state["stock"]["position_columns"], state["stock"]["history"]["entries"]
    of_history = stock.history._entries  # noqa: SLF001
    for table, dumped in (
        (stock.skus, state["stock"]["sku_columns"]),
        (stock.positions, positions),
        (stock.tables()[2].with_obligations(), state["stock"]["standing_columns"]),
        ({"previous": of_history["previous"]} | of_history.without_stamps(), entries),
    ):
        for name, bytes_ in dumped.items():
            assert table[name].tolist() == np.frombuffer(bytes_, table[name].dtype).tolist(), name
    assert lane._ids.ids["hash"].tobytes() == state["ids"]["hash"]  # noqa: SLF001
    assert stock.positions.rows > 100
    again = Lane.restore(0, lane.snapshot(), book, SETTINGS)
    assert everything(again) == everything(lane)


def test_the_fourth_format_is_restored() -> None:
    """Each position had rows of 24 hours and 29 days there: most are given up, and what they say stays the same."""
    blob, book = FOURTH_FORMAT.read_bytes(), RuleBook(RULES)
    lane = Lane.restore(0, blob, book, SETTINGS)
    seen = Counter[tuple[int, int]]()
    for kind, windows in (("demand", lane._stock.demand_windows), ("return", lane._stock.return_windows)):  # noqa: SLF001
        dumped = unpack(blob)["stock"][f"{kind}_windows"]
        columns, grids = Columns(BEFORE), {"hour": Grid(HOURS), "day": Grid(DAYS)}
        columns.load(dumped["columns"])
        for unit, grid in grids.items():
            grid.load(dumped[f"{unit}s"])
        for row, position in enumerate(columns["position"].tolist()):
            told = {"hour": windows.hours(position), "day": windows.days(position)}
            for unit, grid in grids.items():
                newest = int(columns[unit][row])
                spans = {newest - back: grid.row(row)[(newest - back) % grid.width] for back in range(grid.width)}
                assert told[unit] == {at: units for at, units in spans.items() if units}
            seen[len(told["hour"]), len(told["day"])] += 1
        of_many = [sum(len(of(at)) > 1 for at in columns["position"].tolist()) for of in (windows.hours, windows.days)]
        assert windows.rows == (columns.rows, *of_many)
    assert {(1, 1), (3, 1)} <= set(seen)
    again = Lane.restore(0, lane.snapshot(), book, SETTINGS)
    assert everything(again) == everything(lane)


def test_what_the_fifth_format_says_is_written_again() -> None:
    """Contracts, debts, counts, the first time and the last one: a release that wrote it reads what this one writes."""
    blob, book = FIFTH_FORMAT.read_bytes(), RuleBook(RULES)
    lane = Lane.restore(0, blob, book, SETTINGS)
    stock = lane._stock  # noqa: SLF001
    before, after = unpack(blob)["stock"], unpack(lane.snapshot())["stock"]
    assert after == before
    bound = {name: np.count_nonzero(column) for name, column in stock.tables()[2].with_obligations().items()}
    del bound["sku"], bound["channel"]
    assert min(bound.values()) > 1, bound
