"""The Redis sink: only newer versions get in, whole hashes change at once, and nothing is lost when Redis stumbles."""

import contextlib
import itertools
import random
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, run_main
from redis import Redis

from bench.servers import RedisServer
from schemas.batches import Mark, Origin
from schemas.outputs import Availability, ChannelAvailability, HashCall, LaneResult, RulesInForce
from schemas.times import format_ms
from sinks.redis_availability import SKUS_PER_CALL_MAX, RedisAvailabilitySink, age_of, merged
from sinks.redis_keys import Promises, last_incarnation, read_health, read_promises
from sinks.redis_pipeline import PipelineBounds, RedisPipeline
from sinks.redis_server import EmbeddedRedis
from sinks.slots import SinkError
from tests.sinks.pausing import paused

CHECKOUT = Path(__file__).parents[2]
PREFIX = "avail:"
BEYOND_DOUBLES = 2**53
PATIENT = PipelineBounds()
HANGS_UP, HANGS_UP_LATE = b"", b"late"
IMPATIENT = PipelineBounds(retry_seconds_max=0.3)


def availability(sku: str, version: int, incarnation: int = 1, **promised: int) -> Availability:
    """Make the record of a SKU whose channels promise `promised`, by default 5 in `web`."""
    channels = {
        name.replace("__", "/"): ChannelAvailability(units, units, "in_stock")
        for name, units in (promised or {"web": 5}).items()
    }
    return Availability(sku, incarnation, version, format_ms(1_700_000_000_123 + version % 1000), 1, channels, {})


def result(*records: Availability, lane: int = 0, marks: list[Mark] | None = None) -> LaneResult:
    """Make what a lane leaves behind when it published `records`."""
    return LaneResult(lane, list(records), [], [], [], [], [], [], [], [], marks or [], 0, 0, 0)


def mark(offset: int, end_offset: int, record_ms: int, read_ms: int, partition: int = 0, partitions: int = 1) -> Mark:
    """Make a mark of one partition of a topic."""
    origin = Origin("cluster", "topic", partition, "inventory.movements")
    return Mark(origin, offset, end_offset, record_ms, read_ms, partitions)


class Writing:
    """A sink and its first slot, driven as Bytewax does, with a clock that the test sets."""

    def __init__(
        self,
        url: str,
        bounds: PipelineBounds = PATIENT,
        beat: Callable[[], None] = lambda: None,
        *,
        lanes: int = 1,
    ) -> None:
        self.now_ms = 10_000
        self.sink = RedisAvailabilitySink(url, PREFIX, lambda: self.now_ms, bounds=bounds, beat=beat, lanes=lanes)
        self.slot = self.sink.build_part("redis", self.sink.list_parts()[0], None)

    def write(self, *records: Availability, marks: list[Mark] | None = None, lane: int = 0) -> None:
        """Hand over one batch."""
        self.slot.write_batch([result(*records, marks=marks, lane=lane)])

    def settle(self) -> None:
        """End an epoch."""
        self.slot.snapshot()

    def write_and_settle(self, *records: Availability) -> None:
        """Hand over the only batch of an epoch."""
        self.write(*records)
        self.settle()


@pytest.fixture
def writing(embedded: EmbeddedRedis, client: Redis) -> Iterator[Writing]:
    """A sink that writes to the emptied server of this test."""
    assert client.dbsize() == 0
    writing = Writing(embedded.url)
    yield writing
    writing.slot.close()


def evalsha_calls(client: Redis) -> int:
    """Count the script calls that Redis has run."""
    return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])


def test_a_channel_reads_its_promise_with_version_incarnation_and_time(writing: Writing, client: Redis) -> None:
    """A SKU is one hash: a field per channel, and whence it comes."""
    writing.write(availability("SKU-1", 711, 1_763_800_000, web=3, b2b__acme=0, marketplace=12))
    writing.settle()
    assert client.hgetall("avail:SKU-1") == {
        b"web": b"3",
        b"b2b/acme": b"0",
        b"marketplace": b"12",
        b"@version": b"711",
        b"@incarnation": b"1763800000",
        b"@as_of": b"1700000000834",
    }


def test_a_time_written_another_way_is_the_same_time(writing: Writing, client: Redis) -> None:
    """`@as_of` does not depend on the record's time being written as onhand writes it."""
    record = availability("SKU-1", 1)
    record.as_of = "2023-11-14T23:13:20.5+01:00"
    writing.write(record)
    writing.settle()
    assert client.hget("avail:SKU-1", "@as_of") == b"1700000000500"


@pytest.mark.parametrize(
    ("known", "offered", "wins"),
    [
        ((1, 5), (1, 6), True),
        ((1, 5), (1, 5), False),
        ((1, 5), (1, 4), False),
        ((1, 9), (1, 10), True),
        ((1, 10), (1, 9), False),
        ((1, 99), (2, 0), True),
        ((2, 0), (1, 99), False),
        ((9, 5), (10, 4), True),
        ((10, 4), (9, 5), False),
        ((1, BEYOND_DOUBLES), (1, BEYOND_DOUBLES + 1), True),
        ((1, BEYOND_DOUBLES + 1), (1, BEYOND_DOUBLES), False),
        ((1, 2**63 - 1), (1, 2**63), True),
        ((BEYOND_DOUBLES, 1), (BEYOND_DOUBLES + 1, 0), True),
    ],
)
def test_only_the_greater_incarnation_and_version_gets_in(
    writing: Writing, client: Redis, known: tuple[int, int], offered: tuple[int, int], *, wins: bool
) -> None:
    """A write that is not newer changes nothing at all, however great the numbers are."""
    for (incarnation, version), units in ((known, 1), (offered, 2)):
        writing.write(availability("SKU-1", version, incarnation, web=units))
        writing.settle()
    promises = read_promises(client, PREFIX, "SKU-1")
    assert promises is not None
    assert (promises.incarnation, promises.version) == (offered if wins else known)
    assert promises.promised == {"web": 2 if wins else 1}
    assert (writing.sink.counters.written, writing.sink.counters.refused) == ((2, 0) if wins else (1, 1))


def test_a_write_replaces_the_whole_hash(writing: Writing, client: Redis) -> None:
    """Fields of removed channels go, those of new channels come."""
    writing.write(availability("SKU-1", 1, web=1, b2b=2, marketplace=3))
    writing.write(availability("SKU-1", 2, web=4, b2b__acme=5))
    writing.settle()
    promises = read_promises(client, PREFIX, "SKU-1")
    assert promises is not None
    assert promises.promised == {"web": 4, "b2b/acme": 5}


def test_what_may_be_older_than_a_reader_has_seen_only_replaces(writing: Writing, client: Redis) -> None:
    """A Redis that has lost a hash is not given an older one; one that holds it takes what is newer, as ever."""
    writing.write_and_settle(availability("SKU-1", 5), availability("SKU-2", 5))
    behind = result(*(availability(f"SKU-{number}", 6, web=6) for number in (1, 3)), availability("SKU-2", 4))
    writing.slot.write_batch([behind._replace(is_behind=True)])
    writing.settle()
    assert [client.hget(f"avail:SKU-{number}", "@version") for number in (1, 2, 3)] == [b"6", b"5", None]
    assert client.hget("avail:SKU-1", "web") == b"6"
    assert (writing.sink.counters.written, writing.sink.counters.refused) == (3, 2)


def test_a_sku_may_have_thousands_of_channels(writing: Writing, client: Redis) -> None:
    """More fields than Lua can pass at once are written and replaced all the same."""
    many = {f"b2b__{account}": account for account in range(6000)}
    writing.write(availability("SKU-1", 1, web=1, **many))
    writing.write(availability("SKU-1", 2, **many))
    writing.settle()
    promises = read_promises(client, PREFIX, "SKU-1")
    assert promises is not None
    assert promises.promised == {name.replace("__", "/"): units for name, units in many.items()}


def test_the_last_of_several_versions_in_one_call_stays(writing: Writing, client: Redis) -> None:
    """Inside one batch the order of the records does not matter either."""
    writing.write(*(availability("SKU-1", version, web=version) for version in (1, 3, 2)))
    writing.settle()
    assert client.hget("avail:SKU-1", "web") == b"3"


def test_a_reader_never_sees_a_step_back_nor_half_a_hash(writing: Writing, embedded: EmbeddedRedis) -> None:
    """While 50,000 writes come out of order, each hash that is read is one version whole, and never an older one."""
    histories: dict[str, list[Promises | None]] = {f"SKU-{number}": [] for number in range(10)}
    stop = threading.Event()

    def read() -> None:
        with Redis.from_url(embedded.url) as reader:
            while not stop.is_set():
                for sku, history in histories.items():
                    history.append(read_promises(reader, PREFIX, sku))

    reading = threading.Thread(target=read)
    reading.start()
    for records in out_of_order(skus=100, versions=500):
        writing.write(*records)
        time.sleep(0.002)  # lets the reader have the interpreter
    writing.settle()
    stop.set()
    reading.join(10)
    assert writing.sink.counters.written + writing.sink.counters.refused == 50_000
    assert writing.sink.counters.refused > 10_000
    for history in histories.values():
        known = list(itertools.dropwhile(lambda promises: promises is None, history))
        assert all(promises and promises.promised == promised_at(promises.version) for promises in known)
        versions = [promises.version for promises in known if promises]
        assert versions == sorted(versions)
        assert len(set(versions)) >= 5


def out_of_order(skus: int, versions: int) -> Iterator[list[Availability]]:
    """Make batches of 250 records; versions rise in the long run, and come in any order inside 20 of them."""
    chance = random.Random(7)
    for lowest in range(0, versions, 20):
        writes = [(f"SKU-{sku}", version) for sku in range(skus) for version in range(lowest, lowest + 20)]
        chance.shuffle(writes)
        for start in range(0, len(writes), 250):
            yield [availability(sku, version, **promised_at(version)) for sku, version in writes[start : start + 250]]


def promised_at(version: int) -> dict[str, int]:
    """Every other version has fewer channels, and all of them promise the version."""
    return dict.fromkeys(("web", "b2b", "marketplace", "store") if version % 2 else ("web", "b2b"), version)


def test_a_call_holds_at_most_128_skus(writing: Writing, client: Redis) -> None:
    """A reader waits for one call at most, so calls are small: 257 SKUs are three, behind one for the incarnation."""
    writing.write(*(availability(f"SKU-{number}", 1) for number in range(257)))
    writing.settle()
    assert evalsha_calls(client) == 4
    assert writing.sink.counters.calls == 4
    assert writing.sink.counters.written == 257


def test_the_results_of_one_batch_share_calls(writing: Writing, client: Redis) -> None:
    """Lanes do not each pay for a call of their own."""
    writing.slot.write_batch([result(availability(f"SKU-{lane}", 1), lane=lane) for lane in range(128)])
    writing.settle()
    assert evalsha_calls(client) == 2


@pytest.mark.parametrize("sizes", [[1], [1, 2, 3], [100, 28], [100, 29], [128, 1, 128], [1] * 300])
def test_calls_of_several_lanes_are_one_where_they_fit(sizes: list[int]) -> None:
    """The same texts in the same order; none grows beyond what a reader waits behind."""
    number = itertools.count()
    texts = [[f"{next(number)}" for _ in range(4 * size)] for size in sizes]
    calls = [HashCall(size, 7, array_32(own)) for size, own in zip(sizes, texts, strict=True)]
    found = list(merged(calls))
    assert [text for call in found for text in msgspec.msgpack.decode(call.argument)] == list(itertools.chain(*texts))
    assert all(len(msgspec.msgpack.decode(call.argument)) == 4 * call.skus for call in found)
    assert all(call.skus <= SKUS_PER_CALL_MAX and call.incarnation == 7 for call in found)
    assert all(one.skus + other.skus > SKUS_PER_CALL_MAX for one, other in itertools.pairwise(found))


def array_32(texts: list[str]) -> bytes:
    """MessagePack with a head of five bytes, however few the texts are."""
    return b"\xdd" + len(texts).to_bytes(4, "big") + b"".join(map(msgspec.msgpack.encode, texts))


def test_writing_does_not_wait_for_redis_but_a_snapshot_does(writing: Writing, client: Redis) -> None:
    """The round trip overlaps the next batch; what an epoch stands for has been answered."""
    with paused(client) as is_paused:
        writing.write(*(availability(f"SKU-{number}", 1) for number in range(100)))
        writing.write(*(availability(f"SKU-{number}", 2) for number in range(100)))
        assert is_paused()
        assert writing.sink.counters.written == 0
        writing.settle()
        assert not is_paused()
    assert writing.sink.counters.written == 200
    assert client.dbsize() == 101


@pytest.mark.parametrize(
    ("bounds", "within"),
    [
        (PipelineBounds(calls_in_flight_max=2), [1, 1]),
        (PipelineBounds(bytes_in_flight_max=1000), [400, 600]),
        (PipelineBounds(bytes_in_flight_max=1000), [9000]),
    ],
)
def test_no_more_is_under_way_than_the_bounds(
    embedded: EmbeddedRedis, client: Redis, bounds: PipelineBounds, within: list[int]
) -> None:
    """Calls of so many bytes are sent at once, the next one waits for room; one alone may be longer than the bytes."""
    answers = list[int]()
    with pipeline_to(embedded, bounds) as pipeline:
        with paused(client) as is_paused:
            for bytes_ in within:
                pipeline.send("length", b"." * bytes_, answers.append)
            were_waiting = pipeline.has_waiting
            last = pipeline.send("length", b".", answers.append)
            assert (were_waiting, pipeline.has_waiting, pipeline.answered_through(last)) == (False, True, False)
            assert is_paused()
        pipeline.drain()
        assert pipeline.answered_through(last)
    assert answers == [*within, 1]


def test_what_waits_is_sent_when_there_is_room_and_has_a_bound(embedded: EmbeddedRedis, client: Redis) -> None:
    """Answers are looked for from time to time; who has too much to send waits for them."""
    answers = list[int]()
    bounds = PipelineBounds(bytes_in_flight_max=1000, bytes_waiting_max=5000)
    with pipeline_to(embedded, bounds) as pipeline:
        with paused(client) as is_paused:
            for _ in range(6):
                pipeline.send("length", b"." * 1000, answers.append)
            assert is_paused()
            pipeline.send("length", b"." * 999, answers.append)
            still = is_paused()
        assert not still
        deadline = time.monotonic() + 20
        while pipeline.has_waiting:
            assert time.monotonic() < deadline
            pipeline.read_ready()
        pipeline.drain()
    assert answers == [1000] * 6 + [999]


def test_what_waits_is_sent_after_what_is_sent_again(embedded: EmbeddedRedis, client: Redis) -> None:
    """A connection that is lost loses nothing of either."""
    answers = list[int]()
    with pipeline_to(embedded, PipelineBounds(bytes_in_flight_max=1000)) as pipeline:
        with paused(client):
            last = [pipeline.send("length", b"." * bytes_, answers.append) for bytes_ in (1000, 1, 2, 3)][-1]
            client.client_kill_filter(_type="normal", skipme=True)
        while not pipeline.counters.reconnects:
            pipeline.read_ready()
        assert not pipeline.answered_through(last)
        pipeline.drain()
        assert (pipeline.counters.reconnects, pipeline.counters.resent) == (1, 1)
    assert answers == [1000, 1, 2, 3]


def test_what_waits_is_not_sent_any_more_after_a_failure(embedded: EmbeddedRedis, client: Redis) -> None:
    """The run ends: whatever it had yet to write is computed again by the next one."""
    with pipeline_to(
        embedded, PipelineBounds(calls_in_flight_max=1), "return redis.call(ARGV[1], 'written')"
    ) as pipeline:
        with paused(client):
            for command in (b"INCR", b"no-such-command", b"INCR", b"INCR"):
                pipeline.send("length", command, lambda _: None)
        with pytest.raises(SinkError):
            pipeline.drain()
    assert client.get("written") == b"1"


def test_a_sink_goes_on_sending_while_nobody_writes(writing: Writing) -> None:
    """A long batch is applied meanwhile: whoever does that gives Redis what waits for it."""
    writing.write(*(availability(f"SKU-{number}", 1) for number in range(1000)))
    deadline = time.monotonic() + 20
    while writing.sink.counters.calls < 5:  # of 8, the last of which may be under way
        assert time.monotonic() < deadline
        writing.sink.send_waiting()


@contextlib.contextmanager
def pipeline_to(
    server: EmbeddedRedis, bounds: PipelineBounds, script: str = "redis.call('SET', 'written', '1') return #ARGV[1]"
) -> Iterator[RedisPipeline]:
    """One whose only script writes nothing that matters, and says how long its argument is."""
    pipeline = RedisPipeline(server.url, {"length": script}, bounds)
    pipeline.connect()
    yield pipeline
    pipeline.close()


def test_what_was_under_way_on_a_lost_connection_is_under_way_no_longer(embedded: EmbeddedRedis, client: Redis) -> None:
    """Else there would be less and less room, until each call waits for the one before."""
    writing = Writing(embedded.url, PipelineBounds(bytes_in_flight_max=7000))
    client.client_pause(300, all=False)
    writing.write(*(availability(f"SKU-{number}", 1) for number in range(100)))
    client.client_kill_filter(_type="normal", skipme=True)
    writing.write_and_settle(availability("SKU-1", 2))
    assert writing.sink.counters.reconnects == 1
    with paused(client) as is_paused:
        for version in (3, 4, 5):
            writing.write(*(availability(f"SKU-{number}", version) for number in range(20)))
        assert is_paused()
    writing.settle()
    writing.slot.close()


def test_scripts_that_redis_forgot_are_loaded_again(writing: Writing, client: Redis) -> None:
    """SCRIPT FLUSH in the middle of a run loses nothing."""
    for version in range(1, 11):
        writing.write(*(availability(f"SKU-{number}", version) for number in range(200)))
        if version % 3 == 0:
            client.script_flush()
    writing.settle()
    assert {client.hget(f"avail:SKU-{number}", "@version") for number in range(200)} == {b"10"}
    assert writing.sink.counters.resent > 0
    assert writing.sink.counters.reconnects == 0


@pytest.mark.parametrize("path", ["/usr/bin:/bin", ""], ids=["machine", "wheel"])
def test_a_restart_of_redis_in_the_middle_loses_nothing(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """What was under way when Redis was killed is sent again, and the wait for it beats."""
    monkeypatch.setenv("PATH", path)
    beats: list[float] = []
    with RedisServer() as server:
        roomy = PipelineBounds(bytes_in_flight_max=1 << 20)  # so that much is under way
        writing = Writing(server.url, roomy, beat=lambda: beats.append(time.monotonic()))
        writing.write(*(availability(f"SKU-{number}", 1) for number in range(2000)))
        server.freeze()
        writing.write(*(availability(f"SKU-{number}", 2) for number in range(1500)))
        server.kill()
        third = [availability(f"SKU-{number}", 3) for number in range(1000)]
        rest = threading.Thread(target=writing.write_and_settle, args=third)
        rest.start()
        time.sleep(0.5)
        server.start()
        rest.join(20)
        with Redis.from_url(server.url) as client:
            versions = [client.hget(f"avail:SKU-{number}", "@version") for number in range(2000)]
        writing.slot.close()
    assert versions == [b"3"] * 1000 + [b"2"] * 500 + [b"1"] * 500
    assert writing.sink.counters.reconnects >= 1
    assert len(beats) >= 3


def test_the_newest_is_sent_again_first() -> None:
    """A reader may have seen it: a Redis that came back empty never shows what was before it."""
    with RedisServer() as server:
        writing = Writing(server.url)
        writing.write_and_settle(availability("SKU-1", 1))
        server.freeze()
        for version in range(2, 32):
            writing.write(availability("SKU-1", version))
        server.kill()
        server.start()
        writing.settle()
        with Redis.from_url(server.url) as client:
            assert client.hget("avail:SKU-1", "@version") == b"31"
        writing.slot.close()
    assert (writing.sink.counters.written, writing.sink.counters.refused) == (2, 29)


def test_a_redis_that_does_not_come_back_stops_the_flow() -> None:
    """The wait has a bound; the error is one line, and closing after it raises nothing."""
    with RedisServer() as server:
        writing = Writing(server.url, IMPATIENT)
        server.kill()
        with pytest.raises(SinkError, match=r"Redis at 127\.0\.0\.1:\d+/0 does not answer \(.*\): start it") as caught:
            writing.write_and_settle(availability("SKU-1", 1))
        with pytest.raises(SinkError, match="does not answer"):
            writing.settle()
        writing.slot.close()
    assert "\n" not in str(caught.value)


@contextlib.contextmanager
def too_little_memory(client: Redis) -> Iterator[None]:
    """Let Redis be out of memory."""
    client.config_set("maxmemory", "1")
    try:
        yield
    finally:
        client.config_set("maxmemory", "0")


@contextlib.contextmanager
def a_replica(client: Redis) -> Iterator[None]:
    """Let Redis be a replica of a primary that is not there."""
    client.replicaof("127.0.0.1", "1")
    try:
        yield
    finally:
        client.replicaof("NO", "ONE")


Trouble = Callable[[Redis], contextlib.AbstractContextManager[None]]


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (too_little_memory, r"refuses writes \(OOM .*raise maxmemory"),
        (a_replica, r"refuses writes \(READONLY .*primary"),
    ],
)
def test_a_redis_that_goes_on_refusing_writes_stops_the_flow(
    embedded: EmbeddedRedis, client: Redis, trouble: Trouble, message: str
) -> None:
    """Out of memory, or a replica: after a bounded wait one line says what to do."""
    writing = Writing(embedded.url, IMPATIENT)
    with trouble(client), pytest.raises(SinkError, match=message) as caught:
        writing.write_and_settle(availability("SKU-1", 1))
    writing.slot.close()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("trouble", [too_little_memory, a_replica])
def test_a_redis_that_refuses_writes_for_a_while_is_waited_for(
    writing: Writing, client: Redis, trouble: Trouble
) -> None:
    """When the trouble has passed, everything is there."""
    with contextlib.ExitStack() as cure:
        cure.enter_context(trouble(client))
        writing.write(*(availability(f"SKU-{number}", 1) for number in range(300)))
        cured = threading.Timer(0.4, cure.pop_all().close)
        cured.start()
        writing.settle()
        cured.join()
    assert client.dbsize() == 301
    assert writing.sink.counters.written == 300


class _Scripted(socketserver.StreamRequestHandler):
    """Speaks just enough of Redis' protocol to give the answers that a test has written down."""

    def handle(self) -> None:
        replies: Iterator[bytes] = self.server.replies  # type: ignore[attr-defined]
        while line := self.rfile.readline():
            words = [self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2] for _ in range(int(line[1:]))]
            if words[0] == b"SCRIPT":
                self.wfile.write(b"$40\r\n" + b"0" * 40 + b"\r\n")
            elif words[0] == b"EVALSHA":
                reply = next(replies, b":1")
                if reply in (HANGS_UP, HANGS_UP_LATE):
                    time.sleep(0.3 if reply == HANGS_UP_LATE else 0)
                    return
                self.wfile.write(reply + b"\r\n")
            else:
                self.wfile.write(b"+OK\r\n")


@contextlib.contextmanager
def scripted_redis(*replies: bytes) -> Iterator[str]:
    """Run a server that gives these replies to script calls, then `:1` for ever; yields its url."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Scripted) as server:
        server.daemon_threads = True
        server.replies = iter(replies)  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        server.shutdown()


@pytest.mark.parametrize(
    "reply",
    [
        b"-LOADING Redis is loading the dataset in memory",
        b"-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        b"-MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
        b"-NOREPLICAS Not enough good replicas to write.",
        b"-ERR Error running script (call to f_0): @user_script:30: @user_script: 30: -OOM command not allowed",
        b"-ERR Error running script (call to f_0): @user_script:30: @user_script: 30: -READONLY You can't write",
    ],
)
def test_an_answer_that_may_pass_is_tried_again(reply: bytes) -> None:
    """Redis that loads, is busy, cannot save or lost its primary is asked again, also in the words of Redis 6."""
    with scripted_redis(b":1", reply, b":1", reply) as url:
        writing = Writing(url)
        writing.write(availability("SKU-1", 1))
        writing.write(availability("SKU-1", 2))
        writing.settle()
        writing.slot.close()
    assert writing.sink.counters.written == 2
    assert writing.sink.counters.resent >= 1


def test_connections_that_break_again_and_again_lose_nothing() -> None:
    """Calls that were about to be sent again when the next connection broke are not forgotten."""
    with scripted_redis(b":1", HANGS_UP_LATE, b":1", HANGS_UP, HANGS_UP) as url:
        writing = Writing(url)
        for version in range(60):  # enough bytes that the second break is noticed while they are being sent
            writing.write(*(availability(f"SKU-{number}", version) for number in range(128)))
        writing.settle()
        writing.slot.close()
    assert writing.sink.counters.written == 60
    assert writing.sink.counters.reconnects >= 3


def test_an_answer_that_will_not_pass_stops_the_flow_at_once() -> None:
    """A key that holds something else is not waited for."""
    with scripted_redis(b":1", b"-WRONGTYPE Operation against a key holding the wrong kind of value") as url:
        writing = Writing(url)
        with pytest.raises(SinkError, match=r"answered with an error \(WRONGTYPE"):
            writing.write_and_settle(availability("SKU-1", 1))
        writing.slot.close()


def test_a_redis_that_is_not_there_stops_the_start() -> None:
    """One line says which server, and what to do."""
    with pytest.raises(SinkError, match=r"Redis at 127\.0\.0\.1:1/0 does not answer \(.*refused.*\): start it"):
        Writing("redis://127.0.0.1:1/0")


@pytest.mark.parametrize("user", ["", "channel"])
def test_a_wrong_password_stops_the_start_and_is_not_repeated(
    client: Redis, embedded: EmbeddedRedis, user: str
) -> None:
    """The login is refused, and what is secret stays so."""
    url = embedded.url.replace("unix://", f"unix://{user or 'default'}:hunter2@")
    client.acl_setuser("default", enabled=True, nopass=False, reset_passwords=True, passwords=["+right"])
    try:
        with pytest.raises(SinkError, match=r"refuses the login .*: check user and password") as caught:
            Writing(url)
    finally:
        client.acl_setuser("default", enabled=True, nopass=True)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_password_changed_under_way_is_not_waited_for(client: Redis, embedded: EmbeddedRedis) -> None:
    """A refused login does not pass by itself: the flow stops, and its supervisor tells why."""
    writing = Writing(embedded.url)
    client.acl_setuser("default", enabled=True, nopass=False, reset_passwords=True, passwords=["+changed"])
    try:
        client.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(SinkError, match="refuses the login"):
            writing.write_and_settle(availability("SKU-1", 1))
    finally:
        client.acl_setuser("default", enabled=True, nopass=True)
        writing.slot.close()


def test_a_malformed_address_is_refused_without_quoting_it() -> None:
    """A password with a slash breaks the url in two; no piece of it is shown."""
    with pytest.raises(SinkError, match="percent-encoded") as caught:
        Writing("redis://:hunter2/secret@localhost:6379/0")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_user_without_the_rights_stops_the_flow(client: Redis, embedded: EmbeddedRedis) -> None:
    """Missing permissions are named, not waited for."""
    client.acl_setuser("writer", enabled=True, passwords=["+pw"], keys=["avail:*"], commands=["+hset", "+script"])
    url = embedded.url.replace("unix://", "unix://writer:pw@")
    writing = Writing(url)
    with pytest.raises(SinkError, match="permissions"):
        writing.write_and_settle(availability("SKU-1", 1))
    writing.slot.close()


def test_health_is_the_age_of_the_slowest(embedded: EmbeddedRedis, client: Redis) -> None:
    """Watermark and lag are those of the lane and partition that is furthest behind."""
    writing = Writing(embedded.url, lanes=9)
    others = [writing.sink.build_part("redis", f"slot-{slot:02}", None) for slot in range(1, 8)]
    both = [mark(10, 10, 500, 9_000), mark(3, 3, 700, 9_500, 1, 2)]
    for lane, slot in enumerate(others, 1):
        slot.write_batch([result(lane=lane, marks=both)])
    writing.write(availability("SKU-1", 1, 7), lane=0, marks=both)
    writing.settle()
    writing.now_ms += 1000
    writing.write(lane=8, marks=[mark(8, 10, 400, 9_000), mark(3, 3, 700, 9_500, 1, 2)])
    writing.settle()
    assert read_health(client, PREFIX) == (7, 400, 8.6, 11_000)
    for slot in (*others, writing.slot):
        slot.close()


def test_health_says_nothing_before_all_lanes_have_told_about_all_origins(writing: Writing, client: Redis) -> None:
    """What nobody has heard of may be behind."""
    writing.write(availability("SKU-1", 1, 7), marks=[mark(3, 3, 700, 9_500, 1, 2)])
    writing.settle()
    assert read_health(client, PREFIX) is None
    writing.write(marks=[mark(10, 10, 500, 9_000, 0, 2)])
    writing.settle()
    assert read_health(client, PREFIX) == (7, 9_000, 0.0, 10_000)


def test_health_is_unknown_before_all_slots_have_told(embedded: EmbeddedRedis, client: Redis) -> None:
    """They live in several processes, which begin at their own time."""
    writing, other = Writing(embedded.url, lanes=2), Writing(embedded.url, lanes=2)
    writing.write(availability("SKU-1", 1, 7), marks=[mark(3, 3, 700, 9_500)])
    writing.settle()
    health = read_health(client, PREFIX)
    assert health is not None
    assert (health.watermark_ms, health.lag_seconds) == (0, None)
    other.slot.close()
    other.slot = other.sink.build_part("redis", "slot-01", None)
    other.write(availability("SKU-2", 1, 7), lane=1, marks=[mark(3, 3, 700, 9_500)])
    other.settle()
    assert read_health(client, PREFIX) == (7, 9_500, 0.0, 10_000)
    other.slot.close()
    writing.slot.close()


def test_health_is_told_at_most_once_a_second(writing: Writing, client: Redis) -> None:
    """Marks come with every lane; Redis hears of them once a second."""
    for _ in range(5):
        writing.write(availability("SKU-1", 1), marks=[mark(1, 1, 0, 9_000)])
        writing.settle()
    assert evalsha_calls(client) == 1 + 5 + 1
    writing.now_ms += 1000
    writing.write(marks=[mark(2, 2, 0, 10_000)])
    writing.settle()
    health = read_health(client, PREFIX)
    assert health is not None
    assert health.watermark_ms == 10_000
    assert evalsha_calls(client) == 1 + 5 + 1 + 1


def test_health_never_runs_ahead_of_the_writes(writing: Writing, client: Redis) -> None:
    """What the health speaks of has been answered before it is even sent."""
    client.script_flush()
    client.script_load((CHECKOUT / "sinks" / "redis_health.lua").read_text())  # it could run, the writes cannot
    writing.write(*(availability(f"SKU-{number}", 1) for number in range(500)), marks=[mark(1, 1, 0, 9_000)])
    time.sleep(0.1)
    assert read_health(client, PREFIX) is None
    writing.settle()
    assert read_health(client, PREFIX) is not None
    assert client.dbsize() == 501


def test_health_of_several_processes_is_that_of_the_slowest(embedded: EmbeddedRedis, client: Redis) -> None:
    """Each process knows its own slots only; Redis keeps the parts, and the oldest is the truth."""
    first, second = Writing(embedded.url), Writing(embedded.url)
    second.slot = second.sink.build_part("redis", "slot-01", None)
    first.write(availability("SKU-1", 1), marks=[mark(5, 9, 2_000, 9_000)])
    first.settle()
    second.now_ms += 2000
    second.write(availability("SKU-2", 1), marks=[mark(9, 9, 8_000, 9_000)])
    second.settle()
    health = read_health(client, PREFIX)
    assert health == (1, 2_000, 7.0, 10_000)
    first.slot.close()
    second.slot.close()


def test_a_new_state_forgets_the_health_of_the_one_before(writing: Writing, client: Redis) -> None:
    """Parts of an older incarnation say nothing about this one, and an older process cannot bring them back."""
    writing.write(availability("SKU-1", 1, 5), marks=[mark(1, 9, 1_000, 9_000)])
    writing.settle()
    old = client.hgetall("avail:@health")
    client.hset("avail:@health", mapping={"incarnation": "6", "slot-07": "1 1 1"})
    writing.now_ms += 1000
    writing.write(availability("SKU-2", 1, 5), marks=[mark(9, 9, 1_000, 9_000)])
    writing.settle()
    assert client.hget("avail:@health", "watermark_ms") == old[b"watermark_ms"]
    writing.now_ms += 1000
    writing.write(availability("SKU-3", 1, 10), marks=[mark(9, 9, 1_000, 9_000)])
    writing.settle()
    assert read_health(client, PREFIX) == (10, 9_000, 0.0, writing.now_ms)
    assert client.hget("avail:@health", "slot-07") is None


@pytest.mark.parametrize(
    ("marks", "age"),
    [
        ([mark(5, 5, 1_000, 9_000)], (9_000, "0.000")),
        ([mark(5, 5, 1_000, 6_400)], (6_400, "0.600")),
        ([mark(4, 5, 1_000, 6_400)], (1_000, "6.000")),
        ([mark(5, 5, 1_000, 9_000), mark(5, 5, 1_000, 2_000, 1)], (2_000, "5.000")),
        ([mark(0, 0, -1, 9_000)], (9_000, "0.000")),
        ([mark(4, 5, 1_000, 9_000)], (1_000, "8.000")),
        ([mark(4, 5, 9_500, 9_000)], (9_500, "0.000")),
        ([mark(0, 5, -1, 9_000)], (0, "inf")),
        ([mark(5, 5, 1_000, 9_000), mark(4, 5, 3_000, 8_250, 1)], (3_000, "5.250")),
    ],
)
def test_age_of_what_was_read(marks: list[Mark], age: tuple[int, str]) -> None:
    """Read to the end is as new as the reading, else as old as the record read last, else unknown; late marks add."""
    assert age_of(marks, now_ms=10_000) == age


def test_a_log_that_nobody_hears_of_any_more_grows_old(writing: Writing, client: Redis) -> None:
    """The marks of one slot end; those of the others, which go on, do not speak for it."""
    other = writing.sink.build_part("redis", "slot-01", None)
    writing.write(availability("SKU-1", 1), marks=[mark(5, 5, 1, 10_000)])
    for _ in range(8):
        writing.now_ms += 1000
        other.write_batch([result(marks=[mark(5, 5, 1, writing.now_ms, 1)])])
        other.snapshot()
    health = read_health(client, PREFIX)
    assert health == (1, 10_000, 5.0, 18_000)


def test_an_unknown_lag_passes_no_bound(writing: Writing, client: Redis) -> None:
    """Behind by an unknown time reads as infinitely far behind, whatever the other slots say."""
    other = writing.sink.build_part("redis", "slot-01", None)
    writing.write(availability("SKU-1", 1), marks=[mark(0, 5, -1, 9_000)])
    writing.settle()
    writing.now_ms += 1000
    other.write_batch([result(marks=[mark(5, 5, 1, 9_000)])])
    other.snapshot()
    health = read_health(client, PREFIX)
    assert health is not None
    assert (health.watermark_ms, health.lag_seconds) == (0, None)
    assert float(client.hget("avail:@health", "lag_seconds") or 0) == float("inf")


def test_the_incarnation_is_told_with_the_first_write(writing: Writing, client: Redis) -> None:
    """A state that dies young still leaves its number, so that the next one draws a greater."""
    assert last_incarnation(client, PREFIX) == 0
    writing.write(availability("SKU-1", 1, 41))
    writing.settle()
    assert last_incarnation(client, PREFIX) == 41
    assert read_health(client, PREFIX) is None


def test_the_incarnation_is_told_with_the_rules_of_an_empty_log(writing: Writing, client: Redis) -> None:
    """A state that has no SKU yet and ends within its first second is told from the next one all the same."""
    rules = RulesInForce(0, 41, 1, "digest", -1, None, msgspec.Raw(b"{}"))
    writing.slot.write_batch([result()._replace(rules=[rules])])
    writing.settle()
    assert last_incarnation(client, PREFIX) == 41


def test_lanes_go_to_slots_whose_names_never_change(writing: Writing) -> None:
    """Bytewax does not resume where a slot is missing."""
    assert writing.sink.list_parts() == [f"slot-{slot:02}" for slot in range(8)]
    assert [writing.sink.part_fn(lane) for lane in ("0", "9", "63")] == [0, 9, 63]


def test_a_flow_writes_through_all_slots_and_resumes(embedded: EmbeddedRedis, client: Redis, tmp_path: Path) -> None:
    """Bytewax drives the sink: lanes spread over slots, epochs end in snapshots, a second run goes on."""
    init_db_dir(tmp_path, 1)  # type: ignore[no-untyped-call]
    items = [(str(lane), result(availability(f"SKU-{lane}", 1), lane=lane)) for lane in range(20)]
    items.append(TestingSource.EOF())  # type: ignore[arg-type]  # how Bytewax's source is told to pause there
    items += [(str(lane), result(availability(f"SKU-{lane}", 2), lane=lane)) for lane in range(10)]
    for _ in range(2):
        sink = RedisAvailabilitySink(embedded.url, PREFIX, lambda: 0)
        flow = Dataflow("availability")
        op.output("redis", op.input("results", flow, TestingSource(items, 3)), sink)
        store = RecoveryConfig(str(tmp_path))  # type: ignore[no-untyped-call]
        run_main(flow, epoch_interval=timedelta(0), recovery_config=store)  # type: ignore[no-untyped-call]
    versions = [client.hget(f"avail:SKU-{lane}", "@version") for lane in range(20)]
    assert versions == [b"2"] * 10 + [b"1"] * 10
