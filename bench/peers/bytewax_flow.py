"""Peer: an idiomatic Bytewax dataflow, with its own Kafka connectors, state by SKU and its recovery store."""

import signal
import sys
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Final

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from redis import Redis

from bench.peers.codecs import decode_article, decode_movements, encode_article, encode_crossing
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

BATCH_MAX: Final = 40_000

Message = KafkaSourceMessage[bytes | None, bytes | None]
Numbered = tuple[int, Movement]  # offset and movement


def availability_flow(options: Options, rules: Rules) -> Dataflow:
    """Movements ─▶ decode ─▶ stock by SKU ─▶ Redis · crossings."""
    brokers = [options.bootstrap_servers]
    flow = Dataflow("availability")
    source = KafkaSource(brokers, [MOVEMENTS], add_config=_texts(FETCH), batch_size=BATCH_MAX)
    messages = op.input("movements", flow, source)
    movements = op.flat_map_batch("decode", messages, decoded)  # type: ignore[arg-type]  # the source raises errors, it sends none
    taken = op.stateful_batch("stock", movements, lambda resumed: ArticleLogic(rules, resumed))
    op.output("redis", taken, RedisSink(options.redis_url, rules))
    crossed = op.flat_map("crossed", taken, lambda item: map(kafka_message, item[1].crossings))
    op.output("crossings", crossed, KafkaSink(brokers, CROSSINGS, add_config=_texts(PRODUCE)))
    return flow


def _texts(settings: dict[str, int]) -> dict[str, str]:
    """Settings as the connectors' signatures want them."""
    return {name: str(value).lower() for name, value in settings.items()}


def decoded(messages: list[Message]) -> list[tuple[str, Numbered]]:
    """A batch of messages as movements by SKU, each with its offset."""
    movements = decode_movements([message.value or b"" for message in messages])
    return [
        (movement.sku, (message.offset or 0, movement))
        for message, movement in zip(messages, movements, strict=True)
        if is_usable(movement)
    ]


def kafka_message(crossing: Crossing) -> KafkaSinkMessage[bytes, bytes]:
    """A crossing under its SKU."""
    return KafkaSinkMessage(crossing.sku.encode(), encode_crossing(crossing))


class ArticleLogic(StatefulBatchLogic[Numbered, Taken, bytes]):
    """One SKU: several movements at once give its last numbers and every crossing."""

    def __init__(self, rules: Rules, resumed: bytes | None) -> None:
        self._rules = rules
        self._article = new_article(rules) if resumed is None else decode_article(resumed)

    def on_batch(self, values: list[Numbered]) -> tuple[Iterable[Taken], bool]:
        """The movements that came together."""
        taken = [take(self._article, movement, offset, self._rules) for offset, movement in values]
        crossings = [crossing for one in taken for crossing in one.crossings]
        return [Taken(taken[-1].version, taken[-1].sellable, crossings)], StatefulBatchLogic.RETAIN

    def snapshot(self) -> bytes:
        """The state as it is now, in bytes, which nothing changes any more."""
        return encode_article(self._article)


class RedisPartition(StatelessSinkPartition[tuple[str, Taken]]):
    """A worker's connection to Redis."""

    def __init__(self, url: str, rules: Rules) -> None:
        self._client = Redis.from_url(url)
        self._rules = rules

    def write_batch(self, items: list[tuple[str, Taken]]) -> None:
        """Write the last numbers of each SKU in a batch."""
        write_numbers(self._client, dict(items), self._rules)

    def close(self) -> None:
        """Hang up."""
        self._client.close()


class RedisSink(DynamicSink[tuple[str, Taken]]):
    """Hashes in Redis; each worker writes its own SKUs."""

    def __init__(self, url: str, rules: Rules) -> None:
        self._url = url
        self._rules = rules

    def build(self, step_id: str, worker_index: int, worker_count: int) -> RedisPartition:
        """A connection for one worker."""
        return RedisPartition(self._url, self._rules)


def recovery_store(directory: Path) -> RecoveryConfig:
    """The store in a directory, made there if it is new."""
    if not directory.exists():
        directory.mkdir(parents=True)
        init_db_dir(directory, 1)  # type: ignore[no-untyped-call]
    return RecoveryConfig(directory, backup_interval=timedelta(0))  # type: ignore[no-untyped-call]  # as Bytewax has it


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the dataflow until SIGTERM, which is what Ctrl-C is to Bytewax."""
    options = options_from(sys.argv[1:])
    flow = availability_flow(options, read_rules(options.rules))
    store = recovery_store(options.state / "recovery")
    interval = timedelta(seconds=SNAPSHOT_SECONDS)
    signal.signal(signal.SIGTERM, _interrupt)
    tune_garbage_collector()
    try:
        cli_main(flow, epoch_interval=interval, recovery_config=store)  # type: ignore[no-untyped-call]
    except BytewaxRuntimeError as error:
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise


if __name__ == "__main__":
    main()
