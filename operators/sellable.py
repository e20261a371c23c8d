"""Sellable: what a channel may promise out of its pool."""

from typing import NamedTuple

from operators.pools import Pool
from operators.rules import ResolvedChannel

PERCENT = 100


class Offer(NamedTuple):
    """What a channel may sell from stock, and what it may promise with backorders and its cap."""

    sellable: int
    promised: int


NOTHING = Offer(0, 0)


def offer_of(rule: ResolvedChannel, pool: Pool, own: int = 0, committed: int = 0, backordered: int = 0) -> Offer:
    """What the channel of `rule` may sell out of `pool`.

    `own` are the units of the pool that the channel's open commitment holds, `committed` the open commitments of all
    channels that share a location with it (its own too), `backordered` what it owes already.
    """
    if not rule.sell:
        return NOTHING
    if rule.commitment_only:
        return Offer(own, own if rule.cap_units is None else min(own, rule.cap_units))
    free = max(0, pool.units - committed)
    sellable = own + max(0, free * rule.share_percent // PERCENT - safety_units(rule, free))
    promised = sellable + max(0, rule.backorder_units - backordered - pool.shortfall)
    return Offer(sellable, promised if rule.cap_units is None else min(promised, rule.cap_units))


def safety_units(rule: ResolvedChannel, free: int) -> int:
    """max(units, ⌈percent × free⌉): what the channel keeps back of what is free."""
    return max(rule.safety_units, -(-free * rule.safety_percent // PERCENT))
