"""States of sources: sealed by a checksum, so that a damaged store is never read from the wrong place."""

from collections.abc import Mapping
from typing import TypeVar, cast

import msgspec
from xxhash import xxh3_64_intdigest

from sources.errors import SourceError

StateT = TypeVar("StateT", bound=Mapping[str, object])


def sealed(state: StateT) -> StateT:
    """`state` with a checksum over all of it."""
    return cast("StateT", {**state, "checksum": _checksum(state)})


def checked(state: StateT, format_: int) -> StateT:
    """`state` as it was sealed; SourceError where it is damaged or has another format."""
    if not isinstance(state, dict) or state.get("checksum") != _checksum(state):
        raise SourceError("where the source goes on is damaged in the state: put a backup of it back, or begin anew")
    if state["format"] != format_:
        raise SourceError(f"the state was written by another version (format {state['format']}): use that version")
    return cast("StateT", state)


def _checksum(state: Mapping[str, object]) -> int:
    """Over names and values; keys that are numbers are texts in JSON, in one order."""
    body = {name: value for name, value in state.items() if name != "checksum"}
    return xxh3_64_intdigest(msgspec.json.encode(msgspec.to_builtins(body, str_keys=True), order="deterministic"))
