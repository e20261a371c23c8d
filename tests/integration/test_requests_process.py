"""Requests through a real Kafka: who asks first gets it, every unit is given, and none twice."""

import json
import multiprocessing
import random
from collections import Counter
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from bench.drain import (
    Raw,
    Running,
    as_batches,
    create_topics,
    onhand_running,
    produce,
    read_topic,
    wait_until,
)
from bench.generate import RULES_PATH, benchmark_rules, partition_of
from bench.oracle import fold
from bench.servers import KafkaBroker, RedisServer
from schemas.outputs import Reservation
from schemas.topics import MOVEMENTS, RESERVATIONS

PARTITIONS = 4
SKUS = 100
REQUESTS = 10_000
TIME = "2026-11-21T00:00:00Z"
SECONDS_MAX = 120.0

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def servers() -> Iterator[tuple[str, str]]:
    """A broker with onhand's topics, and an empty Redis."""
    with KafkaBroker() as kafka, RedisServer() as redis:
        create_topics(kafka.bootstrap_servers, PARTITIONS)
        yield kafka.bootstrap_servers, redis.url


def opening(seed: int) -> list[Raw]:
    """Some units of each SKU, fewer than will be asked for; the rules keep one at the location and two for the web."""
    chance = random.Random(seed)
    return [message("received", f"SKU-{number}", f"open-{number}", chance.randint(4, 60)) for number in range(SKUS)]


def message(kind: str, sku: str, id_: str, quantity: int) -> Raw:
    """A movement or request about `sku`, in the partition of its key."""
    body = {"id": id_, "source": f"source-{id_[0]}", "kind": kind, "sku": sku, "quantity": quantity, "time": TIME}
    body |= {"channel": "web"} if kind == "requested" else {"location": "dc-1"}
    return partition_of(sku.encode(), PARTITIONS), sku.encode(), json.dumps(body).encode()


def ask(bootstrap_servers: str, name: str, count: int, seed: int) -> None:
    """One channel's process: asks for single units of random SKUs as fast as Kafka takes them."""
    chance = random.Random(seed)
    producer = Producer({"bootstrap.servers": bootstrap_servers, "acks": "all", "linger.ms": 1, "log_level": 2})
    for number in range(count):
        partition, key, payload = message("requested", f"SKU-{chance.randrange(SKUS)}", f"{name}-{number}", 1)
        producer.produce(MOVEMENTS.name, payload, key, partition)
        producer.poll(0)
    assert producer.flush(SECONDS_MAX) == 0


def log_as_written(bootstrap_servers: str) -> list[Raw]:
    """Every partition of the movements as the two processes have interleaved them; ticks have no key."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "log", "enable.auto.commit": False})
    found: list[Raw] = []
    for partition in range(PARTITIONS):
        place = TopicPartition(MOVEMENTS.name, partition, 0)
        _, end = consumer.get_watermark_offsets(place, timeout=20)
        consumer.assign([place])
        while sum(at == partition for at, _, _ in found) < end:
            found += [(partition, record.key() or b"", record.value() or b"") for record in consumer.consume(5000, 1)]
    consumer.close()
    return found


def answers(bootstrap_servers: str) -> list[Reservation]:
    """All records of the reservations topic."""
    return [RESERVATIONS.decode(value) for value in read_topic(bootstrap_servers, RESERVATIONS.name)]


def answered(running: Running, bootstrap_servers: str) -> int:
    """How many answers there are, as long as the process lives that gives them."""
    running.check_alive()
    return len(answers(bootstrap_servers))


def test_two_processes_that_ask_for_the_last_units_get_exactly_what_is_there(servers: tuple[str, str]) -> None:
    """Each of 10,000 requests gets one answer; what is confirmed is what could be sold, no unit more and none less."""
    kafka, redis = servers
    stock = opening(5)
    produce(kafka, stock)
    spawn = multiprocessing.get_context("spawn")
    with onhand_running(kafka, redis, "requests", RULES_PATH) as running:
        askers = [spawn.Process(target=ask, args=(kafka, name, REQUESTS // 2, seed)) for seed, name in enumerate("ab")]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join(SECONDS_MAX)
            assert asker.exitcode == 0
        wait_until(lambda: answered(running, kafka) >= REQUESTS, SECONDS_MAX, "all answers")
        running.drain()

    told = answers(kafka)
    assert Counter(answer.request for answer in told) == Counter(
        f"{name}-{number}" for name in "ab" for number in range(REQUESTS // 2)
    )
    given = Counter(answer.sku for answer in told if answer.outcome == "confirmed")
    there = {key.decode(): max(0, json.loads(payload)["quantity"] - 1 - 2) for _, key, payload in stock}
    assert {sku: given[sku] for sku in there} == there
    oracle = fold(as_batches(log_as_written(kafka)), benchmark_rules(), dedupe_ms=72 * 3_600_000)
    assert {answer.id: answer for answer in told} == {answer.id: answer for answer in oracle.reservations}
