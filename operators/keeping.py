"""Keeping: a lane's state as one blob, which is the whole of it, or the name of a base and what came since.

Packing all lanes makes movements wait at the end of every epoch, for as long as the state is large. A lane that was
given little since it was packed whole need not be packed again: it is a pure function of what it was given, so that
whole blob, its base, and those messages say the same. Bases stand beside the store, and few are made in one epoch.

A lane that was given more than that in each epoch is packed shortly before its end instead, in turn with the others:
what comes after that is little, and so is what movements wait for at the end.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol, cast

from operators.lane import Lane, LaneSettings
from operators.route import Item, Part
from operators.rules import RuleBook
from operators.snapshots import (
    Dense,
    SnapshotError,
    base_of,
    check_base,
    is_whole,
    pack,
    squeezed,
    unpack,
    unsqueezed,
)
from schemas.batches import Batch, Origin

ROW_COST: Final = 20  # a message that goes row by row takes as long as so many plain ones
MESSAGE_BYTES: Final = 32  # of a message beside its key and payload
LANES_A_BASE: Final = 4  # of so many lanes of a process one may begin a base at the end of an epoch
# How long before the end of an epoch lanes are packed: late, since what comes after a base stands in the row, too, but
# not so late that the base is not on disk by then. Earlier where one was not, a little later after each good epoch.
AHEAD_SECONDS: Final = 1.5
AHEAD_SECONDS_MIN: Final = 0.3
AHEAD_SECONDS_MAX: Final = 6.0
NEARER: Final = 0.9
PREPARING_SHARE: Final = 0.1  # of a core, while lanes are packed before the end of an epoch


class Bases(Protocol):
    """Where bases are kept by name, as long as a blob may name them."""

    def keep(self, name: str, blob: bytes) -> None:
        """Begins to keep `blob`; nobody waits for it."""

    def has(self, name: str) -> bool:
        """Whether it is kept for good."""

    def read(self, name: str) -> bytes:
        """What is kept; raises SnapshotError where nothing is."""

    def keep_only(self, lane: int, names: Collection[str]) -> None:
        """All other bases of the lane may go."""


class Amount(NamedTuple):
    """How much a lane was given."""

    bytes_: int = 0
    cost: int = 0  # of giving it again, in plain messages

    def plus(self, more: "Amount") -> "Amount":
        """Both together."""
        return Amount(self.bytes_ + more.bytes_, self.cost + more.cost)

    def times(self, factor: float) -> "Amount":
        """So much of it."""
        return Amount(round(self.bytes_ * factor), round(self.cost * factor))


class Limits(NamedTuple):
    """How much may stand as changes: to give a message again takes longer than to unpack what it has led to."""

    base_bytes_min: int = 1 << 16  # what is smaller is packed at once
    share: float = 0.5  # bytes of changes, of those of their base
    cost_max: int = 8192
    renewed: float = 0.75  # of both, from which on a lane begins a new base when there is a turn
    calm: float = 0.5  # of both, in one epoch: who is given more would not keep a base for long
    snapshots: int = 4  # a flow goes on from one of the last of a lane, never from an older one

    def reached(self, amount: Amount, base_bytes: int, part: float = 1.0) -> bool:
        """Whether it is more than that part of what may be."""
        return amount.bytes_ > part * self.share * base_bytes or amount.cost > part * self.cost_max


LIMITS: Final = Limits()


class BaseTurns:
    """Who may begin a base, shared by the lanes of a process; else all would be packed in the same epochs.

    Epochs have no number here: one is new when a lane is packed that was packed in it already. They last
    `epoch_seconds`, by the clock that is given to the methods; where that is 0, nobody is packed before their end.
    """

    def __init__(self, epoch_seconds: float = 0.0) -> None:
        self._epoch_seconds = epoch_seconds
        self._packed: set[int] = set()
        self._left = 1
        self._began: float | None = None
        self._next = 0.0  # when somebody may be packed before the end
        self._ahead = AHEAD_SECONDS
        self._is_late = False  # whether a base was not on disk at the end of this epoch

    def packs(self, lane: int, now: float) -> None:
        """The lane is packed now, at the end of an epoch; the next one has begun."""
        if lane in self._packed:
            self._left = -(-len(self._packed) // LANES_A_BASE)
            self._packed.clear()
            if not self._is_late:
                self._ahead = max(AHEAD_SECONDS, self._ahead * NEARER)
            self._is_late = False
        self._packed.add(lane)
        self._began = now

    def take(self) -> bool:
        """Whether there is a turn left at the end of this epoch; it is taken by this."""
        self._left -= 1
        return self._left >= 0

    def to_come(self, now: float) -> float | None:
        """Where somebody may be packed now: how much is still to come in this epoch for each that came so far."""
        if self._began is None or now < self._next:
            return None
        left = self._began + self._epoch_seconds - now
        if not AHEAD_SECONDS_MIN <= left <= min(self._ahead, self._epoch_seconds / 2):
            return None
        return left / (now - self._began)

    def prepared(self, began: float, now: float) -> None:
        """Packing somebody has taken from `began` until now."""
        self._next = now + (now - began) * (1 / PREPARING_SHARE - 1)

    def late(self) -> None:
        """A base that was begun before the end of this epoch is not on disk at its end."""
        if not self._is_late:
            self._is_late, self._ahead = True, min(2 * self._ahead, AHEAD_SECONDS_MAX)


class Clock(NamedTuple):
    """How far an origin was applied, and its clock then."""

    origin: Origin
    applied: int
    time_ms: int


class Changes(NamedTuple):
    """What a lane was given since its base."""

    base: str
    base_bytes: int
    amount: Amount = Amount()
    chunks: tuple[bytes, ...] = ()  # one of each epoch in which there was something
    moved: frozenset[Origin] = frozenset()  # of whose ticks only what the last one has led to is kept


class Restored(NamedTuple):
    """A lane as it was, and the changes that it goes on with."""

    lane: Lane
    changes: Changes | None


class Keeping:
    """How one lane is kept: told of all that the lane is about to be `given`, and asked for each `snapshot`.

    `clock` gives seconds, as the turns go by.
    """

    def __init__(
        self,
        lane: Lane,
        bases: Bases,
        turns: BaseTurns,
        changes: Changes | None = None,
        limits: Limits = LIMITS,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._lane = lane
        self._bases = bases
        self._turns = turns
        self._limits = limits
        self._clock = clock
        self._changes = changes
        self._whole_bytes = 0 if changes is None else changes.base_bytes  # when it was packed last
        self._fresh: list[Batch | Clock] = []  # since the last snapshot
        self._moved = set[Origin]() if changes is None else set(changes.moved)
        self._bytes = self._messages = 0  # given since the last snapshot, or the base that was begun after it
        self._rows = lane.row_wise  # as of then
        self._before = Amount()  # given between those two
        self._is_prepared = False  # whether there is such a base
        self._begun: set[str] = set()  # bases, since the last snapshot
        self._used: deque[frozenset[str]] = deque(maxlen=limits.snapshots)  # bases, begun or named by the last of them
        # No run goes on from an older row than this one does, so nothing else that was left behind will be read.
        bases.keep_only(lane.number, frozenset() if changes is None else {changes.base})

    def given(self, items: Iterable[Item | Part]) -> None:
        """The lane is about to be given these, all at once."""
        parts = [item for item in items if isinstance(item, Part)]
        for part in parts:
            count = len(part.places)
            self._messages += count
            self._bytes += part.bytes_ + MESSAGE_BYTES * count
        changes = self._changes
        if changes is None:
            return
        # The rules that a new origin begins with are those of this run, and no blob of changes has them.
        knows_all = all(self._lane.knows(part.batch.origin) for part in parts)
        amount = changes.amount.plus(Amount(self._bytes, self._messages))
        if not knows_all or self._limits.reached(amount, changes.base_bytes):
            self._forget()
            return
        speaking = {part.batch.origin for part in parts if not self._lane.only_moves_clock(part)}
        for part in parts:
            origin = part.batch.origin
            if origin not in speaking:
                self._moved.add(origin)
                continue
            if origin in self._moved:  # by ticks that are applied already
                self._moved.discard(origin)
                self._fresh.append(Clock(origin, *self._lane.clock_of(origin)))
            _append(self._fresh, part.alone())

    def prepare(self) -> None:
        """Packs the lane now where it would have to be packed at the end of this epoch, and where it has a turn."""
        began = self._clock()
        to_come = self._turns.to_come(began)
        if to_come is None or self._is_prepared or not self._is_better_packed_now(to_come):
            return
        self._before, self._is_prepared = self._taken(), True
        self._begin(self._packed())
        self._turns.prepared(began, self._clock())

    def _is_better_packed_now(self, to_come: float) -> bool:
        """Whether changes since now will do at the end of the epoch, but not those since the base that there is."""
        given, changes = self._given(), self._changes
        coming = given.times(to_come)
        if self._whole_bytes < self._limits.base_bytes_min or self._limits.reached(coming, self._whole_bytes):
            return False
        if changes is None:
            return True
        in_all = changes.amount.plus(given).plus(coming)
        return self._limits.reached(in_all, changes.base_bytes, self._limits.renewed)

    def snapshot(self) -> bytes:
        """The lane's state as one blob."""
        self._turns.packs(self._lane.number, self._clock())
        given = self._taken()
        in_all, is_prepared = self._before.plus(given), self._is_prepared
        self._before, self._is_prepared = Amount(), False
        changes, has_turn = self._with(given), False
        if changes is not None:
            is_old = self._limits.reached(changes.amount, changes.base_bytes, self._limits.renewed)
            has_turn = is_old and not is_prepared and self._turns.take()
            if not has_turn:
                self._changes = changes
                self._let_go()
                return self._blob(changes)
        if is_prepared and self._changes is not None and not self._bases.has(self._changes.base):
            self._turns.late()
        blob = self._packed()
        is_calm = not self._limits.reached(in_all, len(blob), self._limits.calm)
        if len(blob) >= self._limits.base_bytes_min and is_calm and (has_turn or self._turns.take()):
            self._begin(blob)
        self._let_go()
        return blob

    def _given(self) -> Amount:
        """Since the last snapshot, or the base that was begun after it."""
        rows = self._lane.row_wise - self._rows
        return Amount(self._bytes, self._messages + (ROW_COST - 1) * rows)

    def _taken(self) -> Amount:
        """As `_given`, which begins anew."""
        given = self._given()
        self._bytes, self._messages, self._rows = 0, 0, self._lane.row_wise
        return given

    def _packed(self) -> bytes:
        """All of the lane; there are no changes any more."""
        self._forget()
        blob = self._lane.snapshot()
        self._whole_bytes = len(blob)
        return blob

    def _begin(self, blob: bytes) -> None:
        """The blob is the base of what comes from now on."""
        self._changes = Changes(base_of(self._lane.number, blob), len(blob))
        self._begun.add(self._changes.base)
        self._bases.keep(self._changes.base, blob)

    def _with(self, given: Amount) -> Changes | None:
        """The changes with what is new; None where there are none, or too many, or their base is not kept yet."""
        if self._changes is None or not self._bases.has(self._changes.base):
            return None
        changes = self._changes
        amount = changes.amount.plus(given)
        if self._limits.reached(amount, changes.base_bytes):
            return None
        chunks = changes.chunks
        if self._fresh:
            chunks, self._fresh = (*chunks, squeezed(self._fresh)), []
        return changes._replace(amount=amount, chunks=chunks, moved=frozenset(self._moved))

    def _blob(self, changes: Changes) -> bytes:
        lane = self._lane
        untold, unexplained, held = lane.waiting
        return pack(
            {
                **lane.identity,
                "settings": list(lane.settings),
                "base": changes.base,
                "amount": list(changes.amount),
                "chunks": [Dense(chunk) for chunk in changes.chunks],
                "moved": [Clock(origin, *lane.clock_of(origin)) for origin in sorted(changes.moved)],
                "untold": untold,
                "unexplained": unexplained,
                "held": held,
            }
        )

    def _forget(self) -> None:
        self._changes = None
        self._fresh.clear()
        self._moved.clear()

    def _let_go(self) -> None:
        """Bases that were in use at none of the last snapshots may go, whoever began them."""
        was_full = len(self._used) == self._limits.snapshots
        oldest = self._used[0] if was_full else frozenset[str]()
        self._used.append(frozenset(self._begun if self._changes is None else {*self._begun, self._changes.base}))
        self._begun.clear()
        used = frozenset[str]().union(*self._used)
        is_full = len(self._used) == self._limits.snapshots  # until then a flow may go on from where this run began
        if is_full and (not was_full or not oldest <= used):
            self._bases.keep_only(self._lane.number, used)


def restored(
    number: int,
    blob: bytes,
    bases: Bases | None,
    rules: RuleBook,
    settings: LaneSettings,
    shadow: RuleBook | None = None,
    *,
    is_behind: bool = False,
) -> Restored:
    """The lane as it was at the snapshot; SnapshotError where the blob, or its base, is not this lane's.

    Changes are given again under the settings of their time: with others they would not lead to the same.
    """
    state = unpack(blob)
    if is_whole(state):
        return Restored(Lane.of_state(number, state, rules, settings, shadow, is_behind=is_behind), None)
    name: str = state["base"]
    if bases is None:
        raise SnapshotError(f"the snapshot names the base {name}, and this flow keeps none")
    base = bases.read(name)
    check_base(number, name, base)
    then = LaneSettings(*state["settings"])
    lane = Lane.restore(number, base, rules, then, is_behind=is_behind)
    chunks = tuple(map(bytes, state["chunks"]))
    for chunk in chunks:
        for record in _records_of(chunk):
            if isinstance(record, Clock):
                lane.set_clock(*record)
            else:
                lane.repeat(record)
    moved = [_clock_in(record) for record in state["moved"]]
    for clock in moved:
        lane.set_clock(*clock)
    lane.wait_again(state["untold"], state["unexplained"], state["held"])
    if then != settings or shadow is not None:
        return Restored(Lane.restore(number, lane.snapshot(), rules, settings, shadow, is_behind=is_behind), None)
    amount, origins = Amount(*state["amount"]), frozenset(clock.origin for clock in moved)
    return Restored(lane, Changes(name, len(base), amount, chunks, origins))


def _append(records: list[Batch | Clock], batch: Batch) -> None:
    """Behind them; one that follows the last is one with it: so they are given again in fewer calls."""
    last = records[-1] if records else None
    if not isinstance(last, Batch) or not _follows(batch, last):
        records.append(batch)
        return
    if last.headers is None and batch.headers is not None:
        last = records[-1] = last._replace(headers=list(_headers_of(last)))
    if last.headers is not None:
        cast("list[Any]", last.headers).extend(_headers_of(batch))
    for column, more in zip(last[1:5], batch[1:5], strict=True):
        cast("list[Any]", column).extend(cast("list[Any]", more))  # both are lists of their own


def _follows(batch: Batch, before: Batch) -> bool:
    return batch.origin == before.origin and batch.offsets[0] > before.offsets[-1]


def _headers_of(batch: Batch) -> Sequence[list[tuple[str, bytes | None]] | None]:
    return [None] * len(batch.offsets) if batch.headers is None else batch.headers


def _records_of(chunk: bytes) -> Iterator[Batch | Clock]:
    for record in unsqueezed(chunk):
        if len(record) == len(Clock._fields):
            yield _clock_in(record)
        else:
            origin, *columns = record
            yield Batch(Origin(*origin), *columns)


def _clock_in(record: list[Any]) -> Clock:
    origin, applied, time_ms = record
    return Clock(Origin(*origin), applied, time_ms)
