"""Probing: asks Redis for the version of every probe's SKU until it shows the probe; a companion of its own.

A round of questions goes out in one pipeline, at most once in ROUND_NS. Where more SKUs are waited for than fit into a
round, they take turns: what is asked of Redis stays bounded, and the resolution gets coarser, which is told. The offset
of a probe comes from the sender, mostly later than its effect; until then all that was seen of its SKU is kept.
"""

import gc
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from redis import Redis

from bench.companions import given_plan, hand_back, say_ready
from bench.prepared import Prepared
from bench.probes import UNKNOWN, Sheet, mapped
from bench.sending import NS, Schedule
from sinks.redis_keys import VERSION, availability_key

ROUND_NS: Final = 1_000_000
SKUS_PER_ROUND_MAX: Final = 64
NOT_SEEN: Final = -1


class ProbingPlan(msgspec.Struct, frozen=True):
    """Where to look, what schedule is kept, and when to give up after its end."""

    redis_url: str
    prefix: str
    rate: int
    count: int
    after_seconds_max: float


class Probed(msgspec.Struct, frozen=True):
    """What the looking cost."""

    rounds: int
    questions: int
    seconds: float
    cpu_seconds: float


class Sighting(NamedTuple):
    """A version first seen at `seen_ns`, and not yet by what was asked at `unseen_ns` (NOT_SEEN: never asked)."""

    version: int
    unseen_ns: int
    seen_ns: int


@dataclass(slots=True)
class _Watched:
    """A SKU that probes are waited for at."""

    waiting: deque[tuple[int, int]] = field(default_factory=deque)  # probe, its due instant; offsets grow
    sightings: deque[Sighting] = field(default_factory=deque)  # versions grow
    asked_ns: int = NOT_SEEN

    def sighting_of(self, offset: int) -> Sighting | None:
        """The first that shows the record at `offset`; those before it show no later one either, so they go.

        A version is the offset of the last record that the numbers reflect.
        """
        while self.sightings and self.sightings[0].version < offset:
            self.sightings.popleft()
        return self.sightings[0] if self.sightings else None


class Found(NamedTuple):
    """A probe whose effect was seen at `seen_ns`, and surely was not there at `unseen_ns`."""

    probe: int
    unseen_ns: int
    seen_ns: int


class Watch:
    """All SKUs that probes are waited for at, and what was seen of them."""

    def __init__(self) -> None:
        self._watched: dict[bytes, _Watched] = {}
        self._turns: deque[bytes] = deque()

    def __len__(self) -> int:
        return len(self._turns)

    def begin(self, probe: int, sku: bytes, due_ns: int) -> None:
        """Waits for `probe` from now on; it cannot be seen before it is due."""
        if sku not in self._watched:
            self._watched[sku] = _Watched()
            self._turns.append(sku)
        self._watched[sku].waiting.append((probe, due_ns))

    def turn(self) -> list[bytes]:
        """The SKUs that are to be asked for, those first that were not asked for longest."""
        skus = [self._turns[number] for number in range(min(SKUS_PER_ROUND_MAX, len(self._turns)))]
        self._turns.rotate(-len(skus))
        return skus

    def saw(self, sku: bytes, version: int, asked_ns: int, answered_ns: int) -> None:
        """Takes an answer: the hash of `sku` had `version` (NOT_SEEN: no hash) between the two instants."""
        watched = self._watched[sku]
        if not watched.sightings or watched.sightings[-1].version < version:
            watched.sightings.append(Sighting(version, watched.asked_ns, answered_ns))
        watched.asked_ns = asked_ns

    def found(self, sku: bytes, offset_of: Callable[[int], int]) -> list[Found]:
        """Probes at `sku` that have been seen; they are waited for no more. `offset_of` a probe may be UNKNOWN yet."""
        watched, found = self._watched[sku], list[Found]()
        while watched.waiting:
            probe, due_ns = watched.waiting[0]
            offset = offset_of(probe)
            sighting = None if offset == UNKNOWN else watched.sighting_of(offset)
            if sighting is None:
                return found
            watched.waiting.popleft()
            found.append(Found(probe, max(due_ns, sighting.unseen_ns), sighting.seen_ns))
        del self._watched[sku]
        self._turns.remove(sku)
        return found


def main(arguments: list[str]) -> None:
    """Looks for the probes on the sheet in the directory that is named."""
    directory = Path(arguments[0])
    plan = given_plan(directory, ProbingPlan)
    sheet = mapped(directory)
    skus = _skus_of(Prepared.opened(directory), sheet["message"].tolist())
    with Redis.from_url(plan.redis_url) as client:
        client.ping()
        gc.freeze()
        gc.disable()
        schedule = Schedule(say_ready(), plan.rate)
        give_up_ns = schedule.due_ns(plan.count) + round(plan.after_seconds_max * NS)
        hand_back(_Probing(client, plan.prefix, schedule, sheet, skus).run(give_up_ns))


def _skus_of(prepared: Prepared, messages: Iterable[int]) -> list[bytes]:
    return [prepared.between(number, number + 1)[0][1] for number in messages]


class _Probing:
    """The rounds of one run."""

    def __init__(self, client: Redis, prefix: str, schedule: Schedule, sheet: Sheet, skus: list[bytes]) -> None:
        self._connection = client.connection_pool.get_connection()
        self._sheet = sheet
        self._skus = skus
        self._packed_questions = {sku: self._packed(availability_key(prefix, sku.decode())) for sku in skus}
        self._due_ns = [schedule.due_ns(number) for number in sheet["message"].tolist()]
        self._watch = Watch()
        self._begun = 0
        self._rounds = 0
        self._questions = 0

    def run(self, give_up_ns: int) -> Probed:
        """Looks until every probe was seen, or for as long as there is."""
        began_ns, before = time.monotonic_ns(), time.process_time()
        while (self._watch or self._begun < len(self._skus)) and (now_ns := time.monotonic_ns()) < give_up_ns:
            self._begin(now_ns)
            if self._watch:
                self._round()
            _sleep_until(now_ns + ROUND_NS if self._watch else self._next_due_ns(now_ns))
        seconds = (time.monotonic_ns() - began_ns) / NS
        return Probed(self._rounds, self._questions, seconds, time.process_time() - before)

    def _begin(self, now_ns: int) -> None:
        while self._next_due_ns(now_ns + 1) <= now_ns:
            self._watch.begin(self._begun, self._skus[self._begun], self._due_ns[self._begun])
            self._begun += 1

    def _next_due_ns(self, otherwise_ns: int) -> int:
        return self._due_ns[self._begun] if self._begun < len(self._due_ns) else otherwise_ns

    def _round(self) -> None:
        skus = self._watch.turn()
        question = b"".join([self._packed_questions[sku] for sku in skus])
        asked_ns = time.monotonic_ns()
        self._connection.send_packed_command([question])  # type: ignore[no-untyped-call]  # as redis-py has it
        versions = [self._connection.read_response() for _ in skus]
        answered_ns = time.monotonic_ns()
        for sku, version in zip(skus, versions, strict=True):
            self._watch.saw(sku, NOT_SEEN if version is None else int(version), asked_ns, answered_ns)
            for probe, unseen_ns, seen_ns in self._watch.found(sku, self._offset_of):
                row = self._sheet[probe]
                row["unseen_ns"] = unseen_ns
                row["seen_ns"] = seen_ns
        self._rounds += 1
        self._questions += len(skus)

    def _packed(self, key: str) -> bytes:
        """The question as it goes over the wire; made once, since a pipeline of redis-py costs seven times as much."""
        return b"".join(self._connection.pack_command("HGET", key, VERSION))  # type: ignore[no-untyped-call]

    def _offset_of(self, probe: int) -> int:
        return int(self._sheet["offset"][probe])


def _sleep_until(instant_ns: int) -> None:
    """Sleeps where there is something to sleep for."""
    if (left_ns := instant_ns - time.monotonic_ns()) > 0:
        time.sleep(left_ns / NS)


if __name__ == "__main__":
    main(sys.argv[1:])
