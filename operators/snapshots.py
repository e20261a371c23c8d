"""Snapshots: all state of a lane as one blob, versioned, checksummed and compressed."""

import struct
from typing import Any, Final

import msgspec
import zstandard
from xxhash import xxh3_64_intdigest

MAGIC: Final = b"OHLN"
FORMAT: Final = 5  # since the fourth a blob may name a base, since the fifth not each window has rows
LAST_OF_ONE_PIECE: Final = 2  # formats that compressed everything, and whose checksum did not know of the format
_HEADER: Final = struct.Struct("<4sHQ")  # magic, format, checksum of what follows
_LENGTH: Final = struct.Struct("<Q")  # of what is compressed; dense bytes follow
_COMPRESSION_LEVEL: Final = 1
_DENSE: Final = 1  # extension type of a length, whose bytes stand among the dense ones
_compressor: Final = zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL)  # lanes are packed one after the other


class SnapshotError(ValueError):
    """A blob that is no snapshot of a lane, is damaged, or was written by a newer release."""


class Dense:
    """Bytes that no compressor makes much shorter: they stand behind all others as they are."""

    __slots__ = ("bytes_",)

    def __init__(self, bytes_: bytes) -> None:
        self.bytes_ = bytes_


def pack(state: dict[str, Any]) -> bytes:
    """`state` (plain values, bytes and dense ones) as a blob."""
    dense: list[bytes] = []

    def set_aside(value: object) -> msgspec.msgpack.Ext:
        if not isinstance(value, Dense):
            raise TypeError(f"a snapshot holds plain values, not {value!r}")
        dense.append(value.bytes_)
        return msgspec.msgpack.Ext(_DENSE, _LENGTH.pack(len(value.bytes_)))

    compressed = _compressor.compress(msgspec.msgpack.encode(state, enc_hook=set_aside))
    body = b"".join((_LENGTH.pack(len(compressed)), compressed, *dense))
    return _HEADER.pack(MAGIC, FORMAT, xxh3_64_intdigest(body, seed=FORMAT)) + body


def unpack(blob: bytes) -> dict[str, Any]:
    """The state in `blob`, dense bytes as views of it; raises SnapshotError."""
    if len(blob) < _HEADER.size or not blob.startswith(MAGIC):
        raise SnapshotError("this is no snapshot of a lane")
    _, format_, checksum = _HEADER.unpack_from(blob)
    if format_ > FORMAT:
        raise SnapshotError(f"the snapshot has format {format_}, this release reads up to {FORMAT}: use a newer one")
    body, is_of_one_piece = memoryview(blob)[_HEADER.size :], format_ <= LAST_OF_ONE_PIECE
    if xxh3_64_intdigest(body, seed=0 if is_of_one_piece else format_) != checksum:
        raise SnapshotError("the snapshot is damaged: its checksum does not match")
    if is_of_one_piece:
        return _decoded(body, body[:0])
    begin = _LENGTH.size + _LENGTH.unpack_from(body)[0]
    return _decoded(body[_LENGTH.size : begin], body[begin:])


def squeezed(records: object) -> bytes:
    """Plain values, packed and compressed on their own."""
    return _compressor.compress(msgspec.msgpack.encode(records))


def unsqueezed(text: bytes) -> Any:  # noqa: ANN401  # whatever was squeezed
    """What was squeezed."""
    return msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(text))


def base_of(lane: int, blob: bytes) -> str:
    """The name of a base, which says what it holds."""
    return f"lane-{lane}-{xxh3_64_intdigest(blob):016x}.base"


def check_base(lane: int, name: str, blob: bytes) -> None:
    """SnapshotError where `blob` is not the base of that name."""
    if base_of(lane, blob) != name:
        raise SnapshotError(f"its base {name} is not what it was: its checksum does not match")


def is_whole(state: dict[str, Any]) -> bool:
    """Whether an unpacked blob is all of a state."""
    return "base" not in state


def _decoded(compressed: memoryview, dense: memoryview) -> dict[str, Any]:
    at = 0

    def found(_code: int, length: memoryview) -> memoryview:
        nonlocal at
        begin, at = at, at + _LENGTH.unpack(length)[0]
        return dense[begin:at]

    packed = zstandard.ZstdDecompressor().decompress(compressed)
    state: dict[str, Any] = msgspec.msgpack.decode(packed, ext_hook=found)
    return state
