"""Counts and statements: what they change, what they open, and what they blame."""

import pytest

from schemas.rules import ChannelRules, Rules, SourceRules
from tests.tales import Tale

PLAIN = Rules(channels={"web": ChannelRules()})
SPOKEN = Rules(
    channels={"web": ChannelRules()},
    sources={
        "wms": SourceRules(kinds=("received", "shipped", "returned", "stated", "counted"), grace="10m"),
        "erp": SourceRules(tolerance_units=2, tolerance_percent=10, grace="10m"),
        "boss": SourceRules(corrects=True, authority=10),
        "clerk": SourceRules(corrects=True, authority=5),
    },
)


@pytest.mark.parametrize("of", ["reserved", "allocated", "quarantined", "in_transit", "incoming", "on_hand"])
def test_a_count_sets_what_it_names(of: str) -> None:
    """Opening quantities of every kind can be loaded."""
    tale = Tale(PLAIN)
    tale.tell("counted", 7, of=of)
    assert getattr(tale.position(), of) == 7


def test_picked_units_that_had_left_the_shelf_are_added_to_a_count() -> None:
    """Counted without what lies in the packing area: it is still in the house."""
    tale = Tale(PLAIN)
    tale.tell("received", 10)
    tale.tell("allocated", 3)
    tale.tell("picked", 3)
    tale.tell("counted", 7, includes_picked=False)
    assert tale.position().on_hand == 10
    tale.tell("counted", 9)
    assert tale.position().on_hand == 9


def test_a_repeated_count_changes_nothing_more() -> None:
    """The same count under another id is the same truth."""
    tale = Tale(PLAIN)
    tale.tell("counted", 8, at=10)
    tale.tell("shipped", 3, at=20)
    tale.tell("counted", 8, at=10)
    assert tale.position().on_hand == 5


def test_a_count_older_than_the_history_opens_a_divergence_and_changes_nothing() -> None:
    """Nobody knows any more what moved since, so it is told instead of applied."""
    tale = Tale(PLAIN, as_of_hours=1)
    tale.tell("received", 10, at=120)
    tale.tell("counted", 4, at=30)
    assert tale.position().on_hand == 10
    assert tale.events == [("opened", "count_too_old")]
    tale.tell("counted", 9, at=119)
    assert (tale.position().on_hand, tale.events[-1]) == (19, ("closed", "agrees"))


def test_a_late_movement_before_a_count_leaves_the_count_and_everything_after_it() -> None:
    """What happened before the count is in it, for the value now and for every later moment."""
    tale = Tale(PLAIN)
    tale.tell("received", 10, at=0)
    tale.tell("counted", 6, at=20)
    tale.tell("shipped", 1, at=30)
    tale.tell("shipped", 4, at=10)
    tale.tick(40)
    tale.tell("stated", 6, at=25)
    tale.tell("stated", 6, at=5)
    assert (tale.position().on_hand, [divergence.derived for divergence in tale.divergences]) == (5, [10])


def test_a_statement_waits_for_its_grace_and_sees_what_was_under_way() -> None:
    """Read before the shipment arrives, judged after: it agrees."""
    tale = Tale(SPOKEN)
    tale.tell("received", 10, at=0)
    tale.tell("stated", 7, source="erp", at=5)
    tale.tick(14)
    tale.tell("shipped", 3, at=4)
    tale.tick(15)
    assert tale.events == []


def test_a_divergence_opens_changes_and_closes() -> None:
    """At most one is open for a SKU, location and system; a statement within tolerance closes it."""
    tale = Tale(SPOKEN)
    tale.tell("received", 10, at=0)
    tale.tick(30)
    for stated, minute in ((20, 1), (20, 2), (25, 3), (12, 4), (20, 5)):
        tale.tell("stated", stated, source="erp", at=minute)
    assert [divergence.event for divergence in tale.divergences] == ["opened", "changed", "closed", "opened"]
    assert [divergence.stated for divergence in tale.divergences] == [20, 25, 12, 20]
    assert tale.divergences[1].opened_at == tale.divergences[0].time


def test_an_agreement_about_something_else_closes_nothing() -> None:
    """A system that agrees about its reservations still disagrees about the shelf."""
    tale = Tale(SPOKEN)
    tale.tell("received", 10, at=0)
    tale.tick(30)
    tale.tell("stated", 20, source="erp", at=1)
    tale.tell("stated", 0, of="reserved", source="erp", at=2)
    assert [divergence.event for divergence in tale.divergences] == ["opened"]


def test_the_most_authoritative_corrects_the_position_as_of_its_statement() -> None:
    """The boss is believed, from the statement's time on; the clerk is only heard."""
    tale = Tale(SPOKEN)
    tale.tell("received", 10, at=0)
    tale.tell("shipped", 2, at=10)
    tale.tick(30)
    tale.tell("stated", 9, source="clerk", at=5)
    assert (tale.position().on_hand, tale.events) == (8, [("opened", "unknown")])
    tale.tell("stated", 9, source="boss", at=5)
    assert tale.position().on_hand == 7
    assert tale.events[1:] == [("opened", "corrected"), ("closed", "corrected")]
    assert tale.divergences[-1].evidence == ["on_hand adjusted by -1"]


def cause_of(tale: Tale, stated: int, source: str = "erp") -> tuple[str, list[str]]:
    """Reason and evidence of the divergence that a statement opens."""
    tale.tell("stated", stated, source=source, at=59)
    tale.tick(100)
    return tale.divergences[-1].reason, tale.divergences[-1].evidence


def test_a_gap_in_the_sequence_is_the_likely_cause() -> None:
    """Numbers that never came are named, and forgotten when they come after all."""
    tale = Tale(SPOKEN)
    for sequence in (38, 39, 41, 44):
        tale.tell("received", 10, sequence=sequence)
    tale.tell("received", 10, sequence=42)
    assert cause_of(tale, 10) == ("gap", ["sequence 40 of wms missing", "sequence 43 of wms missing"])


def test_two_sources_that_tell_the_same_are_the_likely_cause() -> None:
    """The ERP and the WMS both report the shipment of one order."""
    tale = Tale(SPOKEN)
    tale.tell("received", 30)
    tale.tell("shipped", 5, order="SO-9")
    tale.tell("shipped", 5, order="SO-9", source="erp")
    assert cause_of(tale, 25) == ("duplicate_source", ["order SO-9 shipped by wms and erp"])


def test_late_movements_are_the_likely_cause() -> None:
    """What arrived after the statement although it was dated before it."""
    tale = Tale(SPOKEN)
    tale.tell("received", 30, at=0)
    tale.tell("stated", 50, source="erp", at=20)
    tale.tell("shipped", 1, at=10)
    tale.tell("shipped", 1, at=11)
    tale.tick(100)
    assert (tale.divergences[-1].reason, tale.divergences[-1].evidence) == ("late", ["2 movements arrived late"])


def test_a_kind_never_heard_of_is_the_likely_cause() -> None:
    """A source that should tell of returns and never did."""
    tale = Tale(SPOKEN)
    tale.tell("received", 30)
    assert cause_of(tale, 50, source="wms") == ("missing_kind", ["never heard: returned, shipped"])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kind": "counted"}, "missing_field"),
        ({"kind": "counted", "quantity": -1}, "out_of_range"),
        ({"kind": "counted", "quantity": 1, "of": "available"}, "wrong_type"),
        ({"kind": "counted", "quantity": 1, "of": "picked"}, "wrong_type"),
        ({"kind": "stated", "quantity": 1, "of": "sold"}, "wrong_type"),
        ({"kind": "stated", "quantity": 1, "basis": "hope"}, "wrong_type"),
        ({"kind": "transfer_shipped", "quantity": 1}, "missing_field"),
    ],
)
def test_what_cannot_be_a_count_or_statement_is_refused(fields: dict[str, object], reason: str) -> None:
    """A dead letter with its reason, and nothing else."""
    tale = Tale(PLAIN)
    body = dict(fields)
    tale.tell(str(body.pop("kind")), **body)  # type: ignore[arg-type]  # wrong on purpose
    assert (tale.refusals, tale.record) == ([reason], None)


def test_a_statement_about_a_time_long_gone_is_too_late() -> None:
    """The history does not reach back that far."""
    tale = Tale(PLAIN, as_of_hours=1)
    tale.tell("received", 10, at=120)
    tale.tell("stated", 4, at=30)
    assert tale.refusals == ["too_late"]


def test_a_snapshot_keeps_everything_that_waits_or_is_open() -> None:
    """Statements, divergences, gaps and counts survive a restart."""
    tale = Tale(SPOKEN)
    tale.tell("received", 10, sequence=1)
    tale.tell("counted", 6, sequence=3)
    tale.tell("stated", 20, source="erp", at=3)
    tale.restart()
    tale.tell("shipped", 1, at=0.5)
    tale.tick(30)
    tale.restart()
    tale.tell("stated", 6, source="erp", at=4)
    assert tale.position().on_hand == 6
    assert tale.events == [("opened", "gap"), ("closed", "agrees")]
