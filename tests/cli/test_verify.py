"""`onhand verify`: finds nothing where all is well, and everything that is not, whatever moves meanwhile."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from redis import Redis

from bench.drain import Raw, read_topic
from bench.generate import RULES_PATH, LoadConfig, partition_of
from bench.servers import KafkaBroker
from cli import verify
from cli.availability_topic import Unreadable
from cli.comparing import Found, Stand
from cli.replaying import Ends, Replayed
from cli.verifying import Comparison, Tally
from schemas.batches import Batch, Origin
from schemas.outputs import Availability
from schemas.topics import AVAILABILITY, MOVEMENTS
from tests.cli.command import NOWHERE, assert_failed_in_one_line, onhand, started, wait_until
from tests.cli.filled import (
    CONFIG,
    PARTITIONS,
    Servers,
    ends_of,
    fill,
    generated,
    hashes_of,
    publish,
    running,
    servers_with_topics,
)
from tests.cli.test_rebuild import produce_some

SKU = "SKU-000001"
KEY = f"avail:{SKU}"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """A system that a run has filled and left; whoever changes it puts it right again."""
    with servers_with_topics() as servers:
        fill(servers, generated())
        yield servers


@pytest.fixture
def redis(servers: Servers) -> Iterator[Redis]:
    """Its Redis, which holds afterwards what it held before."""
    with servers.client() as client:
        before = everything(client)
        yield client
        client.flushall()
        for key, fields in before.items():
            client.hset(key, mapping=dict(fields))


def everything(client: Redis) -> dict[Any, dict[Any, Any]]:
    """All hashes, those of onhand's own among them."""
    return {key: client.hgetall(key) for key in client.scan_iter("*", count=5000)}


def verified(
    servers: Servers, folder: Path, code: int, *more: str, settings: Mapping[str, str] | None = None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The differences and the summary of a verify that ends with `code`."""
    done = onhand("verify", "--json", *more, cwd=folder, settings=servers.settings | dict(settings or {}))
    assert done.returncode == code, done.stdout + done.stderr
    *differences, summary = map(json.loads, done.stdout.splitlines())
    assert {line["kind"] for line in differences} <= {"difference"}
    assert summary["kind"] == "summary"
    return differences, summary


def said(differences: Sequence[Mapping[str, Any]]) -> set[tuple[str, ...]]:
    """SKU, place, reason and field of each difference."""
    return {(line["sku"], line["where"], line["reason"], line["field"]) for line in differences}


def last_record(servers: Servers, sku: str) -> Availability:
    """The last record of a SKU in the topic."""
    values = [value for value in read_topic(servers.kafka, AVAILABILITY.name) if f'"sku":"{sku}"'.encode() in value]
    return AVAILABILITY.decode(values[-1])


def test_help_ends_with_examples(tmp_path: Path) -> None:
    """Whoever asks for help gets lines that can be copied."""
    shown = onhand("verify", "--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert all(f"  {example}\n" in shown.stdout for example in verify.EXAMPLES)
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_where_all_is_well_nothing_is_found_and_nothing_changed(servers: Servers, tmp_path: Path) -> None:
    """Every SKU is equal in Redis and in the topic; keys, topics and the group stay as they were."""
    topics = (MOVEMENTS.name, AVAILABILITY.name)
    with servers.client() as client:
        before = everything(client), [ends_of(servers, topic) for topic in topics]
        differences, summary = verified(servers, tmp_path, 0)
        assert (everything(client), [ends_of(servers, topic) for topic in topics]) == before
    assert differences == []
    assert summary["skus"] == CONFIG.skus
    assert summary["records"] == sum(before[1][0])
    assert [summary[place]["equal"] for place in ("redis", "topic")] == [CONFIG.skus, CONFIG.skus]


@pytest.mark.parametrize(
    ("change", "field"),
    [({"web": 9999}, "web"), ({"@as_of": 1}, "@as_of"), ({"amazon": 1}, "amazon"), ({"web": None}, "web")],
)
def test_a_hash_that_was_tampered_with_is_found(
    change: dict[str, int | None], field: str, servers: Servers, redis: Redis, tmp_path: Path
) -> None:
    """A number, the time, a channel too many and one too few."""
    for name, value in change.items():
        if value is None:
            redis.hdel(KEY, name)
        else:
            redis.hset(KEY, name, value)
    differences, summary = verified(servers, tmp_path, 3)
    assert said(differences) == {(SKU, "redis", "differs", field)}
    assert summary["redis"]["different"] == summary["differences"] == 1
    assert summary["redis"]["equal"] == CONFIG.skus - 1
    assert summary["topic"]["different"] == 0


def test_an_expected_and_a_found_number_are_told(servers: Servers, redis: Redis, tmp_path: Path) -> None:
    """For people: a table, the counts, and one line at the end."""
    expected = int(redis.hget(KEY, "web") or 0)
    redis.hset(KEY, "web", 9999)
    done = onhand("verify", cwd=tmp_path, settings=servers.settings)
    assert done.returncode == 3
    head, row = done.stdout.splitlines()[:2]
    assert head.split() == ["SKU", "WHERE", "REASON", "FIELD", "EXPECTED", "FOUND"]
    assert row.split() == [SKU, "redis", "differs", "web", str(expected), "9999"]
    assert f"Redis: {CONFIG.skus - 1} equal, 1 different" in done.stdout
    assert "one field differs" in assert_failed_in_one_line(done, 3)


def test_a_deleted_key_is_found(servers: Servers, redis: Redis, tmp_path: Path) -> None:
    """It may be on its way, so it is waited for; then it is missing."""
    redis.delete(KEY)
    differences, _ = verified(servers, tmp_path, 3)
    assert said(differences) == {(SKU, "redis", "missing", "@version")}
    assert differences[0]["found"] is None


def test_a_key_that_comes_while_it_is_waited_for_is_no_difference(
    servers: Servers, redis: Redis, tmp_path: Path
) -> None:
    """A flow that is behind brings it; here somebody puts it back."""
    fields = redis.hgetall(KEY)
    redis.delete(KEY)
    late = threading.Timer(5, lambda: redis.hset(KEY, mapping=dict(fields)))  # type: ignore[arg-type]  # as above
    late.start()
    _, summary = verified(servers, tmp_path, 0)
    late.join()
    assert summary["redis"]["equal"] == CONFIG.skus


def test_a_foreign_key_is_found(servers: Servers, redis: Redis, tmp_path: Path) -> None:
    """A SKU that no movement names, and keys that are no hashes of onhand; onhand's own keys are none of these."""
    redis.hset("avail:FOREIGN", mapping={"@incarnation": 1, "@version": 5, "@as_of": 1, "web": 3})
    redis.hset("avail:HALF", "web", 3)
    redis.set("avail:TEXT", "3")
    redis.hset("avail:@rebuild", "run", "x")
    differences, _ = verified(servers, tmp_path, 3)
    assert said(differences) == {
        ("FOREIGN", "redis", "unknown", "@version"),
        ("HALF", "redis", "unreadable", "@hash"),
        ("TEXT", "redis", "unreadable", "@hash"),
    }


def test_versions_that_cannot_be_are_found(servers: Servers, redis: Redis, tmp_path: Path) -> None:
    """Older than it should be, at a record that changed nothing of it, and beyond the end of the log."""
    version = int(redis.hget(KEY, "@version") or 0)
    home = partition_of(SKU.encode(), PARTITIONS)
    assert version + 1 < ends_of(servers, MOVEMENTS.name)[home]
    redis.hset("avail:SKU-000002", "@version", 0)
    redis.hset(KEY, "@version", version + 1)
    redis.hset("avail:SKU-000003", "@version", 10**9)
    differences, _ = verified(servers, tmp_path, 3)
    assert said(differences) == {
        ("SKU-000002", "redis", "behind", "@version"),
        (SKU, "redis", "ahead", "@version"),
        ("SKU-000003", "redis", "ahead", "@version"),
    }


def test_a_tampered_record_of_the_topic_is_found(servers: Servers, tmp_path: Path) -> None:
    """Another number, a SKU that nobody knows, and what is no record; put right, all is well again."""
    true, second = last_record(servers, SKU), last_record(servers, "SKU-000002")
    web = msgspec.structs.replace(true.channels["web"], promised=9999)
    wrong = msgspec.structs.replace(true, channels={**true.channels, "web": web})
    publish(servers, [wrong, msgspec.structs.replace(true, sku="UNKNOWN"), ("SKU-000002", b"{not json")])
    differences, summary = verified(servers, tmp_path, 3)
    assert said(differences) == {
        (SKU, "topic", "differs", "web"),
        ("UNKNOWN", "topic", "unknown", "@version"),
        ("SKU-000002", "topic", "unreadable", "@hash"),
    }
    assert summary["redis"]["different"] == 0
    publish(servers, [true, second, ("UNKNOWN", None)])
    verified(servers, tmp_path, 0)


def test_what_older_states_left_in_the_topic_is_counted_and_no_difference(servers: Servers, tmp_path: Path) -> None:
    """A rebuild would not write it."""
    true = last_record(servers, SKU)
    publish(servers, [msgspec.structs.replace(true, sku="OLD", incarnation=true.incarnation - 1)])
    _, summary = verified(servers, tmp_path, 0)
    assert summary["topic"]["left_over"] == 1
    publish(servers, [("OLD", None)])


def test_no_more_than_the_limit_are_listed_and_all_are_counted(servers: Servers, redis: Redis, tmp_path: Path) -> None:
    """Twenty tampered SKUs, five lines."""
    for number in range(1, 21):
        redis.hset(f"avail:SKU-{number:06}", "web", 9999)
    differences, summary = verified(servers, tmp_path, 3, "--limit", "5")
    assert len(differences) == 5
    assert summary["differences"] == summary["redis"]["different"] == 20
    done = onhand("verify", "--limit", "5", cwd=tmp_path, settings=servers.settings)
    assert "and 15 more; --limit N lists more" in done.stdout


def test_under_load_nothing_is_found(tmp_path: Path) -> None:
    """SKUs move, new ones appear, and the flow goes on while everything is compared."""
    messages = generated(3, LoadConfig(movements=9_000, skus=300, partitions=PARTITIONS, end_markers=False))
    with servers_with_topics() as servers:
        produce_some(servers, messages[:2000])
        with running(servers) as process:
            load = threading.Thread(target=produce_some, args=(servers, [*messages[2000:], *new_skus(200)], 400))
            load.start()
            summaries = [verified(servers, tmp_path, 0)[1]]
            while load.is_alive():
                summaries.append(verified(servers, tmp_path, 0)[1])
            summaries.append(verified(servers, tmp_path, 0)[1])
            process.drain()
    assert len(summaries) > 2
    assert sum(summary["redis"]["moved"] for summary in summaries) > 10
    assert sum(summary["topic"]["moved"] for summary in summaries) > 10
    assert (summaries[0]["skus"], summaries[-1]["skus"]) == (300, 500)


def new_skus(count: int) -> list[Raw]:
    """The first movement of so many SKUs."""
    return [(partition_of(sku, PARTITIONS), sku, received(sku)) for sku in (b"NEW-%d" % each for each in range(count))]


def received(sku: bytes, number: int = 1) -> bytes:
    """Five units of a SKU."""
    body = {"id": f"{sku.decode()}-{number}", "source": "wms", "kind": "received", "sku": sku.decode()}
    return json.dumps({**body, "location": "dc-1", "quantity": 5, "time": "2025-01-01T00:00:00Z"}).encode()


def test_a_log_without_its_beginning_cannot_be_verified(
    servers: Servers,
    topic: Callable[..., str],
    kafka: KafkaBroker,
    tmp_path: Path,
) -> None:
    """Exit code 1 says where it begins, and what to do."""
    name = topic(1)
    there = Servers(kafka.bootstrap_servers, servers.redis)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number in range(10):
        producer.produce(name, received(b"SKU-1", number), b"SKU-1", 0)
    assert producer.flush(30) == 0
    for answer in admin.delete_records([TopicPartition(name, 0, 4)]).values():
        answer.result(20)
    settings = there.settings | {"input.topic": name, "output.kind": "none"}
    done = onhand("verify", cwd=tmp_path, settings=settings)
    line = assert_failed_in_one_line(done, 1)
    assert f"{name}, partition 0, begins at offset 4: its beginning is gone" in line
    assert "retention.ms=-1" in line


def run_of(settings: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A run of the flow over an input that ends."""
    done = onhand("run", "availability", cwd=folder, settings=settings)
    assert done.returncode == 0, done.stderr
    return done


def test_a_file_is_replayed_and_the_topic_left_out_without_one(servers: Servers, tmp_path: Path) -> None:
    """With no Kafka at all; a number that is wrong is found there, too."""
    lines = [payload for _, _, payload in generated(5, LoadConfig(movements=500, skus=50, partitions=1))]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines) + b"\n\n")
    settings = {
        "input.kind": "jsonl", "input.topic": "in.jsonl", "output.kind": "none", "kafka.bootstrap_servers": NOWHERE,
        "redis.url": servers.redis.replace("/0", "/1"), "rules.path": str(RULES_PATH),
    }  # fmt: skip
    run_of(settings, tmp_path)
    good = onhand("verify", cwd=tmp_path, settings=settings)
    assert good.returncode == 0, good.stderr
    assert "Redis: 51 equal\n" in good.stdout
    assert 'topic: left out, output.kind is "none"\n' in good.stdout
    with Redis.from_url(settings["redis.url"]) as client:
        client.hset("avail:SKU-000001", "web", 9999)
        bad = onhand("verify", "--json", cwd=tmp_path, settings=settings)
        client.flushdb()
    assert bad.returncode == 3
    assert json.loads(bad.stdout.splitlines()[-1])["topic"] is None


def test_a_stream_is_replayed_and_a_trimmed_one_refused(servers: Servers, tmp_path: Path) -> None:
    """Rules and ticks stand in it as in Kafka; without its beginning nothing can be computed."""
    settings = {
        "input.kind": "redis_stream", "input.topic": "movements", "output.kind": "none",
        "redis.url": servers.redis.replace("/0", "/2"), "rules.path": str(RULES_PATH),
    }  # fmt: skip
    with Redis.from_url(settings["redis.url"]) as client:
        missing = onhand("verify", cwd=tmp_path, settings=settings)
        assert "is input.topic right?" in assert_failed_in_one_line(missing, 1)
        for _, _, payload in generated(5, LoadConfig(movements=2500, skus=50, partitions=1)):
            client.xadd("movements", {"payload": payload})
        stream_run(settings, tmp_path, client)
        good = onhand("verify", "--json", cwd=tmp_path, settings=settings)
        assert good.returncode == 0, good.stdout + good.stderr
        assert json.loads(good.stdout)["redis"]["equal"] == 51
        client.xtrim("movements", maxlen=100, approximate=False)
        trimmed = onhand("verify", cwd=tmp_path, settings=settings)
        client.flushdb()
    assert "its beginning is gone" in assert_failed_in_one_line(trimmed, 1)


def stream_run(settings: Mapping[str, str], folder: Path, client: Redis) -> None:
    """A run over the stream, until all SKUs are there and it has read everything."""
    with started("run", "availability", cwd=folder, settings=settings) as process:
        wait_until(lambda: len(hashes_of(client)) == 51 and client.hget("avail:@health", "lag_seconds") == b"0.000")
        process.terminate()
        process.wait(30)


class Tail:
    """A log of movements that has gone on since the replay."""

    def __init__(self, end: int, *keys: bytes) -> None:
        self._end = end
        self._keys: list[bytes | None] = list(keys)

    def ends(self) -> Ends:
        """Where it ends now."""
        return {0: self._end}

    def left(self, ends: Ends) -> int:
        """Not asked for here."""
        return 0

    def read(self, ends: Ends) -> Iterator[Batch]:
        """What came since."""
        count = len(self._keys)
        yield Batch(Origin("", "", 0, ""), list(range(count)), [-1] * count, self._keys, [None] * count)


EXPECTED = Stand(50, 1000, {"web": 3})


@pytest.mark.parametrize(
    ("sku", "found", "tally"),
    [
        ("A", EXPECTED, Tally(equal=1)),
        ("A", EXPECTED._replace(promised={"web": 4}), Tally(different=1)),
        ("A", EXPECTED._replace(as_of_ms=1001), Tally(different=1)),
        ("A", None, Tally(different=1)),
        ("A", Unreadable("broken"), Tally(different=1)),
        ("A", EXPECTED._replace(version=49), Tally(different=1)),
        ("A", EXPECTED._replace(version=99), Tally(different=1)),  # at a record that changed nothing
        ("A", EXPECTED._replace(version=100), Tally(moved=1)),
        ("A", EXPECTED._replace(version=119), Tally(moved=1)),
        ("A", EXPECTED._replace(version=120), Tally(different=1)),  # of a log that ends there
        ("MISPLACED", EXPECTED, Tally(equal=1)),
        ("MISPLACED", EXPECTED._replace(version=49), Tally(undecided=1)),
        ("MISPLACED", EXPECTED._replace(promised={"web": 4}), Tally(undecided=1)),
        ("MISPLACED", None, Tally(different=1)),
        ("ARRIVED", EXPECTED._replace(version=110), Tally(moved=1)),
        ("UNKNOWN", EXPECTED._replace(version=110), Tally(different=1)),
    ],
)
def test_what_a_place_shows_is_judged_by_the_log(sku: str, found: Found, tally: Tally) -> None:
    """The replay ended at offset 100, the log at 120 by now; ARRIVED came in between."""
    stands = {"A": EXPECTED, "MISPLACED": EXPECTED}
    replayed = Replayed({0: 100}, 100, stands, {b"A": 0, b"MISPLACED": 0}, {b"MISPLACED"})
    comparison = Comparison(replayed, limit=10)
    comparison.judge("redis", sku, found)
    comparison.settle(Tail(120, b"ARRIVED"))
    assert comparison.tally("redis") == tally
    assert (comparison.differences > 0) == (tally.different > 0)


def test_a_later_look_replaces_an_earlier_one() -> None:
    """What was behind and has come counts once, as equal."""
    comparison = Comparison(Replayed({0: 100}, 100, {"A": EXPECTED}, {b"A": 0}, set()), limit=10)
    for version in (48, 49, 50):
        comparison.judge("topic", "A", EXPECTED._replace(version=version))
        assert (("topic", "A") in comparison.open) == (version < 50)
    comparison.settle(Tail(120))
    assert comparison.tally("topic") == Tally(equal=1)
    assert comparison.shown == []
