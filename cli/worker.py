"""A worker: one process of a flow. It loads its code, hears from its supervisor what to do, and does it."""

import errno
import gc
import os
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import structlog

from cli.configuration import Configuration, load_rules, read_configuration
from cli.failures import DONE, FAILED, CliError, one_line
from cli.logs import configure_logs, debug_wanted
from cli.native_errors import native_errors_apart
from cli.worker_spec import BROKEN, UNREACHABLE, WorkerSpec, hear, monotonic_ms, now_ms, say
from flows.availability import Sinks, availability_flow
from flows.bases import FileBases
from flows.board import IN_FLIGHT_BYTES_MAX, READER_SLOTS, Board
from flows.health import Facts, HealthServer
from flows.measures import Measures
from flows.running import run_flow
from operators.lane import LaneSettings
from operators.lane_step import LaneHooks, LaneMaking
from operators.route import lane_of_sku
from operators.rules import RuleBook
from operators.snapshots import SnapshotError
from schemas.rule_changes import rules_of_document
from schemas.topics import AVAILABILITY, DEAD_LETTERS, DIVERGENCES, REPLENISHMENTS, RESERVATIONS, SHADOW, THRESHOLDS
from sinks.jsonl import JsonlSink
from sinks.kafka import KafkaOutput
from sinks.nowhere import NowhereSink
from sinks.redis_availability import RedisAvailabilitySink
from sinks.slots import SinkError, SinkUnreachableError
from sources.asked_skus import AskedSkus, asked_channel
from sources.errors import SourceError, SourceUnreachableError
from sources.jsonl import STDIN, JsonlSource
from sources.kafka import KafkaReading, KafkaSource
from sources.pace import Epochs, Surroundings
from sources.redis_stream import RedisStreamReading, RedisStreamSource

ROOM_BYTES: Final = 32 << 20  # what journals of 8 parts take up, and give back as soon as one has failed
PRINTED_BYTES_MAX: Final = 100_000
HOUR_MS: Final = 3_600_000
DISK_FULL: Final = ("DiskFull", "disk is full")
DAMAGED: Final = (
    "DatabaseCorrupt",
    "malformed",
    "NotADatabase",
    "not a database",
    "UnpicklingError",
    "error deserializing",
)
UNFIT: Final = ("InconsistentPartitionsError", "MissingPartitionsError", "NoPartitionsError", "can't resume")

STORE_TROUBLE: Final = {  # what Bytewax's panics say of SQLite, and what to do
    DISK_FULL: "has no room: its disk is full; free space there, then start again: nothing is lost",
    DAMAGED: "is damaged: `onhand recovery check` says where; put a backup of all its parts back, or begin anew with"
    " another state.path",
    UNFIT: "lacks parts, or they are of different times: put all parts of one backup back, or begin anew with another"
    " state.path",
}
GC_THRESHOLDS: Final = (50_000, 50, 100)  # a batch makes tens of thousands of objects, and cycles are rare
Movements: TypeAlias = KafkaSource | RedisStreamSource | JsonlSource
log = structlog.get_logger(__name__)


def causes(error: BaseException) -> Iterator[BaseException]:
    """`error`, what it was raised from, what that was raised from, and so on."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


class _Worker:
    """The parts of one process, put together."""

    def __init__(self, spec: WorkerSpec, board: Board, configuration: Configuration) -> None:
        self._spec = spec
        self._configuration = configuration
        self._board = board
        self._measures = Measures(epoch_began_ms=0 if spec.store is None else now_ms())  # 0: epochs keep nothing
        self._packing_seconds: dict[int, float] = {}  # by lane, in this epoch's end
        self._redis = self._redis_sink()
        self._source = self._movements()
        explaining = asked_channel(configuration.settings.redis.explain_prefix)
        self._asked = AskedSkus(spec.redis_url, explaining, self._lane_of)

    def run(self) -> None:
        """Run to the end of the input, or until drained."""
        with ExitStack() as around:
            self._run(self._bases(around))
        if isinstance(self._source, KafkaSource):
            self._source.commit_last()
        counted, written = self._measures, self._redis.counters
        log.debug("worker ended", applied=counted.applied, duplicates=counted.duplicates, written=written.written)

    def _run(self, bases: FileBases | None) -> None:
        settings, spec = self._configuration.settings, self._spec
        shadow_path = settings.rules.shadow_path
        making = LaneMaking(
            RuleBook(rules_of_document(spec.rules)[0]),
            LaneSettings(
                settings.state.lanes,
                spec.incarnation,
                dedupe_ms=settings.input.dedupe_hours * HOUR_MS,
                as_of_ms=settings.input.as_of_hours * HOUR_MS,
                by_crc32=spec.by_crc32,
            ),
            now_ms,
            shadow=RuleBook(load_rules(self._configuration.at(shadow_path))) if shadow_path else None,
            redis_prefix=settings.redis.prefix,
            tell_ms=round(settings.output.availability_seconds * 1000),
            durable=spec.store is not None,
            is_behind=spec.is_behind,
            hooks=self._hooks(),
            bases=bases,
            epoch_seconds=settings.state.snapshot_seconds,
        )
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        with HealthServer(settings.metrics.listen, spec.process, self._facts(), now_ms), self._asked:
            run_flow(
                availability_flow(self._source, self._sinks(), making),
                snapshot_seconds=settings.state.snapshot_seconds,
                store=None if spec.store is None else Path(spec.store),
                addresses=spec.addresses,
                process=spec.first + spec.process,
            )

    def _bases(self, around: ExitStack) -> FileBases | None:
        """Of several machines each has a disk of its own, and a lane may go on at any of them."""
        spec = self._spec
        if spec.store is None or len(spec.addresses) > spec.processes:
            return None
        return around.enter_context(FileBases(Path(spec.store), _tell_failed_base))

    def _facts(self) -> Facts:
        """What the health of this process is told from."""
        settings, spec, measures, source = self._configuration.settings, self._spec, self._measures, self._source
        return Facts(
            measures=measures,
            board=self._board,
            redis=lambda: self._redis.counters,
            rules_loaded=lambda: bool(measures.lanes),
            monotonic_ms=monotonic_ms,
            settings=settings.metrics,
            snapshot_seconds=settings.state.snapshot_seconds,
            version=version("onhand"),
            lanes=settings.state.lanes,
            incarnation=spec.incarnation,
            commit_failures=lambda: source.commit_failures if isinstance(source, KafkaSource) else 0,
            offsets_count=settings.input.kind != "redis_stream",
        )

    def _lane_of(self, sku: str) -> int:
        return lane_of_sku(sku, self._configuration.settings.state.lanes, by_crc32=self._spec.by_crc32)

    def _beat(self) -> None:
        self._board.beat(self._spec.process, monotonic_ms())

    def _work(self) -> None:
        """A lane works: the worker is alive, and Redis is given what waits for it."""
        self._beat()
        self._redis.send_waiting()

    def _look(self) -> None:
        """A source looks for input: the worker is alive and has begun to read; what Redis has answered is taken."""
        self._beat()
        self._redis.take_answers()
        self._board.run(self._spec.process)

    def _snapshotted(self, lane: int, bytes_: int, positions: int, seconds: float) -> None:
        """Lanes are packed one after the other at the end of an epoch; the first of them begins the next."""
        measures, packing = self._measures, self._packing_seconds
        if lane in packing or not packing:
            measures.epochs += 1
            measures.epoch_began_ms = now_ms()
            packing.clear()
        packing[lane] = seconds
        measures.snapshot_seconds = sum(packing.values())
        measures.lane_snapshot_bytes[lane] = bytes_
        measures.snapshot_bytes = sum(measures.lane_snapshot_bytes.values())
        measures.positions[lane] = positions

    def _hooks(self) -> LaneHooks:
        board, process = self._board, self._spec.process
        return LaneHooks(
            sent=lambda partition, bytes_: board.sent(partition % READER_SLOTS, bytes_),
            applied=lambda partition, bytes_: board.applied(process, partition % READER_SLOTS, bytes_),
            refills=board.refills,
            snapshotted=self._snapshotted,
            beat=self._work,
            monotonic=time.monotonic,
            worked=time.thread_time,
            asked=self._asked.asked,
        )

    def _movements(self) -> Movements:
        """What the settings name as input."""
        configuration, spec, board = self._configuration, self._spec, self._board
        reads, kafka = configuration.settings.input, configuration.settings.kafka
        around = Surroundings(
            self._look,
            lambda slot: board.in_flight(slot) > IN_FLIGHT_BYTES_MAX,
            wakes=spec.store is not None,
            epochs=Epochs(configuration.settings.state.snapshot_seconds * 1000) if spec.addresses else None,
        )
        draining = board.draining
        if reads.kind == "kafka":
            reading = KafkaReading(
                bootstrap_servers=kafka.bootstrap_servers,
                topic=reads.topic,
                group=kafka.group,
                options=kafka.options,
                slots=READER_SLOTS,
                accept_truncated=spec.accept_truncated,
            )
            return KafkaSource(reading, now_ms=now_ms, draining=draining, around=around)
        if reads.kind == "redis_stream":
            stream = RedisStreamReading(url=spec.redis_url, stream=reads.topic, accept_truncated=spec.accept_truncated)
            return RedisStreamSource(stream, now_ms=now_ms, draining=draining, around=around)
        path = reads.topic if reads.topic == STDIN else str(configuration.at(reads.topic))
        return JsonlSource(path, now_ms=now_ms, draining=draining, around=around)

    def _redis_sink(self) -> RedisAvailabilitySink:
        settings, spec, board, measures = self._configuration.settings, self._spec, self._board, self._measures
        return RedisAvailabilitySink(
            spec.redis_url,
            settings.redis.prefix,
            now_ms,
            explain_prefix=settings.redis.explain_prefix,
            lanes=settings.state.lanes,
            beat=self._beat,
            refill=lambda: board.ask_refill(spec.process),
            refills=board.refills,
            visible=lambda results: measures.saw(results, now_ms()),
            incarnation=spec.incarnation,
        )

    def _sinks(self) -> Sinks:
        """Redis, and what the settings name as output."""
        settings = self._configuration.settings
        output, kafka = settings.output, settings.kafka
        if output.kind == "kafka":
            producer = KafkaOutput(kafka.bootstrap_servers, kafka.options, beat=self._beat)
            return Sinks(
                self._redis,
                producer.sink(AVAILABILITY),
                producer.sink(THRESHOLDS),
                producer.sink(DIVERGENCES),
                producer.sink(RESERVATIONS),
                producer.sink(REPLENISHMENTS),
                producer.sink(SHADOW),
                producer.sink(DEAD_LETTERS),
            )
        if output.kind == "jsonl":
            folder = self._configuration.at(output.path)
            return Sinks(
                self._redis,
                JsonlSink(folder, AVAILABILITY),
                JsonlSink(folder, THRESHOLDS),
                JsonlSink(folder, DIVERGENCES),
                JsonlSink(folder, RESERVATIONS),
                JsonlSink(folder, REPLENISHMENTS),
                JsonlSink(folder, SHADOW),
                JsonlSink(folder, DEAD_LETTERS),
            )
        nowhere: list[NowhereSink[Any]] = [NowhereSink() for _ in Sinks._fields[1:]]
        return Sinks(self._redis, *nowhere)


def _tell_failed_base(name: str, error: OSError) -> None:
    log.warning(
        "a base of the state cannot be written or removed, its lane is kept as a whole",
        file=name,
        error=one_line(error),
    )


def failure_of(error: BaseException, store: str | None, printed: str = "") -> tuple[int, str]:
    """The exit code with which a worker ends by `error`, and what it says; the supervisor decides by the code.

    `printed` is what native code has said beside it: of several threads that panic, only one becomes an error.
    """
    for cause in causes(error):
        if isinstance(cause, SourceUnreachableError | SinkUnreachableError):
            return UNREACHABLE, one_line(cause)
        if isinstance(cause, SourceError | SinkError):
            return FAILED, one_line(cause)
        if isinstance(cause, CliError):
            return cause.exit_code, one_line(cause)
        if isinstance(cause, SnapshotError):
            return FAILED, f"the state in {store} does not fit: {one_line(cause)}; ask `onhand recovery check`"
    said = printed + " ".join(f"{type(cause).__name__} {cause}" for cause in causes(error))
    if store is not None and not _has_room(Path(store)):
        said += DISK_FULL[0]
    for signs, advice in STORE_TROUBLE.items():
        if any(sign in said for sign in signs):
            return FAILED, f"the state in {store} {advice}"
    return BROKEN, f"the engine failed: {one_line(error)}"


def _has_room(store: Path) -> bool:
    """Whether the store's disk has room for what SQLite writes beside the parts."""
    try:
        with tempfile.TemporaryFile(dir=store) as piece:
            os.posix_fallocate(piece.fileno(), 0, ROOM_BYTES)
    except OSError as error:
        return error.errno not in {errno.ENOSPC, errno.EDQUOT}
    return True


def _tail_of(native: BinaryIO) -> str:
    """The end of what native code has printed."""
    native.seek(max(0, native.seek(0, os.SEEK_END) - PRINTED_BYTES_MAX))
    return native.read().decode(errors="replace")


def main(arguments: list[str]) -> int:
    """Run the worker that is told what to do at the descriptor that is named; returns its exit code."""
    with socket.socket(fileno=int(arguments[0])) as line:
        told = hear(line)
        if told is None:
            return DONE
        spec, (board, *_) = told  # the others only have to be open as long as this process lives
        return work(spec, Board(board, spec.processes), line)


def work(spec: WorkerSpec, board: Board, line: socket.socket) -> int:
    """Run this worker; returns its exit code, or ends the process after having said why."""
    debug = debug_wanted(os.environ)
    configure_logs(debug=debug)
    if spec.addresses:
        structlog.contextvars.bind_contextvars(worker=spec.first + spec.process)
    printed = ""
    configuration, _ = read_configuration(None if spec.config is None else Path(spec.config), os.environ)
    try:
        with native_errors_apart() as native:
            try:
                _Worker(spec, board, configuration).run()
            except BaseException:
                printed = _tail_of(native)
                raise
    except BaseException as error:  # noqa: BLE001  # Bytewax panics with what is no Exception; it is told, and we end
        code, said = failure_of(error, spec.store, printed)
        if debug:
            traceback.print_exception(error)
        if code in (UNREACHABLE, BROKEN):
            log.error("worker failed", error=said)  # noqa: TRY400  # the trace is told with --debug
        else:
            say(line, said)
        sys.stderr.flush()
        os._exit(code)  # threads of the engine that still run would print of their own end
    return DONE
