"""Runs of all lanes over some logs, in any pieces, with snapshots and restarts, and what readers are left with."""

from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

import msgspec
import numpy as np
from hypothesis import strategies as st

from bench.oracle import Message, Oracle
from operators.keeping import BaseTurns, Changes, Keeping, Limits, Restored, restored
from operators.lane import Lane, LaneSettings
from operators.route import Item, Part, route
from operators.rules import RuleBook
from operators.snapshots import SnapshotError
from schemas.batches import Batch
from schemas.outputs import (
    Availability,
    Divergence,
    LaneResult,
    Replenishment,
    Reservation,
    ShadowDifference,
    Threshold,
)
from schemas.rules import Rules
from tests.movement_strategies import AS_OF_MS, DEDUPE_MS, Logs

INCARNATION = 1_763_800_000
CHANGES_PREFERRED = Limits(base_bytes_min=0, share=10_000.0, cost_max=1_000_000, calm=1.0)
_encode = msgspec.json.Encoder().encode


class Feed(NamedTuple):
    """Read the next `messages` of one log as one batch."""

    log: int
    messages: int


class Work(NamedTuple):
    """Let every lane apply what has been read."""


class Save(NamedTuple):
    """Snapshot every lane, between two activations, and go on with lanes restored from that.

    `whole`: all of their state is packed; else they may be kept as a base and what they were given since, and a lane
    that has just begun a base goes on as it is.
    """

    whole: bool = True


class Prepare(NamedTuple):
    """It is shortly before the end of an epoch, and every lane may be packed that would be packed then."""


class Restart(NamedTuple):
    """Begin anew from the last snapshots, and read `again` messages of each log a second time."""

    again: int


Step = Feed | Work | Save | Prepare | Restart
EPOCH_SECONDS = 10.0


def steps(*, restarts: bool = True) -> st.SearchStrategy[list[Step]]:
    """Some steps of a run; what they leave unread is read at the end."""
    feed = st.builds(Feed, st.integers(0, 2), st.integers(1, 12) | st.just(700))
    others: list[st.SearchStrategy[Step]] = [st.just(Work()), st.builds(Save, st.booleans())]
    if restarts:
        others += [st.builds(Restart, st.integers(0, 5)), st.just(Prepare())]
    return st.lists(st.one_of(feed, feed, feed, *others), max_size=25)


class BasesInMemory:
    """Bases that are kept at once."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def keep(self, name: str, blob: bytes) -> None:
        """Keeps it."""
        self.blobs[name] = blob

    def has(self, name: str) -> bool:
        """Whether it was kept and not let go."""
        return name in self.blobs

    def read(self, name: str) -> bytes:
        """As it was kept."""
        if name not in self.blobs:
            raise SnapshotError(f"no base {name}")
        return self.blobs[name]

    def keep_only(self, lane: int, names: Collection[str]) -> None:
        """Lets all others of the lane go."""
        gone = [name for name in self.blobs if name.startswith(f"lane-{lane}-") and name not in names]
        for name in gone:
            del self.blobs[name]


class Run:
    """Lanes, how far the logs are read, and what sinks were given; a repeated record must be equal to the first."""

    def __init__(
        self,
        logs: Logs,
        rules: Rules,
        lanes: int = 1,
        as_of_ms: int = AS_OF_MS,
        *,
        dedupe_ms: int = DEDUPE_MS,
        shadow: Rules | None = None,
        limits: Limits = CHANGES_PREFERRED,
    ) -> None:
        self._limits = limits
        self._logs = logs
        self._book = RuleBook(rules)
        self._shadow = None if shadow is None else RuleBook(shadow)
        self._settings = LaneSettings(lanes, INCARNATION, dedupe_ms, as_of_ms)
        self._lanes = [Lane(number, self._book, self._settings, self._shadow) for number in range(lanes)]
        self._bases, self._turns = BasesInMemory(), BaseTurns(EPOCH_SECONDS)
        self._began = self._now = 0.0  # seconds: when the epoch has begun, and what clocks show
        self.prepared = 0  # lanes that were packed before the end of an epoch
        self._keepings = [self._keeping(lane) for lane in self._lanes]
        self.saved_as_changes = 0  # lanes
        self._read = [0] * len(logs)
        self._waiting: list[list[Item | Part]] = [[] for _ in range(lanes)]
        self._saved: tuple[list[bytes], list[int], Counter[str]] | None = None
        self.order: list[Message] = []  # as they were read
        self.availability: dict[str, Availability] = {}  # as a reader of Redis sees it
        self.thresholds: dict[str, bytes] = {}
        self.divergences: dict[str, Divergence] = {}
        self.reservations: dict[str, Reservation] = {}
        self.replenishments: dict[str, Replenishment] = {}
        self.shadow: dict[str, ShadowDifference] = {}
        self.dead_letters: dict[str, bytes] = {}
        self.reasons: dict[str, str] = {}
        self.counts: Counter[str] = Counter()

    @property
    def lanes(self) -> list[Lane]:
        """As they are now."""
        return self._lanes

    def take(self, steps: Iterable[Step]) -> "Run":
        """Take the steps, and then whatever is left in the logs."""
        self.take_only(steps)
        self._read_all()
        return self

    def take_only(self, steps: Iterable[Step]) -> None:
        """Take the steps."""
        for step in steps:
            match step:
                case Feed(log, count):
                    self._feed(log % len(self._logs), count)
                case Work():
                    self._work()
                case Save(whole):
                    self._save(whole=whole)
                case Prepare():
                    self._prepare()
                case Restart(again):
                    self._restart(again)

    def go_on(self, more: Logs) -> "Run":
        """Read further messages at the end of each log, after all that was there before."""
        self._logs = tuple((*log, *messages) for log, messages in zip(self._logs, more, strict=True))
        self._read_all()
        return self

    def _read_all(self) -> None:
        for log, messages in enumerate(self._logs):
            self._feed(log, len(messages))
        self._work()

    def _feed(self, log: int, count: int) -> None:
        begin = self._read[log]
        messages = self._logs[log][begin : begin + count]
        if not messages:
            return
        self._read[log] += len(messages)
        self.order.extend(messages)
        for lane, item in route(batch_of(messages), len(self._lanes)):
            self._waiting[lane].append(item)

    def _work(self) -> None:
        for lane, keeping, waiting in zip(self._lanes, self._keepings, self._waiting, strict=True):
            keeping.given(waiting)
            self._sink(lane.apply(waiting))
            assert_columns_known(lane)
            assert_loops_meet_no_obligations(lane)
            waiting.clear()

    def _keeping(self, lane: Lane, changes: Changes | None = None) -> Keeping:
        return Keeping(lane, self._bases, self._turns, changes, self._limits, lambda: self._now)

    def _prepare(self) -> None:
        self._work()
        self._now = self._began + EPOCH_SECONDS - 1
        before = len(self._bases.blobs)
        for keeping in self._keepings:
            keeping.prepare()
        self.prepared += len(self._bases.blobs) - before

    def _save(self, *, whole: bool) -> None:
        self._work()
        self._began = self._now = self._began + EPOCH_SECONDS
        if whole or self._shadow is not None:
            blobs = [lane.snapshot() for lane in self._lanes]
        else:
            blobs = [keeping.snapshot() for keeping in self._keepings]
        self._saved = blobs, list(self._read), Counter(self.counts)
        found = [self._restored(number, blob) for number, blob in enumerate(blobs)]
        for number, one in enumerate(found):
            if whole or one.changes is not None:
                self._lanes[number], self._keepings[number] = one.lane, self._keeping(*one)
        self.saved_as_changes += sum(one.changes is not None for one in found)

    def _restart(self, again: int) -> None:
        """What was read since the snapshot is read again; what was put out stays with its readers."""
        if self._saved is None:
            return
        blobs, read, counts = self._saved
        self._restore(blobs)
        self._read = [max(0, place - again) for place in read]
        self._waiting = [[] for _ in self._lanes]
        self.counts = Counter(counts)

    def _restore(self, blobs: list[bytes]) -> None:
        found = [self._restored(number, blob) for number, blob in enumerate(blobs)]
        self._lanes = [one.lane for one in found]
        self._keepings = [self._keeping(*one) for one in found]

    def _restored(self, number: int, blob: bytes) -> Restored:
        return restored(number, blob, self._bases, self._book, self._settings, self._shadow)

    def _sink(self, result: LaneResult) -> None:
        for record in result.availability:
            self._show(record)
        for crossing in crossings_in(result):
            assert self.thresholds.setdefault(crossing.id, _encode(crossing)) == _encode(crossing)
        for divergence in result.divergences:
            assert self.divergences.setdefault(divergence.id, divergence) == divergence
        for reservation in result.reservations:
            assert self.reservations.setdefault(reservation.id, reservation) == reservation
        for proposal in result.replenishments:
            assert self.replenishments.setdefault(proposal.id, proposal) == proposal
        for difference in result.shadow:
            assert self.shadow.setdefault(difference.id, difference) == difference
        for letter in result.dead_letters:
            assert self.dead_letters.setdefault(letter.id, _encode(letter)) == _encode(letter)
            self.reasons[letter.id] = letter.reason
        self.counts.update(
            applied=result.applied,
            duplicates=result.duplicates,
            misplaced=result.misplaced,
            thresholds=len(result.thresholds),
            dead_letters=len(result.dead_letters),
        )

    def _show(self, record: Availability) -> None:
        """As in Redis, only a newer version replaces what stands there."""
        known = self.availability.get(record.sku)
        if known is None or record.version > known.version:
            self.availability[record.sku] = record
        elif record.version == known.version:
            assert record.channels == known.channels


def crossings_in(result: LaneResult) -> list[Threshold]:
    """The crossings of a lane that nobody told to write them."""
    crossings = [crossing for crossing in result.thresholds if isinstance(crossing, Threshold)]
    assert len(crossings) == len(result.thresholds)
    return crossings


def assert_columns_known(lane: Lane) -> None:
    """Where compiled loops take their columns for those that they left, these have neither grown nor moved since."""
    path = lane._plain  # noqa: SLF001  # what goes wrong here shows rarely, and as memory written over
    if path._is_current:  # noqa: SLF001
        sizes = path._sizes.tolist()  # noqa: SLF001
        path._measure()  # noqa: SLF001
        assert path._moved() == path._known  # noqa: SLF001
        assert path._sizes.tolist() == sizes  # noqa: SLF001


def assert_loops_meet_no_obligations(lane: Lane) -> None:
    """Compiled loops offer what they may of a SKU as if nothing of it were promised or owed: so they get no other."""
    stock = lane._stock  # noqa: SLF001  # a debt that loops do not see shows only where it is as large as what may be owed
    columns = stock.tables()[2].with_obligations()
    is_bound = np.any([columns[name] for name in ("contract", "overcommitted", "backordered")], axis=0)
    assert stock.skus["special"][columns["sku"][is_bound]].all()


def assert_equal(run: Run, oracle: Oracle) -> None:
    """The same availability, crossings, divergences, answers, dead letters and counts; no message left out."""
    assert run.availability == oracle.availability(INCARNATION)
    assert run.thresholds == {crossing.id: _encode(crossing) for crossing in oracle.crossings}
    assert run.divergences == {divergence.id: divergence for divergence in oracle.divergences}
    assert run.reservations == {reservation.id: reservation for reservation in oracle.reservations}
    assert run.replenishments == {proposal.id: proposal for proposal in oracle.replenishments}
    assert run.shadow == {difference.id: difference for difference in oracle.shadow}
    assert run.reasons == oracle.dead_letters
    assert run.counts == Counter(
        applied=oracle.applied,
        duplicates=oracle.duplicates,
        misplaced=oracle.misplaced,
        thresholds=len(oracle.crossings),
        dead_letters=len(oracle.dead_letters),
    )
    assert oracle.applied + oracle.duplicates + oracle.controls + len(oracle.dead_letters) == oracle.messages


def batch_of(messages: Iterable[Message]) -> Batch:
    """Messages of one log as one batch."""
    origins, offsets, timestamps, keys, payloads, headers = map(list, zip(*messages, strict=True))
    some = headers if any(pairs is not None for pairs in headers) else None
    return Batch(origins[0], offsets, timestamps, keys, payloads, some)
