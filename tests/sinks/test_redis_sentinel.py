"""What Redis has lost is noticed, asked for once, and there again when the sentinel says so."""

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from bench.servers import RedisServer
from schemas.batches import Mark, Origin
from schemas.outputs import Availability, ChannelAvailability, LaneResult
from schemas.times import format_ms
from sinks.redis_availability import RedisAvailabilitySink
from sinks.redis_keys import last_incarnation
from sinks.redis_pipeline import PipelineBounds
from sinks.redis_server import EmbeddedRedis
from sinks.slots import SinkError
from tests.sinks.pausing import paused

PREFIX = "avail:"
SENTINEL = "avail:@sentinel"
SLOTS, LANES = 2, 5
INCARNATION = 41


class Flow:
    """A sink with two slots and the lanes that write to it, which write all they know again when they are told to."""

    def __init__(self, url: str, bounds: PipelineBounds = PipelineBounds(), *, incarnation: int = INCARNATION) -> None:  # noqa: B008  # immutable
        self.now_ms = 10_000
        self.asked = 0  # by the slots of this flow and of others
        self.shown: list[list[LaneResult]] = []
        self.known: dict[int, dict[str, Availability]] = {lane: {} for lane in range(LANES)}
        self.sink = RedisAvailabilitySink(
            url,
            PREFIX,
            lambda: self.now_ms,
            slots=SLOTS,
            lanes=LANES,
            bounds=bounds,
            refill=self.ask,
            refills=lambda: self.asked,
            visible=self.shown.append,
            incarnation=incarnation,
        )
        self.slots = [self.sink.build_part("redis", name, None) for name in self.sink.list_parts()]

    def ask(self) -> None:
        """Count a request for a refill."""
        self.asked += 1

    def write(self, lane: int, *skus: str, version: int = 1, refilled: int = 0, marks: bool = False) -> LaneResult:
        """Let `lane` publish these SKUs in one batch."""
        records = [availability(sku, version) for sku in skus]
        self.known[lane].update((record.sku, record) for record in records)
        return self.hand_over(lane, records, refilled=refilled, marks=marks)

    def hand_over(
        self, lane: int, records: list[Availability], *, refilled: int = 0, marks: bool = False
    ) -> LaneResult:
        """Let Bytewax route the result of `lane` to its slot."""
        result = self.result(lane, records, refilled=refilled, marks=marks)
        self.slots[self.sink.part_fn(str(lane)) % SLOTS].write_batch([result])
        return result

    def result(self, lane: int, records: list[Availability], *, refilled: int = 0, marks: bool = False) -> LaneResult:
        """Make what `lane` leaves behind."""
        told = [Mark(Origin("cluster", "topic", 0, "inventory.movements"), 1, 1, 1, self.now_ms)] if marks else []
        return LaneResult(lane, records, [], [], [], [], [], [], [], [], told, 0, 0, 0, refilled=refilled)

    def refill(self, *lanes: int) -> None:
        """Let lanes publish everything again, for all that was asked until now."""
        asked = self.asked
        for lane in lanes or range(LANES):
            self.hand_over(lane, list(self.known[lane].values()), refilled=asked)

    def second(self) -> None:
        """Let one second of an idle flow pass: every lane passes a mark on, and nothing else comes."""
        self.now_ms += 1000
        for lane in range(LANES):
            self.write(lane, marks=True)
            time.sleep(0.01)  # Redis answers meanwhile

    def settle(self) -> None:
        """End an epoch."""
        for slot in self.slots:
            slot.snapshot()

    def write_and_settle(self, lane: int, *skus: str, version: int) -> None:
        """Write the only batch of an epoch."""
        self.write(lane, *skus, version=version)
        self.settle()

    def fill(self) -> None:
        """Publish ten SKUs of each lane and complete the refill that an empty Redis asks for."""
        self.settle()
        for lane in range(LANES):
            self.write(lane, *(f"SKU-{lane}-{number}" for number in range(10)))
        self.refill()
        self.settle()

    def close(self) -> None:
        """End."""
        for slot in self.slots:
            slot.close()


def availability(sku: str, version: int) -> Availability:
    """Make the record of a SKU that promises 5 in `web`."""
    channels = {"web": ChannelAvailability(5, 5, "in_stock")}
    return Availability(sku, INCARNATION, version, format_ms(1_700_000_000_123), 1, channels, {})


def skus(client: Redis) -> int:
    """Count the SKUs in Redis."""
    return len(client.keys("avail:SKU-*"))


def right(client: Redis) -> dict[bytes, bytes]:
    """What the sentinel says when nothing is missing."""
    identity = f"{client.info('server')['run_id']}:{client.info('replication')['master_replid']}"
    return {f"slot-{slot:02}".encode(): f"{INCARNATION} {identity}".encode() for slot in range(SLOTS)}


@pytest.fixture
def flow(embedded: EmbeddedRedis, client: Redis) -> Iterator[Flow]:
    """A flow that has filled an empty Redis."""
    flow = Flow(embedded.url)
    flow.fill()
    assert client.hgetall(SENTINEL) == right(client)
    assert (flow.asked, skus(client)) == (SLOTS, LANES * 10)
    yield flow
    flow.close()


@contextlib.contextmanager
def filled(server: RedisServer) -> Iterator[tuple[Flow, Redis]]:
    """A flow that has filled `server`, and a client of it that connects anew for each command."""
    with Redis.from_url(server.url) as client:
        flow = Flow(server.url)
        flow.fill()
        assert client.hgetall(SENTINEL) == right(client)
        client.connection_pool.disconnect()
        yield flow, client
        flow.close()


def assert_asked_once_and_healed(flow: Flow, client: Redis, *, times: int = 1) -> None:
    """Each slot has asked `times` more than at the beginning; when the lanes have answered, everything is there."""
    assert flow.asked == SLOTS * (1 + times) == flow.sink.counters.refills
    for _ in range(3):
        flow.second()
    assert flow.asked == SLOTS * (1 + times)
    assert client.hgetall(SENTINEL).keys() == right(client).keys()
    assert not set(client.hgetall(SENTINEL).values()) & set(right(client).values())
    flow.refill()
    flow.settle()
    assert skus(client) == LANES * 10
    assert client.hgetall(SENTINEL) == right(client)
    for _ in range(3):
        flow.second()
    assert flow.asked == SLOTS * (1 + times)


def test_a_flush_is_noticed_within_a_second_of_an_idle_flow_and_healed(flow: Flow, client: Redis) -> None:
    """Marks alone are enough; each slot asks once until the refill is complete, and the health is told again."""
    client.flushall()
    flow.second()
    assert flow.asked == 2 * SLOTS
    assert_asked_once_and_healed(flow, client)
    assert last_incarnation(client, PREFIX) == INCARNATION


def test_a_flush_in_a_busy_flow_is_noticed_too(flow: Flow, client: Redis) -> None:
    """Writes that go on do not hide that the rest is gone."""
    client.flushall()
    for version in range(2, 7):
        flow.now_ms += 300
        flow.write(0, "SKU-0-0", version=version)
        flow.write(1, "SKU-1-0", version=version)
        time.sleep(0.01)
    assert_asked_once_and_healed(flow, client)


def test_the_incarnation_is_claimed_anew_after_a_flush(flow: Flow, client: Redis) -> None:
    """Without waiting for a health report: a state made meanwhile draws a greater one."""
    client.flushall()
    flow.now_ms += 1000
    flow.write(0)
    flow.settle()
    flow.settle()
    assert last_incarnation(client, PREFIX) == INCARNATION


def test_the_incarnation_is_claimed_anew_on_a_new_connection(flow: Flow, client: Redis) -> None:
    """It may lead to a server that was never told."""
    client.delete("avail:@health")
    client.client_kill_filter(_type="normal", skipme=True)
    flow.write(0, "SKU-0-0", version=2)
    flow.settle()
    assert flow.sink.counters.reconnects == 1
    assert last_incarnation(client, PREFIX) == INCARNATION


@pytest.mark.parametrize("slot", range(SLOTS))
def test_a_missing_field_concerns_its_slot_only(flow: Flow, client: Redis, slot: int) -> None:
    """The others go on as if nothing had happened."""
    client.hdel(SENTINEL, f"slot-{slot:02}")
    flow.second()
    assert flow.asked == SLOTS + 1
    flow.refill(*(lane for lane in range(LANES) if lane % SLOTS == slot))
    flow.settle()
    assert client.hgetall(SENTINEL) == right(client)
    assert flow.asked == SLOTS + 1


def test_a_second_flush_while_the_first_is_healed_is_not_hidden(flow: Flow, client: Redis) -> None:
    """Half of the refill went down with it, so the sentinel may not be written for that one."""
    client.flushall()
    flow.second()
    flow.refill(0, 1)
    flow.settle()
    client.flushall()
    flow.refill(2, 3, 4)
    flow.settle()
    flow.settle()
    assert skus(client) == 30
    assert_asked_once_and_healed(flow, client, times=2)


def test_a_flush_right_before_the_sentinel_is_written_is_not_hidden(flow: Flow, client: Redis) -> None:
    """Redis itself compares before it takes the slot's word for it."""
    client.flushall()
    flow.second()
    flow.refill(0, 1, 2, 3)
    flow.settle()
    assert client.hget(SENTINEL, "slot-01") == right(client)[b"slot-01"]
    client.flushall()
    flow.hand_over(4, [], refilled=flow.asked)
    flow.settle()
    assert flow.asked == 2 * SLOTS + 1
    assert client.hget(SENTINEL, "slot-00") != right(client)[b"slot-00"]
    flow.second()
    assert_asked_once_and_healed(flow, client, times=2)


def test_the_sentinel_waits_for_every_lane_of_its_slot(flow: Flow, client: Redis) -> None:
    """And for the refill that was asked for: one that began before is none."""
    client.flushall()
    flow.second()
    flow.refill(0, 2)
    flow.settle()
    flow.hand_over(4, [], refilled=flow.asked - SLOTS)
    flow.settle()
    assert client.hget(SENTINEL, "slot-00") != right(client)[b"slot-00"]
    flow.hand_over(4, [], refilled=flow.asked)
    flow.settle()
    assert client.hget(SENTINEL, "slot-00") == right(client)[b"slot-00"]
    assert client.hget(SENTINEL, "slot-01") != right(client)[b"slot-01"]


def test_the_sentinel_waits_for_the_answers(flow: Flow, client: Redis) -> None:
    """What the lanes have sent is in Redis before the sentinel is even sent."""
    client.flushall()
    flow.second()
    client.script_flush()
    for name in ("sentinel", "health"):  # these could run, the writes cannot
        client.script_load((Path(__file__).parents[2] / "sinks" / f"redis_{name}.lua").read_text())
    lanes = (0, 2, 4)
    batch = [flow.result(lane, list(flow.known[lane].values()), refilled=flow.asked) for lane in lanes]
    flow.slots[0].write_batch(batch)
    time.sleep(0.1)
    assert skus(client) == 0
    assert client.hget(SENTINEL, "slot-00") != right(client)[b"slot-00"]
    flow.settle()
    assert skus(client) == 30
    assert client.hget(SENTINEL, "slot-00") == right(client)[b"slot-00"]


def test_a_redis_that_holds_everything_is_asked_for_nothing(flow: Flow, client: Redis, embedded: EmbeddedRedis) -> None:
    """A flow that starts again finds its sentinel right."""
    flow.close()
    again = Flow(embedded.url)
    again.settle()
    for _ in range(3):
        again.second()
    again.settle()
    assert (again.asked, again.sink.counters.refills) == (0, 0)
    assert client.hgetall(SENTINEL) == right(client)
    again.close()


def test_a_flow_that_died_in_the_middle_of_a_refill_begins_it_anew(
    flow: Flow, client: Redis, embedded: EmbeddedRedis
) -> None:
    """The mark that it left is nobody else's."""
    client.flushall()
    flow.second()
    flow.close()
    again = Flow(embedded.url)
    again.settle()
    assert again.asked == SLOTS
    again.close()


def test_a_flow_that_was_taken_for_dead_cannot_complete_the_refill_of_its_successor(
    embedded: EmbeddedRedis, client: Redis
) -> None:
    """Each knows what it has written itself, and nothing of the other."""
    flow = Flow(embedded.url)
    flow.settle()
    client.flushall()
    successor = Flow(embedded.url)
    successor.settle()
    assert (flow.asked, successor.asked) == (SLOTS, SLOTS)
    flow.refill()
    flow.settle()
    assert not set(client.hgetall(SENTINEL).values()) & set(right(client).values())
    successor.close()
    flow.close()


def test_a_flow_looks_before_its_first_result(embedded: EmbeddedRedis, client: Redis) -> None:
    """So that the lanes hear of it while they begin."""
    flow = Flow(embedded.url)
    until(lambda: client.hlen(SENTINEL) == SLOTS)
    flow.close()


def test_a_new_connection_is_looked_at_at_once(flow: Flow, client: Redis) -> None:
    """It is how most losses begin."""
    client.delete(SENTINEL)
    client.client_kill_filter(_type="normal", skipme=True)
    flow.write(0, "SKU-0-0", version=2)
    flow.settle()
    assert flow.asked == 2 * SLOTS


def test_another_state_asks_for_a_refill(flow: Flow, embedded: EmbeddedRedis) -> None:
    """What an older incarnation wrote says nothing about this one."""
    other = Flow(embedded.url, incarnation=INCARNATION + 1)
    other.settle()
    assert other.asked == SLOTS
    assert flow.asked == SLOTS
    other.close()


def test_an_incarnation_that_was_not_given_is_learnt_from_the_first_result(
    embedded: EmbeddedRedis, client: Redis
) -> None:
    """Before that nobody can tell whether the sentinel is right."""
    flow = Flow(embedded.url, incarnation=0)
    flow.second()
    flow.settle()
    assert (flow.asked, client.exists(SENTINEL)) == (0, 0)
    flow.fill()
    flow.refill()
    flow.settle()
    assert flow.asked == SLOTS
    assert client.hgetall(SENTINEL) == right(client)
    flow.close()


def test_a_given_incarnation_is_claimed_before_there_is_a_sku(embedded: EmbeddedRedis, client: Redis) -> None:
    """The first batch is enough, whatever it holds."""
    flow = Flow(embedded.url)
    flow.write(0)
    flow.settle()
    assert last_incarnation(client, PREFIX) == INCARNATION
    flow.close()


def test_without_refill_nobody_looks(embedded: EmbeddedRedis, client: Redis) -> None:
    """There would be nobody to ask."""
    sink = RedisAvailabilitySink(embedded.url, PREFIX, lambda: 0, incarnation=INCARNATION)
    slot = sink.build_part("redis", sink.list_parts()[0], None)
    slot.write_batch([LaneResult(0, [availability("SKU-1", 1)], [], [], [], [], [], [], [], [], [], 0, 0, 0)])
    slot.snapshot()
    slot.close()
    assert sorted(client.keys("*")) == [b"avail:@health", b"avail:SKU-1"]


@pytest.mark.parametrize("path", ["/usr/bin:/bin", ""], ids=["machine", "wheel"])
def test_a_server_that_took_the_content_of_another_is_noticed(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """A replica for a while, with its connection kept: it is the same process, but not the same history."""
    monkeypatch.setenv("PATH", path)
    with RedisServer({"repl-diskless-sync-delay": "0"}) as other, RedisServer() as server, filled(server) as found:
        flow, client = found
        with Redis.from_url(other.url) as old:
            for key, value in client.hgetall(SENTINEL).items():
                old.hset(SENTINEL, key, value)  # a backup that knows this process
        client.replicaof("127.0.0.1", str(other.port))
        until(lambda: client.info("replication")["master_link_status"] == "up")
        assert skus(client) == 0
        client.replicaof("NO", "ONE")
        flow.second()
        assert flow.sink.counters.reconnects == 0
        assert_asked_once_and_healed(flow, client)


@pytest.mark.parametrize("path", ["/usr/bin:/bin", ""], ids=["machine", "wheel"])
def test_a_server_that_came_back_without_its_last_writes_is_noticed(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Killed, the tail of its append-only file cut off as by a power loss, and started again."""
    monkeypatch.setenv("PATH", path)
    with RedisServer() as server, filled(server) as (flow, client):
        for number in range(10):
            flow.write(0, f"SKU-0-{number}", version=2)
        flow.settle()
        server.kill()
        log = next(server.directory.glob("appendonlydir/*.incr.aof"))
        log.write_bytes(log.read_bytes()[:-1500])
        server.start()
        flow.second()
        flow.settle()
        behind = [key for key in client.keys("avail:SKU-0-*") if client.hget(key, "@version") != b"2"]
        assert behind
        assert client.hget(SENTINEL, "slot-00") != right(client)[b"slot-00"]
        assert_asked_once_and_healed(flow, client)
        assert {client.hget(f"avail:SKU-0-{number}", "@version") for number in range(10)} == {b"2"}


def test_a_restart_in_the_middle_of_a_refill_begins_it_anew() -> None:
    """The mark in the append-only file is that of a process that is gone."""
    with RedisServer() as server, filled(server) as (flow, client):
        client.flushall()
        client.connection_pool.disconnect()
        flow.second()
        flow.refill(0, 1, 2)
        flow.settle()
        server.kill()
        server.start()
        flow.refill(3, 4)
        flow.settle()
        flow.settle()
        assert not set(client.hgetall(SENTINEL).values()) & set(right(client).values())
        assert_asked_once_and_healed(flow, client, times=2)


def test_a_broken_connection_alone_is_no_loss(flow: Flow, client: Redis) -> None:
    """The same server still holds everything, and says so."""
    for _ in range(3):
        client.client_kill_filter(_type="normal", skipme=True)
        flow.second()
        flow.settle()
    assert flow.sink.counters.reconnects == 3
    assert flow.asked == SLOTS


def test_a_loss_whose_telling_was_lost_is_told_again(flow: Flow, client: Redis, embedded: EmbeddedRedis) -> None:
    """The look that marked it comes a second time on a new connection, and finds its own mark."""
    flow.close()
    with deafening(embedded) as proxy:
        flow = Flow(proxy.url)
        flow.settle()
        client.flushall()
        flow.second()
        flow.settle()
        assert flow.asked == SLOTS
        client.flushall()
        proxy.is_deaf = True
        flow.now_ms += 1000
        flow.write(0)
        until(lambda: client.hlen(SENTINEL) == SLOTS)
        proxy.hang_up()
        proxy.is_deaf = False
        flow.settle()
        assert (flow.asked, flow.sink.counters.reconnects) == (2 * SLOTS, 1)
        flow.close()


class _Carrying(socketserver.BaseRequestHandler):
    """One connection through the proxy, both ways."""

    def handle(self) -> None:
        proxy: Proxy = self.server  # type: ignore[assignment]
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(proxy.behind)
            proxy.ends += (self.request, server)
            asking = threading.Thread(target=self.carry, args=(self.request, server))
            asking.start()
            self.carry(server, self.request)
            asking.join()

    def carry(self, from_: socket.socket, to: socket.socket) -> None:
        """Pass on what comes, until one end hangs up."""
        with contextlib.suppress(OSError):
            while data := from_.recv(65536):
                if from_ is self.request or not self.server.is_deaf:  # type: ignore[attr-defined]
                    to.sendall(data)
        for end in (from_, to):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Proxy(socketserver.ThreadingTCPServer):
    """Stands between a sink and its server; what the server says is dropped while it is deaf."""

    def __init__(self, behind: str) -> None:
        self.is_deaf = False
        self.behind = behind
        self.ends: tuple[socket.socket, ...] = ()
        super().__init__(("127.0.0.1", 0), _Carrying)
        self.url = f"redis://127.0.0.1:{self.server_address[1]}/0"

    def hang_up(self) -> None:
        """Break all connections."""
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.ends = ()


@contextlib.contextmanager
def deafening(server: EmbeddedRedis) -> Iterator[Proxy]:
    """Run a proxy in front of `server`."""
    with Proxy(server.url.removeprefix("unix://")) as proxy:
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.hang_up()
            proxy.shutdown()


def until(is_so: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_looking_does_not_wait_for_a_slow_redis(flow: Flow, client: Redis) -> None:
    """The stream goes on; only a snapshot waits, and no second look is sent before the first is answered."""
    client.config_resetstat()
    with paused(client, reads=True) as is_paused:
        for _ in range(5):
            flow.now_ms += 1000
            flow.write(0, marks=True)
            flow.write(1, marks=True)
        assert is_paused()
        flow.settle()
        assert not is_paused()
    looks = SLOTS * 2  # the second is due when the first is answered, in the snapshot
    assert int(client.info("commandstats")["cmdstat_info"]["calls"]) <= 2 * looks + 1


def test_looking_is_held_up_by_a_read_only_server_no_longer_than_the_bound(
    flow: Flow, client: Redis, embedded: EmbeddedRedis
) -> None:
    """A sentinel that cannot be marked is what any write would be."""
    client.delete(SENTINEL)
    client.replicaof("127.0.0.1", "1")
    try:
        impatient = Flow(embedded.url, PipelineBounds(retry_seconds_max=0.3))
        with pytest.raises(SinkError, match=r"refuses writes \(READONLY"):
            impatient.settle()
        impatient.close()
    finally:
        client.replicaof("NO", "ONE")
    flow.second()
    flow.settle()
    assert_asked_once_and_healed(flow, client)


def test_results_are_shown_once_they_can_be_read(flow: Flow, client: Redis) -> None:
    """Batch by batch, in the order in which they came."""
    flow.shown.clear()
    client.client_pause(300, all=True)
    written = [[flow.write(lane, f"SKU-{lane}-0", version=2)] for lane in (0, 1, 2)]
    assert flow.shown == []
    flow.settle()
    assert flow.shown == written
    flow.settle()
    assert flow.shown == written


def test_results_are_shown_by_the_next_batch_without_a_snapshot(flow: Flow, client: Redis) -> None:
    """An epoch is long; the next batch or mark finds the answers."""
    flow.shown.clear()
    first = flow.write(0, "SKU-0-0", version=2)
    time.sleep(0.1)
    assert client.hget("avail:SKU-0-0", "@version") == b"2"
    second = flow.write(1)
    assert flow.shown == [[first], [second]]


def test_results_that_redis_did_not_take_are_not_shown(flow: Flow, client: Redis, embedded: EmbeddedRedis) -> None:
    """A refusal is no answer."""
    impatient = Flow(embedded.url, PipelineBounds(retry_seconds_max=0.3))
    impatient.settle()
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(SinkError, match="OOM"):
            impatient.write_and_settle(0, "SKU-0-0", version=2)
    finally:
        client.config_set("maxmemory", "0")
    assert impatient.shown == []
    impatient.close()
    assert flow.asked == SLOTS
