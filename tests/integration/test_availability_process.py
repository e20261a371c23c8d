"""`onhand run availability` as a process, from a real Kafka to a real Redis, compared with the oracle."""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition
from redis import Redis

from bench.drain import (
    HOUR_MS,
    Raw,
    Running,
    as_batches,
    create_topics,
    onhand_running,
    produce,
    read_outcome,
    read_topic,
    wait_until,
)
from bench.generate import RULES_PATH, LoadConfig, benchmark_rules, movements, partition_of
from bench.oracle import Oracle, fold
from bench.retail import movements as retail_movements
from bench.retail import read_lines
from bench.servers import KafkaBroker, RedisServer
from schemas.outputs import Availability
from schemas.times import format_ms, parse_ms
from schemas.topics import AVAILABILITY, DEAD_LETTERS, MOVEMENTS

PARTITIONS = 4
SECONDS_MAX = 150.0
REPOSITORY = Path(__file__).parents[2]
ALL_LINES = REPOSITORY.parent / "shared" / "data" / "online_retail_2010-12_to_2011-07.csv.gz"
ONE_MONTH = REPOSITORY / "examples" / "movements" / "online_retail_2010-12.csv.gz"

pytestmark = pytest.mark.timeout(300)


class Servers(NamedTuple):
    """A broker with onhand's topics and an empty Redis, used by one test only."""

    kafka: str
    redis: str


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Fixed topic names need a broker of their own."""
    with KafkaBroker() as kafka, RedisServer() as redis:
        create_topics(kafka.bootstrap_servers, PARTITIONS)
        yield Servers(kafka.bootstrap_servers, redis.url)


def with_poison(messages: list[Raw], seed: int, share: float) -> list[Raw]:
    """The messages, with broken ones strewn in between: cut off, flipped, wrongly keyed, or no JSON at all."""
    chance = random.Random(seed)
    mixed: list[Raw] = []
    for partition, key, payload in messages:
        mixed.append((partition, key, payload))
        if chance.random() < share:
            mixed.append((partition, key, broken(payload, chance)))
    return mixed


def broken(payload: bytes, chance: random.Random) -> bytes:
    """One of many ways to spoil a message."""
    position = chance.randrange(1, len(payload))
    return chance.choice(
        [
            payload[:position],
            payload[:position] + bytes([chance.randrange(256)]) + payload[position + 1 :],
            chance.randbytes(position),
            b"[" * 5000,
            payload.replace(b'"quantity":', b'"quantity":-'),
            payload.replace(b'"sku":"', b'"sku":"other-'),
            payload.replace(b'"location"', b'"place"'),
            b'{"kind":"tick"}',
        ]
    )


def run_to_the_end(servers: Servers, messages: Sequence[Raw]) -> Running:
    """Lets the process read everything, then drains it."""
    produce(servers.kafka, messages)
    with onhand_running(servers.kafka, servers.redis, "test", RULES_PATH) as running:
        wait_until(lambda: has_read_everything(servers, running), SECONDS_MAX, "everything read")
        running.drain()
    return running


def has_read_everything(servers: Servers, running: Running) -> bool:
    """Whether the watermark says that nothing is left to be read, and the log is not empty."""
    running.check_alive()
    with Redis.from_url(servers.redis, decode_responses=True) as client:
        return bool(client.hget("avail:@health", "lag_seconds") == "0.000" and client.dbsize() > 1)


def assert_equal_to_the_oracle(servers: Servers, expected: Oracle) -> None:
    """Redis, crossings, dead letters and the availability topic hold what the oracle says: nothing more or less."""
    outcome = read_outcome(servers.kafka, servers.redis)
    wanted = {
        sku: {name: value for name, value in fields.items() if name != "@incarnation"}
        for sku, fields in expected.redis(incarnation=0).items()
    }
    assert outcome.channels == wanted
    assert {crossing.id: crossing for crossing in outcome.crossings} == {
        crossing.id: crossing for crossing in expected.crossings
    }
    letters = [DEAD_LETTERS.decode(value) for value in read_topic(servers.kafka, DEAD_LETTERS.name)]
    assert len(letters) == len(expected.dead_letters)
    assert {letter.id: letter.reason for letter in letters} == expected.dead_letters
    assert last_records(servers) == expected.availability(incarnation=0)


def last_records(servers: Servers) -> dict[str, Availability]:
    """The last availability record of each SKU, its incarnation taken out."""
    records = (AVAILABILITY.decode(value) for value in read_topic(servers.kafka, AVAILABILITY.name))
    return {record.sku: msgspec.structs.replace(record, incarnation=0) for record in records}


def expectation(messages: Sequence[Raw]) -> Oracle:
    """What the oracle makes of it."""
    return fold(as_batches(messages), benchmark_rules(), dedupe_ms=72 * HOUR_MS)


def test_generated_movements_with_poison_end_equal_to_the_oracle(servers: Servers) -> None:
    """Duplicates, late ones, ticks and fuzzed messages in several partitions: one dead letter each, all else exact."""
    config = LoadConfig(
        movements=30_000,
        skus=1_000,
        partitions=PARTITIONS,
        duplicate_share=0.05,
        late_share=0.05,
        tick_ms=1000,
        end_markers=False,
    )
    messages = with_poison(list(movements(config, random.Random(7))), seed=7, share=0.02)

    run_to_the_end(servers, messages)

    expected = expectation(messages)
    assert len(expected.dead_letters) > 100
    assert expected.duplicates > 1000
    assert_equal_to_the_oracle(servers, expected)


def with_monthly_counts(messages: Iterable[tuple[bytes, bytes]], seed: int) -> Iterator[tuple[bytes, bytes]]:
    """The messages, and after each month a count of every position, made hours ago while sales went on."""
    chance = random.Random(seed)
    places: dict[tuple[str, str], None] = {}
    month = ""
    for key, payload in messages:
        body = json.loads(payload)
        if body["time"][:7] != month and month:
            counted_ms = parse_ms(body["time"]) - chance.randrange(12 * HOUR_MS)
            for number, place in enumerate(places):
                yield place[0].encode(), counted(f"{month}-{number}", place, chance.randrange(200), counted_ms)
        month = body["time"][:7]
        if "location" in body:
            places[body["sku"], body["location"]] = None
        yield key, payload


def counted(id_: str, place: tuple[str, str], quantity: int, time_ms: int) -> bytes:
    """A count as a warehouse sends it."""
    body = {"id": id_, "source": "wms", "kind": "counted", "sku": place[0], "location": place[1]}
    return json.dumps({**body, "quantity": quantity, "time": format_ms(time_ms)}).encode()


def test_real_sales_lines_with_monthly_counts_end_equal_to_the_oracle(servers: Servers) -> None:
    """Every line of a real wholesaler's sales, or the month that is shipped where the rest is not at hand."""
    lines = read_lines(ALL_LINES if ALL_LINES.exists() else ONE_MONTH)
    messages = [
        (partition, key, payload)
        for key, payload in with_monthly_counts(retail_movements(lines), seed=11)
        for partition in ([partition_of(key, PARTITIONS)] if key else range(PARTITIONS))
    ]

    run_to_the_end(servers, messages)

    assert_equal_to_the_oracle(servers, expectation(messages))


def test_a_drained_process_has_told_the_group_how_far_it_came(servers: Servers) -> None:
    """After a drain, lag tools see that nothing is left but perhaps a tick that came while it ended."""
    config = LoadConfig(movements=2_000, skus=100, partitions=PARTITIONS, end_markers=False)

    run_to_the_end(servers, list(movements(config, random.Random(3))))

    consumer = Consumer({"bootstrap.servers": servers.kafka, "group.id": "test"})
    places = [TopicPartition(MOVEMENTS.name, partition) for partition in range(PARTITIONS)]
    committed = consumer.committed(places, timeout=20)
    assert all(place.offset > 0 for place in committed)
    left = 0
    for place in committed:
        consumer.assign([place])
        for offset in range(place.offset, consumer.get_watermark_offsets(place, timeout=20)[1]):
            message = consumer.poll(20)
            assert message is not None
            assert (message.offset(), json.loads(message.value() or b"{}")["kind"]) == (offset, "tick")
            left += 1
    consumer.close()
    assert left <= PARTITIONS
