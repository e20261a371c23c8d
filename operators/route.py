"""Route: every message to the lane of its SKU, control records to all lanes."""

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np

from operators.compiling import Held, hold
from operators.plain import Bytes, Ints, Ints32, Messages, lane_of, share_out
from schemas.batches import Batch, CaughtUp, Mark, Wake
from schemas.movements import Fact, Refusal, decode


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

    def __reduce__(self) -> tuple[object, ...]:
        return Part.whole, (_chosen(self.batch, self.places.tolist()),)


Item = Batch | Mark | Wake | CaughtUp
Routed = tuple[int, Part | Mark | Wake | CaughtUp]  # lane, and what it must see


def lane_of_sku(sku: str, lanes: int) -> int:
    """Where `sku` lives for ever."""
    key = np.frombuffer(sku.encode(), np.uint8)
    return int(lane_of(key, 0, len(key), lanes))


def route(item: Item, lanes: int) -> list[Routed]:
    """`item` cut into one part per lane that it concerns, each in the order of the log."""
    if not isinstance(item, Batch):
        return [(lane, item) for lane in range(lanes)]
    messages, count = packed(item), len(item.offsets)
    places, ends, bytes_ = np.empty(count, np.int32), np.zeros(lanes + 2, np.int32), np.zeros(lanes, np.int64)
    _, payload_ends, keys, key_ends, *_ = messages.arrays
    owners = np.empty(count, np.int32)
    if not share_out(keys, key_ends, payload_ends, lanes, owners, places, ends, bytes_):
        return _shared_out(item, messages, lanes)
    sizes = bytes_.tolist()
    return [
        (lane, Part(item, messages, places[begin:end], sizes[lane]))
        for lane, (begin, end) in enumerate(pairwise(ends.tolist()))
        if begin < end
    ]


def _shared_out(batch: Batch, messages: Packed, lanes: int) -> list[Routed]:
    """As `share_out`, where a message names no SKU."""
    places: dict[int, list[int]] = {}
    bytes_: dict[int, int] = {}
    keys, payload_ends = messages.arrays.keys, messages.arrays.payload_ends.tolist()
    for place, (begin, end) in enumerate(pairwise(messages.arrays.key_ends.tolist())):
        size = end - begin + payload_ends[place + 1] - payload_ends[place]
        if begin < end:
            owners: Iterable[int] = (int(lane_of(keys, begin, end, lanes)),)
        else:
            owners = _lanes_without_sku(batch.payloads[place], lanes)
        for lane in owners:
            places.setdefault(lane, []).append(place)
            bytes_[lane] = bytes_.get(lane, 0) + size
    return [(lane, Part(batch, messages, np.array(own, np.int32), bytes_[lane])) for lane, own in places.items()]


def _lanes_without_sku(payload: bytes | None, lanes: int) -> range:
    """A control record is for everybody; what cannot be read is the business of lane 0."""
    return range(1) if isinstance(decode(payload), Refusal) else range(lanes)


def _chosen(batch: Batch, places: list[int]) -> Batch:
    if len(places) == len(batch.offsets):
        return batch
    headers = batch.headers
    return Batch(
        batch.origin,
        [batch.offsets[place] for place in places],
        [batch.timestamps[place] for place in places],
        [batch.keys[place] for place in places],
        [batch.payloads[place] for place in places],
        None if headers is None else [headers[place] for place in places],
    )


def packed(batch: Batch) -> Packed:
    """The messages of `batch` in one piece; what has no key has the SKU that it names for one."""
    payloads, keys = batch.payloads, batch.keys
    if None in payloads:
        payloads = [payload or b"" for payload in payloads]
    if not all(keys):
        keys = [key or _sku_in(payload) for key, payload in zip(keys, payloads, strict=True)]
    arrays = Messages(
        *_joined(cast("list[bytes]", payloads)),
        *_joined(cast("list[bytes]", keys)),
        np.array(batch.offsets, np.int64),
        np.array(batch.timestamps, np.int64),
    )
    return Packed(arrays, hold(arrays))


def _sku_in(payload: bytes | None) -> bytes:
    decoded = decode(payload)
    record = None if isinstance(decoded, Refusal) else decoded.record
    return record.sku.encode() if isinstance(record, Fact) else b""


def _joined(texts: list[bytes]) -> tuple[Bytes, Ints]:
    """All of them in one piece, and where each ends, after a 0."""
    ends = np.zeros(len(texts) + 1, np.int64)
    np.fromiter(map(len, texts), np.int64, len(texts)).cumsum(out=ends[1:])
    return np.frombuffer(b"".join(texts) or b"\0", np.uint8), ends


def sku_of(key: bytes | None, payload: bytes | None) -> str | None:
    """The SKU that a message speaks of; None where it speaks of none, or cannot be read."""
    if key:
        return key.decode("utf-8", "replace")
    return _sku_in(payload).decode() or None
