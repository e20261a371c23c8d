"""Route: every message to the lane of its SKU, control records to all lanes."""

from zlib import crc32

from schemas.batches import Batch, CaughtUp, Mark, Wake
from schemas.movements import Control, Fact, Refusal, decode

Item = Batch | Mark | Wake | CaughtUp
Routed = tuple[int, Item]  # lane, and what it must see


def lane_of(key: bytes, lanes: int) -> int:
    """Where the SKU whose UTF-8 bytes are `key` lives for ever."""
    return crc32(key) % lanes


def route(item: Item, lanes: int) -> list[Routed]:
    """`item` cut into one part per lane that it concerns, each in the order of the log."""
    if isinstance(item, Mark | Wake | CaughtUp):
        return [(lane, item) for lane in range(lanes)]
    places: dict[int, list[int]] = {}
    for place, key in enumerate(item.keys):
        if key:
            places.setdefault(crc32(key) % lanes, []).append(place)
        else:
            for lane in _lanes_without_key(item.payloads[place], lanes):
                places.setdefault(lane, []).append(place)
    return [(lane, _part(item, chosen)) for lane, chosen in places.items()]


def _lanes_without_key(payload: bytes | None, lanes: int) -> range:
    """A movement without key is read for its SKU; what cannot be read is the business of lane 0."""
    decoded = decode(payload)
    if isinstance(decoded, Refusal):
        return range(1)
    if isinstance(decoded.record, Control):
        return range(lanes)
    record: Fact = decoded.record
    lane = lane_of(record.sku.encode(), lanes)
    return range(lane, lane + 1)


def _part(batch: Batch, places: list[int]) -> Batch:
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


def sku_of(key: bytes | None, payload: bytes | None) -> str | None:
    """The SKU that a message speaks of; None where it speaks of none, or cannot be read."""
    if key:
        return key.decode("utf-8", "replace")
    decoded = decode(payload)
    return None if isinstance(decoded, Refusal) or isinstance(decoded.record, Control) else decoded.record.sku
