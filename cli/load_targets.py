"""Where generated movements go: a Kafka topic, a Redis stream, or lines in a file or on standard output."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from redis import Redis

from bench.generate import Message as Movement
from cli.configuration import Configuration
from cli.connections import cluster_of, kafka_admin, kafka_config, kafka_failure, redis_client
from cli.failures import CliError
from cli.screen import ReaderGone
from schemas.settings import Settings

STDOUT: Final = Path("-")
FLUSH_SECONDS_MAX: Final = 30.0
FULL_QUEUE_SECONDS: Final = 0.1
STREAM_ENTRIES_AT_ONCE: Final = 100
PRODUCER: Final = {"acks": "all", "enable.idempotence": True, "linger.ms": 5, "compression.type": "lz4"}


class Target(ABC):
    """A receiver of messages with `partitions`; what was sent has arrived once `flush` returns."""

    def __init__(self, name: str, partitions: int = 1) -> None:
        self.name = name
        self.partitions = partitions
        self.sent = 0

    @abstractmethod
    def send(self, message: Movement) -> None:
        """Send without waiting for it to arrive; CliError where nothing arrives any more."""

    @abstractmethod
    def flush(self) -> None:
        """Wait until all has arrived, within bounds; CliError where something does not."""

    @abstractmethod
    def pass_on(self) -> None:
        """Let go of what is held back, because nothing more comes for a moment."""


@contextmanager
def open_target(configuration: Configuration, to: Path | None) -> Iterator[Target]:
    """The configured input, or the file `to`; CliError where it cannot be reached, or does not exist."""
    settings = configuration.settings
    if to is not None or settings.input.kind == "jsonl":
        with _opened(to or configuration.at(settings.input.topic)) as target:
            yield target
    elif settings.input.kind == "kafka":
        yield KafkaTarget(settings)
    else:
        with redis_client(configuration) as client:
            yield StreamTarget(client, settings.input.topic)


class KafkaTarget(Target):
    """The topic of the settings; messages go to the partitions that the generator chose."""

    def __init__(self, settings: Settings) -> None:
        topic = settings.input.topic
        topics = cluster_of(kafka_admin(settings.kafka), settings.kafka).topics
        if topic not in topics:
            raise CliError(f"there is no topic {topic}; make it with `onhand topics create`")
        super().__init__(topic, len(topics[topic].partitions))
        self._kafka = settings.kafka
        self._producer = Producer({**PRODUCER, **kafka_config(settings.kafka)})
        self._failure: KafkaError | None = None

    def send(self, message: Movement) -> None:
        """Hand it to librdkafka, which sends it within milliseconds."""
        partition, key, payload = message
        self._check()
        while True:
            try:
                self._producer.produce(self.name, payload, key or None, partition, on_delivery=self._delivered)
                break
            except BufferError:
                self._producer.poll(FULL_QUEUE_SECONDS)
                self._check()
        self._producer.poll(0)
        self.sent += 1

    def flush(self) -> None:
        """Wait for the acknowledgements of all brokers that must have it."""
        waiting = self._producer.flush(FLUSH_SECONDS_MAX)
        self._check()
        if waiting:
            raise CliError(f"{waiting} messages were not acknowledged within {FLUSH_SECONDS_MAX:.0f} s")

    def pass_on(self) -> None:
        """Hear of what has arrived; librdkafka holds nothing back for longer than linger.ms."""
        self._producer.poll(0)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        self._failure = self._failure or error

    def _check(self) -> None:
        if self._failure is not None:
            raise kafka_failure(self._kafka, KafkaException(self._failure))


class StreamTarget(Target):
    """A Redis stream, an entry per message with its payload and key."""

    def __init__(self, client: Redis, stream: str) -> None:
        super().__init__(stream)
        self._pipeline = client.pipeline(transaction=False)

    def send(self, message: Movement) -> None:
        """Add it, together with those before it."""
        _, key, payload = message
        self._pipeline.xadd(self.name, {"key": key, "payload": payload} if key else {"payload": payload})
        self.sent += 1
        if self.sent % STREAM_ENTRIES_AT_ONCE == 0:
            self.flush()

    def flush(self) -> None:
        """Add what is still held back."""
        self._pipeline.execute()

    def pass_on(self) -> None:
        """Add what is still held back."""
        self.flush()


class LinesTarget(Target):
    """A file, or standard output: the payloads as lines."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        super().__init__(name)
        self._file = file

    def send(self, message: Movement) -> None:
        """Write one line; ReaderGone where nobody reads standard output any more."""
        try:
            self._file.write(message[2] + b"\n")
        except BrokenPipeError:
            raise ReaderGone from None
        self.sent += 1

    def flush(self) -> None:
        """Hand all lines to the system."""
        try:
            self._file.flush()
        except BrokenPipeError:
            raise ReaderGone from None

    def pass_on(self) -> None:
        """Hand all lines to the system."""
        self.flush()


@contextmanager
def _opened(path: Path) -> Iterator[LinesTarget]:
    if path.name == STDOUT.name:
        yield LinesTarget("standard output", sys.stdout.buffer)
        return
    try:
        file = path.open("wb")
    except OSError as error:
        raise CliError(f"{path} cannot be written: {error.strerror}") from error
    with file:
        yield LinesTarget(str(path), file)
