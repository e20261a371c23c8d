"""Telling: what Redis and the availability topic are told of plain SKUs, written by compiled loops."""

from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np

from operators.columns import Array, Names
from operators.compiling import Held, direct, hold
from operators.plain import (
    ABSENT,
    CROSSING_ENDS,
    TIME_BYTES,
    WORDS,
    Lane,
    Telling,
    Texts,
    write_crossings,
    write_hashes,
    write_records,
)
from operators.plain_path import HELD_WORK, WORK
from operators.route import Packed
from operators.stock import Stock
from schemas.outputs import Encoded, HashCall, position_threshold_id, threshold_id
from schemas.times import format_ms

SKUS_PER_CALL_MAX: Final = 128  # a reader behind one call still gets its answer within a millisecond
RECORDS_AT_ONCE_MAX: Final = 2048  # and a quarter as many crossings
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

    def records(self, lane: Held[Lane], skus: Array) -> tuple[list[Encoded], list[int]]:
        """The records of the SKUs of these rows, and the rows whose records cannot be written here."""
        telling = self._as_of_now(is_behind=False)
        told: list[Encoded] = []
        left: list[int] = []
        begin = 0
        while begin < len(skus):
            count = _write_records(lane, telling, skus, begin, _OUT, _ENDS)
            if not count:
                return told, [*left, *skus[begin:].tolist()]
            self._collect(skus[begin : begin + count].tolist(), _ENDS[:count].tolist(), told, left)
            begin += count
        return told, left

    def crossings(
        self, lane: Held[Lane], messages: Packed, count: int, generation: int, *, is_behind: bool
    ) -> list[Encoded | None]:
        """Records of the crossings that compiled loops told last, so many; None for one that is to be made row-wise."""
        telling, told = self._as_of_now(is_behind=is_behind), list[Encoded | None]()
        skus = WORK.told.crossings["sku"][:count].tolist()
        while self._writes_names and len(told) < count:
            begin = len(told)
            done = write_crossings(messages.held, lane, telling, HELD_WORK, begin, count, generation, _OUT, _ENDS)
            if not done:
                break
            told.extend(self._written(skus[begin : begin + done], _ENDS[: CROSSING_ENDS * done].tolist()))
        return [*told, *[None] * (count - len(told))]

    def _written(self, skus: list[int], ends: list[int]) -> list[Encoded | None]:
        """What was written as crossings of these SKUs."""
        keys, text = self._stock.names.encoded(skus), _OUT[: max(ends)].tobytes()
        places = zip(keys, *(ends[at::CROSSING_ENDS] for at in range(CROSSING_ENDS)), strict=True)
        return [
            None
            if end == ABSENT
            else Encoded(key, text[begin + _ID_AT : id_end], text[time_end - TIME_BYTES : time_end], text[begin:end])
            for key, begin, id_end, time_end, end in places
        ]

    def _collect(self, skus: list[int], ends: list[int], told: list[Encoded], left: list[int]) -> None:
        cells, keys = self._stock.skus.cells, self._stock.names.encoded(skus)
        versions, times, at, text = cells["version"], cells["as_of_ms"], 0, _OUT[: max(ends)].tobytes()
        for sku, key, end in zip(skus, keys, ends, strict=True):
            if end == ABSENT:
                left.append(sku)
                continue
            told.append(Encoded(key, b"%b:%d" % (key, versions[sku]), format_ms(times[sku]).encode(), text[at:end]))
            at = end

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


def _texts(pieces: Iterable[bytes]) -> Texts:
    known = list(pieces)
    ends = np.zeros(len(known) + 1, np.int64)
    ends[1:] = np.cumsum([len(piece) for piece in known])
    return Texts(np.frombuffer(b"".join(known) or b"\0", np.uint8), ends)


_WORDS: Final = _texts(word.encode("latin-1") for word in WORDS)
_OUT: Final = np.zeros(OUT_BYTES, np.uint8)  # one for all lanes of a process, which take turns
_ID_AT: Final = len('{"id":"')
_ENDS: Final = np.zeros(RECORDS_AT_ONCE_MAX, np.int64)
_CALL_ENDS: Final = _ENDS[:SKUS_PER_CALL_MAX]
_write_hashes: Final = direct(write_hashes, held=(0, 1))
_write_records: Final = direct(write_records, held=(0, 1))
