"""Stock: all numbers of a lane's SKUs in columns, and what follows from them for each channel."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from operators.columns import Columns, Names, Pairs
from operators.commitments import Claim, Grant, Ledger, grants_of
from operators.history import History
from operators.levels import LEVELS, Standing, standing_after, threshold_crossed
from operators.pools import Pool, Spare, pool_of, spare_of
from operators.positions import QUANTITIES, Signs, available_units
from operators.rules import ResolvedChannel, RuleBook, SkuRules
from operators.sellable import Offer, offer_of
from schemas.outputs import Availability, ChannelAvailability, LocationAvailability
from schemas.rules import ACCOUNT_SEPARATOR
from schemas.times import format_ms

_SKU_COLUMNS: Final[dict[str, type[np.generic]]] = {
    "home": np.int32,  # row of the origin
    "version": np.int64,
    "as_of_ms": np.int64,
    "newest_ms": np.int64,
    "floor_ms": np.int64,
    "ids": np.int32,
    "pending": np.int8,  # 1: changed from outside its home since its last version
    "ledgers": np.int8,  # 1: a channel has had a commitment
}
_POSITION_COLUMNS: Final[dict[str, type[np.generic]]] = {
    "sku": np.int32,
    "location": np.int32,
    **dict.fromkeys(QUANTITIES, np.int64),
    "newest_ms": np.int64,
    "floor_ms": np.int64,
    "entry": np.int32,  # row + 1 of the newest entry of its history
    "entries": np.int32,
    "level": np.int8,
    "recovered": np.int8,
    "crossed": np.int8,
}
_STANDING_COLUMNS: Final[dict[str, type[np.generic]]] = {
    "sku": np.int32,
    "channel": np.int32,
    "level": np.int8,
    "recovered": np.int8,
    "crossed": np.int8,  # 1 after the first crossing
    "sellable": np.int64,
    "promised": np.int64,
    "contract": np.int8,  # 1 once the channel has had a commitment
    "committed": np.int64,
    "open": np.int64,
    "drawn": np.int64,
    "overcommitted": np.int64,
    "backordered": np.int64,
}
_QUANTITY: Final = {name: index for index, name in enumerate(QUANTITIES)}
_NO_GRANT: Final = Grant(0, 0)


class Change(NamedTuple):
    """Something that went from one level to another: a channel of a SKU, or a position."""

    channel: str | None
    location: str | None
    before: int
    after: int
    units: int
    threshold: int
    initial: bool


class View(NamedTuple):
    """What one channel sees of a SKU: its rule, its pool, what it holds of its own, and what it may sell."""

    rule: ResolvedChannel
    pool: Pool
    grant: Grant
    offer: Offer


class Stock:
    """Positions and standings of some SKUs; rows are dense and never go away."""

    def __init__(self, rules: RuleBook, as_of_ms: int, history_max: int) -> None:
        self._rules = rules
        self.names = Names()
        self.skus = Columns(_SKU_COLUMNS)
        self.locations = Names()
        self.positions = Columns(_POSITION_COLUMNS)
        self.history = History(self.positions, as_of_ms, history_max)
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

    def position(self, sku: int, location: str) -> int:
        """The row of the position, −1 where nothing was heard of it."""
        row = self.locations.row(location)
        return row if row < 0 else self._position_rows.row(sku, row)

    def reach(self, sku: int, location: str, time_ms: int) -> int:
        """The row of the position, made where it is new; something is known of it at `time_ms`."""
        row = self._position_rows.add(sku, self.locations.add(location))
        newest_ms = self.positions.cells["newest_ms"]
        newest_ms[row] = max(newest_ms[row], time_ms)
        return row

    def move(self, sku: int, location: str, signs: Signs, units: int, time_ms: int) -> None:
        """Adds `units` times `signs` to the position of `sku` at `location`, as of `time_ms`."""
        row = self.reach(sku, location, time_ms)
        for quantity, sign in signs.items():
            self.history.change(row, _QUANTITY[quantity], time_ms, sign * units)

    def count(self, position: int, quantity: str, time_ms: int, value: int) -> None:
        """`quantity` was `value` at `time_ms`."""
        self.history.count(position, _QUANTITY[quantity], time_ms, value)

    def value(self, position: int, quantity: str) -> int:
        """What a quantity is now."""
        return int(self.positions.cells[quantity][position])

    def value_at(self, position: int, quantity: str, time_ms: int) -> int:
        """What a quantity was at `time_ms`, which lies within the position's horizon."""
        return self.history.value_at(position, _QUANTITY[quantity], time_ms)

    def resolve_again(self, sku: int, clock_ms: int) -> bool:
        """Whether other rules hold for `sku` now that its home's clock shows `clock_ms`."""
        resolved = self._rules.resolve(self.names[sku], clock_ms, self._accounts_with_ledger(sku))
        if resolved is self._resolved[sku]:
            return False
        self._resolved[sku] = resolved
        return True

    def ledger(self, sku: int, channel: str) -> Ledger | None:
        """The channel's commitment of `sku`, None where it never had one."""
        row, cells = self._standing_row(sku, channel), self._standings.cells
        if row < 0 or not cells["contract"][row]:
            return None
        return Ledger(cells["committed"][row], cells["open"][row], cells["drawn"][row])

    def set_ledger(self, sku: int, channel: str, ledger: Ledger, clock_ms: int) -> None:
        """Writes the channel's commitment of `sku` down."""
        row = self._standing_rows.add(sku, self._channels.add(channel))
        cells = self._standings.cells
        cells["committed"][row], cells["open"][row], cells["drawn"][row] = ledger
        if not cells["contract"][row]:
            cells["contract"][row] = self.skus.cells["ledgers"][sku] = 1
            self.resolve_again(sku, clock_ms)

    def backordered(self, sku: int, channel: str) -> int:
        """Units that the channel owes of `sku`."""
        row = self._standing_row(sku, channel)
        return 0 if row < 0 else int(self._standings.cells["backordered"][row])

    def owe(self, sku: int, channel: str, units: int) -> None:
        """The channel owes `units` more of `sku`, or fewer for negative ones."""
        row = self._standing_rows.add(sku, self._channels.add(channel))
        self._standings.cells["backordered"][row] += units

    def view(self, sku: int, channel: str, clock_ms: int) -> View:
        """What `channel`, which the rules know, sees of `sku` now, whether it has a field or not."""
        accounts = self._accounts_with_ledger(sku) | ({channel} if ACCOUNT_SEPARATOR in channel else frozenset())
        resolved = self._rules.resolve(self.names[sku], clock_ms, accounts)
        return next(view for view in self._views(sku, resolved) if view.rule.name == channel)

    def spares(self, sku: int) -> dict[str, Spare]:
        """What each position of `sku` could give, by location."""
        return {self.locations[spare.location]: spare for spare in self._spares(sku, self._resolved[sku])}

    def offers_after(self, sku: int) -> list[Change]:
        """Works out what everybody may sell of `sku` now; returns the levels that changed, channels first."""
        resolved = self._resolved[sku]
        changes = [change for view in self._views(sku, resolved) if (change := self._stand(sku, view)) is not None]
        changes.extend(self._positions_after(sku, resolved))
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
            dict(self._channel_availabilities(sku)),
            self._location_availabilities(sku),
        )

    def dump(self) -> dict[str, Any]:
        """Everything but the rules, as plain values and bytes."""
        return {
            "skus": list(self.names),
            "locations": list(self.locations),
            "channels": list(self._channels),
            "history": self.history.dump(),
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
        self.history.load(dumped["history"])
        homes = self.skus["home"].tolist()
        self._resolved = [
            self._rules.resolve(name, clocks_ms[home], self._accounts_with_ledger(sku))
            for sku, (name, home) in enumerate(zip(self.names, homes, strict=True))
        ]

    def _standing_row(self, sku: int, channel: str) -> int:
        row = self._channels.row(channel)
        return row if row < 0 else self._standing_rows.row(sku, row)

    def _accounts_with_ledger(self, sku: int) -> frozenset[str]:
        """Accounts that have had a commitment: their levels are looked at although no rule names them."""
        if not self.skus.cells["ledgers"][sku]:
            return frozenset()
        cells = self._standings.cells
        names = (self._channels[cells["channel"][row]] for row in self._standing_rows.of(sku) if cells["contract"][row])
        return frozenset(name for name in names if ACCOUNT_SEPARATOR in name)

    def _views(self, sku: int, resolved: SkuRules) -> Iterator[View]:
        """What each channel of `resolved` sees of `sku`, in the order of the rules."""
        spares = self._spares(sku, resolved)
        pools: dict[frozenset[str] | None, Pool] = {}
        for rule in resolved.channels:
            if rule.locations not in pools:
                pools[rule.locations] = pool_of(spares, self._draws_on(rule))
        grants = self._grants(sku, resolved, spares, pools) if self.skus.cells["ledgers"][sku] else {}
        for rule in resolved.channels:
            pool, grant = pools[rule.locations], grants.get(rule.name, _NO_GRANT)
            backordered = self.backordered(sku, rule.name) if rule.backorder_units else 0
            yield View(rule, pool, grant, offer_of(rule, pool, grant.own, grant.committed, backordered))

    def _grants(
        self, sku: int, resolved: SkuRules, spares: list[Spare], pools: dict[frozenset[str] | None, Pool]
    ) -> dict[str, Grant]:
        """How the contract stock of `sku` is served, by channel."""
        claims = []
        for rule in resolved.channels:
            draws = self._draws_on(rule)
            used = frozenset(spare.location for spare in spares if draws[spare.location])
            ledger = self.ledger(sku, rule.name) or Ledger()
            claims.append(Claim(ledger.open, pools[rule.locations].units, self._rules.priority(rule.name), used))
        granted = grants_of(claims)
        for rule, claim, grant in zip(resolved.channels, claims, granted, strict=True):
            row = self._standing_rows.add(sku, self._channels.add(rule.name))
            self._standings.cells["overcommitted"][row] = max(0, claim.open) - grant.own
        return {rule.name: grant for rule, grant in zip(resolved.channels, granted, strict=True)}

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

    def _stand(self, sku: int, view: View) -> Change | None:
        """Writes down what the channel may sell, and where it stands with it."""
        rule, offer = view.rule, view.offer
        row = self._standing_rows.add(sku, self._channels.add(rule.name))
        cells = self._standings.cells
        cells["sellable"][row], cells["promised"][row] = offer
        return _cross(
            cells, row, offer.sellable, rule.low_stock_at, rule.recovered_at, channel=rule.name, location=None
        )

    def _positions_after(self, sku: int, resolved: SkuRules) -> Iterator[Change]:
        """The positions with a threshold whose level changed."""
        cells = self.positions.cells
        for row in self._position_rows.of(sku):
            location = self.locations[cells["location"][row]]
            low_stock_at = self._rules.low_stock_at(resolved, location)
            if low_stock_at is None:
                continue
            available = available_units(
                cells["on_hand"][row], cells["reserved"][row], cells["allocated"][row], cells["quarantined"][row]
            )
            change = _cross(cells, row, available, low_stock_at, low_stock_at + 1, channel=None, location=location)
            if change is not None:
                yield change

    def _channel_availabilities(self, sku: int) -> Iterator[tuple[str, ChannelAvailability]]:
        """Every channel with a field; an account has one where a rule names it or it has a contract."""
        resolved, cells = self._resolved[sku], self._standings.cells
        for rule in resolved.channels:
            row = self._standing_row(sku, rule.name)
            is_account = ACCOUNT_SEPARATOR in rule.name
            if is_account and rule.name not in resolved.named and cells["committed"][row] <= 0:
                continue
            yield (
                rule.name,
                ChannelAvailability(
                    cells["promised"][row],
                    cells["sellable"][row],
                    LEVELS[cells["level"][row]],
                    cells["overcommitted"][row],
                ),
            )

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


def _cross(  # a level is four numbers and a name
    cells: dict[str, memoryview],
    row: int,
    units: int,
    low_stock_at: int,
    recovered_at: int,
    *,
    channel: str | None,
    location: str | None,
) -> Change | None:
    """Writes down where `row` stands with `units`; the change where its level is another one."""
    before = Standing(cells["level"][row], cells["recovered"][row] != 0)
    after = standing_after(before, units, low_stock_at, recovered_at)
    if after == before:
        return None
    cells["level"][row], cells["recovered"][row] = after
    if after.level == before.level:
        return None
    initial = not cells["crossed"][row]
    cells["crossed"][row] = 1
    threshold = threshold_crossed(before.level, after.level, low_stock_at, recovered_at)
    return Change(channel, location, before.level, after.level, units, threshold, initial)
