"""What must hold record by record, whatever the records: no oversell, one answer each, divergences that alternate."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.oracle import Message
from bench.oracle_article import QUANTITIES, signs
from operators.lane import Lane, LaneSettings
from operators.rules import RuleBook
from schemas import movements as m
from schemas.movements import Decoded, Movement, Record, decode
from schemas.outputs import LaneResult, Reservation
from schemas.rules import Rules
from schemas.times import format_ms
from tests.fact_storms import CHANNELS, FROM, KINDS, LOCATIONS, SKUS, TO, storm, storm_rules
from tests.lane_runs import INCARNATION, Run, batch_of
from tests.movement_strategies import AS_OF_MS, BASE_MS, DEDUPE_MS, MINUTE_MS, Body, Entry, Logs, numbered

pytestmark = pytest.mark.timeout(3600)
SEEDS = st.integers(0, 2**32)
Maker = Callable[[Random, int], Body]  # of a record's own fields, at a time in ms


class Promises:
    """What is promised of each request and location, counted from answers and from the facts that draw on them."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._known: set[str] = set()  # ids of answers: one given again promises nothing more

    def answered(self, answer: Reservation) -> None:
        """A `confirmed` promises its parts; an `expired` gives back what is open, neither more nor less."""
        parts = self._open[answer.sku, answer.request]
        if answer.id in self._known:
            return
        self._known.add(answer.id)
        if answer.outcome == "confirmed":
            assert not +parts
            parts.update(dict(answer.parts))
        elif answer.outcome == "expired" and answer.parts:
            assert dict(answer.parts) == dict(+parts)
            parts.clear()

    def told(self, fact: Record) -> None:
        """A fact that names a request uses up what is open of it at its location."""
        if isinstance(fact, m.Allocated | m.Shipped | m.Released) and fact.request is not None:
            self._open[fact.sku, fact.request].subtract({fact.location: min(fact.quantity, self.of(fact))})

    def of(self, fact: Movement) -> int:
        """Units open at the location of a fact, of the request that it names."""
        return self._open[fact.sku, str(fact.request)][fact.location]

    def at(self, sku: str, place: str) -> int:
        """Units promised at one position in all."""
        return sum(parts[place] for (owner, _), parts in self._open.items() if owner == sku)


def record_by_record(logs: Logs, rules: Rules) -> Iterator[tuple[Message, LaneResult]]:
    """Each message with what came of it alone."""
    lane = Lane(0, RuleBook(rules), LaneSettings(1, INCARNATION, DEDUPE_MS, AS_OF_MS))
    for log in logs:
        for message in log:
            yield message, lane.apply([batch_of([message])])


def record_of(message: Message) -> Record:
    """What stands in a message that can be read."""
    decoded = decode(message.payload)
    assert isinstance(decoded, Decoded)
    return decoded.record


@given(SEEDS)
def test_what_is_promised_is_there(seed: int) -> None:
    """Promises of requests, less what was drawn or has expired, are `reserved`; none is made beyond what is on hand."""
    promises = Promises()
    for message, result in record_by_record(one_log(seed, promise_body), rules_for(seed)):
        for answer in result.reservations:
            promises.answered(answer)
        promises.told(record_of(message))
        new = [answer.parts for answer in result.reservations if answer.outcome == "confirmed"]
        confirmed = {place for parts in new for place, _ in parts}
        for record in result.availability:
            for place, units in record.locations.items():
                assert units.reserved == promises.at(record.sku, place)
                assert place not in confirmed or units.reserved + units.allocated <= units.on_hand


@given(SEEDS)
def test_a_request_is_answered_once_for_each_of_its_records(seed: int) -> None:
    """Each `requested` leads to one answer or one dead letter, and nothing else but time and `extended` to another."""
    for message, result in record_by_record(*storm(seed)):
        record = record_of(message)
        answers = [answer.outcome for answer in result.reservations]
        if isinstance(record, m.Requested):
            assert len(answers) + len(result.dead_letters) == 1
            assert all(answer.request == record.id for answer in result.reservations)
        elif isinstance(record, m.Extended):
            assert answers in ([], ["extended"])
        else:
            assert not answers or (isinstance(record, m.Tick) and set(answers) == {"expired"})


@given(SEEDS)
def test_the_same_request_gets_the_same_answer_and_another_body_a_conflict(seed: int) -> None:
    """Sent twice in a row, a request is answered byte for byte as before; with another quantity it is refused."""
    random = Random(seed)
    logs, rules = storm(seed)
    lane = Lane(0, RuleBook(rules), LaneSettings(1, INCARNATION, DEDUPE_MS, AS_OF_MS))
    offset = 0
    for message in (message for log in logs for message in log):
        fact = record_of(message)
        answers = []
        for quantity in (None, None, random.randint(10, 20)):
            payload = message.payload
            if isinstance(fact, m.Requested) and quantity is not None:
                fact.quantity = quantity
                payload = m.encode(fact)
            offset += 1
            again = message._replace(origin=logs[0][0].origin, offset=offset, payload=payload)
            answers.append(lane.apply([batch_of([again])]).reservations)
        if isinstance(fact, m.Requested) and answers[0]:
            first, second, other = (answer[0] for answer in answers)
            assert first == second or first.outcome == "conflict"
            assert other.outcome == "conflict"


@given(SEEDS, st.booleans())
def test_divergences_open_and_close_in_turn(seed: int, misplaced: bool) -> None:  # noqa: FBT001  # drawn
    """Of each SKU, location and system at most one divergence is open; only an open one changes or closes."""
    is_open: dict[tuple[str | None, str, str], bool] = defaultdict(bool)
    for _, result in record_by_record(*storm(seed, misplaced=misplaced)):
        for record in result.divergences:
            key = record.sku, record.location, record.system
            assert is_open[key] == (record.event != "opened")
            is_open[key] = record.event != "closed"


@given(SEEDS)
def test_a_quantity_is_its_last_count_and_what_moved_since(seed: int) -> None:
    """Whatever the order of arrival, every quantity of a position is what the definition says."""
    logs = one_log(seed, stock_body)
    entries: dict[tuple[str, str, str], list[tuple[str, bool, int, int]]] = defaultdict(list)
    for number, record in enumerate(record_of(message) for log in logs for message in log):
        if isinstance(record, m.Counted):
            entries[record.sku, record.location, record.of].append((record.time, True, number, record.quantity))
        elif isinstance(record, Movement):
            for quantity, sign in signs(record).items():
                change = (record.time, False, number, sign * record.quantity)
                entries[record.sku, record.location, quantity].append(change)
        if isinstance(record, m.TransferShipped):
            sent = -record.quantity if record.reversal else record.quantity
            entries[record.sku, record.destination, "in_transit"].append((record.time, False, number, sent))
    run = Run(logs, rules_for(seed)).take([])
    assert not run.reasons
    for sku, shown in run.availability.items():
        for place, units in shown.locations.items():
            for quantity in QUANTITIES:
                expected = 0
                for _, is_count, _, amount in sorted(entries[sku, place, quantity]):
                    expected = amount if is_count else expected + amount
                assert getattr(units, quantity) == expected


@given(SEEDS)
def test_transfers_neither_make_nor_lose_units(seed: int) -> None:
    """What was received is on hand somewhere, under way, or told to be lost."""
    run = Run(one_log(seed, transfer_body), rules_for(seed)).take([])
    told: Counter[str] = Counter()
    for message in run.order:
        record = record_of(message)
        if isinstance(record, m.Received | m.TransferLost):
            sign = 1 if isinstance(record, m.Received) != record.reversal else -1
            told[record.sku] += sign * record.quantity
    for sku, shown in run.availability.items():
        assert sum(units.on_hand + units.in_transit for units in shown.locations.values()) == told[sku]


# Logs of one theme


def one_log(seed: int, body_of: Maker) -> Logs:
    """Records with ids of their own, up to half an hour late, in one log; a late tick at the end."""
    random = Random(seed)
    entries = []
    now_ms = BASE_MS + 600 * MINUTE_MS
    for number in range(random.choice((10, 40, 120))):
        now_ms += random.randint(0, 120_000)
        common: Body = {"id": str(number), "source": "wms", "sku": random.choice(SKUS)}
        body = common | body_of(random, now_ms)
        key = None if body["kind"] == "tick" else str(body["sku"]).encode()
        entries.append(Entry(0, key, body, -1, None))
    last: Body = {"kind": "tick", "time": format_ms(now_ms + 600 * MINUTE_MS)}
    return numbered(1, [*entries, Entry(0, None, last, -1, None)])


def rules_for(seed: int) -> Rules:
    """Rules by which every source may say everything and corrects nothing."""
    return msgspec.structs.replace(storm_rules(Random(seed)), sources={})


def promise_body(random: Random, now_ms: int) -> Body:
    """Stock as it comes, is counted and corrected; requests, and what draws on them."""
    kinds = "received adjusted counted requested requested requested shipped released allocated extended tick"
    kind = random.choice([*kinds.split(), "channel_committed"])
    body: Body = {"kind": kind, "time": format_ms(now_ms), "quantity": random.choice((1, 2, 5, 9))}
    if kind != "requested" or random.random() < 0.3:
        body["location"] = random.choice(LOCATIONS)
    if kind == "requested":
        body |= {"id": f"R-{random.randrange(8)}", "channel": random.choice(CHANNELS), "partial": random.random() < 0.5}
    if kind in ("shipped", "released", "allocated", "extended"):
        body["request"] = f"R-{random.randrange(8)}"
    if kind in ("requested", "extended") and random.random() < 0.6:
        body["expires"] = format_ms(now_ms + random.choice((0, 1, 5, 20)) * MINUTE_MS)
    if kind == "adjusted":
        body |= {"quantity": random.choice((-3, 5)), "reason": "found"}
    return body | ({"channel": random.choice(CHANNELS)} if kind == "channel_committed" else {})


def stock_body(random: Random, now_ms: int) -> Body:
    """Movements of every plain kind, and counts of every quantity."""
    kind = random.choice((*KINDS, "counted", "counted", "counted"))
    time_ms = (now_ms - random.choice((0, 0, 5, 20, 30)) * MINUTE_MS) // 60_000 * 60_000
    body: Body = {"kind": kind, "time": format_ms(time_ms), "location": random.choice(LOCATIONS)}
    body |= {"quantity": random.choice((1, 2, 5, 9)), "destination": random.choice(LOCATIONS), "reason": "found"}
    body |= {"transfer": random.choice((None, "T-1")), "order": random.choice((None, "SO-1"))}
    if kind == "counted":
        return body | {"of": random.choice([quantity for quantity in QUANTITIES if quantity != "picked"])}
    if kind in FROM:
        body["from"] = random.choice(FROM[kind])
    if kind in TO:
        body["to"] = random.choice(TO[kind])
    return body | {"reversal": random.random() < 0.2}


def transfer_body(random: Random, now_ms: int) -> Body:
    """Units that arrive, travel, and are sometimes lost on the way."""
    kind = random.choice(("received", "transfer_shipped", "transfer_received", "transfer_lost"))
    body: Body = {"kind": kind, "time": format_ms(now_ms), "transfer": "T-1", "quantity": random.choice((1, 2, 5, 9))}
    body |= {"location": random.choice(LOCATIONS), "destination": random.choice(LOCATIONS)}
    return body | {"reversal": random.random() < 0.2}
