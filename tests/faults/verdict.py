"""What a run left behind, compared with the oracle folded over the log as it really stands in Kafka."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from confluent_kafka import Consumer, KafkaException, TopicPartition
from redis import Redis

from bench.drain import HOUR_MS, Raw
from bench.oracle import Message, Oracle, fold
from schemas.batches import Origin
from schemas.movements import Control, Decoded, Received, decode
from schemas.outputs import Availability, Reservation
from schemas.rules import Rules
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
from sinks.redis_keys import INCARNATION
from tests.faults.load import CONTEST

READ_SECONDS_MAX: Final = 60.0
SHOWN_MAX: Final = 3
OUT: Final[tuple[Topic[Any, Any], ...]] = (
    AVAILABILITY, THRESHOLDS, DIVERGENCES, RESERVATIONS, REPLENISHMENTS, DEAD_LETTERS,
)  # fmt: skip


class Found(NamedTuple):
    """One record as it stands in a topic."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes | None], ...]


class Left(NamedTuple):
    """Everything that a run left behind; by partition how far it had read in the end, and what the group was told."""

    topics: dict[str, list[Found]]
    redis: dict[str, dict[str, str]]
    read_up_to: Mapping[int, int]
    told_group: Mapping[int, int]


class Verdict(msgspec.Struct):
    """What was found wrong, in words, and what was counted."""

    violations: list[str]
    messages: int
    duplicates: int
    dead_letters: int
    crossings: int
    written_again: int  # records on topics out that repeat an earlier one


def what_is_left(bootstrap_servers: str, redis_url: str, group: str, read_up_to: Mapping[int, int]) -> Left:
    """Read it all; how far the flow has read is known to whoever watched it."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": group, "enable.auto.commit": False, "log_level": 2}
    )
    try:
        topics = _read_topics(consumer, [topic.name for topic in (MOVEMENTS, *OUT)])
        partitions = consumer.list_topics(MOVEMENTS.name, timeout=20).topics[MOVEMENTS.name].partitions
        committed = consumer.committed([TopicPartition(MOVEMENTS.name, number) for number in partitions], timeout=20)
    finally:
        consumer.close()
    with Redis.from_url(redis_url, decode_responses=True) as client:
        keys = sorted(key for key in client.scan_iter("avail:*", count=5000) if not key.startswith("avail:@"))
        with client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.hgetall(key)
            hashes = pipeline.execute()
    redis = {key.removeprefix("avail:"): fields for key, fields in zip(keys, hashes, strict=True)}
    return Left(topics, redis, read_up_to, {place.partition: place.offset for place in committed})


def _read_topics(consumer: Consumer, names: list[str]) -> dict[str, list[Found]]:
    """All records of some topics, each partition in its order."""
    cluster = consumer.list_topics(timeout=20)
    places = [(name, number) for name in names for number in cluster.topics[name].partitions]
    extents = {place: consumer.get_watermark_offsets(TopicPartition(*place), timeout=20) for place in places}
    left = {place for place, (low, high) in extents.items() if low < high}
    found: dict[str, list[Found]] = {name: [] for name in names}
    consumer.assign([TopicPartition(*place, extents[place][0]) for place in left])
    deadline = time.monotonic() + READ_SECONDS_MAX
    while left and time.monotonic() < deadline:
        for message in consumer.consume(10_000, 0.5):
            if error := message.error():
                raise KafkaException(error)
            name, partition, offset = str(message.topic()), int(message.partition() or 0), int(message.offset() or 0)
            headers = tuple(message.headers() or ())
            found[name].append(
                Found(partition, offset, message.timestamp()[1], message.key(), message.value() or b"", headers)  # type: ignore[arg-type]
            )
            if offset + 1 >= extents[name, partition][1]:
                left.discard((name, partition))
    if left:
        raise TimeoutError(f"{sorted(left)} could not be read to their ends within {READ_SECONDS_MAX:g} s")
    return {
        name: sorted(records, key=lambda record: (record.partition, record.offset)) for name, records in found.items()
    }


def judge(left: Left, rules: Rules, sent: Iterable[Raw]) -> Verdict:
    """Fold the log up to where it was read, and compare everything with that."""
    log = [
        record for record in left.topics[MOVEMENTS.name] if record.offset < left.read_up_to.get(record.partition, -1)
    ]
    oracle = fold(map(as_message, log), rules, dedupe_ms=72 * HOUR_MS)
    violations = [
        *_unread(left),
        *_not_in_the_log(left, sent),
        *_redis_differs(left, oracle),
        *_availability_differs(left, oracle),
        *_records_differ(left, THRESHOLDS, {crossing.id: crossing for crossing in oracle.crossings}),
        *_records_differ(left, DIVERGENCES, {divergence.id: divergence for divergence in oracle.divergences}),
        *_records_differ(left, RESERVATIONS, {answer.id: answer for answer in oracle.reservations}),
        *_records_differ(left, REPLENISHMENTS, {proposal.id: proposal for proposal in oracle.replenishments}),
        *_dead_letters_differ(left, oracle),
        *_oversold(left),
    ]
    records = [(topic, record) for topic in OUT for record in left.topics[topic.name]]
    return Verdict(
        violations=violations,
        messages=oracle.messages,
        duplicates=oracle.duplicates,
        dead_letters=len(oracle.dead_letters),
        crossings=len(oracle.crossings),
        written_again=len(records) - len({(topic.name, _event_id(record)) for topic, record in records}),
    )


def as_message(record: Found) -> Message:
    """The record as the oracle takes it."""
    origin = Origin("cluster", "topic-id", record.partition, MOVEMENTS.name)
    headers = list(record.headers) or None
    return Message(origin, record.offset, record.timestamp_ms, record.key, record.value, headers)


def _event_id(record: Found) -> bytes | None:
    return dict(record.headers).get("ce_id")


# What the flow was given


def _unread(left: Left) -> Iterable[str]:
    """Facts behind the place where the drained flow has stopped; ticks come for ever."""
    for record in left.topics[MOVEMENTS.name]:
        if record.offset >= left.read_up_to.get(record.partition, -1) and record.key:
            yield f"I3: partition {record.partition} was read up to {left.read_up_to}, {record.offset} is a fact"
            return


def group_differs(left: Left) -> Iterable[str]:
    """Whether lag tools were told where the flow has stopped."""
    read = {partition: offset for partition, offset in left.read_up_to.items() if offset}
    told = {partition: left.told_group.get(partition) for partition in read}
    if told != read:
        yield f"I9: the group was told {told}, the flow has read up to {read}"


def _not_in_the_log(left: Left, sent: Iterable[Raw]) -> Iterable[str]:
    """What was acknowledged stands in the log as often as it was sent, and nothing else but control records."""
    wanted = Counter((partition, key or None, payload) for partition, key, payload in sent)
    there = Counter((record.partition, record.key or None, record.value) for record in left.topics[MOVEMENTS.name])
    if missing := wanted - there:
        yield f"I3: {missing.total()} messages were acknowledged and are not in the log, {_some(missing)}"
    more = [payload for _, _, payload in there - wanted if not _is_control(payload)]
    if more:
        yield f"I3: {len(more)} messages in the log that nobody sent, {_some(more)}"


def _is_control(payload: bytes) -> bool:
    decoded = decode(payload)
    return isinstance(decoded, Decoded) and isinstance(decoded.record, Control)


# What it made of it


def _redis_differs(left: Left, oracle: Oracle) -> Iterable[str]:
    wanted = {
        sku: {name: str(value) for name, value in fields.items() if name != INCARNATION}
        for sku, fields in oracle.redis(incarnation=0).items()
    }
    found = {
        sku: {name: text for name, text in fields.items() if name != INCARNATION} for sku, fields in left.redis.items()
    }
    yield from _differences("I3, I5: Redis", wanted, found)
    incarnations = {fields.get(INCARNATION) for fields in left.redis.values()}
    if len(incarnations) > 1:
        yield f"I5: Redis holds several incarnations: {incarnations}"


def _availability_differs(left: Left, oracle: Oracle) -> Iterable[str]:
    """The last record of each SKU, and that one version of a SKU never says two things."""
    last: dict[str, Availability] = {}
    said: dict[tuple[str, int, int], bytes] = {}
    torn: list[str] = []
    for found in left.topics[AVAILABILITY.name]:
        record = AVAILABILITY.decode(found.value)
        last[record.sku] = record
        first = said.setdefault((record.sku, record.incarnation, record.version), found.value)
        if first != found.value:
            torn.append(f"{record.sku} at {record.version}: {found.value!r} after {first!r}")
    if torn:
        yield f"I5: {len(torn)} availability records differ from an earlier one of the same version, {_some(torn)}"
    zeroed = {sku: msgspec.structs.replace(record, incarnation=0) for sku, record in last.items()}
    yield from _differences("I5: last availability record", oracle.availability(incarnation=0), zeroed)
    if len(incarnations := {record.incarnation for record in last.values()}) > 1:
        yield f"I5: the last availability records have several incarnations: {incarnations}"


def _records_differ(left: Left, topic: Topic[Any, Any], wanted: Mapping[str, Any]) -> Iterable[str]:
    found = _by_id(left, topic)
    yield from _torn(topic, found)
    yield from _differences(topic.name, wanted, {id_: topic.decode(records[0].value) for id_, records in found.items()})


def _by_id(left: Left, topic: Topic[Any, Any]) -> dict[str, list[Found]]:
    found: defaultdict[str, list[Found]] = defaultdict(list)
    for record in left.topics[topic.name]:
        found[topic.decode(record.value).id].append(record)
    return dict(found)


def _torn(topic: Topic[Any, Any], found: Mapping[str, list[Found]]) -> Iterable[str]:
    """Records with one id that are not equal byte for byte, key and headers too."""
    torn = {
        id_: [record.value for record in records]
        for id_, records in found.items()
        if len({(record.key, record.value, record.headers) for record in records}) > 1
    }
    if torn:
        yield f"I6: {topic.name}: {len(torn)} ids with records that are not equal, {_some(torn.items())}"


def _dead_letters_differ(left: Left, oracle: Oracle) -> Iterable[str]:
    found = _by_id(left, DEAD_LETTERS)
    yield from _torn(DEAD_LETTERS, found)
    reasons = {id_: DEAD_LETTERS.decode(records[0].value).reason for id_, records in found.items()}
    wanted = {id_: str(reason) for id_, reason in oracle.dead_letters.items()}
    yield from _differences("I12: dead letters", wanted, reasons)


def _oversold(left: Left) -> Iterable[str]:
    """What was confirmed of a contested SKU, counted from the answers alone, against what ever came in."""
    confirmed: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for found in left.topics[RESERVATIONS.name]:
        answer: Reservation = RESERVATIONS.decode(found.value)
        if answer.sku.startswith(CONTEST) and answer.outcome == "confirmed":
            confirmed[answer.sku][answer.request] = sum(units for _, units in answer.parts)
    received: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for found in left.topics[MOVEMENTS.name]:
        decoded = decode(found.value) if found.key and found.key.startswith(CONTEST.encode()) else None
        if isinstance(decoded, Decoded) and isinstance(fact := decoded.record, Received):
            received[fact.sku][fact.id] = max(fact.quantity, received[fact.sku].get(fact.id, 0))
    for sku, answers in confirmed.items():
        if sum(answers.values()) > sum(received[sku].values()):
            yield f"I2: {sku}: {sum(answers.values())} units confirmed, {sum(received[sku].values())} came in"


def _differences(what: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Iterable[str]:
    missing = sorted(wanted.keys() - found.keys())
    extra = sorted(found.keys() - wanted.keys())
    other = sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name])
    if missing or extra or other:
        some = (*missing[:1], *extra[:1], *other[:1])
        shown = _some(f"{name}: {found.get(name)} instead of {wanted.get(name)}" for name in some)
        yield f"{what}: {len(missing)} missing, {len(extra)} extra, {len(other)} other than by the oracle; {shown}"


def _some(things: Iterable[object]) -> str:
    """A few of them, for the eye."""
    shown = list(things)[:SHOWN_MAX]
    return "; ".join(str(thing)[:1500] for thing in shown)
