"""What compiled loops write of a SKU is, byte for byte, what the row-wise functions and the sinks make of it."""

from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import telling
from operators.lane import Lane, LaneSettings
from operators.lane_step import LaneLogic, LaneMaking, LaneTurns
from operators.plain import write_crossings
from operators.route import Part, route
from operators.rules import RuleBook
from schemas.batches import Batch
from schemas.outputs import Availability, LaneResult, Threshold
from schemas.records import ABSENT, PLACES, VALUE_AT, Encoded, each
from schemas.rules import ChannelRules, LocationRules, Rule, Rules
from schemas.topics import AVAILABILITY, THRESHOLDS
from sinks.redis_availability import calls_of
from tests.lane_runs import batch_of, crossings_in
from tests.movement_strategies import AS_OF_MS, DEDUPE_MS, Logs, all_rules, long_logs, origin
from tests.rule_storms import Storm

pytestmark = pytest.mark.timeout(3600)  # finding the smallest counterexample takes its time
SETTINGS = LaneSettings(1, 1_763_800_000, DEDUPE_MS, AS_OF_MS)
PREFIX = "avail:"
CUTS = st.lists(st.integers(1, 400), max_size=6)


def texts_in(result: LaneResult) -> list[str | int]:
    """What all calls of a result hold, one text after the other."""
    return [text for call in result.hashes for text in msgspec.msgpack.decode(call.argument)]


def texts_of(records: list[Availability]) -> list[str | int]:
    """What the sink would send of these."""
    result = LaneResult(0, records, [], [], [], [], [], [], [], [], [], 0, 0, 0)
    return [text for _, texts in calls_of(PREFIX, [result]) for text in texts]


@settings(max_examples=30)  # each is hundreds of movements, told twice
@given(long_logs(), all_rules(), CUTS)
def test_what_is_told_is_what_would_be_told_row_by_row(logs: Logs, rules: Rules, cuts: list[int]) -> None:
    """Numbers, names, times and cover of days, however the log is cut."""
    assert_told_as_row_by_row(logs, rules, cuts)


@given(st.integers(0, 2**32), st.booleans(), CUTS)
def test_it_is_so_under_mistrust_and_changing_rules_too(seed: int, calm: bool, cuts: list[int]) -> None:  # noqa: FBT001
    """What a location's stock is believed by is told with it."""
    storm = Storm(seed, misplaced=False, calm=calm)
    assert_told_as_row_by_row(storm.logs(), storm.rules, cuts)


def assert_told_as_row_by_row(logs: Logs, rules: Rules, cuts: list[int]) -> None:
    """Two lanes are given the same, one of them with somebody who tells."""
    plain, teller_of = (Lane(0, RuleBook(rules), SETTINGS) for _ in range(2))
    teller = teller_of.teller(PREFIX)
    for log in logs:
        for begin, end in pairwise([0, *sorted(cut for cut in cuts if cut < len(log)), len(log)]):
            if begin == end:
                continue
            batch = batch_of(log[begin:end])
            whole = plain.apply([batch])
            wanted = {record.sku: record for record in whole.availability}
            result = teller_of.apply([batch], teller=teller)
            assert [*map(encoded, each(result.thresholds))] == [*map(encoded, each(whole.thresholds))]
            row_wise = {record.sku for record in result.availability}
            assert {sku: wanted[sku] for sku in row_wise} == {record.sku: record for record in result.availability}
            rest = [record for sku, record in wanted.items() if sku not in row_wise]
            assert texts_in(result) == texts_of(rest)
            told, is_all = teller_of.tell(teller, 1000)
            assert is_all
            values = {record.key: record for record in map(encoded, each(told.told))}
            assert values == {record.sku.encode(): encoded(record) for record in rest}


def encoded(record: Availability | Threshold | Encoded) -> Encoded:
    """As its topic has it."""
    if isinstance(record, Encoded):
        return record
    key = record.sku.encode()
    if isinstance(record, Availability):
        return Encoded(
            key, f"{record.sku}:{record.version}".encode(), record.as_of.encode(), AVAILABILITY.encode(record)
        )
    traceparent = None if record.traceparent is None else record.traceparent.encode()
    return Encoded(key, record.id.encode(), record.time.encode(), THRESHOLDS.encode(record), traceparent)


def shipped(number: int, sku: str, location: str, day: int) -> bytes:
    """One sale, so that there is demand."""
    return (
        f'{{"id":"{number}","source":"s","kind":"shipped","sku":{msgspec.json.encode(sku).decode()},'
        f'"location":{msgspec.json.encode(location).decode()},"quantity":3,"time":"2026-11-{day:02}T10:00:00Z"}}'
    ).encode()


def batch_for(sku: str, payloads: list[bytes | None]) -> Batch:
    """All of them in one log, from its beginning."""
    count = len(payloads)
    return Batch(origin(0), list(range(count)), [-1] * count, [sku.encode()] * count, payloads)


@pytest.mark.parametrize("name", ["A", 'with "quotes"', "back\\slash", "Grüße", "x" * 128])
def test_names_are_told_as_they_are(name: str) -> None:
    """SKUs and locations with characters that JSON escapes, or none that ASCII knows, days of cover among them."""
    rules = Rules(
        locations={name: LocationRules(low_stock_at=3)}, channels={"a=b:100%": ChannelRules(), "ü": ChannelRules()}
    )
    lane, whole = (Lane(0, RuleBook(rules), SETTINGS) for _ in range(2))
    teller = lane.teller(PREFIX)
    payloads = [shipped(number, name, name, 1 + number // 2) for number in range(40)]
    payloads[0] = payloads[0].replace(b'"shipped"', b'"received"').replace(b'"quantity":3', b'"quantity":100')
    batch = batch_for(name, list(payloads))
    expected = whole.apply([batch])
    (record,) = expected.availability
    result = lane.apply([batch], teller=teller)
    assert {crossing.location for crossing in crossings_in(expected)} == {None, name}
    assert [*map(encoded, each(result.thresholds))] == [*map(encoded, each(expected.thresholds))]
    assert [*texts_in(result), *texts_of(result.availability)] == texts_of([record])
    told = [*each(lane.tell(teller, 10)[0].told)] or result.availability
    assert [*map(encoded, told)] == [encoded(record)]
    assert record.locations[name].days_of_cover is not None


def test_crossings_that_are_not_written_are_in_their_places_among_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are written at once, some of which loops give up: each is told once, in its order."""
    given_up = 0

    def written(*arguments: Any) -> int:  # noqa: ANN401
        nonlocal given_up
        records, count = arguments[-1], write_crossings(*arguments)
        records[3:count:7, VALUE_AT] = ABSENT
        given_up += len(range(3, count, 7))
        return count

    monkeypatch.setattr(telling, "write_crossings", written)
    monkeypatch.setattr(telling, "_RECORDS", np.zeros((100, PLACES), np.int64))
    lane, whole = (Lane(0, RuleBook(Rules(channels={"web": ChannelRules()})), SETTINGS) for _ in range(2))
    payloads: list[bytes | None] = [
        shipped(number, f"S{number}", "east", 1).replace(b'"shipped"', b'"received"') for number in range(1500)
    ]
    batch = Batch(origin(0), [*range(1500)], [-1] * 1500, [b"S%d" % number for number in range(1500)], payloads)
    result = lane.apply([batch], teller=lane.teller(PREFIX))
    assert [*map(encoded, each(result.thresholds))] == [*map(encoded, each(whole.apply([batch]).thresholds))]
    assert sum(isinstance(piece, Threshold) for piece in result.thresholds) >= given_up > 100


def test_a_sku_that_is_not_plain_is_told_by_its_record_beside_one_that_is() -> None:
    """In one batch: its safety stock follows from its demand, which compiled loops know nothing of."""
    rules = Rules(channels={"web": ChannelRules()}, rules=(Rule(sku="B", location="east", safety_units="dynamic"),))
    lane = Lane(0, RuleBook(rules), SETTINGS)
    payloads: list[bytes | None] = [shipped(0, "A", "east", 1), shipped(1, "B", "east", 1), shipped(2, "A", "east", 1)]
    batch = Batch(origin(0), [0, 1, 2], [-1] * 3, [b"A", b"B", b"A"], payloads)
    result = lane.apply([batch], teller=lane.teller(PREFIX))
    assert [record.sku for record in result.availability] == ["B"]
    assert [text for text in texts_in(result) if str(text).startswith(PREFIX)] == [f"{PREFIX}A"]


def test_numbers_too_wide_for_compiled_loops_stay_with_the_rows() -> None:
    """A day's demand beyond 32 bits, also after Redis and the topic were told of it."""
    lane = Lane(0, RuleBook(Rules(channels={"web": ChannelRules()})), SETTINGS)
    teller = lane.teller(PREFIX)
    for number, day in enumerate([1, 2, 2, 2]):
        payload = shipped(number, "A", "east", day).replace(b'"quantity":3', b'"quantity":2000000000')
        result = lane.apply([Batch(origin(0), [number], [-1], [b"A"], [payload])], teller=teller)
        told, _ = lane.tell(teller, 10)
        lane.begin_refill()
        again, _ = lane.refill(10, teller)
        is_plain = number < 2  # the third makes the sum of the second day too wide
        assert lane._plain.fits is is_plain  # noqa: SLF001
        assert [bool(result.hashes), bool(told.told), bool(again.hashes)] == [is_plain] * 3
        assert [bool(result.availability), bool(again.availability)] == [not is_plain] * 2


def test_what_was_not_told_yet_is_told_after_a_restart() -> None:
    """A snapshot between a change and the next time for the topic."""
    lane = Lane(0, RuleBook(Rules()), SETTINGS)
    payloads: list[bytes | None] = [shipped(number, "A", "east", 1) for number in range(40)]
    lane.apply([batch_for("A", payloads)], teller=lane.teller(PREFIX))
    again = Lane.restore(0, lane.snapshot(), RuleBook(Rules()), SETTINGS)
    told, _ = again.tell(again.teller(PREFIX), 10)
    assert [encoded(record).id for record in each(told.told)] == [b"A:39"]
    assert not again.has_untold


def test_movements_without_a_key_are_as_plain_as_those_with_one() -> None:
    """Files and Redis Streams have no keys; row by row they would take ten times as long."""
    payloads: list[bytes | None] = [shipped(number, "A", "east", 1) for number in range(40)]
    keyed = batch_for("A", payloads)
    results = []
    for batch in (keyed, keyed._replace(keys=[None] * 40)):
        lane = Lane(0, RuleBook(Rules()), SETTINGS)
        results.append(lane.apply([batch], teller=lane.teller(PREFIX)))
    assert results[0] == results[1]
    assert results[0].hashes


def test_what_compiled_loops_added_is_known_to_a_tick_that_ends_a_request() -> None:
    """Both add to the history: a tick that did not know how long it is would write over what a movement left there."""
    requested = (
        b'{"id":"r1","source":"s","kind":"requested","sku":"B","channel":"web","quantity":1,"time":"2026-11-01T10:00:00Z",'
        b'"expires":"2026-11-01T11:00:00Z"}'
    )
    received = shipped(100, "B", "east", 1).replace(b"shipped", b"received")
    plain = [shipped(number, "A", "east", 1) for number in range(40)]  # the first of them still go row by row
    tick = b'{"kind":"tick","time":"2026-11-01T12:00:00Z"}'
    log: list[tuple[bytes | None, bytes]] = [
        (b"B", received), (b"B", requested), *((b"A", payload) for payload in plain), (None, tick),
    ]  # fmt: skip
    at_once, one_by_one = (Lane(0, RuleBook(Rules(channels={"web": ChannelRules()})), SETTINGS) for _ in range(2))
    keys, payloads = [key for key, _ in log], [payload for _, payload in log]
    result = at_once.apply([Batch(origin(0), list(range(len(log))), [-1] * len(log), keys, list(payloads))])
    for number, (key, payload) in enumerate(log):
        one_by_one.apply([Batch(origin(0), [number], [-1], [key], [payload])])
        assert one_by_one.position_count == 1 + (number > 1)
    assert [answer.outcome for answer in result.reservations] == ["confirmed", "expired"]
    assert at_once.snapshot() == one_by_one.snapshot()


def test_lanes_tell_the_topic_one_after_the_other() -> None:
    """All of them in each second, and never two at the same instant while they have all the time something to tell."""
    lanes, begin_ms = 8, 1_793_600_000_000
    clock = [begin_ms]
    settings = SETTINGS._replace(lanes=lanes)
    making = LaneMaking(RuleBook(Rules()), settings, lambda: clock[0], redis_prefix=PREFIX, tell_ms=1000)
    turns = LaneTurns.of(making)
    logics = [LaneLogic(None, making, turns) for _ in range(lanes)]
    told = list[tuple[int, int]]()
    for number in range(400):
        for lane, logic in enumerate(logics):
            batch = Batch(origin(0), [number], [clock[0]], [b"A"], [shipped(number, "A", "east", 1)])
            results, _ = logic.on_batch([(lane, Part.whole(batch))])
            told.extend((clock[0] - begin_ms, lane) for result in results if result.told)
        clock[0] += 10
    later = [(at_ms, lane) for at_ms, lane in told if at_ms > 1000]
    assert len({at_ms for at_ms, _ in later}) == len(later)
    by_lane = [[at_ms for at_ms, lane in told if lane == wanted] for wanted in range(lanes)]
    assert all(1000 <= after - before <= 2000 for times in by_lane for before, after in pairwise(times))
    assert all(len(times) >= 3 for times in by_lane)


@pytest.mark.parametrize(
    ("late_ms", "told_ms"),
    [(5000, [0, 10_000, 13_000, 14_000]), (51, [0, 10_000, 13_000, 14_000]), (50, list(range(0, 15_000, 1000)))],
)
def test_the_topic_is_told_rarely_while_movements_have_to_wait(late_ms: int, told_ms: list[int]) -> None:
    """Each second of a SKU that changes all the time; each ten seconds as long as what is applied is old already."""
    begin_ms = 1_793_600_000_000
    clock, told = [begin_ms], list[int]()
    making = LaneMaking(RuleBook(Rules()), SETTINGS, lambda: clock[0], redis_prefix=PREFIX, tell_ms=1000)
    logic = LaneLogic(None, making)
    for number in range(30):  # two a second, and for twelve seconds the broker got them `late_ms` ago
        reached_ms = clock[0] - (late_ms if number < 24 else 0)
        batch = Batch(origin(0), [number], [reached_ms], [b"A"], [shipped(number, "A", "east", 1)])
        results, _ = logic.on_batch(route(batch, 1))
        told.extend(clock[0] - begin_ms for result in results for _ in result.told)
        clock[0] += 500
    assert told == told_ms


def test_lanes_do_not_all_tell_the_topic_when_nothing_has_to_wait_any_more() -> None:
    """Who passed a turn has another one: 8 lanes tell in the first second after, an eighth of a second apart."""
    lanes, begin_ms = 8, 1_793_600_000_000
    clock, told = [begin_ms], list[int]()
    settings = SETTINGS._replace(lanes=lanes)
    making = LaneMaking(RuleBook(Rules()), settings, lambda: clock[0], redis_prefix=PREFIX, tell_ms=1000)
    turns = LaneTurns.of(making)
    logics = [LaneLogic(None, making, turns) for _ in range(lanes)]
    for number in range(700):
        reached_ms = clock[0] - (100 if 200 <= number < 500 else 0)
        for lane, logic in enumerate(logics):
            batch = Batch(origin(0), [number], [reached_ms], [b"A"], [shipped(number, "A", "east", 1)])
            results, _ = logic.on_batch([(lane, Part.whole(batch))])
            told.extend(clock[0] - begin_ms for result in results if result.told)
        clock[0] += 10
    assert not [at_ms for at_ms in told if 2000 <= at_ms < 5990]
    after = [at_ms for at_ms in told if at_ms >= 5990]
    assert len(after) >= lanes
    assert all(100 <= later - before <= 150 for before, later in pairwise(after))


def test_one_day_of_any_size_is_plain() -> None:
    """A sum beyond 32 bits is told by compiled loops as by the rows, as long as it stands beside its day's number."""
    rules = RuleBook(Rules(channels={"web": ChannelRules()}))
    lane, whole = Lane(0, rules, SETTINGS), Lane(0, rules, SETTINGS)
    teller = lane.teller(PREFIX)
    sold = [shipped(number, "A", "east", 1).replace(b'"quantity":3', b'"quantity":2000000000') for number in range(3)]
    payloads = [*sold, shipped(3, "A", "west", 2)]  # so that the first day is over
    covers = []
    for number, payload in enumerate(payloads):
        batch = Batch(origin(0), [number], [-1], [b"A"], [payload])
        expected = whole.apply([batch]).availability
        result = lane.apply([batch], teller=teller)
        assert texts_in(result) == texts_of(expected)
        assert [*map(encoded, each(lane.tell(teller, 10)[0].told))] == [*map(encoded, expected)]
        covers += [record.locations["east"].days_of_cover for record in expected]
    assert covers == [None, None, None, 0]
