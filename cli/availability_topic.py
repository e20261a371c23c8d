"""The records of inventory.availability, as commands read them back."""

from typing import Final, NamedTuple

import msgspec
from confluent_kafka import Message

from cli.failures import one_line
from schemas.outputs import Availability
from schemas.times import parse_ms
from schemas.topics import AVAILABILITY

NO_INCARNATION: Final = 0


class Unreadable(NamedTuple):
    """What is no record of onhand, and why."""

    why: str


class Stamp(msgspec.Struct):
    """Of a record, which state wrote it: quicker to read than all of it."""

    incarnation: int


_stamp = msgspec.json.Decoder(Stamp).decode


def incarnation_of(message: Message) -> int:
    """The incarnation of the state that wrote a record; 0 where that cannot be read."""
    try:
        return _stamp(message.value() or b"").incarnation
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return NO_INCARNATION


def availability_of(message: Message) -> Availability | Unreadable | None:
    """What a record says; None where it was taken back (a tombstone)."""
    value = message.value()
    if value is None:
        return None
    try:
        record = AVAILABILITY.decode(value)
        parse_ms(record.as_of)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        return Unreadable(one_line(error))
    if message.key() != record.sku.encode():
        return Unreadable(f"its key is not its SKU {record.sku}")
    return record


def place_of(message: Message) -> str:
    """Where a record stands: topic/partition/offset."""
    return f"{message.topic()}/{message.partition()}/{message.offset()}"
