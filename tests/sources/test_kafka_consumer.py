"""The consumer by librdkafka's own interface: what it refuses, what it is told, how it ends. No broker answers it."""

import ctypes
import gc
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from bench.servers import free_port
from native.librdkafka import LIBRDKAFKA
from sources.kafka_columns import NO_PARTITION, ReadFailure
from sources.kafka_consumer import KafkaConsumer

SECONDS_MAX = 10.0


def consumer_of(
    more: Mapping[str, str | int] = MappingProxyType({}), heard: list[KafkaError] | None = None
) -> KafkaConsumer:
    """One whose broker is not there."""
    config = {"bootstrap.servers": f"127.0.0.1:{free_port()}", "group.id": "g", "log_level": 0, **more}
    return KafkaConsumer("t", config, ([] if heard is None else heard).append)


def eventually(condition: Callable[[], bool]) -> None:
    """Waits for `condition`, for a bounded time."""
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    "more", [{"no.such.setting": "1"}, {"fetch.min.bytes": "many"}, {"enable.auto.commit": "maybe"}]
)
def test_a_setting_that_cannot_be_is_refused_as_the_binding_does(more: dict[str, str | int]) -> None:
    """In the same words."""
    with pytest.raises(KafkaException) as ours:
        consumer_of(more)
    with pytest.raises(KafkaException) as theirs:
        Consumer({"group.id": "g", **more})
    assert ours.value.args[0].str() == theirs.value.args[0].str()
    assert ours.value.args[0].code() == KafkaError._INVALID_ARG  # noqa: SLF001


def test_settings_that_contradict_each_other_are_refused() -> None:
    """What librdkafka sees only when all of them are there."""
    with pytest.raises(KafkaException, match=r"max\.poll\.interval\.ms"):
        consumer_of({"max.poll.interval.ms": 1000, "session.timeout.ms": 10_000})


def test_a_setting_may_be_a_number_or_a_truth_value() -> None:
    """As TOML has them."""
    consumer_of({"enable.auto.commit": False, "fetch.min.bytes": 2, "check.crcs": True}).close()


def test_that_no_broker_answers_is_told_inside_consume() -> None:
    """And never from a thread of librdkafka's."""
    heard: list[KafkaError] = []
    consumer = consumer_of(heard=heard)
    consumer.assign({0: 0})
    time.sleep(0.5)
    assert not heard

    def is_told() -> bool:
        assert consumer.consume(10) == ({}, [])
        return any(error.code() == KafkaError._ALL_BROKERS_DOWN for error in heard)  # noqa: SLF001

    eventually(is_told)
    assert not any(error.fatal() for error in heard)
    consumer.close()


def test_that_it_cannot_go_on_at_all_stands_in_the_place_of_a_message() -> None:
    """So that a source stops by it, and says why."""
    consumer = consumer_of()
    code, said = KafkaError.FENCED_INSTANCE_ID, b"as a test"
    LIBRDKAFKA.rd_kafka_test_fatal_error(ctypes.c_void_p(consumer._made), code, said)  # noqa: SLF001
    failures: list[ReadFailure] = []

    def is_told() -> bool:
        failures.extend(consumer.consume(10)[1])
        return bool(failures)

    eventually(is_told)
    (failure,) = failures
    assert failure.error.code() == KafkaError._FATAL  # noqa: SLF001
    assert "as a test" in failure.error.str()
    assert failure.partition == NO_PARTITION
    consumer.close()


def test_what_librdkafka_refuses_is_raised() -> None:
    """A partition cannot be given twice, nor taken away twice."""
    consumer = consumer_of()
    consumer.assign({0: 0, 1: 0})
    with pytest.raises(KafkaException):
        consumer.assign({1: 0})
    consumer.unassign([1])
    with pytest.raises(KafkaException):
        consumer.unassign([1])
    consumer.close()


def test_a_closed_one_refuses_instead_of_reading_freed_memory() -> None:
    """Whatever it is asked; closing it again does nothing."""
    consumer = consumer_of()
    consumer.assign({0: 0})
    consumer.close()
    consumer.close()
    for use in (
        lambda: consumer.consume(1),
        lambda: consumer.assign({1: 0}),
        lambda: consumer.unassign([0]),
        lambda: consumer.pause([0]),
        lambda: consumer.resume([0]),
    ):
        with pytest.raises(RuntimeError, match="closed"):
            use()


def test_one_that_nobody_closed_leaves_no_threads() -> None:
    """As where a flow cannot begin."""
    before = threads()
    consumer = consumer_of()
    assert threads() > before
    del consumer
    gc.collect()
    eventually(lambda: threads() <= before)


def threads() -> int:
    """Of this process, those of libraries among them."""
    return max(threading.active_count(), len(list(Path("/proc/self/task").iterdir())))
