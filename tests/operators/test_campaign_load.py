"""The load of the campaign of faults, without faults: compiled loops and rows come to the same."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.configuration import load_rules
from operators.lane import Lane, LaneSettings
from operators.route import route
from operators.rules import RuleBook
from schemas.batches import Batch
from schemas.outputs import Availability
from schemas.records import Encoded, each
from schemas.rules import Rules
from schemas.times import format_ms
from tests.faults.load import draw_load, load, rules_text
from tests.movement_strategies import origin

LANES = 4
MESSAGES = 6000
BATCHES = (1, 3, 20, 200, 1000)
BEGIN_MS = 1_795_763_640_000
Log = list[tuple[bytes | None, bytes, int]]  # key, payload, when it was written


def log_of(seed: int) -> Log:
    """What comes to the first partition, with a tick now and then."""
    clock = iter(range(BEGIN_MS, BEGIN_MS + 10**9))
    now = [BEGIN_MS]

    def now_ms() -> int:
        now[0] = next(clock)
        return now[0]

    messages: Log = []
    stream = load(draw_load(random.Random(seed)), seed, now_ms)
    while len(messages) < MESSAGES:
        partition, key, payload = next(stream)
        if partition == 0:
            messages.append((key or None, payload, now[0]))
        if random.Random(len(messages)).random() < 0.02:
            messages.append((None, b'{"kind":"tick","time":"%s"}' % format_ms(now_ms()).encode(), now[0]))
    return messages


def batches_of(log: Log, seed: int) -> Iterator[Batch]:
    """The log cut into pieces of all sizes."""
    chance, begin = random.Random(seed), 0
    while begin < len(log):
        part = log[begin : begin + chance.choice(BATCHES)]
        keys, payloads, times = zip(*part, strict=True)
        yield Batch(origin(0), list(range(begin, begin + len(part))), list(times), list(keys), list(payloads))
        begin += len(part)


def outcome_of(log: Log, seed: int, rules: Rules, *, by_rows: bool) -> tuple[dict[str, Availability], set[str]]:
    """What is shown of each SKU at the end, and the ids of all crossings."""
    book, settings = RuleBook(rules), LaneSettings(LANES, 1, 72 * 3_600_000)
    lanes = [Lane(number, book, settings) for number in range(LANES)]
    tellers = [None if by_rows else lane.teller("avail:") for lane in lanes]
    crossings: set[str] = set()
    for batch in batches_of(log, seed):
        for number, part in route(batch, LANES):
            if by_rows:
                lanes[number]._is_plain = lambda: False  # type: ignore[method-assign]  # noqa: SLF001
            for record in each(lanes[number].apply([part], teller=tellers[number]).thresholds):
                crossings.add(record.id.decode() if isinstance(record, Encoded) else record.id)
    shown: dict[str, Availability] = {}
    for lane in lanes:
        stock = lane._stock  # noqa: SLF001
        shown |= {stock.names[sku]: lane._availability(sku) for sku in range(stock.skus.rows) if stock.is_shown(sku)}  # noqa: SLF001
    return shown, crossings


@pytest.mark.parametrize("seed", [3, 18, 20])
def test_compiled_loops_and_rows_come_to_the_same(seed: int, tmp_path: Path) -> None:
    """With sources, mistrust, requests, counts, statements, late and bad records among the movements."""
    log, path = log_of(seed), tmp_path / "rules.toml"
    path.write_text(rules_text(draw_load(random.Random(seed)), seed, 1, BEGIN_MS))
    rules = load_rules(path)
    assert outcome_of(log, seed, rules, by_rows=False) == outcome_of(log, seed, rules, by_rows=True)
