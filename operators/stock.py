"""Stock: all numbers of a lane's SKUs in columns, and what follows from them for each channel."""

from typing import Any, Final

import numpy as np

from operators.columns import Columns, Names, Pairs
from operators.levels import LEVELS, Standing, standing_after, threshold_crossed
from operators.pools import Pool, Spare, pool_of, spare_of
from operators.positions import QUANTITIES, Signs, available_units
from operators.rules import ResolvedChannel, RuleBook, SkuRules
from operators.sellable import Offer, offer_of
from schemas.outputs import Availability, ChannelAvailability, LocationAvailability
from schemas.times import format_ms

_SKU_COLUMNS: Final[dict[str, type[np.generic]]] = {
    "home": np.int32,  # row of the origin
    "version": np.int64,
    "as_of_ms": np.int64,
    "newest_ms": np.int64,
    "floor_ms": np.int64,
    "ids": np.int32,
    "pending": np.int8,  # 1: changed from outside its home since its last version
}
_POSITION_COLUMNS: Final[dict[str, type[np.generic]]] = {
    "sku": np.int32,
    "location": np.int32,
    **dict.fromkeys(QUANTITIES, np.int64),
}
_STANDING_COLUMNS: Final[dict[str, type[np.generic]]] = {
    "sku": np.int32,
    "channel": np.int32,
    "level": np.int8,
    "recovered": np.int8,
    "crossed": np.int8,  # 1 after the first crossing
    "sellable": np.int64,
    "promised": np.int64,
}


class Change:
    """One channel of a SKU that went from one level to another."""

    __slots__ = ("after", "before", "initial", "rule", "sellable")

    def __init__(self, rule: ResolvedChannel, before: int, after: int, sellable: int, *, initial: bool) -> None:
        self.rule = rule
        self.before = before
        self.after = after
        self.sellable = sellable
        self.initial = initial

    @property
    def threshold(self) -> int:
        """Units at which this change happens."""
        return threshold_crossed(self.before, self.after, self.rule.low_stock_at, self.rule.recovered_at)


class Stock:
    """Positions and standings of some SKUs; rows are dense and never go away."""

    def __init__(self, rules: RuleBook) -> None:
        self._rules = rules
        self.names = Names()
        self.skus = Columns(_SKU_COLUMNS)
        self.locations = Names()
        self.positions = Columns(_POSITION_COLUMNS)
        self._position_rows = Pairs(self.positions, "sku", "location")
        self._channels = Names()
        self._standings = Columns(_STANDING_COLUMNS)
        self._standing_rows = Pairs(self._standings, "sku", "channel")
        self._resolved: list[SkuRules] = []  # by SKU
        self._draws: dict[frozenset[str] | None, list[bool]] = {}  # by a channel's locations, then location row
        self._safety: dict[int, list[int]] = {}  # by identity of a SkuRules, which live as long as the rules

    def add_sku(self, name: str, home: int, clock_ms: int) -> int:
        """A SKU met for the first time, at home in the origin `home` whose clock shows `clock_ms`."""
        sku = self.names.add(name)
        self.skus.add_row()
        self.skus.cells["home"][sku] = home
        self._resolved.append(self._rules.resolve(name, clock_ms))
        return sku

    def move(self, sku: int, location: str, signs: Signs, units: int) -> None:
        """Adds `units` times `signs` to the position of `sku` at `location`, which is made where it is new."""
        row = self._position_rows.add(sku, self.locations.add(location))
        cells = self.positions.cells
        for quantity, sign in signs.items():
            cells[quantity][row] += sign * units

    def resolve_again(self, sku: int, clock_ms: int) -> bool:
        """Whether other rules hold for `sku` now that its home's clock shows `clock_ms`."""
        resolved = self._rules.resolve(self.names[sku], clock_ms)
        if resolved is self._resolved[sku]:
            return False
        self._resolved[sku] = resolved
        return True

    def offers_after(self, sku: int) -> list[Change]:
        """Works out what each channel may sell of `sku` now; returns the levels that changed, in channel order."""
        resolved = self._resolved[sku]
        spares = self._spares(sku, resolved)
        pools: dict[frozenset[str] | None, Pool] = {}
        changes = []
        for rule in resolved.channels:
            pool = pools.get(rule.locations)
            if pool is None:
                pool = pools[rule.locations] = pool_of(spares, self._draws_on(rule))
            if change := self._stand(sku, rule, offer_of(rule, pool)):
                changes.append(change)
        return changes

    def availability(self, sku: int, incarnation: int) -> Availability:
        """The record of everything that is known about `sku` now."""
        cells = self.skus.cells
        return Availability(
            self.names[sku],
            incarnation,
            cells["version"][sku],
            format_ms(cells["as_of_ms"][sku]),
            self._rules.generation,
            {rule.name: self._channel_availability(sku, rule) for rule in self._resolved[sku].channels},
            self._location_availabilities(sku),
        )

    def dump(self) -> dict[str, Any]:
        """Everything but the rules, as plain values and bytes."""
        return {
            "skus": list(self.names),
            "locations": list(self.locations),
            "channels": list(self._channels),
            "sku_columns": self.skus.dump(),
            "position_columns": self.positions.dump(),
            "standing_columns": self._standings.dump(),
        }

    def load(self, dumped: dict[str, Any], clocks_ms: list[int]) -> None:
        """Replaces everything; `clocks_ms` are the clocks of the origins that SKUs are at home in."""
        for names, known in (("skus", self.names), ("locations", self.locations), ("channels", self._channels)):
            for name in dumped[names]:
                known.add(name)
        self.skus.load(dumped["sku_columns"])
        self.positions.load(dumped["position_columns"])
        self._standings.load(dumped["standing_columns"])
        self._position_rows.rebuild()
        self._standing_rows.rebuild()
        homes = self.skus["home"].tolist()
        self._resolved = [
            self._rules.resolve(name, clocks_ms[home]) for name, home in zip(self.names, homes, strict=True)
        ]

    def _spares(self, sku: int, resolved: SkuRules) -> list[Spare]:
        """What each position of `sku` gives to the pools."""
        cells = self.positions.cells
        locations, on_hand, reserved = cells["location"], cells["on_hand"], cells["reserved"]
        allocated, quarantined = cells["allocated"], cells["quarantined"]
        safety = self._safety_units(resolved)
        spares = []
        for row in self._position_rows.of(sku):
            available = available_units(on_hand[row], reserved[row], allocated[row], quarantined[row])
            spares.append(spare_of(locations[row], available, safety[locations[row]]))
        return spares

    def _safety_units(self, resolved: SkuRules) -> list[int]:
        """By location row, the units of a SKU with these rules that stay there."""
        safety = self._safety.setdefault(id(resolved), [])
        while len(safety) < len(self.locations):
            safety.append(self._rules.safety_units(resolved, self.locations[len(safety)]))
        return safety

    def _draws_on(self, rule: ResolvedChannel) -> list[bool]:
        """By location row, whether the channel sells from there."""
        draws = self._draws.setdefault(rule.locations, [])
        while len(draws) < len(self.locations):
            draws.append(self._rules.draws_on(rule.locations, self.locations[len(draws)]))
        return draws

    def _stand(self, sku: int, rule: ResolvedChannel, offer: Offer) -> Change | None:
        """Writes down what the channel may sell, and where it stands with it."""
        row = self._standing_rows.add(sku, self._channels.add(rule.name))
        cells = self._standings.cells
        cells["sellable"][row], cells["promised"][row] = offer
        before = Standing(cells["level"][row], cells["recovered"][row] != 0)
        after = standing_after(before, offer.sellable, rule.low_stock_at, rule.recovered_at)
        if after == before:
            return None
        cells["level"][row], cells["recovered"][row] = after
        if after.level == before.level:
            return None
        initial = not cells["crossed"][row]
        cells["crossed"][row] = 1
        return Change(rule, before.level, after.level, offer.sellable, initial=initial)

    def _channel_availability(self, sku: int, rule: ResolvedChannel) -> ChannelAvailability:
        row = self._standing_rows.row(sku, self._channels.row(rule.name))
        cells = self._standings.cells
        return ChannelAvailability(cells["promised"][row], cells["sellable"][row], LEVELS[cells["level"][row]])

    def _location_availabilities(self, sku: int) -> dict[str, LocationAvailability]:
        cells = self.positions.cells
        columns = [cells[quantity] for quantity in QUANTITIES]
        found = {}
        for row in self._position_rows.of(sku):
            on_hand, reserved, allocated, picked, quarantined, in_transit, incoming = (
                column[row] for column in columns
            )
            found[self.locations[cells["location"][row]]] = LocationAvailability(
                on_hand, reserved, allocated, picked, quarantined, in_transit, incoming,
                available_units(on_hand, reserved, allocated, quarantined),
            )  # fmt: skip
        return found
