"""Records: many of them as they stand on their topic, behind each other in one text, without an object for each."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Self, TypeVar, overload

import msgspec
import numpy as np

from schemas.packed import Bytes, Ints

RecordT = TypeVar("RecordT")

# Where a record's texts begin; each ends at the number behind it, and the first of both is ABSENT where there is none
VALUE_AT: Final = 0
KEY_AT: Final = 2
ID_AT: Final = 4
TIME_AT: Final = 6
TRACEPARENT_AT: Final = 8
PLACES: Final = 10
ABSENT: Final = -1


class Encoded(msgspec.Struct, frozen=True, gc=False):
    """A record as it stands on its topic: key and value, with what its headers tell of it alone, all in UTF-8."""

    key: bytes | None
    id: bytes
    time: bytes | None
    value: bytes
    traceparent: bytes | None = None


class Records(Sequence[Encoded]):
    """Records as `Encoded` says of one: `places` are where each one's texts stand in `text`, shape (n, PLACES)."""

    __slots__ = ("places", "text")

    def __init__(self, text: Bytes, places: Ints) -> None:
        self.text = text
        self.places = places

    @classmethod
    def of(cls, records: Iterable[Encoded]) -> Self:
        """The same records in one text."""
        texts: list[bytes] = []
        places: list[int] = []
        end = 0
        for record in records:
            for text in (record.value, record.key, record.id, record.time, record.traceparent):
                if text is None:
                    places += (ABSENT, ABSENT)
                    continue
                texts.append(text)
                places.append(end)
                end += len(text)
                places.append(end)
        return cls(np.frombuffer(b"".join(texts) or b"\0", np.uint8), np.array(places, np.int64).reshape(-1, PLACES))

    def __len__(self) -> int:
        return len(self.places)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Records) and [*self] == [*other]

    __hash__ = None  # type: ignore[assignment]

    def __iter__(self) -> Iterator[Encoded]:
        text = self.text.tobytes()  # once, as a piece of it is taken several times as fast from bytes as from an array
        for places in self.places.tolist():
            yield _encoded(text, places)

    @overload
    def __getitem__(self, place: int) -> Encoded: ...

    @overload
    def __getitem__(self, place: slice) -> "Records": ...

    def __getitem__(self, place: int | slice) -> "Encoded | Records":
        if isinstance(place, slice):
            return Records(self.text, self.places[place])
        return _encoded(self.text, self.places[place].tolist())


def _encoded(text: bytes | Bytes, places: Sequence[int]) -> Encoded:
    value, key, id_, time, traceparent = (
        None if places[at] == ABSENT else bytes(text[places[at] : places[at + 1]]) for at in range(0, PLACES, 2)
    )
    return Encoded(key, id_ or b"", time, value or b"", traceparent)


def as_records(records: Iterable[RecordT | Records], encode: Callable[[RecordT], Encoded]) -> Iterator[Records]:
    """All of them in their order, those that are next to each other and were not written yet together."""
    waiting: list[Encoded] = []
    for record in records:
        if not isinstance(record, Records):
            waiting.append(encode(record))
            continue
        if waiting:
            yield Records.of(waiting)
            waiting = []
        yield record
    if waiting:
        yield Records.of(waiting)


def each(records: Iterable[RecordT | Records]) -> Iterator[RecordT | Encoded]:
    """All of them one by one, what was written already as `Encoded`."""
    for record in records:
        if isinstance(record, Records):
            yield from record
        else:
            yield record
