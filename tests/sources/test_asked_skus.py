"""SKUs that somebody wants explained now, heard from a real Redis."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from redis import Redis, RedisCluster

from bench.servers import RedisServer
from cli.worker_spec import monotonic_ms
from operators.route import lane_of_sku
from sinks.redis_clients import client_of
from sources import asked_skus
from sources.asked_skus import ASKED_PER_LANE_MAX, NAME_BYTES_MAX, AskedSkus, asked_channel
from tests.cli.command import wait_until
from tests.sinks.test_redis_cluster import cluster_of

CHANNEL = asked_channel("explain:")
LANES = 4


def lane_of(sku: str) -> int:
    """Where it lives."""
    return lane_of_sku(sku, LANES)


@contextmanager
def listening(url: str, client: Redis) -> Iterator[AskedSkus]:
    """A listener that hears already."""
    with AskedSkus(url, CHANNEL, lane_of) as asked:
        wait_until(lambda: hearers(client) == 1, 10)
        yield asked


def hearers(client: Redis) -> int:
    """How many listen."""
    return int(client.pubsub_numsub(CHANNEL)[0][1])


def ask(client: Redis, *names: str | bytes) -> None:
    """As whoever explains does."""
    for name in names:
        client.publish(CHANNEL, name)


def heard(asked: AskedSkus, client: Redis) -> dict[int, list[str]]:
    """All that was asked for up to now, as lanes are given it: a further name comes behind it."""
    found: dict[int, list[str]] = {lane: [] for lane in range(LANES)}
    last = found[lane_of("LAST")]

    def is_last() -> bool:
        for lane, names in found.items():
            names.extend(asked.asked(lane))
        return "LAST" in last

    ask(client, "LAST")
    wait_until(is_last, 5)
    last.remove("LAST")
    return found


def test_a_lane_is_given_the_names_of_its_skus_once(redis: Redis, redis_server: RedisServer) -> None:
    """Where each lives."""
    names = [f"SKU-{number}" for number in range(20)]
    with listening(redis_server.url, redis) as asked:
        ask(redis, *names)
        assert heard(asked, redis) == {lane: [name for name in names if lane_of(name) == lane] for lane in range(LANES)}
        assert heard(asked, redis) == {lane: [] for lane in range(LANES)}


def test_a_name_that_waits_is_not_kept_twice(redis: Redis, redis_server: RedisServer) -> None:
    """Who asks again pushes nobody else out."""
    with listening(redis_server.url, redis) as asked:
        ask(redis, *["SKU-1"] * 100)
        wait_until(lambda: bool(asked._by_lane.get(lane_of("SKU-1"))), 5)  # noqa: SLF001  # without taking it
        time.sleep(0.2)
        assert asked.asked(lane_of("SKU-1")).count("SKU-1") == 1


def test_the_last_few_of_a_lane_are_kept(redis: Redis, redis_server: RedisServer) -> None:
    """A lane of another process never takes them, and a lane that is busy takes them late."""
    names = [name for number in range(1000) if lane_of(name := f"SKU-{number}") == lane_of("LAST")][:50]
    with listening(redis_server.url, redis) as asked:
        ask(redis, *names, "LAST")
        wait_until(lambda: "LAST" in list(asked._by_lane.get(lane_of("LAST"), ())), 5)  # noqa: SLF001  # without taking
        assert asked.asked(lane_of("LAST")) == [*names[1 - ASKED_PER_LANE_MAX :], "LAST"]


def test_what_is_no_name_is_passed_over(redis: Redis, redis_server: RedisServer) -> None:
    """Whoever may publish may publish anything."""
    with listening(redis_server.url, redis) as asked:
        ask(redis, b"\xff\xfe", "x" * (NAME_BYTES_MAX + 1), "", "SKU-1", "x" * NAME_BYTES_MAX)
        found = [name for names in heard(asked, redis).values() for name in names]
        assert sorted(found) == ["", "SKU-1", "x" * NAME_BYTES_MAX]


def test_it_goes_on_after_redis_was_away(capsys: pytest.CaptureFixture[str]) -> None:
    """A restart is told once, and that it is over, too."""
    with RedisServer() as server, Redis.from_url(server.url) as client:
        with listening(server.url, client) as asked:
            server.stop()
            time.sleep(2.5)  # several attempts
            server.start()
            wait_until(lambda: hearers(client) == 1, 10)
            ask(client, "SKU-1")
            assert heard(asked, client)[lane_of("SKU-1")] == ["SKU-1"]
        told = capsys.readouterr().out
    assert told.count("it is not heard which SKUs") == 1
    assert told.count("it is heard again which SKUs") == 1


def test_a_connection_that_is_dead_without_a_word_is_made_anew(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A host that vanished says nothing: it is asked now and then whether it is there."""
    monkeypatch.setattr(asked_skus, "QUIET_SECONDS_MAX", 1)
    monkeypatch.setattr(asked_skus, "UNANSWERED_SECONDS_MAX", 1.0)
    with RedisServer() as server, Redis.from_url(server.url) as client, listening(server.url, client) as asked:
        time.sleep(2.5)
        assert "it is not heard" not in capsys.readouterr().out  # silence alone is none
        server.freeze()
        wait_until(lambda: "no answer in 1 s" in capsys.readouterr().out, 10)
        server.thaw()
        wait_until(lambda: "it is heard again" in capsys.readouterr().out, 10)
        ask(client, "SKU-1")
        assert heard(asked, client)[lane_of("SKU-1")] == ["SKU-1"]


def test_in_a_cluster_any_server_hears_what_is_asked_through_any() -> None:
    """All of them are told."""
    with cluster_of(3) as cluster, ExitStack() as running:
        clients = cluster.clients
        listeners = [
            running.enter_context(listening(f"redis://127.0.0.1:{port_of(client)}/0", client)) for client in clients
        ]
        with client_of(cluster.url) as client:
            assert isinstance(client, RedisCluster)
            client.publish(CHANNEL, "SKU-1")
        for asked in listeners:
            wait_until(lambda asked=asked: asked.asked(lane_of("SKU-1")) == ["SKU-1"], 5)  # type: ignore[misc]


def port_of(client: Redis) -> int:
    """Where its server listens."""
    return int(client.connection_pool.connection_kwargs["port"])


def test_a_user_who_may_not_listen_is_told_so_once(
    redis: Redis, redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The flow goes on without it: explanations have their turns."""
    redis.acl_setuser("deaf", enabled=True, passwords=["+pw"], commands=["+ping"], reset_channels=True)
    try:
        with AskedSkus(f"redis://deaf:pw@127.0.0.1:{redis_server.port}/0", CHANNEL, lane_of) as asked:
            time.sleep(1.5)
            assert asked.asked(lane_of("SKU-1")) == []
    finally:
        redis.acl_deluser("deaf")
    assert capsys.readouterr().out.count("permissions") == 1


def test_it_ends_at_once(redis: Redis, redis_server: RedisServer) -> None:
    """A worker that is drained waits for nobody, least of all for a Redis that is away."""
    with listening(redis_server.url, redis):
        began_ms = monotonic_ms()
    assert monotonic_ms() - began_ms < 1000
    with AskedSkus("redis://127.0.0.1:9/0", CHANNEL, lane_of):
        time.sleep(0.2)
        began_ms = monotonic_ms()
    assert monotonic_ms() - began_ms < 1000
    assert "asked-skus" not in {thread.name for thread in threading.enumerate()}
