"""Rules changed while `onhand run availability` reads a real Kafka: what moves, how soon, and what does not."""

import json
import random
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from confluent_kafka import Producer
from redis import Redis

from bench.drain import Running, create_topics, onhand_running, read_topic, wait_until
from bench.servers import KafkaBroker, RedisServer
from cli.explain import ASKED_SECONDS_MAX, is_current, read_once
from schemas.times import format_ms
from schemas.topics import DEAD_LETTERS, GENERATIONS, MOVEMENTS, THRESHOLDS
from tests.cli.command import assert_failed_in_one_line, onhand

PARTITIONS = 4
SECONDS_MAX = 60.0
RATE = 5000  # movements/s
FIREWORKS = [f"F-{number:03}" for number in range(200)]
OTHERS = [f"O-{number:04}" for number in range(2000)]
RULES = """
[channels.web]
low_stock_at = 5
[channels.b2b]
share_percent = 50
[[rules]]
category = "fireworks"
channel = "web"
safety_units = 2
[categories]
fireworks = ["F-*"]
"""
CHANGED = RULES.replace("safety_units = 2", "safety_units = 15")

pytestmark = pytest.mark.timeout(300)


class Servers(NamedTuple):
    """A broker with onhand's topics, an empty Redis, and the settings with which commands find both."""

    kafka: str
    redis: str
    redis_server: RedisServer

    @property
    def settings(self) -> dict[str, str]:
        """As environment variables name them."""
        return {"kafka.bootstrap_servers": self.kafka, "redis.url": self.redis}


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Fixed topic names need a broker of their own."""
    with KafkaBroker() as kafka, RedisServer() as redis:
        create_topics(kafka.bootstrap_servers, PARTITIONS)
        yield Servers(kafka.bootstrap_servers, redis.url, redis)


def movement(number: int, kind: str, sku: str, quantity: int) -> bytes:
    """A movement of now."""
    return msgspec.json.encode(
        {
            "id": str(number), "source": "wms", "kind": kind, "sku": sku, "location": "dc-east", "quantity": quantity,
            "time": format_ms(time.time_ns() // 1_000_000),
        }
    )  # fmt: skip


def opening_stock(servers: Servers) -> None:
    """Ten units of every other, twenty of every article in the category."""
    producer = Producer({"bootstrap.servers": servers.kafka})
    for number, sku in enumerate([*FIREWORKS, *OTHERS]):
        units = 20 if sku.startswith("F") else 1000
        producer.produce(MOVEMENTS.name, movement(number, "received", sku, units), sku.encode(), number % PARTITIONS)
    assert producer.flush(30) == 0


@contextmanager
def traffic(servers: Servers, rate: int = RATE) -> Iterator[list[int]]:
    """`rate` movements/s of the other articles for as long as this is entered; how many were sent so far."""
    stopping, sent = threading.Event(), [0]

    def send() -> None:
        producer = Producer({"bootstrap.servers": servers.kafka, "linger.ms": 5})
        begun = time.monotonic()
        while not stopping.is_set():
            while sent[0] < (time.monotonic() - begun) * rate and not stopping.is_set():
                producer.poll(0)  # a sender that is always late would never come to the one below
                index = sent[0] % len(OTHERS)
                kind = "shipped" if sent[0] // len(OTHERS) % 2 else "received"
                payload = movement(1_000_000 + sent[0], kind, OTHERS[index], 1)
                home = (len(FIREWORKS) + index) % PARTITIONS
                producer.produce(MOVEMENTS.name, payload, OTHERS[index].encode(), home)
                sent[0] += 1
            producer.poll(0.002)
        producer.flush(30)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        stopping.set()
        thread.join(60)


def web_of(client: Redis, skus: list[str]) -> list[int]:
    """What the web shop reads of `skus`."""
    with client.pipeline(transaction=False) as pipeline:
        for sku in skus:
            pipeline.hget(f"avail:{sku}", "web")
        return [int(units or -1) for units in pipeline.execute()]


def versions_of(client: Redis, skus: list[str]) -> list[bytes]:
    """The versions of `skus`."""
    with client.pipeline(transaction=False) as pipeline:
        for sku in skus:
            pipeline.hget(f"avail:{sku}", "@version")
        return list(pipeline.execute())


@pytest.fixture
def running(servers: Servers, tmp_path: Path) -> Iterator[Running]:
    """The flow, once it shows the opening stock."""
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES)
    opening_stock(servers)
    with onhand_running(servers.kafka, servers.redis, "live", rules) as flow, Redis.from_url(servers.redis) as client:

        def is_there() -> bool:
            flow.check_alive()
            return web_of(client, FIREWORKS) == [18] * len(FIREWORKS) and -1 not in web_of(client, OTHERS)

        wait_until(is_there, SECONDS_MAX, "the opening stock")
        yield flow


@pytest.fixture
def explained(running: Running, servers: Servers) -> Running:
    """The flow, once every SKU has been explained."""
    with Redis.from_url(servers.redis) as client:

        def are_there() -> bool:
            return len(set(client.scan_iter("explain:*", count=5000))) == len(FIREWORKS) + len(OTHERS)

        wait_until(are_there, SECONDS_MAX, "explanations")
    return running


def wait_for(flow: Running, client: Redis, units: int) -> None:
    """Wait until the web shop reads `units` of every article in the category."""

    def is_there() -> bool:
        flow.check_alive()
        return web_of(client, FIREWORKS) == [units] * len(FIREWORKS)

    wait_until(is_there, SECONDS_MAX, "the rules of the file")


def outdated_count(client: Redis, skus: list[str]) -> int:
    """Of how many the explanation is not of the version that channels read."""
    return sum(not is_current(read_once(client, "avail:", "explain:", sku)) for sku in skus)


def explanation_of(servers: Servers, cwd: Path, sku: str) -> dict[str, Any]:
    """What `onhand explain --json` says."""
    done = onhand("explain", sku, "--json", cwd=cwd, settings=servers.settings)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def pushed(servers: Servers, cwd: Path, *arguments: str) -> dict[str, Any]:
    """What `onhand rules push --json` says."""
    done = onhand("rules", "push", *arguments, "--json", cwd=cwd, settings=servers.settings)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.usefixtures("explained")  # a diff asks explanations
def test_a_push_moves_exactly_what_it_concerns_while_movements_flow(
    servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All SKUs of the category within seconds, as the diff said, each crossing caused by rules; nothing else moves."""
    (tmp_path / "changed.toml").write_text(CHANGED)
    with Redis.from_url(servers.redis) as client, traffic(servers) as sent:
        wait_until(lambda: sent[0] > 2 * RATE, SECONDS_MAX, "traffic")
        said = onhand("rules", "diff", "changed.toml", "--json", cwd=tmp_path, settings=servers.settings)
        moves = {(move["sku"], move["channel"]): move["then"] for move in json.loads(said.stdout)["moves"]}
        report = pushed(servers, tmp_path, "changed.toml")
        begun = time.monotonic()
        wait_until(lambda: web_of(client, FIREWORKS) == [5] * len(FIREWORKS), 15.0, "the pushed rules in Redis")
        seconds = report["seconds"] + time.monotonic() - begun
        still = sent[0]
        wait_until(lambda: sent[0] > still + RATE, SECONDS_MAX, "more traffic")
    assert (report["pushed"], report["generation"], report["in_force"]) == (True, 2, PARTITIONS)
    assert report["changes"] == ["rules"]
    assert moves == {(sku, "web"): 5 for sku in FIREWORKS}
    crossings = [THRESHOLDS.decode(value) for value in read_topic(servers.kafka, THRESHOLDS.name)]
    by_rules = [crossing for crossing in crossings if crossing.cause.type == "rules"]
    assert {(crossing.sku, crossing.channel, crossing.to, crossing.rules) for crossing in by_rules} == {
        (sku, "web", "low_stock", 2) for sku in FIREWORKS
    }
    assert {crossing.sku for crossing in crossings if not crossing.initial and crossing not in by_rules} == set()
    with capsys.disabled():
        sys.stdout.write(f"\n{len(FIREWORKS)} SKUs moved within {seconds:.2f} s of the push, at {RATE} movements/s\n")


@pytest.mark.usefixtures("running")  # who asks need not wait for all to be explained
def test_explanations_add_up_to_the_numbers_in_redis_while_movements_flow(
    servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of twenty SKUs, every channel: the steps of the same version add up to what Redis holds at that moment."""
    milliseconds = []
    with traffic(servers, 500) as sent:
        wait_until(lambda: sent[0] > 500, SECONDS_MAX, "traffic")
        for sku in random.Random(7).sample(OTHERS, 20):
            answer: dict[str, Any] = {"current": False}
            for _ in range(5):  # it may change between its number and its explanation
                if not answer["current"]:
                    answer = explanation_of(servers, tmp_path, sku)
            assert answer["current"]
            channels = answer["explanation"]["channels"]
            sums = {name: sum(step["units"] for step in channel["steps"]) for name, channel in channels.items()}
            assert sums == answer["promised"]
            assert set(sums) == {"web", "b2b"}
            milliseconds.append(answer["read_milliseconds"])
    with capsys.disabled():
        text = f"explained in {statistics.median(milliseconds):.1f} ms, at most {max(milliseconds):.1f} ms"
        sys.stdout.write(f"\n{text}, of 20 SKUs while movements flow\n")


def test_who_asks_gets_the_explanation_of_a_sku_that_has_just_moved(
    running: Running, servers: Servers, tmp_path: Path
) -> None:
    """At once, at a rate at which the others' are always of older numbers; also when Redis was away in between."""
    some = OTHERS[::20]
    with Redis.from_url(servers.redis) as client, traffic(servers, 3000) as sent:
        wait_until(lambda: sent[0] > 3 * len(OTHERS), SECONDS_MAX, "traffic")
        answers, outdated = [], []
        for _ in range(15):
            outdated.append(outdated_count(client, some))
            answers.append(explanation_of(servers, tmp_path, just_moved(sent)))
        assert [answer["current"] for answer in answers] == [True] * 15
        assert statistics.median(answer["read_milliseconds"] for answer in answers) < 250 * ASKED_SECONDS_MAX
        assert statistics.median(outdated) > len(some) / 2  # nearly all; at one moment a busy machine may send nothing
        servers.redis_server.stop()
        servers.redis_server.start()

        def is_current_again() -> bool:
            running.check_alive()
            return bool(explanation_of(servers, tmp_path, just_moved(sent))["current"])

        wait_until(is_current_again, SECONDS_MAX, "the flow as it was")
        answers = [explanation_of(servers, tmp_path, just_moved(sent)) for _ in range(10)]
        assert [answer["current"] for answer in answers] == [True] * 10


def just_moved(sent: list[int]) -> str:
    """The SKU of the last movement that was sent."""
    return OTHERS[(sent[0] - 1) % len(OTHERS)]


@pytest.mark.usefixtures("running")
def test_a_push_gives_no_version_to_what_it_leaves_alone(servers: Servers, tmp_path: Path) -> None:
    """Without traffic, the other SKUs keep their very versions; then the same rules again change nothing."""
    (tmp_path / "changed.toml").write_text(CHANGED)
    with Redis.from_url(servers.redis) as client:
        before = versions_of(client, OTHERS)
        pushed(servers, tmp_path, "changed.toml")
        wait_until(lambda: web_of(client, FIREWORKS) == [5] * len(FIREWORKS), 15.0, "the pushed rules in Redis")
        again = pushed(servers, tmp_path, "changed.toml")
        assert (again["pushed"], again["generation"]) == (False, 2)
        assert versions_of(client, OTHERS) == before
    shown = json.loads(onhand("rules", "show", "--json", cwd=tmp_path, settings=servers.settings).stdout)
    assert {held["generation"] for held in shown["in_force"]["partitions"].values()} == {2}
    assert shown["latest"]["generation"] == 2


@pytest.mark.usefixtures("running")
def test_a_broken_push_changes_nothing_and_names_the_line(servers: Servers, tmp_path: Path) -> None:
    """Nothing is written anywhere, exit code 2."""
    (tmp_path / "broken.toml").write_text(CHANGED.replace("safety_units = 15", "safety_units = -15"))
    done = onhand("rules", "push", "broken.toml", cwd=tmp_path, settings=servers.settings)
    assert_failed_in_one_line(done, 2)
    assert "broken.toml:9: error: rules[0].safety_units" in done.stderr
    assert len(list(read_topic(servers.kafka, GENERATIONS.name))) == 1
    with Redis.from_url(servers.redis) as client:
        assert web_of(client, FIREWORKS) == [18] * len(FIREWORKS)


def test_a_start_notices_a_changed_file_and_replays_the_past_by_the_rules_of_then(
    servers: Servers, tmp_path: Path
) -> None:
    """The file becomes the next generation; a crossing from before it still is what it was."""
    rules = tmp_path / "rules.toml"
    opening_stock(servers)
    with Redis.from_url(servers.redis) as client:
        for text, units in ((RULES, 18), (CHANGED, 5), (CHANGED, 5)):
            rules.write_text(text)
            client.flushall()
            with onhand_running(servers.kafka, servers.redis, "live", rules) as flow:
                wait_for(flow, client, units)
                flow.drain()
    crossings = [THRESHOLDS.decode(value) for value in read_topic(servers.kafka, THRESHOLDS.name)]
    assert {crossing.id: crossing for crossing in crossings} == {
        crossing.id: crossing for crossing in crossings if crossing.initial or crossing.cause.type == "rules"
    }
    assert {crossing.sellable for crossing in crossings if crossing.sku in FIREWORKS and crossing.initial} == {18, 10}
    generations = [GENERATIONS.decode(value) for value in read_topic(servers.kafka, GENERATIONS.name)]
    assert [generation.generation for generation in generations] == [1, 2]
    assert list(read_topic(servers.kafka, DEAD_LETTERS.name)) == []
