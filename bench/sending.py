"""Sending: prepared messages into Kafka when they are due, whatever becomes of them; a companion of its own.

The schedule is fixed in advance: message n is due n / rate seconds after the start. A sender that was held up sends
what has become due meanwhile at once, and every message keeps the instant at which it was due. So a wait of anything,
the sender among them, counts for each message that it delays (no coordinated omission).
"""

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from bench.companions import given_plan, hand_back, say_ready
from bench.drain import READ_SECONDS_MAX, BenchError, producer_settings
from bench.prepared import Prepared
from bench.probes import Sheet, mapped
from schemas.topics import MOVEMENTS

NS: Final = 1_000_000_000
NAP_NS_MIN: Final = 200_000  # shorter waits are saved up: a few messages late by that much, instead of a spinning core
REST_SECONDS_MAX: Final = 0.001
NEVER_NS: Final = (1 << 63) - 1
BURST_MAX: Final = 500  # messages, then acknowledgements are taken
LINGER_MS: Final = 5  # as librdkafka ships
QUEUE_MESSAGES_MAX: Final = 1_000_000


class SendingPlan(msgspec.Struct, frozen=True):
    """What to send, how many a second, and when to give up after the end of the schedule."""

    bootstrap_servers: str
    rate: int
    count: int
    after_seconds_max: float


class Sent(msgspec.Struct, frozen=True):
    """How the sending went: how many messages, how many of them Kafka did not take, and how late the latest was."""

    count: int
    unacknowledged: int
    late_ns_max: int
    seconds: float
    cpu_seconds: float


class Schedule(NamedTuple):
    """Which message is due when."""

    start_ns: int
    rate: int  # a second

    def due_ns(self, number: int) -> int:
        """The instant for which message `number` was intended."""
        return self.start_ns + number * NS // self.rate

    def due_by(self, now_ns: int) -> int:
        """How many messages are due at `now_ns`."""
        return 0 if now_ns < self.start_ns else ((now_ns - self.start_ns + 1) * self.rate - 1) // NS + 1


def main(arguments: list[str]) -> None:
    """Sends what was prepared in the directory that is named."""
    directory = Path(arguments[0])
    plan = given_plan(directory, SendingPlan)
    sender = _Sender(plan.bootstrap_servers, Prepared.opened(directory), mapped(directory))
    gc.freeze()
    gc.disable()
    schedule, began = Schedule(say_ready(), plan.rate), time.process_time()
    give_up_ns = schedule.due_ns(plan.count) + round(plan.after_seconds_max * NS)
    count, late_ns_max = keep(schedule, plan.count, sender.send, sleep=sender.rest, give_up_ns=give_up_ns)
    seconds = (time.monotonic_ns() - schedule.start_ns) / NS
    cpu_seconds = time.process_time() - began
    unacknowledged = sender.settle()
    hand_back(Sent(count, unacknowledged, late_ns_max, seconds, cpu_seconds))


def keep(
    schedule: Schedule,
    count: int,
    send: Callable[[int, int], None],
    clock: Callable[[], int] = time.monotonic_ns,
    sleep: Callable[[float], None] = time.sleep,
    give_up_ns: int = NEVER_NS,
) -> tuple[int, int]:
    """Sends `count` messages by the schedule, `send(first, end)` at a time.

    Returns how many were sent, fewer where it had to give up, and by how much the latest was late: when `send` had
    returned, against the instant at which its first message was due.
    """
    sent, late_ns_max = 0, 0
    while sent < count and (now_ns := clock()) < give_up_ns:
        end = min(schedule.due_by(now_ns), sent + BURST_MAX, count)
        if end > sent:
            send(sent, end)
            late_ns_max = max(late_ns_max, clock() - schedule.due_ns(sent))
            sent = end
        if sent < count and (early_ns := schedule.due_ns(sent) - clock()) > 0:
            sleep(max(early_ns, NAP_NS_MIN) / NS)
    return sent, late_ns_max


class _Sender:
    """A producer of prepared messages that notes on the sheet what becomes of probes."""

    def __init__(self, bootstrap_servers: str, prepared: Prepared, sheet: Sheet) -> None:
        self._prepared = prepared
        self._sheet = sheet
        self._messages = [*sheet["message"].tolist(), -1]
        self._next = 0  # probe
        self._failure: KafkaError | None = None
        self._producer = Producer(
            producer_settings(bootstrap_servers, LINGER_MS, QUEUE_MESSAGES_MAX) | {"error_cb": self._failed}
        )
        self._producer.list_topics(MOVEMENTS.name, timeout=READ_SECONDS_MAX)  # connected before the clock runs

    def send(self, first: int, end: int) -> None:
        """Hands messages `first` to `end` − 1 to the producer; waits where its queue is full."""
        for number, (partition, key, payload) in enumerate(self._prepared.between(first, end), first):
            if number == self._messages[self._next]:
                self._produce(partition, key, payload, self._noting(self._next))
                self._next += 1
            else:
                self._produce(partition, key, payload, None)
        self._producer.poll(0)
        self._check()

    def rest(self, seconds: float) -> None:
        """Sleeps for at most REST_SECONDS_MAX of `seconds`, so that acknowledgements are noted when they come."""
        self._producer.poll(0)
        time.sleep(min(seconds, REST_SECONDS_MAX))

    def settle(self) -> int:
        """Waits until everything is acknowledged; returns how many messages are not, in the time that there is."""
        unacknowledged: int = self._producer.flush(READ_SECONDS_MAX)
        self._check()
        return unacknowledged

    def _check(self) -> None:
        if self._failure is not None:
            raise BenchError(f"Kafka did not take the load: {self._failure}")

    def _produce(
        self, partition: int, key: bytes, payload: bytes, delivered: Callable[[KafkaError | None, Message], None] | None
    ) -> None:
        while True:
            try:
                self._producer.produce(MOVEMENTS.name, payload, key, partition, on_delivery=delivered)
                return
            except BufferError:
                self._producer.poll(0.001)

    def _noting(self, probe: int) -> Callable[[KafkaError | None, Message], None]:
        row = self._sheet[probe]
        row["sent_ns"] = time.monotonic_ns()

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._failure = error
                return
            row["acknowledged_ns"] = time.monotonic_ns()
            row["offset"] = message.offset()

        return delivered

    def _failed(self, error: KafkaError) -> None:
        if error.fatal():
            self._failure = error


if __name__ == "__main__":
    main(sys.argv[1:])
