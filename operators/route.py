"""Route: every message to the lane of its SKU, control records to all lanes."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np

from operators.compiling import Held, hold
from operators.plain import Bytes, Ints, Ints32, Messages, lane_of, share_out
from schemas.batches import Batch, CaughtUp, Mark, Wake
from schemas.movements import Fact, Refusal, decode
from schemas.packed import Numbers, Texts, values_at


class Packed(NamedTuple):
    """The messages of a batch in one piece, for Python and for compiled loops."""

    arrays: Messages
    held: Held[Messages]


class Part:
    """What one lane must see of a batch: the messages at `places`, which are in the order of the log.

    Lanes of one process share the batch; what goes to another process takes its own messages along.
    """

    __slots__ = ("batch", "bytes_", "messages", "places")

    def __init__(self, batch: Batch, messages: Packed, places: Ints32, bytes_: int) -> None:
        self.batch = batch
        self.messages = messages
        self.places = places
        self.bytes_ = bytes_  # of keys and payloads

    @classmethod
    def whole(cls, batch: Batch) -> "Part":
        """All of a batch."""
        messages = packed(batch)
        bytes_ = int(messages.arrays.key_ends[-1] + messages.arrays.payload_ends[-1])
        return cls(batch, messages, np.arange(len(batch.offsets), dtype=np.int32), bytes_)

    def alone(self) -> Batch:
        """Its messages without those of other lanes, as lists."""
        batch, places = self.batch, self.places.tolist()
        return Batch(
            batch.origin,
            values_at(batch.offsets, places),
            values_at(batch.timestamps, places),
            values_at(batch.keys, places),
            values_at(batch.payloads, places),
            None if batch.headers is None else values_at(batch.headers, places),
        )

    def __reduce__(self) -> tuple[object, ...]:
        return Part.whole, (self.alone(),)


Item = Batch | Mark | Wake | CaughtUp
Routed = tuple[int, Part | Mark | Wake | CaughtUp]  # lane, and what it must see


def lane_of_sku(sku: str, lanes: int, *, by_crc32: bool = False) -> int:
    """Where `sku` lives for ever; `by_crc32` in a state of the first format."""
    key = np.frombuffer(sku.encode(), np.uint8)
    return int(lane_of(key, 0, len(key), lanes, by_crc32))


def route(item: Item, lanes: int, *, by_crc32: bool = False) -> list[Routed]:
    """`item` cut into one part per lane that it concerns, each in the order of the log."""
    if not isinstance(item, Batch):
        return [(lane, item) for lane in range(lanes)]
    messages, count = packed(item), len(item.offsets)
    places, ends, bytes_ = np.empty(count, np.int32), np.zeros(lanes + 3, np.int32), np.zeros(lanes + 1, np.int64)
    _, payload_ends, keys, key_ends, *_ = messages.arrays
    owners = np.empty(count, np.int32)
    share_out(keys, key_ends, payload_ends, lanes, by_crc32, owners, places, ends, bytes_)
    sizes, bounds = bytes_.tolist(), ends.tolist()
    parts: list[Routed] = [
        (lane, Part(item, messages, places[begin:end], sizes[lane]))
        for lane, (begin, end) in enumerate(pairwise(bounds[: lanes + 1]))
        if begin < end
    ]
    nameless = places[bounds[lanes] :]
    return _with_nameless(parts, item, messages, nameless, lanes) if len(nameless) else parts


def _with_nameless(parts: list[Routed], batch: Batch, messages: Packed, nameless: Ints32, lanes: int) -> list[Routed]:
    """`parts` with messages that name no SKU in their places: a control record is for every lane.

    What cannot be read is the business of lane 0.
    """
    own = {lane: cast("Part", part) for lane, part in parts}
    controls = nameless[[not isinstance(decode(batch.payloads[place]), Refusal) for place in nameless.tolist()]]
    for lane in range(lanes if len(controls) else 1):
        added, part = controls if lane else nameless, own.get(lane)
        bytes_ = sum(len(batch.payloads[place] or b"") for place in added.tolist())
        if part is not None:
            added, bytes_ = np.sort(np.concatenate((part.places, added))), part.bytes_ + bytes_
        own[lane] = Part(batch, messages, added, bytes_)
    return sorted(own.items())


def packed(batch: Batch) -> Packed:
    """The messages of `batch` in one piece; what has no key has the SKU that it names for one."""
    payloads, keys = batch.payloads, batch.keys
    if _has_empty(keys):
        keys = [key or _sku_in(payload) for key, payload in zip(keys, payloads, strict=True)]
    arrays = Messages(*_joined(payloads), *_joined(keys), _numbers(batch.offsets), _numbers(batch.timestamps))
    return Packed(arrays, hold(arrays))


def _sku_in(payload: bytes | None) -> bytes:
    decoded = decode(payload)
    record = None if isinstance(decoded, Refusal) else decoded.record
    return record.sku.encode() if isinstance(record, Fact) else b""


def _has_empty(texts: Sequence[bytes | None]) -> bool:
    return texts.has_empty if isinstance(texts, Texts) else not all(texts)


def _joined(texts: Sequence[bytes | None]) -> tuple[Bytes, Ints]:
    """All of them in one piece, and where each ends, after a 0; None is as long as an empty one."""
    if isinstance(texts, Texts):
        return texts.text, texts.ends
    present = cast("Sequence[bytes]", texts if all(texts) else [text or b"" for text in texts])
    ends = np.zeros(len(texts) + 1, np.int64)
    np.fromiter(map(len, present), np.int64, len(texts)).cumsum(out=ends[1:])
    return np.frombuffer(b"".join(present) or b"\0", np.uint8), ends


def _numbers(numbers: Sequence[int]) -> Ints:
    return numbers.array if isinstance(numbers, Numbers) else np.array(numbers, np.int64)


def sku_of(key: bytes | None, payload: bytes | None) -> str | None:
    """The SKU that a message speaks of; None where it speaks of none, or cannot be read."""
    if key:
        return key.decode("utf-8", "replace")
    return _sku_in(payload).decode() or None
