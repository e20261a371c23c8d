"""One run of the campaign: a flow under load, its faults in turn, how it recovers, and what was read again."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from bench.servers import Server
from flows.store import report
from operators.keeping import LIMITS
from schemas.complaints import Complaint, read_toml
from schemas.rules import Rules, rules_from
from sinks.redis_keys import read_health
from sinks.tether import tethered
from tests.cli.command import CHECKOUT, NOWHERE, onhand
from tests.faults.flow import Flow, ViolationError, still_there
from tests.faults.hooks.sitecustomize import ARMED, DISARMED, PARTITIONS_MAX, Cells
from tests.faults.load import load, rules_text
from tests.faults.proxy import CALM, Proxy, Weather
from tests.faults.reader import ReaderReport
from tests.faults.schedule import Fault, FaultKind, Schedule
from tests.faults.servers import Sending, Servers
from tests.faults.verdict import group_differs, judge, what_is_left
from tests.faults.writes import Writes

PREFIX: Final = "avail:"
BEGIN_SECONDS_MAX: Final = 60.0
RECOVERY_SECONDS_MAX: Final = 60.0
END_SECONDS_MAX: Final = 120.0
WORKER_SECONDS_MAX: Final = 30.0
POINT_SECONDS_MAX: Final = 20.0
BASES_OF_A_LANE_MAX: Final = 2 * LIMITS.snapshots + 1  # two in each of the last epochs, and what was gone on from
REFUSAL_SECONDS_MAX: Final = 60.0
FROZEN_SECONDS_MAX: Final = 60.0
ORPHAN_SECONDS_MAX: Final = 5.0
LOOK_SECONDS: Final = 0.05
DISK_BYTES: Final = 48 << 20
FLIP_EVERY_BYTES: Final = 200
ANSWER_SECONDS_MAX: Final = 1.0
SILENT_KAFKA_MS: Final = 6000  # librdkafka waits for a minute before it gives a silent connection up
GENERATIONS_FIRST: Final = 1


class Struck(msgspec.Struct):
    """What became of one fault; `recovery_seconds` is None where it did not strike."""

    kind: FaultKind
    struck: int = 0
    read_again: int = 0
    recovery_seconds: float | None = None
    skipped: str = ""


class SeedResult(msgspec.Struct):
    """What became of one seed."""

    seed: int
    seconds: float = 0.0
    faults: list[Struck] = []
    violations: list[str] = []
    messages: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    crossings: int = 0
    written_again: int = 0
    reads: int = 0
    writes: int = 0
    starts: int = 0
    as_changes: bool = False  # lanes were kept as changes since a base


class ReadAgain(msgspec.Struct):
    """A partition that a process began to read: from where, and how far it had been read before."""

    at: float
    partition: int
    from_: int = msgspec.field(name="from")
    read: int


class Run:
    """Everything of one seed, in `folder`; `run` leaves nothing running."""

    def __init__(self, schedule: Schedule, servers: Servers, folder: Path) -> None:
        self._schedule = schedule
        self._servers = servers
        self._folder = folder
        self._faults_folder = folder / "faults"
        self._chance = random.Random(f"{schedule.seed}/strikes")
        self._rules_path = folder / "rules.toml"
        self._generation = GENERATIONS_FIRST
        self._armed = 0
        self._workers = schedule.workers
        self._stack = ExitStack()
        self._client = Redis.from_url(servers.redis.url, socket_timeout=ANSWER_SECONDS_MAX, retry=Retry(NoBackoff(), 0))
        self._proxies: dict[str, Proxy] = {}
        self._reader: subprocess.Popen[bytes] | None = None
        self._is_judged = False
        self._writes = Writes(PREFIX)
        self.result = SeedResult(schedule.seed)

    def run(self) -> SeedResult:
        """Run it; whatever goes wrong is among the result's violations."""
        begun = time.monotonic()
        try:
            with self._stack:
                self._run()
        except Exception as error:  # noqa: BLE001  # a campaign goes on, and tells it with the seed
            self.result.violations.insert(0, f"{type(error).__name__}: {error}")
        self.result.seconds = time.monotonic() - begun
        return self.result

    def _run(self) -> None:
        schedule, servers, plan = self._schedule, self._servers, self._schedule.load
        self._faults_folder.mkdir(parents=True)
        servers.renew(plan.partitions)
        self._cells = Cells(self._faults_folder)
        first_rules = self._write_rules()
        self._state = self._made_state()
        self._flow = Flow(self._folder, self._settings(), self._faults_folder, bases=schedule.bases)
        self._stack.callback(self._flow.end)
        self._read_all_the_time()
        sending = Sending(servers.kafka.bootstrap_servers, load(plan, schedule.seed, _now_ms), plan.messages_per_second)
        self._stack.callback(sending.halt)
        sending.start()
        self._start()
        self._recover(_now_ms(), BEGIN_SECONDS_MAX)
        for number, fault in enumerate(schedule.faults):
            self._rest(fault.after_seconds)
            self._meet(fault)
            if number == 0 and schedule.rules_pushed:
                self._push_rules()
        sending.stop()
        self._recover(_now_ms(), END_SECONDS_MAX)
        self._flow.drain()
        self._check_state()
        self._is_judged = True
        self._end_reader()
        self.result.starts = self._flow.starts
        self._judge(first_rules, sending)

    # Beginning and end

    def _settings(self) -> dict[str, str]:
        schedule, servers = self._schedule, self._servers
        kinds = {fault.kind for fault in schedule.faults}
        chance = random.Random(f"{schedule.seed}/network")
        kafka, redis = servers.kafka.bootstrap_servers, servers.redis.url
        settings: dict[str, str] = {}
        if schedule.fetch_bytes:
            settings["kafka.options__max_partition_fetch_bytes"] = str(schedule.fetch_bytes)
            settings["kafka.options__queued_max_messages_kbytes"] = "16"  # nothing piles up while a worker starts
        if "kafka network" in kinds:
            self._proxies["kafka network"] = self._stack.enter_context(servers.kafka_proxy(chance))
            kafka = servers.kafka_through_proxy
            settings["kafka.options__socket_timeout_ms"] = str(SILENT_KAFKA_MS)
        if "redis network" in kinds:
            self._proxies["redis network"] = self._stack.enter_context(servers.redis_proxy(chance))
            redis = servers.redis_through_proxy
        return settings | {
            "kafka.bootstrap_servers": kafka,
            "kafka.group": self._group,
            "redis.url": redis,
            "rules.path": str(self._rules_path),
            "state.path": str(self._state),
            "state.snapshot_seconds": str(schedule.snapshot_seconds),
            "state.lanes": str(schedule.lanes),
            "metrics.listen": "",
        }

    def _check_state(self) -> None:
        """What the flow has left can be gone on from, and what nothing needs has been removed."""
        self.result.as_changes = (self._faults_folder / "bases-named").exists()
        if findings := report(self._state).findings:
            raise ViolationError(f"the drained state cannot be gone on from: {findings}")
        for lane in range(self._schedule.lanes):
            found = [file.name for file in self._state.glob(f"lane-{lane}-*")]
            if len(found) > BASES_OF_A_LANE_MAX:
                raise ViolationError(f"bases are left behind: {found}")

    @property
    def _group(self) -> str:
        return f"faults-{self._folder.parent.name}-{self._schedule.seed}"

    def _made_state(self) -> Path:
        """Where the flow keeps its state: on a disk of its own where that is to be filled."""
        if all(fault.kind != "disk full" for fault in self._schedule.faults) or os.geteuid() != 0:
            return self._folder / "state"
        disk = self._folder / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)], check=True, timeout=20)
        self._stack.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=False, timeout=20)
        return disk / "state"

    def _write_rules(self) -> Rules:
        """The next generation's rules as the file, and what they say."""
        text = rules_text(self._schedule.load, self._schedule.seed, self._generation, _now_ms())
        self._generation += 1
        self._rules_path.write_text(text)
        document = read_toml(text)
        if isinstance(document, Complaint):
            raise TypeError(str(document))
        rules, complaints = rules_from(document)
        if errors := [complaint for complaint in complaints if complaint.severity == "error"]:
            raise ValueError(str(errors))
        return rules

    def _push_rules(self) -> None:
        self._write_rules()
        done = onhand("rules", "push", "--wait", "0", cwd=self._folder, settings=self._settings_of_commands())
        if done.returncode != 0:
            raise ViolationError(f"rules push ended with {done.returncode}: {done.stdout}{done.stderr}")

    def _settings_of_commands(self) -> dict[str, str]:
        return {
            "kafka.bootstrap_servers": self._servers.kafka.bootstrap_servers,
            "redis.url": self._servers.redis.url,
            "rules.path": str(self._rules_path),
        }

    def _read_all_the_time(self) -> None:
        out, seed = self._folder / "reader.json", str(self._schedule.seed)
        command = [sys.executable, "-m", "tests.faults.reader", self._servers.redis.url, PREFIX, str(out), seed]
        with (self._folder / "reader.log").open("wb") as log:
            self._reader = subprocess.Popen(tethered(command), cwd=CHECKOUT, stdout=log, stderr=log)
        self._stack.callback(self._end_reader)

    def _end_reader(self) -> None:
        """End it and take what it saw; a reader that broke off saw nothing, which is no proof."""
        if self._reader is None:
            return
        reader, self._reader = self._reader, None
        reader.terminate()
        try:
            code = reader.wait(WORKER_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            reader.kill()
            code = reader.wait(WORKER_SECONDS_MAX)
        out = self._folder / "reader.json"
        if code != 0 or not out.exists():
            self.result.violations.append(f"the reader broke off: {(self._folder / 'reader.log').read_text()[-1000:]}")
            return
        report = msgspec.json.decode(out.read_bytes(), type=ReaderReport)
        self.result.reads = report.values
        if report.steps_back:
            self.result.violations.append(f"I4: {len(report.steps_back)} steps back, first {report.steps_back[0]}")
        if report.values == 0 and not self.result.violations and self._is_judged:
            self.result.violations.append("I4: the reader has read nothing")

    def _judge(self, rules: Rules, sending: Sending) -> None:
        servers = self._servers
        self._writes.take(servers.redis_writes)
        if back := self._writes.steps_back:
            self.result.violations.append(f"I4: {len(back)} writes stepped back, first {back[0]}")
        self.result.writes = self._writes.count
        read_up_to = {partition: self._cells[partition] for partition in range(self._schedule.load.partitions)}
        left = what_is_left(servers.kafka.bootstrap_servers, servers.redis.url, self._group, read_up_to)
        verdict = judge(left, rules, sending.acknowledged)
        result = self.result
        if "kafka network" not in self._proxies:  # the group is told for the sake of lag tools, without trying again
            result.violations.extend(group_differs(left))
        result.violations.extend(verdict.violations)
        result.messages, result.duplicates = verdict.messages, verdict.duplicates
        result.dead_letters, result.crossings = verdict.dead_letters, verdict.crossings
        result.written_again = verdict.written_again
        problems = self._faults_folder / "problems"
        if problems.exists():
            result.violations.append(f"the hooks do not fit the product: {problems.read_text()}")

    # Waiting

    def _start(self, workers: int | None = None) -> None:
        self._workers = self._workers if workers is None else workers
        self._flow.start(self._workers)

    def _look(self) -> None:
        """The flow still runs: its supervisor outlives whatever happens to its workers."""
        self._flow.check()

    def _rest(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._look()
            time.sleep(min(LOOK_SECONDS, seconds))

    def _wait(self, condition: Callable[[], object], seconds_max: float, what: str) -> None:
        deadline = time.monotonic() + seconds_max
        while not condition():
            self._look()
            if time.monotonic() > deadline:
                raise ViolationError(f"I10: {what}: not within {seconds_max:g} s; {self._flow.log_tail()}")
            time.sleep(LOOK_SECONDS)

    def _recover(self, since_ms: int, seconds_max: float = RECOVERY_SECONDS_MAX) -> float:
        """Wait until a reader sees lag zero as of `since_ms` or later; how many seconds after that."""
        self._wait(lambda: self._is_caught_up(since_ms), seconds_max, "lag back to zero")
        return (_now_ms() - since_ms) / 1000

    def _is_caught_up(self, since_ms: int) -> bool:
        try:
            health = read_health(self._client, PREFIX)
        except RedisError:
            return False
        return health is not None and health.lag_seconds == 0.0 and health.watermark_ms >= since_ms

    # Faults

    def _meet(self, fault: Fault) -> None:
        """Let one fault strike, and wait until it is forgotten."""
        struck = Struck(fault.kind)
        self.result.faults.append(struck)  # at once: what is violated meanwhile is counted with it
        if fault.kind == "disk full" and os.geteuid() != 0:
            struck.skipped = "only root may mount a small disk"
            return
        begun = time.time()
        since_ms = self._strike(fault, struck)
        if since_ms is None:
            return
        struck.recovery_seconds = max(struck.recovery_seconds or 0.0, self._recover(since_ms))
        struck.read_again = self._read_again_since(begun)
        if fault.kind in ("drain", "rescale") and struck.read_again:
            raise ViolationError(
                f"{struck.read_again} records were read again after a drain: {self._read_again(begun)}"
            )

    def _strike(self, fault: Fault, struck: Struck) -> int | None:  # noqa: C901, PLR0911, PLR0912  # one line for each kind
        """Strike; returns since when it is over, ms since 1970, or None where it did not strike."""
        match fault.kind:
            case "worker killed":
                return self._kill_workers(fault, struck, all_of_them=False)
            case "all workers killed":
                return self._kill_workers(fault, struck, all_of_them=True)
            case "supervisor killed":
                return self._kill_supervisor(fault, struck)
            case "marked point":
                return self._kill_at_points(fault, struck)
            case "worker frozen":
                return self._freeze_worker(struck)
            case "drain" | "rescale":
                return self._drain(fault, struck)
            case "redis killed" | "redis emptied by a restart":
                return self._kill_redis(fault, struck)
            case "redis flushed":
                return self._flush_redis(struck)
            case "redis read-only":
                host, port = NOWHERE.split(":")
                return self._disturb_redis(
                    fault,
                    struck,
                    lambda: self._client.replicaof(host, port),
                    lambda: self._client.replicaof("NO", "ONE"),
                )
            case "redis full":
                return self._disturb_redis(
                    fault,
                    struck,
                    lambda: self._client.config_set("maxmemory", "1"),
                    lambda: self._client.config_set("maxmemory", "0"),
                )
            case "redis network" | "kafka network":
                return self._disturb_network(fault, struck)
            case "kafka killed":
                return self._kill_kafka(fault, struck)
            case "kafka frozen":
                return self._freeze(self._servers.kafka, fault, struck)
            case "redis frozen":
                return self._freeze(self._servers.redis, fault, struck)
            case "store damaged":
                return self._damage_store(fault, struck)
            case "disk full":
                return self._fill_disk(fault, struck)

    def _kill_one(self) -> None:
        self._wait(self._flow.workers, WORKER_SECONDS_MAX, "a worker to be there")
        self._chance.choice(self._flow.workers()).kill()

    def _kill_workers(self, fault: Fault, struck: Struck, *, all_of_them: bool) -> int:
        since_ms = _now_ms()
        for pause in (*fault.pauses, 0.0):
            if all_of_them:
                self._wait(self._flow.workers, WORKER_SECONDS_MAX, "workers to be there")
                for worker in self._flow.workers():
                    worker.kill()
            else:
                self._kill_one()
            since_ms = _now_ms()
            struck.struck += 1
            self._rest(pause)
        return since_ms

    def _kill_supervisor(self, fault: Fault, struck: Struck) -> int:
        since_ms = _now_ms()
        for pause in (*fault.pauses, 0.0):
            left = still_there(self._flow.kill(), ORPHAN_SECONDS_MAX)
            for orphan in left:
                orphan.kill()
            if left:
                raise ViolationError(f"{len(left)} workers outlived their supervisor by {ORPHAN_SECONDS_MAX:g} s")
            since_ms = _now_ms()
            struck.struck += 1
            self._start_again(fault)
            self._rest(pause)
        return since_ms

    def _kill_at_points(self, fault: Fault, struck: Struck) -> int | None:
        """All are armed at once: the second strikes while the first is being recovered from, or right after."""
        first = self._armed
        markers = [self._arm(point) for point in fault.points]
        try:
            return self._wait_for_strikes(fault, markers, struck)
        finally:  # what has not struck would do so in a later fault, or in the drain at the end
            for number in range(first, self._armed):
                self._cells[PARTITIONS_MAX + number] = DISARMED

    def _wait_for_strikes(self, fault: Fault, markers: list[Path], struck: Struck) -> int | None:
        since_ms = None
        for marker, point in zip(markers, fault.points, strict=True):
            deadline = time.monotonic() + POINT_SECONDS_MAX
            while not marker.exists() and time.monotonic() < deadline:
                self._look()
                time.sleep(LOOK_SECONDS)
            if marker.exists():
                struck.struck += 1
                since_ms = _now_ms()
            elif since_ms is None:
                struck.skipped = f"{point} was not passed"
            else:
                break  # the one that struck last has left nothing to be struck for a while
        if since_ms is not None:
            struck.skipped = ""
        return since_ms

    def _arm(self, point: str) -> Path:
        """The marker that the process will leave that is struck."""
        number = self._armed
        self._armed += 1
        (self._faults_folder / f"armed-{number}").write_text(point)
        self._cells[PARTITIONS_MAX + number] = ARMED
        return self._faults_folder / f"struck-{number}"

    def _freeze_worker(self, struck: Struck) -> int:
        self._wait(self._flow.workers, WORKER_SECONDS_MAX, "a worker to be there")
        victim = self._chance.choice(self._flow.workers())
        since_ms = _now_ms()
        victim.send_signal(signal.SIGSTOP)
        struck.struck = 1
        if still_there([victim], FROZEN_SECONDS_MAX):
            victim.send_signal(signal.SIGCONT)
            raise ViolationError(f"I10: a frozen worker was not found within {FROZEN_SECONDS_MAX:g} s")
        return since_ms

    def _drain(self, fault: Fault, struck: Struck) -> int:
        since_ms = _now_ms()
        for workers in fault.workers or (self._workers,):
            self._flow.drain()
            since_ms = _now_ms()
            struck.struck += 1
            self._start_again(fault, workers)
            struck.recovery_seconds = max(struck.recovery_seconds or 0.0, self._recover(since_ms))
        return since_ms

    def _start_again(self, fault: Fault, workers: int | None = None) -> None:
        if fault.rules_change:
            self._write_rules()
        self._start(workers)

    def _skus_in_redis(self) -> int:
        try:
            return sum(1 for key in self._client.scan_iter(f"{PREFIX}*", count=5000) if b"@" not in key)
        except RedisError:
            return 0

    def _flush_redis(self, struck: Struck) -> int:
        before = self._skus_in_redis()
        since_ms = _now_ms()
        self._client.flushall()
        struck.struck = 1
        self._wait(lambda: self._skus_in_redis() >= before, RECOVERY_SECONDS_MAX, f"{before} SKUs in Redis again")
        return since_ms

    def _kill_redis(self, fault: Fault, struck: Struck) -> int:
        before, redis = self._skus_in_redis(), self._servers.redis
        redis.kill()
        struck.struck = 1
        if fault.kind == "redis emptied by a restart":
            self._writes.take(self._servers.redis_writes)
            shutil.rmtree(self._servers.redis_writes)
        self._meanwhile(fault)
        redis.start()
        since_ms = _now_ms()
        self._wait(lambda: self._skus_in_redis() >= before, RECOVERY_SECONDS_MAX, f"{before} SKUs in Redis again")
        return since_ms

    def _meanwhile(self, fault: Fault) -> None:
        """What lasts: lets it last, in some seeds with a worker that dies in the middle of it."""
        self._rest(fault.seconds / 2)
        if fault.worker_killed_meanwhile:
            self._kill_one()
        self._rest(fault.seconds / 2)

    def _disturb_redis(
        self, fault: Fault, struck: Struck, begin: Callable[[], object], end: Callable[[], object]
    ) -> int:
        begin()
        struck.struck = 1
        self._meanwhile(fault)
        end()
        return _now_ms()

    def _disturb_network(self, fault: Fault, struck: Struck) -> int:
        proxy = self._proxies[fault.kind]
        proxy.set(Weather(fault.delay_seconds_max, fault.drop_share, fault.reset_share))
        self._rest(fault.seconds / 2)
        proxy.reset_all()
        self._meanwhile(fault)
        proxy.set(CALM)
        struck.struck = proxy.delayed + proxy.dropped + proxy.resets
        return _now_ms()

    def _kill_kafka(self, fault: Fault, struck: Struck) -> int:
        self._servers.kafka.kill()
        struck.struck = 1
        self._meanwhile(fault)
        self._servers.kafka.start()
        return _now_ms()

    def _freeze(self, server: Server, fault: Fault, struck: Struck) -> int:
        server.freeze()
        struck.struck = 1
        try:
            self._meanwhile(fault)
        finally:
            server.thaw()
        return _now_ms()

    # The store

    def _damage_store(self, fault: Fault, struck: Struck) -> int:
        self._flow.drain()
        backup = self._folder / "backup"
        shutil.copytree(self._state, backup)
        self._damage(fault)
        struck.struck = 1
        self._start()
        self._expect_refusal(fault.damage)
        shutil.rmtree(self._state)
        shutil.move(backup, self._state)
        since_ms = _now_ms()
        self._start_again(fault)
        return since_ms

    def _damage(self, fault: Fault) -> None:
        part = self._chance.choice(sorted(self._state.glob("*.sqlite3")))
        match fault.damage:
            case "deleted part":
                part.unlink()
            case "deleted description":
                (self._state / "onhand.json").unlink()
            case "header":
                self._flip(part, range(64))
            case "pages":
                self._flip(part, range(100, part.stat().st_size, FLIP_EVERY_BYTES))

    def _flip(self, path: Path, places: range) -> None:
        content = bytearray(path.read_bytes())
        for place in places:
            content[place] ^= self._chance.randrange(1, 256)
        path.write_bytes(content)

    def _fill_disk(self, fault: Fault, struck: Struck) -> int:
        filler = self._state.parent / "filler"
        struck.struck = 1
        with filler.open("wb", buffering=0) as out:
            try:
                while True:
                    out.write(bytes(1 << 16))
            except OSError:
                pass
        self._expect_refusal("a full disk")
        filler.unlink()
        since_ms = _now_ms()
        self._start_again(fault)
        return since_ms

    def _expect_refusal(self, what: str) -> None:
        """The flow ends by itself, not with 0, and its last words say what to do about the state."""
        code = self._flow.wait_for_end(REFUSAL_SECONDS_MAX)
        said = self._flow.said_since_start()
        if code is None:
            raise ViolationError(f"{what}: it runs for {REFUSAL_SECONDS_MAX:g} s as if nothing was: {said[-2000:]}")
        last = said.strip().splitlines()[-1] if said.strip() else ""
        if code <= 0 or str(self._state) not in last:
            raise ViolationError(f"{what}: ended with {code} and these last words: {said[-2000:]}")
        with (self._folder / "refusals").open("a") as out:
            out.write(f"{what}: exit {code}: {last}\n")

    # What was read again

    def _read_again(self, since: float) -> list[ReadAgain]:
        path = self._faults_folder / "read-again.jsonl"
        lines = path.read_bytes().splitlines() if path.exists() else []
        found = [msgspec.json.decode(line, type=ReadAgain) for line in lines]
        return [one for one in found if one.at >= since and one.read > one.from_]

    def _read_again_since(self, since: float) -> int:
        return sum(one.read - one.from_ for one in self._read_again(since))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
