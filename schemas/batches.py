"""What flows between a source and the lanes: batches of raw messages, and marks that say how far a source has read."""

from collections.abc import Sequence
from typing import NamedTuple


class Origin(NamedTuple):
    """One ordered log: a Kafka partition, a Redis stream or a file.

    `cluster` and `topic` are identities that change when the thing is made anew (Kafka's cluster id and topic id), so
    that offsets of another topic with the same name are never mistaken for this one's.
    """

    cluster: str
    topic: str
    partition: int
    name: str  # what people call the topic, stream or file


class Batch(NamedTuple):
    """Raw messages of one origin, in its order; the columns, packed or lists, are parallel, and offsets grow strictly.

    `timestamps` are the record's own times in ms since 1970 (the broker's), -1 where there is none. `headers` is None
    where no message has any.
    """

    origin: Origin
    offsets: Sequence[int]
    timestamps: Sequence[int]
    keys: Sequence[bytes | None]
    payloads: Sequence[bytes | None]  # None: a Kafka tombstone
    headers: Sequence[list[tuple[str, bytes | None]] | None] | None = None


class Mark(NamedTuple):
    """How far a source has read one origin, told about once a second even when nothing arrives.

    `offset` is the next offset to read, `end_offset` the log's end as last seen, and `read_ms` the wall clock at which
    that was so; `record_ms` is the timestamp of the last record read (-1: none). `origins` says how many logs the
    source has, this one among them: what is heard of fewer is not the whole. A source that cannot tell how far the log
    goes sends no marks.
    """

    origin: Origin
    offset: int
    end_offset: int
    record_ms: int
    read_ms: int
    origins: int = 1


class CaughtUp(NamedTuple):
    """One of `parts` parts of a source has read all that its logs held when it was built; told once, after the last.

    What was shown before that came from there: so a state is no older than that when all parts have told so.
    """

    part: int
    parts: int


class Wake(NamedTuple):
    """Wakes every lane once in every epoch: none keeps the snapshot of a run that died before its outputs were out."""
