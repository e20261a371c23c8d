"""Explanations and rules in force in Redis: the newest stays, whoever writes last, and numbers never wait for them."""

from collections.abc import Callable, Iterator
from typing import cast

import msgspec
import pytest
from redis import Redis

from bench.servers import RedisServer
from schemas.outputs import Availability, ChannelAvailability, Explanation, LaneResult, RulesInForce
from sinks.redis_availability import EXPLANATIONS_PER_CALL_MAX, RedisAvailabilitySink
from sinks.redis_keys import Held, parse_explanation, read_partitions_held, read_promises, read_rules_in_force
from sinks.redis_pipeline import RedisPipeline
from sinks.redis_server import EmbeddedRedis

PREFIX, EXPLAIN_PREFIX = "avail:", "why:"
TIME = "2026-11-21T09:00:00.000Z"
BEYOND_DOUBLES = 2**53
NOTHING = LaneResult(0, [], [], [], [], [], [], [], [], [], [], 0, 0, 0)

Told = tuple[int, int, int, int]  # incarnation, partition, offset, generation


def explanation(sku: str, version: int, incarnation: int = 1, home: str = "log/0") -> Explanation:
    """Why a SKU without channels and positions is as it is."""
    return Explanation(sku, incarnation, version, TIME, None, 1, home, {}, {}, [], 0, [], [])


def in_force(incarnation: int, partition: int, offset: int, generation: int) -> RulesInForce:
    """A partition goes by rules whose document says which generation they are."""
    document = msgspec.Raw(document_of(generation))
    return RulesInForce(partition, incarnation, generation, f"digest {generation}", offset, TIME, document)


def document_of(generation: int) -> bytes:
    """The rules of a generation."""
    return msgspec.json.encode({"channels": {f"of {generation}": {}}})


class Writing:
    """A sink and its first slot, driven as Bytewax does."""

    def __init__(self, url: str) -> None:
        self.sink = RedisAvailabilitySink(url, PREFIX, lambda: 0, explain_prefix=EXPLAIN_PREFIX)
        self.slot = self.sink.build_part("redis", self.sink.list_parts()[0], None)

    def write(self, *explanations: Explanation, rules: list[RulesInForce] | None = None) -> None:
        """One batch, and the end of its epoch."""
        self.slot.write_batch([NOTHING._replace(explanations=list(explanations), rules=rules or [])])
        self.slot.snapshot()

    def tell(self, *told: Told) -> None:
        """Rules in force of one batch, and the end of its epoch."""
        self.write(rules=[in_force(*each) for each in told])


@pytest.fixture
def writing(embedded: EmbeddedRedis, client: Redis) -> Iterator[Writing]:
    """A sink that writes to the emptied server of this test."""
    assert client.dbsize() == 0
    writing = Writing(embedded.url)
    yield writing
    writing.slot.close()


def explained(client: Redis, sku: str) -> Explanation:
    """The explanation of a SKU."""
    found = parse_explanation(cast("bytes", client.hget(f"{EXPLAIN_PREFIX}{sku}", "doc")))
    assert found is not None
    return found


def calls(client: Redis) -> int:
    """How many script calls Redis has run."""
    return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])


def test_an_explanation_is_a_hash_of_its_own_under_its_prefix(writing: Writing, client: Redis) -> None:
    """The document, and whence it is."""
    writing.write(explanation("SKU-1", 711, 1_763_800_000))
    assert explained(client, "SKU-1") == explanation("SKU-1", 711, 1_763_800_000)
    assert client.hmget("why:SKU-1", "@incarnation", "@version") == [b"1763800000", b"711"]
    assert client.hlen("why:SKU-1") == 3
    assert client.keys("avail:*") == []


@pytest.mark.parametrize(
    ("known", "offered", "is_taken"),
    [
        ((1, 5), (1, 6), True),
        ((1, 5), (1, 5), True),
        ((1, 5), (1, 4), False),
        ((1, 10), (1, 9), False),
        ((1, 99), (2, 0), True),
        ((2, 0), (1, 99), False),
        ((10, 4), (9, 5), False),
        ((1, BEYOND_DOUBLES + 1), (1, BEYOND_DOUBLES), False),
    ],
)
def test_an_explanation_of_the_same_or_a_newer_version_gets_in(
    writing: Writing, client: Redis, known: tuple[int, int], offered: tuple[int, int], *, is_taken: bool
) -> None:
    """There may be more to say about the same numbers; an older explanation changes nothing."""
    for (incarnation, version), home in ((known, "first"), (offered, "second")):
        writing.write(explanation("A", version, incarnation, home))
    assert explained(client, "A").home == ("second" if is_taken else "first")
    wanted = offered if is_taken else known
    assert client.hmget("why:A", "@incarnation", "@version") == [str(number).encode() for number in wanted]


def test_of_equal_versions_the_later_stays_when_they_are_sent_again() -> None:
    """A fact may have left the numbers as they were: those go newest first, what explains them in its order."""
    with RedisServer() as server:
        writing = Writing(server.url)
        server.freeze()
        for home in ("log/0", "log/1", "log/2"):
            writing.slot.write_batch([NOTHING._replace(explanations=[explanation("SKU-1", 5, home=home)])])
        server.kill()
        server.start()
        writing.slot.snapshot()
        with Redis.from_url(server.url) as client:
            assert explained(client, "SKU-1").home == "log/2"
        writing.slot.close()


def test_a_call_holds_a_bounded_number_of_explanations(writing: Writing, client: Redis) -> None:
    """So that a reader behind it still gets its answer soon."""
    count = 2 * EXPLANATIONS_PER_CALL_MAX + 1
    writing.write(*(explanation(f"SKU-{number}", 1) for number in range(count)))
    assert len(client.keys("why:*")) == count
    assert calls(client) == 3


def test_numbers_are_sent_before_what_explains_them(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where both are of one batch."""
    sent: list[str] = []
    send = RedisPipeline.send

    def noted(pipeline: RedisPipeline, script: str, argument: bytes, answered: Callable[[int], None]) -> int:
        sent.append(script)
        return send(pipeline, script, argument, answered)

    monkeypatch.setattr(RedisPipeline, "send", noted)
    record = Availability("A", 1, 1, TIME, 1, {"web": ChannelAvailability(1, 1, "in_stock")}, {})
    result = NOTHING._replace(availability=[record], explanations=[explanation("A", 1)], rules=[in_force(1, 0, 5, 1)])
    writing.slot.write_batch([result, result])
    assert [name for name in sent if name != "health"] == ["availability", "explanations", "rules"]


def test_rules_in_force_are_told_by_partition_with_the_rules_of_the_greatest(writing: Writing, client: Redis) -> None:
    """And without the rules, which may be large, for who asks which ones only."""
    assert read_rules_in_force(client, PREFIX) is None
    assert read_partitions_held(client, PREFIX) == {}
    writing.tell((7, 0, -1, 1), (7, 1, 40, 3), (7, 10, 5, 2))
    held = {
        0: Held(1, "digest 1", -1, TIME),
        1: Held(3, "digest 3", 40, TIME),
        10: Held(2, "digest 2", 5, TIME),
    }
    assert read_partitions_held(client, PREFIX) == held
    found = read_rules_in_force(client, PREFIX)
    assert found is not None
    assert (found.incarnation, found.partitions, found.generation) == (7, held, 3)
    assert msgspec.json.encode(found.document) == document_of(3)


@pytest.mark.parametrize(
    ("told", "partitions", "greatest"),
    [
        ([(1, 0, 5, 2), (1, 0, 6, 3)], {0: 3}, 3),
        ([(1, 0, 6, 3), (1, 0, 5, 2)], {0: 3}, 3),
        ([(1, 0, 9, 2), (1, 0, 10, 3)], {0: 3}, 3),
        ([(1, 0, -1, 1), (1, 0, 0, 2)], {0: 2}, 2),
        ([(1, 0, 0, 2), (1, 0, -1, 1)], {0: 2}, 2),
        ([(1, 0, 5, 1), (1, 0, 5, 2)], {0: 2}, 2),
        ([(1, 0, 5, 3), (1, 1, 5, 2)], {0: 3, 1: 2}, 3),
        ([(1, 0, 5, 9), (1, 1, 5, 10)], {0: 9, 1: 10}, 10),
        ([(1, 0, 5, 3), (1, 1, 5, 3), (2, 1, -1, 1)], {1: 1}, 1),
        ([(2, 0, 5, 1), (1, 0, 99, 7)], {0: 1}, 1),
        ([(1, 0, BEYOND_DOUBLES + 1, 3), (1, 0, BEYOND_DOUBLES, 2)], {0: 3}, 3),
    ],
)
def test_a_partition_goes_forward_and_a_new_state_begins_anew(
    writing: Writing, client: Redis, told: list[Told], partitions: dict[int, int], greatest: int
) -> None:
    """An older offset or incarnation changes nothing, in whatever order they come."""
    for each in told:
        writing.tell(each)
    found = read_rules_in_force(client, PREFIX)
    assert found is not None
    assert {at: held.generation for at, held in found.partitions.items()} == partitions
    assert (found.generation, msgspec.json.encode(found.document)) == (greatest, document_of(greatest))


def test_of_equal_generations_the_later_document_counts(writing: Writing, client: Redis) -> None:
    """Generation 1 of the log takes the place of the file's, which has its number."""
    of_log = in_force(1, 0, 4, 1)
    of_log.document = msgspec.Raw(b'{"of":"the log"}')
    writing.write(rules=[in_force(1, 0, -1, 1), of_log])
    found = read_rules_in_force(client, PREFIX)
    assert found is not None
    assert found.document == {"of": "the log"}


def test_a_large_document_is_sent_once_for_all_partitions(writing: Writing, client: Redis) -> None:
    """However many partitions it comes in force in."""
    document = msgspec.Raw(msgspec.json.encode({"x": "y" * 1_000_000}))
    rules = [in_force(1, partition, 5, 2) for partition in range(64)]
    for each in rules:
        each.document = document
    before = int(client.info("stats")["total_net_input_bytes"])
    writing.write(rules=rules)
    assert int(client.info("stats")["total_net_input_bytes"]) - before < 2_000_000
    assert len(read_partitions_held(client, PREFIX)) == 64


def test_neither_is_taken_for_a_sku(writing: Writing, client: Redis) -> None:
    """Rules stand beside the SKUs under a name that no SKU can have."""
    writing.tell((1, 0, 5, 1))
    assert sorted(client.keys("*")) == [b"avail:@health", b"avail:@rules"]
    assert read_promises(client, PREFIX, "@other") is None
