"""Names of keys and fields in Redis, and what their hashes say; all that a reader needs to know."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

import msgspec
from redis import Redis

from schemas.outputs import Explanation

INCARNATION: Final = "@incarnation"
VERSION: Final = "@version"
AS_OF: Final = "@as_of"
HEALTH: Final = "@health"
RULES: Final = "@rules"
SENTINEL: Final = "@sentinel"
EXPLAIN_PREFIX: Final = "explain:"
UNKNOWN_LAG: Final = "inf"  # of an unknown length: no bound that a reader sets lets it pass as fresh

_OWN_FIELDS = frozenset((INCARNATION, VERSION, AS_OF))


class Promises(NamedTuple):
    """What every channel may sell of a SKU, in its base unit, as of `version`; `as_of_ms` is since 1970."""

    incarnation: int
    version: int
    as_of_ms: int
    promised: dict[str, int]

    def to(self, channel: str) -> int:
        """What `channel` may sell: its own field, else that of its kind (`b2b/acme` falls back to `b2b`), else 0."""
        found = (self.promised[name] for name in fields_of(channel) if name in self.promised)
        return next(found, 0)


class Health(NamedTuple):
    """Whether the numbers can be trusted; times in ms since 1970.

    All movements up to `watermark_ms` are in them (0: not known); `lag_seconds` is how far the slowest log is behind
    its own end, None where that has no known length; `written_ms` is when this was written.
    """

    incarnation: int
    watermark_ms: int
    lag_seconds: float | None
    written_ms: int


class Held(msgspec.Struct, frozen=True):
    """Which rules a partition goes by: from `offset` on (−1: from its beginning), since `time` where that was told."""

    generation: int
    digest: str
    offset: int
    time: str | None


class RulesHeld(NamedTuple):
    """The rules in force, by partition; `document` are those of `generation`, the greatest of them."""

    incarnation: int
    partitions: dict[int, Held]
    generation: int
    document: dict[str, Any]


def availability_key(prefix: str, sku: str) -> str:
    """The key of a SKU's hash."""
    return prefix + sku


def health_key(prefix: str) -> str:
    """The key of the health hash; no SKU begins with `@`."""
    return prefix + HEALTH


def rules_key(prefix: str) -> str:
    """The key of the hash that tells which rules are in force; no SKU begins with `@`."""
    return prefix + RULES


def sentinel_key(prefix: str) -> str:
    """The key of the hash by which onhand notices that Redis has lost something; no SKU begins with `@`."""
    return prefix + SENTINEL


def explain_key(explain_prefix: str, sku: str) -> str:
    """The key of a SKU's explanation."""
    return explain_prefix + sku


def fields_of(channel: str) -> tuple[str, ...]:
    """The fields to ask for, the first one present counts: a channel of its own, then its kind."""
    kind, separator, _ = channel.partition("/")
    return (channel, kind) if separator else (channel,)


def parse_promises(fields: Mapping[bytes, bytes]) -> Promises | None:
    """What a SKU's hash says; None where the SKU was never seen, ValueError where the hash is not onhand's."""
    if not fields:
        return None
    texts = {name.decode(): value.decode() for name, value in fields.items()}
    missing = _OWN_FIELDS - texts.keys()
    if missing:
        raise ValueError(f"not an availability hash: {', '.join(sorted(missing))} missing")
    promised = {name: int(text) for name, text in texts.items() if name not in _OWN_FIELDS}
    return Promises(int(texts[INCARNATION]), int(texts[VERSION]), int(texts[AS_OF]), promised)


def parse_health(fields: Mapping[bytes, bytes]) -> Health | None:
    """What the health hash says; None where no run has told anything yet, so that nothing can be trusted."""
    if b"watermark_ms" not in fields:
        return None
    lag = fields[b"lag_seconds"].decode()
    return Health(
        int(fields.get(b"incarnation", b"0")),
        int(fields[b"watermark_ms"]),
        None if lag == UNKNOWN_LAG else float(lag),
        int(fields[b"written_ms"]),
    )


def read_promises(client: Redis, prefix: str, sku: str) -> Promises | None:
    """What channels would read of `sku` now; None where it was never seen. `client` must not decode responses."""
    return parse_promises(_hash(client, availability_key(prefix, sku)))


def read_health(client: Redis, prefix: str) -> Health | None:
    """Whether the numbers can be trusted; None where no run has told. `client` must not decode responses."""
    return parse_health(_hash(client, health_key(prefix)))


def read_rules_in_force(client: Redis, prefix: str) -> RulesHeld | None:
    """The rules in force; None where no run has told. `client` must not decode responses."""
    fields = _hash(client, rules_key(prefix))
    if b"document" not in fields:
        return None
    return RulesHeld(
        int(fields[b"@incarnation"]),
        {int(name): _held(text) for name, text in sorted(fields.items()) if name.isdigit()},
        int(fields[b"generation"]),
        msgspec.json.decode(fields[b"document"]),
    )


def read_partitions_held(client: Redis, prefix: str) -> dict[int, Held]:
    """By partition which rules are in force, without the rules themselves, which may be large; as told so far."""
    key = rules_key(prefix)
    names = [name for name in cast("list[bytes]", client.hkeys(key)) if name.isdigit()]
    texts = cast("list[bytes | None]", client.hmget(key, names)) if names else []
    return {int(name): _held(text) for name, text in zip(names, texts, strict=True) if text is not None}


def parse_explanation(document: bytes | None) -> Explanation | None:
    """What a SKU's explanation says; None where there is none, ValueError where it is not onhand's."""
    return None if document is None else _explanation(document)


def last_incarnation(client: Redis, prefix: str) -> int:
    """The greatest incarnation that Redis has been told of, 0 where there is none; a new state draws a greater one."""
    return int(_hash(client, health_key(prefix)).get(b"incarnation", b"0"))


def _hash(client: Redis, key: str) -> dict[bytes, bytes]:
    return cast("dict[bytes, bytes]", client.hgetall(key))


_held = msgspec.json.Decoder(Held).decode
_explanation = msgspec.json.Decoder(Explanation).decode
