"""Looking: a channel's look-ups in Redis at a fixed rate, each timed by itself; a companion of its own.

It reads as a channel would, with redis-py and hiredis over one connection. A look-up that had to wait for the one
before it counts from when it was due, so that a long answer is not told as a single slow look-up among quick ones. One
that waited for nothing counts from the call: how late a sleeping process is woken says nothing about Redis.
"""

import gc
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

import msgspec
from redis import Redis

from bench.companions import given_plan, hand_back, say_ready
from bench.sending import NS, Schedule
from sinks.redis_keys import availability_key

SKUS_AT_ONCE: Final = 20
WARM_UP_LOOKS: Final = 50
TIMES_NAME: Final = "times"

Kind = Literal["one", "twenty"]


class LookingPlan(msgspec.Struct, frozen=True):
    """What to look up, how often a second, and how many times."""

    redis_url: str
    prefix: str
    skus: list[str]
    channel: str
    kind: Kind
    rate: int
    count: int
    seed: int


class Looked(msgspec.Struct, frozen=True):
    """How it went; the nanoseconds of each look-up are in a file. `missing` are answers without a number."""

    missing: int
    seconds: float
    cpu_seconds: float


def main(arguments: list[str]) -> None:
    """Looks up what the plan in the directory that is named says."""
    directory = Path(arguments[0])
    plan = given_plan(directory, LookingPlan)
    with Redis.from_url(plan.redis_url) as client:
        ask = asking(client, plan)
        for number in range(min(WARM_UP_LOOKS, plan.count)):
            ask(number)
        gc.freeze()
        gc.disable()
        _sleep_until(say_ready())
        schedule, began = Schedule(time.perf_counter_ns(), plan.rate), time.process_time()
        times_ns, missing = look(schedule, plan.count, ask)
        seconds = (time.perf_counter_ns() - schedule.start_ns) / NS
        cpu_seconds = time.process_time() - began
    (directory / TIMES_NAME).write_bytes(times_ns.tobytes())
    hand_back(Looked(missing, seconds, cpu_seconds))


def asking(client: Redis, plan: LookingPlan) -> Callable[[int], list[Any]]:
    """The look-up of a number: which SKUs it asks for is drawn in advance."""
    random, keys = Random(plan.seed), [availability_key(plan.prefix, sku) for sku in plan.skus]
    if plan.kind == "one":
        drawn = random.choices(keys, k=plan.count)
        return lambda number: [client.hget(drawn[number], plan.channel)]
    drawn_lists = [random.choices(keys, k=SKUS_AT_ONCE) for _ in range(plan.count)]

    def twenty(number: int) -> list[Any]:
        with client.pipeline(transaction=False) as pipeline:
            for key in drawn_lists[number]:
                pipeline.hget(key, plan.channel)
            return pipeline.execute()

    return twenty


def look(
    schedule: Schedule,
    count: int,
    ask: Callable[[int], list[Any]],
    clock: Callable[[], int] = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple["array[int]", int]:
    """The nanoseconds that each of `count` look-ups took, and how many answers held no number."""
    times_ns, missing, answered_ns = array("q", bytes(8 * count)), 0, 0
    for number in range(count):
        due_ns, asked_ns = schedule.due_ns(number), clock()
        if asked_ns < due_ns:
            sleep((due_ns - asked_ns) / NS)
            asked_ns = clock()
        answer = ask(number)
        waited = answered_ns > due_ns
        answered_ns = clock()
        times_ns[number] = answered_ns - (due_ns if waited else asked_ns)
        missing += answer.count(None)
    return times_ns, missing


def times_in(directory: Path) -> "array[int]":
    """What `main` has written there."""
    times_ns = array("q")
    times_ns.frombytes((directory / TIMES_NAME).read_bytes())
    return times_ns


def _sleep_until(instant_ns: int) -> None:
    time.sleep(max(0, instant_ns - time.monotonic_ns()) / NS)


if __name__ == "__main__":
    main(sys.argv[1:])
