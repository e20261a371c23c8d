"""The Kafka sinks against a real broker: what arrives, what is waited for, and what stops the flow."""

import dataclasses
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import product
from typing import Any, cast

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.testing import TestingSource, run_main
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.servers import KafkaBroker, free_port
from schemas.outputs import (
    Availability,
    Cause,
    ChannelAvailability,
    DeadLetter,
    Divergence,
    Replenishment,
    ShadowDifference,
    ShadowOffer,
    Threshold,
)
from schemas.records import Encoded, Records
from schemas.topics import AVAILABILITY, DEAD_LETTERS, DIVERGENCES, REPLENISHMENTS, SHADOW, THRESHOLDS, Topic
from sinks import kafka as kafka_sinks
from sinks.kafka import KafkaOutput, KafkaSink
from sinks.kafka_producer import Failure
from sinks.slots import RecordT, SinkError

MakeTopic = Callable[..., str]
SECONDS_MAX = 20.0
TIME = "2026-11-21T09:00:00.123Z"
SASL = """
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_PLAINTEXT
listener.name.secure.sasl.enabled.mechanisms=PLAIN
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
  user_onhand="right";
"""


@pytest.fixture(scope="module")
def secure_port() -> int:
    """The port at which `fragile` asks for a password."""
    return free_port()


@pytest.fixture(scope="module")
def fragile(secure_port: int) -> Iterator[KafkaBroker]:
    """A broker that tests of this file may hurt, and that asks for a password at a second port."""
    broker = KafkaBroker()
    properties = broker.directory / "server.properties"
    known = properties.read_text()
    listeners = [line for line in known.splitlines() if line.startswith(("listeners=", "advertised.listeners="))]
    both = "\n".join(f"{line},SECURE://127.0.0.1:{secure_port}" for line in listeners)
    properties.write_text(f"{known}{both}\n{SASL}")
    with broker:
        yield broker


def availability(sku: str, version: int = 1, channels: int = 1) -> Availability:
    """Make the record of a SKU that several channels may sell."""
    promised = {f"channel-{number}": ChannelAvailability(5, 5, "in_stock") for number in range(channels)}
    return Availability(sku, 1, version, TIME, 1, promised, {})


def named(topic: Topic[RecordT, RecordT], name: str) -> Topic[RecordT, RecordT]:
    """Let a topic of ours have the name of a topic of this test."""
    return dataclasses.replace(topic, name=name)


def write(sink: KafkaSink[RecordT], *records: RecordT) -> None:
    """Hand over one batch, and end the epoch."""
    slot = sink.build_part("kafka", sink.list_parts()[0], None)
    slot.write_batch([list(records)])
    slot.snapshot()


def messages(kafka: KafkaBroker, topic: str, count: int, partitions: int = 1) -> list[Message]:
    """Read the first `count` messages of a topic."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": f"test-{uuid.uuid4()}"})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    found = consumer.consume(count, SECONDS_MAX)
    consumer.close()
    assert len(found) == count
    return found


def headers(message: Message) -> dict[str, str]:
    """Read a message's headers as text."""
    found = cast("list[tuple[str, bytes]]", message.headers())
    return {name: value.decode() for name, value in found}


def test_availability_arrives_with_key_value_and_headers(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """The record as JSON under its SKU, with CloudEvents headers whose id and time are the same in every run."""
    name = topic()
    write(KafkaOutput(kafka.bootstrap_servers, {}).sink(named(AVAILABILITY, name)), availability("SKU-ä", 4711))
    (message,) = messages(kafka, name, 1)
    assert (message.key() or b"").decode() == "SKU-ä"
    assert AVAILABILITY.decode(message.value() or b"") == availability("SKU-ä", 4711)
    assert headers(message) == {
        "ce_specversion": "1.0",
        "ce_id": "SKU-ä:4711",
        "ce_source": "onhand",
        "ce_type": "onhand.availability.changed",
        "ce_time": TIME,
        "content-type": "application/json",
    }


def test_a_crossing_passes_on_its_trace(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """Id, time and `traceparent` are those of the record."""
    name, trace = topic(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    crossing = Threshold(
        "SKU-1:channel=web:7", "SKU-1", "web", None, "in_stock", "low_stock", 3, 10, 7, 1, TIME,
        initial=False, cause=Cause("clock"), traceparent=trace,
    )  # fmt: skip
    write(KafkaOutput(kafka.bootstrap_servers, {}).sink(named(THRESHOLDS, name)), crossing)
    (message,) = messages(kafka, name, 1)
    assert message.key() == b"SKU-1"
    assert json.loads(message.value() or b"")["from"] == "in_stock"
    found = headers(message)
    assert (found["ce_id"], found["ce_time"], found["traceparent"]) == (crossing.id, TIME, trace)


def test_what_is_told_of_a_whole_location_keeps_its_order(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """A silence is of no SKU; its key is the name that stands for the SKU in its id."""
    name = topic()
    silence = Divergence(
        "@east:divergence=east=heartbeats:opened:7", "opened", None, "east", "heartbeats", "trust_percent", 90, 100,
        TIME, "silent", [], TIME,
    )  # fmt: skip
    write(KafkaOutput(kafka.bootstrap_servers, {}).sink(named(DIVERGENCES, name)), silence)
    (message,) = messages(kafka, name, 1)
    assert message.key() == b"@east"
    assert DIVERGENCES.decode(message.value() or b"") == silence
    assert headers(message)["ce_id"] == silence.id


@pytest.mark.parametrize(
    ("topic_of", "record", "type_"),
    [
        (
            REPLENISHMENTS,
            Replenishment("A:replenishment=east:proposed:7", "proposed", "A", "east", 48, 31, 27, 3.2, "low", 7, TIME),
            "onhand.replenishment.changed",
        ),
        (
            SHADOW,
            ShadowDifference("A:shadow:7", "A", 7, TIME, 2, {"web": ShadowOffer(3, 5)}),
            "onhand.shadow.changed",
        ),
    ],
)
def test_proposals_and_shadow_differences_arrive_under_their_sku(
    kafka: KafkaBroker,
    topic: MakeTopic,
    topic_of: Topic[Any, Any],
    record: Replenishment | ShadowDifference,
    type_: str,
) -> None:
    """With an id and a time that are the same in every run."""
    name = topic()
    write(KafkaOutput(kafka.bootstrap_servers, {}).sink(named(topic_of, name)), record)
    (message,) = messages(kafka, name, 1)
    assert message.key() == b"A"
    assert topic_of.decode(message.value() or b"") == record
    found = headers(message)
    assert (found["ce_id"], found["ce_time"], found["ce_type"]) == (record.id, TIME, type_)


def test_a_dead_letter_may_have_neither_sku_nor_time(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """Its key is the SKU where one is known, else there is none."""
    name = topic()
    letters = [
        DeadLetter("log/0/1", "not_json", "", "log/0/1", None, None, None, None, None),
        DeadLetter("log/0/2", "too_late", "", "log/0/2", "wms", "SKU-1", TIME, None, None),
    ]
    write(KafkaOutput(kafka.bootstrap_servers, {}).sink(named(DEAD_LETTERS, name)), *letters)
    found = messages(kafka, name, 2)
    assert [message.key() for message in found] == [None, b"SKU-1"]
    assert [headers(message).get("ce_time") for message in found] == [None, TIME]


def test_a_sku_has_the_partition_that_java_gives_it(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """The hashes are those of Kafka's own tests of murmur2, so that all producers agree on where a SKU lives."""
    hashes = {
        "21": -973932308,
        "foobar": -790332482,
        "a-little-bit-long-string": -985981536,
        "a-little-bit-longer-string": -1486304829,
        "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    }
    name = topic(7)
    write(KafkaOutput(kafka.bootstrap_servers, {}).sink(named(AVAILABILITY, name)), *map(availability, hashes))
    found = {(message.key() or b"").decode(): message.partition() for message in messages(kafka, name, 5, 7)}
    assert found == {sku: (number & 0x7FFFFFFF) % 7 for sku, number in hashes.items()}


def test_records_are_what_librdkafka_s_own_binding_would_send(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """Keys, values and headers, empty and absent ones among them, in partitions and in order."""
    traces = (None, b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    keys = (None, b"", b"SKU-1", "Gr\u00fc\u00dfe".encode(), b"\0", b"x" * 300)
    records = [
        Encoded(key, b"id-%d" % number, time_, value, trace)
        for number, (key, time_, value, trace) in enumerate(
            product(keys, (None, TIME.encode()), (b"{}", b"", b"y" * 5000), traces)
        )
    ]
    native, binding = topic(7), topic(7)
    output = KafkaOutput(kafka.bootstrap_servers, {"sticky.partitioning.linger.ms": 0})
    output.produce(native, "onhand.type", Records.of(records[:50]))
    output.produce(native, "onhand.type", Records.of(records)[50:])
    output.flush()
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "partitioner": "murmur2_random"})
    for record in records:
        own = [("ce_time", record.time), ("traceparent", record.traceparent)]
        common: list[tuple[str, str | bytes | None]] = [
            ("ce_specversion", b"1.0"), ("ce_id", record.id), ("ce_source", b"onhand"), ("ce_type", b"onhand.type"),
            ("content-type", b"application/json"),
        ]  # fmt: skip
        headers_ = common + [(name, value) for name, value in own if value is not None]
        producer.produce(binding, record.value, record.key, headers=headers_)
    assert producer.flush(SECONDS_MAX) == 0

    def found(name: str) -> dict[str, tuple[object, ...]]:
        read = messages(kafka, name, len(records), 7)
        told = [(m.partition(), m.key(), m.value(), m.headers()) for m in read]
        for partition in range(7):
            numbers = [int(headers(m)["ce_id"][3:]) for m in read if m.partition() == partition]
            assert numbers == sorted(numbers)
        return {repr(entry[3]): entry if entry[1] is not None else entry[1:] for entry in told}

    assert len(found(native)) == len(records)
    assert found(native) == found(binding)


def test_a_full_queue_is_waited_for(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """More records than librdkafka takes at once all arrive, in order."""
    name = topic()
    output = KafkaOutput(kafka.bootstrap_servers, {"queue.buffering.max.messages": 50})
    write(output.sink(named(AVAILABILITY, name)), *(availability("SKU-1", version) for version in range(1000)))
    found = messages(kafka, name, 1000)
    assert [AVAILABILITY.decode(message.value() or b"").version for message in found] == list(range(1000))
    assert output.produced == 1000


def test_a_record_that_the_broker_refuses_stops_the_flow(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """Larger than its topic allows: the error names topic, SKU, reason and remedy, now and ever after."""
    name = topic(1, {"max.message.bytes": "500"})
    output = KafkaOutput(kafka.bootstrap_servers, {"compression.type": "none"})
    sink = output.sink(named(AVAILABILITY, name))
    slot = sink.build_part("kafka", sink.list_parts()[0], None)
    slot.write_batch([[availability("SKU-1", channels=100)]])
    with pytest.raises(SinkError, match=rf"did not take 1 records, first {name}, key 'SKU-1': .*max\.message\.bytes"):
        slot.snapshot()
    with pytest.raises(SinkError, match="did not take 1 records"):
        slot.write_batch([[availability("SKU-2")]])


def test_a_record_that_librdkafka_refuses_stops_the_flow(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """Larger than the producer's own limit."""
    output = KafkaOutput(kafka.bootstrap_servers, {"message.max.bytes": 1000})
    with pytest.raises(SinkError, match=r"does not take a record for .*max\.message\.bytes"):
        write(output.sink(named(AVAILABILITY, topic())), availability("SKU-1", channels=100))


def test_a_topic_deleted_under_way_stops_the_flow(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """What can no longer be delivered is not passed over."""
    name = topic()
    output = KafkaOutput(kafka.bootstrap_servers, {"topic.metadata.propagation.max.ms": 500}, delivery_seconds_max=15)
    sink = output.sink(named(AVAILABILITY, name))
    write(sink, availability("SKU-1"))
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    deleted = admin.delete_topics([name])
    deleted[name].result(SECONDS_MAX)
    slot = sink.build_part("kafka", "slot-00", None)
    with pytest.raises(SinkError, match=r"did not take 1 records, first .*onhand topics create"):
        write_and_settle(slot, availability("SKU-2"))


@pytest.mark.parametrize("name", ["UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION", "_DESTROY"])
def test_whatever_librdkafka_says_of_a_topic_that_is_gone_names_the_way_out(name: str) -> None:
    """Which of them it says depends on when it last asked what the cluster has."""
    output = KafkaOutput("127.0.0.1:1", {})
    error = KafkaError(getattr(KafkaError, name))
    deliveries = output._producer._deliveries  # noqa: SLF001
    deliveries.first, deliveries.failed = Failure("gone", b"SKU-1", error), 1
    with pytest.raises(SinkError, match=r"first gone, key 'SKU-1': .*onhand topics create"):
        output.poll()


def write_and_settle(slot: kafka_sinks._Slot[Availability], record: Availability) -> None:
    """Hand over one record, and end the epoch."""
    slot.write_batch([[record]])
    slot.snapshot()


def test_a_snapshot_waits_for_every_acknowledgement(fragile: KafkaBroker) -> None:
    """Writing goes on while the broker stands still; an epoch does not, and the wait beats."""
    make(fragile, "waits")
    beats: list[float] = []
    output = KafkaOutput(fragile.bootstrap_servers, {}, beat=lambda: beats.append(time.monotonic()))
    sink = output.sink(named(AVAILABILITY, "waits"))
    write(sink, availability("SKU-1"))
    slot = sink.build_part("kafka", "slot-01", None)
    fragile.freeze()
    slot.write_batch([[availability("SKU-2")]])  # it would wait for two minutes, and fail
    began = time.monotonic()
    thawed = threading.Timer(1.5, fragile.thaw)
    thawed.start()
    slot.snapshot()
    assert time.monotonic() - began > 1.4
    assert beats
    assert len(messages(fragile, "waits", 2)) == 2
    thawed.join()


def test_a_broker_that_does_not_come_back_stops_the_flow(fragile: KafkaBroker) -> None:
    """The wait has a bound, and the error counts what was not delivered."""
    make(fragile, "stuck")
    sink = KafkaOutput(fragile.bootstrap_servers, {}, delivery_seconds_max=2.0).sink(named(AVAILABILITY, "stuck"))
    write(sink, availability("SKU-1"))
    slot = sink.build_part("kafka", "slot-00", None)
    slot.write_batch([[availability(f"SKU-{number}") for number in range(5)]])
    fragile.freeze()
    try:
        slot.write_batch([[availability(f"SKU-{number}") for number in range(5)]])
        with pytest.raises(SinkError, match=r"did not take \d+ records|has not acknowledged \d+ records in 2 s"):
            slot.snapshot()
    finally:
        fragile.thaw()


def make(kafka: KafkaBroker, name: str) -> None:
    """Make a topic on a broker that is not the shared one."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    made = admin.create_topics([NewTopic(name, 1, 1)])
    made[name].result(SECONDS_MAX)


def test_a_missing_topic_stops_the_start(kafka: KafkaBroker) -> None:
    """The error says which topic, and which command makes it."""
    nowhere = dataclasses.replace(AVAILABILITY, name="never-made")
    with pytest.raises(SinkError, match="has no topic never-made: run `onhand topics create`"):
        KafkaOutput(kafka.bootstrap_servers, {}).sink(nowhere).list_parts()


def test_a_topic_made_a_moment_later_is_found(kafka: KafkaBroker) -> None:
    """Brokers learn of a new topic one after the other; a start right behind its making is no error."""
    name = f"late-{uuid.uuid4()}"
    made = threading.Timer(0.7, make, (kafka, name))
    made.start()
    KafkaOutput(kafka.bootstrap_servers, {}).check(name)
    made.join()


def test_a_broker_that_is_not_there_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says which broker, and what to do."""
    monkeypatch.setattr(kafka_sinks, "CHECK_SECONDS_MAX", 1.0)
    with pytest.raises(SinkError, match=r"Kafka at 127\.0\.0\.1:1 does not answer: .*correct kafka\.bootstrap_servers"):
        KafkaOutput("127.0.0.1:1", {}).sink(AVAILABILITY).list_parts()


def test_a_wrong_password_stops_the_start_and_is_not_repeated(
    fragile: KafkaBroker, secure_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refused login is what the error tells, not the silence that follows it."""
    assert fragile.pid is not None
    monkeypatch.setattr(kafka_sinks, "CHECK_SECONDS_MAX", 3.0)
    login: dict[str, str | int | float | bool] = {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "onhand",
        "sasl.password": "hunter2",
    }
    with pytest.raises(SinkError, match=r"_AUTHENTICATION.*check the sasl settings") as caught:
        KafkaOutput(f"127.0.0.1:{secure_port}", login).check("any")
    assert "hunter2" not in str(caught.value)
    right = KafkaOutput(f"127.0.0.1:{secure_port}", {**login, "sasl.password": "right"})
    with pytest.raises(SinkError, match="has no topic any"):
        right.check("any")


def test_a_setting_that_librdkafka_does_not_know_stops_the_start() -> None:
    """The error names it."""
    with pytest.raises(SinkError, match=r'settings: No such configuration property: "no\.such".*\[kafka\.options\]'):
        KafkaOutput("127.0.0.1:1", {"no.such": 1}).check("any")


def test_safety_cannot_be_switched_off(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """Acknowledgements by all replicas and idempotence are no options."""
    output = KafkaOutput(kafka.bootstrap_servers, {"acks": "0", "enable.idempotence": False})
    name = topic(1, {"max.message.bytes": "500"})
    with pytest.raises(SinkError, match="did not take 1 records"):
        write(output.sink(named(AVAILABILITY, name)), availability("SKU-1", channels=100))


def test_a_flow_ends_with_the_error_of_its_sink(kafka: KafkaBroker, topic: MakeTopic) -> None:
    """Bytewax hands the error on as the cause of its own."""
    name = topic(1, {"max.message.bytes": "500"})
    flow = Dataflow("availability")
    records: list[tuple[str, list[Availability | Records]]] = [("0", [availability("SKU-1", channels=100)])]
    sink = KafkaOutput(kafka.bootstrap_servers, {"compression.type": "none"}).sink(named(AVAILABILITY, name))
    op.output("kafka", op.input("records", flow, TestingSource(records)), sink)
    with pytest.raises(BytewaxRuntimeError) as caught:
        run_main(flow, epoch_interval=timedelta(0))  # type: ignore[no-untyped-call]
    causes = [caught.value.__cause__]
    while (cause := causes[-1]) is not None:
        causes.append(cause.__cause__)
    assert any(isinstance(cause, SinkError) for cause in causes)
