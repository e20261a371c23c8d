"""Admission: what a readable record must fulfil before it may touch stock."""

from collections.abc import Mapping
from typing import Final

from schemas.movements import NO_TIME_MS, Control, Decoded, Fact, Reason, Refusal
from schemas.rules import SourceRules

AHEAD_MS_MAX: Final = 300_000  # a `time` further past the broker's own is a source whose clock is wrong
NO_TIMESTAMP: Final = -1


def admit(decoded: Decoded, key: bytes | None, timestamp_ms: int, sources: Mapping[str, SourceRules]) -> Refusal | None:
    """Why the record may not be used, or None; `timestamp_ms` is the broker's, −1 where there is none."""
    record, time_ms = decoded
    if isinstance(record, Control):
        return _admit_control(time_ms, key, timestamp_ms)
    fact: Fact = record
    if key and key != fact.sku.encode():
        return _refused(fact, Reason.KEY_MISMATCH, f"the key is {key[:200]!r}, the sku {fact.sku!r}")
    if _is_from_the_future(time_ms, timestamp_ms):
        return _refused(fact, Reason.FROM_THE_FUTURE, _ahead(time_ms, timestamp_ms))
    if sources and (refusal := _admit_source(fact, sources)):
        return refusal
    return None


def _admit_control(time_ms: int, key: bytes | None, timestamp_ms: int) -> Refusal | None:
    if key:
        return Refusal(Reason.KEY_MISMATCH, f"a control record has no key, this one has {key[:200]!r}")
    if time_ms != NO_TIME_MS and _is_from_the_future(time_ms, timestamp_ms):
        return Refusal(Reason.FROM_THE_FUTURE, _ahead(time_ms, timestamp_ms))
    return None


def _admit_source(fact: Fact, sources: Mapping[str, SourceRules]) -> Refusal | None:
    """Where the rules name sources, nobody else is heard, and each only about what it knows."""
    rule = sources.get(fact.source)
    if rule is None:
        return _refused(fact, Reason.UNKNOWN_SOURCE, f"source {fact.source!r} has no [sources] table in the rules")
    if rule.kinds is not None and _kind(fact) not in rule.kinds:
        return _refused(fact, Reason.KIND_NOT_ALLOWED, f"source {fact.source!r} may not say {_kind(fact)!r}")
    location = getattr(fact, "location", None)
    if rule.locations is not None and location is not None and location not in rule.locations:
        return _refused(fact, Reason.LOCATION_NOT_ALLOWED, f"source {fact.source!r} may not speak for {location!r}")
    return None


def _is_from_the_future(time_ms: int, timestamp_ms: int) -> bool:
    return timestamp_ms != NO_TIMESTAMP and time_ms > timestamp_ms + AHEAD_MS_MAX


def _ahead(time_ms: int, timestamp_ms: int) -> str:
    return f"time is {(time_ms - timestamp_ms) / 1000:.0f} s past the record's own timestamp"


def _kind(record: Fact | Control) -> str:
    return str(record.__struct_config__.tag)


def _refused(fact: Fact, reason: Reason, detail: str) -> Refusal:
    return Refusal(reason, detail, fact.source, fact.sku)
