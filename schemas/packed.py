"""Packed columns: many numbers or texts in one piece of memory, which loops read as it is and others as a sequence."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
ValueT = TypeVar("ValueT")
Pairs = list[tuple[str, bytes | None]]


class _Column(Sequence[ValueT]):
    """What packed columns have in common; equal to any sequence of the same values."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # as of a list

    def at(self, places: Iterable[int]) -> list[ValueT]:
        """The values at these places."""
        return [self._at(place) for place in places]

    def _at(self, place: int) -> ValueT:
        raise NotImplementedError

    @overload
    def __getitem__(self, place: int) -> ValueT: ...
    @overload
    def __getitem__(self, place: slice) -> list[ValueT]: ...
    def __getitem__(self, place: int | slice) -> ValueT | list[ValueT]:
        if isinstance(place, slice):
            return self.at(range(len(self))[place])
        return self._at(range(len(self))[place])

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"


class Numbers(_Column[int]):
    """Whole numbers, shape (n,)."""

    __slots__ = ("array",)

    def __init__(self, array: Ints) -> None:
        self.array = array

    @classmethod
    def joined(cls, columns: Sequence[Self]) -> Self:
        """Columns behind each other."""
        return cls(np.concatenate([column.array for column in columns]))

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[int]:
        return iter(self.array.tolist())

    def _at(self, place: int) -> int:
        return int(self.array[place])


class Texts(_Column[bytes | None]):
    """Texts behind each other, shape (bytes,), with their ends behind a first 0, shape (n + 1,).

    `absent` says which are no text at all but None, shape (n,); it is None itself where none is. As loops are compiled
    for one kind of text, it becomes read-only, as the bytes of a Python text are, and is never without any.
    """

    __slots__ = ("absent", "ends", "text")

    def __init__(self, text: Bytes, ends: Ints, absent: Flags | None = None) -> None:
        self.text = text if len(text) else np.zeros(1, np.uint8)
        self.text.flags.writeable = False
        self.ends = ends
        self.absent = absent

    @classmethod
    def joined(cls, columns: Sequence[Self]) -> Self:
        """Columns behind each other."""
        absent = None
        if any(column.absent is not None for column in columns):
            absent = np.concatenate([np.zeros(len(c), np.bool_) if c.absent is None else c.absent for c in columns])
        text = np.concatenate([column.text[: column.ends[-1]] for column in columns])
        return cls(text, _joined_ends([column.ends for column in columns]), absent)

    @property
    def has_empty(self) -> bool:
        """Whether any of them has no bytes, or is None."""
        return not bool((self.ends[1:] > self.ends[:-1]).all())

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __iter__(self) -> Iterator[bytes | None]:
        text = self.text.tobytes()
        values = (text[begin:end] for begin, end in pairwise(self.ends.tolist()))
        if self.absent is None:
            return values
        return (None if absent else value for value, absent in zip(values, self.absent.tolist(), strict=True))

    def _at(self, place: int) -> bytes | None:
        if self.absent is not None and self.absent[place]:
            return None
        return self.text[self.ends[place] : self.ends[place + 1]].tobytes()


class Headers(_Column[Pairs | None]):
    """Headers of messages: all names and values behind each other, and where each message's end behind a first 0."""

    __slots__ = ("ends", "names", "values")

    def __init__(self, names: Texts, values: Texts, ends: Ints) -> None:
        self.names = names
        self.values = values
        self.ends = ends

    @classmethod
    def none(cls, messages: int) -> Self:
        """Those of so many messages that have none."""
        nothing = Texts(np.empty(0, np.uint8), np.zeros(1, np.int64))
        return cls(nothing, nothing, np.zeros(messages + 1, np.int64))

    @classmethod
    def joined(cls, columns: Sequence[Self]) -> Self:
        """Columns behind each other."""
        names = Texts.joined([column.names for column in columns])
        values = Texts.joined([column.values for column in columns])
        return cls(names, values, _joined_ends([column.ends for column in columns]))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def _at(self, place: int) -> Pairs | None:
        places = range(int(self.ends[place]), int(self.ends[place + 1]))
        names = [(name or b"").decode(errors="replace") for name in self.names.at(places)]
        return list(zip(names, self.values.at(places), strict=True)) or None


def values_at(column: Sequence[ValueT], places: Sequence[int]) -> list[ValueT]:
    """What a column, packed or a list, has at these places."""
    return column.at(places) if isinstance(column, _Column) else [column[place] for place in places]


def _joined_ends(columns: Sequence[Ints]) -> Ints:
    """Ends of what stands in several pieces, where these stand behind each other."""
    moved, end = [columns[0][:1]], 0
    for ends in columns:
        moved.append(ends[1:] + end)
        end += int(ends[-1])
    return np.concatenate(moved)
