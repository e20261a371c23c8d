"""Plain: movements of the plain kinds, applied many at a time by compiled loops that stop at whatever is not plain.

What a movement means is defined row by row (`lane.py` and what it calls). `apply_plain` does the same to the same
columns for messages that are certain to be ordinary: JSON as our own writers make it, a plain kind, a SKU at home in
its partition whose rules are plain numbers and about which nothing is asked, stated, promised or counted. At the first
message that is not it stops and leaves that one to the row-wise functions; so it decides nothing of its own, and what
it does not know is slow, never wrong.

All compiled functions stand in this one file: the compiler's cache notices changes of the file only.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.admission import AHEAD_MS_MAX, NO_TIMESTAMP
from operators.compiling import Held, compiled, entered, prefetch, put_word, word_at, zeros_below
from schemas.records import ID_AT, KEY_AT, TIME_AT, VALUE_AT
from schemas.times import DAY_MS

Bytes = NDArray[np.uint8]
Ints8 = NDArray[np.int8]
Ints32 = NDArray[np.int32]
Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Slots = NDArray[np.uint32]
Records = Any  # a structured array: one record for each row of `Columns`

# Pairs, as Columns' `Pairs` keeps them

OWNER_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / φ: Knuth, The Art of Computer Programming 3, 6.4
MEMBER_FACTOR: Final = np.uint64(0xC2B2AE3D27D4EB4F)
HALF: Final = np.uint64(32)
ALL_ONES: Final = np.uint64(2**64 - 1)
LOWER: Final = np.uint64(0xFFFFFFFF)


@compiled
def pair_slot(owner: int, member: int) -> int:
    """Where the search for a pair begins, before it is cut to the table's size."""
    return np.int64((np.uint64(owner) * OWNER_FACTOR ^ np.uint64(member) * MEMBER_FACTOR) >> HALF)


@compiled
def find_pair(slots: Ints32, owners: Ints32, members: Ints32, owner: int, member: int) -> int:
    """The slot of the pair, or the free one where it would go; linear probing."""
    mask = len(slots) - 1
    slot = pair_slot(owner, member) & mask
    while slots[slot] != 0:
        row = slots[slot] - 1
        if owners[row] == owner and members[row] == member:
            break
        slot = (slot + 1) & mask
    return slot


@compiled
def enter_pairs(
    slots: Ints32, nexts: Ints32, firsts: Ints32, lasts: Ints32, owners: Ints32, members: Ints32, begin: int
) -> None:
    """Enters the rows from `begin` on, of pairs that are not there yet, each behind the last one of its owner."""
    mask = len(slots) - 1
    for row in range(begin, len(owners)):
        owner = owners[row]
        slot = pair_slot(owner, members[row]) & mask
        while slots[slot] != 0:
            slot = (slot + 1) & mask
        slots[slot] = row + 1
        if lasts[owner] != 0:
            nexts[lasts[owner] - 1] = row + 1
        else:
            firsts[owner] = row + 1
        lasts[owner] = row + 1


# Texts


@compiled
def field_word(text: Bytes, begin: int, end: int) -> int:
    """Up to eight bytes of text[begin:end] as a number, little-endian; 0 where there are none."""
    if begin + 8 <= end:
        return np.int64(word_at(text, begin))
    if begin + 8 <= len(text) and begin < end:
        return np.int64(word_at(text, begin) & ~(ALL_ONES << np.uint64(8 * (end - begin))))
    value = np.int64(0)
    for place in range(begin, end):
        value |= np.int64(text[place]) << (8 * (place - begin))
    return value


@compiled
def same_text(one: Bytes, begin: int, end: int, other: Bytes, other_begin: int, other_end: int) -> bool:
    """Whether two texts are equal."""
    if end - begin != other_end - other_begin:
        return False
    for at in range(0, end - begin, 8):
        if field_word(one, begin + at, end) != field_word(other, other_begin + at, other_end):
            return False
    return True


@compiled
def put_text(out: Bytes, at: int, text: Bytes, begin: int, end: int) -> int:
    """Writes text[begin:end] to `out`; returns where it ends. The bytes behind that may change, too."""
    length = end - begin
    place = 0
    while place < length and begin + place + 8 <= len(text) and at + place + 8 <= len(out):
        put_word(out, at + place, word_at(text, begin + place))
        place += 8
    for rest in range(place, length):
        out[at + rest] = text[begin + rest]
    return at + length


# Names, as `NameIndex` keeps them


@compiled
def name_hash(text: Bytes, begin: int, end: int) -> int:
    """A hash of a few bytes: FNV-1a by words of eight, mixed at the end; kept in memory only."""
    value = np.uint64(0xCBF29CE484222325) ^ np.uint64(end - begin)
    for at in range(begin, end, 8):
        value = (value ^ np.uint64(field_word(text, at, end))) * OWNER_FACTOR
        value ^= value >> HALF
    value *= MEMBER_FACTOR
    return np.int64(value >> np.uint64(29))


@compiled
def find_name(slots: Ints32, texts: Bytes, ends: Ints, text: Bytes, begin: int, end: int) -> int:
    """The slot of the name text[begin:end], or the free one where it would go; `ends` begins with 0."""
    mask = len(slots) - 1
    slot = name_hash(text, begin, end) & mask
    length = end - begin
    while slots[slot] != 0:
        row = slots[slot] - 1
        first = ends[row]
        if ends[row + 1] - first == length and same_text(texts, first, first + length, text, begin, end):
            break
        slot = (slot + 1) & mask
    return slot


@compiled
def row_of_name(slots: Ints32, texts: Bytes, ends: Ints, name: Bytes) -> int:
    """The row of a name, −1 where it has none."""
    return int(slots[find_name(slots, texts, ends, name, 0, len(name))]) - 1


@compiled
def enter_names(slots: Ints32, texts: Bytes, ends: Ints, begin: int, count: int) -> None:
    """Enters the names from row `begin` on, of `count` in all, which are not there yet."""
    mask = len(slots) - 1
    for row in range(begin, count):
        slot = name_hash(texts, ends[row], ends[row + 1]) & mask
        while slots[slot] != 0:
            slot = (slot + 1) & mask
        slots[slot] = row + 1


# Route: which lane a key belongs to


MURMUR_SEED: Final = np.uint64(0x9747B28C)
MURMUR_FACTOR: Final = np.uint64(0x5BD1E995)
MURMUR_BITS: Final = np.uint64(24)
SIGNLESS: Final = np.uint64(0x7FFFFFFF)


def _crc_table() -> NDArray[np.uint32]:
    """What a byte does to CRC-32 (ISO 3309, reflected polynomial 0xEDB88320), as zlib has it."""
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = np.where(values & 1, (values >> 1) ^ np.uint32(0xEDB88320), values >> 1).astype(np.uint32)
    return values


_CRC: Final = _crc_table()


@compiled
def lane_of(keys: Bytes, begin: int, end: int, lanes: int, by_crc32: bool) -> int:
    """The lane of the SKU keys[begin:end]: as Kafka's Java clients find the partition of a key, of so many.

    So where the number of partitions divides that of lanes, all that a lane is given stands in one partition. In states
    of the first format it is another hash.
    """
    hash_ = _crc32(keys, begin, end) if by_crc32 else _murmur2(keys, begin, end) & SIGNLESS
    return np.int64(hash_) % lanes


@compiled
def _murmur2(keys: Bytes, begin: int, end: int) -> np.uint64:
    """MurmurHash2 of 32 bits (Austin Appleby), with the seed of Kafka's `Utils.murmur2`."""
    value = MURMUR_SEED ^ np.uint64(end - begin)
    whole = end - (end - begin) % 4
    for at in range(begin, whole, 4):
        word = np.uint64(0)
        for place in range(4):
            word |= np.uint64(keys[at + place]) << np.uint64(8 * place)
        word = word * MURMUR_FACTOR & LOWER
        word = (word ^ word >> MURMUR_BITS) * MURMUR_FACTOR & LOWER
        value = value * MURMUR_FACTOR & LOWER ^ word
    if whole < end:
        for place in range(end - whole):
            value ^= np.uint64(keys[whole + place]) << np.uint64(8 * place)
        value = value * MURMUR_FACTOR & LOWER
    value = (value ^ value >> np.uint64(13)) * MURMUR_FACTOR & LOWER
    return value ^ value >> np.uint64(15)


@compiled
def _crc32(keys: Bytes, begin: int, end: int) -> np.uint64:
    """As zlib's."""
    value = np.uint32(0xFFFFFFFF)
    for at in range(begin, end):
        value = _CRC[(value ^ keys[at]) & np.uint32(0xFF)] ^ (value >> np.uint32(8))
    return np.uint64(value ^ np.uint32(0xFFFFFFFF))


@compiled
def share_out(
    keys: Bytes, key_ends: Ints, payload_ends: Ints, lanes: int, by_crc32: bool, owners: Ints32, places: Ints32,
    ends: Ints32, bytes_: Ints,
) -> None:  # fmt: skip
    """Writes the messages' places, lane by lane, each lane's in their order; last come those that name no SKU.

    `owners` become their lanes, or `lanes` where they have none. `ends`, begun with zeros and three longer than there
    are lanes, becomes where each lane's places begin, where those without a lane do, and where these end; `bytes_`, one
    longer, how much keys and payloads take.
    """
    count = len(places)
    for place in range(count):
        begin, end = key_ends[place], key_ends[place + 1]
        owner = lanes if begin == end else lane_of(keys, begin, end, lanes, by_crc32)
        owners[place] = owner
        ends[owner + 2] += 1
        bytes_[owner] += end - begin + payload_ends[place + 1] - payload_ends[place]
    for lane in range(lanes + 1):
        ends[lane + 2] += ends[lane + 1]
    for place in range(count):
        owner = owners[place]
        places[ends[owner + 1]] = place
        ends[owner + 1] += 1


# Hashes of ids: XXH3 of 64 bits with seed 0, for 4 to 64 bytes, as `duplicates.hash_of` has it from xxhash
# (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md)

SECRET: Final = np.frombuffer(  # in words of eight bytes
    bytes.fromhex(
        "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
        "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    ),
    "<u8",
).astype(np.uint64)
HASHED_BYTES_MIN: Final = 4
HASHED_BYTES_MAX: Final = 64
PRIME_1: Final = np.uint64(0x9E3779B185EBCA87)


@compiled
def half_at(text: Bytes, at: int) -> np.uint64:
    """Four bytes, little-endian."""
    value = np.uint64(0)
    for place in range(4):
        value |= np.uint64(text[at + place]) << np.uint64(8 * place)
    return value


@compiled
def folded(one: np.uint64, other: np.uint64) -> np.uint64:
    """The two halves of the 128 bits of a product, in one."""
    low_one, high_one = one & LOWER, one >> HALF
    low_other, high_other = other & LOWER, other >> HALF
    low = low_one * low_other
    middle = high_one * low_other + (low >> HALF)
    second = (middle & LOWER) + low_one * high_other
    high = high_one * high_other + (middle >> HALF) + (second >> HALF)
    return ((second << HALF) | (low & LOWER)) ^ high


@compiled
def mixed(text: Bytes, at: int, secret: int) -> np.uint64:
    """Sixteen bytes with two words of the secret."""
    return folded(word_at(text, at) ^ SECRET[secret], word_at(text, at + 8) ^ SECRET[secret + 1])


@compiled
def avalanche(value: np.uint64) -> np.uint64:
    """The last step of XXH3."""
    value ^= value >> np.uint64(37)
    value *= np.uint64(0x165667919E3779F9)
    return value ^ (value >> HALF)


@compiled
def swapped(value: np.uint64) -> np.uint64:
    """The bytes in the other order."""
    turned = np.uint64(0)
    for place in range(8):
        turned |= ((value >> np.uint64(8 * place)) & np.uint64(0xFF)) << np.uint64(56 - 8 * place)
    return turned


@compiled
def turned_left(value: np.uint64, bits: int) -> np.uint64:
    """The bits moved round to the left."""
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@compiled
def xxh3(text: Bytes, length: int) -> np.uint64:
    """XXH3 of text[:length], HASHED_BYTES_MIN ≤ length ≤ HASHED_BYTES_MAX."""
    size = np.uint64(length)
    if length <= 8:
        first, last = half_at(text, 0), half_at(text, length - 4)
        value = (last + (first << HALF)) ^ (SECRET[1] ^ SECRET[2])
        value ^= turned_left(value, 49) ^ turned_left(value, 24)
        value *= np.uint64(0x9FB21C651E98DF25)
        value ^= (value >> np.uint64(35)) + size
        value *= np.uint64(0x9FB21C651E98DF25)
        return value ^ (value >> np.uint64(28))
    if length <= 16:
        low = word_at(text, 0) ^ SECRET[3] ^ SECRET[4]
        high = word_at(text, length - 8) ^ SECRET[5] ^ SECRET[6]
        return avalanche(size + swapped(low) + high + folded(low, high))
    value = size * PRIME_1
    rounds = (length - 1) // 32
    for step in range(rounds, -1, -1):
        value += mixed(text, 16 * step, 4 * step)
        value += mixed(text, length - 16 * (step + 1), 4 * step + 2)
    return avalanche(value)


# The reader: JSON as writers make it who write no more than they must


class Plan(NamedTuple):
    """What one unit of each kind does: by kind and qualifier, how many quantities (−1: not a pair), which, and signs.

    `sign` is 0 in `there` where nothing happens at a destination.
    """

    counts: Ints8  # [kind, qualifier]
    quantities: Ints8  # [kind, qualifier, place]
    signs: Ints8
    destinations: Ints8  # [kind]: 1 where in_transit + at the destination
    outgoing: Ints8  # [kind]: 1 demand, 2 returns


KIND_NAMES: Final = (
    "reserved", "shipped", "released", "received", "returned", "adjusted", "transfer_shipped", "transfer_received",
    "allocated", "deallocated", "picked", "quarantined", "cleared", "scrapped", "transfer_lost",
)  # fmt: skip
QUALIFIERS: Final = ("on_hand", "reserved", "allocated", "quarantined")
RESERVED, SHIPPED, RELEASED, RECEIVED, RETURNED, ADJUSTED, TRANSFER_SHIPPED, TRANSFER_RECEIVED = range(8)
ALLOCATED, DEALLOCATED, PICKED, QUARANTINED, CLEARED, SCRAPPED, TRANSFER_LOST = range(8, 15)


def _word(text: str, begin: int = 0) -> int:
    """Eight characters as `field_word` reads them."""
    return int.from_bytes(text[begin : begin + 8].encode(), "little")


_KIND_LENGTHS: Final = np.array([len(name) for name in KIND_NAMES], np.int64)
_KIND_WORDS: Final = np.array([_word(name) for name in KIND_NAMES], np.int64)
_KIND_SECOND_WORDS: Final = np.array([_word(name, 8) for name in KIND_NAMES], np.int64)
_QUALIFIER_WORDS: Final = np.array([_word(name) for name in QUALIFIERS], np.int64)
_QUALIFIER_LENGTHS: Final = np.array([len(name) for name in QUALIFIERS], np.int64)
_QUALIFIER_SECOND_WORDS: Final = np.array([_word(name, 8) for name in QUALIFIERS], np.int64)

# Where `scan` writes what it has read: begins and ends of texts, then numbers
ID, SOURCE, SKU, LOCATION, DESTINATION, ORDER, DOCUMENT, CORRELATION, TRANSFER = range(9)
REASON, ORDER_LINE, LINE = range(9, 12)
TEXTS: Final = 12
KIND, QUANTITY, TIME_MS, FROM, TO, REVERSAL = range(6)
NUMBERS: Final = 6
ABSENT: Final = -1

NAME_ID, NAME_TO, NAME_SKU = _word("id"), _word("to"), _word("sku")
NAME_KIND, NAME_TIME, NAME_FROM, NAME_LINE = _word("kind"), _word("time"), _word("from"), _word("line")
NAME_ORDER, NAME_SOURCE, NAME_REASON = _word("order"), _word("source"), _word("reason")
NAME_LOCATION, NAME_QUANTITY, NAME_DOCUMENT = _word("location"), _word("quantity"), _word("document")
NAME_REVERSAL, NAME_TRANSFER = _word("reversal"), _word("transfer")
NAME_ORDER_LINE, NAME_ORDER_LINE_2 = _word("order_line"), _word("order_line", 8)
NAME_DESTINATION, NAME_DESTINATION_2 = _word("destination"), _word("destination", 8)
NAME_CORRELATION, NAME_CORRELATION_2 = _word("correlation"), _word("correlation", 8)

PLAIN_BYTES_MAX: Final = 2048
PLAIN_TEXT_MAX: Final = 128  # bytes; longer texts may be right, too
UNITS_MAX: Final = 2**31
DIGITS_MAX: Final = 10
QUOTE, BACKSLASH, COMMA, COLON, OPENED, CLOSED, BLANK = 0x22, 0x5C, 0x2C, 0x3A, 0x7B, 0x7D, 0x20
EACH_BYTE, HIGH_BITS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
ZERO, NINE, MINUS, POINT, DELETE, AT = 0x30, 0x39, 0x2D, 0x2E, 0x7F, 0x40
HOUR_MS: Final = 3_600_000


@compiled
def zero_bytes(word: np.uint64) -> np.uint64:
    """The highest bit of each byte that is 0; above the lowest such byte also of some that are not.

    Sean Eron Anderson, Bit Twiddling Hacks: determine if a word has a zero byte.
    """
    return (word - EACH_BYTE) & ~word & HIGH_BITS


@compiled
def stops_in(word: np.uint64) -> np.uint64:
    """The highest bit of each byte at which a string may end or is not plain; only the lowest is certain."""
    controls = (word - EACH_BYTE * np.uint64(BLANK)) & ~word
    specials = zero_bytes(word ^ EACH_BYTE * np.uint64(QUOTE)) | zero_bytes(word ^ EACH_BYTE * np.uint64(BACKSLASH))
    return (controls | specials | zero_bytes(word ^ EACH_BYTE * np.uint64(DELETE)) | word) & HIGH_BITS


@compiled
def text_end(text: Bytes, begin: int, end: int) -> int:
    """Where the string that begins behind its quote ends; ABSENT where it is long, escaped or not plain ASCII."""
    at, stop = begin, min(end, begin + PLAIN_TEXT_MAX + 1)
    while at + 8 <= stop:
        ends = stops_in(word_at(text, at))
        if ends != 0:
            at += zeros_below(ends) >> 3
            return at if text[at] == QUOTE else ABSENT
        at += 8
    while at < stop:
        character = text[at]
        if character == QUOTE:
            return at
        if character < BLANK or character >= DELETE or character == BACKSLASH:
            return ABSENT
        at += 1
    return ABSENT


@compiled
def text_place(length: int, word: int, second: int) -> int:
    """Which of the texts a field of this name is; ABSENT where it is none of those that may be met here."""
    if length == 2:
        return ID if word == NAME_ID else ABSENT
    if length == 3:
        return SKU if word == NAME_SKU else ABSENT
    if length == 4:
        return LINE if word == NAME_LINE else ABSENT
    if length == 5:
        return ORDER if word == NAME_ORDER else ABSENT
    if length == 6:
        if word == NAME_SOURCE:
            return SOURCE
        return REASON if word == NAME_REASON else ABSENT
    if length == 8:
        if word == NAME_LOCATION:
            return LOCATION
        if word == NAME_DOCUMENT:
            return DOCUMENT
        return TRANSFER if word == NAME_TRANSFER else ABSENT
    if length == 10:
        return ORDER_LINE if word == NAME_ORDER_LINE and second == NAME_ORDER_LINE_2 else ABSENT
    if length == 11:
        if word == NAME_DESTINATION and second == NAME_DESTINATION_2:
            return DESTINATION
        return CORRELATION if word == NAME_CORRELATION and second == NAME_CORRELATION_2 else ABSENT
    return ABSENT


@compiled
def kind_at(text: Bytes, begin: int, end: int) -> int:
    """Which of KIND_NAMES, or ABSENT."""
    length, word, second = end - begin, field_word(text, begin, end), field_word(text, begin + 8, end)
    for kind in range(len(_KIND_LENGTHS)):
        if _KIND_WORDS[kind] == word and _KIND_LENGTHS[kind] == length and _KIND_SECOND_WORDS[kind] == second:
            return kind if length <= 16 or text[begin + 16] == 0x64 else ABSENT  # transfer_receive·d
    return ABSENT


@compiled
def qualifier_at(text: Bytes, begin: int, end: int) -> int:
    """Which of QUALIFIERS, or ABSENT."""
    length, word, second = end - begin, field_word(text, begin, end), field_word(text, begin + 8, end)
    for place in range(len(_QUALIFIER_WORDS)):
        if (
            _QUALIFIER_WORDS[place] == word
            and _QUALIFIER_LENGTHS[place] == length
            and _QUALIFIER_SECOND_WORDS[place] == second
        ):
            return place
    return ABSENT


@compiled
def digits_at(text: Bytes, begin: int, end: int) -> int:
    """The number that text[begin:end] is, all of it digits; ABSENT where it is not."""
    value = 0
    for at in range(begin, end):
        character = text[at]
        if character < ZERO or character > NINE:
            return ABSENT
        value = 10 * value + np.int64(character) - ZERO
    return value


@compiled
def days_before(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 (Howard Hinnant, chrono-compatible low-level date algorithms: days_from_civil)."""
    if month <= 2:
        year -= 1
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


@compiled
def days_of_month(year: int, month: int) -> int:
    """28 to 31."""
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


@compiled
def time_at(text: Bytes, begin: int, end: int) -> int:
    """Milliseconds since 1970 of 2026-11-21T09:00:00Z, with up to 9 digits of a second; ABSENT of anything else."""
    length = end - begin
    if length < 20 or length > 30 or length == 21 or text[end - 1] != 0x5A:
        return ABSENT
    if text[begin + 4] != MINUS or text[begin + 7] != MINUS or text[begin + 10] != 0x54:
        return ABSENT
    if text[begin + 13] != COLON or text[begin + 16] != COLON:
        return ABSENT
    year, month = digits_at(text, begin, begin + 4), digits_at(text, begin + 5, begin + 7)
    day, hour = digits_at(text, begin + 8, begin + 10), digits_at(text, begin + 11, begin + 13)
    minute, second = digits_at(text, begin + 14, begin + 16), digits_at(text, begin + 17, begin + 19)
    if year < 1970 or month < 1 or month > 12 or day < 1 or hour < 0 or hour > 23:
        return ABSENT
    if day > days_of_month(year, month) or minute < 0 or minute > 59 or second < 0 or second > 59:
        return ABSENT
    milliseconds = 0
    if length > 20:
        if text[begin + 19] != POINT or digits_at(text, begin + 20, end - 1) == ABSENT:
            return ABSENT
        scale = 100
        for at in range(begin + 20, min(begin + 23, end - 1)):
            milliseconds += (np.int64(text[at]) - ZERO) * scale
            scale //= 10
    return ((days_before(year, month, day) * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + milliseconds


@compiled
def scan(text: Bytes, begin: int, end: int, texts: Ints, numbers: Ints) -> bool:
    """Reads a plain movement in text[begin:end]; False where it is none, or is written in an unusual way.

    Everything that is accepted here `schemas.movements.decode` accepts, with the same values.
    """
    if end - begin > PLAIN_BYTES_MAX or end - begin < 2 or text[begin] != OPENED or text[end - 1] != CLOSED:
        return False
    texts[:] = ABSENT
    numbers[:] = ABSENT
    at, last = begin + 1, end - 1
    while True:
        while at < last and text[at] == BLANK:
            at += 1
        if at >= last or text[at] != QUOTE:
            return False
        first = at + 1
        stop = text_end(text, first, last)
        if stop == ABSENT:
            return False
        length, word = stop - first, field_word(text, first, stop)
        second = field_word(text, first + 8, stop) if length > 8 else 0
        at = stop + 1
        while at < last and text[at] == BLANK:
            at += 1
        if at >= last or text[at] != COLON:
            return False
        at += 1
        while at < last and text[at] == BLANK:
            at += 1
        if at >= last:
            return False
        if text[at] == QUOTE:
            first = at + 1
            stop = text_end(text, first, last)
            if stop == ABSENT or not _take_text(text, first, stop, length, word, second, texts, numbers):
                return False
            at = stop + 1
        elif length == 8 and word == NAME_QUANTITY:
            at = _take_quantity(text, at, last, numbers)
            if at == ABSENT:
                return False
        elif length == 8 and word == NAME_REVERSAL and numbers[REVERSAL] == ABSENT:
            if last - at >= 4 and field_word(text, at, at + 4) == TRUE_WORD:
                numbers[REVERSAL] = 1
                at += 4
            elif last - at >= 5 and field_word(text, at, at + 5) == FALSE_WORD:
                numbers[REVERSAL] = 0
                at += 5
            else:
                return False
        else:
            return False
        while at < last and text[at] == BLANK:
            at += 1
        if at == last:
            return _is_whole(text, texts, numbers)
        if text[at] != COMMA:
            return False
        at += 1


TRUE_WORD, FALSE_WORD = _word("true"), _word("false")


@compiled
def _take_text(
    text: Bytes, first: int, stop: int, length: int, word: int, second: int, texts: Ints, numbers: Ints
) -> bool:
    """Notes the value text[first:stop] of a field; False where it is met twice, or not of a plain movement."""
    if length == 4 and word == NAME_KIND:
        if numbers[KIND] != ABSENT:
            return False
        numbers[KIND] = kind_at(text, first, stop)
        return numbers[KIND] != ABSENT
    if length == 4 and word == NAME_TIME:
        if numbers[TIME_MS] != ABSENT:
            return False
        numbers[TIME_MS] = time_at(text, first, stop)
        return numbers[TIME_MS] != ABSENT
    if (length == 4 and word == NAME_FROM) or (length == 2 and word == NAME_TO):
        place = FROM if length == 4 else TO
        if numbers[place] != ABSENT:
            return False
        numbers[place] = qualifier_at(text, first, stop)
        return numbers[place] != ABSENT
    place = text_place(length, word, second)
    if place == ABSENT or texts[2 * place] != ABSENT or first == stop:
        return False
    texts[2 * place], texts[2 * place + 1] = first, stop
    return True


@compiled
def _take_quantity(text: Bytes, at: int, last: int, numbers: Ints) -> int:
    """Notes a whole number and returns where it ends; ABSENT where there is none, or it is told twice."""
    if numbers[QUANTITY] != ABSENT:
        return ABSENT
    negative = text[at] == MINUS
    if negative:
        at += 1
    first = at
    while at < last and ZERO <= text[at] <= NINE:
        at += 1
    if at == first or at - first > DIGITS_MAX or text[first] == ZERO:
        return ABSENT
    units = digits_at(text, first, at)
    if units > UNITS_MAX:
        return ABSENT
    # −1 is ABSENT, so numbers are kept doubled: an even number is one
    numbers[QUANTITY] = -2 * units if negative else 2 * units
    return at


@compiled
def _is_whole(text: Bytes, texts: Ints, numbers: Ints) -> bool:
    """Whether all is there that such a movement needs, and nothing that means something else."""
    kind = numbers[KIND]
    if kind == ABSENT or numbers[TIME_MS] == ABSENT or numbers[QUANTITY] == ABSENT:
        return False
    if texts[2 * ID] == ABSENT or texts[2 * SOURCE] == ABSENT or texts[2 * SKU] == ABSENT:
        return False
    if texts[2 * LOCATION] == ABSENT or text[texts[2 * SKU]] == AT or text[texts[2 * LOCATION]] == AT:
        return False
    numbers[QUANTITY] //= 2
    if kind == ADJUSTED:
        if texts[2 * REASON] == ABSENT:
            return False
    elif numbers[QUANTITY] < 0:
        return False
    if kind == TRANSFER_SHIPPED:
        if texts[2 * DESTINATION] == ABSENT or text[texts[2 * DESTINATION]] == AT:
            return False
    elif texts[2 * DESTINATION] != ABSENT:
        return False
    return True


# The loop


class Messages(NamedTuple):
    """Messages of one origin, in its order: texts in one piece each, with their ends behind a first 0."""

    payloads: Bytes
    payload_ends: Ints
    keys: Bytes
    key_ends: Ints
    offsets: Ints
    timestamps: Ints


class NameTable(NamedTuple):
    """Names by row: an open-addressed table of row + 1, and the texts in one piece with their ends."""

    slots: Ints32
    texts: Bytes
    ends: Ints


class PairTable(NamedTuple):
    """A table of pairs and the chains of their owners, as Columns' `Pairs` has them."""

    slots: Ints32
    nexts: Ints32
    firsts: Ints32
    lasts: Ints32


class WindowColumns(NamedTuple):
    """Units by hour and day, as `Windows` has them; `rows` by position: row + 1, rows of both grids in `columns`."""

    rows: Ints32
    columns: Records
    hours: Ints32
    days: Ints32


class FactColumns(NamedTuple):
    """The last facts of each SKU, as `LastFacts` has them: rings of slots in `texts`."""

    texts: Bytes
    rings: Records  # by SKU
    waste: Ints  # one number: bytes of slots in which no fact stands any more


class IdColumns(NamedTuple):
    """Ids applied lately, as `RecentIds` has them, and an open-addressed table that finds them."""

    table: Records
    slots: Slots


class RuleColumns(NamedTuple):
    """What holds for the SKUs of a class: its channels from `begins` to `begins` of the next one, and its places."""

    begins: Ints
    channels: Records
    draws: Ints8  # [channel's place, location]
    places: Ints  # [class, location, one of PLACE_SAFETY, PLACE_LOW and PLACE_PLANNED]; NO_LEVEL: no level
    planned: Ints8  # [class]: 1 where purchases are proposed anywhere


class Home(NamedTuple):
    """What holds in one partition besides the rules of SKUs: who may say what, and how much locations are believed."""

    everybody: int  # 1: whoever says whatever is heard
    names: NameTable  # of sources
    kinds: Ints  # [source]: bit k: it may say KIND_NAMES[k]
    noted: Ints8  # [source]: 1 where it is noted which kinds were heard of it
    places: Ints8  # [source, location]: 1 where it may speak of that
    trusts: Ints  # [location], in percent


class Lane(NamedTuple):
    """All tables of a lane."""

    sku_names: NameTable
    location_names: NameTable
    skus: Records
    positions: Records
    position_pairs: PairTable
    entries: Records
    ids: IdColumns
    demand: WindowColumns
    returns: WindowColumns
    standings: Records
    standing_pairs: PairTable
    facts: FactColumns
    heard: Records
    heard_pairs: PairTable
    reorders: Records  # by position, some of the first ones
    rules: RuleColumns
    sizes: Ints  # how many rows each growing thing has, and how many it may have


class Moment(NamedTuple):
    """What does not change during a call: the origin's row, its clock and its rules' generation, and the bounds."""

    origin: int
    clock_ms: int
    generation: int
    dedupe_ms: int
    as_of_ms: int
    ids_per_sku_max: int
    history_max: int
    call: int


class Told(NamedTuple):
    """What a call leaves to be told: SKUs by their first touch, crossings by their message, with its texts."""

    touched: Ints32
    crossings: Records
    texts: Ints  # begins and ends, 2 × TEXTS for each crossing


class Work(NamedTuple):
    """What calls need besides messages and a lane: the plan, and memory to write into."""

    plan: Plan
    told: Told
    counts: Ints
    texts: Ints
    numbers: Ints
    buffer: Bytes
    moment: Ints  # of a Moment


# Sizes: how many rows each growing thing has, and in the second half how many it may have
SIZE_POSITIONS, SIZE_ENTRIES, SIZE_IDS, SIZE_STANDINGS, SIZE_FACTS, SIZE_HEARD = range(6)
SIZE_DEMAND, SIZE_RETURNS = 6, 9  # of windows three each: of positions, of rows of hours and of days
OF_HOURS, OF_DAYS = 1, 2
SIZES: Final = 12
# Counts of a call
APPLIED, DUPLICATES, TOUCHED, CROSSED, LAST_OFFSET, PLACE = range(6)
COUNTS: Final = 6
# Why a call ends
DONE, ROW_BY_ROW, NO_ROOM, NEW_SKU, NEW_LOCATION, NEW_DESTINATION, FULL, PLAN = range(8)

NO_CAP: Final = -1
PLACE_SAFETY, PLACE_LOW, PLACE_PLANNED = range(3)
EVERYBODY: Final = -2  # in place of a source: it does not matter who
NO_LEVEL: Final = -(2**62)
OUT, LOW, IN_STOCK = range(3)
ID_SHIFT: Final = np.uint64(20)  # of an id's hash, above them the slot; its tag stands in the upper half
IN_TRANSIT: Final = 5
MOVED_MAX: Final = 8  # entries of the history that one movement makes
# Of an entry's stamp: above these bits stands its time, in them an index of QUANTITIES, and whether it is a count
STAMP_BITS: Final = 8
STAMP_QUANTITY: Final = 0x3F
STAMP_COUNT: Final = 0x40
HOURS: Final = 24
DAYS: Final = 29
STOCK_DAYS_MASK: Final = (1 << DAYS) - 1
KEPT: Final = 8  # facts of a SKU
FACT_HEAD_BYTES: Final = 24
PACKED: Final = 255  # a kind of its own: what follows the head is msgpack
WORD_BYTES: Final = 8
FACT_BYTES_MAX: Final = 4 * PLAIN_TEXT_MAX + FACT_HEAD_BYTES + WORD_BYTES  # with what may be written behind it
FACT_LOCATIONS_MAX: Final = 2**16  # rows of locations that a head has room for
NEXT_MASK: Final = np.uint64(0xFFFFFFFF)
WORDS_MASK: Final = np.uint64(0xFFFF)
FACT_MASK: Final = np.uint64(2**48 - 1)  # of next and words
SPARE_WORDS: Final = 2  # a fact may leave a share of a slot unused, one word in so many
TIME_MASK: Final = np.uint64(2**48 - 1)
KIND_AT, DIRECTION_AT, FACT_NUMBER_AT = 6, 7, 8  # bytes of a fact's head
NEGATIVE: Final = 4  # beside a fact's direction
INT32_MAX: Final = 2**31 - 1
CROSSED_AT_ONCE_MAX: Final = 1024  # by one movement
DEMAND, RETURNS = 1, 2
# Memory is asked for before it is needed, so many messages, SKUs or rows ahead: most of it lies apart, in no cache
COLUMNS_AHEAD, FAR_AHEAD, WELL_AHEAD, AHEAD, CLOSE_AHEAD = 32, 20, 14, 9, 4
ROWS_AHEAD: Final = 16
LINE_BYTES: Final = 64
STANDINGS_USUAL, POSITIONS_USUAL = 2, 4  # of a SKU


@compiled
def available_of(positions: Records, row: int) -> int:
    """What is there and free now."""
    held = positions[row]
    return held.on_hand - max(0, held.reserved) - max(0, held.allocated) - max(0, held.quarantined)


@compiled
def _add(positions: Records, row: int, quantity: int, amount: int) -> None:
    """Adds to one of QUANTITIES."""
    if quantity == 0:
        positions[row].on_hand += amount
    elif quantity == 1:
        positions[row].reserved += amount
    elif quantity == 2:
        positions[row].allocated += amount
    elif quantity == 3:
        positions[row].picked += amount
    elif quantity == 4:
        positions[row].quarantined += amount
    elif quantity == 5:
        positions[row].in_transit += amount
    else:
        positions[row].incoming += amount


@compiled
def _position_of(positions: Records, pairs: PairTable, sku: int, location: int) -> int:
    """The row of the position, ABSENT where there is none: by the chain, all of which is looked at anyway."""
    next_ = pairs.firsts[sku]
    while next_ != 0 and positions[next_ - 1].location != location:
        next_ = pairs.nexts[next_ - 1]
    return next_ - 1


@compiled
def _reach(positions: Records, pairs: PairTable, sizes: Ints, row: int, sku: int, location: int, time_ms: int) -> int:
    """The row of the position, which is made where it is ABSENT."""
    if row == ABSENT:
        slot = find_pair(pairs.slots, positions["sku"], positions["location"], sku, location)
        row = sizes[SIZE_POSITIONS]
        sizes[SIZE_POSITIONS] = row + 1
        positions[row].sku = sku
        positions[row].location = location
        _link(pairs, slot, sku, row)
    if positions[row].newest_ms == 0 and positions[row].stock_day == 0:
        positions[row].stock_day = time_ms // DAY_MS
    positions[row].newest_ms = max(positions[row].newest_ms, time_ms)
    return row


@compiled
def _link(pairs: PairTable, slot: int, owner: int, row: int) -> None:
    """Enters a new row of `owner` at its slot, and behind the owner's last one."""
    pairs.slots[slot] = row + 1
    last = pairs.lasts[owner]
    if last != 0:
        pairs.nexts[last - 1] = row + 1
    else:
        pairs.firsts[owner] = row + 1
    pairs.lasts[owner] = row + 1


@compiled
def _change(
    positions: Records, entries: Records, sizes: Ints, row: int, quantity: int, time_ms: int, amount: int, as_of_ms: int
) -> None:
    """A quantity changed by `amount`, after whatever was counted of the position."""
    _add(positions, row, quantity, amount)
    if time_ms < max(positions[row].newest_ms - as_of_ms, positions[row].floor_ms):
        return
    entry = sizes[SIZE_ENTRIES]
    sizes[SIZE_ENTRIES] = entry + 1
    entries[entry].position = row
    entries[entry].stamp = time_ms << STAMP_BITS | quantity
    entries[entry].amount = amount
    entries[entry].previous = positions[row].entry
    positions[row].entry = entry + 1
    positions[row].entries += 1


@compiled
def _note_stock(positions: Records, row: int, time_ms: int, before: int) -> None:
    """Remembers on which days something was available; `before` was, until now."""
    later = time_ms // DAY_MS - positions[row].stock_day
    if later > 0:
        known = np.int64(positions[row].stock_days)
        kept = known << later if later < DAYS else 0
        filled = (1 << min(later, DAYS)) - 1 if before > 0 else 0
        positions[row].stock_days = (kept | filled) & STOCK_DAYS_MASK
        positions[row].stock_day += later
    if available_of(positions, row) > 0:
        positions[row].stock_days |= 1


@compiled
def _put_units(
    cells: Ints32, sizes: Ints, size: int, row: int, last: int, alone: int, at: int, units: int, width: int
) -> tuple[int, int, int]:
    """Adds to the span of `at`; a newer one pushes out what is too old.

    Returns row + 1 in `cells`, or 0, the latest span that has any, and without a row what it has.
    """
    if at <= last - width:
        return row, last, alone
    if row == 0:
        if at == last:
            return row, last, alone + units
        if at >= last + width:
            return row, at, units
        row = sizes[size] + 1
        sizes[size] = row
        cells[(row - 1) * width + last % width] = alone
    begin = (row - 1) * width
    for gone in range(last + 1, min(at, last + width) + 1):
        cells[begin + gone % width] = 0
    cells[begin + at % width] += units
    return row, max(at, last), np.int64(0)


@compiled
def _count_units(windows: WindowColumns, sizes: Ints, size: int, position: int, time_ms: int, units: int) -> None:
    """`units` moved at `time_ms`."""
    hour, day = time_ms // HOUR_MS, time_ms // DAY_MS
    columns, row = windows.columns, windows.rows[position] - 1
    if row < 0:
        row = sizes[size]
        sizes[size] = row + 1
        windows.rows[position] = row + 1
        columns[row].position = position
        columns[row].hour = hour
        columns[row].day = day
    window = columns[row]
    if day != window.day:
        window.edits += 1
    window.hour_row, window.hour, window.hour_units = _put_units(
        windows.hours, sizes, size + OF_HOURS, window.hour_row, window.hour, window.hour_units, hour, units, HOURS
    )
    window.day_row, window.day, window.day_units = _put_units(
        windows.days, sizes, size + OF_DAYS, window.day_row, window.day, window.day_units, day, units, DAYS
    )


@compiled
def _units_at(cells: Ints32, row: int, last: int, alone: int, at: int, width: int) -> int:
    """Units of a span that lies in the window."""
    if row != 0:
        return np.int64(cells[(row - 1) * width + at % width])
    return alone if at == last else 0


@compiled
def _units_of_day(windows: WindowColumns, row: int, day: int) -> int:
    """Units of a day that lies in the window."""
    window = windows.columns[row]
    return _units_at(windows.days, window.day_row, window.day, window.day_units, day, DAYS)


@compiled
def _fits(windows: WindowColumns, position: int, time_ms: int, units: int) -> bool:
    """Whether the two cells that `units` go into, and those that may have to go into a row, stay within 32 bits."""
    row = windows.rows[position] - 1
    if row < 0:
        return units <= INT32_MAX
    window, hour, day = windows.columns[row], time_ms // HOUR_MS, time_ms // DAY_MS
    of_hour = _units_at(windows.hours, window.hour_row, hour, window.hour_units, hour, HOURS)
    of_day = _units_at(windows.days, window.day_row, day, window.day_units, day, DAYS)
    return abs(of_hour) + units <= INT32_MAX and abs(of_day) + units <= INT32_MAX


@compiled
def _fact_words(texts: Bytes, begin: int) -> int:
    """How many words the slot has that begins at the word `begin`."""
    return np.int64(word_at(texts, WORD_BYTES * begin) >> HALF & WORDS_MASK)


@compiled
def _next_fact(texts: Bytes, begin: int) -> int:
    """The slot behind this one in its ring, both by their first word."""
    return np.int64(word_at(texts, WORD_BYTES * begin) & NEXT_MASK)


@compiled
def _link_fact(texts: Bytes, begin: int, next_: int, words: int) -> None:
    """Writes the first word of a slot but for what its fact is."""
    put_word(texts, WORD_BYTES * begin, np.uint64(next_) | np.uint64(words) << HALF)


@compiled
def _link_on(texts: Bytes, begin: int, next_: int) -> None:
    """Lets another slot follow this one in its ring."""
    head = word_at(texts, WORD_BYTES * begin)
    put_word(texts, WORD_BYTES * begin, head & ~NEXT_MASK | np.uint64(next_))


@compiled
def _slot_in(facts: FactColumns, sizes: Ints, oldest: int, newest: int, kept: int, bytes_: int) -> tuple[int, int, int]:
    """A slot for the newest fact of a ring, which has `kept` of them: begin, the oldest one's, and how many it has now.

    In a full ring it is that of the oldest fact, if the new one fits and leaves little of it over. All slots are meant
    by their first words.
    """
    texts, words = facts.texts, (bytes_ + WORD_BYTES - 1) // WORD_BYTES
    begin, after = sizes[SIZE_FACTS] // WORD_BYTES, oldest
    if kept == KEPT:
        after, known = _next_fact(texts, oldest), _fact_words(texts, oldest)
        if words <= known <= words + words // SPARE_WORDS:
            return oldest, after, kept
        facts.waste[0] += WORD_BYTES * known
    sizes[SIZE_FACTS] += WORD_BYTES * words
    if kept == 0:
        after = begin
    else:
        _link_on(texts, newest, begin)
    _link_fact(texts, begin, after, words)
    return begin, after, min(kept + 1, KEPT)


@compiled
def _slot_of(facts: FactColumns, sizes: Ints, sku: int, bytes_: int) -> int:
    """Where the SKU's newest plain fact begins, of so many bytes with its head."""
    ring = facts.rings[sku]
    oldest: int = np.int64(ring.oldest)
    newest: int = np.int64(ring.newest)
    begin, ring.oldest, ring.kept = _slot_in(facts, sizes, oldest, newest, ring.kept, bytes_)
    ring.newest = begin
    ring.count += 1
    return WORD_BYTES * begin


@compiled
def _slot_of_other(facts: FactColumns, sizes: Ints, sku: int, bytes_: int) -> int:
    """Where the SKU's newest fact that is not plain begins, of so many bytes with its head."""
    ring = facts.rings[sku]
    newest: int = np.int64(ring.newest_other)
    oldest: int = np.int64(0)
    if ring.kept_others != 0:
        oldest = _next_fact(facts.texts, newest)
    begin, _, ring.kept_others = _slot_in(facts, sizes, oldest, newest, ring.kept_others, bytes_)
    ring.newest_other = begin
    return WORD_BYTES * begin


@entered
def slot_of(facts: Held[FactColumns], sizes: Ints, sku: int, is_plain: int, bytes_: int) -> int:
    """Where the SKU's newest fact begins among those of its kind, of so many bytes with its head."""
    if is_plain != 0:
        return _slot_of(facts.value, sizes, sku, bytes_)
    return _slot_of_other(facts.value, sizes, sku, bytes_)


@compiled
def _length(texts: Ints, of: int) -> int:
    """The bytes of a text of the message, 0 where it is ABSENT."""
    return texts[2 * of + 1] - texts[2 * of] if texts[2 * of] != ABSENT else np.int64(0)


@compiled
def _note_fact(
    facts: FactColumns, sizes: Ints, sku: int, text: Bytes, texts: Ints, numbers: Ints, location: int, direction: int
) -> None:
    """Notes the fact as the SKU's last plain one; the layout is that of `LastFacts`."""
    source, id_, order, document = (
        _length(texts, SOURCE), _length(texts, ID), _length(texts, ORDER), _length(texts, DOCUMENT)
    )  # fmt: skip
    begin = _slot_of(facts, sizes, sku, FACT_HEAD_BYTES + source + id_ + order + document)
    out, quantity = facts.texts, numbers[QUANTITY]
    out[begin + KIND_AT] = numbers[KIND]
    out[begin + DIRECTION_AT] = direction + 1 + (NEGATIVE if quantity < 0 else 0)
    lengths = np.uint64(source) << np.uint64(48) | np.uint64(id_) << np.uint64(56)
    put_word(out, begin + 8, np.uint64(numbers[TIME_MS]) & TIME_MASK | lengths)
    head = np.uint64(order) | np.uint64(document) << np.uint64(8) | np.uint64(location) << np.uint64(16)
    put_word(out, begin + 16, head | np.uint64(abs(quantity)) << HALF)
    at = begin + FACT_HEAD_BYTES
    end = at + source + id_ + order + document
    behind = word_at(out, end)  # texts are written by whole words, and another fact may stand there
    at = put_text(out, at, text, texts[2 * SOURCE], texts[2 * SOURCE] + source)
    at = put_text(out, at, text, texts[2 * ID], texts[2 * ID] + id_)
    at = put_text(out, at, text, texts[2 * ORDER], texts[2 * ORDER] + order)
    put_text(out, at, text, texts[2 * DOCUMENT], texts[2 * DOCUMENT] + document)
    put_word(out, end, behind)


@compiled
def _level_after(units: int, low_stock_at: int, recovered_at: int, recovered: bool) -> tuple[int, bool]:
    """The level, and whether it has recovered: as `levels.standing_after`."""
    if units <= low_stock_at:
        recovered = False
    elif units >= recovered_at:
        recovered = True
    if units <= 0:
        return OUT, recovered
    return (IN_STOCK if recovered else LOW), recovered


@compiled
def _tell(
    told: Told, counts: Ints, message: int, texts: Ints, time_ms: int, sku: int, row: int, before: int, after: int,
    units: int, initial: bool, low_stock_at: int, recovered_at: int,
) -> None:  # fmt: skip
    """Tells a change of level."""
    place = counts[CROSSED]
    counts[CROSSED] = place + 1
    crossing = told.crossings[place]
    crossing.message, crossing.time_ms, crossing.sku, crossing.row = message, time_ms, sku, row
    crossing.before, crossing.after, crossing.units, crossing.initial = before, after, units, initial
    threshold = 0
    if after == IN_STOCK:
        threshold = recovered_at
    elif before == IN_STOCK and after == LOW:
        threshold = low_stock_at
    crossing.threshold = threshold
    begin = place * 2 * TEXTS
    for text in range(2 * TEXTS):
        told.texts[begin + text] = texts[text]


@compiled
def _standing_of(standings: Records, slots: Ints32, rows: int, sku: int, channel: int, guess: int) -> int:
    """The row of the standing, of `rows`, ABSENT where there is none; those of a SKU mostly stand in a row.

    So `guess`, a row or ABSENT, is where to look first.
    """
    if 0 <= guess < rows:
        guessed = standings[guess]
        if guessed.sku == sku and guessed.channel == channel:
            return guess
    return slots[find_pair(slots, standings["sku"], standings["channel"], sku, channel)] - 1


@compiled
def _standing(standings: Records, pairs: PairTable, sizes: Ints, sku: int, channel: int, guess: int) -> int:
    """The row of the standing, made where it is new."""
    row = _standing_of(standings, pairs.slots, sizes[SIZE_STANDINGS], sku, channel, guess)
    if row == ABSENT:
        slot = find_pair(pairs.slots, standings["sku"], standings["channel"], sku, channel)
        row = sizes[SIZE_STANDINGS]
        sizes[SIZE_STANDINGS] = row + 1
        standings[row].sku = sku
        standings[row].channel = channel
        _link(pairs, slot, sku, row)
    return row


@compiled
def _offer(
    positions: Records, pairs: PairTable, rules: RuleColumns, trusts: Ints, class_: int, place: int, sku: int
) -> tuple[int, int]:
    """What the channel at `place` may sell and promise of `sku`, which owes nothing: as `sellable.offer_of`."""
    rule, units, shortfall = rules.channels[place], 0, 0
    if rule.sell == 0 or rule.commitment_only != 0:
        return 0, 0
    next_ = pairs.firsts[sku]
    while next_ != 0:
        location = positions[next_ - 1].location
        if rules.draws[place, location] != 0:
            available = available_of(positions, next_ - 1)
            if available > 0:
                available = available * trusts[location] // 100
            units += max(0, available - rules.places[class_, location, PLACE_SAFETY])
            shortfall += max(0, -available)
        next_ = pairs.nexts[next_ - 1]
    safety = max(rule.safety_units, -(-units * rule.safety_percent // 100))
    sellable = max(0, units * rule.share_percent // 100 - safety)
    promised = sellable + max(0, rule.backorder_units - shortfall)
    if rule.cap_units != NO_CAP:
        promised = min(promised, rule.cap_units)
    return sellable, promised


@compiled
def _stand(
    positions: Records, position_pairs: PairTable, standings: Records, pairs: PairTable, rules: RuleColumns,
    trusts: Ints, sizes: Ints, told: Told, counts: Ints, message: int, texts: Ints, time_ms: int, sku: int, class_: int,
) -> None:  # fmt: skip
    """Works out what every channel may sell of `sku` now, and tells the levels that changed."""
    row = pairs.firsts[sku] - 2
    for place in range(rules.begins[class_], rules.begins[class_ + 1]):
        rule = rules.channels[place]
        row = _standing(standings, pairs, sizes, sku, rule.channel, row + 1)
        standing = standings[row]
        sellable, promised = _offer(positions, position_pairs, rules, trusts, class_, place, sku)
        standing.sellable = sellable
        standing.promised = promised
        before = standing.level
        after, recovered = _level_after(sellable, rule.low_stock_at, rule.recovered_at, standing.recovered != 0)
        standing.level = after
        standing.recovered = recovered
        if after != before:
            initial = standing.crossed == 0
            standing.crossed = 1
            _tell(
                told, counts, message, texts, time_ms, sku, row, before, after, sellable, initial, rule.low_stock_at,
                rule.recovered_at,
            )  # fmt: skip


@compiled
def _stand_here(
    positions: Records, pairs: PairTable, rules: RuleColumns, told: Told, counts: Ints, message: int, texts: Ints,
    time_ms: int, sku: int, class_: int,
) -> None:  # fmt: skip
    """Tells the levels that changed of positions with a threshold."""
    next_ = pairs.firsts[sku]
    while next_ != 0:
        row = next_ - 1
        position = positions[row]
        low_stock_at = rules.places[class_, position.location, PLACE_LOW]
        if low_stock_at != NO_LEVEL:
            before, units = position.level, available_of(positions, row)
            after, recovered = _level_after(units, low_stock_at, low_stock_at + 1, position.recovered != 0)
            position.level = after
            position.recovered = recovered
            if after != before:
                initial = position.crossed == 0
                position.crossed = 1
                _tell(
                    told, counts, message, texts, time_ms, sku, -1 - row, before, after, units, initial, low_stock_at,
                    low_stock_at + 1,
                )  # fmt: skip
        next_ = pairs.nexts[row]


@compiled
def _qualifier_of(numbers: Ints, texts: Ints) -> int:
    """Which column of the plan holds; ABSENT where a field is there that the kind does not have."""
    kind = numbers[KIND]
    takes_from = kind in (SHIPPED, ALLOCATED, SCRAPPED, TRANSFER_SHIPPED)
    takes_to = kind in (DEALLOCATED, RETURNED)
    if (numbers[FROM] != ABSENT and not takes_from) or (numbers[TO] != ABSENT and not takes_to):
        return ABSENT
    if takes_from:
        return max(0, numbers[FROM])
    if takes_to:
        return max(0, numbers[TO])
    if kind == RECEIVED:
        return 1 if texts[2 * ORDER] != ABSENT else 0
    if kind in (TRANSFER_RECEIVED, TRANSFER_LOST):
        return 1 if texts[2 * TRANSFER] != ABSENT else 0
    return 0


@compiled
def _source_of(home: Home, locations: NameTable, text: Bytes, texts: Ints, kind: int) -> int:
    """The row of the message's source; ABSENT where it is not certain that it may say this, as in `admission.admit`."""
    if home.everybody != 0:
        return EVERYBODY
    slots, names, ends = home.names
    source = slots[find_name(slots, names, ends, text, texts[2 * SOURCE], texts[2 * SOURCE + 1])] - 1
    if source < 0 or home.kinds[source] >> kind & 1 == 0:
        return ABSENT
    slots, names, ends = locations
    location = slots[find_name(slots, names, ends, text, texts[2 * LOCATION], texts[2 * LOCATION + 1])] - 1
    return source if location >= 0 and home.places[source, location] != 0 else ABSENT


@compiled
def _note_kind(heard: Records, pairs: PairTable, sizes: Ints, source: int, position: int, kind: int) -> None:
    """This kind was heard of the source at the position."""
    slot = find_pair(pairs.slots, heard["source"], heard["position"], source, position)
    row = pairs.slots[slot] - 1
    if row == ABSENT:
        row = sizes[SIZE_HEARD]
        sizes[SIZE_HEARD] = row + 1
        heard[row].source = source
        heard[row].position = position
        _link(pairs, slot, source, row)
    heard[row].kinds |= 1 << kind


@compiled
def _may_be_short(
    positions: Records, pairs: PairTable, places: Ints, reorders: Records, demand: WindowColumns, sku: int,
    class_: int, day: int,
) -> bool:  # fmt: skip
    """Whether it is not certain that every planned position of `sku` is above its reorder point, as of `day`.

    No proposal is open: SKUs with one are special.
    """
    next_ = pairs.firsts[sku]
    while next_ != 0:
        row = next_ - 1
        held = positions[row]
        if places[class_, held.location, PLACE_PLANNED] != 0:
            if row >= len(reorders):
                return True
            known, available, edits, units = reorders[row], available_of(positions, row), 0, 0
            window = demand.rows[row] - 1
            if window >= 0:
                edits = demand.columns[window].edits
                newest = demand.columns[window].day
                if newest < day:
                    units = _units_of_day(demand, window, newest)
            if known.class_ != class_ + 1 or known.day != day or known.edits != edits or known.units != units:
                return True
            if known.stock_day != held.stock_day or known.stock_days != held.stock_days:
                return True
            if (known.has_stock != 0) != (available > 0):
                return True
            if available + max(0, held.incoming) + max(0, held.in_transit) <= known.reorder_at:
                return True
        next_ = pairs.nexts[row]
    return False


@compiled
def _hash_of(text: Bytes, texts: Ints, buffer: Bytes) -> np.uint64:
    """The hash of (source, id); 0 where it is for others to work out."""
    at = put_text(buffer, 0, text, texts[2 * SOURCE], texts[2 * SOURCE + 1])
    buffer[at] = 0
    at = put_text(buffer, at + 1, text, texts[2 * ID], texts[2 * ID + 1])
    if at < HASHED_BYTES_MIN or at > HASHED_BYTES_MAX:
        return np.uint64(0)
    return xxh3(buffer, at)


@compiled
def _first_slot(hash_: np.uint64, slots: Slots) -> int:
    """Where the search for an id begins."""
    return np.int64(hash_ >> ID_SHIFT) & len(slots) - 1


@compiled
def _tag_of(hash_: np.uint64, slots: Slots) -> int:
    """What a slot tells of an id's hash, in the bits above those that a row takes."""
    return np.int64(hash_ >> HALF) & ~(len(slots) - 1)


@compiled
def _find_id(ids: IdColumns, hash_: np.uint64, sku: int) -> int:
    """The slot of the id, or the free one where it would go; rows are looked at only where the tag is the same."""
    slots = ids.slots
    mask, slot, tag = len(slots) - 1, _first_slot(hash_, slots), _tag_of(hash_, slots)
    while slots[slot] != 0:
        known: int = np.int64(slots[slot])
        row = (known & mask) - 1
        if known & ~mask == tag and ids.table[row].hash == hash_ and ids.table[row].sku == sku:
            break
        slot = (slot + 1) & mask
    return slot


@compiled
def _id_row(slots: Slots, slot: int) -> int:
    """The row of the id at a slot, ABSENT where it is free."""
    return (np.int64(slots[slot]) & len(slots) - 1) - 1


@compiled
def _is_ordinary(
    positions: Records, demand: WindowColumns, returns: WindowColumns, row: int, history_max: int, time_ms: int,
    units: int, outgoing: int,
) -> bool:  # fmt: skip
    """Whether the position, if there is one, was counted before `time_ms` or never, and none of its bounds is near."""
    if row == ABSENT:
        return units <= INT32_MAX
    if time_ms <= positions[row].counted_ms or positions[row].entries + MOVED_MAX > history_max:
        return False
    if outgoing == DEMAND:
        return _fits(demand, row, time_ms, units)
    return outgoing != RETURNS or _fits(returns, row, time_ms, units)


@compiled
def _prefetch_first(messages: Messages, places: Ints32, begin: int, lane: Lane) -> None:
    """Prefetches what the first messages need, at which nobody has looked ahead."""
    count = len(places)
    for number in range(begin, min(begin + COLUMNS_AHEAD, count)):
        _prefetch_columns(messages, places[number])
    for number in range(begin, min(begin + FAR_AHEAD, count)):
        _prefetch_texts(messages, places[number])
    for number in range(begin, min(begin + WELL_AHEAD, count)):
        prefetch(lane.sku_names.slots, _slot_ahead(messages, places[number], lane.sku_names))
    for number in range(begin, min(begin + AHEAD, count)):
        _prefetch_article(messages, places[number], lane)
    for number in range(begin, min(begin + CLOSE_AHEAD, count)):
        _prefetch_rows(messages, places[number], lane)


@compiled
def _prefetch_ahead(messages: Messages, places: Ints32, number: int, lane: Lane) -> None:
    """Prefetches what messages behind this one need, the more the closer they are."""
    count = len(places)
    if number + COLUMNS_AHEAD < count:
        _prefetch_columns(messages, places[number + COLUMNS_AHEAD])
    if number + FAR_AHEAD < count:
        _prefetch_texts(messages, places[number + FAR_AHEAD])
    if number + WELL_AHEAD < count:
        prefetch(lane.sku_names.slots, _slot_ahead(messages, places[number + WELL_AHEAD], lane.sku_names))
    if number + AHEAD < count:
        _prefetch_article(messages, places[number + AHEAD], lane)
    if number + CLOSE_AHEAD < count:
        _prefetch_rows(messages, places[number + CLOSE_AHEAD], lane)


@compiled
def _prefetch_columns(messages: Messages, place: int) -> None:
    """Prefetches the numbers of a message."""
    prefetch(messages.key_ends, place)
    prefetch(messages.payload_ends, place)
    prefetch(messages.offsets, place)
    prefetch(messages.timestamps, place)


@compiled
def _prefetch_texts(messages: Messages, place: int) -> None:
    """Prefetches the texts of a message."""
    prefetch(messages.keys, messages.key_ends[place])
    for at in range(messages.payload_ends[place], messages.payload_ends[place + 1], LINE_BYTES):
        prefetch(messages.payloads, at)


@compiled
def _prefetch_article(messages: Messages, place: int, lane: Lane) -> None:
    """Prefetches what stands in the row of a message's SKU."""
    sku = lane.sku_names.slots[_slot_ahead(messages, place, lane.sku_names)] - 1
    if sku >= 0:
        _prefetch_sku(lane, sku)
        prefetch(lane.facts.rings, sku)


@compiled
def _prefetch_rows(messages: Messages, place: int, lane: Lane) -> None:
    """Prefetches positions and standings of a message's SKU."""
    sku = lane.sku_names.slots[_slot_ahead(messages, place, lane.sku_names)] - 1
    if sku >= 0:
        _prefetch_standings(lane, sku)
        _prefetch_positions(lane, sku)
        oldest = WORD_BYTES * lane.facts.rings[sku].oldest
        prefetch(lane.facts.texts, oldest)
        prefetch(lane.facts.texts, oldest + LINE_BYTES)


@compiled
def _slot_ahead(messages: Messages, place: int, names: NameTable) -> int:
    """Where the search for the SKU of a message begins."""
    return name_hash(messages.keys, messages.key_ends[place], messages.key_ends[place + 1]) & (len(names.slots) - 1)


@compiled
def _prefetch_sku(lane: Lane, sku: int) -> None:
    """Prefetches what is known of a SKU by its row."""
    prefetch(lane.sku_names.ends, sku)
    prefetch(lane.skus, sku)
    prefetch(lane.skus, sku + 1)  # a row may begin anywhere in a line
    prefetch(lane.position_pairs.firsts, sku)
    prefetch(lane.standing_pairs.firsts, sku)


@compiled
def _prefetch_standings(lane: Lane, sku: int) -> None:
    """Prefetches the first standings of a SKU, which mostly lie in a row."""
    row = lane.standing_pairs.firsts[sku] - 1
    if row >= 0:
        for next_ in range(row, row + STANDINGS_USUAL + 1):
            prefetch(lane.standings, next_)


@compiled
def _prefetch_positions(lane: Lane, sku: int) -> None:
    """Prefetches the first positions of a SKU, which mostly lie in a row, and what belongs to them."""
    row = lane.position_pairs.firsts[sku] - 1
    if row >= 0:
        for next_ in range(row, row + POSITIONS_USUAL + 1):
            prefetch(lane.positions, next_)
        prefetch(lane.position_pairs.nexts, row)
        prefetch(lane.demand.rows, row)
        prefetch(lane.returns.rows, row)


@entered
def apply_plain(
    messages: Held[Messages], places: Ints32, begin: int, lane: Held[Lane], home: Held[Home], work: Held[Work]
) -> int:
    """Applies the messages at `places`, from the one at `begin` on, until one is not plain; why it ended.

    `counts` says what was done (they are added to), and PLACE the message that it ended at, which was not touched: with
    PLAN the one behind that whose SKU may have to be bought.
    """
    return _apply_plain(messages.value, places, begin, lane.value, home.value, work.value)


@compiled
def _apply_plain(messages: Messages, places: Ints32, begin: int, lane: Lane, home: Home, work: Work) -> int:
    """As `apply_plain`."""
    plan, told, counts, texts, numbers, buffer, now = work
    moment = Moment(now[0], now[1], now[2], now[3], now[4], now[5], now[6], now[7])
    skus, text, facts, sizes, ids = lane.skus, messages.payloads, lane.facts, lane.sizes, lane.ids
    positions, position_pairs, entries = lane.positions, lane.position_pairs, lane.entries
    demand, returns = lane.demand, lane.returns
    _prefetch_first(messages, places, begin, lane)
    for number in range(begin, len(places)):
        counts[PLACE] = number
        place: int = np.int64(places[number])
        _prefetch_ahead(messages, places, number, lane)
        for size in range(SIZES):
            if sizes[size] > sizes[SIZES + size]:
                return NO_ROOM
        if counts[TOUCHED] == len(told.touched) or counts[CROSSED] + CROSSED_AT_ONCE_MAX > len(told.crossings):
            return FULL
        key_begin, key_end = messages.key_ends[place], messages.key_ends[place + 1]
        first, last = messages.payload_ends[place], messages.payload_ends[place + 1]
        if messages.offsets[place] <= counts[LAST_OFFSET] or not scan(text, first, last, texts, numbers):
            return ROW_BY_ROW
        if not same_text(text, texts[2 * SKU], texts[2 * SKU + 1], messages.keys, key_begin, key_end):
            return ROW_BY_ROW
        time_ms, kind = numbers[TIME_MS], numbers[KIND]
        timestamp_ms = messages.timestamps[place]
        qualifier = _qualifier_of(numbers, texts)
        if qualifier == ABSENT or plan.counts[kind, qualifier] < 0:
            return ROW_BY_ROW
        if timestamp_ms != NO_TIMESTAMP and time_ms > timestamp_ms + AHEAD_MS_MAX:
            return ROW_BY_ROW
        hash_ = _hash_of(text, texts, buffer)
        prefetch(ids.slots, _first_slot(hash_, ids.slots))
        source = _source_of(home, lane.location_names, text, texts, kind)
        if source == ABSENT:
            return ROW_BY_ROW
        names = lane.sku_names
        sku = names.slots[find_name(names.slots, names.texts, names.ends, messages.keys, key_begin, key_end)] - 1
        if sku < 0:
            return NEW_SKU
        article = skus[sku]
        if article.classes < 0 or article.special != 0 or article.home != moment.origin:
            return ROW_BY_ROW
        names = lane.location_names
        found = find_name(names.slots, names.texts, names.ends, text, texts[2 * LOCATION], texts[2 * LOCATION + 1])
        location, destination, there = names.slots[found] - 1, ABSENT, ABSENT
        position, outgoing = _position_of(positions, position_pairs, sku, location), plan.outgoing[kind]
        if position >= 0 and outgoing == DEMAND:
            prefetch(demand.columns, demand.rows[position] - 1)
        horizon_ms = max(article.newest_ms - moment.dedupe_ms, article.floor_ms)
        if time_ms < horizon_ms or article.ids >= moment.ids_per_sku_max:
            return ROW_BY_ROW
        if hash_ == 0:
            return ROW_BY_ROW
        id_slot = _find_id(ids, hash_, sku)
        id_row = _id_row(ids.slots, id_slot)
        if id_row >= 0 and ids.table[id_row].time_ms >= horizon_ms:
            counts[DUPLICATES] += 1
            counts[LAST_OFFSET] = messages.offsets[place]
            continue
        if location < 0:
            return NEW_LOCATION
        if location >= FACT_LOCATIONS_MAX:
            return ROW_BY_ROW
        units = -numbers[QUANTITY] if numbers[REVERSAL] == 1 else numbers[QUANTITY]
        if not _is_ordinary(positions, demand, returns, position, moment.history_max, time_ms, abs(units), outgoing):
            return ROW_BY_ROW
        if plan.destinations[kind] != 0:
            found = find_name(
                names.slots, names.texts, names.ends, text, texts[2 * DESTINATION], texts[2 * DESTINATION + 1]
            )
            destination = names.slots[found] - 1
            if destination < 0:
                return NEW_DESTINATION
            there = _position_of(positions, position_pairs, sku, destination)
            if not _is_ordinary(positions, demand, returns, there, moment.history_max, time_ms, abs(units), 0):
                return ROW_BY_ROW

        article.newest_ms = max(article.newest_ms, time_ms)
        if id_row < 0:
            id_row = sizes[SIZE_IDS]
            sizes[SIZE_IDS] = id_row + 1
            ids.slots[id_slot] = _tag_of(hash_, ids.slots) | id_row + 1
            ids.table[id_row].hash = hash_
            ids.table[id_row].sku = sku
            article.ids += 1
        ids.table[id_row].time_ms = time_ms
        counts[APPLIED] += 1
        position = _reach(positions, position_pairs, sizes, position, sku, location, time_ms)
        before, direction = available_of(positions, position), 0
        for step in range(plan.counts[kind, qualifier]):
            quantity, sign = plan.quantities[kind, qualifier, step], plan.signs[kind, qualifier, step]
            if quantity == 0:
                direction = sign if numbers[REVERSAL] != 1 else -sign
            _change(positions, entries, sizes, position, quantity, time_ms, sign * units, moment.as_of_ms)
        _note_stock(positions, position, time_ms, before)
        if outgoing == DEMAND:
            _count_units(demand, sizes, SIZE_DEMAND, position, time_ms, units)
        elif outgoing == RETURNS:
            _count_units(returns, sizes, SIZE_RETURNS, position, time_ms, units)
        if destination >= 0:
            there = position if destination == location else there
            there = _reach(positions, position_pairs, sizes, there, sku, destination, time_ms)
            before = available_of(positions, there)
            _change(positions, entries, sizes, there, IN_TRANSIT, time_ms, units, moment.as_of_ms)
            _note_stock(positions, there, time_ms, before)
        _note_fact(facts, sizes, sku, text, texts, numbers, location, direction)
        if source != EVERYBODY and home.noted[source] != 0:
            _note_kind(lane.heard, lane.heard_pairs, sizes, source, position, kind)
        class_ = article.classes
        _stand(
            positions, position_pairs, lane.standings, lane.standing_pairs, lane.rules, home.trusts, sizes, told,
            counts, place, texts, time_ms, sku, class_,
        )  # fmt: skip
        _stand_here(positions, position_pairs, lane.rules, told, counts, place, texts, time_ms, sku, class_)
        article.version = messages.offsets[place]
        article.as_of_ms = time_ms
        article.generation = moment.generation
        article.seen_ms = max(moment.clock_ms, article.newest_ms)
        if article.touched != moment.call:
            article.touched = moment.call
            told.touched[counts[TOUCHED]] = sku
            counts[TOUCHED] += 1
        counts[LAST_OFFSET] = messages.offsets[place]
        if lane.rules.planned[class_] != 0:
            day = article.seen_ms // DAY_MS
            article.evaluated_day = day
            if _may_be_short(positions, position_pairs, lane.rules.places, lane.reorders, demand, sku, class_, day):
                counts[PLACE] = number + 1
                return PLAN
    counts[PLACE] = len(places)
    return DONE


@entered
def new_skus(
    messages: Held[Messages], places: Ints32, begin: int, lane: Held[Lane], home: Held[Home], work: Held[Work],
    found: Ints,
) -> int:  # fmt: skip
    """Movements of SKUs that are not known, at `places` from the one at `begin` on; how many are written to `found`.

    Ends before the first message that is not plain: what that one means may depend on what is known of its SKU.
    """
    names, locations = lane.value.sku_names, lane.value.location_names
    return _new_skus(messages.value, places, begin, names, locations, home.value, work.value, found)


@compiled
def _new_skus(
    messages: Messages, places: Ints32, begin: int, names: NameTable, locations: NameTable, home: Home, work: Work,
    found: Ints,
) -> int:  # fmt: skip
    """As `new_skus`."""
    text = messages.payloads
    plan, texts, numbers, count = work.plan, work.texts, work.numbers, 0
    for number in range(begin, len(places)):
        place: int = np.int64(places[number])
        first, last = messages.payload_ends[place], messages.payload_ends[place + 1]
        key_begin, key_end = messages.key_ends[place], messages.key_ends[place + 1]
        if count == len(found) or not scan(text, first, last, texts, numbers):
            break
        qualifier, timestamp_ms = _qualifier_of(numbers, texts), messages.timestamps[place]
        if qualifier == ABSENT or plan.counts[numbers[KIND], qualifier] < 0:
            break
        if timestamp_ms != NO_TIMESTAMP and numbers[TIME_MS] > timestamp_ms + AHEAD_MS_MAX:
            break
        if not same_text(text, texts[2 * SKU], texts[2 * SKU + 1], messages.keys, key_begin, key_end):
            break
        if _source_of(home, locations, text, texts, numbers[KIND]) == ABSENT:
            break
        if names.slots[find_name(names.slots, names.texts, names.ends, messages.keys, key_begin, key_end)] == 0:
            found[count] = place
            count += 1
    return count


# What is told of a SKU: its hash in Redis, and its record


class Texts(NamedTuple):
    """Texts by row, in one piece, with their ends behind a first 0."""

    texts: Bytes
    ends: Ints


class Telling(NamedTuple):
    """What telling needs besides the columns: names as they are written, and what is the same for all SKUs.

    `names` are MessagePack strings, `channels` and `locations` JSON strings, all whole; `channel_ids` and
    `location_ids` are what the ids of crossings hold of them.
    """

    names: Texts  # of channels
    channels: Texts
    locations: Texts
    channel_ids: Texts
    location_ids: Texts
    prefix: Bytes
    incarnation: Bytes  # in digits
    trusts: Ints  # [home, location], in percent
    is_behind: int
    words: Texts


WORDS: Final = (
    "\xac@incarnation", "\xa8@version", "\xa6@as_of", '{"sku":"', '","incarnation":', ',"version":', ',"as_of":"',
    '","rules":', ',"channels":{', ':{"promised":', ',"sellable":', ',"level":"', '"}', '},"locations":{',
    ':{"on_hand":', ',"reserved":', ',"allocated":', ',"picked":', ',"quarantined":', ',"in_transit":', ',"incoming":',
    ',"available":', ',"trust_percent":', ',"days_of_cover":', "null}", "}}", "out_of_stock", "low_stock", "in_stock",
    "}", '{"id":"', '","sku":"', '","channel":', ',"location":', ',"from":"', '","to":"', '","sellable":',
    ',"threshold":', ',"rules":', ',"time":"', '","initial":', ',"cause":{"type":"movement","source":"', '","id":"',
    '"},"correlation":', ',"traceparent":null}', "null", "true", "false", '"',
)  # fmt: skip
(
    W_INCARNATION, W_VERSION, W_AS_OF, J_SKU, J_INCARNATION, J_VERSION, J_AS_OF, J_RULES, J_CHANNELS, J_PROMISED,
    J_SELLABLE, J_LEVEL, J_LEVEL_END, J_LOCATIONS, J_ON_HAND, J_RESERVED, J_ALLOCATED, J_PICKED, J_QUARANTINED,
    J_IN_TRANSIT, J_INCOMING, J_AVAILABLE, J_TRUST, J_COVER, J_NULL, J_END, J_OUT, J_LOW, J_IN, J_CLOSE,
    T_ID, T_SKU, T_CHANNEL, T_LOCATION, T_FROM, T_TO, T_SELLABLE, T_THRESHOLD, T_RULES, T_TIME, T_INITIAL, T_CAUSE,
    T_CAUSE_ID, T_CORRELATION, T_END, J_NONE, J_TRUE, J_FALSE, J_QUOTE,
) = range(len(WORDS))  # fmt: skip
DIGITS_BYTES: Final = 20
HASH_BYTES_MAX: Final = 512  # of a SKU besides its channels
RECORD_BYTES_MAX: Final = 1024  # of a record with its id, besides its channels and locations
PLACE_BYTES_MAX: Final = 1024  # of a channel or a location
TIME_BYTES: Final = 24
COVER_MAX: Final = 10**15  # tenths of days; more of them are written otherwise


@compiled
def _put(out: Bytes, at: int, texts: Texts, row: int) -> int:
    """Writes a text; returns where it ends."""
    return put_text(out, at, texts.texts, texts.ends[row], texts.ends[row + 1])


@compiled
def _put_digits(out: Bytes, at: int, value: int) -> int:
    """Writes a whole number in digits; returns where it ends."""
    if value < 0:
        out[at] = MINUS
        at += 1
        value = -value
    digits, rest = 1, value // 10
    while rest > 0:
        digits += 1
        rest //= 10
    for place in range(at + digits - 1, at - 1, -1):
        out[place] = ZERO + value % 10
        value //= 10
    return at + digits


@compiled
def _put_padded(out: Bytes, at: int, value: int, width: int) -> int:
    """Writes a number with zeros before it; returns where it ends."""
    for place in range(at + width - 1, at - 1, -1):
        out[place] = ZERO + value % 10
        value //= 10
    return at + width


@compiled
def _put_time(out: Bytes, at: int, time_ms: int) -> int:
    """Writes 2026-11-21T09:00:00.123Z (Hinnant, chrono-compatible low-level date algorithms: civil_from_days)."""
    days = time_ms // DAY_MS + 719_468
    era = days // 146_097
    of_era = days - era * 146_097
    of_era_years = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * of_era_years + of_era_years // 4 - of_era_years // 100)
    shifted = (5 * of_year + 2) // 153
    day = of_year - (153 * shifted + 2) // 5 + 1
    month = shifted + 3 if shifted < 10 else shifted - 9
    year = of_era_years + era * 400 + (1 if month <= 2 else 0)
    of_day = time_ms % DAY_MS
    at = _put_padded(out, at, year, 4)
    out[at] = MINUS
    at = _put_padded(out, at + 1, month, 2)
    out[at] = MINUS
    at = _put_padded(out, at + 1, day, 2)
    out[at] = 0x54
    at = _put_padded(out, at + 1, of_day // HOUR_MS, 2)
    out[at] = COLON
    at = _put_padded(out, at + 1, of_day // 60_000 % 60, 2)
    out[at] = COLON
    at = _put_padded(out, at + 1, of_day // 1000 % 60, 2)
    out[at] = POINT
    at = _put_padded(out, at + 1, of_day % 1000, 3)
    out[at] = 0x5A
    return at + 1


@compiled
def _put_string_head(out: Bytes, at: int, length: int) -> int:
    """The head of a MessagePack string of less than 65,536 bytes."""
    if length < 32:
        out[at] = 0xA0 | length
        return at + 1
    if length < 256:
        out[at], out[at + 1] = 0xD9, length
        return at + 2
    out[at], out[at + 1], out[at + 2] = 0xDA, length >> 8, length & 0xFF
    return at + 3


@compiled
def _put_number_text(out: Bytes, at: int, value: int) -> int:
    """A number in digits as a MessagePack string."""
    end = _put_digits(out, at + 1, value)
    out[at] = 0xA0 | (end - at - 1)
    return end


@compiled
def _put_fields(
    standings: Records, pairs: PairTable, rows: int, rules: RuleColumns, names: Texts, sku: int, class_: int,
    out: Bytes, at: int,
) -> tuple[int, int]:  # fmt: skip
    """Writes the fields of all channels of a hash; where they end, and of how many parts they are."""
    parts, row = 0, pairs.firsts[sku] - 2
    for place in range(rules.begins[class_], rules.begins[class_ + 1]):
        rule = rules.channels[place]
        if rule.shown != 0:
            row = _standing_of(standings, pairs.slots, rows, sku, rule.channel, row + 1)
            if row >= 0:
                at = _put(out, at, names, rule.channel)
                at = _put_number_text(out, at, standings[row].promised)
                parts += 2
    return at, parts


@entered
def write_hashes(lane: Held[Lane], telling: Held[Telling], skus: Ints32, begin: int, out: Bytes, ends: Ints) -> int:
    """Writes the SKUs from place `begin` on as one array, as `redis_availability.lua` reads it, as many as fit.

    Returns how many; the first of `ends` becomes the bytes of all.
    """
    return _write_hashes(lane.value, telling.value, skus, begin, out, ends)


@compiled
def _write_hashes(lane: Lane, telling: Telling, skus: Ints32, begin: int, out: Bytes, ends: Ints) -> int:
    """As `write_hashes`."""
    names, articles, words, prefix = lane.sku_names, lane.skus, telling.words, telling.prefix
    standings, pairs, rules, channels = lane.standings, lane.standing_pairs, lane.rules, telling.names
    rows = lane.sizes[SIZE_STANDINGS]
    at, parts, count = 5, 0, 0
    for place in range(begin, len(skus)):
        if place + AHEAD < len(skus):
            _prefetch_sku(lane, skus[place + AHEAD])
        if place + CLOSE_AHEAD < len(skus):
            prefetch(names.texts, names.ends[skus[place + CLOSE_AHEAD]])
            _prefetch_standings(lane, skus[place + CLOSE_AHEAD])
        sku = skus[place]
        article, first, last = articles[sku], names.ends[sku], names.ends[sku + 1]
        channel_count = rules.begins[article.classes + 1] - rules.begins[article.classes]
        room = HASH_BYTES_MAX + len(prefix) + last - first + channel_count * PLACE_BYTES_MAX
        if count == len(ends) or at + room > len(out):
            break
        at = _put_string_head(out, at, len(prefix) + last - first)
        at = put_text(out, at, prefix, 0, len(prefix))
        at = put_text(out, at, names.texts, first, last)
        width_at = at
        at = _put(out, at + 3, words, W_INCARNATION)
        at = _put_string_head(out, at, len(telling.incarnation))
        at = put_text(out, at, telling.incarnation, 0, len(telling.incarnation))
        at = _put_number_text(out, _put(out, at, words, W_VERSION), article.version)
        at = _put_number_text(out, _put(out, at, words, W_AS_OF), article.as_of_ms)
        at, more = _put_fields(standings, pairs, rows, rules, channels, sku, article.classes, out, at)
        width = 6 + more
        signed = -width if telling.is_behind != 0 else width
        out[width_at], out[width_at + 1], out[width_at + 2] = 0xD1, (signed >> 8) & 0xFF, signed & 0xFF
        parts += width + 2
        count += 1
    out[0] = 0xDD
    for place in range(4):
        out[1 + place] = (parts >> (24 - 8 * place)) & 0xFF
    ends[0] = at
    return count


@compiled
def bits_of(value: int) -> int:
    """How many bits are 1."""
    count = 0
    while value != 0:
        value &= value - 1
        count += 1
    return count


@compiled
def _days_in_stock(positions: Records, row: int, day: int) -> int:
    """Bit k: something was available k + 1 days before `day`; after the last change it is as now."""
    later, known = day - 1 - positions[row].stock_day, np.int64(positions[row].stock_days)
    if later <= 0:
        return (known >> min(-later, 62)) & (STOCK_DAYS_MASK >> 1)
    kept = known << later if later < DAYS else 0
    filled = (1 << min(later, DAYS)) - 1 if available_of(positions, row) > 0 else 0
    return (kept | filled) & (STOCK_DAYS_MASK >> 1)


@compiled
def _cover_tenths(positions: Records, demand: WindowColumns, row: int, day: int) -> int:
    """Days that what is available lasts, in tenths, rounded down; ABSENT where nothing sells."""
    place = demand.rows[row] - 1 if row < len(demand.rows) else ABSENT
    if place < 0:
        return ABSENT
    newest, units, sold = demand.columns[place].day, 0, 0
    for at in range(max(day - DAYS + 1, newest - DAYS + 1), min(day - 1, newest) + 1):
        here = _units_of_day(demand, place, at)
        if here > 0:
            units += here
            sold |= 1 << (day - 1 - at)
    if units == 0:
        return ABSENT
    days = bits_of(_days_in_stock(positions, row, day) | sold)
    return max(0, available_of(positions, row)) * days * 10 // units


@compiled
def _put_location(
    positions: Records, demand: WindowColumns, names: Texts, words: Texts, trusts: Ints, row: int, day: int, out: Bytes,
    at: int,
) -> int:  # fmt: skip
    """Writes one position of a record; ABSENT where a number would be written otherwise."""
    held = positions[row]
    at = _put(out, at, names, held.location)
    at = _put_digits(out, _put(out, at, words, J_ON_HAND), held.on_hand)
    at = _put_digits(out, _put(out, at, words, J_RESERVED), held.reserved)
    at = _put_digits(out, _put(out, at, words, J_ALLOCATED), held.allocated)
    at = _put_digits(out, _put(out, at, words, J_PICKED), held.picked)
    at = _put_digits(out, _put(out, at, words, J_QUARANTINED), held.quarantined)
    at = _put_digits(out, _put(out, at, words, J_IN_TRANSIT), held.in_transit)
    at = _put_digits(out, _put(out, at, words, J_INCOMING), held.incoming)
    at = _put_digits(out, _put(out, at, words, J_AVAILABLE), available_of(positions, row))
    at = _put_digits(out, _put(out, at, words, J_TRUST), trusts[held.location])
    at = _put(out, at, words, J_COVER)
    tenths = _cover_tenths(positions, demand, row, day)
    if tenths == ABSENT:
        return _put(out, at, words, J_NULL)
    if tenths >= COVER_MAX:
        return ABSENT
    at = _put_digits(out, at, tenths // 10)
    out[at] = POINT
    out[at + 1] = ZERO + tenths % 10
    return _put(out, at + 2, words, J_CLOSE)


@compiled
def _put_locations(
    positions: Records, pairs: PairTable, demand: WindowColumns, names: Texts, words: Texts, trusts: Ints, sku: int,
    day: int, out: Bytes, at: int,
) -> int:  # fmt: skip
    """Writes all positions of a record; ABSENT where that is not possible here."""
    first, next_ = at, pairs.firsts[sku]
    while next_ != 0:
        if at + PLACE_BYTES_MAX > len(out):
            return ABSENT
        if at != first:
            out[at] = COMMA
            at += 1
        at = _put_location(positions, demand, names, words, trusts, next_ - 1, day, out, at)
        if at == ABSENT:
            return ABSENT
        next_ = pairs.nexts[next_ - 1]
    return at


@compiled
def _put_channels(
    standings: Records, pairs: PairTable, rows: int, rules: RuleColumns, names: Texts, words: Texts, sku: int,
    class_: int, out: Bytes, at: int,
) -> int:  # fmt: skip
    """Writes all channels of a record."""
    first, row = at, pairs.firsts[sku] - 2
    for place in range(rules.begins[class_], rules.begins[class_ + 1]):
        rule = rules.channels[place]
        if rule.shown == 0:
            continue
        row = _standing_of(standings, pairs.slots, rows, sku, rule.channel, row + 1)
        if row < 0:
            continue
        if at != first:
            out[at] = COMMA
            at += 1
        standing = standings[row]
        at = _put(out, at, names, rule.channel)
        at = _put_digits(out, _put(out, at, words, J_PROMISED), standing.promised)
        at = _put_digits(out, _put(out, at, words, J_SELLABLE), standing.sellable)
        at = _put(out, _put(out, at, words, J_LEVEL), words, J_OUT + standing.level)
        at = _put(out, at, words, J_LEVEL_END)
    return at


@compiled
def _put_name(out: Bytes, at: int, texts: Bytes, begin: int, end: int) -> int:
    """Writes a name into a JSON string; ABSENT where it holds what is written otherwise there."""
    for place in range(begin, end):
        character = texts[place]
        if character < BLANK or character >= DELETE or character in (QUOTE, BACKSLASH):
            return ABSENT
        out[at] = character
        at += 1
    return at


@entered
def write_records(lane: Held[Lane], telling: Held[Telling], skus: Ints32, begin: int, out: Bytes, records: Ints) -> int:
    """Writes records of SKUs from place `begin` on, as `schemas.topics.AVAILABILITY` encodes them, as many as fit.

    Returns how many; `records` becomes where the texts of each are, as `schemas.records.Records` has them, shape (n,
    PLACES), with ABSENT at VALUE_AT where it cannot be written here. The id stands behind its record.
    """
    return _write_records(lane.value, telling.value, skus, begin, out, records)


@compiled
def _write_records(lane: Lane, telling: Telling, skus: Ints32, begin: int, out: Bytes, records: Ints) -> int:
    """As `write_records`."""
    names, articles, words, rules = lane.sku_names, lane.skus, telling.words, lane.rules
    positions, position_pairs, demand = lane.positions, lane.position_pairs, lane.demand
    standings, pairs, rows = lane.standings, lane.standing_pairs, lane.sizes[SIZE_STANDINGS]
    done, count = 0, 0
    for place in range(begin, len(skus)):
        if place + AHEAD < len(skus):
            _prefetch_sku(lane, skus[place + AHEAD])
        if place + CLOSE_AHEAD < len(skus):
            _prefetch_standings(lane, skus[place + CLOSE_AHEAD])
            _prefetch_positions(lane, skus[place + CLOSE_AHEAD])
        sku = skus[place]
        article = articles[sku]
        channel_count = rules.begins[article.classes + 1] - rules.begins[article.classes]
        if count == len(records) or done + RECORD_BYTES_MAX + (channel_count + 8) * PLACE_BYTES_MAX > len(out):
            break
        record = records[count]
        record[:] = ABSENT
        count += 1
        at = _put_name(out, _put(out, done, words, J_SKU), names.texts, names.ends[sku], names.ends[sku + 1])
        if at == ABSENT:
            continue
        at = _put(out, at, words, J_INCARNATION)
        at = put_text(out, at, telling.incarnation, 0, len(telling.incarnation))
        at = _put_digits(out, _put(out, at, words, J_VERSION), article.version)
        time_end = at = _put_time(out, _put(out, at, words, J_AS_OF), article.as_of_ms)
        at = _put_digits(out, _put(out, at, words, J_RULES), article.generation)
        at = _put(out, at, words, J_CHANNELS)
        at = _put_channels(standings, pairs, rows, rules, telling.channels, words, sku, article.classes, out, at)
        at = _put(out, at, words, J_LOCATIONS)
        day = article.seen_ms // DAY_MS
        at = _put_locations(
            positions, position_pairs, demand, telling.locations, words, telling.trusts[article.home], sku, day, out, at
        )
        if at != ABSENT:
            begin_id = _put(out, at, words, J_END)
            key_end = put_text(out, begin_id, names.texts, names.ends[sku], names.ends[sku + 1])
            out[key_end] = COLON
            end_id = _put_digits(out, key_end + 1, article.version)
            _note_record(record, done, begin_id, begin_id, key_end, end_id, time_end)
            done = end_id
    return count


@compiled
def _note_record(record: Ints, begin: int, end: int, begin_id: int, key_end: int, end_id: int, time_end: int) -> None:
    """Writes where a record's texts are; its key is how its id begins."""
    record[VALUE_AT], record[VALUE_AT + 1] = begin, end
    record[KEY_AT], record[KEY_AT + 1] = begin_id, key_end
    record[ID_AT], record[ID_AT + 1] = begin_id, end_id
    record[TIME_AT], record[TIME_AT + 1] = time_end - TIME_BYTES, time_end


@entered
def write_crossings(
    messages: Held[Messages], lane: Held[Lane], telling: Held[Telling], work: Held[Work], begin: int, count: int,
    generation: int, out: Bytes, records: Ints,
) -> int:  # fmt: skip
    """Writes the crossings told last, from the one at `begin` on, as `schemas.topics.THRESHOLDS` encodes them.

    Returns how many fit; `records` becomes where the texts of each are, as above; the id stands in its record.
    """
    return _write_crossings(
        messages.value, lane.value, telling.value, work.value.told, begin, count, generation, out, records
    )


@compiled
def _write_crossings(
    messages: Messages, lane: Lane, telling: Telling, told: Told, begin: int, count: int, generation: int, out: Bytes,
    records: Ints,
) -> int:  # fmt: skip
    """As `write_crossings`."""
    names, words, text = lane.sku_names, telling.words, messages.payloads
    positions, standings, done = lane.positions, lane.standings, 0
    for place in range(begin, count):
        crossing, number = told.crossings[place], place - begin
        first, last = names.ends[crossing.sku], names.ends[crossing.sku + 1]
        if number == len(records) or done + RECORD_BYTES_MAX + 4 * PLACE_BYTES_MAX > len(out):
            return number
        record = records[number]
        record[:] = ABSENT
        begin_id = _put(out, done, words, T_ID)
        key_end = at = _put_name(out, begin_id, names.texts, first, last)
        if at == ABSENT:
            continue
        version = messages.offsets[crossing.message]
        if crossing.row >= 0:
            at = _put(out, at, telling.channel_ids, standings[crossing.row].channel)
        else:
            at = _put(out, at, telling.location_ids, positions[-1 - crossing.row].location)
        end_id = at = _put_digits(out, at, version)
        at = put_text(out, _put(out, at, words, T_SKU), names.texts, first, last)
        at = _put(out, at, words, T_CHANNEL)
        if crossing.row >= 0:
            at = _put(out, at, telling.channels, standings[crossing.row].channel)
            at = _put(out, _put(out, at, words, T_LOCATION), words, J_NONE)
        else:
            at = _put(out, _put(out, at, words, J_NONE), words, T_LOCATION)
            at = _put(out, at, telling.locations, positions[-1 - crossing.row].location)
        at = _put(out, _put(out, at, words, T_FROM), words, J_OUT + crossing.before)
        at = _put(out, _put(out, at, words, T_TO), words, J_OUT + crossing.after)
        at = _put_digits(out, _put(out, at, words, T_SELLABLE), crossing.units)
        at = _put_digits(out, _put(out, at, words, T_THRESHOLD), crossing.threshold)
        at = _put_digits(out, _put(out, at, words, J_VERSION), version)
        at = _put_digits(out, _put(out, at, words, T_RULES), generation)
        time_end = at = _put_time(out, _put(out, at, words, T_TIME), crossing.time_ms)
        at = _put(out, _put(out, at, words, T_INITIAL), words, J_TRUE if crossing.initial != 0 else J_FALSE)
        end = _put_cause(out, at, words, text, told.texts, place * 2 * TEXTS)
        _note_record(record, done, end, begin_id, key_end, end_id, time_end)
        done = end
    return count - begin


@compiled
def _put_cause(out: Bytes, at: int, words: Texts, text: Bytes, texts: Ints, begin: int) -> int:
    """Writes the end of a crossing: which movement it was, whose texts stand from `begin` on, and its correlation."""
    source, id_, correlation = begin + 2 * SOURCE, begin + 2 * ID, begin + 2 * CORRELATION
    at = put_text(out, _put(out, at, words, T_CAUSE), text, texts[source], texts[source + 1])
    at = put_text(out, _put(out, at, words, T_CAUSE_ID), text, texts[id_], texts[id_ + 1])
    at = _put(out, at, words, T_CORRELATION)
    if texts[correlation] == ABSENT:
        at = _put(out, at, words, J_NONE)
    else:
        at = put_text(out, _put(out, at, words, J_QUOTE), text, texts[correlation], texts[correlation + 1])
        at = _put(out, at, words, J_QUOTE)
    return _put(out, at, words, T_END)


# What is done now and then with whole columns


@compiled
def keep_facts(before: Bytes, after: Bytes, rings: Records, used: int) -> int:
    """Copies the facts of all rings into slots of their size, behind what is `used`; returns how much is used then."""
    for sku in range(len(rings)):
        ring = rings[sku]
        if sku + ROWS_AHEAD < len(rings):
            prefetch(before, WORD_BYTES * rings[sku + ROWS_AHEAD].oldest)
        if ring.kept != 0:
            begin, used = used, _keep_ring(before, ring.oldest, ring.kept, after, used)
            ring.oldest, ring.newest = begin // WORD_BYTES, _last_of(after, begin // WORD_BYTES, ring.kept)
        if ring.kept_others != 0:
            oldest = _next_fact(before, ring.newest_other)
            begin, used = used, _keep_ring(before, oldest, ring.kept_others, after, used)
            ring.newest_other = _last_of(after, begin // WORD_BYTES, ring.kept_others)
    return used


@compiled
def _keep_ring(before: Bytes, slot: int, kept: int, after: Bytes, used: int) -> int:
    """Copies so many facts of a ring, from the one at `slot` on."""
    first = used // WORD_BYTES
    for number in range(kept):
        begin = WORD_BYTES * slot
        length = _fact_bytes(before, begin)
        words = (length + WORD_BYTES - 1) // WORD_BYTES
        slot = _next_fact(before, slot)
        prefetch(before, WORD_BYTES * slot)
        for word in range(words):
            put_word(after, used + WORD_BYTES * word, word_at(before, begin + WORD_BYTES * word))
        next_ = first if number == kept - 1 else used // WORD_BYTES + words
        kind = word_at(before, begin) & ~FACT_MASK
        put_word(after, used, kind | np.uint64(next_) | np.uint64(words) << HALF)
        used += WORD_BYTES * words
    return used


@compiled
def _last_of(texts: Bytes, slot: int, kept: int) -> int:
    """The last of so many slots of a ring, of which this is the first."""
    for _ in range(1, kept):
        slot = _next_fact(texts, slot)
    return slot


@compiled
def _fact_bytes(texts: Bytes, begin: int) -> int:
    """The bytes of a fact with its head."""
    if texts[begin + KIND_AT] == PACKED:
        return FACT_HEAD_BYTES + np.int64(word_at(texts, begin + 16))
    lengths = np.int64(texts[begin + 14]) + np.int64(texts[begin + 15])
    return FACT_HEAD_BYTES + lengths + np.int64(texts[begin + 16]) + np.int64(texts[begin + 17])


@compiled
def chain_entries(entries: Records, rows: int, positions: Records) -> None:
    """Links each entry of the history to the one before it at the same position, in the order in which they came."""
    for position in range(len(positions)):
        positions[position].entry = 0
        positions[position].entries = 0
    for row in range(rows):
        if row + ROWS_AHEAD < rows:
            prefetch(positions, entries[row + ROWS_AHEAD].position)
        position = entries[row].position
        entries[row].previous = positions[position].entry
        positions[position].entry = row + 1
        positions[position].entries += 1


@compiled
def enter_ids(slots: Slots, ids: Records, count: int) -> None:
    """Enters the first ids into slots that are all free; all of them are different."""
    mask = len(slots) - 1
    for row in range(count):
        if row + ROWS_AHEAD < count:
            prefetch(slots, _first_slot(ids[row + ROWS_AHEAD].hash, slots))
        slot = _first_slot(ids[row].hash, slots)
        while slots[slot] != 0:
            slot = (slot + 1) & mask
        slots[slot] = _tag_of(ids[row].hash, slots) | row + 1
