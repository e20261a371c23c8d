"""The servers of a campaign, made new for each seed; and the load on its way to them."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from redis import Redis

from bench.drain import Raw, create_topics, wait_until
from bench.servers import KafkaBroker, RedisServer, free_port
from schemas.topics import MOVEMENTS, TOPICS
from tests.faults.proxy import Proxy
from tests.faults.writes import begin_anew

TOPIC_SECONDS_MAX: Final = 30.0
FLUSH_SECONDS_MAX: Final = 60.0
REST_SECONDS: Final = 0.01
ANSWER_SECONDS_MAX: Final = 5.0


class Servers:
    """One Kafka and one Redis for as long as this is entered, each also to be reached through a proxy.

    The broker names the proxy's port to whoever comes through the proxy, so that all of its traffic passes there.
    """

    def __init__(self) -> None:
        self.kafka = KafkaBroker()
        self.redis = RedisServer({"auto-aof-rewrite-percentage": "0"})  # what was written can be looked at
        self._kafka_behind = free_port()
        self._kafka_front = free_port()
        self._redis_front = free_port()
        self._stack = ExitStack()

    @property
    def kafka_through_proxy(self) -> str:
        """Kafka's address by way of the proxy."""
        return f"127.0.0.1:{self._kafka_front}"

    @property
    def redis_through_proxy(self) -> str:
        """Redis' address by way of the proxy."""
        return f"redis://127.0.0.1:{self._redis_front}/0"

    @property
    def redis_writes(self) -> Path:
        """Where Redis keeps its append-only files."""
        return self.redis.directory / "appendonlydir"

    def kafka_proxy(self, chance: random.Random) -> Proxy:
        """A proxy in front of the broker."""
        return Proxy(self._kafka_front, self._kafka_behind, chance)

    def redis_proxy(self, chance: random.Random) -> Proxy:
        """A proxy in front of Redis."""
        return Proxy(self._redis_front, self.redis.port, chance)

    def renew(self, partitions: int) -> None:
        """An empty, writable Redis and empty topics, whatever the seed before has left; servers that died are back."""
        for server in (self.kafka, self.redis):
            if server.pid is None:
                server.start()
        with Redis.from_url(self.redis.url, socket_timeout=ANSWER_SECONDS_MAX) as client:
            client.replicaof("NO", "ONE")
            client.config_set("maxmemory", "0")
            client.flushall()
            client.script_flush()
            begin_anew(client)
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap_servers, "log_level": 2})
        names = {topic.name for topic in TOPICS}
        there = names & set(admin.list_topics(timeout=10).topics)
        if there:
            for deleted in admin.delete_topics(sorted(there)).values():
                deleted.result(TOPIC_SECONDS_MAX)
            wait_until(
                lambda: not names & set(admin.list_topics(timeout=10).topics), TOPIC_SECONDS_MAX, "old topics to go"
            )
        create_topics(self.kafka.bootstrap_servers, partitions)
        wait_until(self._all_partitions_answer, TOPIC_SECONDS_MAX, "leaders of the new topics")

    def _all_partitions_answer(self) -> bool:
        """Topics just made have no leaders yet; what a start makes of that is not what is looked at here."""
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": "new", "log_level": 2})
        try:
            known = consumer.list_topics(timeout=10).topics
            for topic in TOPICS:
                for number in known[topic.name].partitions:
                    consumer.get_watermark_offsets(TopicPartition(topic.name, number), timeout=10)
        except (KafkaException, KeyError):
            return False
        finally:
            consumer.close()
        return True

    def __enter__(self) -> Self:
        properties = self.kafka.directory / "server.properties"
        properties.write_text(self._with_a_second_listener(properties.read_text()))
        self._stack.enter_context(self.kafka)
        self._stack.enter_context(self.redis)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _with_a_second_listener(self, text: str) -> str:
        more = {
            "listeners": f"PROXIED://127.0.0.1:{self._kafka_behind}",
            "advertised.listeners": f"PROXIED://127.0.0.1:{self._kafka_front}",
            "listener.security.protocol.map": "PROXIED:PLAINTEXT",
        }
        lines = [line.partition("=") for line in text.splitlines()]
        return "".join(f"{name}={value}{',' + more[name] if name in more else ''}\n" for name, _, value in lines)


class Sending:
    """Sends messages at a rate, in a thread of its own, until it is stopped; every acknowledged one is remembered."""

    def __init__(self, bootstrap_servers: str, messages: Iterator[Raw], messages_per_second: int) -> None:
        self.acknowledged: list[Raw] = []
        self._failure: str | None = None
        self._messages = messages
        self._rate = messages_per_second
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 5,
                "log_level": 2,
                "message.timeout.ms": int(FLUSH_SECONDS_MAX * 1000),
            }
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """No more; returns when all is acknowledged. RuntimeError where a message was not, which spoils the run."""
        self._stopping.set()
        self._thread.join(FLUSH_SECONDS_MAX)
        left = self._producer.flush(FLUSH_SECONDS_MAX)
        if left or self._failure:
            raise RuntimeError(f"the load did not get out: {self._failure or f'{left} messages'}")

    def halt(self) -> None:
        """No more, whatever is still under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(FLUSH_SECONDS_MAX)

    def _run(self) -> None:
        begun, sent = time.monotonic(), 0
        while not self._stopping.wait(REST_SECONDS):
            due = int((time.monotonic() - begun) * self._rate)
            while sent < due and not self._stopping.is_set():
                self._send(next(self._messages))
                sent += 1
            self._producer.poll(0)

    def _send(self, message: Raw) -> None:
        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                self.acknowledged.append(message)
            else:
                self._failure = self._failure or error.str()

        partition, key, payload = message
        while not self._stopping.is_set():
            try:
                self._producer.produce(MOVEMENTS.name, payload, key or None, partition, on_delivery=delivered)
            except BufferError:
                self._producer.poll(REST_SECONDS)
            else:
                return
