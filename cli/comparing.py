"""What a SKU should show, what it shows, and how the two differ."""

from typing import Any, Final, Literal, NamedTuple

import msgspec

from cli.availability_topic import Unreadable
from schemas.times import LATEST_MS, format_ms
from sinks.redis_keys import AS_OF, VERSION

Place = Literal["redis", "topic"]
Reason = Literal["differs", "missing", "unknown", "behind", "ahead", "unreadable"]
Cell = int | str | None
HASH: Final = "@hash"  # the whole of it


class Stand(NamedTuple):
    """What is shown of a SKU: the version and its time, ms since 1970, and the units promised by channel."""

    version: int
    as_of_ms: int
    promised: dict[str, int]


Found = Stand | Unreadable | None  # None: there is nothing


class Difference(msgspec.Struct, tag_field="kind", tag="difference"):
    """One field that is not as the log of movements says; None: there is none."""

    sku: str
    where: Place
    reason: Reason
    field: str
    expected: Cell
    found: Cell


def differences_of(sku: str, where: Place, expected: Stand | None, found: Found) -> list[Difference]:
    """How `found` differs, field by field; of another version or none at all, that alone is told."""
    if isinstance(found, Unreadable):
        return [Difference(sku, where, "unreadable", HASH, _version(expected), found.why)]
    if found is None or expected is None or found.version != expected.version:
        return [Difference(sku, where, _reason(expected, found), VERSION, _version(expected), _version(found))]
    fields = _fields(expected), _fields(found)
    return [
        Difference(sku, where, "differs", name, fields[0].get(name), fields[1].get(name))
        for name in dict.fromkeys((*fields[0], *fields[1]))
        if fields[0].get(name) != fields[1].get(name)
    ]


def _reason(expected: Stand | None, found: Stand | None) -> Reason:
    if expected is None:
        return "unknown"
    if found is None:
        return "missing"
    return "behind" if found.version < expected.version else "ahead"


def _version(stand: Stand | None) -> int | None:
    return None if stand is None else stand.version


def _fields(stand: Stand) -> dict[str, Any]:
    return {AS_OF: _time(stand.as_of_ms), **stand.promised}


def _time(time_ms: int) -> Cell:
    return format_ms(time_ms) if 0 <= time_ms <= LATEST_MS else time_ms
