"""Peer: a plain Python loop, which keeps its state in a dict and writes it to a file every ten seconds."""

import os
import sys
import threading
import time
from pathlib import Path
from typing import Final

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, Producer, TopicPartition
from redis import Redis

from bench.peers.codecs import decode_movements, encode_crossing
from bench.peers.numbers import write_numbers
from bench.peers.options import (
    CROSSINGS,
    FETCH,
    MOVEMENTS,
    PRODUCE,
    SNAPSHOT_SECONDS,
    Options,
    options_from,
    told_to_stop,
    tune_garbage_collector,
)
from bench.peers.stock import Article, Movement, Taken, is_usable, new_article, read_rules, take

BATCH_MAX: Final = 40_000
BATCH_SECONDS_MAX: Final = 0.1
UNSENT_MAX: Final = 50_000
FLUSH_SECONDS_MAX: Final = 60.0


class Checkpoint(msgspec.Struct):
    """Every SKU's state, and the offset of the next message to read of each partition."""

    offsets: dict[int, int]
    articles: dict[str, Article]


def read_checkpoint(path: Path) -> Checkpoint:
    """What the file holds; nothing where there is none."""
    if not path.exists():
        return Checkpoint({}, {})
    return msgspec.msgpack.decode(path.read_bytes(), type=Checkpoint)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the file as a whole, and have it on the disk."""
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(msgspec.msgpack.encode(checkpoint))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


class Loop:
    """Reads a batch, applies it, writes what came of it, and reads the next."""

    def __init__(self, options: Options) -> None:
        self._rules = read_rules(options.rules)
        self._path = options.state / "checkpoint.msgpack"
        self._state = read_checkpoint(self._path)
        self._redis = Redis.from_url(options.redis_url)
        servers = {"bootstrap.servers": options.bootstrap_servers}
        self._producer = Producer({**servers, **PRODUCE, "queue.buffering.max.messages": 2 * UNSENT_MAX})
        self._consumer = Consumer(
            {
                **servers,
                **FETCH,
                "group.id": options.group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        self._failures: list[str] = []

    def run(self, stop: threading.Event) -> None:
        """Go on until told to stop; what Kafka or Redis refuses is raised."""
        self._consumer.subscribe([MOVEMENTS], on_assign=self._seek)
        due = time.monotonic() + SNAPSHOT_SECONDS
        while not stop.is_set():
            self._take(self._consumer.consume(BATCH_MAX, BATCH_SECONDS_MAX))
            if time.monotonic() >= due:
                self._save()
                due = time.monotonic() + SNAPSHOT_SECONDS
        self._save()
        self._consumer.close()
        self._redis.close()

    def _seek(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Go on where the checkpoint stands, which may be before what the group has committed."""
        for partition in partitions:
            partition.offset = self._state.offsets.get(partition.partition, OFFSET_BEGINNING)
        consumer.assign(partitions)

    def _take(self, messages: list[Message]) -> None:
        """Apply a batch; a SKU's last number is written once, every crossing is."""
        for message in messages:
            if error := message.error():
                raise KafkaException(error)
        latest: dict[str, Taken] = {}
        movements = decode_movements([message.value() or b"" for message in messages])
        for message, movement in zip(messages, movements, strict=True):
            offset = message.offset() or 0
            self._state.offsets[message.partition() or 0] = offset + 1
            if is_usable(movement):
                latest[movement.sku] = self._apply(movement, offset)
        write_numbers(self._redis, latest, self._rules)
        self._deliver()

    def _apply(self, movement: Movement, offset: int) -> Taken:
        article = self._state.articles.get(movement.sku)
        if article is None:
            article = self._state.articles[movement.sku] = new_article(self._rules)
        taken = take(article, movement, offset, self._rules)
        for crossing in taken.crossings:
            self._producer.produce(CROSSINGS, encode_crossing(crossing), movement.sku, on_delivery=self._delivered)
        return taken

    def _deliver(self) -> None:
        """Hear of what was delivered, and wait where too much was not."""
        self._producer.poll(0)
        while len(self._producer) > UNSENT_MAX:
            self._producer.poll(0.05)
        if self._failures:
            raise RuntimeError(f"Kafka did not take a crossing: {self._failures[0]}")

    def _delivered(self, error: object, _message: Message) -> None:
        if error is not None:
            self._failures.append(str(error))

    def _save(self) -> None:
        """Everything that came of the messages before the checkpoint is out before the checkpoint is written."""
        if self._producer.flush(FLUSH_SECONDS_MAX):
            raise RuntimeError(f"Kafka did not take every crossing within {FLUSH_SECONDS_MAX:.0f} s")
        self._deliver()
        write_checkpoint(self._path, self._state)
        offsets = [TopicPartition(MOVEMENTS, partition, offset) for partition, offset in self._state.offsets.items()]
        if offsets:
            self._consumer.commit(offsets=offsets, asynchronous=False)


def main() -> None:
    """Run the loop until SIGTERM."""
    options = options_from(sys.argv[1:])
    stop = told_to_stop()
    loop = Loop(options)
    tune_garbage_collector()
    loop.run(stop)


if __name__ == "__main__":
    main()
