"""Packing: whole numbers in as few bits as they need, and what else snapshots do with all rows, in compiled loops.

A column is cut into blocks. A block holds its numbers less the smallest of them, or where that is shorter its first
number and the differences between neighbours less the smallest difference, each in as many bits as the largest needs:
frame of reference, as Parquet's DELTA_BINARY_PACKED. Times, rows and small units take a fraction of their bytes, in a
fraction of the time that a compressor takes to find less.

All compiled functions stand in this one file: the compiler's cache notices changes of the file only.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from operators.compiling import compiled, put_word, word_at

Array = NDArray[Any]
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Records = Any  # a structured array

BLOCK: Final = 256  # numbers
BITS_READ_AT_ONCE: Final = 57  # of a word that begins at any bit of a byte
WORD_BITS: Final = 64
WORD_BYTES: Final = 8
HEAD_BYTES_MAX: Final = 21  # of a block: its bits, and two numbers of up to 10 bytes
DIFFERENCES: Final = 0x80  # beside a block's bits: it holds differences
BITS_MASK: Final = 0x7F
ONE: Final = np.uint64(1)
NOTHING: Final = np.uint64(0)
SEVEN_BITS: Final = np.uint64(0x7F)
DAMAGED: Final = -1
# Of layouts, as in plain.py: what is taken from another file the compiler's cache would not see change
STAMP_BITS: Final = 8  # of an entry of the history, below its time
KEPT: Final = 8  # facts of a SKU
HEAD_BYTES: Final = 24  # of a fact
WIDER_HEAD_BYTES: Final = 6  # so much more they had before: who goes back to such a release makes room for them
PACKED: Final = 255  # a kind of its own: what follows the head is msgpack, one text
FACTS, FACT_BYTES, TEXT_BYTES, WORD_COUNT = range(4)  # places of sizes
WORD_SLOTS: Final = 1024
NO_WORD: Final = 0  # the row of the empty word, which is always there
HASH_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)
HALF: Final = np.uint64(32)
NEXT_MASK: Final = np.uint64(2**32 - 1)
TIME_MASK: Final = np.uint64(2**48 - 1)
TIME_SIGN_BITS: Final = np.uint64(16)  # above a time
DIRECTIONS: Final = 4  # of on_hand; what a head has beyond them says that the quantity is below zero
KIND_AT, DIRECTION_AT = 6, 7  # bytes of a fact's head


def places_of(dtype: np.dtype[Any], names: Iterable[str]) -> Ints:
    """Where the columns of a record are: bytes of a number, its place in the first record, and from one to the next.

    All counted in numbers of the column's own size, so every record is as wide as a whole number of each.
    """
    fields: Any = dtype.fields
    sizes = [(fields[name][0].itemsize, fields[name][1]) for name in names]
    return np.array([(size, at // size, dtype.itemsize // size) for size, at in sizes], np.int64).reshape(-1)


@lru_cache
def places_of_row(width: int, size: int) -> Ints:
    """As `places_of`, of rows of `width` numbers of `size` bytes each."""
    return np.array([(size, column, width) for column in range(width)], np.int64).reshape(-1)


class Scratch:
    """Arrays that are written before they are read, kept from one snapshot to the next.

    Memory taken anew is handed out by the kernel page by page, and that took longer than what was done with it. All
    lanes of a process share it: they are packed one after the other, in one thread.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}

    def array(self, name: str, type_: DTypeLike, size: int) -> Array:
        """At least so many numbers or records, with anything in them."""
        array = self._arrays.get(name)
        if array is None or len(array) < size:
            array = self._arrays[name] = np.empty(size + size // 4, type_)
        return array


scratch: Final = Scratch()
_block: Final = np.empty(BLOCK, np.int64)


def packed(table: Array, places: Ints, rows: int) -> bytes:
    """The columns at `places` of the first `rows` of `table`, whose memory lies in one piece."""
    columns = len(places) // 3
    room = columns * (rows * WORD_BYTES + (rows // BLOCK + 1) * (HEAD_BYTES_MAX + WORD_BYTES)) + WORD_BYTES
    out = scratch.array("packed", np.uint8, room)
    used = pack_columns(*_views(table), places, rows, _block, out)
    return out[:used].tobytes()


def unpack(text: bytes | memoryview, table: Array, places: Ints, rows: int) -> None:
    """Writes what `packed` gave into as many rows of `table`; raises ValueError where it is something else."""
    read = np.frombuffer(text, np.uint8)
    if unpack_columns(*_views(table), places, rows, _block, read) != len(read):
        raise ValueError("packed columns do not end where their bytes do")


def _views(table: Array) -> tuple[Array, Array, Array]:
    """The same memory as numbers of 8, 4 and 1 bytes; of none where it cannot hold such."""
    size = table.dtype.itemsize
    return (
        table.view(np.int64) if size % 8 == 0 else np.empty(0, np.int64),
        table.view(np.int32) if size % 4 == 0 else np.empty(0, np.int32),
        table.view(np.int8),
    )


@compiled
def pack_columns(
    wide: Array, middle: Array, narrow: Array, places: Ints, rows: int, block: Ints, out: Bytes
) -> int:  # fmt: skip
    """Writes the columns to `out`; returns how many bytes they take, with the word of zeros behind them."""
    at: int = np.int64(0)
    for place in range(0, len(places), 3):
        size, first, step = places[place], places[place + 1], places[place + 2]
        for begin in range(0, rows, BLOCK):
            count = min(BLOCK, rows - begin)
            if size == 8:  # bytes
                _take_block(wide, first + begin * step, step, count, block)
            elif size == 4:
                _take_block(middle, first + begin * step, step, count, block)
            else:
                _take_block(narrow, first + begin * step, step, count, block)
            at = _pack_block(block, count, out, at)
    put_word(out, at, NOTHING)  # what reads whole words may read on
    return at + WORD_BYTES


@compiled
def unpack_columns(
    wide: Array, middle: Array, narrow: Array, places: Ints, rows: int, block: Ints, text: Bytes
) -> int:  # fmt: skip
    """Reads what `pack_columns` wrote; returns where it ends, or DAMAGED."""
    at: int = np.int64(0)
    for place in range(0, len(places), 3):
        size, first, step = places[place], places[place + 1], places[place + 2]
        for begin in range(0, rows, BLOCK):
            count = min(BLOCK, rows - begin)
            at = _unpack_block(text, at, count, block)
            if at == DAMAGED:
                return DAMAGED
            if size == 8:  # bytes
                _give_block(block, count, wide, first + begin * step, step)
            elif size == 4:
                _give_block(block, count, middle, first + begin * step, step)
            else:
                _give_block(block, count, narrow, first + begin * step, step)
    return at + WORD_BYTES


@compiled
def _take_block(values: Array, place: int, step: int, count: int, block: Ints) -> None:
    """So many numbers of a column."""
    at, jump = np.uint64(place), np.uint64(step)  # without a sign an index is not looked at twice
    for number in range(np.uint64(count)):
        block[number] = values[at]
        at += jump


@compiled
def _give_block(block: Ints, count: int, values: Array, place: int, step: int) -> None:
    """Undoes `_take_block`."""
    for number in range(count):
        values[place + number * step] = block[number]


@compiled
def _pack_block(block: Ints, count: int, out: Bytes, at: int) -> int:
    """Writes a block in the shorter of the two ways; returns where it ends. Differences are modulo 2^64."""
    lowest = highest = block[0]
    for number in range(np.uint64(count)):
        lowest = min(lowest, block[number])
        highest = max(highest, block[number])
    plain_bits = _bits_of(highest, lowest)
    if plain_bits > 1:
        falling = rising = block[1] - block[0]
        for number in range(np.uint64(count - 1)):
            difference = block[number + ONE] - block[number]
            falling = min(falling, difference)
            rising = max(rising, difference)
        bits = _bits_of(rising, falling)
        if bits * (count - 1) + WORD_BITS < plain_bits * count:
            out[at] = bits | DIFFERENCES
            at = _put_number(out, _put_number(out, at + 1, block[0]), falling)
            for number in range(count - 1, 0, -1):
                block[number] -= block[number - 1]
            return _put_bits(block, 1, count, falling, bits, out, at)
    out[at] = plain_bits
    return _put_bits(block, 0, count, lowest, plain_bits, out, _put_number(out, at + 1, lowest))


@compiled
def _bits_of(highest: int, lowest: int) -> int:
    """How many bits hold any number from 0 to the distance; as many as a word has where they are not read at once."""
    distance, bits = np.uint64(highest) - np.uint64(lowest), np.int64(0)
    while distance != NOTHING:
        distance >>= ONE
        bits += 1
    return WORD_BITS if bits > BITS_READ_AT_ONCE else bits


@compiled
def _put_bits(block: Ints, begin: int, end: int, lowest: int, bits: int, out: Bytes, at: int) -> int:
    """Writes numbers less the smallest; returns where they end. Up to a word behind that may change, too."""
    if bits == 0:
        return at
    word, filled = NOTHING, np.int64(0)
    for place in range(begin, end):
        number = np.uint64(block[place] - lowest)
        word |= number << np.uint64(filled)
        filled += bits
        if filled >= WORD_BITS:
            put_word(out, at, word)
            at += WORD_BYTES
            filled -= WORD_BITS
            word = number >> np.uint64(bits - filled) if filled else NOTHING
    put_word(out, at, word)
    return at + (filled + 7 >> 3)


@compiled
def _unpack_block(text: Bytes, at: int, count: int, block: Ints) -> int:
    """Reads a block; returns where it ends, or DAMAGED where the bytes do not hold it."""
    if at + HEAD_BYTES_MAX > len(text) and not _ends_within(text, at):
        return DAMAGED
    bits, differs, begin = np.int64(text[at]) & BITS_MASK, text[at] >= DIFFERENCES, 0
    lowest = _number_at(text, at + 1)
    at = _behind_number(text, at + 1)
    if differs:
        block[0], begin = lowest, 1
        lowest = _number_at(text, at)
        at = _behind_number(text, at)
    end = at + ((count - begin) * bits + 7 >> 3)
    if bits > WORD_BITS or end + WORD_BYTES > len(text):
        return DAMAGED
    bit = at << 3
    mask = ~NOTHING if bits == WORD_BITS else (ONE << np.uint64(bits)) - ONE
    for number in range(begin, count):
        block[number] = np.int64(word_at(text, bit >> 3) >> np.uint64(bit & 7) & mask) + lowest
        bit += bits
    if differs:
        for number in range(1, count):
            block[number] += block[number - 1]
    return end


@compiled
def _ends_within(text: Bytes, at: int) -> bool:
    """Whether the head of a block that begins near the end of the bytes does not reach behind it."""
    if at >= len(text):
        return False
    numbers, at = 2 if text[at] >= DIFFERENCES else 1, at + 1
    while numbers > 0 and at < len(text):
        if text[at] < 0x80:  # the last byte of a number
            numbers -= 1
        at += 1
    return numbers == 0


@compiled
def _put_number(out: Bytes, at: int, number: int) -> int:
    """Seven bits a byte, the sign last of all (zigzag); returns where it ends."""
    rest = np.uint64(number << 1) ^ np.uint64(number >> 63)
    while rest > SEVEN_BITS:
        out[at] = np.uint8(rest & SEVEN_BITS) | 0x80
        rest >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(rest)
    return at + 1


@compiled
def _number_at(text: Bytes, at: int) -> int:
    """What `_put_number` wrote."""
    rest, shift = NOTHING, np.int64(0)
    while text[at] >= 0x80:
        rest |= (np.uint64(text[at]) & SEVEN_BITS) << np.uint64(shift)
        shift += 7
        at += 1
    rest |= np.uint64(text[at]) << np.uint64(shift)
    return np.int64(rest >> ONE) ^ -np.int64(rest & ONE)


@compiled
def _behind_number(text: Bytes, at: int) -> int:
    """Where the number at `at` ends."""
    while text[at] >= 0x80:
        at += 1
    return at + 1


# Rows that horizons still reach


@compiled
def keep_spans(
    newest: Array, units: Array, rows: Array, owners: int, values: Array, width: int, kept: Array
) -> int:  # fmt: skip
    """Rows of windows with more than their latest span, owner by owner; returns how many there are.

    They are written to `kept`, and `rows` (by owner: row + 1) says where. Of the others only `units` are left.
    """
    count = 0
    for owner in range(owners):
        if rows[owner] == 0:
            continue
        begin = (rows[owner] - 1) * width
        latest = begin + newest[owner] % width
        others = 0
        for cell in range(begin, begin + width):
            if cell != latest:
                others |= values[cell]
        if others == 0:
            units[owner] = values[latest]
            rows[owner] = 0
            continue
        for cell in range(width):
            kept[count * width + cell] = values[begin + cell]
        count += 1
        rows[owner] = count
    return count


@compiled
def mark_live_entries(entries: Records, rows: int, positions: Records, as_of_ms: int, live: NDArray[np.bool_]) -> int:
    """Marks the entries of the history that their positions' horizons reach; returns how many they are."""
    count = 0
    for row in range(rows):
        position = entries[row].position
        horizon_ms = max(positions[position].newest_ms - as_of_ms, positions[position].floor_ms)
        live[row] = entries[row].stamp >> STAMP_BITS >= horizon_ms
        count += live[row]
    return count


@compiled
def mark_live_ids(ids: Records, rows: int, skus: Records, dedupe_ms: int, live: NDArray[np.bool_]) -> int:
    """Marks the ids that their SKUs' horizons reach; returns how many they are."""
    count = 0
    for row in range(rows):
        sku = ids[row].sku
        live[row] = ids[row].time_ms >= max(skus[sku].newest_ms - dedupe_ms, skus[sku].floor_ms)
        count += live[row]
    return count


# Last facts, whose layout is that of `LastFacts`


class Words(NamedTuple):
    """The names of sources, each once; what finds no room in the table any more is written each time."""

    texts: Bytes  # of all words
    ends: Ints  # of each, behind a 0; the first word is empty
    slots: NDArray[np.int32]  # an open-addressed table of rows + 1


@compiled
def gather_facts(
    texts: Bytes, rings: Records, recent_count: Ints, heads: Records, shares: NDArray[np.int8], words: Words,
    out: Bytes, sizes: Ints, places: Ints,
) -> None:  # fmt: skip
    """The facts of all rings, SKU by SKU: the last ones, then plain ones before these; heads, and texts in `out`.

    Of each plain one, by age, `shares` tells how many places behind its own among the last ones it stands, all counted
    round a ring of KEPT; KEPT for one before these. `recent_count` gets how many last ones there are, `sizes` how much
    of all. `places` is room for 4 × KEPT numbers.
    """
    share = 0
    for sku in range(len(rings)):
        plain = np.int64(rings[sku].kept)
        kept = _last_facts(texts, rings, sku, places)
        recent_count[sku] = kept
        for slot in range(kept):
            _gather_fact(texts, places[slot], heads, words, out, sizes)
        for slot in range(plain):
            begin = places[KEPT + slot]
            on = 0
            while on < KEPT and ((slot + on) % KEPT >= kept or places[(slot + on) % KEPT] != begin):
                on += 1
            shares[share] = on
            share += 1
            if on == KEPT:
                _gather_fact(texts, begin, heads, words, out, sizes)


@compiled
def _last_facts(texts: Bytes, rings: Records, sku: int, places: Ints) -> int:
    """Where the last facts of a SKU begin, by age, how many they are; behind KEPT of them its plain ones, then others.

    Plain ones have numbers, and another one that of the plain one before it.
    """
    ring = rings[sku]
    plain: int = np.int64(ring.kept)
    others: int = np.int64(ring.kept_others)
    number: int = np.int64(ring.count)
    oldest: int = np.int64(ring.oldest)
    _places_of_ring(texts, oldest, plain, places, KEPT)
    if others != 0:
        oldest = ring.newest_other
        oldest = np.int64(word_at(texts, WORD_BYTES * oldest) & NEXT_MASK)
        _places_of_ring(texts, oldest, others, places, 2 * KEPT)
    kept = min(KEPT, plain + others)
    for back in range(kept):
        of_others = others != 0 and (
            plain == 0 or np.int64(word_at(texts, places[2 * KEPT + others - 1] + WORD_BYTES)) >= number
        )
        if of_others:
            others -= 1
            places[kept - 1 - back] = places[2 * KEPT + others]
        else:
            plain -= 1
            number -= 1
            places[kept - 1 - back] = places[KEPT + plain]
    return kept


@compiled
def _places_of_ring(texts: Bytes, slot: int, kept: int, places: Ints, at: int) -> None:
    """Where so many facts of a ring begin, from the one at the slot on."""
    for number in range(kept):
        places[at + number] = WORD_BYTES * slot
        slot = np.int64(word_at(texts, WORD_BYTES * slot) & NEXT_MASK)


@compiled
def _gather_fact(texts: Bytes, begin: int, heads: Records, words: Words, out: Bytes, sizes: Ints) -> None:
    """The numbers of a fact's head, its source's word, and its other texts; of a packed fact all that is packed."""
    head, at = heads[sizes[FACTS]], begin + HEAD_BYTES
    second, third = word_at(texts, begin + WORD_BYTES), np.int64(word_at(texts, begin + 2 * WORD_BYTES))
    head.kind = texts[begin + KIND_AT]
    head.time_ms = head.quantity = head.direction = head.location = head.order = head.document = 0
    source: int = at
    if head.kind == PACKED:
        head.id = third
        end: int = at + third
    else:
        head.time_ms = np.int64(second << TIME_SIGN_BITS) >> 16
        direction = np.int64(texts[begin + DIRECTION_AT])
        units = third >> 32 & 0xFFFFFFFF
        head.quantity = -units if direction >= DIRECTIONS else units
        head.direction = direction % DIRECTIONS
        head.location = third >> 16 & 0xFFFF
        source += np.int64(texts[begin + 14])
        head.id = texts[begin + 15]
        head.order = third & 0xFF
        head.document = third >> 8 & 0xFF
        end = source + np.int64(texts[begin + 15]) + (third & 0xFF) + (third >> 8 & 0xFF)
    head.source = _word_of(texts, at, source, words, sizes)
    used = sizes[TEXT_BYTES]
    for place in range(0, end - source, WORD_BYTES):
        put_word(out, used + place, word_at(texts, source + place))
    sizes[FACTS] += 1
    sizes[FACT_BYTES] += end - begin + WIDER_HEAD_BYTES
    sizes[TEXT_BYTES] = used + end - source


@compiled
def _word_of(text: Bytes, begin: int, end: int, words: Words, sizes: Ints) -> int:
    """The row of the word text[begin:end], which is written down where it is not found."""
    if begin == end:
        return NO_WORD
    slots, mask = words.slots, len(words.slots) - 1
    hash_ = np.uint64(end - begin)
    for at in range(begin, end, WORD_BYTES):
        hash_ = (hash_ ^ _bytes_at(text, at, end)) * HASH_FACTOR
        hash_ ^= hash_ >> HALF
    slot = np.int64(hash_ & np.uint64(mask))
    while slots[slot] != 0:
        if _is_word(words, slots[slot] - 1, text, begin, end):
            return slots[slot] - 1
        slot = (slot + 1) & mask
    row = sizes[WORD_COUNT]
    first = words.ends[row]
    for at in range(0, end - begin, WORD_BYTES):
        put_word(words.texts, first + at, word_at(text, begin + at))
    words.ends[row + 1] = first + end - begin
    sizes[WORD_COUNT] = row + 1
    if 2 * row < len(slots):
        slots[slot] = row + 1
    return row


@compiled
def _is_word(words: Words, row: int, text: Bytes, begin: int, end: int) -> bool:
    """Whether the word of the row is text[begin:end]."""
    first, last = words.ends[row], words.ends[row + 1]
    if last - first != end - begin:
        return False
    for at in range(0, end - begin, WORD_BYTES):
        if _bytes_at(words.texts, first + at, last) != _bytes_at(text, begin + at, end):
            return False
    return True


@compiled
def _bytes_at(text: Bytes, at: int, end: int) -> np.uint64:
    """Up to eight bytes of text[at:end]; eight can be read."""
    word = word_at(text, at)
    return word if end - at >= WORD_BYTES else word & ((ONE << np.uint64(8 * (end - at))) - ONE)


@compiled
def spread_facts(
    heads: Records, shares: NDArray[np.int8], words: Bytes, word_ends: Ints, read: Bytes, recent_count: Ints,
    plain_count: Ints, rings: Records, texts: Bytes, places: Ints,
) -> int:  # fmt: skip
    """Undoes `gather_facts`; returns how many bytes of `texts` are taken. `places` is room for 6 × KEPT numbers.

    Counts above KEPT are those of rings whose oldest fact does not stand first.
    """
    fact, share = 0, 0
    at: int = np.int64(0)
    used: int = np.int64(0)
    for sku in range(len(recent_count)):
        kept, plain = min(KEPT, recent_count[sku]), min(KEPT, plain_count[sku])
        for slot in range(kept):
            places[2 * slot], places[2 * slot + 1] = fact, at
            at += _length_of(heads, fact)
            fact += 1
        for slot in range(plain):
            on, shown = np.int64(shares[share]), 2 * KEPT + 2 * slot
            share += 1
            if on < KEPT:
                places[shown], places[shown + 1] = (
                    places[2 * ((slot + on) % KEPT)],
                    places[2 * ((slot + on) % KEPT) + 1],
                )
            else:
                places[shown], places[shown + 1] = fact, at
                at += _length_of(heads, fact)
                fact += 1
        ring, first = rings[sku], used // WORD_BYTES
        for number in range(plain):
            shown = 2 * KEPT + 2 * ((plain_count[sku] + number) % plain)
            begin = used // WORD_BYTES
            used = _spread_fact(heads, places[shown], words, word_ends, read, places[shown + 1], texts, used)
            _close_ring(texts, begin, used // WORD_BYTES if number < plain - 1 else first, used)
            ring.newest = begin
        ring.oldest, ring.kept, ring.count = first, plain, plain
        used = _spread_others(
            heads, words, word_ends, read, recent_count[sku], plain, rings, sku, texts, places, used
        )  # fmt: skip
    return used


@compiled
def _spread_others(
    heads: Records, words: Bytes, word_ends: Ints, read: Bytes, count: int, plain: int, rings: Records, sku: int,
    texts: Bytes, places: Ints, used: int,
) -> int:  # fmt: skip
    """Writes those of a SKU's last facts that are not plain; returns how many bytes are taken then."""
    kept, ring, before, others = min(KEPT, count), rings[sku], plain, 0
    begins = 4 * KEPT
    for back in range(kept):  # the newest first
        shown = 2 * ((count + kept - 1 - back) % kept)
        is_plain = False
        for slot in range(plain):
            is_plain |= places[2 * KEPT + 2 * slot] == places[shown]
        if is_plain:
            before -= 1
        else:
            places[begins + others], places[begins + KEPT + others] = shown, before
            others += 1
    first: int = used // WORD_BYTES
    for number in range(others):
        shown, begin = places[begins + others - 1 - number], used
        used = _spread_fact(heads, places[shown], words, word_ends, read, places[shown + 1], texts, used)
        _close_ring(texts, begin // WORD_BYTES, used // WORD_BYTES if number < others - 1 else first, used)
        put_word(texts, begin + WORD_BYTES, np.uint64(places[begins + KEPT + others - 1 - number]))
        ring.newest_other = begin // WORD_BYTES
    ring.kept_others = others
    return used


@compiled
def _close_ring(texts: Bytes, begin: int, next_: int, end: int) -> None:
    """Writes where the next slot begins, and how many words this one has, which ends at the byte `end`."""
    head = word_at(texts, WORD_BYTES * begin) & ~TIME_MASK
    words = np.uint64(end // WORD_BYTES - begin) << HALF
    put_word(texts, WORD_BYTES * begin, head | np.uint64(next_) | words)


@compiled
def _length_of(heads: Records, fact: int) -> int:
    """Of a fact's texts but for the source."""
    head = heads[fact]
    return np.int64(head.id) + np.int64(head.order) + np.int64(head.document)


@compiled
def _spread_fact(
    heads: Records, fact: int, words: Bytes, word_ends: Ints, read: Bytes, at: int, texts: Bytes, begin: int
) -> int:
    """Writes a fact whose texts are read at `at`, but for its slot's first 6 bytes; returns where the slot ends."""
    head, length, end = heads[fact], _length_of(heads, fact), begin + HEAD_BYTES
    first, last = word_ends[head.source], word_ends[head.source + 1]
    quantity = np.int64(head.quantity)
    texts[begin + KIND_AT] = head.kind
    texts[begin + DIRECTION_AT] = head.direction + (DIRECTIONS if quantity < 0 else 0)
    if head.kind == PACKED:
        put_word(texts, begin + WORD_BYTES, NOTHING)
        put_word(texts, begin + 2 * WORD_BYTES, np.uint64(length))
    else:
        lengths = np.uint64(last - first) << np.uint64(48) | np.uint64(head.id) << np.uint64(56)
        put_word(texts, begin + WORD_BYTES, np.uint64(head.time_ms) & TIME_MASK | lengths)
        third = np.uint64(head.order) | np.uint64(head.document) << np.uint64(8)
        third |= np.uint64(head.location) << np.uint64(16) | np.uint64(abs(quantity)) << HALF
        put_word(texts, begin + 2 * WORD_BYTES, third)
    for place in range(first, last):
        texts[end] = words[place]
        end += 1
    for place in range(length):
        texts[end + place] = read[at + place]
    return (end + length + WORD_BYTES - 1) // WORD_BYTES * WORD_BYTES
