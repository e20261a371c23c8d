"""The Redis stream source against a real Redis: what it reads, where it goes on, and which losses it notices."""

from collections.abc import Callable, Iterator

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, run_main
from redis import Redis

from bench.servers import RedisServer, free_port
from schemas.batches import Batch, CaughtUp, Mark, Origin, Wake
from sources.errors import SourceError
from sources.pace import LOOK_AGAIN_MS
from sources.redis_stream import RedisStreamReading, RedisStreamSource, StreamState
from sources.states import sealed

STREAM = "movements"
_DRIVES: "list[Drive]" = []


class Drive:
    """Runs the source's part by hand, as Bytewax would, with a clock of its own."""

    def __init__(
        self,
        url: str,
        state: StreamState | None = None,
        batch_entries_max: int = 1000,
        *,
        accept_truncated: bool = False,
    ) -> None:
        self.clock_ms = 0
        reading = RedisStreamReading(
            url=url, stream=STREAM, batch_entries_max=batch_entries_max, accept_truncated=accept_truncated
        )
        source = RedisStreamSource(reading, now_ms=lambda: self.clock_ms, draining=lambda: False)
        self.part = source.build_part("movements", "stream", state)
        _DRIVES.append(self)

    def read(self) -> list[Batch]:
        """What one call gives, without marks."""
        return [item for item in self.part.next_batch() if isinstance(item, Batch)]

    def payloads(self) -> list[bytes | None]:
        """All that there is to read now."""
        found: list[bytes | None] = []
        while batches := self.read():
            found.extend(payload for batch in batches for payload in batch.payloads)
        return found


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """What a test has opened is closed."""
    yield
    while _DRIVES:
        _DRIVES.pop().part.close()


def add(client: Redis, first: int, end: int) -> None:
    """Add entries with the ids first-0 to (end-1)-0."""
    for number in range(first, end):
        client.xadd(STREAM, {"payload": b"%d" % number}, id=f"{number}-0")


def numbers(first: int, end: int) -> list[bytes]:
    """Payloads as `add` writes them."""
    return [b"%d" % number for number in range(first, end)]


def test_entries_become_messages(redis: Redis, redis_server: RedisServer) -> None:
    """Fields, ids and the header arrive as they are; an entry without a payload has None there."""
    redis.xadd(STREAM, {"payload": b"{}", "key": "SKU-1", "traceparent": "00-a"}, id="1700000000000-0")
    redis.xadd(STREAM, {"other": b"?"}, id="1700000000000-3")
    (batch,) = Drive(redis_server.url).read()
    assert batch.origin == Origin("redis", STREAM, 0, STREAM)
    assert batch.offsets == [1700000000000 << 20, (1700000000000 << 20) + 3]
    assert batch.timestamps == [1700000000000, 1700000000000]
    assert batch.keys == [b"SKU-1", None]
    assert batch.payloads == [b"{}", None]
    assert batch.headers == [[("traceparent", b"00-a")], None]


def test_a_resumed_stream_gives_exactly_the_rest(redis: Redis, redis_server: RedisServer) -> None:
    """Batches are bounded, headers are None where there are none, and a new run goes on behind the snapshot."""
    add(redis, 1, 6)
    drive = Drive(redis_server.url, batch_entries_max=2)
    (batch,) = drive.read()
    assert (batch.payloads, batch.headers) == (numbers(1, 3), None)
    state = drive.part.snapshot()
    assert Drive(redis_server.url, state).payloads() == numbers(3, 6)
    assert drive.payloads() == numbers(3, 6)


def test_a_stream_that_is_not_there_yet_is_waited_for(redis: Redis, redis_server: RedisServer) -> None:
    """No stream is an empty one: it is read when its first entry comes."""
    drive = Drive(redis_server.url)
    assert drive.payloads() == []
    add(redis, 1, 3)
    assert drive.payloads() == numbers(1, 3)


def test_marks_tell_position_and_end(redis: Redis, redis_server: RedisServer) -> None:
    """A mark holds the next offset, the stream's end, and the last entry's time."""
    add(redis, 1, 6)
    drive = Drive(redis_server.url, batch_entries_max=2)
    (before,) = drive.part.marks(7)
    drive.read()
    (after,) = drive.part.marks(8)
    assert before[1:] == (1, (5 << 20) + 1, -1, 7, 1)
    assert after[1:] == ((2 << 20) + 1, (5 << 20) + 1, 2, 8, 1)


def test_it_has_caught_up_with_what_was_there_when_it_was_first_looked_at(
    redis: Redis, redis_server: RedisServer
) -> None:
    """What came later does not count."""
    add(redis, 1, 4)
    drive = Drive(redis_server.url, batch_entries_max=2)
    add(redis, 4, 8)
    assert not drive.part.has_caught_up()
    drive.read()
    assert not drive.part.has_caught_up()
    drive.read()
    assert drive.part.has_caught_up()


@pytest.mark.parametrize("read", [2, 5])
def test_trimming_what_was_read_is_no_loss(redis: Redis, redis_server: RedisServer, read: int) -> None:
    """Exactly the entries read may go, whether or not others are left behind them."""
    add(redis, 1, 6)
    drive = Drive(redis_server.url, batch_entries_max=read)
    drive.read()
    redis.xtrim(STREAM, minid=f"{read + 1}-0", approximate=False)
    assert Drive(redis_server.url, drive.part.snapshot()).payloads() == numbers(read + 1, 6)
    assert drive.payloads() == numbers(read + 1, 6)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_trimming_what_was_not_read_stops(redis: Redis, redis_server: RedisServer, kept: int) -> None:
    """One entry trimmed away unread is noticed, while running and at the next start, also when nothing is left."""
    add(redis, 1, 6)
    drive = Drive(redis_server.url, batch_entries_max=2)
    drive.read()
    state = drive.part.snapshot()
    redis.xtrim(STREAM, maxlen=kept, approximate=False)
    with pytest.raises(SourceError, match=rf"{3 - kept} entries behind 2-0 were trimmed or deleted"):
        drive.payloads()
    with pytest.raises(SourceError, match=rf"{3 - kept} entries behind 2-0 were trimmed or deleted"):
        Drive(redis_server.url, state)


def test_a_trimmed_stream_is_begun_only_where_that_is_accepted(redis: Redis, redis_server: RedisServer) -> None:
    """Stock computed from the rest would be wrong, unless somebody says that it is not."""
    add(redis, 1, 6)
    redis.xtrim(STREAM, maxlen=3, approximate=False)
    with pytest.raises(SourceError, match=r"2 entries were trimmed or deleted.*--accept-truncated"):
        Drive(redis_server.url)
    drive = Drive(redis_server.url, batch_entries_max=1, accept_truncated=True)
    assert drive.read()[0].payloads == numbers(3, 4)
    redis.xtrim(STREAM, maxlen=1, approximate=False)
    with pytest.raises(SourceError, match="1 entries behind 3-0 were trimmed or deleted"):
        drive.read()


def test_entries_deleted_one_by_one_are_not_taken_for_trimming_later(redis: Redis, redis_server: RedisServer) -> None:
    """A deleted entry in the middle gives no message, and trimming everything after it was read is no loss."""
    add(redis, 1, 6)
    drive = Drive(redis_server.url, batch_entries_max=1)
    drive.read()
    redis.xdel(STREAM, "3-0", "4-0")
    assert drive.payloads() == [b"2", b"5"]
    redis.xtrim(STREAM, maxlen=0)
    assert drive.payloads() == []
    add(redis, 6, 8)
    assert drive.payloads() == numbers(6, 8)


@pytest.mark.parametrize(("first", "end"), [(1, 4), (1, 10), (100, 103)])
def test_a_stream_made_anew_stops(redis: Redis, redis_server: RedisServer, first: int, end: int) -> None:
    """A stream deleted and begun again is noticed by smaller ids, even when it is longer, and by fewer entries."""
    add(redis, 11, 16)
    drive = Drive(redis_server.url)
    drive.payloads()
    state = drive.part.snapshot()
    redis.delete(STREAM)
    add(redis, first, end)
    with pytest.raises(SourceError, match=f"stream {STREAM} went backwards"):
        drive.read()
    with pytest.raises(SourceError, match=f"stream {STREAM} went backwards"):
        Drive(redis_server.url, state)


@pytest.mark.parametrize("entry_id", [f"5-{2**20}", f"{2**43}-0"])
def test_an_id_that_fits_no_offset_is_refused(redis: Redis, redis_server: RedisServer, entry_id: str) -> None:
    """Offsets are one number of 63 bits; an id beyond that is an error, not another entry's offset."""
    redis.xadd(STREAM, {"payload": b"{}"}, id=entry_id)
    with pytest.raises(SourceError, match=f"the entry id {entry_id} is out of range"):
        Drive(redis_server.url)


def test_a_key_that_is_no_stream_is_an_error(redis: Redis, redis_server: RedisServer) -> None:
    """What is wrong is said in Redis' own words."""
    redis.set(STREAM, "x")
    with pytest.raises(SourceError, match=f"{STREAM} cannot be read .WRONGTYPE"):
        Drive(redis_server.url)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{port}/0", "nonsense://x"])
def test_a_redis_out_of_reach_is_an_error(url: str) -> None:
    """Nobody there, or no address at all, is an error in one line that names the setting."""
    with pytest.raises(SourceError, match=r"\[redis\] url"):
        Drive(url.format(port=free_port()))


def test_wrong_credentials_and_missing_rights_are_errors(redis: Redis, redis_server: RedisServer) -> None:
    """A password that is refused, and a user who may not read the stream, are told apart from silence."""
    add(redis, 1, 2)
    redis.acl_setuser("reader", enabled=True, passwords=["+right"], commands=["+ping"], keys=["*"])
    try:
        address = f"127.0.0.1:{redis_server.port}/0"
        with pytest.raises(SourceError, match="refused the connection"):
            Drive(f"redis://reader:wrong@{address}")
        with pytest.raises(SourceError, match=f"{STREAM} cannot be read .*permissions"):
            Drive(f"redis://reader:right@{address}")
    finally:
        redis.acl_deluser("reader")


def test_reading_goes_on_after_redis_was_away_and_stops_when_it_stays_away() -> None:
    """A restart interrupts reading and loses nothing; an absence beyond the bound is an error."""
    with RedisServer({"appendfsync": "always"}) as server:
        with Redis.from_url(server.url) as client:
            add(client, 1, 4)
        drive = Drive(server.url, batch_entries_max=2)
        drive.read()
        server.stop()
        assert drive.read() == []
        first_wait_ms = drive.part.look_again_ms
        assert drive.read() == []
        assert first_wait_ms < drive.part.look_again_ms <= 250
        server.start()
        assert drive.payloads() == numbers(3, 4)
        assert drive.part.look_again_ms == LOOK_AGAIN_MS
        server.kill()
        drive.clock_ms = 1_000
        assert drive.read() == []
        drive.clock_ms = 121_000
        assert drive.read() == []
        drive.clock_ms = 121_001
        with pytest.raises(SourceError, match="Redis did not answer for 120 s"):
            drive.read()


def _read_by_flow(url: str, expected: int) -> list[Batch | Mark | Wake | CaughtUp]:
    items: list[Batch | Mark | Wake | CaughtUp] = []

    def all_read() -> bool:
        return sum(len(item.offsets) for item in items if isinstance(item, Batch)) == expected

    source = RedisStreamSource(RedisStreamReading(url=url, stream=STREAM), now_ms=lambda: 0, draining=all_read)
    flow = Dataflow("streamed")
    op.output("out", op.input("in", flow, source), TestingSink(items))
    run_main(flow)  # type: ignore[no-untyped-call]  # as Bytewax has it
    return items


def test_a_drain_ends_the_flow_with_a_mark(redis: Redis, redis_server: RedisServer) -> None:
    """In a real flow: draining ends it, and the last item tells how far it was read."""
    add(redis, 1, 6)
    last = _read_by_flow(redis_server.url, 5)[-1]
    assert isinstance(last, Mark)
    assert last.offset == (5 << 20) + 1


@pytest.mark.parametrize("change", [{"format": 2}, {"stream": "other"}])
def test_a_state_of_another_stream_or_format_is_refused(redis_server: RedisServer, change: dict[str, object]) -> None:
    """A position means nothing in another stream."""
    state: StreamState = {"format": 1, "stream": STREAM, "offset": 0, "entries_read": 0}
    state.update(change)  # type: ignore[typeddict-item]  # wrong on purpose
    with pytest.raises(SourceError, match="the state was"):
        Drive(redis_server.url, sealed(state))


@pytest.mark.parametrize("protocol", [2, 3])
def test_both_protocols_give_the_same(redis: Redis, redis_server: RedisServer, protocol: int) -> None:
    """A url that asks for one protocol or the other changes nothing."""
    add(redis, 1, 4)
    make: Callable[[], Drive] = lambda: Drive(f"{redis_server.url}?protocol={protocol}")  # noqa: E731
    assert make().payloads() == numbers(1, 4)
