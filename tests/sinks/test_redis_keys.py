"""What readers know of Redis: names of keys and fields, and what a hash says."""

import pytest
from redis import Redis

from sinks.redis_keys import (
    Health,
    Promises,
    availability_key,
    fields_of,
    health_key,
    parse_health,
    parse_promises,
    read_promises,
)

OWN = {b"@incarnation": b"7", b"@version": b"9007199254740993", b"@as_of": b"1700000000123"}


def test_keys_carry_the_prefix() -> None:
    """Availability and health share a prefix; no SKU begins with `@`."""
    assert availability_key("avail:", "SKU-1") == "avail:SKU-1"
    assert health_key("avail:") == "avail:@health"


def test_a_hash_says_what_each_channel_may_sell() -> None:
    """Channels apart from onhand's own fields, versions exact."""
    promises = parse_promises({**OWN, b"web": b"3", b"b2b/acme": b"0"})
    assert promises == Promises(7, 2**53 + 1, 1_700_000_000_123, {"web": 3, "b2b/acme": 0})


@pytest.mark.parametrize(
    ("channel", "units"), [("web", 3), ("b2b/acme", 0), ("b2b/other", 5), ("b2b", 5), ("store", 0), ("store/1", 0)]
)
def test_an_account_without_a_field_of_its_own_reads_its_kind(channel: str, units: int) -> None:
    """`b2b/other` falls back to `b2b`; a channel that is not there may sell nothing."""
    assert Promises(1, 1, 1, {"web": 3, "b2b": 5, "b2b/acme": 0}).to(channel) == units


def test_the_fields_to_ask_for() -> None:
    """HMGET asks for an account and its kind in one go."""
    assert fields_of("b2b/acme") == ("b2b/acme", "b2b")
    assert fields_of("web") == ("web",)


def test_a_sku_without_a_hash_was_never_seen(client: Redis) -> None:
    """None, not an error and not zero channels."""
    assert read_promises(client, "avail:", "SKU-1") is None


def test_a_hash_of_somebody_else_is_an_error() -> None:
    """A prefix that points to other data is noticed."""
    with pytest.raises(ValueError, match=r"not an availability hash: @as_of, @incarnation, @version missing"):
        parse_promises({b"name": b"value"})


def test_health_with_a_known_and_an_unknown_lag() -> None:
    """An unknown lag is None, so that nobody takes it for a number."""
    fields = {b"incarnation": b"7", b"watermark_ms": b"1000", b"lag_seconds": b"1.5", b"written_ms": b"2000"}
    assert parse_health(fields) == Health(7, 1000, 1.5, 2000)
    assert parse_health({**fields, b"lag_seconds": b"inf"}) == Health(7, 1000, None, 2000)
    assert parse_health({b"incarnation": b"7"}) is None
