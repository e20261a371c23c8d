"""The servers that other tests trust: they start, answer, keep their data, and leave nothing behind."""

import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from redis import Redis
from redis import TimeoutError as RedisTimeoutError

from bench import servers
from bench.servers import KafkaBroker, RedisServer, Server, ServerError

ANSWER_SECONDS_MAX = 20.0

STARTS_A_REDIS_AND_WAITS = """
import time
from bench.servers import RedisServer
with RedisServer() as server:
    print(server.pid, server.directory, flush=True)
    time.sleep(60)
"""


def produce(broker: KafkaBroker, topic: str, value: bytes) -> None:
    """Write one record and wait for its acknowledgement."""
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "acks": "all"})
    producer.produce(topic, value, partition=0)
    assert producer.flush(ANSWER_SECONDS_MAX) == 0


def first_value(broker: KafkaBroker, topic: str) -> bytes | None:
    """Read the first record of partition 0."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": f"test-{uuid.uuid4()}"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    message = consumer.poll(ANSWER_SECONDS_MAX)
    consumer.close()
    assert message is not None
    return message.value()


def test_kafka_hands_back_what_was_written(kafka: KafkaBroker, topic: Callable[..., str]) -> None:
    """A topic made for this test has the partitions asked for and returns its record."""
    name = topic(3)
    produce(kafka, name, b"hello")
    found = AdminClient({"bootstrap.servers": kafka.bootstrap_servers}).list_topics(name, ANSWER_SECONDS_MAX)
    assert len(found.topics[name].partitions) == 3
    assert first_value(kafka, name) == b"hello"


def test_topics_of_two_calls_differ(topic: Callable[..., str]) -> None:
    """No test meets another's records."""
    assert topic() != topic()


def test_kafka_keeps_records_over_a_kill_and_a_stop() -> None:
    """A broker that comes back has the same address and the same records."""
    with KafkaBroker() as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(ANSWER_SECONDS_MAX)
        produce(broker, "kept", b"still there")
        broker.kill()
        broker.start()
        assert first_value(broker, "kept") == b"still there"
        broker.stop()
        broker.start()
        assert first_value(broker, "kept") == b"still there"


def test_the_redis_of_a_test_is_empty_and_answers(redis: Redis) -> None:
    """Each test begins with nothing in Redis."""
    assert redis.dbsize() == 0
    redis.set("sku", 3)
    assert redis.get("sku") == b"3"


@pytest.mark.parametrize("end", [RedisServer.stop, RedisServer.kill])
def test_redis_keeps_keys_over_a_restart(end: Callable[[RedisServer], None]) -> None:
    """A Redis that comes back has the same address and the same keys, however it ended."""
    with RedisServer() as server, Redis.from_url(server.url) as client:
        client.set("sku", 3)
        end(server)
        assert server.pid is None
        server.start()
        assert client.get("sku") == b"3"


def test_redis_takes_options() -> None:
    """A test says how much memory Redis may use and what happens beyond it."""
    with RedisServer({"maxmemory": "8mb"}) as server, Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory")["maxmemory"] == str(8 * 1024 * 1024)


def test_a_frozen_redis_answers_when_thawed() -> None:
    """Freezing takes the answers away at once and keeps the connections."""
    with RedisServer() as server, Redis.from_url(server.url, socket_timeout=0.3, retry=None) as client:
        client.ping()
        server.freeze()
        assert psutil.Process(server.pid).status() == psutil.STATUS_STOPPED
        with pytest.raises(RedisTimeoutError):
            client.ping()
        server.thaw()
        assert client.ping()


def test_the_end_of_a_server_takes_its_process_and_directory() -> None:
    """Nothing is left after the context ends."""
    with RedisServer() as server:
        process = psutil.Process(server.pid)
    assert not process.is_running()
    assert not server.directory.exists()


def test_a_server_dies_with_its_killed_starter() -> None:
    """A starter that is killed cannot clean up, so the kernel ends its server."""
    command = [sys.executable, "-c", STARTS_A_REDIS_AND_WAITS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=servers.CHECKOUT) as starter:
        assert starter.stdout is not None
        pid, directory = starter.stdout.readline().split()
        server = psutil.Process(int(pid))
        starter.send_signal(signal.SIGKILL)
    psutil.wait_procs([server], timeout=ANSWER_SECONDS_MAX)
    assert not server.is_running()
    shutil.rmtree(directory)


def test_a_failed_start_shows_the_log_and_leaves_no_process() -> None:
    """Who reads the error sees what the server said."""
    server = RedisServer({"maxmemory": "a lot"})
    with pytest.raises(ServerError, match=r"(?s)exited while starting.*maxmemory"):
        server.start()
    assert server.pid is None
    shutil.rmtree(server.directory)


def test_a_start_without_an_answer_is_bounded(tmp_path: Path) -> None:
    """A server that never answers is given up and ended in the time it was given."""
    server = Server(["sleep", "60"], tmp_path, answers=lambda: False, start_seconds_max=0.3)
    began = time.monotonic()
    with pytest.raises(ServerError, match="gave no answer in"):
        server.start()
    assert time.monotonic() - began < 5
    assert server.pid is None


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Java is told what to install."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ServerError, match="apt-get install default-jre-headless"):
        KafkaBroker()


def test_jars_that_are_there_are_not_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Maven the jars of an earlier run will do."""
    jars = servers.ensure_kafka_jars()
    monkeypatch.setenv("PATH", "")
    assert servers.ensure_kafka_jars() == jars
    assert list(jars.glob("kafka_2.13-*.jar"))
