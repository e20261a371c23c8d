"""Commitments: contract stock of a channel, drawn down by its own orders, and who gets it where it exceeds the pool."""

from collections.abc import Sequence
from typing import NamedTuple

from schemas.movements import Deallocated, Movement, Released, Reserved, Shipped


class Ledger(NamedTuple):
    """A channel's contract stock of one SKU: agreed in all, still open, and held by its open reservations."""

    committed: int = 0
    open: int = 0
    drawn: int = 0

    def commit(self, units: int) -> "Ledger":
        """More contract stock, or less for negative `units`."""
        return Ledger(self.committed + units, self.open + units, self.drawn)

    def reserve(self, units: int) -> "Ledger":
        """The channel reserves: its own commitment is used first."""
        used = min(units, max(0, self.open))
        return Ledger(self.committed, self.open - used, self.drawn + used)

    def release(self, units: int) -> "Ledger":
        """A reservation taken back gives back what it had used."""
        back = min(units, self.drawn)
        return Ledger(self.committed, self.open + back, self.drawn - back)

    def ship(self, units: int, *, unreserved: bool) -> "Ledger":
        """What leaves the house uses the commitment up: what was held first, then, if `unreserved`, what is open."""
        held = min(units, self.drawn)
        used = min(units - held, max(0, self.open)) if unreserved else 0
        return Ledger(self.committed, self.open - used, self.drawn - held)


def ledger_after(ledger: Ledger, fact: Movement) -> Ledger:
    """What a plain fact that names the ledger's channel does to it; a reversal does nothing."""
    if fact.reversal:
        return ledger
    if isinstance(fact, Reserved):
        return ledger.reserve(fact.quantity)
    if isinstance(fact, Released) or (isinstance(fact, Deallocated) and fact.to == "on_hand"):
        return ledger.release(fact.quantity)
    if isinstance(fact, Shipped):
        return ledger.ship(fact.quantity, unreserved=fact.from_ == "on_hand")
    return ledger


class Claim(NamedTuple):
    """One channel's claim to its pool: open commitment, units of the pool, its rank, and the locations that it uses."""

    open: int
    pool_units: int
    priority: int
    locations: frozenset[int]


class Grant(NamedTuple):
    """What a channel holds of its own, and the open commitments of all that share a location with it."""

    own: int
    committed: int


def grants_of(claims: Sequence[Claim]) -> list[Grant]:
    """Serves the claims by priority, the higher first, ties in their order.

    A channel gets what its pool holds beyond the grants of those served before it that share a location with it.
    """
    own = [0] * len(claims)
    served: list[int] = []
    for index in sorted(range(len(claims)), key=lambda index: -claims[index].priority):
        claim = claims[index]
        taken = sum(own[other] for other in served if claims[other].locations & claim.locations)
        own[index] = min(max(0, claim.open), max(0, claim.pool_units - taken))
        served.append(index)
    return [
        Grant(own[index], sum(max(0, other.open) for other in claims if other.locations & claim.locations))
        for index, claim in enumerate(claims)
    ]
