"""Last facts: what was heard of each SKU lately, for those who ask why, and for causes of divergences."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from operators.columns import FIRST_CAPACITY, Array, IndexedNames, grown, record_of
from operators.memory import APART_BYTES_MIN, copy_rows, lengthened, zeros
from operators.packing import (
    NO_WORD,
    PACKED,
    WORD_BYTES,
    WORD_SLOTS,
    Words,
    gather_facts,
    packed,
    places_of,
    places_of_row,
    scratch,
    spread_facts,
    unpack,
)
from operators.plain import FACT_BYTES_MAX, FACT_HEAD_BYTES, KEPT, KIND_NAMES, FactColumns, keep_facts, put_number
from operators.positions import effect_of, signed_units
from operators.snapshots import Dense
from schemas.movements import Fact, Movement
from schemas.outputs import RecentRecord
from schemas.times import format_ms

FIRST_BYTES: Final = 4096
SPARE_MAX: Final = 4  # times as much memory as may be taken: what is beyond goes back when facts got fewer or shorter
QUANTITY_BYTES: Final = 6
_HEAD: Final = record_of(
    [(name, np.int64) for name in ("time_ms", "quantity")]
    + [(name, np.int32) for name in ("kind", "direction", "location", "source", "id", "order", "document")]
)
_HEAD_PLACES: Final = places_of(_HEAD, _HEAD.names or ())

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


class Sighting(NamedTuple):
    """What a duplicate from another source would repeat, and what it did to on_hand."""

    location: str
    kind: str
    quantity: int
    order: str | None
    document: str | None
    source: str
    on_hand: int


class LastFacts:
    """The last 8 facts of each SKU, and the last 8 of them that were plain movements.

    Texts stand in one piece of bytes, which is cleaned when a third of it is of no use any more. A fact begins with a
    head: its length (2 bytes), kind, time (8), quantity (6), direction of on_hand + 1, location's row (4), and the
    lengths (2 each) of source, id, order and document, which follow.
    """

    def __init__(self, locations: IndexedNames) -> None:
        self._locations = locations
        self._used = 0
        self.moves = 0
        self._room = FIRST_BYTES  # how much of `_texts` may be taken before it is cleaned
        self._texts = zeros(FIRST_BYTES, np.uint8)
        self._rings = [zeros(FIRST_CAPACITY * KEPT, np.int64) for _ in range(2)]
        self._counts = [zeros(FIRST_CAPACITY, np.int64) for _ in range(2)]

    def note(self, sku: int, fact: Fact, time_ms: int) -> None:
        """`fact`, of `time_ms`, was applied to `sku`."""
        packed = (
            time_ms,
            str(fact.__struct_config__.tag),
            fact.source,
            fact.id,
            getattr(fact, "quantity", None),
            getattr(fact, "location", None),
            getattr(fact, "channel", None),
        )
        if not isinstance(fact, Movement):
            self._enter(sku, _pack((*packed, None)), is_plain=False)
            return
        on_hand = effect_of(fact).here.get("on_hand", 0) * signed_units(fact)
        self._enter(sku, _pack((*packed, (fact.order, fact.document, on_hand))), is_plain=True)

    def of(self, sku: int) -> list[RecentRecord]:
        """The last facts of `sku`, the newest first."""
        return [_record(*entry[:7]) for entry in reversed(list(self._entries(sku, 0)))]

    def sightings(self, sku: int) -> list[Sighting]:
        """The last plain movements of `sku`, the oldest first."""
        return [_sighting(*entry) for entry in self._entries(sku, 1)]

    @property
    def used_bytes(self) -> int:
        """How much of the bytes is taken."""
        return self._used

    @property
    def room_bytes(self) -> int:
        """How much may be taken before more room has to be made."""
        return self._room - FACT_BYTES_MAX

    def columns(self) -> FactColumns:
        """The memory of it all, for compiled loops."""
        return FactColumns(self._texts, self._rings[0], self._counts[0], self._rings[1], self._counts[1])

    def set_used(self, used: int) -> None:
        """So much is taken now, of the room that was made."""
        self._used = used

    def make_room(self, bytes_: int, skus: int) -> None:
        """Room for this many bytes more, and for SKUs up to this row."""
        if self._used + bytes_ + FACT_BYTES_MAX > self._room:
            self._clean(bytes_ + FACT_BYTES_MAX)
        if skus > len(self._counts[0]):
            self._counts = [grown(counts, skus) for counts in self._counts]
            self._rings = [grown(ring, len(self._counts[0]) * KEPT) for ring in self._rings]
            self.moves += 1

    def dump(self) -> dict[str, Any]:
        """Everything: how many of each SKU, numbers of their heads, and their texts, SKU by SKU."""
        skus = 1 + max((int(counts.nonzero()[0].max(initial=-1)) for counts in self._counts), default=-1)
        counts = recent_count, plain_count = [counts[:skus] for counts in self._counts]
        kept = [int(np.minimum(of_ring, KEPT).sum()) for of_ring in counts]
        heads, shares = scratch.array("heads", _HEAD, sum(kept)), np.empty(kept[1], np.int8)
        texts = scratch.array("texts", np.uint8, self._used + WORD_BYTES)
        sizes = np.array([0, 0, 0, NO_WORD + 1])
        words = Words(
            scratch.array("words", np.uint8, self._used + WORD_BYTES),
            scratch.array("word_ends", np.int64, sum(kept) + 2),
            np.zeros(WORD_SLOTS, np.int32),
        )
        words.ends[: NO_WORD + 2] = 0
        recent, plain = self._rings
        gather_facts(self._texts, recent, plain, recent_count, plain_count, heads, shares, words, texts, sizes)
        facts, bytes_, text_bytes, word_count = sizes.tolist()
        return {
            "skus": skus,
            "counts": [_packed_numbers(of_ring) for of_ring in counts],
            "bytes": bytes_,
            "facts": facts,
            "heads": Dense(packed(heads, _HEAD_PLACES, facts)),
            "shared": kept[1],
            "shares": _packed_numbers(shares),
            "word_count": word_count,
            "word_ends": _packed_numbers(words.ends[1 : word_count + 1]),
            "words": words.texts[: words.ends[word_count]].tobytes(),
            "texts": Dense(texts[:text_bytes].tobytes()),
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Replaces everything."""
        if "heads" not in dumped:
            self._load_second_format(dumped)
            return
        skus, facts, shared = dumped["skus"], dumped["facts"], dumped["shared"]
        self._counts = [grown(_unpacked(numbers, skus, np.int64), FIRST_CAPACITY) for numbers in dumped["counts"]]
        self._rings = [zeros(len(self._counts[0]) * KEPT, np.int64) for _ in range(2)]
        heads, shares = np.zeros(facts, _HEAD), _unpacked(dumped["shares"], shared, np.int8)
        unpack(dumped["heads"], heads, _HEAD_PLACES, facts)
        ends = np.concatenate([[0], _unpacked(dumped["word_ends"], dumped["word_count"], np.int64)])
        words, read = (np.frombuffer(dumped[name], np.uint8) for name in ("words", "texts"))
        self._room = max(FIRST_BYTES, dumped["bytes"] + FACT_BYTES_MAX)
        self._texts = zeros(self._room, np.uint8)
        (recent, plain), (recent_count, plain_count) = self._rings, self._counts
        self._used = int(
            spread_facts(heads, shares, words, ends, read, recent, plain, recent_count, plain_count, self._texts)
        )
        self.moves += 1

    def _load_second_format(self, dumped: dict[str, bytes]) -> None:
        """As `load`, of rings as they are in memory, and the bytes that they point to."""
        texts = np.frombuffer(dumped["texts"], np.uint8)
        self._used = len(texts)
        self.moves += 1
        self._room = max(FIRST_BYTES, self._used + FACT_BYTES_MAX)
        self._texts = lengthened(texts, self._room)
        self._counts = [np.frombuffer(dumped[f"{name}_count"], "<i8").astype(np.int64) for name in ("recent", "plain")]
        self._rings = [np.frombuffer(dumped[f"{name}_ring"], "<i8").astype(np.int64) for name in ("recent", "plain")]
        self._counts = [grown(counts, FIRST_CAPACITY) for counts in self._counts]
        self._rings = [grown(ring, len(self._counts[0]) * KEPT) for ring in self._rings]

    def load_first_format(self, recent: list[Any], sightings: list[Any], location_of: Any) -> None:  # noqa: ANN401
        """Replaces everything by what the first format kept in two places; `location_of` names a position's place."""
        for sku, ring in recent:
            for entry in ring:
                self._enter(sku, _pack((*_unpack(entry), None)), is_plain=None)
        for sku, ring in sightings:
            for position, kind, quantity, order, document, source, on_hand in ring:
                place = location_of(position)
                told = (0, kind, source, "", quantity, place, None, (order, document, on_hand))
                self._enter(sku, _pack(told), is_plain=True, is_recent=False)

    def _enter(self, sku: int, packed: bytes, *, is_plain: bool | None, is_recent: bool = True) -> None:
        self.make_room(len(packed), sku + 1)
        begin, end = self._used, self._used + FACT_HEAD_BYTES + len(packed)
        self._texts[begin:end] = 0
        put_number(self._texts, begin, end - begin, 2)
        self._texts[begin + 2] = PACKED
        self._texts[begin + FACT_HEAD_BYTES : end] = np.frombuffer(packed, np.uint8)
        self._used = end
        for is_in, ring, counts in zip((is_recent, is_plain), self._rings, self._counts, strict=True):
            if is_in:
                ring[sku * KEPT + counts[sku] % KEPT] = begin
                counts[sku] += 1

    def _entries(self, sku: int, which: int) -> Iterator[tuple[Any, ...]]:
        """Time, kind, source, id, quantity, location, channel, and what a plain one tells besides; the oldest first."""
        if sku >= len(self._counts[which]):
            return
        ring, count = self._rings[which], int(self._counts[which][sku])
        for number in range(max(0, count - KEPT), count):
            yield self._entry(int(ring[sku * KEPT + number % KEPT]))

    def _entry(self, begin: int) -> tuple[Any, ...]:
        length = int.from_bytes(self._texts[begin : begin + 2].tobytes(), "little")
        text = self._texts[begin : begin + length].tobytes()
        if text[2] == PACKED:
            return tuple(_unpack(text[FACT_HEAD_BYTES:]))
        texts, at = [], FACT_HEAD_BYTES
        for head in range(22, FACT_HEAD_BYTES, 2):
            end = at + int.from_bytes(text[head : head + 2], "little")
            texts.append(text[at:end].decode())
            at = end
        source, id_, order, document = texts
        quantity = int.from_bytes(text[11 : 11 + QUANTITY_BYTES], "little", signed=True)
        location = self._locations[int.from_bytes(text[18:22], "little")]
        told = (order or None, document or None, (text[17] - 1) * quantity)
        time_ms = int.from_bytes(text[3:11], "little")
        return time_ms, KIND_NAMES[text[2]], source, id_, quantity, location, None, told

    def _clean(self, bytes_: int) -> None:
        """Drops what no ring points to any more, and makes room for `bytes_`."""
        kept, places = scratch.array("kept", np.uint8, self._used + WORD_BYTES), np.zeros(KEPT, np.int64)
        (recent, plain), (recent_count, plain_count) = self._rings, self._counts
        self._used = int(keep_facts(self._texts, kept, recent, plain, recent_count, plain_count, places))
        self._room = max(FIRST_BYTES, self._used + self._used // 2 + bytes_)
        if not self._room <= len(self._texts) <= SPARE_MAX * self._room:
            self._texts = zeros(self._room if self._room < APART_BYTES_MIN else 2 * self._room, np.uint8)
            self.moves += 1
        copy_rows(kept[: self._used], self._texts)


def _packed_numbers(numbers: Array) -> Dense:
    """One column of nothing but these numbers."""
    return Dense(packed(numbers, places_of_row(1, numbers.itemsize), len(numbers)))


def _unpacked(text: memoryview, count: int, type_: type[np.generic]) -> Array:
    """What `_packed_numbers` gave."""
    numbers = np.zeros(count, type_)
    unpack(text, numbers, places_of_row(1, numbers.itemsize), count)
    return numbers


def _record(  # as they were packed
    time_ms: int, kind: str, source: str, id_: str, quantity: int | None, location: str | None, channel: str | None
) -> RecentRecord:
    return RecentRecord(
        time=format_ms(time_ms),
        kind=kind,
        source=source,
        id=id_,
        quantity=quantity,
        location=location,
        channel=channel,
    )


def _sighting(  # as they were packed
    _time_ms: int,
    kind: str,
    source: str,
    _id: str,
    quantity: int,
    location: str,
    _channel: str | None,
    told: tuple[str | None, str | None, int],
) -> Sighting:
    order, document, on_hand = told
    return Sighting(location, kind, quantity, order, document, source, on_hand)
