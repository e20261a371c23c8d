"""Last facts: the last 8 facts of each SKU and its last 8 plain ones, whatever their order and their length."""

from collections import defaultdict
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from operators import last_facts
from operators.columns import IndexedNames
from operators.lane import Lane
from operators.last_facts import LastFacts
from operators.plain import FACT_LOCATIONS_MAX, KEPT, WORD_BYTES
from operators.rules import RuleBook
from operators.snapshots import SnapshotError, pack, unpack
from schemas.movements import Counted, Fact, Released, encode
from schemas.rules import ChannelRules, Rules
from tests.operators.test_snapshots import FOURTH_FORMAT, SECOND_FORMAT, SETTINGS
from tests.operators.test_telling import batch_for
from tests.stories import RULES

SKUS = 6
ROUNDS = 40


@given(
    seed=st.integers(0, 2**32), plain_share=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), id_bytes_max=st.integers(1, 250)
)
def test_the_last_facts_are_those_that_were_noted_last(seed: int, plain_share: float, id_bytes_max: int) -> None:
    """Beside plain lists; they are packed and loaded now and then, and go on."""
    chance, facts = Random(seed), LastFacts(IndexedNames())
    noted: dict[int, list[Fact]] = defaultdict(list)
    for number in range(ROUNDS * SKUS):
        sku = chance.randrange(SKUS)
        is_plain = chance.random() < plain_share
        fact = a_fact(sku, number, chance.randint(1, id_bytes_max), is_plain=is_plain)
        facts.note(sku, fact, number)
        noted[sku].append(fact)
        if chance.random() < 1 / ROUNDS:
            facts = loaded(facts)
    for sku in range(SKUS + 1):
        assert [record.id for record in facts.of(sku)] == [fact.id for fact in noted[sku][: -KEPT - 1 : -1]]
        plain = [fact for fact in noted[sku] if isinstance(fact, Released)]
        assert [sighting.source for sighting in facts.sightings(sku)] == [fact.source for fact in plain[-KEPT:]]


def a_fact(sku: int, number: int, id_bytes: int, *, is_plain: bool) -> Released | Counted:
    """A plain fact or another one, each of a source of its own."""
    kind = Released if is_plain else Counted
    id_ = f"{sku}-{number}".ljust(id_bytes, ".")
    return kind(
        id=id_, source=f"s{number}", time="2026-11-21T09:00:00Z", sku=str(sku), location="dc", quantity=1
    )  # fmt: skip


def loaded(facts: LastFacts) -> LastFacts:
    """What comes of packing and loading."""
    again = LastFacts(IndexedNames())
    again.load(unpack(pack({"facts": facts.dump()}))["facts"])
    return again


def test_a_fact_that_fits_takes_the_place_of_the_oldest() -> None:
    """So nothing is of no use, and nothing has to be written anew, as long as facts stay about as long."""
    facts, chance = LastFacts(IndexedNames()), Random(1)
    for number in range(KEPT):
        facts.note(0, a_fact(0, number, 40, is_plain=True), number)
    full_bytes = facts.used_bytes
    for number in range(KEPT, 100 * KEPT):
        facts.note(0, a_fact(0, number, chance.randint(40 - WORD_BYTES, 40), is_plain=True), number)
    assert facts.used_bytes == full_bytes
    assert not facts.columns().waste[0]


@pytest.mark.parametrize(("path", "told"), [(SECOND_FORMAT, "b9a786c2c5ff61fe"), (FOURTH_FORMAT, "f063d3a80cfb5d7f")])
def test_facts_of_older_formats_are_those_that_their_releases_told(path: Path, told: str) -> None:
    """The digest is of what the release that had no rings of slots yet told of them, as of others before."""
    lane = Lane.restore(0, path.read_bytes(), RuleBook(RULES), SETTINGS)
    for one in (lane, Lane.restore(0, lane.snapshot(), RuleBook(RULES), SETTINGS)):
        facts, skus = one._facts, range(one._stock.skus.rows)  # noqa: SLF001
        assert sha256(repr([(facts.of(sku), facts.sightings(sku)) for sku in skus]).encode()).hexdigest()[:16] == told


def test_who_goes_back_to_a_release_with_wider_heads_makes_room_for_them() -> None:
    """Its loops write 30 bytes and the texts of each fact into as many bytes as the snapshot says, and do not look."""
    facts = LastFacts(IndexedNames())
    for number in range(3 * KEPT):
        facts.note(0, a_fact(0, number, 40 + number, is_plain=number % 3 > 0), number)
    dumped = facts.dump()
    text_bytes = len(dumped["texts"].bytes_) + len(dumped["words"])  # no source is told twice
    assert dumped["bytes"] >= 30 * dumped["facts"] + text_bytes


def test_a_row_of_a_location_that_a_head_has_no_room_for_is_refused() -> None:
    """Releases before wrote such; today's loops leave such movements to others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(last_facts, "FACT_LOCATIONS_MAX", 0)
        with pytest.raises(SnapshotError, match="no more than 0 locations"):
            Lane.restore(0, FOURTH_FORMAT.read_bytes(), RuleBook(RULES), SETTINGS)


def test_more_than_rings_can_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is written in the wrong place."""
    monkeypatch.setattr(last_facts, "BYTES_MAX", 10_000)
    facts = LastFacts(IndexedNames())
    with pytest.raises(MemoryError, match="no more than 10,000 can be named"):
        facts.make_room(10_000, 1)


def test_a_location_that_a_head_has_no_room_for_is_told_all_the_same() -> None:
    """The row-wise functions note it by its name."""
    lane = Lane(0, RuleBook(Rules(channels={"web": ChannelRules()})), SETTINGS)
    for number in range(FACT_LOCATIONS_MAX - 1):
        lane._stock.locations.add(f"place-{number}")  # noqa: SLF001
    facts = [a_fact(0, number, 40, is_plain=True) for number in range(3)]
    places = ("last", "beyond", "beyond")
    far = [encode(replace(fact, location=place)) for fact, place in zip(facts, places, strict=True)]
    lane.apply([batch_for("0", [*far])])
    assert [record.location for record in lane._facts.of(0)] == ["beyond", "beyond", "last"]  # noqa: SLF001
    assert lane.row_wise == 2
