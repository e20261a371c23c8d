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
# Of the layout of last facts, as in plain.py: what is taken from another file the compiler's cache would not see change
KEPT: Final = 8  # facts of a SKU
HEAD_BYTES: Final = 30  # of a fact
PACKED: Final = 255  # a kind of its own: what follows the head is msgpack, one text
FACTS, FACT_BYTES, TEXT_BYTES, WORD_COUNT = range(4)  # places of sizes
WORD_SLOTS: Final = 1024
NO_WORD: Final = 0  # the row of the empty word, which is always there
HASH_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)
HALF: Final = np.uint64(32)
SIGN_BITS: Final = np.uint64(16)  # above a number of 6 bytes


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
        live[row] = entries[row].time_ms >= horizon_ms
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
    texts: Bytes, recent: Ints, plain: Ints, recent_count: Ints, plain_count: Ints, heads: Records,
    shares: NDArray[np.int8], words: Words, out: Bytes, sizes: Ints,
) -> None:  # fmt: skip
    """The facts that rings point to, SKU by SKU and slot by slot: numbers of their heads, and texts in `out`.

    Of each slot of the second ring `shares` tells how many slots on the same fact stands in the first one, KEPT for
    a fact that stands in the second one only: it comes behind those of the first. `sizes` tells how much there is.
    """
    share = 0
    for sku in range(len(recent_count)):
        first, kept = sku * KEPT, min(KEPT, recent_count[sku])
        for slot in range(kept):
            _gather_fact(texts, recent[first + slot], heads, words, out, sizes)
        for slot in range(min(KEPT, plain_count[sku])):
            begin = plain[first + slot]
            on = 0
            while on < KEPT and ((slot + on) % KEPT >= kept or recent[first + (slot + on) % KEPT] != begin):
                on += 1
            shares[share] = on
            share += 1
            if on == KEPT:
                _gather_fact(texts, begin, heads, words, out, sizes)


@compiled
def _gather_fact(texts: Bytes, begin: int, heads: Records, words: Words, out: Bytes, sizes: Ints) -> None:
    """The numbers of a fact's head, its source's word, and its other texts; of a packed fact all that is packed."""
    head, at = heads[sizes[FACTS]], begin + HEAD_BYTES
    end: int = begin + (np.int64(word_at(texts, begin)) & 0xFFFF)
    head.kind = texts[begin + 2]
    head.time_ms = np.int64(word_at(texts, begin + 3))
    head.quantity = np.int64(word_at(texts, begin + 11) << SIGN_BITS) >> 16  # of 6 bytes
    head.direction = texts[begin + 17]
    head.location = np.int64(word_at(texts, begin + 18)) & 0xFFFFFFFF
    lengths = np.int64(word_at(texts, begin + 22))
    source: int = at + (lengths & 0xFFFF)
    head.source = _word_of(texts, at, source, words, sizes)
    head.id = end - source if head.kind == PACKED else lengths >> 16 & 0xFFFF
    head.order = lengths >> 32 & 0xFFFF
    head.document = lengths >> 48 & 0xFFFF
    used = sizes[TEXT_BYTES]
    for place in range(0, end - source, WORD_BYTES):
        put_word(out, used + place, word_at(texts, source + place))
    sizes[FACTS] += 1
    sizes[FACT_BYTES] += end - begin
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
    heads: Records, shares: NDArray[np.int8], words: Bytes, word_ends: Ints, read: Bytes, recent: Ints, plain: Ints,
    recent_count: Ints, plain_count: Ints, texts: Bytes,
) -> int:  # fmt: skip
    """Undoes `gather_facts`; returns how many bytes of `texts` are taken."""
    fact, share = 0, 0
    at: int = np.int64(0)
    used: int = np.int64(0)
    for sku in range(len(recent_count)):
        first = sku * KEPT
        for slot in range(min(KEPT, recent_count[sku])):
            recent[first + slot] = used
            used = _spread_fact(heads, fact, words, word_ends, read, at, texts, used)
            at += _length_of(heads, fact)
            fact += 1
        for slot in range(min(KEPT, plain_count[sku])):
            on = np.int64(shares[share])
            share += 1
            if on < KEPT:
                plain[first + slot] = recent[first + (slot + on) % KEPT]
            else:
                plain[first + slot] = used
                used = _spread_fact(heads, fact, words, word_ends, read, at, texts, used)
                at += _length_of(heads, fact)
                fact += 1
    return used


@compiled
def _length_of(heads: Records, fact: int) -> int:
    """Of a fact's texts but for the source."""
    head = heads[fact]
    return np.int64(head.id) + np.int64(head.order) + np.int64(head.document)


@compiled
def _spread_fact(
    heads: Records, fact: int, words: Bytes, word_ends: Ints, read: Bytes, at: int, texts: Bytes, begin: int
) -> int:
    """Writes a fact whose texts are read at `at`; returns where it ends."""
    head, length, end = heads[fact], _length_of(heads, fact), begin + HEAD_BYTES
    first, last = word_ends[head.source], word_ends[head.source + 1]
    lengths = np.uint64(last - first) | np.uint64(head.id) << np.uint64(16)
    lengths |= np.uint64(head.order) << np.uint64(32) | np.uint64(head.document) << np.uint64(48)
    put_word(texts, begin, np.uint64(HEAD_BYTES + last - first + length))
    texts[begin + 2] = head.kind
    put_word(texts, begin + 3, np.uint64(head.time_ms))
    put_word(texts, begin + 11, np.uint64(head.quantity))
    texts[begin + 17] = head.direction
    put_word(texts, begin + 18, np.uint64(head.location))
    put_word(texts, begin + 22, NOTHING if head.kind == PACKED else lengths)
    for place in range(first, last):
        texts[end] = words[place]
        end += 1
    for place in range(length):
        texts[end + place] = read[at + place]
    return end + length
