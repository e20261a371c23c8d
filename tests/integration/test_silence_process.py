"""Silent and quiet locations, from heartbeats in a real Kafka to the numbers in a real Redis."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer
from redis import Redis

from bench.drain import create_topics, onhand_running, read_topic, wait_until
from bench.servers import KafkaBroker, RedisServer
from schemas.topics import DIVERGENCES, HEARTBEATS, MOVEMENTS
from tests.cli.command import onhand

SECONDS_MAX = 40.0
RULES = """
[channels.web]
[locations.east]
stale_after = "4s"
[locations.west]
stale_after = "4s"
"""

pytestmark = pytest.mark.timeout(200)


@contextmanager
def heartbeats(kafka: str, *locations: str) -> Iterator[None]:
    """A sign of life of each location twice a second for as long as this is entered."""
    stopping = threading.Event()

    def beat() -> None:
        producer = Producer({"bootstrap.servers": kafka})
        while not stopping.wait(0.5):
            for location in locations:
                body = {"source": "test", "location": location, "time": "2099-01-01T00:00:00Z"}  # as of its arrival
                producer.produce(HEARTBEATS.name, msgspec.json.encode(body), location.encode())
            producer.flush(10)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(20)


def test_a_silent_location_goes_down_and_comes_back_and_a_quiet_one_stays(tmp_path: Path) -> None:
    """What channels read of the silent one falls in steps to nothing; a divergence is opened and closed."""
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES)
    with KafkaBroker() as kafka, RedisServer() as server, Redis.from_url(server.url) as client:
        create_topics(kafka.bootstrap_servers, 2)
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        for number, (sku, location) in enumerate((("E", "east"), ("W", "west"))):
            body = {"id": sku, "source": "wms", "kind": "received", "sku": sku, "location": location, "quantity": 100}
            body["time"] = "2026-11-21T09:00:00Z"
            producer.produce(MOVEMENTS.name, msgspec.json.encode(body), sku.encode(), number)
        assert producer.flush(20) == 0
        settings = {"kafka.bootstrap_servers": kafka.bootstrap_servers, "redis.url": server.url}
        with onhand_running(kafka.bootstrap_servers, server.url, "silence", rules) as flow:
            seen: set[int] = set()

            def reads(sku: str, units: int) -> bool:
                flow.check_alive()
                found = int(client.hget(f"avail:{sku}", "web") or -1)
                seen.update({found} if sku == "E" else set())
                return found == units

            with heartbeats(kafka.bootstrap_servers, "west"):
                wait_until(lambda: reads("E", 100) and reads("W", 100), SECONDS_MAX, "the stock")
                wait_until(lambda: reads("E", 0), SECONDS_MAX, "silence")
                assert reads("W", 100)
                explained = onhand("explain", "E", cwd=tmp_path, settings=settings).stdout
                assert "silent: trusted by 0 %" in explained
                done = onhand("heartbeat", "east", "--source", "test", cwd=tmp_path, settings=settings)
                assert done.returncode == 0, done.stderr
                wait_until(lambda: reads("E", 100), SECONDS_MAX, "the sign of life")
                assert reads("W", 100)
            flow.drain()
        events = [DIVERGENCES.decode(value) for value in read_topic(kafka.bootstrap_servers, DIVERGENCES.name)]
    assert len(seen & set(range(10, 100, 10))) > 1  # it went down in steps
    of_east = [(event.event, event.reason, event.stated) for event in events if event.location == "east"]
    assert of_east[0][:2] == ("opened", "silent")
    assert ("closed", "heard", 100) in of_east
    assert ("changed", "silent", 0) in of_east
