"""The Kafka producer, without a broker."""

import ctypes
import gc
import logging
import time
import weakref
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException

from native.librdkafka import LIBRDKAFKA
from schemas.records import Encoded, Records
from sinks.kafka import KafkaOutput
from sinks.kafka_producer import FLUSH_LOOK_LATER_MS, FLUSH_LOOK_MS, Failure, KafkaProducer
from sinks.slots import SinkError, SinkUnreachableError

NOBODY = {"bootstrap.servers": "127.0.0.1:1", "delivery.report.only.error": True, "linger.ms": 0}
SECONDS_MAX = 20.0


def records(count: int) -> Records:
    """So many records of a SKU."""
    return Records.of(Encoded(b"SKU-1", b"%d" % number, None, b"{}") for number in range(count))


@pytest.mark.parametrize(
    "setting",
    [{"no.such": 1}, {"acks": "many"}, {"queue.buffering.max.messages": -1}, {"security.protocol": "sasl_ssl"}],
)
def test_settings_that_cannot_be_are_refused(setting: dict[str, str | int]) -> None:
    """At once, as what librdkafka says of them."""
    with pytest.raises(KafkaException) as caught:
        KafkaProducer({**NOBODY, **setting})
    assert caught.value.args[0].code() == KafkaError._INVALID_ARG  # noqa: SLF001


def test_a_full_queue_takes_the_first_and_says_why_not_the_others() -> None:
    """So the caller knows where to go on."""
    producer = KafkaProducer({**NOBODY, "queue.buffering.max.messages": 3})
    taken, error = producer.produce("any", "type", records(5))
    assert taken == 3
    assert error is not None
    assert error.code() == KafkaError._QUEUE_FULL  # noqa: SLF001
    assert len(producer) >= 3
    assert producer.produce("any", "type", records(0)) == (0, None)


def test_what_was_not_delivered_is_counted_and_the_first_of_it_named() -> None:
    """With topic and key; nothing is told of it before librdkafka is asked."""
    producer = KafkaProducer({**NOBODY, "message.timeout.ms": 100})
    assert producer.produce("any", "type", records(2)) == (2, None)
    assert producer.produce("any", "type", Records.of([Encoded(None, b"id", None, b"{}")])) == (1, None)
    assert (producer.failed, producer.first) == (0, None)
    deadline = time.monotonic() + SECONDS_MAX
    while producer.failed < 3:
        assert time.monotonic() < deadline
        producer.poll(0.1)
    assert isinstance(producer.first, Failure)
    assert (producer.first.topic, producer.first.key) in {("any", b"SKU-1"), ("any", b"")}
    assert producer.first.error.code() == KafkaError._MSG_TIMED_OUT  # noqa: SLF001
    assert producer.flush(0) == 0


def test_a_broker_that_is_away_is_heard_of_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Complaints where they are asked for; what librdkafka logs goes to the log, in no thread of its own."""
    producer, heard = KafkaProducer({**NOBODY, "log_level": 7, "debug": "broker"}), list[KafkaError]()
    with caplog.at_level(logging.DEBUG, "onhand.kafka"):
        deadline = time.monotonic() + SECONDS_MAX
        while not heard or not caplog.records:
            assert time.monotonic() < deadline
            producer.poll(0.1)
            producer.heard.tell(heard.append)
    assert {error.code() for error in heard} <= {KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT}  # noqa: SLF001
    assert any("127.0.0.1:1" in record.getMessage() for record in caplog.records)
    with pytest.raises(KafkaException):
        producer.topics(0.1)


def test_a_producer_that_nobody_holds_is_gone() -> None:
    """With its threads, and with records that nobody waits for."""
    producer = KafkaProducer(NOBODY)
    producer.produce("any", "type", records(3))
    held = weakref.ref(producer)
    del producer
    gc.collect()
    assert held() is None


def test_a_queue_that_stays_full_stops_the_flow() -> None:
    """Waiting for room has a bound, and beats."""
    beats: list[float] = []
    options = {"queue.buffering.max.messages": 2}
    output = KafkaOutput("127.0.0.1:1", options, delivery_seconds_max=1.0, beat=lambda: beats.append(time.monotonic()))
    with pytest.raises(SinkUnreachableError, match=r"did not take 2 records|has taken none of \d+ records in 1 s"):
        output.produce("any", "type", records(5))
    assert output.produced == 2
    assert beats


def test_a_flush_looks_often_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Movements wait for it; who has waited for long may wait a little longer, and threads are left in peace."""
    producer, looks = KafkaProducer(NOBODY), []
    producer.produce("any", "type", records(1))
    flush = LIBRDKAFKA.rd_kafka_flush

    def looked(handle: int, ms: int) -> int:
        looks.append(ms)
        return int(flush(handle, ms))

    monkeypatch.setattr(LIBRDKAFKA, "rd_kafka_flush", looked)
    assert producer.flush(0.2) >= 1
    assert looks[0] == FLUSH_LOOK_MS
    assert looks[-1] == FLUSH_LOOK_LATER_MS
    assert looks == sorted(looks)


@pytest.mark.parametrize("hear", [KafkaOutput.poll, KafkaOutput.flush])
def test_that_nothing_can_be_delivered_any_more_stops_the_flow(hear: Callable[[KafkaOutput], None]) -> None:
    """A fatal error, as idempotence may lead to: it is no record's own, and there is no getting over it."""
    output = KafkaOutput("127.0.0.1:1", {})
    code = KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER
    LIBRDKAFKA.rd_kafka_test_fatal_error(ctypes.c_void_p(output._producer._made), code, b"as a test")  # noqa: SLF001
    for _ in range(2):
        with pytest.raises(SinkError, match=r"did not take 1 records, first .*as a test"):
            hear(output)
