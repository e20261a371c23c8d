"""States of sources: what is damaged is never gone on with."""

from typing import Any

import pytest

from sources.errors import SourceError
from sources.states import checked, sealed

STATE: dict[str, Any] = {"format": 1, "slots": 8, "offsets": {0: 4711, 8: 12}}


def test_a_sealed_state_is_what_it_was() -> None:
    """Nothing but the checksum is added."""
    assert {name: value for name, value in checked(sealed(STATE), 1).items() if name != "checksum"} == STATE


@pytest.mark.parametrize(
    "change", [{"offsets": {0: 4715, 8: 12}}, {"offsets": {0: 4711}}, {"checksum": 5}, {"more": 1}]
)
def test_a_changed_state_is_refused(change: dict[str, Any]) -> None:
    """An offset that a flipped bit moved would lose records in silence."""
    with pytest.raises(SourceError, match="damaged"):
        checked({**sealed(STATE), **change}, 1)


def test_a_state_without_seal_is_refused() -> None:
    """What was never sealed was not written by a source."""
    with pytest.raises(SourceError, match="damaged"):
        checked(STATE, 1)


def test_another_format_is_named() -> None:
    """A newer release may write states that this one cannot read."""
    with pytest.raises(SourceError, match="format 2"):
        checked(sealed({**STATE, "format": 2}), 1)
