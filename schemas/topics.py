"""Topics: each one object of name, codec and the settings it needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from schemas.movements import Decoded, Record, Refusal
from schemas.movements import decode as decode_movement
from schemas.movements import encode as encode_movement
from schemas.outputs import (
    Availability,
    DeadLetter,
    Divergence,
    Replenishment,
    Reservation,
    ShadowDifference,
    Threshold,
)
from schemas.watch import Generation, Heartbeat

DEAD_LETTER_BYTES_MAX: Final = 8 * 1024 * 1024

EncodedT = TypeVar("EncodedT")
DecodedT = TypeVar("DecodedT")


@dataclass(frozen=True, slots=True)
class Topic(Generic[EncodedT, DecodedT]):
    """A topic's name, the codec of its values, and what it is created with (`config` in Kafka's words)."""

    name: str
    encode: Callable[[EncodedT], bytes]
    decode: Callable[[bytes], DecodedT]
    config: Mapping[str, str]
    event_type: str = ""  # CloudEvents' `ce_type`; empty where no events are written


MOVEMENTS: Final[Topic[Record, Decoded | Refusal]] = Topic(
    "inventory.movements",
    encode_movement,
    decode_movement,
    # The broker's clock, so that a source cannot date its movements into the future; kept for ever, because the log
    # is the truth from which everything else can be computed again.
    {
        "cleanup.policy": "delete",
        "message.timestamp.type": "LogAppendTime",
        "retention.bytes": "-1",
        "retention.ms": "-1",
    },
)
AVAILABILITY: Final[Topic[Availability, Availability]] = Topic(
    "inventory.availability",
    msgspec.json.Encoder().encode,
    msgspec.json.Decoder(Availability).decode,
    {"cleanup.policy": "compact"},
    "onhand.availability.changed",
)
THRESHOLDS: Final[Topic[Threshold, Threshold]] = Topic(
    "inventory.thresholds",
    msgspec.json.Encoder().encode,
    msgspec.json.Decoder(Threshold).decode,
    {"retention.ms": "2592000000"},
    "onhand.threshold.crossed",
)
DIVERGENCES: Final[Topic[Divergence, Divergence]] = Topic(
    "inventory.divergences",
    msgspec.json.Encoder().encode,
    msgspec.json.Decoder(Divergence).decode,
    {"retention.ms": "2592000000"},
    "onhand.divergence.changed",
)
RESERVATIONS: Final[Topic[Reservation, Reservation]] = Topic(
    "inventory.reservations",
    msgspec.json.Encoder().encode,
    msgspec.json.Decoder(Reservation).decode,
    {"retention.ms": "2592000000"},
    "onhand.request.answered",
)
REPLENISHMENTS: Final[Topic[Replenishment, Replenishment]] = Topic(
    "inventory.replenishments",
    msgspec.json.Encoder().encode,
    msgspec.json.Decoder(Replenishment).decode,
    {"retention.ms": "2592000000"},
    "onhand.replenishment.changed",
)
SHADOW: Final[Topic[ShadowDifference, ShadowDifference]] = Topic(
    "inventory.shadow",
    msgspec.json.Encoder().encode,
    msgspec.json.Decoder(ShadowDifference).decode,
    {"retention.ms": "2592000000"},
    "onhand.shadow.changed",
)
HEARTBEATS: Final[Topic[Heartbeat, Heartbeat]] = Topic(
    "inventory.heartbeats",
    msgspec.json.Encoder().encode,
    msgspec.json.Decoder(Heartbeat).decode,
    # The last one of each location is enough; the broker's clock says when it was heard.
    {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"},
)
GENERATIONS: Final[Topic[Generation, Generation]] = Topic(
    "inventory.rules",
    msgspec.json.Encoder().encode,
    msgspec.json.Decoder(Generation).decode,
    # Every set of rules that was ever pushed, whole; kept for ever, so that a number can be explained later.
    {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1", "max.message.bytes": "33554432"},
)
DEAD_LETTERS: Final[Topic[DeadLetter, DeadLetter]] = Topic(
    "inventory.dead-letters",
    msgspec.json.Encoder().encode,
    msgspec.json.Decoder(DeadLetter).decode,
    # A dead letter holds its message whole, in base64: larger than the largest that brokers take by default.
    {"retention.ms": "-1", "max.message.bytes": str(DEAD_LETTER_BYTES_MAX)},
    "onhand.movement.rejected",
)
TOPICS: Final = (
    MOVEMENTS, AVAILABILITY, THRESHOLDS, DIVERGENCES, RESERVATIONS, REPLENISHMENTS, SHADOW, DEAD_LETTERS, HEARTBEATS,
    GENERATIONS,
)  # fmt: skip
ONE_PARTITION: Final = (HEARTBEATS, GENERATIONS)  # read from their beginning to their end, in order
