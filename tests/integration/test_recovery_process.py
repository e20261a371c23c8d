"""`onhand run availability` that drains, freezes, is orphaned, and runs on two machines, on a real Kafka and Redis."""

import os
import random
import signal
import sqlite3
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from bench.drain import Raw, produce
from bench.generate import RULES_PATH, LoadConfig, benchmark_rules, movements
from bench.servers import free_port
from flows.store import lane_snapshots, report
from operators.snapshots import is_whole, unpack
from sinks.redis_keys import read_health
from tests.cli.command import onhand
from tests.faults.flow import Flow, still_there
from tests.faults.servers import Servers
from tests.faults.verdict import judge, what_is_left

PARTITIONS = 4
SECONDS_MAX = 90.0
GONE_SECONDS_MAX = 5.0
GROUP = "recovery"
LOAD = LoadConfig(movements=6_000, skus=400, partitions=PARTITIONS, duplicate_share=0.05, end_markers=False)
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def all_servers() -> Iterator[Servers]:
    """A broker and a Redis of this module's own, since names of topics are fixed."""
    with Servers() as found:
        yield found


class Place(NamedTuple):
    """Servers with nothing in them, and a folder."""

    servers: Servers
    folder: Path

    def settings(self, **more: str) -> dict[str, str]:
        """Those of a flow here; `more` with `__` for the dot."""
        return {
            "kafka.bootstrap_servers": self.servers.kafka.bootstrap_servers,
            "kafka.group": GROUP,
            "redis.url": self.servers.redis.url,
            "rules.path": str(RULES_PATH),
            "state.snapshot_seconds": "0.5",
            "metrics.listen": "",
        } | {name.replace("__", "."): text for name, text in more.items()}

    def flow(self, **more: str) -> Flow:
        """A flow that is yet to be started."""
        return Flow(self.folder, self.settings(**more), self.folder)

    def wait_until_read(self, flow: Flow) -> None:
        """Until a reader sees that everything that is in the log now is in Redis."""
        since_ms = now_ms()

        def is_read() -> bool:
            flow.check()
            return _is_read(client, since_ms)

        with Redis.from_url(self.servers.redis.url) as client:
            try:
                wait_until(is_read, "everything read")
            except AssertionError as error:
                health = read_health(client, "avail:")
                raise AssertionError(f"since {since_ms}: {health}; {flow.log_tail()}") from error

    def differences(self, sent: list[Raw]) -> list[str]:
        """What is not as the oracle has it, after a drain."""
        left = what_is_left(self.servers.kafka.bootstrap_servers, self.servers.redis.url, GROUP, {})
        return judge(left._replace(read_up_to=left.told_group), benchmark_rules(), sent).violations


@pytest.fixture
def place(all_servers: Servers, tmp_path: Path) -> Place:
    """Nothing in the servers, nothing in the folder."""
    all_servers.renew(PARTITIONS)
    return Place(all_servers, tmp_path)


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


def wait_until(true: Callable[[], object], what: str) -> None:
    """Wait, for a bounded time."""
    deadline = time.monotonic() + SECONDS_MAX
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def _is_read(client: Redis, since_ms: int) -> bool:
    health = read_health(client, "avail:")
    return health is not None and health.lag_seconds == 0.0 and health.watermark_ms >= since_ms


def some_movements(seed: int) -> list[Raw]:
    """A few seconds of work."""
    return list(movements(LOAD, random.Random(seed)))


def counted(port: int, name: str) -> float:
    """The sum of a metric of the flow whose health is at `port`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:  # our own
        families = text_string_to_metric_families(answer.read().decode())
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)


def test_after_a_drain_nothing_is_read_again(place: Place) -> None:
    """A drain under load ends in order; the next start applies exactly the rest, and repeats nothing."""
    port = free_port()
    flow = place.flow(metrics__listen=f"127.0.0.1:{port}")
    sent = some_movements(1)
    try:
        flow.start(1)
        produce(place.servers.kafka.bootstrap_servers, sent[:3000])
        wait_until(lambda: _answers(port) and counted(port, "onhand_movements_applied_total") > 300, "some applied")
        assert flow.drain() < 10.0
        first = len(_availability(place))

        produce(place.servers.kafka.bootstrap_servers, sent[3000:])
        flow.start(1)
        place.wait_until_read(flow)
        flow.drain()
    finally:
        flow.end()
    records = _availability(place)
    assert len(records) > first > 0
    assert len(set(records)) == len(records)
    assert place.differences(sent) == []


def _answers(port: int) -> bool:
    try:
        counted(port, "onhand_movements_applied_total")
    except OSError:
        return False
    return True


def _availability(place: Place) -> list[bytes | None]:
    """The ids of all availability records, one for each time that one was written."""
    left = what_is_left(place.servers.kafka.bootstrap_servers, place.servers.redis.url, GROUP, {})
    return [dict(record.headers)["ce_id"] for record in left.topics["inventory.availability"]]


def test_workers_die_with_their_supervisor_and_a_start_goes_on(place: Place) -> None:
    """An orphan would go on writing beside its successor."""
    flow = place.flow()
    sent = some_movements(2)
    try:
        flow.start(2)
        produce(place.servers.kafka.bootstrap_servers, sent)
        wait_until(lambda: len(flow.workers()) == 2, "two workers")
        wait_until(lambda: place.servers.redis.pid and _size(place) > 50, "some written")
        orphans = flow.kill()
        assert len(orphans) == 2
        assert still_there(orphans, 5.0) == []

        flow.start(1)
        place.wait_until_read(flow)
        flow.drain()
    finally:
        flow.end()
    assert place.differences(sent) == []


def test_a_calm_flow_goes_on_from_a_base_and_what_came_since(place: Place) -> None:
    """A lane of a large state is not packed for a few movements; whoever dies then, all of them count once."""
    flow, state = place.flow(state__lanes="1"), place.folder / "state"
    sent = some_movements(5)
    calm = range(len(sent) - 300, len(sent), 50)
    try:
        flow.start(1)
        produce(place.servers.kafka.bootstrap_servers, sent[: calm.start])
        place.wait_until_read(flow)
        wait_until(lambda: list(state.glob("lane-0-*.base")), "a base")
        for begin in calm:
            produce(place.servers.kafka.bootstrap_servers, sent[begin : begin + calm.step])
            place.wait_until_read(flow)
        wait_until(lambda: [is_whole(lane) for lane in _kept(state)] == [False], "an epoch that ends with changes")
        assert still_there(flow.kill(), GONE_SECONDS_MAX) == []
        assert [is_whole(lane) for lane in _kept(state)] == [False]
        assert report(state).findings == []
        flow.start(1)
        place.wait_until_read(flow)
        flow.drain()
    finally:
        flow.end()
    assert place.differences(sent) == []


def test_a_busy_flow_goes_on_from_a_base_begun_before_the_end_of_an_epoch(place: Place) -> None:
    """At each end its lane has been given too much to begin one then; whoever dies, every movement counts once."""
    flow, state = place.flow(state__lanes="1", state__snapshot_seconds="2"), place.folder / "state"
    sent = list(movements(replace(LOAD, movements=60_000), random.Random(6)))
    at, step = 6_000, 240
    try:
        flow.start(1)
        produce(place.servers.kafka.bootstrap_servers, sent[:at])
        place.wait_until_read(flow)  # it has a store by now
        while [is_whole(lane) for lane in _kept(state)] != [False]:
            assert at < len(sent), "no epoch has ended with changes"
            produce(place.servers.kafka.bootstrap_servers, sent[at : at + step])
            at += step
            time.sleep(0.05)
        assert still_there(flow.kill(), GONE_SECONDS_MAX) == []
        assert report(state).findings == []
        flow.start(1)
        place.wait_until_read(flow)
        flow.drain()
    finally:
        flow.end()
    assert place.differences(sent[:at]) == []


def _kept(state: Path) -> list[dict[str, Any]]:
    """What the next run would go on from; a run that writes just now lets nobody read."""
    try:
        return [unpack(blob) for _, blob in lane_snapshots(state)]
    except sqlite3.OperationalError:
        return []


def _size(place: Place) -> int:
    with Redis.from_url(place.servers.redis.url) as client:
        return int(client.dbsize())


def _versions(client: Redis) -> dict[bytes, int]:
    """Those of all SKUs as a reader finds them."""
    names = [cast("bytes", key) for key in client.keys("avail:*") if not cast("bytes", key).startswith(b"avail:@")]
    with client.pipeline(transaction=False) as asked:
        for name in names:
            asked.hget(name, "@version")
        return {name: int(version) for name, version in zip(names, asked.execute(), strict=True) if version}


def test_redis_and_workers_lost_together_never_show_a_step_back(place: Place) -> None:
    """The state of the next start is older than what readers have seen: an empty Redis is not filled from it."""
    flow = place.flow()
    sent = list(movements(replace(LOAD, movements=40_000), random.Random(4)))
    stepped_back: set[bytes] = set()
    with Redis.from_url(place.servers.redis.url) as client:

        def look() -> bool:
            stepped_back.update(name for name, version in _versions(client).items() if version < seen[name])
            return _is_read(client, since_ms)

        try:
            flow.start(2)
            produce(place.servers.kafka.bootstrap_servers, sent[:1000])
            place.wait_until_read(flow)
            flow.drain()
            flow.end()
            flow = place.flow(state__snapshot_seconds="60")
            flow.start(2)
            produce(place.servers.kafka.bootstrap_servers, sent[1000:])
            place.wait_until_read(flow)
            seen = _versions(client)
            assert still_there(flow.kill(), 5.0) == []
            client.flushall()

            since_ms = now_ms()
            flow.start(2)
            wait_until(look, "everything read")
            wait_until(lambda: _versions(client).keys() == seen.keys(), "all SKUs")
            flow.drain()
        finally:
            flow.end()
    assert stepped_back == set()
    assert place.differences(sent) == []


def test_a_frozen_worker_is_found_and_replaced(place: Place) -> None:
    """Nobody types a command: its heart stops, the group starts again, and everything is exact."""
    flow = place.flow()
    sent = some_movements(3)
    try:
        flow.start(2)
        produce(place.servers.kafka.bootstrap_servers, sent[:3000])
        place.wait_until_read(flow)
        before = {worker.pid for worker in flow.workers()}
        os.kill(min(before), signal.SIGSTOP)
        produce(place.servers.kafka.bootstrap_servers, sent[3000:])
        wait_until(lambda: not before & {worker.pid for worker in flow.workers()}, "new workers")
        assert "no sign of life" in flow.log_tail()
        place.wait_until_read(flow)
        assert all(worker.status() != psutil.STATUS_STOPPED for worker in flow.workers())
        flow.drain()
    finally:
        flow.end()
    assert place.differences(sent) == []


def _lose_and_find_again(place: Place, flow: Flow) -> None:
    """Redis is emptied once the flow has run for a while, and holds every SKU again without a command."""
    with Redis.from_url(place.servers.redis.url) as client:
        time.sleep(6)  # what is missing sooner is taken for lost before the start
        before = sum(1 for key in client.keys("avail:*") if not key.startswith(b"avail:@"))
        client.flushall()
        wait_until(lambda: sum(not key.startswith(b"avail:@") for key in client.keys("avail:*")) == before, "all SKUs")
    place.wait_until_read(flow)


def test_two_machines_with_a_directory_each_go_on_together(place: Place) -> None:
    """Each holds its share of the state; both end at their signals, go on where they were, and fill Redis again."""
    ports = [free_port() for _ in range(3)]
    addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
    flows = [place.flow(state__path=str(place.folder / f"machine-{machine}")) for machine in range(2)]
    logs = [place.folder / f"machine-{machine}.log" for machine in range(2)]
    for flow, log in zip(flows, logs, strict=True):
        flow.log = log
    incarnation: tuple[str, ...] = ()
    for machine in range(2):
        settings = place.settings(state__path=str(place.folder / f"machine-{machine}"))
        options = ("--machines", "2", "--machine", str(machine), *incarnation, "--json")
        made = onhand("recovery", "create", *options, cwd=place.folder, settings=settings)
        assert made.returncode == 0, made.stderr
        incarnation = ("--incarnation", made.stdout.split('"incarnation":')[1].split(",")[0].strip())
    sent = some_movements(4)
    try:
        for part in (sent[:3000], sent[3000:]):
            flows[0].start(2, "--addresses", addresses, "--first", "0")
            flows[1].start(1, "--addresses", addresses, "--first", "2")
            produce(place.servers.kafka.bootstrap_servers, part)
            place.wait_until_read(flows[0])
            for _ in range(2 if part == sent[3000:] else 0):
                _lose_and_find_again(place, flows[0])
            for flow in flows:
                flow.ask_drain()
            assert [flow.wait_for_end(30) for flow in flows] == [0, 0]
    finally:
        for flow in flows:
            flow.end()
    assert place.differences(sent) == []
