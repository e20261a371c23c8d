"""A log is read to exactly the end that was asked for, and goes on from there, whatever stands in between."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from redis import Redis

from bench.servers import KafkaBroker, RedisServer
from cli.failures import CliError
from cli.kafka_log import Extent, KafkaLog
from cli.replaying import FileMovements, KafkaMovements, Movements, StreamMovements, skus_of
from schemas.batches import Batch
from schemas.settings import KafkaSettings


def settings_of(kafka: KafkaBroker) -> KafkaSettings:
    """How to reach the broker of all tests."""
    return KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)


def produce(kafka: KafkaBroker, topic: str, values: range) -> None:
    """Writes numbers into the only partition."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for value in values:
        producer.produce(topic, b"%d" % value, b"key", 0)
    assert producer.flush(30) == 0


def produce_in_a_transaction(kafka: KafkaBroker, topic: str, values: range, *, commits: bool = True) -> None:
    """Writes numbers and behind them a mark, which takes an offset and is no record."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": "writer"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, b"%d" % value, b"key", 0)
    assert producer.flush(30) == 0
    if commits:
        producer.commit_transaction(30)
    else:
        producer.abort_transaction(30)


def read(log: KafkaLog, first: int, end: int) -> list[int]:
    """The numbers that stand from offset `first` on before `end`."""
    return [int(message.value() or b"") for messages in log.read(0, first, end) for message in messages]


def test_offsets_without_a_record_hold_up_nothing(kafka: KafkaBroker, topic: Callable[..., str]) -> None:
    """Marks of transactions at the end, in between, and records that were never committed."""
    name = topic(1)
    produce_in_a_transaction(kafka, name, range(3))  # offsets 0 to 2, and a mark
    produce_in_a_transaction(kafka, name, range(3, 6), commits=False)  # 4 to 6, and a mark
    produce_in_a_transaction(kafka, name, range(6, 9))  # 8 to 10, and a mark
    with KafkaLog(settings_of(kafka), name) as log:
        assert log.extents() == {0: Extent(0, 12)}
        assert read(log, 0, 12) == [0, 1, 2, 6, 7, 8]
        assert read(log, 0, 9) == [0, 1, 2, 6]
        assert read(log, 9, 10) == [7]
        assert read(log, 12, 12) == []


def test_what_comes_while_it_is_read_is_left_for_later(kafka: KafkaBroker, topic: Callable[..., str]) -> None:
    """The end that was asked for stays the end."""
    name = topic(1)
    produce(kafka, name, range(5))
    with KafkaLog(settings_of(kafka), name) as log:
        end = log.extents()[0].end
        produce(kafka, name, range(5, 8))
        assert read(log, 0, end) == [0, 1, 2, 3, 4]
        assert read(log, end, log.extents()[0].end) == [5, 6, 7]


def test_a_topic_that_is_not_there_is_told(kafka: KafkaBroker) -> None:
    """With how it is made, and without making it."""
    for _ in range(2):
        with pytest.raises(CliError, match=r"there is no topic nowhere at .* `onhand topics create`"):
            KafkaLog(settings_of(kafka), "nowhere")


def received(sku: str) -> bytes:
    """A movement of a SKU."""
    body = {"id": sku, "source": "wms", "kind": "received", "sku": sku, "location": "dc-1", "quantity": 1}
    return json.dumps({**body, "time": "2025-01-01T00:00:00Z"}).encode()


Written = Callable[[str], object]


@pytest.fixture(params=["kafka", "redis_stream"])
def growing(
    request: pytest.FixtureRequest,
    kafka: KafkaBroker,
    topic: Callable[..., str],
    redis_server: RedisServer,
    redis: Redis,
) -> Iterator[tuple[Callable[[], Movements], Written]]:
    """A log of movements that grows: how to open it, and how to write a SKU's movement."""
    if request.param == "kafka":
        name = topic(1)
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})

        def write(sku: str) -> None:
            producer.produce(name, received(sku), sku, 0)
            assert producer.flush(30) == 0

        with KafkaLog(settings_of(kafka), name) as log:
            yield lambda: KafkaMovements(log), write
    else:
        yield (
            lambda: StreamMovements(redis_server.url, "log", redis),
            lambda sku: redis.xadd("log", {"payload": received(sku)}),
        )


def skus_in(batches: Iterator[Batch]) -> list[str]:
    """The SKUs of batches of one message, or of many of one SKU each."""
    return sorted(sku.decode() for batch in batches for sku in skus_of(batch))


def test_movements_are_read_to_an_end_and_then_on_from_there(
    growing: tuple[Callable[[], Movements], Written],
) -> None:
    """Each movement once, also those that had come in between, and none that came after the end."""
    opened, write = growing
    for sku in ("A", "B"):
        write(sku)
    movements = opened()
    ends = movements.ends()
    assert movements.left(ends) == 2
    write("C")
    assert skus_in(movements.read(ends)) == ["A", "B"]
    later = movements.ends()
    write("D")
    assert skus_in(movements.read(later)) == ["C"]
    assert skus_in(movements.read(later)) == []
    assert skus_in(movements.read(movements.ends())) == ["D"]


def test_a_file_is_read_to_its_last_line(tmp_path: Path) -> None:
    """Blank lines count as offsets, and are no movements."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(received("A") + b"\n\n" + received("B") + b"\n\n")
    movements = FileMovements(str(path))
    assert movements.ends() == {0: 4}
    assert skus_in(movements.read(movements.ends())) == ["A", "B"]
