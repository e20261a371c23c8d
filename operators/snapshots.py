"""Snapshots: all state of a lane as one blob, versioned, checksummed and compressed."""

import struct
from typing import Any, Final

import msgspec
import zstandard
from xxhash import xxh3_64_intdigest

MAGIC: Final = b"OHLN"
FORMAT: Final = 2
_HEADER: Final = struct.Struct("<4sHQ")  # magic, format, checksum of what follows
_COMPRESSION_LEVEL: Final = 1


class SnapshotError(ValueError):
    """A blob that is no snapshot of a lane, is damaged, or was written by a newer release."""


def pack(state: dict[str, Any]) -> bytes:
    """`state` (plain values and bytes) as a blob."""
    body = zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL).compress(msgspec.msgpack.encode(state))
    return _HEADER.pack(MAGIC, FORMAT, xxh3_64_intdigest(body)) + body


def unpack(blob: bytes) -> dict[str, Any]:
    """The state in `blob`; raises SnapshotError."""
    if len(blob) < _HEADER.size or not blob.startswith(MAGIC):
        raise SnapshotError("this is no snapshot of a lane")
    _, format_, checksum = _HEADER.unpack_from(blob)
    if format_ > FORMAT:
        raise SnapshotError(f"the snapshot has format {format_}, this release reads up to {FORMAT}: use a newer one")
    body = blob[_HEADER.size :]
    if xxh3_64_intdigest(body) != checksum:
        raise SnapshotError("the snapshot is damaged: its checksum does not match")
    state: dict[str, Any] = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(body))
    return state
