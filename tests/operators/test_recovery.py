"""After a restore: what was applied is not applied again, what may be lost is told again, and old formats are read."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from operators.lane import Lane, LaneSettings
from operators.lane_step import (
    ASKED_AT_ONCE_MAX,
    BEHIND_MS,
    EXPLAINING_AT_END_SECONDS,
    EXPLAINING_SHARE,
    EXPLAINING_SHARE_PRESSED,
    PRESSED_AGE_MS,
    LaneHooks,
    LaneLogic,
    LaneMaking,
    LaneTurns,
)
from operators.route import Item, Part, Routed, route
from operators.rules import RuleBook
from operators.snapshots import SnapshotError, pack, unpack
from operators.turns import BORROWED_MS_MAX
from schemas.batches import Batch, CaughtUp, Mark, Wake
from schemas.outputs import Availability, LaneResult
from tests.stories import BEGIN_MS, LOG, RULES

SETTINGS = LaneSettings(1, incarnation=7, dedupe_ms=3_600_000)
FIRST_FORMAT = Path(__file__).parent / "snapshots" / "lane-format-1.bin"


def record(number: int, sku: str, kind: str = "received", quantity: int = 5) -> bytes:
    """One movement as it stands in the log."""
    time = f"2026-11-21T00:00:{number % 60:02}Z"
    body = {"id": str(number), "source": "wms", "kind": kind, "sku": sku, "location": "east", "quantity": quantity}
    return msgspec.json.encode({**body, "time": time})


def routed(*items: Item) -> list[Routed]:
    """What the only lane gets of them."""
    return [part for item in items for part in route(item, 1)]


def log_of(*payloads: bytes, first: int = 0) -> Batch:
    """A piece of the log, from offset `first` on."""
    count = len(payloads)
    keys = [msgspec.json.decode(payload)["sku"].encode() for payload in payloads]
    return Batch(LOG, list(range(first, first + count)), [BEGIN_MS] * count, keys, list(payloads))


def lane() -> Lane:
    """A lane that knows nothing yet."""
    return Lane(0, RuleBook(RULES), SETTINGS)


def restored(blob: bytes) -> Lane:
    """A lane as it was."""
    return Lane.restore(0, blob, RuleBook(RULES), SETTINGS)


HISTORY = [record(0, "A"), record(1, "B"), record(2, "A", "shipped", 2)]


def test_what_was_applied_is_skipped() -> None:
    """Ids are forgotten after their horizon, and dead letters have none: only the offset tells what was applied."""
    before = lane()
    before.apply([log_of(*HISTORY, b'{"sku":"A"}')])
    blob = before.snapshot()

    after = restored(blob)
    result = after.apply([log_of(*HISTORY, b'{"sku":"A"}')])

    assert (result.applied, result.duplicates, result.dead_letters, result.thresholds) == (0, 0, [], [])
    assert after.snapshot() == blob


def test_what_may_never_have_got_out_is_told_again() -> None:
    """A SKU whose records are in the state already is published as it is, though nothing changes."""
    before = lane()
    told = {record.sku: record for record in before.apply([log_of(*HISTORY)]).availability}

    again = restored(before.snapshot()).apply([log_of(*HISTORY[:2])]).availability

    assert {record.sku: record for record in again} == told


def test_a_lane_of_another_state_is_refused() -> None:
    """Blobs of two states would be two truths about versions."""
    blob = lane().snapshot()
    with pytest.raises(SnapshotError, match="incarnation = 7, this run 8"):
        Lane.restore(0, blob, RuleBook(RULES), SETTINGS._replace(incarnation=8))
    with pytest.raises(SnapshotError, match="lanes = 1, this run 2"):
        Lane.restore(0, blob, RuleBook(RULES), SETTINGS._replace(lanes=2))
    with pytest.raises(SnapshotError, match="lane = 0, this run 1"):
        Lane.restore(1, blob, RuleBook(RULES), SETTINGS)


def test_a_damaged_or_newer_blob_is_refused() -> None:
    """Wherever a bit has flipped; and a format of the future is named."""
    before = lane()
    before.apply([log_of(*HISTORY)])
    blob = before.snapshot()
    for at in range(0, len(blob), 7):
        damaged = blob[:at] + bytes([blob[at] ^ 4]) + blob[at + 1 :]
        with pytest.raises(SnapshotError):
            unpack(damaged)
    with pytest.raises(SnapshotError, match="format 9"):
        unpack(blob[:4] + b"\x09\x00" + blob[6:])
    assert unpack(pack({"a": 1})) == {"a": 1}


def test_the_snapshot_of_the_first_release_is_restored() -> None:
    """A state outlives the release that wrote it: this file is never written again."""
    old = restored(FIRST_FORMAT.read_bytes())
    result = old.apply([log_of(record(9, "A"), first=3)])
    (shown,) = result.availability
    assert (shown.version, shown.locations["east"].on_hand) == (3, 8)
    assert result.duplicates == 0
    assert old.apply([log_of(record(1, "B"), first=4)]).duplicates == 1


def _logic(blob: bytes | None = None, hooks: LaneHooks | None = None, now_ms: int = BEGIN_MS) -> LaneLogic:
    making = LaneMaking(RuleBook(RULES), SETTINGS, lambda: now_ms, durable=True, hooks=hooks or LaneHooks())
    return LaneLogic(blob, making)


def test_an_epoch_that_ends_before_a_lane_was_woken_keeps_its_snapshot() -> None:
    """The end of the input may come before the first item of a restored lane."""
    before = lane()
    before.apply([log_of(*HISTORY)])
    assert _logic(before.snapshot()).snapshot() == before.snapshot()


def test_a_woken_lane_tells_every_sink_of_the_new_epoch() -> None:
    """Sinks keep states, too: one that slept through an epoch would go on from that of a run that died in it."""
    results, _ = _logic().on_batch([(0, Wake())])
    assert [result.woken for result in results] == [True]
    results, _ = _logic().on_batch([(0, Mark(LOG, 0, 0, -1, BEGIN_MS))])
    assert [result.woken for result in results] == [False]


def test_a_lane_tells_all_again_when_redis_has_lost_it() -> None:
    """In pieces, each SKU once, at the version that it has; and the rules in force with it."""
    asked = [0]
    clock = [BEGIN_MS]
    making = LaneMaking(
        RuleBook(RULES), SETTINGS, lambda: clock[0], durable=True, hooks=LaneHooks(refills=lambda: asked[0])
    )
    logic = LaneLogic(None, making)
    names = [f"SKU-{number}" for number in range(300)]
    first, _ = logic.on_batch(routed(log_of(*(record(n, name) for n, name in enumerate(names)))))
    told = {record.sku: record for result in first for record in result.availability}

    asked[0] = 2
    results, _ = logic.on_batch([(0, Mark(LOG, 300, 300, -1, BEGIN_MS))])
    pieces = list(results)
    again: list[Availability] = []
    for _ in range(20):
        for result in pieces:
            again.extend(result.availability)
        if any(piece.refilled for piece in pieces):
            break
        clock[0] += 50
        more, _ = logic.on_notify()
        pieces = list(more)

    assert max(piece.refilled for piece in pieces) == 2
    assert {record.sku: record for record in again} == told
    assert len(again) == len(names)
    quiet, _ = logic.on_batch([(0, Mark(LOG, 300, 300, -1, BEGIN_MS))])
    told_now = [(len(result.rules), result.is_refill) for result in quiet if not result.explanations]
    assert told_now == [(1, False)]


def test_a_lane_with_nothing_to_tell_says_so() -> None:
    """Else the sink would wait for it for ever."""
    results, _ = _logic(hooks=LaneHooks(refills=lambda: 1)).on_batch([(0, Wake())])
    assert [result.refilled for result in results] == [0, 1]


def test_what_waits_for_its_home_is_not_told_early() -> None:
    """A change from another partition has no version yet: the numbers would stand under an old one."""
    elsewhere = LOG._replace(partition=1)
    logic = _logic(hooks=LaneHooks(refills=lambda: 1))
    home = log_of(record(0, "A"))
    misplaced = Batch(elsewhere, [0], [BEGIN_MS], [b"A"], [record(1, "A")])
    results, _ = logic.on_batch(routed(home, misplaced))
    assert not [shown for result in results if result.is_refill for shown in result.availability]


class _Behind:
    """A lane restored from `blob` after a run that may have shown more; the store's source has two parts."""

    def __init__(self, blob: bytes | None, refills: int = 0) -> None:
        self.refills = refills
        self.now_ms = BEGIN_MS
        hooks = LaneHooks(refills=lambda: self.refills)
        making = LaneMaking(RuleBook(RULES), SETTINGS, lambda: self.now_ms, durable=True, is_behind=True, hooks=hooks)
        self.logic = LaneLogic(blob, making)

    def given(self, *items: Item) -> list[LaneResult]:
        """What it tells about `items`, refills included, until it has no more to tell."""
        results = list(self.logic.on_batch(routed(*items))[0])
        for _ in range(3):
            self.now_ms += 5000
            results += self.logic.on_notify()[0]
        return results


def _told(results: list[LaneResult], *, is_behind: bool) -> dict[str, int]:
    """The versions that were told, while behind or not."""
    return {
        record.sku: record.version
        for result in results
        if result.is_behind == is_behind
        for record in result.availability
    }


def test_what_is_told_while_behind_is_marked_and_told_again_when_caught_up() -> None:
    """Redis may have been emptied since: what a reader has seen of it is newer than a state restored just now."""
    before = lane()
    before.apply([log_of(*HISTORY)])
    behind = _Behind(before.snapshot())

    first = behind.given(log_of(record(3, "B"), record(4, "NEW"), first=3), CaughtUp(0, 2))
    assert (_told(first, is_behind=True), _told(first, is_behind=False)) == ({"B": 3, "NEW": 4}, {})
    then = behind.given(log_of(record(5, "B"), first=5), CaughtUp(1, 2))
    assert (_told(then, is_behind=True), _told(then, is_behind=False)) == ({}, {"B": 5, "NEW": 4})
    assert [result.refilled for result in then] == [0] * len(then)
    assert _told(behind.given(log_of(record(6, "A"), first=6)), is_behind=False) == {"A": 6}


def test_what_was_told_while_behind_is_told_again_by_whoever_goes_on() -> None:
    """Redis made no hash for a SKU that it did not know, and its records are not read again behind the snapshot."""
    first = _Behind(None)
    first.given(log_of(*HISTORY), CaughtUp(0, 2))
    second = _Behind(first.logic.snapshot())
    then = second.given(CaughtUp(0, 2), log_of(record(3, "C"), first=3), CaughtUp(1, 2))
    assert _told(then, is_behind=False) == {"A": 2, "B": 1, "C": 3}
    third = _Behind(second.logic.snapshot())
    assert _told(third.given(CaughtUp(0, 2), CaughtUp(1, 2)), is_behind=False) == {}


def test_what_is_told_again_is_held_until_it_has_been_told() -> None:
    """Nobody else knows of it when a run dies in between."""
    behind = Lane(0, RuleBook(RULES), SETTINGS, is_behind=True)
    behind.apply([log_of(*HISTORY)])
    behind.apply([CaughtUp(0, 1)])
    assert behind.begin_refill_of_held()
    (told,) = behind.refill(1)[0].availability
    again = Lane.restore(0, behind.snapshot(), RuleBook(RULES), SETTINGS, is_behind=True)
    again.apply([CaughtUp(0, 1)])
    assert again.begin_refill_of_held()
    (rest,) = again.refill(9)[0].availability
    assert {told.sku, rest.sku} == {"A", "B"}


def test_a_lane_that_knows_nothing_may_be_behind_too() -> None:
    """A run that died before its first snapshot has shown what the next one reads again from the beginning."""
    behind = _Behind(None)
    assert _told(behind.given(log_of(*HISTORY)), is_behind=True) == {"A": 2, "B": 1}


def test_redis_is_filled_and_explained_only_by_who_has_caught_up() -> None:
    """An empty Redis filled from an old snapshot would show a step back to whoever read before."""
    before = lane()
    before.apply([log_of(*HISTORY)])
    behind = _Behind(before.snapshot(), refills=1)

    first = behind.given(Wake(), log_of(record(3, "B"), first=3))
    assert not [result for result in first if result.is_refill or result.explanations]
    then = behind.given(CaughtUp(0, 2), CaughtUp(1, 2))
    assert _told(then, is_behind=False) == {"A": 2, "B": 3}
    assert max(result.refilled for result in then) == 1
    assert {explanation.sku for result in then for explanation in result.explanations} == {"A", "B"}


def test_nothing_is_explained_at_the_end_of_an_input_that_was_not_read_up_to_where_it_was() -> None:
    """A drain right after the start."""
    before = lane()
    before.apply([log_of(*HISTORY)])
    behind = _Behind(before.snapshot())
    behind.given(log_of(record(3, "B"), first=3))
    assert not list(behind.logic.on_eof()[0])


def test_a_drain_explains_what_there_is_time_for_and_the_next_run_the_rest() -> None:
    """A look at a SKU with a long history takes its time, which whoever stops a flow would wait for."""
    looks = itertools.count()
    logic = _logic(hooks=LaneHooks(worked=lambda: next(looks) * 0.7 * EXPLAINING_AT_END_SECONDS))
    messages = [record(number, f"SKU-{number}") for number in range(40)]
    first = explained_in(logic.on_batch(routed(log_of(*messages)))[0])
    at_end = explained_in(logic.on_eof()[0])
    assert len(at_end) == 2
    now = [BEGIN_MS]
    again = LaneLogic(logic.snapshot(), LaneMaking(RuleBook(RULES), SETTINGS, lambda: now[0]))
    rest = explained_in(again.on_batch([(0, Wake())])[0])
    for _ in range(40):
        now[0] += 20  # turns are closer than that
        rest += explained_in(again.on_notify()[0])
    assert sorted([*first, *at_end, *rest]) == sorted(f"SKU-{number}" for number in range(40))


def explained_in(results: Iterable[LaneResult]) -> list[str]:
    """The SKUs."""
    return [explanation.sku for result in results for explanation in result.explanations]


def test_a_lane_beats_all_through_a_long_batch() -> None:
    """A busy SKU with a long history takes its time; who looks for frozen workers must not take it for one."""
    beats: list[int] = []
    logic = _logic(hooks=LaneHooks(beat=lambda: beats.append(1)))
    counted = record(0, "A", "counted")  # so that all that follows goes row by row
    logic.on_batch(routed(log_of(counted, *(record(n, "A") for n in range(1, 2000)))))
    assert len(beats) >= 2000 // 256


def test_lanes_explain_one_sku_at_a_time_and_no_more_than_they_may_spend_on_it_together() -> None:
    """A SKU of many places with a long history takes its time, which movements would wait for."""
    seconds = 0.004
    clock, looks = [BEGIN_MS], itertools.count()
    hooks = LaneHooks(worked=lambda: next(looks) * seconds)
    making = LaneMaking(RuleBook(RULES), SETTINGS._replace(lanes=2), lambda: clock[0], hooks=hooks)
    turns = LaneTurns.of(making)
    lanes = [LaneLogic(None, making, turns) for _ in range(2)]
    explained = [0, 0]
    for logic in lanes:
        batch = log_of(*(record(number, f"SKU-{number}") for number in range(500)))
        logic.on_batch([(0, Part.whole(batch))])
    for _ in range(10_000):
        clock[0] += 1
        for number, logic in enumerate(lanes):
            due = logic.notify_at()
            if due is not None and due.timestamp() * 1000 <= clock[0]:
                at_once = sum(len(result.explanations) for result in logic.on_notify()[0])
                assert at_once <= 1
                explained[number] += at_once
    expected = 10 * EXPLAINING_SHARE / seconds  # in ten seconds
    assert 0.9 * expected <= sum(explained) <= 1.25 * expected  # a turn is taken for a short one until it is known
    assert abs(explained[0] - explained[1]) <= 2


def test_while_movements_are_old_when_they_are_applied_little_is_explained() -> None:
    """Numbers go first; a second after the last that waited, explanations have their whole share again."""
    clock, looks = [BEGIN_MS], itertools.count()
    hooks = LaneHooks(worked=lambda: next(looks) * 0.004)
    logic = LaneLogic(None, LaneMaking(RuleBook(RULES), SETTINGS, lambda: clock[0], hooks=hooks))
    names = [f"SKU-{number}" for number in range(2000)]
    logic.on_batch(routed(log_of(*(record(number, name) for number, name in enumerate(names)))))

    def explained_a_second(age_ms: int) -> int:
        """With movements of this age all through ten seconds; the first two do not count."""
        count = 0
        for tenth in range(100):
            offset = 2000 + clock[0] - BEGIN_MS
            batch = log_of(record(offset, "A"), first=offset)._replace(timestamps=[clock[0] - age_ms])
            results = list(logic.on_batch(routed(batch))[0])
            for _ in range(100):
                clock[0] += 1
                results += logic.on_notify()[0]
            count += len(explained_in(results)) if tenth >= 20 else 0
        return round(count / 8)

    shares = [explained_a_second(age) * 0.004 for age in (10, PRESSED_AGE_MS + 50, PRESSED_AGE_MS - 50)]
    wanted = [EXPLAINING_SHARE, EXPLAINING_SHARE_PRESSED, EXPLAINING_SHARE]
    assert shares == pytest.approx(wanted, rel=0.15)


def test_a_sku_that_changes_all_the_time_is_explained_once_a_second() -> None:
    """Its reader would find no other explanation anyway."""
    clock = [BEGIN_MS]
    logic = LaneLogic(None, LaneMaking(RuleBook(RULES), SETTINGS, lambda: clock[0]))
    explained = []
    for number in range(100):
        clock[0] += 50
        batch = log_of(record(number, "A"), first=number)._replace(timestamps=[clock[0]])
        results = [*logic.on_batch(routed(batch))[0], *logic.on_notify()[0]]
        explained += explained_in(results)
    assert explained == ["A"] * 5


class _Asked:
    """A lane of SKUs none of which has been explained, and whoever asks for some."""

    SECONDS = 0.004  # that explaining one takes

    def __init__(self, busy_seconds: float = 0.0) -> None:
        self.now_ms = BEGIN_MS
        self.names: list[str] = []
        self._worked = 0.0
        self._takes = itertools.cycle((0.0, self.SECONDS))  # what is explained lies between two looks
        self._busy_seconds = busy_seconds  # in each millisecond, with other things
        hooks = LaneHooks(worked=self.worked, monotonic=lambda: self.now_ms / 1000, asked=lambda _: self.taken())
        self.logic = LaneLogic(None, LaneMaking(RuleBook(RULES), SETTINGS, lambda: self.now_ms, hooks=hooks))
        self.logic.on_batch(routed(log_of(*(record(number, f"SKU-{number}") for number in range(2000)))))

    def worked(self) -> float:
        """On anything."""
        self._worked += next(self._takes)
        return self._worked

    def taken(self) -> list[str]:
        """Once."""
        names, self.names = self.names, []
        return names

    def explained(self, *names: str, after_ms: int = 0) -> list[str]:
        """The SKUs that are explained when somebody asks for some."""
        self.now_ms += after_ms
        self._worked += after_ms * self._busy_seconds
        self.names = list(names)
        return explained_in(self.logic.on_notify()[0])


def test_a_sku_that_was_asked_for_is_explained_at_once() -> None:
    """Whatever the turn, though it was explained just now; what has nothing new, or is not known, is not."""
    lane_ = _Asked()
    assert lane_.explained() == []  # the turn is to come
    assert lane_.explained("SKU-1999", "SKU-1500", "SKU-1999", "NONE") == ["SKU-1999", "SKU-1500"]
    assert lane_.explained("SKU-1999") == []
    lane_.logic.on_batch(routed(log_of(record(5000, "SKU-1999"), first=2000)._replace(timestamps=[lane_.now_ms])))
    assert lane_.explained("SKU-1999") == ["SKU-1999"]
    assert lane_.explained(after_ms=2 * round(BORROWED_MS_MAX)) == ["SKU-1"]


def test_not_many_are_explained_at_once_because_they_were_asked_for() -> None:
    """Nor more than there is a share for, for longer than a second: movements go first whoever asks."""
    lane_ = _Asked()
    names = [f"SKU-{number}" for number in range(1000, 2000)]
    assert lane_.explained(*names) == names[:ASKED_AT_ONCE_MAX]
    count = sum(len(lane_.explained(*names, after_ms=1)) for _ in range(10_000))
    assert EXPLAINING_SHARE * 10 <= count * _Asked.SECONDS <= EXPLAINING_SHARE * 11.2


def test_what_was_asked_for_while_behind_is_passed_over() -> None:
    """Nothing is explained then; who still waits when the lane has caught up asks again."""
    lane_ = _Asked()
    old = log_of(record(5000, "SKU-7"), first=2000)._replace(timestamps=[lane_.now_ms - BEHIND_MS - 1])
    lane_.names = ["SKU-7"]
    assert explained_in(lane_.logic.on_batch(routed(old))[0]) == []
    assert lane_.explained("SKU-7") == []
    assert lane_.names == []
    assert lane_.explained("SKU-7", after_ms=BEHIND_MS)[0] == "SKU-7"


@pytest.mark.parametrize(
    ("busy_seconds", "share"), [(0.0001, EXPLAINING_SHARE), (0.0005, EXPLAINING_SHARE_PRESSED)], ids=["idle", "busy"]
)
def test_while_the_thread_is_busy_with_other_things_little_is_explained(busy_seconds: float, share: float) -> None:
    """Movements would wait for it before any of them is old."""
    lane_ = _Asked(busy_seconds=busy_seconds)
    explained = [len(lane_.explained(after_ms=1)) for _ in range(10_000)]
    assert sum(explained[4000:]) * _Asked.SECONDS / 6 == pytest.approx(share, rel=0.2)
