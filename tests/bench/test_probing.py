"""The watch: a probe is seen with the first version that is not below its offset, whenever its offset is learnt."""

from pathlib import Path
from random import Random

from bench.probes import FIELDS, UNKNOWN, draw_up, mapped
from bench.probing import NOT_SEEN, SKUS_PER_ROUND_MAX, Found, Watch

SKU = b"SKU-1"


def seen(watch: Watch, version: int, asked_ns: int, offsets: dict[int, int]) -> list[Found]:
    """Let the answer to a question of `asked_ns`, 5 ns later, be `version`."""
    watch.saw(SKU, version, asked_ns, asked_ns + 5)
    return watch.found(SKU, lambda probe: offsets.get(probe, UNKNOWN))


def test_a_probe_is_seen_when_its_version_is_reached() -> None:
    """Between the question that did not show it and the answer that did."""
    watch = Watch()
    watch.begin(0, SKU, due_ns=100)
    assert seen(watch, NOT_SEEN, 110, {0: 7}) == []
    assert seen(watch, 6, 120, {0: 7}) == []
    assert seen(watch, 6, 130, {0: 7}) == []
    assert seen(watch, 7, 140, {0: 7}) == [Found(0, unseen_ns=130, seen_ns=145)]
    assert not watch


def test_a_later_version_shows_it_too() -> None:
    """Versions skip where a batch holds several movements of a SKU."""
    watch = Watch()
    watch.begin(0, SKU, due_ns=100)
    seen(watch, 6, 110, {0: 7})
    assert seen(watch, 12, 120, {0: 7}) == [Found(0, 110, 125)]


def test_a_probe_seen_at_the_first_look_was_not_there_before_it_was_due() -> None:
    """The bound from below is the instant at which it was due."""
    watch = Watch()
    watch.begin(0, SKU, due_ns=100)
    assert seen(watch, 9, 110, {0: 7}) == [Found(0, 100, 115)]


def test_an_offset_learnt_late_gives_the_instant_at_which_it_was_seen() -> None:
    """Acknowledgements come after the effect now and then; nothing of the wait for them is counted."""
    watch = Watch()
    watch.begin(0, SKU, due_ns=100)
    for version, asked_ns in ((5, 110), (7, 120), (8, 130), (8, 140)):
        assert seen(watch, version, asked_ns, {}) == []
    assert seen(watch, 9, 150, {0: 7}) == [Found(0, 110, 125)]


def test_several_probes_of_one_sku_are_told_apart() -> None:
    """Each has its own first version, and one answer can show two of them."""
    watch = Watch()
    for probe in range(4):
        watch.begin(probe, SKU, due_ns=100 + probe)
    offsets = {0: 5, 1: 6, 2: 9}
    assert seen(watch, 4, 110, offsets) == []
    assert seen(watch, 6, 120, offsets) == [Found(0, 110, 125), Found(1, 110, 125)]
    assert seen(watch, 8, 130, offsets) == []
    assert seen(watch, 20, 140, offsets) == [Found(2, 130, 145)]
    assert seen(watch, 20, 150, offsets) == []
    assert seen(watch, 20, 160, {**offsets, 3: 15}) == [Found(3, 130, 145)]


def test_skus_take_turns_where_they_do_not_fit_into_a_round() -> None:
    """Each is asked for once before any is asked for again, and a round stays bounded."""
    watch, skus = Watch(), [b"SKU-%d" % number for number in range(3 * SKUS_PER_ROUND_MAX)]
    for probe, sku in enumerate(skus):
        watch.begin(probe, sku, due_ns=0)
    rounds = [watch.turn() for _ in range(4)]
    assert {len(asked) for asked in rounds} == {SKUS_PER_ROUND_MAX}
    assert sorted(rounds[0] + rounds[1] + rounds[2]) == sorted(skus)
    assert rounds[3] == rounds[0]


def test_a_sku_is_asked_for_once_a_round_however_many_probes_wait_at_it() -> None:
    """A hot SKU costs no more than another one."""
    watch = Watch()
    for probe in range(10):
        watch.begin(probe, SKU, due_ns=0)
    assert watch.turn() == [SKU]


def test_probes_are_one_of_each_block_at_no_fixed_place(tmp_path: Path) -> None:
    """So they stand for all movements, and meet no period."""
    messages = draw_up(tmp_path, 10_007, 10, Random(1))["message"].tolist()
    assert [message // 10 for message in messages] == list(range(1000))
    assert len({message % 10 for message in messages}) == 10


def test_what_one_process_writes_on_the_sheet_another_reads(tmp_path: Path) -> None:
    """Field by field; what nobody has written yet is unknown."""
    draw_up(tmp_path, 20, 10, Random(1))
    sender, reader = mapped(tmp_path), mapped(tmp_path)
    sender["offset"][1] = 77
    reader[1]["seen_ns"] = 5
    assert (int(reader["offset"][1]), int(sender["seen_ns"][1])) == (77, 5)
    assert [int(sender[name][0]) for name in (FIELDS.names or ())[1:]] == [UNKNOWN] * 5
