"""Generations: a change in several records, and what does not belong to it."""

import json

import msgspec
import pytest

from operators.generations import Generations
from operators.rules import RuleBook
from schemas.movements import Reason, Refusal, RulesChanged
from schemas.rules import ChannelRules, Rules

PATCH = json.dumps({"channels": {"web": {"safety_units": 5}}})


def piece(part: int, text: str, *, generation: int = 2, since: int = 1, parts: int = 2) -> RulesChanged:
    """A piece of a change, one of two records of generation 2 where nothing else is said."""
    changes = msgspec.Raw(json.dumps(text).encode())
    return RulesChanged(generation=generation, since=since, part=part, parts=parts, changes=changes)


@pytest.fixture
def generations() -> Generations:
    """One partition that was told the first half of a change."""
    found = Generations(RuleBook(Rules(channels={"web": ChannelRules(safety_units=2)})))
    found.add_origin()
    assert found.take(0, piece(1, PATCH[:20])) is None
    return found


def safety_units(generations: Generations) -> tuple[int, int]:
    """Which generation holds, and how much it keeps back."""
    rules = generations[0]
    return rules.generation, rules.book.document["channels"]["web"].get("safety_units", 0)


def test_a_change_holds_with_its_last_piece(generations: Generations) -> None:
    """Also where a snapshot lies between the pieces."""
    restored = Generations(RuleBook(Rules(channels={"web": ChannelRules(safety_units=2)})))
    restored.load(msgspec.json.decode(msgspec.json.encode(generations.dump())))
    for found in (generations, restored):
        assert safety_units(found) == (1, 2)
        before = found.take(0, piece(2, PATCH[20:]))
        assert not isinstance(before, Refusal | None)
        assert before.generation == 1
        assert safety_units(found) == (2, 5)


@pytest.mark.parametrize("other", [{"generation": 3}, {"since": 0}, {"parts": 3}])
def test_a_piece_of_another_change_is_no_continuation(generations: Generations, other: dict[str, int]) -> None:
    """It is refused, and the change that is under way may still be completed."""
    refused = generations.take(0, piece(2, PATCH[20:], **other))
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.BAD_RULES
    assert safety_units(generations) == (1, 2)
    generations.take(0, piece(2, PATCH[20:]))
    assert safety_units(generations) == (2, 5)


def test_a_change_that_begins_anew_forgets_what_had_arrived(generations: Generations) -> None:
    """A writer that died half-way is followed by one that says everything again."""
    generations.take(0, piece(1, PATCH[:7]))
    generations.take(0, piece(2, PATCH[7:]))
    assert safety_units(generations) == (2, 5)


def test_a_whole_change_ends_one_that_was_never_completed(generations: Generations) -> None:
    """The rest of the old one comes too late."""
    generations.take(0, RulesChanged(generation=2, since=1, changes=msgspec.Raw(PATCH.encode())))
    late = generations.take(0, piece(2, PATCH[20:]))
    assert isinstance(late, Refusal)
    assert "does not follow" in late.detail
    assert safety_units(generations) == (2, 5)
