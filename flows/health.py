"""Health of one worker process over HTTP: whether it is alive, whether it is ready, and what it has counted."""

import json
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from socketserver import TCPServer
from threading import Thread
from types import TracebackType
from typing import IO, Any, Final, NamedTuple, Self, cast
from urllib.parse import urlsplit
from wsgiref.handlers import SimpleHandler
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from flows.board import IN_FLIGHT_BYTES_MAX, READER_SLOTS, Board
from flows.measures import LATENCY_BOUNDS, Measures
from schemas.movements import Reason
from schemas.settings import MetricsSettings
from sinks.redis_availability import RedisCounters, age_of

BEAT_SECONDS_MAX: Final = 10.0
START_SECONDS_MAX: Final = 300.0
REQUEST_SECONDS_MAX: Final = 5.0  # from accepted to answered, however slow the client; then the connection is cut
REQUESTS_MAX: Final = 32  # at a time; further ones are closed unanswered
LOOK_EVERY_SECONDS: Final = 0.25  # for requests that take too long, and for the end
LINE_BYTES_MAX: Final = 65_536
PORT_MAX: Final = 65_535
READS: Final = ("GET", "HEAD")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the health of one worker process is told from; only read, and only when somebody asks.

    The callables are called in threads of the server, beside the worker's, and must not wait. `board` holds the beats
    and whether the process runs and drains: a worker beats before it says that it runs. `monotonic_ms` is the clock of
    those beats. `rules_loaded` says whether the lanes have rules to go by. `snapshot_seconds` is how long an epoch
    lasts when all is well. `offsets_count` is False where the difference of two offsets is no number of messages (a
    Redis stream): the lag is told in seconds alone then.
    """

    measures: Measures
    board: Board
    redis: Callable[[], RedisCounters]
    rules_loaded: Callable[[], bool]
    monotonic_ms: Callable[[], int]
    settings: MetricsSettings
    snapshot_seconds: float
    version: str
    lanes: int
    incarnation: int
    commit_failures: Callable[[], int] = lambda: 0  # of the Kafka source
    offsets_count: bool = True


class Verdict(NamedTuple):
    """Yes or no, and why."""

    good: bool
    reason: str


class Health:
    """Judges `facts` of process number `process`; `now_ms` is the wall clock in ms since 1970."""

    def __init__(self, process: int, facts: Facts, now_ms: Callable[[], int]) -> None:
        self.process = process
        self.facts = facts
        self._now_ms = now_ms
        self._began_ms = facts.monotonic_ms()

    def liveness(self) -> Verdict:
        """Whether the worker's thread has given a sign lately, or is still starting."""
        beat_age = self.beat_ages_seconds().get(self.process)
        if beat_age is not None and beat_age < BEAT_SECONDS_MAX:
            return Verdict(good=True, reason=f"the worker gave a sign {beat_age:.1f} s ago")
        if beat_age is not None and self.running():
            return Verdict(good=False, reason=f"the worker gave no sign for {beat_age:.1f} s")
        starting = (self.facts.monotonic_ms() - self._began_ms) / 1000
        if starting < START_SECONDS_MAX:
            return Verdict(good=True, reason=f"starting for {starting:.0f} s, of at most {START_SECONDS_MAX:g} s")
        return Verdict(good=False, reason=f"has not started within {START_SECONDS_MAX:g} s")

    def running(self) -> bool:
        """Whether the worker reads, or its lanes work: with few partitions not every process has one to read."""
        return self.facts.board.is_running(self.process) or bool(self.facts.measures.lanes)

    def readiness(self) -> Verdict:
        """Whether what Redis holds is fresh and stays so; all reasons against it."""
        against = list(self._against())
        return Verdict(not against, "; ".join(against) or "the numbers in Redis are fresh")

    def _against(self) -> Iterator[str]:
        facts, settings = self.facts, self.facts.settings
        if facts.board.draining():
            yield "draining"
        if not facts.rules_loaded():
            yield "no rules are loaded"
        lags = self.lags_seconds()
        lag = max(lags.values(), default=None)
        if not self.running():
            yield "still starting"
        elif lag is None:
            yield "it is not known yet how far the input is read"
        elif lag >= settings.ready_lag_seconds:
            topic, partition = max(lags, key=lambda where: lags[where])
            yield f"{topic}, partition {partition}: {lag:.1f} s behind, ready below {settings.ready_lag_seconds:g} s"
        epoch_age = self.epoch_age_seconds()
        if epoch_age is not None and epoch_age > facts.snapshot_seconds + settings.ready_epoch_seconds:
            standing = epoch_age - facts.snapshot_seconds
            yield f"the epoch should have ended {standing:.0f} s ago, ready up to {settings.ready_epoch_seconds:g} s"

    def lags_seconds(self) -> dict[tuple[str, int], float]:
        """How old the numbers in Redis are, by topic and partition, as far as lanes of this process wrote them."""
        now_ms = self._now_ms()
        standings = self.facts.measures.standings()
        return {where: float(age_of([standing.mark], now_ms)[1]) for where, standing in standings.items()}

    def epoch_age_seconds(self) -> float | None:
        """How long ago the current epoch has begun; None before the first."""
        began_ms = self.facts.measures.epoch_began_ms
        return max(0, self._now_ms() - began_ms) / 1000 if began_ms else None

    def beat_ages_seconds(self) -> dict[int, float]:
        """How long ago each process of the flow gave its last sign; without those that never did."""
        board, now_ms = self.facts.board, self.facts.monotonic_ms()
        beats = {process: board.beaten_ms(process) for process in range(board.processes)}
        return {process: max(0, now_ms - beaten_ms) / 1000 for process, beaten_ms in beats.items() if beaten_ms}


class HealthServer:
    """Serves `/livez`, `/readyz` and `/metrics` of process number `process` for as long as it is entered.

    `listen` is `host:port` (`[::1]:9464` for IPv6) of process 0; others listen on the ports that follow. Port 0 is a
    free one for each; `address` tells it. "" serves nothing. Where that address cannot be listened on, a warning is
    logged and the process goes on without: a worker is worth more than its metrics.
    """

    def __init__(self, listen: str, process: int, facts: Facts, now_ms: Callable[[], int]) -> None:
        self.address: str | None = None
        self._listen = listen
        self._health = Health(process, facts, now_ms)
        self._server: _Server | None = None
        self._thread: Thread | None = None

    def __enter__(self) -> Self:
        if not self._listen:
            return self
        try:
            host, port = _host_and_port(self._listen, self._health.process)
            self._server = _Server(host, port, _Application(self._health))
        except (OSError, ValueError) as error:
            log.warning(
                "health and metrics are not served, the flow runs without: let [metrics] listen name host:port that is"
                ' free for every process, or "" for none',
                listen=self._listen,
                process=self._health.process,
                error=str(error),
            )
            return self
        self.address = self._server.address
        self._thread = Thread(target=self._server.serve_forever, args=(LOOK_EVERY_SECONDS,), name="health", daemon=True)
        self._thread.start()
        log.info("health and metrics are served", address=self.address, process=self._health.process)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
        self.address = self._server = self._thread = None


def _host_and_port(listen: str, process: int) -> tuple[str, int]:
    """The address of process number `process`; ValueError where `listen` names none."""
    parts = urlsplit(f"//{listen}")
    if not parts.hostname or parts.port is None or parts.netloc != listen or "@" in listen:
        raise ValueError("it is not host:port")
    if parts.port + process > PORT_MAX:
        raise ValueError(f"it leaves no port for process {process}")
    return parts.hostname, parts.port + process if parts.port else 0


class _Application:
    """The WSGI application: three paths, read only."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._registry = CollectorRegistry()
        self._registry.register(_MetricsCollector(health))
        ProcessCollector(registry=self._registry)  # memory, processor time, open files: read from /proc when asked

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        status, headers, body = self._answer(environ)
        headers += [("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
        start_response(status, headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, environ: WSGIEnvironment) -> tuple[str, list[tuple[str, str]], bytes]:
        path = environ["PATH_INFO"]
        if path not in {"/livez", "/readyz", "/metrics"}:
            return _json("404 Not Found", {"error": "there is /livez, /readyz and /metrics"})
        if environ["REQUEST_METHOD"] not in READS:
            status, headers, body = _json("405 Method Not Allowed", {"error": f"{path} is read with GET or HEAD"})
            return status, [*headers, ("Allow", ", ".join(READS))], body
        if path == "/livez":
            return _verdict("live", self._health.liveness())
        if path == "/readyz":
            return _verdict("ready", self._health.readiness())
        encode, content_type = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        return "200 OK", [("Content-Type", content_type)], encode(cast("Collector", self._registry))


def _verdict(name: str, verdict: Verdict) -> tuple[str, list[tuple[str, str]], bytes]:
    status = "200 OK" if verdict.good else "503 Service Unavailable"
    return _json(status, {name: verdict.good, "reason": verdict.reason})


def _json(status: str, body: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
    return status, [("Content-Type", "application/json")], json.dumps(body).encode() + b"\n"


class _MetricsCollector(Collector):
    """Reads the facts when Prometheus asks."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        """All metrics as of now."""
        yield from self._of_process()
        yield from self._of_lag()
        yield from self._of_epochs()
        yield from self._of_movements()
        yield from self._of_redis()
        yield self._latency()
        yield self._in_flight()

    def _of_process(self) -> Iterator[Metric]:
        facts, board = self._health.facts, self._health.facts.board
        build = {"version": facts.version, "lanes": str(facts.lanes), "incarnation": str(facts.incarnation)}
        yield InfoMetricFamily(
            "onhand_build",
            "Always 1. Its labels tell the version of onhand, the number of lanes of its state, and the incarnation of"
            " that state, which grows when a state is made anew.",
            build,
        )
        yield _gauge("onhand_running", "1 once this worker process has begun to work.", self._health.running())
        yield _gauge("onhand_draining", "1 while the flow ends in order because it was asked to.", board.draining())
        yield _gauge("onhand_ready", "1 where /readyz answers 200.", self._health.readiness().good)
        beats = GaugeMetricFamily(
            "onhand_beat_age_seconds",
            "Time since the worker thread of a process gave its last sign of life. Each process tells it about all"
            " processes of the flow on its machine, so that a frozen one is seen by the others.",
            labels=["process"],
        )
        for process, age in self._health.beat_ages_seconds().items():
            beats.add_metric([str(process)], age)
        yield beats

    def _of_lag(self) -> Iterator[Metric]:
        by_partition = ["topic", "partition"]
        seconds = GaugeMetricFamily(
            "onhand_lag_seconds",
            "How old the numbers in Redis are that come from this input partition; +Inf where that is not known. Grows"
            " while the broker is silent. Each process tells it of its own SKUs: take the greatest.",
            labels=by_partition,
        )
        for (topic, partition), lag in self._health.lags_seconds().items():
            seconds.add_metric([topic, str(partition)], lag)
        yield seconds
        if not self._health.facts.offsets_count:
            return
        messages = GaugeMetricFamily(
            "onhand_lag_messages",
            "Messages in this input partition that are not yet in Redis, up to its end as last heard of. Each process"
            " tells it of its own SKUs: take the greatest.",
            labels=by_partition,
        )
        for (topic, partition), standing in self._health.facts.measures.standings().items():
            messages.add_metric([topic, str(partition)], max(0, standing.end_offset - standing.mark.offset))
        yield messages

    def _of_epochs(self) -> Iterator[Metric]:
        measures = self._health.facts.measures
        age = GaugeMetricFamily(
            "onhand_epoch_age_seconds",
            "Time since the current epoch has begun. Far beyond onhand_epoch_interval_seconds, something stands still:"
            " Redis, Kafka, the disk of the state, or another process.",
        )
        if (seconds := self._health.epoch_age_seconds()) is not None:
            age.add_metric([], seconds)
        yield age
        yield _gauge(
            "onhand_epoch_interval_seconds",
            "How long an epoch lasts when all is well (setting state.snapshot_seconds).",
            self._health.facts.snapshot_seconds,
        )
        yield _counter("onhand_epochs", "Epochs that have begun.", measures.epochs)
        yield _gauge(
            "onhand_snapshot_bytes", "Size of the last snapshot of all lanes of this process.", measures.snapshot_bytes
        )
        yield _gauge(
            "onhand_snapshot_seconds",
            "Time that packing the last snapshot took; movements wait for it.",
            measures.snapshot_seconds,
        )
        yield _gauge(
            "onhand_positions",
            "Positions (one SKU at one location) that this process knows.",
            sum(measures.positions.copy().values()),
        )

    def _of_movements(self) -> Iterator[Metric]:
        measures = self._health.facts.measures
        yield _counter(
            "onhand_movements_applied", "Movements that changed the state, readable in Redis.", measures.applied
        )
        yield _counter(
            "onhand_duplicates", "Movements left out because their id was applied before.", measures.duplicates
        )
        yield _counter(
            "onhand_misplaced",
            "Movements that came in another partition than their SKU's first one; they show with the next tick.",
            measures.misplaced,
        )
        letters = CounterMetricFamily(
            "onhand_dead_letters",
            "Messages that could not be used and were set aside in inventory.dead-letters, by reason.",
            labels=["reason"],
        )
        # all reasons from the start: Prometheus sees no increase from nothing to 1
        for reason, count in {**dict.fromkeys(map(str, Reason), 0), **dict(measures.dead_letters)}.items():
            letters.add_metric([reason], count)
        yield letters
        yield _counter(
            "onhand_group_commit_failures",
            "Times that offsets could not be written to the consumer group. Only lag tools read them.",
            self._health.facts.commit_failures(),
        )

    def _of_redis(self) -> Iterator[Metric]:
        redis = self._health.facts.redis()
        yield _counter("onhand_redis_skus_written", "SKUs whose numbers were written to Redis.", redis.written)
        yield _counter(
            "onhand_redis_skus_refused",
            "SKUs left as they were because Redis held numbers at least as new; normal after a restart.",
            redis.refused,
        )
        yield _counter("onhand_redis_calls", "Calls that Redis has answered.", redis.calls)
        yield _counter("onhand_redis_calls_resent", "Calls sent again after a fault; harmless in itself.", redis.resent)
        yield _counter(
            "onhand_redis_reconnects", "Connections to Redis made anew after one was lost.", redis.reconnects
        )
        yield _counter(
            "onhand_redis_refills",
            "Times that a sink slot found Redis without what was written to it (new, emptied, replaced, failed over)"
            " and asked for all SKUs again. Each of the 8 slots counts for itself.",
            redis.refills,
        )

    def _latency(self) -> Metric:
        measures = self._health.facts.measures
        bounds = [*map(floatToGoString, LATENCY_BOUNDS), "+Inf"]
        counts = accumulate(measures.latency_counts.copy())
        return HistogramMetricFamily(
            "onhand_publish_latency_seconds",
            "From a record's own time in Kafka until its effect is readable in Redis, for the oldest record in each"
            " result of a lane.",
            buckets=list(zip(bounds, map(float, counts), strict=True)),
            sum_value=measures.latency_sum_seconds,
        )

    def _in_flight(self) -> Metric:
        bytes_ = GaugeMetricFamily(
            "onhand_reader_in_flight_bytes",
            "Bytes that a reader slot has sent to lanes and that they have not applied. The reader pauses at"
            f" {IN_FLIGHT_BYTES_MAX >> 20} MiB. Every process of a machine tells the same: take the greatest.",
            labels=["slot"],
        )
        for slot in range(READER_SLOTS):
            bytes_.add_metric([str(slot)], max(0, self._health.facts.board.in_flight(slot)))
        return bytes_


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, float(value))


def _counter(name: str, meaning: str, value: float) -> Metric:
    """A counter, whose name gets `_total` at its end."""
    return CounterMetricFamily(name, meaning, value)


class _UnderWay(NamedTuple):
    request: socket.socket
    thread: Thread
    until: float  # monotonic s


class _Server(WSGIServer):
    """A thread for each request, which is cut off when it takes too long; few at a time."""

    request_queue_size = 64

    def __init__(self, host: str, port: int, application: _Application) -> None:
        self._under_way: list[_UnderWay] = []  # of the accepting thread alone
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self.address_family = family
        self.serves = application
        super().__init__(cast("tuple[str, int]", address), _Handler)

    @property
    def address(self) -> str:
        """Where it listens, as `host:port`."""
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"{host}:{self.server_port}"

    def server_bind(self) -> None:
        """Bind without asking a name server what the address is called, which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()[:2]
        self.setup_environ()

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ANN401  # as socketserver has it
        """Whether there is room for one more."""
        return len(self._under_way) < REQUESTS_MAX

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # as socketserver has it
        """Answer in a thread of its own."""
        thread = Thread(target=self._respond, args=(request, client_address), name="health request", daemon=True)
        self._under_way.append(_UnderWay(request, thread, time.monotonic() + REQUEST_SECONDS_MAX))
        thread.start()

    def _respond(self, request: socket.socket, client_address: object) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError as error:
            log.debug("a request for health broke off", error=str(error))
        finally:
            self.shutdown_request(request)

    def service_actions(self) -> None:
        """Called between requests and a few times a second: forget what is done, cut off what takes too long."""
        self._under_way = [each for each in self._under_way if each.thread.is_alive()]
        for each in self._under_way:
            if time.monotonic() >= each.until:
                _cut(each.request)

    def server_close(self) -> None:
        """Close everything, also what is still being answered."""
        super().server_close()
        for each in self._under_way:
            _cut(each.request)
            each.thread.join()


def _cut(request: socket.socket) -> None:
    """Whoever waits for the client goes on, and finds that it is gone."""
    with suppress(OSError):  # it may have ended by itself
        request.shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    """One request a connection."""

    server_version = "onhand"
    sys_version = ""

    def handle(self) -> None:
        """Read one request and answer it."""
        self.raw_requestline = self.rfile.readline(LINE_BYTES_MAX + 1)
        if len(self.raw_requestline) > LINE_BYTES_MAX:
            self.requestline = self.request_version = self.command = ""
            self.send_error(414)
        elif self.parse_request():
            rfile, wfile = cast("IO[bytes]", self.rfile), cast("IO[bytes]", self.wfile)
            server = cast("_Server", self.server)
            _Response(rfile, wfile, sys.stderr, self.get_environ(), multithread=True).run(server.serves)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as http.server has it
        """Nothing: probes come every few seconds."""


class _Response(SimpleHandler):
    """What an error inside is answered and told as."""

    server_software = "onhand"
    error_status = "500 Internal Server Error"
    error_headers = [("Content-Type", "application/json")]  # noqa: RUF012  # wsgiref copies it
    error_body = b'{"error":"this is a fault of onhand, its log tells more"}\n'

    def log_exception(self, exc_info: Any) -> None:  # noqa: ANN401  # as wsgiref has it
        """Into our own log, in its own form."""
        log.error("health could not be told", exc_info=exc_info)
