"""Offers: what every channel may sell of one SKU, from what its positions can spare."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from operators.commitments import Claim, Grant, Ledger, grants_of
from operators.pools import Pool, Spare, pool_of
from operators.rules import DYNAMIC, ResolvedChannel
from operators.sellable import Offer, offer_of

_NO_GRANT: Final = Grant(0, 0)
_NO_LEDGER: Final = Ledger()


class View(NamedTuple):
    """What one channel sees of a SKU: its rule, its pool, what it holds of its own, and what it may sell."""

    rule: ResolvedChannel
    pool: Pool
    grant: Grant
    offer: Offer
    overcommitted: int  # units of its open contract stock that it was not granted
    backordered: int  # units that it owes, where it may owe any


def views_of(  # a SKU is what it is made of
    channels: Sequence[ResolvedChannel],
    spares: Collection[Spare],
    draws_on: Callable[[ResolvedChannel], Sequence[bool]],
    ledgers: Mapping[str, Ledger],
    backordered: Callable[[str], int],
    dynamic: Sequence[tuple[int, int]] = (),
) -> Iterator[View]:
    """The views of all `channels`, in their order.

    `draws_on` gives, by location row, whether a channel sells from there; `ledgers` the contract stock of those that
    ever had any; `dynamic` the safety units, by location row, that follow from demand, where a rule wants them.
    """
    pools: dict[frozenset[str] | None, Pool] = {}
    for rule in channels:
        if rule.locations not in pools:
            pools[rule.locations] = pool_of(spares, draws_on(rule))
    grants = _grants(channels, spares, draws_on, ledgers, pools) if ledgers else {}
    for rule in channels:
        pool, grant = pools[rule.locations], grants.get(rule.name, _NO_GRANT)
        held = _with_numbers(rule, draws_on(rule), dynamic) if rule.safety_units == DYNAMIC else rule
        owed = backordered(rule.name) if rule.backorder_units else 0
        short = max(0, ledgers.get(rule.name, _NO_LEDGER).open) - grant.own if ledgers else 0
        yield View(held, pool, grant, offer_of(held, pool, grant.own, grant.committed, owed), short, owed)


def _with_numbers(rule: ResolvedChannel, draws: Sequence[bool], dynamic: Sequence[tuple[int, int]]) -> ResolvedChannel:
    """A dynamic safety stock of a channel is the sum of those of the positions that it draws on."""
    return rule._replace(safety_units=sum(units for location, units in dynamic if draws[location]))


def _grants(
    channels: Sequence[ResolvedChannel],
    spares: Collection[Spare],
    draws_on: Callable[[ResolvedChannel], Sequence[bool]],
    ledgers: Mapping[str, Ledger],
    pools: Mapping[frozenset[str] | None, Pool],
) -> dict[str, Grant]:
    """How the contract stock is served, by channel."""
    claims = []
    for rule in channels:
        draws = draws_on(rule)
        used = frozenset(spare.location for spare in spares if draws[spare.location])
        ledger = ledgers.get(rule.name, _NO_LEDGER)
        claims.append(Claim(ledger.open, pools[rule.locations].units, rule.priority, used))
    return {rule.name: grant for rule, grant in zip(channels, grants_of(claims), strict=True)}
