"""Where generations of rules are kept: a Kafka topic or a Redis stream, and every partition of the input."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from redis import Redis

from bench.drain import read_topic
from bench.servers import KafkaBroker, RedisServer
from schemas.topics import GENERATIONS
from schemas.watch import Generation
from sinks import rule_log
from sinks.rule_log import KafkaRuleLog, RedisRuleLog, RuleLog
from sinks.slots import SinkError
from tests.cli.command import NOWHERE

PARTITIONS = 3
TIME = "2026-11-21T09:00:00.000Z"

MakeLog = Callable[[], RuleLog]


def generation(number: int, members: int = 1) -> Generation:
    """A set of rules with so many SKUs in a category."""
    document = {"channels": {"web": {}}, "categories": {"c": [f"SKU-{member:07}" for member in range(members)]}}
    return Generation(generation=number, digest=f"d{number}", time=TIME, document=document)


@pytest.fixture
def registry(kafka: KafkaBroker) -> KafkaBroker:
    """A broker with the topic of generations."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    if GENERATIONS.name not in admin.list_topics(timeout=10).topics:
        wanted = NewTopic(GENERATIONS.name, 1, 1, config=dict(GENERATIONS.config))
        admin.create_topics([wanted])[GENERATIONS.name].result(20)
    return kafka


@pytest.fixture(params=["kafka", "redis"])
def make_log(request: pytest.FixtureRequest) -> MakeLog:
    """Make the rule log of an input that nobody else uses, of either kind."""
    if request.param == "redis":
        request.getfixturevalue("redis")
        server: RedisServer = request.getfixturevalue("redis_server")
        return lambda: RedisRuleLog(server.url, "movements")
    broker: KafkaBroker = request.getfixturevalue("registry")
    topic: Callable[..., str] = request.getfixturevalue("topic")
    return lambda: KafkaRuleLog(broker.bootstrap_servers, topic(PARTITIONS), {})


def test_generations_are_read_in_their_order(make_log: MakeLog) -> None:
    """From the beginning, every time, and none before there is one."""
    log = make_log()
    assert list(log.generations()) == []
    told = [generation(1), generation(2), generation(2, members=3), generation(3)]
    for each in told:
        log.append(each)
    assert list(log.generations()) == told
    assert list(log.generations()) == told


def test_a_large_set_of_rules_is_kept_whole(make_log: MakeLog) -> None:
    """Larger than the messages that brokers take by default."""
    log = make_log()
    large = generation(1, members=200_000)
    assert len(GENERATIONS.encode(large)) > 2_000_000
    log.append(large)
    assert list(log.generations()) == [large]


def test_many_generations_are_read_to_the_last(make_log: MakeLog) -> None:
    """However many are fetched at once."""
    log = make_log()
    for number in range(1, 26):
        log.append(generation(number))
    assert [found.generation for found in log.generations()] == list(range(1, 26))


def test_inputs_do_not_see_each_others_rules(
    registry: KafkaBroker, topic: Callable[..., str], redis: Redis, redis_server: RedisServer
) -> None:
    """One registry serves several of them."""
    assert redis.ping()
    ours: list[RuleLog] = [
        KafkaRuleLog(registry.bootstrap_servers, topic(1), {}),
        KafkaRuleLog(registry.bootstrap_servers, topic(1), {}),
        RedisRuleLog(redis_server.url, "here"),
        RedisRuleLog(redis_server.url, "there"),
    ]
    for number, log in enumerate(ours, 1):
        log.append(generation(number))
    assert [[found.generation for found in log.generations()] for log in ours] == [[1], [2], [3], [4]]


def test_records_get_into_every_partition_of_a_topic_in_their_order(
    registry: KafkaBroker, topic: Callable[..., str]
) -> None:
    """Without a key, because they concern every SKU."""
    name = topic(PARTITIONS)
    log = KafkaRuleLog(registry.bootstrap_servers, name, {})
    assert log.partitions() == [0, 1, 2]
    log.tell([b"first", b"second"])
    log.tell([b"third"])
    assert list(read_topic(registry.bootstrap_servers, name)) == [b"first", b"second", b"third"] * PARTITIONS


def test_a_record_that_the_broker_refuses_is_told(registry: KafkaBroker, topic: Callable[..., str]) -> None:
    """What only comes back as a delivery report is an error all the same, and the next record has nothing of it."""
    log = KafkaRuleLog(registry.bootstrap_servers, topic(1, {"max.message.bytes": "300"}), {})
    with pytest.raises(SinkError, match=r"did not take every record .*too large"):
        log.tell([b"x" * 2000])
    log.tell([b"small"])


def test_records_get_into_a_stream_in_their_order(redis: Redis, redis_server: RedisServer) -> None:
    """A stream is one partition."""
    log = RedisRuleLog(redis_server.url, "movements")
    assert log.partitions() == [0]
    log.tell([b"first", b"second"])
    entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", redis.xrange("movements"))
    assert [fields for _, fields in entries] == [{b"payload": b"first"}, {b"payload": b"second"}]


def test_a_topic_that_is_missing_is_told(registry: KafkaBroker) -> None:
    """With the command that makes it."""
    log = KafkaRuleLog(registry.bootstrap_servers, "no-such-topic", {})
    with pytest.raises(SinkError, match="has no topic no-such-topic: run `onhand topics create`"):
        log.tell([b"record"])


@pytest.mark.parametrize("code", [KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART])
def test_a_registry_that_was_just_made_is_asked_again(
    registry: KafkaBroker, topic: Callable[..., str], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A broker may take a moment to learn of a topic."""
    asked: list[float] = []

    class Hesitating(Consumer):
        """A consumer whose broker does not know the topic at first."""

        def get_watermark_offsets(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401  # as confluent_kafka has it
            asked.append(0)
            if len(asked) < 3:
                raise KafkaException(KafkaError(code))
            return super().get_watermark_offsets(*arguments, **named)

    monkeypatch.setattr(rule_log, "Consumer", Hesitating)
    log = KafkaRuleLog(registry.bootstrap_servers, topic(1), {})
    log.append(generation(1))
    assert list(log.generations()) == [generation(1)]
    assert len(asked) == 3


def test_a_server_out_of_reach_is_told() -> None:
    """After a bounded wait, whatever is asked."""
    kafka = KafkaRuleLog(NOWHERE, "movements", {"log_level": 0})
    stream = RedisRuleLog(f"redis://{NOWHERE}/0", "movements")
    with pytest.raises(SinkError, match=f"Kafka at {NOWHERE} does not tell"):
        list(kafka.generations())
    with pytest.raises(SinkError, match="Redis does not tell"):
        list(stream.generations())
    with pytest.raises(SinkError, match="Redis did not take a record for movements"):
        stream.tell([b"record"])


def test_settings_that_librdkafka_refuses_are_told(registry: KafkaBroker) -> None:
    """Here that it may not reorder records, which is how a change in parts stays whole."""
    log = KafkaRuleLog(registry.bootstrap_servers, "movements", {"max.in.flight.requests.per.connection": 100})
    with pytest.raises(SinkError, match=r"cannot be written to with these settings: .*max\.in\.flight"):
        log.tell([b"record"])


@pytest.fixture
def spoiled(registry: KafkaBroker, topic: Callable[..., str], redis: Redis, redis_server: RedisServer) -> list[RuleLog]:
    """Registries that hold something else."""
    name = topic(1)
    producer = Producer({"bootstrap.servers": registry.bootstrap_servers})
    producer.produce(GENERATIONS.name, b"{", name.encode(), 0)
    assert producer.flush(20) == 0
    redis.xadd(GENERATIONS.name, {"key": "movements", "payload": "{"})
    redis.xadd(GENERATIONS.name, {"key": "other", "nothing": "here"})
    return [
        KafkaRuleLog(registry.bootstrap_servers, name, {}),
        RedisRuleLog(redis_server.url, "movements"),
        RedisRuleLog(redis_server.url, "other"),
    ]


def test_a_registry_that_holds_something_else_is_told(spoiled: list[RuleLog]) -> None:
    """Nobody guesses which rules were pushed."""
    for log in spoiled:
        with pytest.raises(SinkError):
            list(log.generations())


@pytest.fixture(autouse=True)
def _nothing_left(redis_server: RedisServer) -> Iterator[None]:
    yield
    with Redis.from_url(redis_server.url) as client:
        client.delete(GENERATIONS.name, "movements")
