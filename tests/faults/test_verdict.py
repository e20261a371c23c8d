"""The judge of the campaign: it finds nothing where nothing is wrong, and everything that is."""

import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from bench.drain import HOUR_MS, Raw
from bench.oracle import Oracle, fold
from schemas.complaints import Complaint, read_toml
from schemas.rules import Rules, rules_from
from schemas.times import format_ms
from schemas.topics import (
    AVAILABILITY,
    DEAD_LETTERS,
    DIVERGENCES,
    MOVEMENTS,
    REPLENISHMENTS,
    RESERVATIONS,
    THRESHOLDS,
    Topic,
)
from tests.faults.load import CONTEST, load, rules_text
from tests.faults.schedule import draw
from tests.faults.verdict import OUT, Found, Left, as_message, group_differs, judge

SEED = 6
NOW_MS = 1_795_219_200_000
MESSAGES = 4000
INCARNATION = 7


def rules() -> Rules:
    """Those of the seed."""
    document = read_toml(rules_text(draw(SEED).load, SEED, 1, NOW_MS))
    assert not isinstance(document, Complaint)
    return rules_from(document)[0]


def letter(id_: str, reason: str) -> bytes:
    """A dead letter as far as it is looked at."""
    body = {"id": id_, "reason": reason, "detail": "", "origin": id_}
    return msgspec.json.encode(body | dict.fromkeys(("source", "sku", "time", "key_base64", "payload_base64")))


def found(topic: Topic[Any, Any], records: list[Any]) -> list[Found]:
    """Records as they stand in a topic."""
    values = [record if isinstance(record, bytes) else topic.encode(record) for record in records]
    return [
        Found(0, offset, 0, b"key", value, (("ce_id", f"{topic.name}-{offset}".encode()),))
        for offset, value in enumerate(values)
    ]


def what_a_perfect_flow_leaves() -> tuple[Left, list[Raw]]:
    """The log of a seed with a last tick, and everything that the oracle makes of it."""
    sent = list(itertools.islice(load(draw(SEED).load, SEED, lambda: NOW_MS), MESSAGES))
    tick = f'{{"kind":"tick","time":"{format_ms(NOW_MS + 60_000)}"}}'.encode()
    partitions = draw(SEED).load.partitions
    log: list[Found] = []
    for place, key, payload in [*sent, *((partition, b"", tick) for partition in range(partitions))]:
        log.append(Found(place, sum(record.partition == place for record in log), NOW_MS, key or None, payload, ()))
    log.sort()
    oracle: Oracle = fold(map(as_message, log), rules(), dedupe_ms=72 * HOUR_MS)
    topics = {
        MOVEMENTS.name: log,
        AVAILABILITY.name: found(AVAILABILITY, list(oracle.availability(INCARNATION).values())),
        THRESHOLDS.name: found(THRESHOLDS, oracle.crossings),
        DIVERGENCES.name: found(DIVERGENCES, oracle.divergences),
        RESERVATIONS.name: found(RESERVATIONS, list({record.id: record for record in oracle.reservations}.values())),
        REPLENISHMENTS.name: found(REPLENISHMENTS, oracle.replenishments),
        DEAD_LETTERS.name: found(DEAD_LETTERS, [letter(id_, reason) for id_, reason in oracle.dead_letters.items()]),
    }
    redis = {
        sku: {name: str(value) for name, value in fields.items()} for sku, fields in oracle.redis(INCARNATION).items()
    }
    ends = {partition: sum(record.partition == partition for record in log) for partition in range(partitions)}
    return Left(topics, redis, ends, dict(ends)), sent


@pytest.fixture(scope="module")
def perfect() -> tuple[Left, list[Raw]]:
    """Made once; tests change copies."""
    return what_a_perfect_flow_leaves()


def copy_of(left: Left) -> Left:
    """One that may be changed."""
    topics = {name: list(records) for name, records in left.topics.items()}
    return left._replace(topics=topics, redis={sku: dict(fields) for sku, fields in left.redis.items()})


def test_a_perfect_flow_is_not_found_fault_with(perfect: tuple[Left, list[Raw]]) -> None:
    """No violation, also where records were written twice, and there is something of everything."""
    left, sent = perfect
    assert all(left.topics[topic.name] for topic in OUT if topic is not REPLENISHMENTS)
    for topic in OUT:
        left.topics[topic.name].extend(left.topics[topic.name][-10:])
    verdict = judge(left, rules(), sent)
    assert verdict.violations == []
    assert verdict.written_again >= 50
    assert verdict.messages == len(left.topics[MOVEMENTS.name])


def lose_a_record(topic: Topic[Any, Any]) -> Callable[[Left], None]:
    """All records of one id are gone."""

    def change(left: Left) -> None:
        first = left.topics[topic.name][0].value
        left.topics[topic.name][:] = [record for record in left.topics[topic.name] if record.value != first]

    return change


def tear_a_record(topic: Topic[Any, Any]) -> Callable[[Left], None]:
    """One is repeated with another byte."""

    def change(left: Left) -> None:
        first = left.topics[topic.name][0]
        left.topics[topic.name].insert(0, first._replace(value=first.value.replace(b'"sku":', b'"sku": ')))

    return change


def invent_a_record(left: Left) -> None:
    """A crossing that never was."""
    first = left.topics[THRESHOLDS.name][0]
    record = THRESHOLDS.decode(first.value)
    more = THRESHOLDS.encode(msgspec.structs.replace(record, id="invented"))
    left.topics[THRESHOLDS.name].append(first._replace(value=more))


def oversell(left: Left) -> None:
    """Another confirmed request than there are units for."""
    for record in left.topics[RESERVATIONS.name]:
        answer = RESERVATIONS.decode(record.value)
        if answer.sku.startswith(CONTEST) and answer.outcome == "confirmed":
            more = msgspec.structs.replace(answer, id="more", request="more", parts=[("dc-1", 1000)])
            left.topics[RESERVATIONS.name].append(record._replace(value=RESERVATIONS.encode(more)))
            return


def lose_a_message(left: Left) -> None:
    """What was acknowledged is not in the log."""
    left.topics[MOVEMENTS.name].pop(next(i for i, found in enumerate(left.topics[MOVEMENTS.name]) if found.key))


def lose_a_sku(left: Left) -> None:
    """A SKU is not in Redis."""
    left.redis.popitem()


def show_too_much(left: Left) -> None:
    """A unit more than there is."""
    fields = next(fields for fields in left.redis.values() if "web" in fields)
    fields["web"] = str(int(fields["web"]) + 1)


def leave_an_old_incarnation(left: Left) -> None:
    """One SKU was not written by the state that is."""
    next(iter(left.redis.values()))["@incarnation"] = "6"


def write_an_old_record_last(left: Left) -> None:
    """The newest availability of a SKU is not the last one."""
    first = left.topics[AVAILABILITY.name][0]
    old = msgspec.structs.replace(AVAILABILITY.decode(first.value), version=0)
    left.topics[AVAILABILITY.name].append(first._replace(value=AVAILABILITY.encode(old)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lose_a_sku, "Redis"),
        (show_too_much, "Redis"),
        (leave_an_old_incarnation, "incarnations"),
        (lose_a_message, "acknowledged"),
        (oversell, "I2"),
        (invent_a_record, "1 extra"),
        (write_an_old_record_last, "last availability"),
        (lose_a_record(AVAILABILITY), "last availability"),
        (lose_a_record(THRESHOLDS), "1 missing"),
        (lose_a_record(DIVERGENCES), "1 missing"),
        (lose_a_record(RESERVATIONS), "1 missing"),
        (lose_a_record(DEAD_LETTERS), "I12"),
        (tear_a_record(AVAILABILITY), "same version"),
        (tear_a_record(THRESHOLDS), "not equal"),
        (tear_a_record(RESERVATIONS), "not equal"),
        (tear_a_record(DEAD_LETTERS), "not equal"),
    ],
)
def test_each_thing_that_is_wrong_is_found(
    perfect: tuple[Left, list[Raw]], change: Callable[[Left], None], said: str
) -> None:
    """A campaign that could not fail would prove nothing."""
    left = copy_of(perfect[0])
    change(left)
    violations = judge(left, rules(), perfect[1]).violations
    assert any(said in violation for violation in violations), violations


def test_a_fact_that_was_not_read_is_found(perfect: tuple[Left, list[Raw]]) -> None:
    """The drain left something in the log."""
    left, sent = perfect
    last = max(record for record in left.topics[MOVEMENTS.name] if record.key)
    stopped_early = left._replace(read_up_to={**left.read_up_to, last.partition: last.offset})
    assert any("is a fact" in violation for violation in judge(stopped_early, rules(), sent).violations)


def test_a_group_that_was_told_something_else_is_found(perfect: tuple[Left, list[Raw]]) -> None:
    """Lag tools would show a lag that is none."""
    left, _ = perfect
    assert list(group_differs(left)) == []
    assert list(group_differs(left._replace(told_group={**left.told_group, 0: 1})))
