"""A Redis Cluster: every call reaches the servers of its keys, also while slots move and servers come and go."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import msgspec
import pytest
from redis import Redis
from redis.cluster import RedisCluster
from redis.crc import key_slot

from bench.servers import RedisServer, free_port
from schemas.batches import Mark, Origin
from schemas.outputs import Availability, ChannelAvailability, LaneResult, RulesInForce
from schemas.times import format_ms
from sinks.redis_availability import RedisAvailabilitySink
from sinks.redis_keys import read_health, read_promises, read_rules_in_force
from sinks.redis_pipeline import PipelineBounds
from sinks.redis_server import EmbeddedRedis
from sinks.slots import SinkError
from tests.sinks.pausing import paused

PREFIX = "avail:"
SLOTS_MAX = 16384
INCARNATION = 41
LANE, SLOT = 0, "slot-00"
SKUS = [f"SKU-{number}" for number in range(400)]
SHIPPED = PipelineBounds()
ROOMY = PipelineBounds(bytes_in_flight_max=1 << 20)  # so that many calls are under way when something happens


class ClusterServer(RedisServer):
    """One server of a cluster; `bus_port` is where the others reach it, below those that outgoing connections take."""

    def __init__(self) -> None:
        self.bus_port = free_port()
        options = {"cluster-enabled": "yes", "cluster-port": str(self.bus_port), "cluster-node-timeout": "1000"}
        super().__init__(options)


class Cluster:
    """Primaries that share all slots, in equal parts at the beginning."""

    def __init__(self, servers: list[ClusterServer]) -> None:
        self.servers = servers
        self.url = servers[0].url
        self.clients = [Redis.from_url(server.url) for server in servers]
        for client in self.clients[1:]:
            ask(client, "CLUSTER", "MEET", "127.0.0.1", servers[0].port, servers[0].bus_port)
        share = -(-SLOTS_MAX // len(servers))
        for number, client in enumerate(self.clients):
            last = min((number + 1) * share, SLOTS_MAX) - 1
            ask(client, "CLUSTER", "ADDSLOTSRANGE", number * share, last)
        self.ids = [ask(client, "CLUSTER", "MYID").decode() for client in self.clients]
        self.settle()

    def settle(self) -> None:
        """Wait until all servers know each other and agree that nothing is missing."""
        for client in self.clients:
            until(partial(self._is_whole, client))

    def _is_whole(self, client: Redis) -> bool:
        info = ask(client, "CLUSTER", "INFO")
        known = f"cluster_known_nodes:{len(self.servers)}".encode()
        return b"cluster_state:ok" in info and known in info

    def reading(self) -> Redis:
        """A client that finds every key."""
        return cast("Redis", RedisCluster.from_url(self.url))

    def at(self, slot: int) -> int:
        """The number of the server that has `slot`."""
        for first, last, primary, *_ in ask(self.clients[0], "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return [server.port for server in self.servers].index(primary[1])
        raise LookupError(slot)

    def begin_move(self, slot: int, to: int) -> None:
        """Let `slot` be on its way to another server."""
        from_ = self.at(slot)
        ask(self.clients[to], "CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[from_])
        ask(self.clients[from_], "CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[to])

    def carry(self, slot: int, to: int, count: int) -> int:
        """Move up to `count` keys of `slot`; how many there were."""
        from_ = self.clients[self.at(slot)]
        keys = ask(from_, "CLUSTER", "GETKEYSINSLOT", slot, count)
        if keys:
            ask(from_, "MIGRATE", "127.0.0.1", self.servers[to].port, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    def end_move(self, slot: int, to: int) -> None:
        """Give `slot` to its new server, for all to know."""
        for client in (self.clients[to], *self.clients):
            ask(client, "CLUSTER", "SETSLOT", slot, "NODE", self.ids[to])

    def flush(self) -> None:
        """Empty all servers."""
        for client in self.clients:
            client.flushall()
            client.config_resetstat()

    def close(self) -> None:
        """Hang up."""
        for client in self.clients:
            client.close()


def ask(client: Redis, *words: str | bytes | int) -> Any:  # noqa: ANN401  # whatever Redis answers
    """Send a command, and leave the answer as it is."""
    return client.execute_command(*words)  # type: ignore[no-untyped-call]


def until(is_so: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextlib.contextmanager
def cluster_of(count: int) -> Iterator[Cluster]:
    """Run a cluster of `count` primaries."""
    with contextlib.ExitStack() as running:
        cluster = Cluster([running.enter_context(ClusterServer()) for _ in range(count)])
        running.callback(cluster.close)
        yield cluster


@pytest.fixture(scope="module", params=["/usr/bin:/bin", ""], ids=["machine", "wheel"])
def three(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three primaries; a test that moves a slot leaves it where it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", request.param)
        with cluster_of(3) as cluster:
            yield cluster


@pytest.fixture
def cluster(three: Cluster) -> Cluster:
    """The same, emptied for this test."""
    three.flush()
    return three


class Writing:
    """A sink with one slot for all lanes, driven as Bytewax does."""

    def __init__(self, url: str, bounds: PipelineBounds = SHIPPED, *, watches: bool = False) -> None:
        self.now_ms = 10_000
        self.asked = 0
        self.shown: list[list[LaneResult]] = []
        self.sink = RedisAvailabilitySink(
            url,
            PREFIX,
            lambda: self.now_ms,
            slots=1,
            lanes=1,
            bounds=bounds,
            refill=self.ask if watches else None,
            refills=lambda: self.asked,
            visible=self.shown.append,
            incarnation=INCARNATION,
        )
        self.slot = self.sink.build_part("redis", self.sink.list_parts()[0], None)

    def ask(self) -> None:
        """Count a request for a refill."""
        self.asked += 1

    def write(self, version: int, skus: list[str] = SKUS, refilled: int = 0, *, marks: bool = False) -> None:
        """Hand over one batch."""
        told = [Mark(Origin("cluster", "topic", 0, "inventory.movements"), 1, 1, 1, self.now_ms)] if marks else []
        records = [availability(sku, version) for sku in skus]
        self.slot.write_batch(
            [LaneResult(LANE, records, [], [], [], [], [], [], [], [], told, 0, 0, 0, refilled=refilled)]
        )

    def settle(self) -> None:
        """End an epoch."""
        self.slot.snapshot()

    def second(self) -> None:
        """Let a second of an idle flow pass."""
        self.now_ms += 1000
        self.write(0, [], marks=True)
        self.settle()


@pytest.fixture
def writing(cluster: Cluster) -> Iterator[Writing]:
    """A sink that writes to the emptied cluster, and does not watch it."""
    writing = Writing(cluster.url)
    yield writing
    writing.slot.close()


def availability(sku: str, version: int) -> Availability:
    """Make the record of a SKU that promises its version in `web`."""
    channels = {"web": ChannelAvailability(version, version, "in_stock")}
    return Availability(sku, INCARNATION, version, format_ms(1_700_000_000_123), 1, channels, {})


def versions(cluster: Cluster, skus: list[str] = SKUS) -> list[int]:
    """What a reader finds of each SKU, 0 where that is nothing."""
    with contextlib.closing(cluster.reading()) as client:
        return [int(client.hget(PREFIX + sku, "@version") or 0) for sku in skus]


def in_slot(slot: int, count: int) -> list[str]:
    """The names of SKUs whose keys are in `slot`."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        number += 1
        if key_slot(f"{PREFIX}MOVED-{number}".encode()) == slot:
            found.append(f"MOVED-{number}")
    return found


def calls(client: Redis) -> int:
    """Count the script calls that a server has run."""
    return int(client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


def maps_read(cluster: Cluster) -> int:
    """Count how often a sink has asked the servers for their map."""
    asked = (client.info("commandstats").get("cmdstat_cluster|slots", {"calls": 0}) for client in cluster.clients)
    return sum(int(each["calls"]) for each in asked)


def test_every_sku_is_where_readers_look_for_it(writing: Writing, cluster: Cluster) -> None:
    """All servers hold their share; nothing had to be sent twice, and a call a server is enough for 128 SKUs."""
    for version in (1, 2, 3):
        writing.write(version)
    writing.settle()
    assert versions(cluster) == [3] * len(SKUS)
    assert sum(len(client.keys("avail:SKU-*")) for client in cluster.clients) == len(SKUS)
    assert min(len(client.keys("avail:SKU-*")) for client in cluster.clients) > 100
    assert (writing.sink.counters.written, writing.sink.counters.refused) == (3 * len(SKUS), 0)
    assert (writing.sink.counters.resent, writing.sink.counters.reconnects) == (0, 0)
    assert sum(map(calls, cluster.clients)) == writing.sink.counters.calls == 3 * 3 * 4 + 1


def test_only_newer_versions_get_in(writing: Writing, cluster: Cluster) -> None:
    """What the servers refuse is added up."""
    writing.write(2)
    writing.write(1)
    writing.settle()
    assert versions(cluster) == [2] * len(SKUS)
    assert (writing.sink.counters.written, writing.sink.counters.refused) == (len(SKUS), len(SKUS))


def test_health_rules_and_explanations_are_where_readers_look_for_them(writing: Writing, cluster: Cluster) -> None:
    """Each has one key, and its server."""
    rules = RulesInForce(0, INCARNATION, 1, "digest", -1, None, msgspec.Raw(b"{}"))
    empty = LaneResult(LANE, [], [], [], [], [], [], [], [], [], [], 0, 0, 0)
    writing.slot.write_batch([empty._replace(rules=[rules])])
    writing.write(7, marks=True)
    writing.settle()
    with contextlib.closing(cluster.reading()) as client:
        health, promises = read_health(client, PREFIX), read_promises(client, PREFIX, "SKU-1")
        held = read_rules_in_force(client, PREFIX)
    assert health is not None
    assert held is not None
    assert promises is not None
    assert (health.incarnation, health.watermark_ms) == (INCARNATION, 10_000)
    assert (held.incarnation, held.generation, promises.promised) == (INCARNATION, 1, {"web": 7})


def test_writing_does_not_wait_for_a_slow_server(cluster: Cluster) -> None:
    """One of three is slow; as long as what is under way is within the bounds, only a snapshot waits for it."""
    writing = Writing(cluster.url, ROOMY)
    writing.write(0)
    writing.settle()
    writing.shown.clear()
    with paused(cluster.clients[1]) as is_paused:
        for version in (1, 2, 3):
            writing.write(version)
        assert is_paused()
        assert writing.shown == []
        writing.settle()
        assert not is_paused()
    assert len(writing.shown) == 3
    assert versions(cluster) == [3] * len(SKUS)
    writing.slot.close()


def test_a_sink_goes_on_sending_while_nobody_writes(writing: Writing) -> None:
    """To each server what waits for it."""
    many = [f"SKU-{number}" for number in range(3000)]
    writing.write(1, many)
    deadline = time.monotonic() + 20
    while writing.sink.counters.written < len(many) // 2:  # the last calls may be under way
        assert time.monotonic() < deadline
        writing.sink.send_waiting()
    writing.settle()
    assert writing.sink.counters.written == len(many)


def test_a_slot_that_moves_takes_its_skus_along(writing: Writing, cluster: Cluster) -> None:
    """While it moves, some of its keys are here and some there, and new ones come; then the map is another one."""
    slot = key_slot(b"avail:SKU-0")
    to = (cluster.at(slot) + 1) % 3
    moved = ["SKU-0", *in_slot(slot, 6)]
    writing.write(1)
    writing.write(1, moved[:5])
    cluster.begin_move(slot, to)
    writing.write(2)
    writing.write(2, moved)  # the last ones are new
    writing.settle()
    assert cluster.carry(slot, to, 2) == 2
    writing.write(3)
    writing.write(3, moved)
    writing.settle()
    assert versions(cluster, moved) == [3] * 7
    while cluster.carry(slot, to, 2):
        writing.write(4, moved)
    writing.settle()
    cluster.end_move(slot, to)
    writing.write(5)
    writing.write(5, moved)
    writing.settle()
    assert versions(cluster, [*SKUS, *moved]) == [5] * (len(SKUS) + 7)
    assert sum(len(client.keys("avail:*-*")) for client in cluster.clients) == len(SKUS) + 6
    assert writing.sink.counters.resent > 0
    before = (writing.sink.counters.resent, maps_read(cluster))
    writing.write(6, moved)
    writing.settle()
    assert (writing.sink.counters.resent, maps_read(cluster)) == before


def test_a_call_that_a_server_refused_is_answered_once(writing: Writing, cluster: Cluster) -> None:
    """What was counted before the refusal is not counted again, and batches are shown after it."""
    slot = key_slot(b"avail:SKU-0")
    to = (cluster.at(slot) + 1) % 3
    writing.write(1)
    writing.settle()
    cluster.begin_move(slot, to)
    while cluster.carry(slot, to, 10):
        pass
    cluster.end_move(slot, to)
    calls_before = writing.sink.counters.written + writing.sink.counters.refused
    writing.write(2)
    writing.settle()
    assert writing.sink.counters.written + writing.sink.counters.refused - calls_before == len(SKUS)
    assert versions(cluster) == [2] * len(SKUS)


def test_scripts_that_one_server_forgot_are_loaded_again(writing: Writing, cluster: Cluster) -> None:
    """SCRIPT FLUSH on one of them loses nothing."""
    for version in range(1, 7):
        writing.write(version)
        cluster.clients[version % 3].script_flush()
    writing.settle()
    assert versions(cluster) == [6] * len(SKUS)


@pytest.mark.parametrize("bounds", [SHIPPED, ROOMY])
@pytest.mark.parametrize("killed", [(1,), (0, 1, 2)])
def test_primaries_that_are_killed_and_come_back_are_waited_for(
    killed: tuple[int, ...], bounds: PipelineBounds
) -> None:
    """What was under way with them is sent again, and what waited for that is not sent twice."""
    with cluster_of(3) as cluster:
        writing = Writing(cluster.url, bounds)
        writing.write(1)
        for number in killed:
            cluster.servers[number].freeze()
        for version in range(2, 6):
            writing.write(version)
        for number in killed:
            cluster.servers[number].kill()
        for number in killed:
            cluster.servers[number].start()
        writing.write(6)
        writing.settle()
        assert versions(cluster) == [6] * len(SKUS)
        assert writing.sink.counters.reconnects >= 1
        writing.slot.close()


def test_the_server_of_the_url_is_not_needed_once_the_others_are_known() -> None:
    """Its slots go to its replica, which any other server tells of."""
    with cluster_of(3) as cluster, ClusterServer() as server, Redis.from_url(server.url) as replica:
        ask(replica, "CLUSTER", "MEET", "127.0.0.1", cluster.servers[1].port, cluster.servers[1].bus_port)
        until(lambda: cluster.ids[0].encode() in ask(replica, "CLUSTER", "NODES"))
        until(lambda: is_done(lambda: ask(replica, "CLUSTER", "REPLICATE", cluster.ids[0])))
        until(lambda: replica.info("replication").get("master_link_status") == "up")
        writing = Writing(cluster.url, watches=True)
        fill(writing)
        assert writing.asked == 1
        writing.write(2)
        cluster.servers[0].kill()
        ask(replica, "CLUSTER", "FAILOVER", "TAKEOVER")
        writing.write(3)
        writing.settle()
        assert writing.asked == 2
        cluster.url = cluster.servers[1].url
        until(lambda: versions(cluster) == [3] * len(SKUS))
        writing.slot.close()


def is_done(what: Callable[[], object]) -> bool:
    """Whether a server does this, by now."""
    try:
        what()
    except Exception:  # noqa: BLE001  # of whatever kind: it is asked again
        return False
    return True


def test_a_primary_that_does_not_come_back_stops_the_flow() -> None:
    """The wait has a bound, and the message one line."""
    with cluster_of(3) as cluster:
        writing = Writing(cluster.url, PipelineBounds(retry_seconds_max=0.5))
        writing.write(1)
        writing.settle()
        cluster.servers[1].kill()
        with pytest.raises(SinkError, match=r"Redis at 127\.0\.0\.1:\d+/0 (does not answer|refuses writes)") as caught:
            writing.write(2)
        with pytest.raises(SinkError):
            writing.settle()
        writing.slot.close()
    assert "\n" not in str(caught.value)


def fill(writing: Writing) -> None:
    """Complete the refill that an empty cluster asks for."""
    writing.settle()
    writing.write(1, refilled=writing.asked)
    writing.settle()


@pytest.mark.parametrize("flushed", range(3))
def test_a_flush_of_one_server_is_noticed_and_healed(cluster: Cluster, flushed: int) -> None:
    """Every server has a sentinel of its own; a slot asks once, however many of them are wrong."""
    writing = Writing(cluster.url, watches=True)
    fill(writing)
    assert [len(client.keys("avail:@sentinel*")) for client in cluster.clients] == [1, 1, 1]
    writing.second()
    assert writing.asked == 1
    cluster.clients[flushed].flushall()
    for _ in range(3):
        writing.second()
    assert writing.asked == 2
    fill(writing)
    assert versions(cluster) == [1] * len(SKUS)
    for client in cluster.clients:
        (key,) = client.keys("avail:@sentinel*")
        identity = f"{client.info('server')['run_id']}:{client.info('replication')['master_replid']}"
        assert client.hgetall(key) == {SLOT.encode(): f"{INCARNATION} {identity}".encode()}
    for _ in range(3):
        writing.second()
    assert writing.asked == 2
    writing.slot.close()


def test_a_cluster_that_holds_everything_is_asked_for_nothing(cluster: Cluster) -> None:
    """The sentinels are found again by a flow that starts anew, at whichever server it starts."""
    writing = Writing(cluster.url, watches=True)
    fill(writing)
    writing.slot.close()
    for server in cluster.servers:
        again = Writing(server.url, watches=True)
        again.second()
        assert again.asked == 0
        again.slot.close()


def test_a_plain_server_is_asked_once_whether_it_is_one(embedded: EmbeddedRedis, client: Redis) -> None:
    """And that is all that clusters cost it."""
    writing = Writing(embedded.url)
    for version in (1, 2, 3):
        writing.write(version)
    writing.settle()
    stats = client.info("commandstats")
    assert stats["cmdstat_info"]["calls"] == 1
    assert not [name for name in stats if name.startswith("cmdstat_cluster")]
    assert stats["cmdstat_evalsha"]["calls"] == 3 * 4 + 1
    writing.slot.close()
