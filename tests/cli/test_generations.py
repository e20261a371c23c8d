"""Generations of rules: who gets which number, what is written for it, and what a start makes of a changed file."""

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from redis import Redis

from bench.servers import KafkaBroker, RedisServer
from cli.configuration import Configuration
from cli.failures import CliError
from cli.rules_at_start import claim, latest_of, settle_rules, write
from schemas.movements import Decoded, RulesChanged, decode
from schemas.rule_changes import PIECE_CHARACTERS_MAX, digest_of, document_of, merged
from schemas.rules import ChannelRules, Rules
from schemas.settings import InputSettings, RedisSettings, Settings
from schemas.topics import GENERATIONS
from schemas.watch import Generation
from sinks.rule_log import KafkaRuleLog
from sinks.slots import SinkError

Document = dict[str, Any]
STREAM = "movements"


def rules(safety_units: int) -> Rules:
    """Rules that differ in one number."""
    return Rules(channels={"web": ChannelRules(safety_units=safety_units)})


def document(safety_units: int, members: int = 0) -> Document:
    """The document of such rules, with so many SKUs in a category."""
    categories = {"c": tuple(f"SKU-{member:06}" for member in range(members))} if members else {}
    return document_of(msgspec.structs.replace(rules(safety_units), categories=categories))


def generation(number: int, of: Document) -> Generation:
    """A set of rules under a number."""
    return Generation(generation=number, digest=digest_of(of), time="2026-11-21T09:00:00.000Z", document=of)


class Registry:
    """A registry without a server behind it, and somebody else who is quicker: `rivals` come in ahead of an append."""

    def __init__(self, *known: Generation, rivals: Sequence[Generation] = ()) -> None:
        self.log = list(known)
        self.rivals = list(rivals)
        self.told: list[RulesChanged] = []
        self.is_down = False

    def generations(self) -> Iterable[Generation]:
        """Everything so far."""
        return iter(list(self.log))

    def append(self, generation: Generation) -> None:
        """One more, behind the next rival."""
        if self.rivals:
            self.log.append(self.rivals.pop(0))
        self.log.append(generation)

    def partitions(self) -> list[int]:
        """One."""
        return [0]

    def tell(self, payloads: Sequence[bytes]) -> None:
        """Keep what is told, if the log is up."""
        if self.is_down:
            raise SinkError("the log is down")
        for payload in payloads:
            decoded = decode(payload)
            assert isinstance(decoded, Decoded)
            assert isinstance(decoded.record, RulesChanged)
            self.told.append(decoded.record)


def numbers(registry: Registry) -> list[int]:
    """The numbers in the registry, in their order."""
    return [found.generation for found in registry.log]


def test_numbers_go_on_from_the_latest() -> None:
    """The first is 1; the same rules again get none."""
    registry = Registry()
    first, second = claim(registry, document(1)), claim(registry, document(2))
    assert first is not None
    assert second is not None
    assert (first.generation.generation, first.before) == (1, None)
    assert (second.generation.generation, second.before) == (2, first.generation)
    assert (first.changes, second.changes) == (["channels.web.safety_units"], ["channels.web.safety_units"])
    assert claim(registry, document(2)) is None
    assert numbers(registry) == [1, 2]


def test_rules_of_before_get_a_number_of_their_own() -> None:
    """Going back is a change like any other."""
    registry = Registry(generation(1, document(1)), generation(2, document(2)))
    pushed = claim(registry, document(1))
    assert pushed is not None
    assert pushed.generation.generation == 3


def test_of_several_who_claim_a_number_the_first_has_it() -> None:
    """The other one goes on behind it, and sees what differs from there."""
    rival = generation(2, document(5))
    registry = Registry(generation(1, document(1)), rivals=[rival])
    pushed = claim(registry, document(2))
    assert pushed is not None
    assert (pushed.generation.generation, pushed.before) == (3, rival)
    latest = latest_of(registry)
    assert latest is not None
    assert latest.document == document(2)


def test_two_who_claim_a_number_for_the_same_rules_both_have_it() -> None:
    """They write the very same records, which repeat themselves without harm."""
    rival = generation(2, document(2))
    registry = Registry(generation(1, document(1)), rivals=[rival])
    pushed = claim(registry, document(2))
    assert pushed is not None
    assert pushed.generation is rival


def test_what_lost_its_number_counts_for_nothing() -> None:
    """Of one number the first counts, however many stand behind it."""
    registry = Registry(generation(1, document(1)), generation(2, document(2)), generation(2, document(3)))
    latest = latest_of(registry)
    assert latest is not None
    assert latest.document == document(2)


def test_somebody_who_is_always_quicker_is_told_of() -> None:
    """Trying again has an end."""
    registry = Registry(rivals=[generation(number, document(number + 100)) for number in range(1, 50)])
    with pytest.raises(CliError, match="somebody else pushes rules"):
        claim(registry, document(1))


def test_where_the_registry_was_lost_numbers_go_on_behind_those_in_force() -> None:
    """A lower number would be refused by every partition."""
    registry = Registry()
    pushed = claim(registry, document(1), in_force=8)
    assert pushed is not None
    assert (pushed.generation.generation, pushed.before) == (9, None)


@pytest.mark.parametrize("seed", range(3))
def test_many_who_push_at_once_each_get_a_number(kafka: KafkaBroker, topic: Callable[..., str], seed: int) -> None:
    """In a real Kafka: one number each, without a gap, each with the rules of who got it."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    if GENERATIONS.name not in admin.list_topics(timeout=10).topics:
        wanted = NewTopic(GENERATIONS.name, 1, 1, config=dict(GENERATIONS.config))
        admin.create_topics([wanted])[GENERATIONS.name].result(20)
    name, got = topic(1), dict[int, Document]()
    start = threading.Barrier(4)

    def push(mine: Document) -> None:
        log = KafkaRuleLog(kafka.bootstrap_servers, name, {})
        start.wait()
        pushed = claim(log, mine)
        assert pushed is not None
        got[pushed.generation.generation] = mine

    threads = [threading.Thread(target=push, args=(document(10 * seed + number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(got) == [1, 2, 3, 4]
    counts: dict[int, Document] = {}
    for found in KafkaRuleLog(kafka.bootstrap_servers, name, {}).generations():
        counts.setdefault(found.generation, found.document)
    assert counts == got


def carried(records: list[RulesChanged]) -> Document:
    """The patch in control records, one or many."""
    texts = [msgspec.json.decode(record.changes) for record in records]
    patch: Document = texts[0] if len(records) == 1 else msgspec.json.decode("".join(texts))
    return patch


@pytest.mark.parametrize(
    ("members", "has_base", "since"),
    [(0, False, 0), (0, True, 0), (3000, False, 0), (3000, True, 1)],
)
def test_small_rules_are_written_whole_and_large_ones_as_what_changed(
    members: int, since: int, *, has_base: bool
) -> None:
    """Whole too where it is not known what the partitions go by."""
    before, after = generation(1, document(1, members)), generation(2, document(2, members))
    registry = Registry()
    write(registry, after, before if has_base else None)
    assert {(record.generation, record.since) for record in registry.told} == {(2, since)}
    assert merged(before.document if since else {}, carried(registry.told)) == after.document
    is_in_parts = bool(members) and not since
    assert (len(registry.told) > 1) == is_in_parts
    assert [record.part for record in registry.told] == list(range(1, len(registry.told) + 1))
    assert all(len(record.changes) <= 3 * PIECE_CHARACTERS_MAX for record in registry.told)


def test_rules_that_were_claimed_and_not_written_are_told_of() -> None:
    """With what brings them into the log all the same."""
    registry = Registry()
    registry.is_down = True
    with pytest.raises(SinkError, match=r"generation 4 is not in every partition \(the log is down\): a start of"):
        write(registry, generation(4, document(1)))


@pytest.fixture
def configuration(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> Configuration:
    """A stream of movements in an empty Redis."""
    assert redis.dbsize() == 0
    settings = Settings(
        redis=RedisSettings(url=redis_server.url), input=InputSettings(kind="redis_stream", topic=STREAM)
    )
    return Configuration(settings, tmp_path, None)


def start(configuration: Configuration, safety_units: int) -> tuple[int, int]:
    """A start with a file: the generation that holds then, and the safety stock of the first generation."""
    settled = settle_rules(configuration, rules(safety_units), configuration.settings.redis.url)
    return settled.generation, settled.first.channels["web"].safety_units


def in_stream(redis: Redis, stream: str) -> list[Document]:
    """The payloads of a stream."""
    entries: Any = redis.xrange(stream)
    return [msgspec.json.decode(fields[b"payload"]) for _, fields in entries]


def test_a_start_makes_the_file_the_first_generation_or_the_next_or_writes_the_latest_again(
    configuration: Configuration, redis: Redis
) -> None:
    """Whatever came before, every partition holds the latest whole; the past is decided by the first."""
    assert [start(configuration, units) for units in (1, 1, 2, 2, 1)] == [(1, 1), (1, 1), (2, 1), (2, 1), (3, 1)]
    assert [found["generation"] for found in in_stream(redis, GENERATIONS.name)] == [1, 2, 3]
    told = in_stream(redis, STREAM)
    assert [(record["kind"], record["generation"], record.get("since", 0)) for record in told] == [
        ("rules", 1, 0), ("rules", 1, 0), ("rules", 2, 0), ("rules", 2, 0), ("rules", 3, 0),
    ]  # fmt: skip
    assert [record["changes"] for record in told] == [document(units) for units in (1, 1, 2, 2, 1)]
    assert told[0] == told[1]


def test_a_start_writes_what_somebody_claimed_and_did_not_write(configuration: Configuration, redis: Redis) -> None:
    """A crash in between is made good."""
    redis.xadd(GENERATIONS.name, {"key": STREAM, "payload": GENERATIONS.encode(generation(1, document(7)))})
    assert start(configuration, 7) == (1, 7)
    assert [record["generation"] for record in in_stream(redis, STREAM)] == [1]


def test_a_start_goes_on_behind_what_redis_says_is_in_force(configuration: Configuration, redis: Redis) -> None:
    """Where the registry was lost."""
    held = {"generation": 8, "digest": "d", "offset": 5, "time": None}
    redis.hset("avail:@rules", mapping={"@incarnation": "1", "0": msgspec.json.encode(held)})
    assert start(configuration, 3) == (9, 3)


def test_a_start_with_a_first_generation_that_this_version_cannot_use_is_told(
    configuration: Configuration, redis: Redis
) -> None:
    """Rather than to decide the past by something else."""
    broken = generation(1, {"channels": {"web": {"safety_units": "many"}}})
    redis.xadd(GENERATIONS.name, {"key": STREAM, "payload": GENERATIONS.encode(broken)})
    with pytest.raises(CliError, match=r"generation 1 .* cannot be used by this version: channels.web.safety_units"):
        start(configuration, 3)


def test_a_file_has_the_rules_that_stand_in_it(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> None:
    """Nothing is claimed for it."""
    settings = Settings(redis=RedisSettings(url=redis_server.url), input=InputSettings(kind="jsonl", topic="-"))
    assert start(Configuration(settings, tmp_path, None), 4) == (0, 4)
    assert redis.dbsize() == 0
