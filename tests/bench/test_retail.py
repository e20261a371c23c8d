"""Real sales lines as movements: what each line becomes, and that the month that is shipped works."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from bench.generate import benchmark_rules
from bench.oracle import Message, Oracle, fold
from bench.retail import Line, london_ms, movements, opening_stock, read_lines, write_month
from schemas.batches import Origin
from schemas.times import format_ms

MONTH = Path(__file__).resolve().parents[2] / "examples" / "movements" / "online_retail_2010-12.csv.gz"
HEADER = "invoice,sku,quantity,time,country\n"
FILE = Origin("file", "retail", 0, "retail.csv")


def bodies(tmp_path: Path, *lines: str) -> list[dict[str, object]]:
    """What `lines` become, without opening stock and ticks."""
    path = tmp_path / "lines.csv"
    path.write_text(HEADER + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    found = [json.loads(payload) for _, payload in movements(read_lines(path))]
    return [body for body in found if str(body.get("source", "")).startswith("shop")]


def folded(lines: list[Line]) -> Oracle:
    """The oracle after all movements of `lines`."""
    records = [Message(FILE, offset, -1, *message) for offset, message in enumerate(movements(lines))]
    return fold(records, benchmark_rules(), dedupe_ms=72 * 3_600_000)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("536365,85123A,6,2010-12-01 08:26:00,United Kingdom",
         {"kind": "shipped", "quantity": 6, "sku": "85123A", "location": "dc-uk", "id": "536365-1"}),
        ("536365,85123A,6,2010-12-01 08:26:00,France", {"kind": "shipped", "location": "dc-eu"}),
        ("C536379,22632,-3,2010-12-01 09:41:00,EIRE", {"kind": "returned", "quantity": 3, "location": "dc-uk"}),
        ("536589,21777,-10,2010-12-01 16:50:00,United Kingdom",
         {"kind": "adjusted", "quantity": -10, "reason": "negative sales line"}),
        ("536365,22632,0,2010-12-01 08:26:00,United Kingdom", {"kind": "shipped", "quantity": 0}),
        ("536365,POST,3,2010-12-01 08:26:00,France", {"kind": "shipped", "sku": "POST", "location": None}),
        ("C536379,D,-1,2010-12-01 09:41:00,United Kingdom", {"kind": "returned", "sku": "D", "location": None}),
        ("536365,gift_0001_20,1,2010-12-01 08:26:00,EIRE", {"sku": "gift_0001_20", "location": None}),
        ("536365,DCGSSBOY,1,2010-12-01 08:26:00,EIRE", {"sku": "DCGSSBOY", "location": "dc-uk"}),
        ("536365,22632,1,2010-12-01 08:26:00,EIRE", {"time": "2010-12-01T08:26:00.000Z", "document": "536365"}),
        ("540000,22632,1,2011-06-01 08:26:00,EIRE", {"time": "2011-06-01T07:26:00.000Z"}),
    ],
)  # fmt: skip
def test_a_line_becomes_a_movement(tmp_path: Path, line: str, expected: dict[str, object]) -> None:
    """Sales ship, cancellations come back, other negatives are corrections, and what is no goods has no location."""
    (body,) = bodies(tmp_path, line)
    assert {name: body.get(name) for name in expected} == expected


def test_repeated_lines_keep_their_own_ids(tmp_path: Path) -> None:
    """Two equal lines of an invoice are two sales, not a duplicate."""
    line = "536409,21866,1,2010-12-01 11:45:00,United Kingdom"
    assert [body["id"] for body in bodies(tmp_path, line, line)] == ["536409-1", "536409-2"]


@pytest.mark.parametrize(
    ("local", "utc"),
    [
        ("2010-12-01 08:26:00", "2010-12-01T08:26:00.000Z"),
        ("2011-03-27 00:59:59", "2011-03-27T00:59:59.000Z"),
        ("2011-03-27 02:00:00", "2011-03-27T01:00:00.000Z"),
        ("2011-07-31 16:04:00", "2011-07-31T15:04:00.000Z"),
        ("2011-10-30 00:59:59", "2011-10-29T23:59:59.000Z"),
        ("2011-10-30 02:00:00", "2011-10-30T02:00:00.000Z"),
    ],
)
def test_local_british_time_becomes_utc(local: str, utc: str) -> None:
    """Summer time begins and ends on the last Sundays of March and October."""
    assert format_ms(london_ms(local)) == utc


def test_opening_stock_is_what_the_first_weeks_sold_and_ten_more() -> None:
    """Later sales, returns and what is no goods do not count."""
    day_ms = 86_400_000
    lines = [
        Line("1", 1, "22632", 5, 0, "EIRE"),
        Line("C2", 1, "22632", -5, day_ms, "EIRE"),
        Line("3", 1, "22632", 7, 13 * day_ms, "France"),
        Line("3", 2, "POST", 1, 13 * day_ms, "France"),
        Line("4", 1, "22632", 9, 14 * day_ms, "EIRE"),
    ]
    assert opening_stock(lines) == {("22632", "dc-uk"): 15, ("22632", "dc-eu"): 17}


def test_the_month_that_is_shipped_runs_some_skus_low_and_out() -> None:
    """Every line is used or set aside with a reason, and the stock ends neither full nor empty."""
    lines = read_lines(MONTH)
    oracle = folded(lines)
    assert len(lines) == 42_481
    assert Counter(oracle.dead_letters.values()) == {"missing_field": 195}
    assert oracle.duplicates == 0
    assert oracle.messages == oracle.applied + oracle.controls + 195
    levels = Counter(offer.level for (_, channel), offer in oracle.channels.items() if channel == "web")
    assert all(levels[level] > 50 for level in ("in_stock", "low_stock", "out_of_stock"))


def test_ticks_and_times_never_go_back() -> None:
    """The hour is told before the first line in it, so that lines of a file carry time."""
    bodies = [json.loads(payload) for _, payload in movements(read_lines(MONTH))]
    times = [body["time"] for body in bodies]
    assert times == sorted(times)
    assert sum(body["kind"] == "tick" for body in bodies) > 100


def test_a_month_is_cut_out_the_same_way_each_time(tmp_path: Path) -> None:
    """The same lines give the same bytes, and nothing of another month."""
    source = tmp_path / "all.csv"
    december, january = ("1,22632,5,2010-12-01 08:26:00,EIRE\n", "2,22632,5,2011-01-04 10:00:00,EIRE\n")
    source.write_text(HEADER + december + january, encoding="utf-8")
    for name in ("one.gz", "two.gz"):
        write_month(source, "2010-12", tmp_path / name)
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()
    assert gzip.decompress((tmp_path / "one.gz").read_bytes()).decode() == HEADER + december


def test_a_file_with_another_header_is_not_read(tmp_path: Path) -> None:
    """Columns in another order would become wrong stock."""
    path = tmp_path / "other.csv"
    path.write_text("sku,invoice\n", encoding="utf-8")
    with pytest.raises(ValueError, match="begins with"):
        read_lines(path)
