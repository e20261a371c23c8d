"""Health over HTTP: each verdict with its reason, the metrics as Prometheus reads them, and what a server leaves."""

import itertools
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from structlog.testing import capture_logs

from flows import health
from flows.board import IN_FLIGHT_BYTES_MAX, Board
from flows.health import REQUESTS_MAX, Facts, HealthServer
from flows.measures import LATENCY_BOUNDS, Measures
from schemas.batches import Mark, Origin
from schemas.movements import Reason
from schemas.outputs import Availability, DeadLetter, LaneResult
from schemas.settings import MetricsSettings
from sinks.redis_availability import RedisCounters

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs/monitoring.md").read_text(encoding="utf-8")
RULES: list[dict[str, Any]] = yaml.safe_load((CHECKOUT / "deploy/prometheus/onhand.rules.yml").read_text())["groups"][
    0
]["rules"]
ALERTS = [rule["alert"] for rule in RULES]
TOPIC = "inventory.movements"
PROCESSES = 3
PROCESS = 1
OF_PROMETHEUS = {"up"}  # told by Prometheus itself
PROMQL_WORDS = {"by", "and", "or", "unless", "on", "ignoring", "without", "bool", "offset"}
COUNTERS = RedisCounters(written=11, refused=12, calls=13, reconnects=14, resent=15, refills=16)
SKU = Availability("SKU-1", 1, 1, "2026-11-21T09:00:00.000Z", 1, {}, {})
LETTER = DeadLetter("1", "not_json", "", "", None, None, None, None, None)


class Worker:
    """A worker process as its health sees it, well at first, with clocks that only a test moves."""

    def __init__(self) -> None:
        self.board = Board.make(PROCESSES)
        self.measures = Measures()
        self.wall_ms = 1_800_000_000_000
        self.monotonic_ms = 50_000
        self.has_rules = True
        self.board.beat(PROCESS, self.monotonic_ms)
        self.board.run(PROCESS)
        self.measures.epoch_began_ms = self.wall_ms
        self.passes_on_mark()

    def passes_on_mark(self, *, offset: int = 100, end: int = 100, record_ms: int = -1, lane: int = 0) -> None:
        """A lane passes on a mark of partition 3 that was made now."""
        self.sees(lane, marks=[Mark(Origin("c", "t", 3, TOPIC), offset, end, record_ms, self.wall_ms)])

    def sees(self, lane: int = 0, **fields: Any) -> None:  # noqa: ANN401  # any field of a result
        """A result of a lane is readable in Redis now."""
        nothing = LaneResult(lane, [], [], [], [], [], [], [], [], [], [], 0, 0, 0)
        self.measures.saw([nothing._replace(**fields)], self.wall_ms)

    def sleeps(self, seconds: float) -> None:
        """Time goes by."""
        self.wall_ms += int(seconds * 1000)
        self.monotonic_ms += int(seconds * 1000)

    def facts(self, **other: Any) -> Facts:  # noqa: ANN401  # any fact
        """What the server is told from."""
        facts: dict[str, Any] = {
            "measures": self.measures,
            "board": self.board,
            "redis": lambda: COUNTERS,
            "rules_loaded": lambda: self.has_rules,
            "monotonic_ms": lambda: self.monotonic_ms,
            "settings": MetricsSettings(),
            "snapshot_seconds": 10.0,
            "version": "1.2.3",
            "lanes": 64,
            "incarnation": 1_763_800_000,
            "commit_failures": lambda: 17,
        }
        return Facts(**{**facts, **other})

    def serving(self, listen: str = "127.0.0.1:0", *, process: int = PROCESS, **other: Any) -> HealthServer:  # noqa: ANN401
        """A server of its health, yet to be entered."""
        return HealthServer(listen, process, self.facts(**other), lambda: self.wall_ms)


class Answer(NamedTuple):
    """What a server has answered."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def says(self) -> dict[str, Any]:
        """The body, where it is JSON."""
        assert self.headers["Content-Type"] == "application/json"
        return msgspec.json.decode(self.body, type=dict[str, Any])


def asked(server: HealthServer, path: str, method: str = "GET", **headers: str) -> Answer:
    """Ask a server over HTTP."""
    connection = HTTPConnection(server.address or "", timeout=10)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return Answer(response.status, dict(response.headers), response.read().decode())
    finally:
        connection.close()


def connected(server: HealthServer) -> socket.socket:
    """A bare connection to a server."""
    host, _, port = (server.address or "").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def metrics_of(server: HealthServer) -> dict[str, Metric]:
    """The families that `/metrics` holds, by name."""
    return {family.name: family for family in read_text(asked(server, "/metrics").body)}


def samples_of(server: HealthServer) -> dict[str, float]:
    """What `/metrics` says, by name and labels as Prometheus writes them."""
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in metrics_of(server).values()
        for sample in family.samples
    }


def threads_of_health() -> list[str]:
    """The names of threads that a server has started and that still run."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("health")]


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A worker that is well."""
    made = Worker()
    yield made
    os.close(made.board.descriptor)


def sockets_open() -> int:
    """How many sockets this process holds."""
    held = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing's own
            held += str(descriptor.readlink()).startswith("socket:")
    return held


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test leaves a thread or a socket behind, nor waits for long until a server has ended."""
    monkeypatch.setattr(health, "LOOK_EVERY_SECONDS", 0.02)
    before = sockets_open()
    yield
    assert threads_of_health() == []
    assert sockets_open() == before


# /livez


def starts(worker: Worker) -> None:
    """Let a worker be one that does not read yet, and whose lanes have done nothing."""
    worker.board.clear()
    worker.measures.lanes.clear()
    worker.measures.passages.clear()


def restores(worker: Worker) -> None:
    """Let a worker be one that beat once and does not read yet."""
    starts(worker)
    worker.board.beat(PROCESS, worker.monotonic_ms)


LIFE: list[tuple[str, Callable[[Worker], None], float, bool, str]] = [
    ("beats", lambda _: None, 9.9, True, "the worker gave a sign 9.9 s ago"),
    ("beats no more", lambda _: None, 10, False, "the worker gave no sign for 10.0 s"),
    ("starts", starts, 299, True, "starting for 299 s, of at most 300 s"),
    ("restores a large state", restores, 60, True, "starting for 60 s"),
    ("never starts", starts, 300, False, "has not started within 300 s"),
    ("waits for epochs", lambda worker: setattr(worker.measures, "epoch_began_ms", 1), 0, True, "gave a sign 0.0 s"),
    ("drains", lambda worker: worker.board.ask_drain(), 0, True, "gave a sign 0.0 s ago"),
    ("was told to run before it beat", lambda worker: worker.board.beat(PROCESS, 0), 1, True, "starting for 1 s"),
]


@pytest.mark.parametrize(("change", "seconds", "live", "reason"), [c[1:] for c in LIFE], ids=[c[0] for c in LIFE])
def test_liveness_is_the_beat_of_the_worker_alone(
    worker: Worker, change: Callable[[Worker], None], seconds: float, live: object, reason: str
) -> None:
    """A worker that beats is alive, whatever stands still; one that starts has time; the reason says which it is."""
    change(worker)
    with worker.serving() as server:
        worker.sleeps(seconds)
        answer = asked(server, "/livez")
    assert answer.status == (200 if live else 503)
    assert answer.says["live"] is live
    assert reason in answer.says["reason"]


def test_a_beat_after_a_pause_is_life_again(worker: Worker) -> None:
    """Nothing is remembered against a worker."""
    with worker.serving() as server:
        worker.sleeps(60)
        assert asked(server, "/livez").status == 503
        worker.board.beat(PROCESS, worker.monotonic_ms)
        assert asked(server, "/livez").status == 200


def test_the_beat_of_another_process_is_no_sign_of_this_one(worker: Worker) -> None:
    """Each process speaks for itself."""
    with worker.serving() as server:
        worker.sleeps(60)
        worker.board.beat(0, worker.monotonic_ms)
        assert asked(server, "/livez").status == 503


# /readyz


def lags(worker: Worker) -> None:
    """Let the newest mark be of a record that is 30 s old, with more behind it."""
    worker.passes_on_mark(offset=100, end=150, record_ms=worker.wall_ms - 30_000)


def lags_less(worker: Worker) -> None:
    """As `lags`, but a little under what is allowed."""
    worker.passes_on_mark(offset=100, end=150, record_ms=worker.wall_ms - 29_999)


def forgets_marks(worker: Worker) -> None:
    """Let a worker read, but its lanes have done nothing yet."""
    worker.measures.lanes.clear()
    worker.measures.passages.clear()


def has_no_time(worker: Worker) -> None:
    """Let more wait behind a record of unknown age."""
    worker.passes_on_mark(offset=100, end=150)


def epoch_began(seconds_ago: float) -> Callable[[Worker], None]:
    """Let the epoch be that old."""
    return lambda worker: setattr(worker.measures, "epoch_began_ms", worker.wall_ms - int(seconds_ago * 1000))


READY = "the numbers in Redis are fresh"
READINESS: list[tuple[str, Callable[[Worker], None], str]] = [
    ("well", lambda _: None, READY),
    ("drains", lambda worker: worker.board.ask_drain(), "draining"),
    ("starts", starts, "still starting"),
    ("no rules", lambda worker: setattr(worker, "has_rules", False), "no rules are loaded"),
    ("no marks", forgets_marks, "it is not known yet how far the input is read"),
    ("lags", lags, f"{TOPIC}, partition 3: 30.0 s behind, ready below 30 s"),
    ("lags less", lags_less, READY),
    ("lag unknown", has_no_time, f"{TOPIC}, partition 3: inf s behind, ready below 30 s"),
    ("epoch as long as allowed", epoch_began(130), READY),
    ("epoch stands", epoch_began(131), "the epoch should have ended 121 s ago, ready up to 120 s"),
    ("no epoch yet", lambda worker: setattr(worker.measures, "epoch_began_ms", 0), READY),
]


@pytest.mark.parametrize(("change", "reason"), [case[1:] for case in READINESS], ids=[case[0] for case in READINESS])
def test_readiness_says_what_is_against_it(worker: Worker, change: Callable[[Worker], None], reason: str) -> None:
    """Each condition alone makes a process unready, with its reason; the gauge says the same."""
    change(worker)
    with worker.serving() as server:
        answer = asked(server, "/readyz")
        gauge = samples_of(server)["onhand_ready"]
    assert answer.status == (200 if reason == READY else 503)
    assert answer.says == {"ready": reason == READY, "reason": reason}
    assert gauge == answer.says["ready"]


def test_a_process_that_reads_no_partition_runs_by_what_its_lanes_do(worker: Worker) -> None:
    """With fewer partitions than processes some only compute: ready like the others, and dead when they hang."""
    worker.board.clear()
    worker.board.beat(PROCESS, worker.monotonic_ms)
    with worker.serving() as server:
        assert asked(server, "/readyz").status == 200
        assert samples_of(server)["onhand_running"] == 1
        worker.sleeps(10)
        assert asked(server, "/livez").status == 503


def test_the_partition_that_is_furthest_behind_decides(worker: Worker) -> None:
    """The reason names it, however fresh the others are."""
    for partition, age_ms in ((0, 0), (5, 70_000), (7, 40_000)):
        mark = Mark(Origin("c", "t", partition, TOPIC), 1, 2, worker.wall_ms - age_ms, worker.wall_ms)
        worker.sees(marks=[mark])
    with worker.serving() as server:
        assert asked(server, "/readyz").says["reason"].startswith(f"{TOPIC}, partition 5: 70.0 s behind")


def test_all_reasons_are_told_at_once(worker: Worker) -> None:
    """Nobody has to clear one to see the next."""
    lags(worker)
    worker.has_rules = False
    worker.board.ask_drain()
    epoch_began(1000)(worker)
    with worker.serving() as server:
        reasons = asked(server, "/readyz").says["reason"].split("; ")
    assert [reason.split()[0] for reason in reasons] == ["draining", "no", f"{TOPIC},", "the"]


def test_readiness_goes_when_nothing_is_heard_any_more(worker: Worker) -> None:
    """A silent broker, or a Redis that does not answer, stops the marks; what was read grows old after 3 s."""
    with worker.serving() as server:
        worker.sleeps(32.9)
        assert asked(server, "/readyz").status == 200
        worker.sleeps(0.1)
        assert asked(server, "/readyz").says["reason"].startswith(f"{TOPIC}, partition 3: 30.0 s behind")
        worker.passes_on_mark()
        assert asked(server, "/readyz").status == 200


def test_one_lane_that_hangs_behind_makes_a_process_unready(worker: Worker) -> None:
    """What counts is the lane that has passed on the oldest mark."""
    worker.passes_on_mark(lane=1)
    with worker.serving() as server:
        worker.sleeps(40)
        worker.passes_on_mark(lane=0)
        assert asked(server, "/readyz").status == 503
        worker.passes_on_mark(lane=1)
        assert asked(server, "/readyz").status == 200


def test_bounds_of_readiness_are_settings(worker: Worker) -> None:
    """Who needs fresher or can bear older numbers says so."""
    lags(worker)
    epoch_began(131)(worker)
    generous = MetricsSettings(ready_lag_seconds=31, ready_epoch_seconds=122)
    with worker.serving(settings=generous) as server:
        assert asked(server, "/readyz").status == 200


# /metrics


def test_metrics_say_what_was_counted(worker: Worker) -> None:
    """Each reading stands under its name, with its labels."""
    measures = worker.measures
    worker.sees(applied=5, duplicates=2, misplaced=3, dead_letters=[LETTER, LETTER])
    worker.passes_on_mark(offset=100, end=150, record_ms=worker.wall_ms - 7000)
    measures.epochs, measures.snapshot_bytes, measures.snapshot_seconds = 4, 4096, 0.25
    measures.positions = {0: 30, 1: 12}
    worker.board.sent(2, 1000)
    worker.board.applied(0, 2, 300)
    worker.board.beat(2, worker.monotonic_ms - 12_000)
    with worker.serving() as server:
        worker.sleeps(2.5)
        said = samples_of(server)
    assert {name: value for name, value in said.items() if name in EXPECTED} == EXPECTED
    assert "onhand_beat_age_seconds process=0" not in said  # never gave a sign


EXPECTED = {
    "onhand_build_info incarnation=1763800000 lanes=64 version=1.2.3": 1,
    "onhand_running": 1,
    "onhand_draining": 0,
    "onhand_ready": 1,
    "onhand_beat_age_seconds process=1": 2.5,
    "onhand_beat_age_seconds process=2": 14.5,
    f"onhand_lag_seconds partition=3 topic={TOPIC}": 7,
    f"onhand_lag_messages partition=3 topic={TOPIC}": 50,
    "onhand_epoch_age_seconds": 2.5,
    "onhand_epoch_interval_seconds": 10,
    "onhand_epochs_total": 4,
    "onhand_snapshot_bytes": 4096,
    "onhand_snapshot_seconds": 0.25,
    "onhand_positions": 42,
    "onhand_movements_applied_total": 5,
    "onhand_duplicates_total": 2,
    "onhand_misplaced_total": 3,
    "onhand_dead_letters_total reason=not_json": 2,
    "onhand_dead_letters_total reason=too_deep": 0,
    "onhand_redis_skus_written_total": 11,
    "onhand_redis_skus_refused_total": 12,
    "onhand_redis_calls_total": 13,
    "onhand_redis_reconnects_total": 14,
    "onhand_redis_calls_resent_total": 15,
    "onhand_redis_refills_total": 16,
    "onhand_group_commit_failures_total": 17,
    "onhand_reader_in_flight_bytes slot=2": 700,
    "onhand_reader_in_flight_bytes slot=7": 0,
}


def test_a_lag_of_unknown_length_is_infinite(worker: Worker) -> None:
    """No bound of an alert lets it pass."""
    has_no_time(worker)
    with worker.serving() as server:
        assert samples_of(server)[f"onhand_lag_seconds partition=3 topic={TOPIC}"] == float("inf")


def test_what_is_not_known_is_left_out(worker: Worker) -> None:
    """No number stands for what has not happened, and offsets that count nothing are no messages."""
    worker.board.clear()
    worker.measures.epoch_began_ms = 0
    with worker.serving(offsets_count=False) as server:
        said = samples_of(server)
    absent = ("onhand_beat_age_seconds", "onhand_epoch_age_seconds", "onhand_lag_messages")
    assert [name for name in said if name.startswith(absent)] == []
    assert f"onhand_lag_seconds partition=3 topic={TOPIC}" in said


def test_every_reason_is_there_before_its_first_dead_letter(worker: Worker) -> None:
    """Prometheus sees an increase from 0 to 1, none from nothing to 1; a reason of no enum is told, too."""
    worker.sees(dead_letters=[msgspec.structs.replace(LETTER, reason="of_tomorrow")])
    with worker.serving() as server:
        letters = metrics_of(server)["onhand_dead_letters"].samples
    assert {sample.labels["reason"] for sample in letters} == {*Reason, "of_tomorrow"}


def test_the_histogram_holds_how_many_took_at_most_so_long(worker: Worker) -> None:
    """Buckets add up from the least to all, and the sum is that of the times."""
    for took_ms in (1, 1, 40, 2000, 90_000):
        worker.sees(oldest_ms=worker.wall_ms - took_ms, availability=[SKU])
    with worker.serving() as server:
        family = metrics_of(server)["onhand_publish_latency_seconds"]
    buckets = {float(sample.labels["le"]): sample.value for sample in family.samples if "le" in sample.labels}
    assert list(buckets) == [*LATENCY_BOUNDS, float("inf")]
    assert [buckets[bound] for bound in (0.001, 0.02, 0.05, 1.0, 2.0, 60.0, float("inf"))] == [2, 2, 3, 3, 4, 4, 5]
    rest = {sample.name.rpartition("_")[2]: sample.value for sample in family.samples if "le" not in sample.labels}
    assert rest == {"count": 5, "sum": pytest.approx(92.042)}


def test_metrics_follow_the_conventions_of_prometheus(worker: Worker) -> None:
    """Names begin with onhand, counters end with _total; each has a help text that is a sentence."""
    with worker.serving() as server:
        ours = [family for name, family in metrics_of(server).items() if name.startswith("onhand")]
        others = {name for name in metrics_of(server) if not name.startswith("onhand")}
    assert {name.partition("_")[0] for name in others} == {"process"}
    for family in ours:
        assert re.fullmatch(r"onhand(_[a-z]+)+", family.name)
        assert family.documentation.endswith("."), family.name
        assert len(family.documentation) > 20, family.name
        if family.type == "counter":
            assert {sample.name for sample in family.samples} == {f"{family.name}_total"}


def test_metrics_come_in_the_open_format_too(worker: Worker) -> None:
    """Whoever accepts OpenMetrics gets it, as strict as that is."""
    with worker.serving() as server:
        answer = asked(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
        plain = asked(server, "/metrics")
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert plain.headers["Content-Type"].startswith("text/plain; version=")
    families = list(read_openmetrics(answer.body))  # type: ignore[no-untyped-call]  # as prometheus-client has it
    assert {family.name for family in families} >= {"onhand_build", "onhand_dead_letters"}


def test_counts_are_read_when_they_are_asked_for(worker: Worker) -> None:
    """Nothing is kept between two looks."""
    with worker.serving() as server:
        before = samples_of(server)["onhand_movements_applied_total"]
        worker.sees(applied=5)
        assert samples_of(server)["onhand_movements_applied_total"] == before + 5


# HTTP


@pytest.mark.parametrize("path", ["/", "/metrics/", "/livez/x", "/LIVEZ", "//", "/%00", "/..%2flivez"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_paths_are_not_found(worker: Worker, path: str, method: str) -> None:
    """The answer says what there is."""
    with worker.serving() as server:
        answer = asked(server, path, method)
    assert (answer.status, answer.says) == (404, {"error": "there is /livez, /readyz and /metrics"})


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "NONSENSE"])
def test_nothing_can_be_changed(worker: Worker, path: str, method: str) -> None:
    """Other methods than GET and HEAD are not allowed, and the answer says which are."""
    with worker.serving() as server:
        answer = asked(server, path, method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert answer.says == {"error": f"{path} is read with GET or HEAD"}


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/nowhere"])
def test_head_is_get_without_its_body(worker: Worker, path: str) -> None:
    """Status and length are those of GET."""
    worker.board.ask_drain()
    with worker.serving() as server:
        head, nothing, get = *told_raw(server, f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()), asked(server, path)
    assert head.startswith(f"HTTP/1.0 {get.status} ".encode())
    assert nothing == b""
    assert int(get.headers["Content-Length"]) == len(get.body.encode())
    if path != "/metrics":  # whose processor time may be a digit longer by then
        assert f"\r\nContent-Length: {len(get.body)}\r\n".encode() in head


def told_raw(server: HealthServer, sent: bytes) -> tuple[bytes, bytes]:
    """What comes back for these bytes until the server ends the connection: head and body."""
    with connected(server) as client:
        client.sendall(sent)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


def test_a_query_changes_nothing(worker: Worker) -> None:
    """Kubernetes' `?verbose` and the like are passed over."""
    with worker.serving() as server:
        assert asked(server, "/livez?verbose=1").status == 200


def test_a_connection_ends_with_its_answer(worker: Worker) -> None:
    """Nobody keeps one open by asking for it."""
    asking = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"
    with worker.serving() as server:
        head, body = told_raw(server, asking + asking)
    assert head.startswith(b"HTTP/1.0 200 OK\r\n")
    assert body.count(b"live") == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\r\n", b""),
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x00\xff\r\n", b"400"),
        (b"GET /livez HTTP/9.9\r\n\r\n", b"505"),
        (b"GET /livez HTTP/1.1\r\n" + b"x: y\r\n" * 101 + b"\r\n", b"431"),
        (b"GET /" + b"x" * 65_532, b"414"),
    ],
)
def test_what_is_no_good_http_does_no_harm(
    worker: Worker, sent: bytes, status: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is refused or dropped, without a word in the log, and the next one is answered."""
    with worker.serving() as server, capture_logs() as logs:
        head, body = told_raw(server, sent)
        assert status in head + body
        assert bool(status) == bool(head + body)
        assert asked(server, "/livez").status == 200
    assert logs == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("sent", [b"", b"GET /li", b"GET /livez HTTP/1.1\r\nHost: x\r\n"])
def test_a_client_that_stops_half_way_is_let_go(worker: Worker, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection ends soon, and others are answered meanwhile."""
    monkeypatch.setattr(health, "REQUEST_SECONDS_MAX", 0.2)
    with worker.serving() as server, connected(server) as client:
        client.sendall(sent)
        assert asked(server, "/livez").status == 200
        assert client.recv(1) == b""


def test_a_client_that_dribbles_is_cut_off(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then does not keep a thread for ever."""
    monkeypatch.setattr(health, "REQUEST_SECONDS_MAX", 0.5)
    with worker.serving() as server, connected(server) as client:
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            dribble(client, 5)
        assert asked(server, "/livez").status == 200


def dribble(client: socket.socket, seconds: float) -> None:
    """Send a byte now and then."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        client.sendall(b"x")
        time.sleep(0.05)


def test_many_who_hang_do_not_keep_probes_out_for_long(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many are listened to at a time; those beyond are closed at once, until there is room again."""
    monkeypatch.setattr(health, "REQUEST_SECONDS_MAX", 0.5)
    with worker.serving() as server:
        clients = [connected(server) for _ in range(REQUESTS_MAX)]
        with connected(server) as beyond:
            assert beyond.recv(1) == b""
        assert len(threads_of_health()) == REQUESTS_MAX + 1
        for client in clients:
            assert client.recv(1) == b""
            client.close()
        deadline = time.monotonic() + 5
        while len(threads_of_health()) > 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(5 * health.LOOK_EVERY_SECONDS)
        assert asked(server, "/livez").status == 200


def test_many_ask_at_once_while_the_worker_works(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are answered whole, while partitions, reasons and lanes are being added."""
    monkeypatch.setattr(health, "REQUEST_SECONDS_MAX", 60)  # all of them and the worker share one interpreter
    done = threading.Event()

    def work() -> None:
        for number in itertools.count():
            mark = Mark(Origin("c", "t", number % 500, TOPIC), 1, 1, -1, worker.wall_ms)
            letter = msgspec.structs.replace(LETTER, reason=f"reason-{number % 500}")
            worker.sees(number % 64, applied=1, marks=[mark], dead_letters=[letter])
            worker.measures.positions[number % 64] = number
            if done.wait(0.0005):
                return

    paths = ["/livez", "/readyz", "/metrics"] * 20
    with worker.serving() as server:
        working = threading.Thread(target=work)
        working.start()
        try:
            with ThreadPoolExecutor(8) as pool:
                asking = [f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths]
                answers = list(pool.map(lambda sent: told_raw(server, sent), asking))
        finally:
            done.set()
            working.join()
    assert {head.partition(b"\r\n")[0] for head, _ in answers} == {b"HTTP/1.0 200 OK"}
    for _, body in answers[2::3]:
        assert "onhand_reader_in_flight_bytes" in {family.name for family in read_text(body.decode())}


def test_a_fault_inside_is_told_and_answered(worker: Worker, capfd: pytest.CaptureFixture[str]) -> None:
    """A probe that cannot be answered fails, and the log holds why; the server goes on."""

    def broken() -> RedisCounters:
        raise ZeroDivisionError

    with worker.serving(redis=broken) as server, capture_logs() as logs:
        answer = asked(server, "/metrics")
        assert asked(server, "/livez").status == 200
    assert (answer.status, answer.says) == (500, {"error": "this is a fault of onhand, its log tells more"})
    assert [entry["log_level"] for entry in logs] == ["error"]
    assert logs[0]["exc_info"][0] is ZeroDivisionError
    assert "Traceback" not in capfd.readouterr().err


# Where it listens


def free_port() -> int:
    """A port on which, and on the next one, nobody listens."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
            try:
                with socket.create_server(("127.0.0.1", port + 1)):
                    return port
            except (OSError, OverflowError):
                continue


def test_each_process_listens_on_a_port_of_its_own(worker: Worker) -> None:
    """The first one's is the setting's, the next one's follows."""
    port = free_port()
    listen = f"127.0.0.1:{port}"
    with worker.serving(listen, process=0) as first, worker.serving(listen, process=1) as second:
        assert (first.address, second.address) == (listen, f"127.0.0.1:{port + 1}")
        assert asked(first, "/livez").says["reason"].startswith("starting")  # process 0 gave no sign yet
        assert asked(second, "/livez").says["reason"].startswith("the worker gave a sign")


def test_any_free_port_is_found_for_each_process(worker: Worker) -> None:
    """Port 0 is free for every process, and the address says which it became."""
    with worker.serving(process=0) as first, worker.serving(process=2) as second, worker.serving(process=2) as third:
        assert {asked(server, "/livez").status for server in (first, second, third)} == {200}
        assert len({first.address, second.address, third.address}) == 3


def test_it_listens_on_ipv6(worker: Worker) -> None:
    """An address in brackets."""
    with worker.serving("[::1]:0") as server:
        assert re.fullmatch(r"\[::1\]:\d+", server.address or "")
        assert asked(server, "/livez").status == 200


def test_an_empty_address_serves_nothing(worker: Worker) -> None:
    """No thread, no port, no word."""
    with capture_logs() as logs, worker.serving("") as server:
        assert server.address is None
        assert threads_of_health() == []
    assert logs == []


def test_a_port_in_use_is_a_warning_and_no_end(worker: Worker) -> None:
    """The worker goes on without, and the log says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1] - PROCESS}"
        with capture_logs() as logs, worker.serving(listen) as server:
            assert server.address is None
    assert [(entry["log_level"], entry["listen"], entry["process"]) for entry in logs] == [("warning", listen, PROCESS)]
    assert "in use" in logs[0]["error"]
    assert "[metrics] listen" in logs[0]["event"]


@pytest.mark.parametrize(
    "listen",
    [
        "9464",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:99999",
        "127.0.0.1:65535",
        "::1:9464",
        "[::1:9464",
        "http://127.0.0.1:9464",
        "127.0.0.1:9464/metrics",
        "me@127.0.0.1:9464",
        ":9464",
        "192.0.2.1:9464",
        "a..b:9464",
    ],
)
def test_an_address_of_no_use_is_a_warning_too(worker: Worker, listen: str) -> None:
    """Nothing that stands in the setting ends a worker."""
    with capture_logs() as logs, worker.serving(listen) as server:
        assert server.address is None
    assert [(entry["log_level"], entry["listen"]) for entry in logs] == [("warning", listen)]


def test_the_address_is_free_again_at_once(worker: Worker) -> None:
    """A worker that is started again finds its port, also just after somebody was answered on it."""
    listen = f"127.0.0.1:{free_port() - PROCESS}"
    for _ in range(3):
        with capture_logs() as logs, worker.serving(listen) as server:
            assert asked(server, "/livez").status == 200
        assert [entry["log_level"] for entry in logs] == ["info"]


def test_leaving_does_not_wait_for_clients(worker: Worker) -> None:
    """Whoever is connected when a worker ends is cut off."""
    with worker.serving() as server:
        client = connected(server)
        client.sendall(b"GET /livez")
        deadline = time.monotonic() + 5
        while len(threads_of_health()) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        began = time.monotonic()
    assert time.monotonic() - began < 4
    assert server.address is None
    assert threads_of_health() == []
    assert client.recv(1) == b""
    client.close()


def test_an_error_inside_goes_through(worker: Worker) -> None:
    """The server ends with its worker and hides nothing."""
    with pytest.raises(ZeroDivisionError), worker.serving():
        raise ZeroDivisionError


# What is written about it


def names_in(expression: str) -> set[str]:
    """The names of metrics in a PromQL expression."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(?:by|on|without|ignoring)\s*\([^)]*\)", " ", expression)
    words = re.findall(r"[a-zA-Z_:][\w:]*(?!\w*\s*\()", bare)
    return set(words) - PROMQL_WORDS


@pytest.fixture
def served(worker: Worker) -> set[str]:
    """The names of all samples, where everything is there."""
    with worker.serving() as server:
        return {sample.name for family in metrics_of(server).values() for sample in family.samples}


@pytest.mark.parametrize("rule", RULES, ids=ALERTS)
def test_an_alert_looks_at_metrics_that_are_served(rule: dict[str, Any], served: set[str]) -> None:
    """Each rule has an expression over our names, says how bad it is, and what happened."""
    names = names_in(rule["expr"])
    assert names
    assert names <= served | OF_PROMETHEUS
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description"}
    assert re.fullmatch(r"\d+[sm]", rule.get("for", "0s"))


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (job, le) (rate(a_total{job="b"}[5m])) > 0.25 * c', {"a_total", "c"}),
        ("a - b > 60 and on (job) absent(d)", {"a", "b", "d"}),
    ],
)
def test_names_are_found_in_expressions(expression: str, names: set[str]) -> None:
    """The check above sees names, and neither functions nor labels."""
    assert names_in(expression) == names


def rows_under(heading: str) -> list[list[str]]:
    """The rows of the table in a section of the page, without its head."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_metric_is_documented_and_no_other(served: set[str]) -> None:
    """The table names what is served; of a histogram its family."""
    documented = {name for row in rows_under("Metrics") for name in re.findall(r"`([^`]+)`", row[0])}
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in served} == documented


def test_every_alert_is_documented_and_no_other() -> None:
    """Whoever is woken finds what to do."""
    assert [row[0].strip("`") for row in rows_under("Alerts")] == ALERTS


def test_the_page_names_the_bounds_of_the_code() -> None:
    """Seconds and bytes are written as the code has them."""
    text = " ".join(PAGE.split())
    assert f"gave a sign within the last {health.BEAT_SECONDS_MAX:g} s" in text
    assert f"starting for at most {health.START_SECONDS_MAX:g} s" in text
    assert f"pauses at {IN_FLIGHT_BYTES_MAX >> 20} MiB" in text


def yaml_blocks() -> list[dict[str, Any]]:
    """The YAML examples of the page."""
    return [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)]


def test_the_probes_shown_ask_paths_that_are_served(worker: Worker) -> None:
    """Examples for Kubernetes are YAML, and their paths and port those of the setting beside them."""
    shown, _, _ = yaml_blocks()
    port = int(shown["env"][0]["value"].rpartition(":")[2])
    with worker.serving() as server:
        for probe in ("livenessProbe", "readinessProbe"):
            assert shown[probe]["httpGet"]["port"] == port
            assert asked(server, shown[probe]["httpGet"]["path"]).status == 200


def test_the_probe_of_several_workers_fails_when_one_hangs(worker: Worker) -> None:
    """The script on the page ends well when all are alive, and with an error otherwise."""
    _, shown, _ = yaml_blocks()
    python, option, script = shown["livenessProbe"]["exec"]["command"]
    assert (python, option) == ("python", "-c")
    port = free_port()
    script = script.replace("(9464, 9465)", f"({port}, {port + 1})")
    listen = f"127.0.0.1:{port}"
    with worker.serving(listen, process=0), worker.serving(listen, process=1):
        exec(script, {})  # noqa: S102  # as the kubelet does
        worker.sleeps(60)
        with pytest.raises(OSError, match="503"):
            exec(script, {})  # noqa: S102
    assert json.dumps(shown)  # nothing in it that Kubernetes could not read
