"""Last facts: what was heard of each SKU lately, for those who ask why, and for causes of divergences."""

from collections.abc import Iterator
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from operators import plain
from operators.columns import FIRST_CAPACITY, Array, IndexedNames, grown, record_of
from operators.compiling import Held, direct, hold
from operators.memory import zeros
from operators.packing import (
    NO_WORD,
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
from operators.plain import (
    FACT_BYTES_MAX,
    FACT_HEAD_BYTES,
    FACT_LOCATIONS_MAX,
    KEPT,
    KIND_NAMES,
    PACKED,
    FactColumns,
    keep_facts,
    slot_of,
)
from operators.positions import effect_of, signed_units
from operators.snapshots import Dense, SnapshotError
from schemas.movements import Fact, Movement
from schemas.outputs import RecentRecord
from schemas.times import format_ms

FIRST_BYTES: Final = 4096
WASTE_SHARE: Final = 3  # one byte in so many of no use any more: then slots are written anew
ROOM_SHARE: Final = 8  # room for a share of what is there, before it is looked at what is of no use
BYTES_MAX: Final = 2**31 * WORD_BYTES  # rings name slots by the number of their first word, in 32 bits
_SECOND_HEAD_BYTES: Final = 30  # of a fact in the second format
_RING: Final = record_of(
    [
        ("count", np.int64),  # how many plain facts there ever were
        ("oldest", np.int32),  # slots, by their first word: of the oldest plain fact that is kept,
        ("newest", np.int32),  # of the newest one,
        ("newest_other", np.int32),  # and of the newest one that is not plain
        ("kept", np.int8),  # how many plain ones are kept
        ("kept_others", np.int8),
    ]
)
_HEAD: Final = record_of(
    [(name, np.int64) for name in ("time_ms", "quantity")]
    + [(name, np.int32) for name in ("kind", "direction", "location", "source", "id", "order", "document")]
)
_HEAD_PLACES: Final = places_of(_HEAD, _HEAD.names or ())

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode
_slot_of = direct(slot_of, held=(0,))


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
    """The last 8 plain movements of each SKU and up to 8 of its other facts; its last 8 facts are among these.

    Each stands in a slot of one piece of bytes, in words of 8. A slot begins with a head: the slot behind it (4 bytes),
    its own words (2), kind, direction of on_hand + 1, plus 4 where the quantity is below zero, time (6), the lengths of
    source, id, order and document (1 each), location's row (2) and quantity (4); the texts follow. What compiled loops
    do not note is packed: from its time on such a head has how many plain facts came before one that is not plain (8),
    and the length of what follows (8).

    The slots of a SKU's plain facts form a ring, those of its others a second one: from the newest on, the one behind
    is the oldest. A ninth one takes the slot of the oldest if it fits; if not, that is of no use any more, and slots
    are written anew when enough are.
    """

    def __init__(self, locations: IndexedNames) -> None:
        self._locations = locations
        self._sizes = np.zeros(plain.SIZES, np.int64)  # as compiled loops look for the one of facts
        self._waste = np.zeros(1, np.int64)
        self.moves = 0
        self._room = FIRST_BYTES  # how much of `_texts` may be taken before it is looked at
        self._texts = zeros(FIRST_BYTES, np.uint8)
        self._rings: Array = zeros(FIRST_CAPACITY, _RING)
        self._held: Held[FactColumns] | None = None

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
        if sku >= len(self._rings):
            return []
        ring = self._rings[sku]
        first = int(ring["count"]) - int(ring["kept"]) + 1
        facts = [(first + number, 0, self._entry(begin)) for number, begin in enumerate(self._plain(sku))]
        others = self._others(sku)
        facts += [(self._number(begin + plain.FACT_NUMBER_AT), 1, self._entry(begin)) for begin in others]
        facts.sort(key=itemgetter(0, 1))  # which leaves others between the same two plain ones in their order
        # what the first format knew for causes only has no id
        return [_record(*entry[:7]) for _, _, entry in reversed(facts[-KEPT:]) if entry[3]]

    def sightings(self, sku: int) -> list[Sighting]:
        """The last plain movements of `sku`, the oldest first."""
        if sku >= len(self._rings):
            return []
        return [_sighting(*self._entry(begin)) for begin in self._plain(sku)]

    @property
    def used_bytes(self) -> int:
        """How much of the bytes is taken."""
        return int(self._sizes[plain.SIZE_FACTS])

    @property
    def room_bytes(self) -> int:
        """How much may be taken before more room has to be made."""
        return self._room - FACT_BYTES_MAX

    @property
    def skus(self) -> int:
        """How many SKUs there is room for."""
        return len(self._rings)

    def columns(self) -> FactColumns:
        """The memory of it all, for compiled loops."""
        return FactColumns(self._texts, self._rings, self._waste)

    def set_used(self, used: int) -> None:
        """So much is taken now, of the room that was made."""
        self._sizes[plain.SIZE_FACTS] = used

    def make_room(self, bytes_: int, skus: int) -> None:
        """Room for this many bytes more, and for SKUs up to this row; MemoryError where rings cannot name more."""
        used = self.used_bytes
        if WASTE_SHARE * self._waste[0] > max(used, FIRST_BYTES):
            self._clean(bytes_)
        elif used + bytes_ + FACT_BYTES_MAX > self._room:
            self._room = self._roomier(used, bytes_)
            if self._room > len(self._texts):
                self._texts = grown(self._texts, self._room)
                self._have_moved()
        if skus > len(self._rings):
            self._rings = grown(self._rings, skus)
            self._have_moved()

    def dump(self) -> dict[str, Any]:
        """Everything: how many of each SKU, numbers of their heads, and their texts, SKU by SKU."""
        rings = self._rings
        skus = 1 + int(np.maximum(rings["kept"], rings["kept_others"]).nonzero()[0].max(initial=-1))
        rings = rings[:skus]
        recent_count, plain_count = np.empty(skus, np.int64), rings["kept"].astype(np.int64)
        room = int(plain_count.sum() + rings["kept_others"].sum(dtype=np.int64))
        heads, shares = scratch.array("heads", _HEAD, room), np.empty(int(plain_count.sum()), np.int8)
        texts = scratch.array("texts", np.uint8, self.used_bytes + WORD_BYTES)
        sizes = np.array([0, 0, 0, NO_WORD + 1])
        words = Words(
            scratch.array("words", np.uint8, self.used_bytes + WORD_BYTES),
            scratch.array("word_ends", np.int64, room + 2),
            np.zeros(WORD_SLOTS, np.int32),
        )
        words.ends[: NO_WORD + 2] = 0
        gather_facts(self._texts, rings, recent_count, heads, shares, words, texts, sizes, np.zeros(4 * KEPT, np.int64))
        facts, bytes_, text_bytes, word_count = sizes.tolist()
        return {
            "skus": skus,
            "counts": [_packed_numbers(of_ring) for of_ring in (recent_count, plain_count)],
            "bytes": bytes_,
            "facts": facts,
            "heads": Dense(packed(heads, _HEAD_PLACES, facts)),
            "shared": len(shares),
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
        recent_count, plain_count = (_unpacked(numbers, skus, np.int64) for numbers in dumped["counts"])
        heads, shares = np.zeros(facts, _HEAD), _unpacked(dumped["shares"], shared, np.int8)
        unpack(dumped["heads"], heads, _HEAD_PLACES, facts)
        if heads["location"].max(initial=0) >= FACT_LOCATIONS_MAX:  # which only releases before wrote
            raise SnapshotError(f"a lane goes on with its last facts at no more than {FACT_LOCATIONS_MAX:,} locations")
        ends = np.concatenate([[0], _unpacked(dumped["word_ends"], dumped["word_count"], np.int64)])
        words, read = (np.frombuffer(dumped[name], np.uint8) for name in ("words", "texts"))
        in_words = len(read) + int(np.diff(ends)[heads["source"]].sum())
        self._begin_anew(in_words + facts * (FACT_HEAD_BYTES + WORD_BYTES), skus)
        places = np.zeros(6 * KEPT, np.int64)
        self.set_used(
            int(
                spread_facts(
                    heads, shares, words, ends, read, recent_count, plain_count, self._rings, self._texts, places
                )
            )
        )

    def _load_second_format(self, dumped: dict[str, bytes]) -> None:
        """As `load`, of rings of places in bytes, which held more than it takes to tell facts by today's heads."""
        texts = dumped["texts"]
        counts = [np.frombuffer(dumped[f"{name}_count"], "<i8").tolist() for name in ("recent", "plain")]
        rings = [np.frombuffer(dumped[f"{name}_ring"], "<i8").tolist() for name in ("recent", "plain")]
        self._begin_anew(len(texts), len(counts[0]))
        for sku in range(len(counts[0])):
            recent, plains = (
                [ring[sku * KEPT + number % KEPT] for number in range(max(0, count[sku] - KEPT), count[sku])]
                for ring, count in zip(rings, counts, strict=True)
            )
            known = set(plains)
            for begin in [*(begin for begin in plains if begin not in recent), *recent]:
                self._enter(sku, _pack(_second_entry(texts, begin, self._locations)), is_plain=begin in known)

    def load_first_format(self, recent: list[Any], sightings: list[Any], location_of: Any) -> None:  # noqa: ANN401
        """Replaces everything by what the first format kept in two places; `location_of` names a position's place."""
        for sku, ring in sightings:
            for position, kind, quantity, order, document, source, on_hand in ring:
                place = location_of(position)
                told = (0, kind, source, "", quantity, place, None, (order, document, on_hand))
                self._enter(sku, _pack(told), is_plain=True)
        for sku, ring in recent:
            for entry in ring:
                self._enter(sku, _pack((*_unpack(entry), None)), is_plain=False)

    def _enter(self, sku: int, packed: bytes, *, is_plain: bool) -> None:
        length = FACT_HEAD_BYTES + len(packed)
        self.make_room(length + WORD_BYTES, sku + 1)
        if self._held is None:
            self._held = hold(self.columns())
        number = int(self._rings["count"][sku])
        begin = _slot_of(self._held, self._sizes, sku, int(is_plain), length)
        head = bytes([PACKED, 0]) + number.to_bytes(8, "little") + len(packed).to_bytes(8, "little")
        self._texts.data[begin + plain.KIND_AT : begin + length] = head + packed

    def _plain(self, sku: int) -> Iterator[int]:
        """Where plain facts of a SKU begin, the oldest first."""
        ring = self._rings[sku]
        return self._ring(int(ring["oldest"]), int(ring["kept"]))

    def _others(self, sku: int) -> Iterator[int]:
        """Where other facts of a SKU begin, the oldest first."""
        ring = self._rings[sku]
        kept = int(ring["kept_others"])
        return self._ring(self._next(int(ring["newest_other"])) if kept else 0, kept)

    def _ring(self, slot: int, kept: int) -> Iterator[int]:
        for _ in range(kept):
            yield slot * WORD_BYTES
            slot = self._next(slot)

    def _next(self, slot: int) -> int:
        return self._number(slot * WORD_BYTES, 4)

    def _number(self, begin: int, size: int = WORD_BYTES) -> int:
        return int.from_bytes(self._texts.data[begin : begin + size], "little")

    def _entry(self, begin: int) -> tuple[Any, ...]:
        """Time, kind, source, id, quantity, location, channel, and what a plain one tells besides."""
        text = self._texts.data[begin : begin + WORD_BYTES * self._number(begin + 4, 2)].tobytes()
        if text[plain.KIND_AT] == PACKED:
            length = int.from_bytes(text[16:24], "little")
            return tuple(_unpack(text[FACT_HEAD_BYTES : FACT_HEAD_BYTES + length]))
        texts, at = [], FACT_HEAD_BYTES
        for length in text[14:18]:
            texts.append(text[at : at + length].decode())
            at += length
        source, id_, order, document = texts
        direction, units = text[plain.DIRECTION_AT], int.from_bytes(text[20:24], "little")
        quantity = -units if direction & plain.NEGATIVE else units
        location = self._locations[int.from_bytes(text[18:20], "little")]
        told = (order or None, document or None, (direction % plain.NEGATIVE - 1) * quantity)
        time_ms = int.from_bytes(text[8:14], "little", signed=True)
        return time_ms, KIND_NAMES[text[plain.KIND_AT]], source, id_, quantity, location, None, told

    def _clean(self, bytes_: int) -> None:
        """Writes slots anew, of the size of their facts, with room for `bytes_` more."""
        before, used = self._texts, self.used_bytes
        self._room = self._roomier(used, bytes_)
        self._texts = zeros(self._room, np.uint8)
        self.set_used(int(keep_facts(before, self._texts, self._rings, 0)))
        self._waste[0] = 0
        self._room = self._roomier(self.used_bytes, bytes_)
        self._have_moved()

    def _begin_anew(self, bytes_: int, skus: int) -> None:
        """Nothing is known, and there is room for so many bytes, and SKUs."""
        self.set_used(0)
        self._waste[0] = 0
        self._room = self._roomier(0, bytes_)
        self._texts, self._rings = zeros(self._room, np.uint8), zeros(max(FIRST_CAPACITY, skus), _RING)
        self._have_moved()

    def _roomier(self, used: int, bytes_: int) -> int:
        """How much may be taken next, behind what is used."""
        room = used + max(used // ROOM_SHARE, FIRST_BYTES) + bytes_ + FACT_BYTES_MAX
        if room > BYTES_MAX:
            raise MemoryError(
                f"the last facts of a lane take {used:,} bytes, and no more than {BYTES_MAX:,} can be named"
            )
        return room

    def _have_moved(self) -> None:
        self.moves += 1
        self._held = None


def _second_entry(texts: bytes, begin: int, locations: IndexedNames) -> tuple[Any, ...]:
    """A fact as the second format had it."""
    text = texts[begin : begin + int.from_bytes(texts[begin : begin + 2], "little")]
    if text[2] == PACKED:
        return tuple(_unpack(text[_SECOND_HEAD_BYTES:]))
    told, at = [], _SECOND_HEAD_BYTES
    for head in range(22, _SECOND_HEAD_BYTES, 2):
        end = at + int.from_bytes(text[head : head + 2], "little")
        told.append(text[at:end].decode())
        at = end
    source, id_, order, document = told
    quantity = int.from_bytes(text[11:17], "little", signed=True)
    location = locations[int.from_bytes(text[18:22], "little")]
    besides = (order or None, document or None, (text[17] - 1) * quantity)
    time_ms = int.from_bytes(text[3:11], "little")
    return time_ms, KIND_NAMES[text[2]], source, id_, quantity, location, None, besides


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
