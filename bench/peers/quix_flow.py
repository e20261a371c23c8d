"""Peer: an idiomatic Quix Streams application, with its state in RocksDB and a changelog topic."""

import sys
import threading
from collections.abc import Callable
from typing import Final

from quixstreams import Application, State, message_context
from quixstreams.models import JSONDeserializer, JSONSerializer
from quixstreams.sinks.base import BaseSink
from redis import Redis, RedisError

from bench.peers.codecs import decode_article, decode_movement, encode_article, encode_crossing
from bench.peers.numbers import write_numbers
from bench.peers.options import (
    CROSSINGS,
    FETCH,
    MOVEMENTS,
    PRODUCE,
    SNAPSHOT_SECONDS,
    Options,
    options_from,
    tune_garbage_collector,
)
from bench.peers.stock import Crossing, Movement, Rules, Taken, is_usable, new_article, read_rules, take

SKUS_MAX: Final = 1000  # that wait to be written
WAIT_SECONDS_MAX: Final = 0.1  # of a number to be written
ARTICLE: Final = "article"


def availability_application(options: Options, rules: Rules) -> Application:
    """Movements ─▶ stock by SKU ─▶ Redis · crossings."""
    application = Application(
        broker_address=options.bootstrap_servers,
        consumer_group=options.group,
        auto_offset_reset="earliest",
        commit_interval=SNAPSHOT_SECONDS,
        consumer_extra_config=FETCH,
        producer_extra_config=PRODUCE,
        state_dir=options.state,
        loglevel="WARNING",
    )
    movements = application.topic(MOVEMENTS, value_deserializer=JSONDeserializer(loads=decode_movement))
    crossings = application.topic(CROSSINGS, value_serializer=JSONSerializer(dumps=encode_crossing))
    taken = application.dataframe(movements).filter(is_usable).apply(stock(rules), stateful=True)
    taken.sink(RedisSink(options.redis_url, rules))
    taken.apply(crossed, expand=True).to_topic(crossings)
    return application


def stock(rules: Rules) -> Callable[[Movement, State], Taken]:
    """The stateful step: a movement against its SKU's state."""

    def take_one(movement: Movement, state: State) -> Taken:
        known = state.get_bytes(ARTICLE)
        article = new_article(rules) if known is None else decode_article(known)
        taken = take(article, movement, message_context().offset, rules)
        state.set_bytes(ARTICLE, encode_article(article))
        return taken

    return take_one


def crossed(taken: Taken) -> list[Crossing]:
    """The crossings of a movement, mostly none."""
    return taken.crossings


class RedisSink(BaseSink):  # type: ignore[misc]  # the library is not in the environment that is checked
    """Hashes in Redis: written when many wait or one has waited long, and all of them before each checkpoint.

    The sinks that the library ships write at the checkpoint alone, so that numbers would be ten seconds old.
    """

    def __init__(self, url: str, rules: Rules) -> None:
        super().__init__()
        self._url = url
        self._rules = rules
        self._lock = threading.Lock()
        self._latest: dict[str, Taken] = {}
        self._client: Redis | None = None
        self._failure: RedisError | None = None

    def setup(self) -> None:
        """Connect, and begin to look after what waits."""
        self._client = Redis.from_url(self._url)
        self._client.ping()
        threading.Thread(target=self._write_what_waits, daemon=True).start()

    def add(
        self,
        value: Taken,
        key: bytes,
        timestamp: int,
        headers: object,
        topic: str,
        partition: int,
        offset: int,
    ) -> None:
        """Take in the numbers of one SKU."""
        with self._lock:
            self._latest[key.decode()] = value
            if len(self._latest) >= SKUS_MAX:
                self._write()

    def flush(self) -> None:
        """Write all; what Redis refuses fails the checkpoint."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._client is not None and self._latest:
            write_numbers(self._client, self._latest, self._rules)
            self._latest.clear()

    def _write_what_waits(self) -> None:
        """Until the process ends, or Redis refuses, which the next write raises."""
        pause = threading.Event()
        while self._failure is None:
            pause.wait(WAIT_SECONDS_MAX)
            with self._lock:
                try:
                    self._write()
                except RedisError as error:
                    self._failure = error


def main() -> None:
    """Run the application until SIGTERM."""
    options = options_from(sys.argv[1:])
    application = availability_application(options, read_rules(options.rules))
    tune_garbage_collector()
    application.run()


if __name__ == "__main__":
    main()
