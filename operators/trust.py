"""Trust: how much of a location's stock is believed, as each partition was told."""

from collections.abc import Iterable
from typing import Final

TRUSTED_PERCENT: Final = 100

Trusts = dict[str, int]  # by location, in percent; what is not named is trusted


class Trust:
    """Trust by origin (a dense row number) and location; only what is less than trusted is kept."""

    def __init__(self) -> None:
        self._by_origin: dict[int, Trusts] = {}
        self.changes = 0

    def of(self, origin: int) -> Trusts | None:
        """What is less than trusted in `origin`; None where everything is trusted."""
        return self._by_origin.get(origin)

    def percents(self, origin: int, locations: Iterable[str]) -> list[int]:
        """How much `origin` trusts each of `locations`."""
        trusts = self._by_origin.get(origin, {})
        return [trusts.get(location, TRUSTED_PERCENT) for location in locations]

    def tell(self, origin: int, location: str, percent: int) -> int:
        """`origin` was told to trust `location` by `percent`; returns what held before."""
        trusts = self._by_origin.setdefault(origin, {})
        before = trusts.pop(location, TRUSTED_PERCENT)
        self.changes += percent != before
        if percent != TRUSTED_PERCENT:
            trusts[location] = percent
        if not trusts:
            del self._by_origin[origin]
        return before

    def dump(self) -> list[tuple[int, str, int]]:
        """Everything, as plain values."""
        return [(origin, *entry) for origin, trusts in self._by_origin.items() for entry in trusts.items()]

    def load(self, dumped: list[tuple[int, str, int]]) -> None:
        """Replaces everything."""
        self._by_origin = {}
        self.changes += 1
        for origin, location, percent in dumped:
            self.tell(origin, location, percent)


def trusted_units(available: int, percent: int) -> int:
    """What of `available` counts; a debt counts in full."""
    return available * percent // TRUSTED_PERCENT if available > 0 else available
