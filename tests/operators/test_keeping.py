"""Lanes kept as a base and what they were given since: the same lanes, few of them packed at once, none lost."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.keeping import (
    AHEAD_SECONDS,
    AHEAD_SECONDS_MAX,
    AHEAD_SECONDS_MIN,
    LIMITS,
    NEARER,
    PREPARING_SHARE,
    ROW_COST,
    Amount,
    BaseTurns,
    Changes,
    Clock,
    Keeping,
    Limits,
    _append,
    restored,
)
from operators.lane import Lane, LaneSettings
from operators.lane_step import LaneHooks, LaneLogic, LaneMaking
from operators.route import Part, route
from operators.rules import RuleBook
from operators.snapshots import SnapshotError, base_of, is_whole, unpack
from schemas.batches import Batch, Origin
from schemas.rules import Rules
from tests.fact_storms import storm
from tests.lane_runs import CHANGES_PREFERRED, INCARNATION, BasesInMemory, Feed, Prepare, Run, Save, Step, Work
from tests.stories import BEGIN_MS, LOG, RULES

SETTINGS = LaneSettings(1, incarnation=7, dedupe_ms=3_600_000)
OTHER_LOG = LOG._replace(partition=1)


class Kept:
    """A lane, how it is kept, and where; `restart` goes on from a blob as another run would."""

    def __init__(
        self, limits: Limits = CHANGES_PREFERRED, settings: LaneSettings = SETTINGS, epoch_seconds: float = 0.0
    ) -> None:
        self.bases = BasesInMemory()
        self.turns = BaseTurns(epoch_seconds)
        self.now = 0.0
        self.limits = limits
        self.settings = settings
        self.next: dict[Origin, int] = {}
        self.lane = Lane(0, RuleBook(RULES), settings)
        self.keeping = Keeping(self.lane, self.bases, self.turns, None, limits, lambda: self.now)

    def given(self, *payloads: bytes, log: Origin = LOG) -> None:
        """The next records of that log, in one piece."""
        self.at_once([(log, *payloads)])

    def at_once(self, pieces: Iterable[tuple[Any, ...]]) -> None:
        """Pieces of logs, each the log and its next records, in one activation."""
        parts: list[Part] = []
        for log, *payloads in pieces:
            first = self.next.get(log, 0)
            self.next[log] = first + len(payloads)
            parts += [part for _, part in route(piece(log, first, payloads), 1) if isinstance(part, Part)]
        self.keeping.given(parts)
        self.lane.apply(parts)

    def snapshot(self) -> bytes:
        """One epoch's end."""
        return self.keeping.snapshot()

    def restart(self, blob: bytes, settings: LaneSettings | None = None) -> None:
        """Another run goes on from there."""
        self.settings = settings or self.settings
        self.lane, changes = restored(0, blob, self.bases, RuleBook(RULES), self.settings)
        self.keeping = Keeping(self.lane, self.bases, self.turns, changes, self.limits, lambda: self.now)

    def prepared_at(self, now: float) -> bool:
        """Whether the lane is packed when it is asked then."""
        self.now, before = now, len(self.bases.blobs)
        self.keeping.prepare()
        return len(self.bases.blobs) > before


def piece(log: Origin, first: int, payloads: list[bytes]) -> Batch:
    """Records of a log from that offset on."""
    decoded: list[dict[str, Any]] = [msgspec.json.decode(payload) for payload in payloads]
    keys = [body["sku"].encode() if "sku" in body else None for body in decoded]
    offsets = list(range(first, first + len(payloads)))
    return Batch(log, offsets, [BEGIN_MS] * len(offsets), keys, list(payloads))


def moved(number: int, sku: str = "A", kind: str = "received", **more: object) -> bytes:
    """A movement."""
    body = {"id": str(number), "source": "wms", "kind": kind, "sku": sku, "location": "east", "quantity": 5}
    return msgspec.json.encode({**body, "time": "2026-11-21T00:00:00Z", **more})


def tick(second: int) -> bytes:
    """A tick."""
    return b'{"kind":"tick","time":"2026-11-21T00:%02d:%02dZ"}' % divmod(second, 60)


def kept_as_changes(blob: bytes) -> bool:
    """Whether it names a base."""
    return not is_whole(unpack(blob))


def contents(lane: Lane) -> object:
    """All that its whole snapshot holds; facts as they are told, since loops and rows write them down differently."""
    state = unpack(lane.snapshot())
    del state["facts"]
    homes, told = list(lane._origins), lane._explaining.explain  # noqa: SLF001
    cells = lane._stock.skus.cells["home"]  # noqa: SLF001
    explained = [told(sku, homes[cells[sku]], INCARNATION) for sku in range(lane._stock.skus.rows)]  # noqa: SLF001
    return _plain(state), explained


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return bytes(value) if isinstance(value, memoryview) else value


STEPS = st.lists(
    st.one_of(
        st.builds(Feed, st.integers(0, 2), st.integers(1, 12) | st.just(200)),
        st.just(Work()),
        st.just(Save(whole=False)),
        st.just(Prepare()),
    ),
    max_size=40,
)
RENEWED_AT_ONCE = CHANGES_PREFERRED._replace(renewed=0.0)


@pytest.mark.timeout(1200)
@given(
    st.integers(0, 2**32),
    STEPS,
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([CHANGES_PREFERRED, RENEWED_AT_ONCE]),
)
def test_a_lane_from_its_changes_is_the_lane_itself(
    seed: int,
    steps: list[Step],
    lanes: int,
    misplaced: bool,  # noqa: FBT001  # drawn
    limits: Limits,
) -> None:
    """Whatever it was given, and however often it was kept and restored: all that it holds is the same."""
    logs, rules = storm(seed, misplaced=misplaced)
    run, plain = (Run(logs, rules, lanes, limits=limits) for _ in range(2))
    run.take_only(steps)
    plain.take_only(Work() if isinstance(step, Save | Prepare) else step for step in steps)
    plain.take_only([Work()])
    run.take_only([Save(whole=False)])
    assert [contents(lane) for lane in run.lanes] == [contents(lane) for lane in plain.lanes]


def test_storms_are_kept_as_changes() -> None:
    """What stands above, and the lanes that are compared with the oracle, do go on from changes."""
    logs, rules = storm(3)
    run = Run(logs, rules, 1)
    run.take_only([step for _ in range(10) for step in (Feed(0, 9), Feed(1, 9), Save(whole=False))])
    assert run.saved_as_changes > 5
    run = Run(logs, rules, 1, limits=RENEWED_AT_ONCE)
    run.take_only([step for _ in range(10) for step in (Feed(0, 2), Prepare(), Feed(1, 2), Save(whole=False))])
    assert run.prepared > 3
    assert run.saved_as_changes > 5


def test_a_calm_lane_is_kept_as_what_it_was_given() -> None:
    """First whole, then as the messages since, epoch after epoch."""
    kept = Kept()
    kept.given(*(moved(number, f"S{number}") for number in range(200)))
    whole = kept.snapshot()
    kept.given(moved(200))
    first = kept.snapshot()
    kept.given(moved(201), moved(202, "B"))
    second = kept.snapshot()
    assert [kept_as_changes(blob) for blob in (whole, first, second)] == [False, True, True]
    assert unpack(second)["base"] == base_of(0, whole)
    assert len(second) < len(whole) // 3
    before = contents(kept.lane)
    kept.restart(second)
    assert contents(kept.lane) == before


def test_a_lane_goes_on_from_changes_after_a_restart() -> None:
    """What was given before and after it stands in one blob, and nothing is applied twice."""
    kept = Kept()
    kept.given(moved(0))
    kept.snapshot()
    kept.given(moved(1))
    kept.restart(kept.snapshot())
    kept.next[LOG] = 1  # the log is read again from there
    kept.given(moved(1), moved(2))
    blob = kept.snapshot()
    assert kept_as_changes(blob)
    kept.restart(blob)
    sku = kept.lane._stock.names.row("A")  # noqa: SLF001
    assert kept.lane._availability(sku).locations["east"].on_hand == 15  # noqa: SLF001


def test_batches_are_joined_where_their_log_goes_on() -> None:
    """Never with another log's, nor where a log was read again: offsets of a batch grow."""
    first, more, again = (piece(LOG, begin, [moved(begin), moved(begin + 1)]) for begin in (0, 2, 3))
    other, headed = piece(OTHER_LOG, 9, [moved(9)]), piece(LOG, 5, [moved(5)])._replace(headers=[[("a", b"b")]])
    plain, clock = piece(LOG, 6, [moved(6)]), Clock(LOG, 6, BEGIN_MS)
    joined: list[Batch | Clock] = []
    for batch in (first, more, again, headed, plain, other):
        _append(joined, batch)
    assert [record.offsets for record in joined if isinstance(record, Batch)] == [[0, 1, 2, 3], [3, 4, 5, 6], [9]]
    assert [record.headers for record in joined if isinstance(record, Batch)] == [
        None,
        [None, None, [("a", b"b")], None],
        None,
    ]
    assert [len(record.payloads) for record in joined if isinstance(record, Batch)] == [4, 4, 1]
    behind_clock: list[Batch | Clock] = [clock]
    _append(behind_clock, other)
    assert behind_clock == [clock, other]


def test_who_is_to_be_told_and_explained_is_kept_beside_the_changes() -> None:
    """Others than movements take SKUs from there, in an order that no log knows."""
    kept = Kept()
    kept.given(moved(0), moved(1, "B"), moved(2, "C"))
    kept.snapshot()
    kept.given(moved(3, "B"), moved(4))
    kept.lane.explain([kept.lane.asked_rows(["B"])[0]])
    teller = kept.lane.teller("avail:")
    parts = [part for _, part in route(piece(LOG, 5, [moved(5, "C")]), 1)]
    kept.keeping.given(parts)
    kept.lane.apply(parts, teller=teller)
    kept.lane._held[2] = None  # noqa: SLF001
    waiting = kept.lane.waiting
    assert all(waiting)
    kept.restart(kept.snapshot())
    assert kept.lane.waiting == waiting


@pytest.mark.parametrize("limits", [LIMITS._replace(base_bytes_min=1 << 20), CHANGES_PREFERRED._replace(calm=0.0)])
def test_small_and_busy_lanes_are_kept_whole(limits: Limits) -> None:
    """A base that is not worth it, or would not last, is not begun."""
    kept = Kept(limits)
    for number in range(6):
        kept.given(moved(number))
        assert not kept_as_changes(kept.snapshot())
    assert kept.bases.blobs == {}


def test_who_is_given_much_is_packed_again() -> None:
    """At once when changes exceed what they may be; from three quarters on as soon as there is a turn."""
    kept = Kept(CHANGES_PREFERRED._replace(cost_max=20))
    kept.given(moved(0))
    kept.snapshot()
    for number in range(1, 16):
        kept.given(moved(number))
    kept.given(*(moved(number) for number in range(16, 60)))
    assert kept.keeping._fresh == []  # noqa: SLF001  # nothing is held that no blob will name
    assert not kept_as_changes(kept.snapshot())


def test_a_base_is_renewed_when_there_is_a_turn() -> None:
    """Before the changes are too many, so that not all lanes are packed in one epoch."""
    kept = Kept(CHANGES_PREFERRED._replace(cost_max=2000, calm=1.0))
    kept.given(*(moved(number) for number in range(9)))
    first = kept.snapshot()
    for number in range(14):
        kept.given(*(moved(100 * number + more + 9) for more in range(100)))
        assert kept_as_changes(kept.snapshot())
    kept.given(*(moved(more) for more in range(2000, 2101)))  # 1,501, of 2,000
    blob = kept.snapshot()
    assert not kept_as_changes(blob)
    kept.given(moved(9999))
    assert unpack(kept.snapshot())["base"] == base_of(0, blob) != base_of(0, first)


BUSY = CHANGES_PREFERRED._replace(cost_max=100, calm=0.0)  # no base is begun at the end of an epoch
EPOCH = 10.0
LATE = EPOCH - AHEAD_SECONDS + 0.1


def busy(limits: Limits = BUSY) -> Kept:
    """A lane that was packed at the end of an epoch, was given more than may stand as changes, and keeps no base."""
    kept = Kept(limits, epoch_seconds=EPOCH)
    kept.given(*(moved(number) for number in range(9)))
    assert not kept_as_changes(kept.snapshot())
    kept.given(*(moved(number) for number in range(9, 300)))
    return kept


def test_a_busy_lane_is_packed_before_the_end_of_an_epoch() -> None:
    """So at its end there is little to pack: what came since then, and nothing is lost or given twice."""
    kept = busy()
    assert kept.prepared_at(LATE)
    kept.given(moved(300), moved(301))
    blob = kept.snapshot()
    assert kept_as_changes(blob)
    assert unpack(blob)["amount"] == [unpack(blob)["amount"][0], 2]
    assert len(blob) < len(kept.lane.snapshot()) // 3
    before = contents(kept.lane)
    kept.restart(blob)
    assert contents(kept.lane) == before


def test_a_lane_is_packed_before_the_end_only_where_that_is_of_use() -> None:
    """Shortly before it, once, where little is still to come, and not where it would not be packed at the end."""
    for moment in (1.0, LATE - 0.2, EPOCH - AHEAD_SECONDS_MIN + 0.1, EPOCH + 1):
        assert not busy().prepared_at(moment)
    kept = busy()
    assert kept.prepared_at(LATE)
    kept.given(*(moved(number) for number in range(300, 380)))  # old already, but new enough
    assert not kept.prepared_at(LATE + 0.2)
    many = busy()
    many.given(*(moved(number) for number in range(300, 1200)))  # 1,191 until now, so 233 to come in the rest
    assert not many.prepared_at(LATE)
    small = busy(BUSY._replace(base_bytes_min=1 << 20))
    assert not small.prepared_at(LATE)
    calm = Kept(BUSY._replace(calm=1.0), epoch_seconds=EPOCH)
    calm.given(moved(0))
    calm.snapshot()
    calm.given(moved(1))
    assert not calm.prepared_at(LATE)
    assert kept_as_changes(calm.snapshot())
    unknown = Kept(BUSY, epoch_seconds=0.0)
    unknown.given(moved(0))
    unknown.snapshot()
    assert not unknown.prepared_at(LATE)


def test_a_base_that_would_be_renewed_is_renewed_before_the_end() -> None:
    """Where changes will be old by then; with the new one nobody takes a turn at the end."""
    kept = Kept(CHANGES_PREFERRED._replace(cost_max=100), epoch_seconds=EPOCH)
    kept.given(moved(0))
    kept.snapshot()
    kept.given(*(moved(number) for number in range(1, 61)))
    assert not kept.prepared_at(5.0)
    kept.given(moved(61))
    assert not kept.prepared_at(EPOCH - 0.35)  # 61, and two to come, of 75
    kept.given(*(moved(number) for number in range(62, 76)))
    assert kept.prepared_at(EPOCH - 0.31)
    assert unpack(kept.snapshot())["amount"] == [0, 0]


def test_lanes_are_packed_before_the_end_one_after_the_other() -> None:
    """They take a part of a core only: movements are applied meanwhile."""
    turns = BaseTurns(EPOCH)
    turns.packs(0, 100.0)
    assert turns.to_come(100.0 + LATE) == pytest.approx((EPOCH - LATE) / LATE)
    turns.prepared(100.0 + LATE, 100.0 + LATE + 0.01)
    free = 100.0 + LATE + 0.01 / PREPARING_SHARE
    assert turns.to_come(free - 0.001) is None
    assert turns.to_come(free + 0.001) is not None


def test_who_was_late_begins_earlier() -> None:
    """A base that is not on disk at the end was packed in vain: the lane is packed whole, and the next time sooner."""
    kept = busy(BUSY._replace(calm=0.5))
    assert kept.prepared_at(LATE)
    kept.bases.blobs.clear()
    assert not kept_as_changes(kept.snapshot())
    assert not kept.bases.blobs  # it was given too much in this epoch to begin one at the end
    kept.given(*(moved(number) for number in range(300, 500)))
    assert kept.prepared_at(LATE + EPOCH - 2 * AHEAD_SECONDS + 0.1)
    turns, ahead = BaseTurns(2 * EPOCH), AHEAD_SECONDS
    for end in range(30):
        turns.packs(0, 2 * EPOCH * end)
        assert turns.to_come(2 * EPOCH * (end + 1) - ahead + 0.01) is not None
        assert turns.to_come(2 * EPOCH * (end + 1) - ahead - 0.01) is None
        if end < 4:
            turns.late()
            turns.late()  # of another lane, in the same epoch
        ahead = min(2 * ahead, AHEAD_SECONDS_MAX) if end < 4 else max(AHEAD_SECONDS, ahead * NEARER)


def test_nobody_is_packed_in_the_first_half_of_an_epoch() -> None:
    """However short it is: more would come after that than before."""
    turns = BaseTurns(1.0)
    turns.packs(0, 0.0)
    assert turns.to_come(0.0) is None
    assert turns.to_come(0.49) is None
    assert turns.to_come(0.51) == pytest.approx(0.49 / 0.51)


def test_bases_that_were_packed_in_vain_are_let_go() -> None:
    """They were named by no snapshot, and nobody goes on from them."""
    kept = busy(BUSY._replace(cost_max=150))
    for epoch in range(12):
        begin = 300 + 1000 * epoch
        kept.given(*(moved(number) for number in range(begin, begin + 300)))
        assert kept.prepared_at(kept.now + LATE if epoch else LATE)
        kept.given(*(moved(number) for number in range(begin + 300, begin + 500)))  # more than was to be expected
        kept.now += EPOCH - LATE
        assert not kept_as_changes(kept.snapshot())
        assert len(kept.bases.blobs) <= kept.limits.snapshots


def test_what_goes_row_by_row_counts_more() -> None:
    """It takes longer to be given again."""
    kept = Kept(CHANGES_PREFERRED._replace(cost_max=20 * ROW_COST))
    kept.given(moved(0))
    kept.snapshot()
    requested = moved(1, kind="requested", request="r", channel="web")
    kept.given(*(moved(number, kind="counted") for number in range(1, 9)), requested)
    assert kept_as_changes(kept.snapshot())
    kept.given(*(moved(number, kind="counted") for number in range(11, 19)))
    assert not kept_as_changes(kept.snapshot())


def test_few_lanes_begin_a_base_in_one_epoch() -> None:
    """A quarter of them, so that an epoch's end is a quarter as long; all have one after four."""
    bases, turns = BasesInMemory(), BaseTurns()
    lanes = [Lane(number, RuleBook(RULES), SETTINGS._replace(lanes=8)) for number in range(8)]
    keepings = [Keeping(lane, bases, turns, None, CHANGES_PREFERRED) for lane in lanes]
    begun = []
    for _ in range(6):
        for keeping in keepings:
            keeping.snapshot()
        begun.append(len(bases.blobs))
    assert begun == [1, 3, 5, 7, 8, 8]


def test_a_base_that_is_not_on_disk_yet_is_not_named() -> None:
    """A row may never name what a crash would take along."""
    kept = Kept()
    kept.given(moved(0))
    kept.snapshot()
    kept.bases.blobs.clear()
    kept.given(moved(1))
    assert not kept_as_changes(kept.snapshot())


def test_bases_of_the_last_snapshots_stay() -> None:
    """A flow may go on from one of them; older ones go, and so do those that were begun and never named."""
    limits = CHANGES_PREFERRED._replace(cost_max=4)
    kept = Kept(limits)
    named: list[str | None] = []
    for number in range(60):
        kept.given(*(moved(10 * number + more) for more in range(1 + number % 3)))
        blob = kept.snapshot()
        named.append(unpack(blob).get("base"))
        needed = {name for name in named[-limits.snapshots :] if name is not None}
        assert needed <= kept.bases.blobs.keys()
        assert len(kept.bases.blobs) <= limits.snapshots + 1
    assert len({*named}) > 10


def test_only_the_base_that_a_run_goes_on_from_is_left_of_those_before() -> None:
    """No later run goes on from an older row. That one stays for some epochs: they may be lost with the run."""
    kept = Kept()
    kept.given(moved(0))
    kept.snapshot()
    kept.given(moved(1))
    blob = kept.snapshot()
    before = unpack(blob)["base"]
    kept.bases.keep("lane-0-0123.base", b"begun by a run that died")
    kept.bases.keep("lane-10-0123.base", b"of another lane")
    kept.limits = kept.limits._replace(renewed=0.0)
    kept.restart(blob)
    assert kept.bases.blobs.keys() == {before, "lane-10-0123.base"}
    seen = []
    for number in range(2, 2 + kept.limits.snapshots):
        kept.given(moved(number))
        kept.snapshot()
        seen.append(before in kept.bases.blobs)
    assert seen == [True, True, True, False]
    whole = Kept()
    whole.bases.keep("lane-0-0123.base", b"begun by a run that died")
    Keeping(whole.lane, whole.bases, whole.turns)
    assert not whole.bases.blobs


def test_ticks_of_partitions_without_a_sku_here_take_no_room() -> None:
    """Every partition ticks each second, and a lane has SKUs of few: the clock is kept, and how far it was read."""
    kept = Kept()
    kept.at_once([(LOG, moved(0)), (OTHER_LOG, tick(0))])
    kept.snapshot()
    kept.given(tick(1), log=OTHER_LOG)
    small = len(kept.snapshot())
    for second in range(2, 500):
        kept.given(tick(second), log=OTHER_LOG)
    blob = kept.snapshot()
    assert len(blob) < small + 50
    at = kept.lane.clock_of(OTHER_LOG)
    assert at[0] == 499
    kept.restart(blob)
    assert kept.lane.clock_of(OTHER_LOG) == at


def test_a_tick_that_is_refused_takes_the_place_of_none() -> None:
    """A time far from now moves no clock, and that of the tick before it stays."""
    kept = Kept()
    kept.at_once([(LOG, moved(0)), (OTHER_LOG, tick(0))])
    kept.snapshot()
    kept.given(tick(7), log=OTHER_LOG)
    kept.given(b'{"kind":"tick","time":"2199-11-21T00:00:00Z"}', log=OTHER_LOG)
    kept.given(b'{"kind":"tick","time":"never"}', log=OTHER_LOG)
    at = kept.lane.clock_of(OTHER_LOG)
    kept.restart(kept.snapshot())
    assert kept.lane.clock_of(OTHER_LOG) == at
    assert at[0] == 3


@pytest.mark.parametrize("at_once", [False, True])
def test_a_record_meets_the_clock_that_it_met_before(at_once: bool) -> None:  # noqa: FBT001  # a test's
    """Ticks that were left out are made good before a record of their partition, in one activation, too."""
    kept = Kept()
    kept.at_once([(LOG, moved(0)), (OTHER_LOG, tick(0))])
    kept.snapshot()
    pieces = [(OTHER_LOG, tick(30)), (OTHER_LOG, moved(1, "B")), (OTHER_LOG, tick(60)), (OTHER_LOG, moved(2, "C"))]
    for group in [pieces] if at_once else [[one] for one in pieces]:
        kept.at_once(group)
    before = contents(kept.lane)
    blob = kept.snapshot()
    assert kept_as_changes(blob)
    kept.restart(blob)
    assert contents(kept.lane) == before


def test_a_new_partition_ends_changes() -> None:
    """The rules that it begins with are those of the run that met it, which the next one may not have."""
    kept = Kept()
    kept.given(moved(0))
    kept.snapshot()
    kept.given(moved(1, "B"), log=OTHER_LOG)
    assert not kept_as_changes(kept.snapshot())


def test_other_settings_hold_from_the_restart_on() -> None:
    """Changes are given again as they were given first: a duplicate stays one, though ids are forgotten sooner now."""
    kept = Kept()
    old = moved(0, time="2026-11-20T23:30:00Z")
    kept.given(old, moved(1))
    kept.snapshot()
    kept.given(old)
    kept.restart(kept.snapshot(), SETTINGS._replace(dedupe_ms=60_000))
    sku = kept.lane._stock.names.row("A")  # noqa: SLF001
    assert kept.lane._availability(sku).locations["east"].on_hand == 10  # noqa: SLF001
    assert kept.lane.settings.dedupe_ms == 60_000
    assert not kept_as_changes(kept.snapshot())


def test_shadow_rules_are_compared_from_the_restart_on() -> None:
    """A lane that was kept as changes goes on with them, and is kept whole."""
    kept = Kept()
    kept.given(moved(0))
    kept.snapshot()
    kept.given(moved(1))
    lane, changes = restored(0, kept.snapshot(), kept.bases, RuleBook(RULES), SETTINGS, RuleBook(Rules()))
    assert changes is None
    assert lane.position_count == 1


def _of_another_lane(_: Kept, blob: bytes) -> tuple[int, bytes]:
    return 1, blob


def _base_gone(kept: Kept, blob: bytes) -> tuple[int, bytes]:
    kept.bases.blobs.clear()
    return 0, blob


def _base_changed(kept: Kept, blob: bytes) -> tuple[int, bytes]:
    (name,) = kept.bases.blobs
    other = Kept()
    other.given(moved(5, "B"))
    kept.bases.blobs[name] = other.snapshot()
    return 0, blob


class Wrong(NamedTuple):
    """What is wrong, and what is said about it."""

    spoil: Callable[[Kept, bytes], tuple[int, bytes]]
    says: str


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong(_of_another_lane, "is not what it was"),
        Wrong(_base_gone, "no base lane-0-"),
        Wrong(_base_changed, "its checksum does not match"),
    ],
)
def test_changes_without_their_base_are_refused(wrong: Wrong) -> None:
    """Never half a state."""
    kept = Kept()
    kept.given(moved(0))
    kept.snapshot()
    kept.given(moved(1))
    number, blob = wrong.spoil(kept, kept.snapshot())
    with pytest.raises(SnapshotError, match=wrong.says):
        restored(number, blob, kept.bases, RuleBook(RULES), SETTINGS)


def test_changes_are_refused_where_no_bases_are_kept() -> None:
    """And so are those of another state."""
    kept = Kept()
    kept.given(moved(0))
    kept.snapshot()
    kept.given(moved(1))
    blob = kept.snapshot()
    with pytest.raises(SnapshotError, match="this flow keeps none"):
        restored(0, blob, None, RuleBook(RULES), SETTINGS)
    with pytest.raises(SnapshotError, match="incarnation = 7, this run 8"):
        restored(0, blob, kept.bases, RuleBook(RULES), SETTINGS._replace(incarnation=8))


def test_limits_are_of_bytes_and_of_work() -> None:
    """Whichever is reached first."""
    assert not LIMITS.reached(Amount(500, 8192), 1000)
    assert LIMITS.reached(Amount(501, 1), 1000)
    assert LIMITS.reached(Amount(1, 8193), 1000)
    assert LIMITS.reached(Amount(376, 1), 1000, 0.75)


def test_changes_begin_empty() -> None:
    """A base alone says what the lane was."""
    assert Changes("lane-0-1.base", 10).amount == Amount(0, 0)


def test_a_step_packs_its_lane_before_the_end_of_an_epoch() -> None:
    """When it is given something, and when it is woken."""
    now = 0.0
    hooks = LaneHooks(monotonic=lambda: now)
    for is_given in (True, False):
        bases, now = BasesInMemory(), 0.0
        making = LaneMaking(
            RuleBook(RULES), SETTINGS, lambda: BEGIN_MS, durable=True, hooks=hooks, bases=bases, limits=BUSY,
            epoch_seconds=EPOCH,
        )  # fmt: skip
        logic = LaneLogic(None, making)
        logic.on_batch(route(piece(LOG, 0, [moved(0)]), 1))
        logic.snapshot()
        logic.on_batch(route(piece(LOG, 1, [moved(number) for number in range(1, 300)]), 1))
        assert not bases.blobs
        now = LATE
        if is_given:
            logic.on_batch(route(piece(LOG, 300, [moved(300)]), 1))
        else:
            logic.on_notify()
        assert len(bases.blobs) == 1
        assert kept_as_changes(logic.snapshot())


def test_a_step_without_bases_or_with_shadow_rules_packs_its_lane() -> None:
    """And with bases it does not, once it has one."""
    plain = LaneMaking(RuleBook(RULES), SETTINGS, lambda: BEGIN_MS, durable=True, limits=CHANGES_PREFERRED)
    with_bases = plain._replace(bases=BasesInMemory())
    makings = [plain, with_bases, with_bases._replace(shadow=RuleBook(RULES)), with_bases._replace(durable=False)]
    kinds = []
    for making in makings:
        logic = LaneLogic(None, making)
        blobs = []
        for number in range(2):
            logic.on_batch(route(piece(LOG, number, [moved(number)]), 1))
            blobs.append(logic.snapshot())
        kinds.append([blob and kept_as_changes(blob) for blob in blobs])
    assert kinds == [[False, False], [False, True], [False, False], [b"", b""]]
