"""Bytes of the benchmark: movements read, crossings and states written."""

from collections.abc import Sequence
from typing import Final

import msgspec

from bench.peers.stock import Article, Movement

decode_movement: Final = msgspec.json.Decoder(Movement).decode
encode_crossing: Final = msgspec.json.Encoder().encode
encode_article: Final = msgspec.msgpack.Encoder().encode
decode_article: Final = msgspec.msgpack.Decoder(Article).decode

_decode_movements: Final = msgspec.json.Decoder(list[Movement]).decode


def decode_movements(payloads: Sequence[bytes]) -> list[Movement]:
    """The movements in many messages, decoded in one call."""
    return _decode_movements(b"[" + b",".join(payloads) + b"]")
