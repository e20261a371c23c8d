"""Telling: what Redis and the availability topic are told of plain SKUs, written by compiled loops."""

from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np

from operators.columns import Array, Names
from operators.compiling import Held, direct, hold
from operators.plain import (
    WORDS,
    Lane,
    Telling,
    Texts,
    write_crossings,
    write_hashes,
    write_records,
)
from operators.plain_path import HELD_WORK
from operators.route import Packed
from operators.stock import Stock
from schemas.outputs import HashCall, position_threshold_id, threshold_id
from schemas.records import ABSENT, PLACES, VALUE_AT, Records

SKUS_PER_CALL_MAX: Final = 128  # a reader behind one call still gets its answer within a millisecond
RECORDS_AT_ONCE_MAX: Final = 1024
OUT_BYTES: Final = 1 << 20
_json = msgspec.json.Encoder().encode
_msgpack = msgspec.msgpack.Encoder().encode


class Teller:
    """Writes hashes for Redis, under keys that begin with `prefix`, and records, as the row-wise functions would."""

    def __init__(self, stock: Stock, channels: Names, incarnation: int, prefix: str) -> None:
        self._stock = stock
        self._channels = channels
        self._incarnation = incarnation
        self._prefix = np.frombuffer(prefix.encode() or b"", np.uint8)
        self._telling: Held[Telling] | None = None
        self._known: tuple[object, ...] = ()
        self._writes_names = True  # whether JSON has the names as they are

    def hashes(self, lane: Held[Lane], skus: Array, *, is_behind: bool) -> list[HashCall]:
        """Calls of `redis_availability.lua` for the SKUs of these rows."""
        telling = self._as_of_now(is_behind=is_behind)
        calls, begin = [], 0
        while begin < len(skus):
            count = _write_hashes(lane, telling, skus, begin, _OUT, _CALL_ENDS)
            if not count:
                raise ValueError(f"the hash of SKU {self._stock.names[int(skus[begin])]!r} does not fit into a call")
            calls.append(HashCall(count, self._incarnation, _OUT[: _CALL_ENDS[0]].tobytes()))
            begin += count
        return calls

    def records(self, lane: Held[Lane], skus: Array) -> tuple[list[Records], list[int]]:
        """The records of the SKUs of these rows, and the rows whose records cannot be written here."""
        telling = self._as_of_now(is_behind=False)
        told: list[Records] = []
        left: list[int] = []
        begin = 0
        while begin < len(skus):
            count = _write_records(lane, telling, skus, begin, _OUT, _RECORDS)
            if not count:
                return told, [*left, *skus[begin:].tolist()]
            for piece in _pieces(count):
                if isinstance(piece, int):
                    left.append(int(skus[begin + piece]))
                else:
                    told.append(piece)
            begin += count
        return told, left

    def crossings(
        self, lane: Held[Lane], messages: Packed, count: int, generation: int, *, is_behind: bool
    ) -> list[Records | int]:
        """Records of the crossings that compiled loops told last, so many; the place of one that is made row by row."""
        telling, told, done = self._as_of_now(is_behind=is_behind), list[Records | int](), 0
        while self._writes_names and done < count:
            fit = write_crossings(messages.held, lane, telling, HELD_WORK, done, count, generation, _OUT, _RECORDS)
            if not fit:
                break
            told += [done + piece if isinstance(piece, int) else piece for piece in _pieces(fit)]
            done += fit
        return [*told, *range(done, count)]

    def _as_of_now(self, *, is_behind: bool) -> Held[Telling]:
        channels, locations = self._channels, self._stock.locations
        known = (len(channels), len(locations), self._stock.trust_changes, is_behind)
        if self._telling is None or known != self._known:
            self._known = known
            self._writes_names = all(_json(name) == f'"{name}"'.encode() for name in (*channels, *locations))
            telling = Telling(
                _texts(map(_msgpack, channels)),
                _texts(map(_json, channels)),
                _texts(map(_json, locations)),
                _texts(threshold_id("", name, 0)[:-1].encode() for name in channels),
                _texts(position_threshold_id("", name, 0)[:-1].encode() for name in locations),
                self._prefix,
                np.frombuffer(str(self._incarnation).encode(), np.uint8),
                self._stock.trust_table(),
                int(is_behind),
                _WORDS,
            )
            self._telling = hold(telling)
        return self._telling


def _pieces(count: int) -> list[Records | int]:
    """So many records that were written last, all that follow each other together; places of those that were not."""
    places = _RECORDS[:count].copy()
    text, pieces, begin = _OUT[: max(0, places.max())].copy(), list[Records | int](), 0
    for place in np.flatnonzero(places[:, VALUE_AT] == ABSENT).tolist():
        if begin < place:
            pieces.append(Records(text, places[begin:place]))
        pieces.append(place)
        begin = place + 1
    if begin < count:
        pieces.append(Records(text, places[begin:]))
    return pieces


def _texts(pieces: Iterable[bytes]) -> Texts:
    known = list(pieces)
    ends = np.zeros(len(known) + 1, np.int64)
    ends[1:] = np.cumsum([len(piece) for piece in known])
    return Texts(np.frombuffer(b"".join(known) or b"\0", np.uint8), ends)


_WORDS: Final = _texts(word.encode("latin-1") for word in WORDS)
_OUT: Final = np.zeros(OUT_BYTES, np.uint8)  # one for all lanes of a process, which take turns
_RECORDS: Final = np.zeros((RECORDS_AT_ONCE_MAX, PLACES), np.int64)
_CALL_ENDS: Final = np.zeros(SKUS_PER_CALL_MAX, np.int64)
_write_hashes: Final = direct(write_hashes, held=(0, 1))
_write_records: Final = direct(write_records, held=(0, 1))
