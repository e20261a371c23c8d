"""Stock: all numbers of a lane's SKUs in columns, and what follows from them for each channel."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from operators.columns import Array, Columns, IndexedNames, NameIndex, Names, Pairs
from operators.commitments import Ledger
from operators.generations import Generations
from operators.history import History
from operators.levels import LEVELS, Standing, standing_after, threshold_crossed
from operators.offers import View, views_of
from operators.pools import Spare, spare_of
from operators.positions import QUANTITIES, Signs, available_units
from operators.reorder import NO_DEMAND, Demand, days_of_cover, dynamic_safety_units
from operators.reorder_points import DemandState
from operators.rule_columns import PlainRules
from operators.rules import DYNAMIC, PlaceRules, ResolvedChannel, RuleBook, SkuRules
from operators.standings import Standings
from operators.ticks import Clocks
from operators.trust import TRUSTED_PERCENT, Trust, trusted_units
from operators.windows import DAYS, Windows
from schemas.outputs import Availability, ChannelAvailability, LocationAvailability
from schemas.rules import ACCOUNT_SEPARATOR
from schemas.times import DAY_MS, format_ms

_SKU_COLUMNS: Final[dict[str, type[np.generic]]] = {
    "home": np.int32,  # row of the origin
    "version": np.int64,
    "as_of_ms": np.int64,
    "generation": np.int64,  # of the rules, as of the version
    "seen_ms": np.int64,  # the moment that figures of demand are as of, as of the version
    "evaluated_day": np.int32,  # of the latest look at what follows from its demand
    "newest_ms": np.int64,
    "floor_ms": np.int64,
    "pending": np.int8,  # 1: changed from outside its home since its last version
    "ledgers": np.int8,  # 1: a channel has had a commitment
}
_SKU_COLUMNS_DERIVED: Final[dict[str, type[np.generic]]] = {
    "ids": np.int32,  # how many are kept of it
    "classes": np.int32,  # of its rules among the plain ones, −1: none
    "special": np.int8,  # 1: more than plain movements concern it
    "touched": np.int64,  # the number of the compiled call that touched it last
}
_POSITION_COLUMNS: Final[dict[str, type[np.generic]]] = {
    "sku": np.int32,
    "location": np.int32,
    **dict.fromkeys(QUANTITIES, np.int64),
    "newest_ms": np.int64,
    "floor_ms": np.int64,
    "level": np.int8,
    "recovered": np.int8,
    "crossed": np.int8,
    "stock_day": np.int32,  # the latest day of which it is known whether anything was available
    "stock_days": np.int32,  # bit k: something was available k days before that
    "proposed": np.int64,  # units of its open replenishment proposal, 0: none
    "expected": np.int8,  # 1: a purchase was announced since its SKU was planned last
}
_POSITION_COLUMNS_DERIVED: Final[dict[str, type[np.generic]]] = {
    "entry": np.int32,  # row + 1 of the newest entry of its history
    "entries": np.int32,
    "counted_ms": np.int64,  # the time of the latest count of any of its quantities; 0: there was none
}
DEMANDS_MAX: Final = 256  # of one lane, that are remembered: each takes some 400 bytes
_QUANTITY: Final = {name: index for index, name in enumerate(QUANTITIES)}
_STOCK_DAYS_MASK: Final = (1 << DAYS) - 1
_WHOLE_DAYS_MASK: Final = (1 << DAYS - 1) - 1  # without today, which is not over

Channels = dict[str, ChannelAvailability]


class Change(NamedTuple):
    """Something that went from one level to another: a channel of a SKU, or a position."""

    channel: str | None
    location: str | None
    before: int
    after: int
    units: int
    threshold: int
    initial: bool


class _Lookups:
    """What one SkuRules says, by location row."""

    def __init__(self, resolved: SkuRules) -> None:
        self._resolved = resolved
        self._places: list[PlaceRules] = []
        self._draws: dict[frozenset[str] | None, list[bool]] = {}

    def places(self, locations: Names) -> list[PlaceRules]:
        while len(self._places) < len(locations):
            self._places.append(self._resolved.at(locations[len(self._places)]))
        return self._places

    def draws(self, rule: ResolvedChannel, locations: Names) -> list[bool]:
        draws = self._draws.setdefault(rule.locations, [])
        while len(draws) < len(locations):
            draws.append(self._resolved.draws_on(rule, locations[len(draws)]))
        return draws


class Stock:
    """Positions and standings of some SKUs; rows are dense and never go away."""

    def __init__(self, generations: Generations, clocks: Clocks, trust: Trust, as_of_ms: int, history_max: int) -> None:
        self._generations = generations
        self._clocks = clocks
        self._trust = trust
        self.names = NameIndex()
        self.skus = Columns(_SKU_COLUMNS, _SKU_COLUMNS_DERIVED)
        self.homes: set[int] = set()  # origins in which SKUs are at home
        self.locations = IndexedNames()
        self.positions = Columns(_POSITION_COLUMNS, _POSITION_COLUMNS_DERIVED)
        self.history = History(self.positions, as_of_ms, history_max)
        self.demand_windows = Windows()
        self.return_windows = Windows()
        self._position_rows = Pairs(self.positions, "sku", "location")
        self._channels = Names()
        self._standings = Standings()
        self._standing_rows = Pairs(self._standings, "sku", "channel")
        self._resolved: list[SkuRules] = []  # by SKU
        self.plain_rules = PlainRules(self.locations, self._channels)
        self._lookups: dict[SkuRules, _Lookups] = {}
        self._demands: dict[int, tuple[DemandState, Demand]] = {}  # by position, with what it holds for: the last ones

    def add_sku(self, name: str, home: int, clock_ms: int) -> int:
        """A SKU met for the first time, at home in the origin `home` whose clock shows `clock_ms`."""
        self.add_skus([name], home, clock_ms)
        return self.skus.rows - 1

    def add_skus(self, names: Sequence[str], home: int, clock_ms: int) -> None:
        """As `add_sku`, several different ones."""
        first, book = self.skus.rows, self._generations[home].book
        self.homes.add(home)
        self.names.extend(names)
        self.skus.add_rows(len(names))
        self.skus["home"][first:] = home
        self._resolved.extend(book.resolve(name, clock_ms) for name in names)
        self.skus["classes"][first:] = [self.plain_rules.class_of(resolved) for resolved in self._resolved[first:]]

    def book(self, sku: int) -> RuleBook:
        """The rules that the home of `sku` goes by."""
        return self._generations[self.skus.cells["home"][sku]].book

    def rules_of(self, sku: int) -> SkuRules:
        """What holds for `sku`."""
        return self._resolved[sku]

    def clock_ms(self, sku: int) -> int:
        """What the clock of the home of `sku` shows."""
        return self._clocks[self.skus.cells["home"][sku]]

    def position(self, sku: int, location: str) -> int:
        """The row of the position, −1 where nothing was heard of it."""
        row = self.locations.row(location)
        return row if row < 0 else self._position_rows.row(sku, row)

    def positions_of(self, sku: int) -> list[int]:
        """The rows of all positions of `sku`, in the order in which they were met; not to be changed."""
        return self._position_rows.of(sku)

    def location_of(self, position: int) -> str:
        """The name of the position's location."""
        return self.locations[self.positions.cells["location"][position]]

    def reach(self, sku: int, location: str, time_ms: int) -> int:
        """The row of the position, made where it is new; something is known of it at `time_ms`."""
        row = self._position_rows.add(sku, self.locations.add(location))
        cells = self.positions.cells
        newest_ms = cells["newest_ms"]
        if not newest_ms[row] and not cells["stock_day"][row]:
            cells["stock_day"][row] = time_ms // DAY_MS
        newest_ms[row] = max(newest_ms[row], time_ms)
        return row

    def move(self, sku: int, location: str, signs: Signs, units: int, time_ms: int) -> int:
        """Adds `units` times `signs` to the position of `sku` at `location`, as of `time_ms`; returns its row."""
        row = self.reach(sku, location, time_ms)
        before = self.available(row)
        for quantity, sign in signs.items():
            self.history.change(row, _QUANTITY[quantity], time_ms, sign * units)
        self._note_stock(row, time_ms, before)
        return row

    def count(self, position: int, quantity: str, time_ms: int, value: int) -> None:
        """`quantity` was `value` at `time_ms`."""
        before = self.available(position)
        self.history.count(position, _QUANTITY[quantity], time_ms, value)
        self._note_stock(position, time_ms, before)

    def sell(self, position: int, time_ms: int, units: int) -> None:
        """`units` left the position for those who wanted them, at `time_ms`."""
        self.demand_windows.add(position, time_ms, units)

    def value(self, position: int, quantity: str) -> int:
        """What a quantity is now."""
        return int(self.positions.cells[quantity][position])

    def available(self, position: int) -> int:
        """What is there and free now."""
        cells = self.positions.cells
        return available_units(
            cells["on_hand"][position],
            cells["reserved"][position],
            cells["allocated"][position],
            cells["quarantined"][position],
        )

    def value_at(self, position: int, quantity: str, time_ms: int) -> int:
        """What a quantity was at `time_ms`, which lies within the position's horizon."""
        return self.history.value_at(position, _QUANTITY[quantity], time_ms)

    def resolve_again(self, sku: int, clock_ms: int) -> SkuRules | None:
        """What held for `sku` before, where now that its home's clock shows `clock_ms` other rules do; else None."""
        resolved = self.book(sku).resolve(self.names[sku], clock_ms, self._accounts_with_ledger(sku))
        before = self._resolved[sku]
        if resolved is before:
            return None
        self._resolved[sku] = resolved
        self._classify(sku)
        return None if before == resolved else before

    def forget_lookups(self) -> None:
        """Other rules are in force: what was looked up in those before is of no use any more."""
        self._lookups.clear()
        self.plain_rules.forget()
        for sku in range(self.skus.rows):
            self._classify(sku)

    def ledger(self, sku: int, channel: str) -> Ledger | None:
        """The channel's commitment of `sku`, None where it never had one."""
        row = self._standing_row(sku, channel)
        return None if row < 0 else self._standings.ledger(row)

    def set_ledger(self, sku: int, channel: str, ledger: Ledger, clock_ms: int) -> None:
        """Writes the channel's commitment of `sku` down."""
        row = self._standing_rows.add(sku, self._channels.add(channel))
        is_first = self._standings.ledger(row) is None
        self._standings.set_ledger(row, ledger)
        if is_first:
            self.skus.cells["ledgers"][sku] = 1
            self.resolve_again(sku, clock_ms)

    def backordered(self, sku: int, channel: str) -> int:
        """Units that the channel owes of `sku`."""
        row = self._standing_row(sku, channel)
        return 0 if row < 0 else self._standings.backordered(row)

    def owe(self, sku: int, channel: str, units: int) -> None:
        """The channel owes `units` more of `sku`, or fewer for negative ones."""
        row = self._standing_rows.add(sku, self._channels.add(channel))
        self._standings.owe(row, units)

    def view(self, sku: int, channel: str, clock_ms: int) -> View:
        """What `channel`, which the rules know, sees of `sku` now, with a field or without, if everybody is trusted."""
        accounts = self._accounts_with_ledger(sku) | ({channel} if ACCOUNT_SEPARATOR in channel else frozenset())
        resolved = self.book(sku).resolve(self.names[sku], clock_ms, accounts)
        moment_ms = self.moment_ms(sku)
        spares = self._spares(sku, resolved, moment_ms, is_trusting=True)
        return next(view for view in self._views(sku, resolved, spares, moment_ms) if view.rule.name == channel)

    def views(self, sku: int, resolved: SkuRules, moment_ms: int) -> tuple[list[Spare], list[View]]:
        """What the positions of `sku` spare, and what every channel sees of it, under `resolved` as of `moment_ms`."""
        spares = self._spares(sku, resolved, moment_ms)
        return spares, list(self._views(sku, resolved, spares, moment_ms))

    def draws(self, resolved: SkuRules, rule: ResolvedChannel) -> list[bool]:
        """By location row, whether the channel of `rule` sells from there."""
        return self._lookups_of(resolved).draws(rule, self.locations)

    def shadow_of(self, sku: int, book: RuleBook) -> SkuRules:
        """What would hold for `sku` if its home went by `book`."""
        return book.resolve(self.names[sku], self.clock_ms(sku), self._accounts_with_ledger(sku))

    def spares(self, sku: int) -> dict[str, Spare]:
        """What each position of `sku` could give, by location, if everybody is trusted."""
        found = self._spares(sku, self._resolved[sku], self.moment_ms(sku), is_trusting=True)
        return {self.locations[spare.location]: spare for spare in found}

    def trust_percent(self, position: int) -> int:
        """How much of the position is believed."""
        cells = self.positions.cells
        trusts = self._trust.of(self.skus.cells["home"][cells["sku"][position]])
        return TRUSTED_PERCENT if trusts is None else trusts.get(self.location_of(position), TRUSTED_PERCENT)

    def place(self, position: int) -> PlaceRules:
        """What holds for the position."""
        cells = self.positions.cells
        return self._places(self._resolved[cells["sku"][position]])[cells["location"][position]]

    def safety_units(self, position: int, moment_ms: int) -> int:
        """Units that stay unsold at the position, as of `moment_ms`."""
        return self._safety(position, self.place(position), moment_ms)

    def moment_ms(self, sku: int) -> int:
        """The moment that figures of demand are as of now: the home's clock, or the newest that was told of the SKU."""
        cells = self.skus.cells
        return max(self._clocks[cells["home"][sku]], cells["newest_ms"][sku])

    def demand(self, position: int, moment_ms: int) -> Demand:
        """Demand per day over the 28 days before the day of `moment_ms`, without days wholly out of stock."""
        if position not in self.demand_windows:
            return NO_DEMAND
        state = self.demand_state(position, moment_ms // DAY_MS)
        known = self._demands.get(position)
        if known is not None and known[0] == state:
            return known[1]
        demand = self._demand(position, state.day)
        if len(self._demands) >= DEMANDS_MAX:
            self._demands.clear()
        self._demands[position] = (state, demand)
        return demand

    def demand_state(self, position: int, day: int) -> DemandState:
        """What the demand over the 28 days before `day` follows from."""
        cells = self.positions.cells
        stock_days = cells["stock_day"][position], cells["stock_days"][position]
        return DemandState(day, self.available(position) > 0, *stock_days, *self.demand_windows.as_of(position, day))

    def trust_table(self) -> Array:
        """How much each home believes each location, in percent."""
        homes = range(len(self._generations))
        table = [self._trust.percents(home, self.locations) for home in homes]
        return np.array(table, np.int64).reshape(len(homes), len(self.locations))

    @property
    def trust_changes(self) -> tuple[int, int]:
        """Changes when `trust_table` did, but for new locations."""
        return self._trust.changes, len(self._generations)

    def observed_days(self, position: int, day: int) -> list[int]:
        """The 28 days before `day` without those in which nothing was available and nothing was sold."""
        seen = self._in_stock(position, day) | self._sold(position, day)
        return [day - 1 - back for back in range(DAYS - 1) if seen >> back & 1]

    def in_stock_days(self, position: int, day: int) -> list[int]:
        """Those of the 28 days before `day` at some time of which something was available."""
        seen = self._in_stock(position, day)
        return [day - 1 - back for back in range(DAYS - 1) if seen >> back & 1]

    def _demand(self, position: int, day: int) -> Demand:
        sold = [
            units for at, units in self.demand_windows.days(position).items() if day - DAYS < at < day and units > 0
        ]
        days = (self._in_stock(position, day) | self._sold(position, day)).bit_count()
        return Demand(days, sum(sold), sum(units * units for units in sold))

    def _sold(self, position: int, day: int) -> int:
        """Bit k: something was sold k + 1 days before `day`."""
        sold = self.demand_windows.days(position)
        return sum(1 << day - 1 - at for at, units in sold.items() if day - DAYS < at < day and units > 0)

    def _in_stock(self, position: int, day: int) -> int:
        """Bit k: something was available k + 1 days before `day`; after the last change it is as now."""
        cells = self.positions.cells
        later, known = day - 1 - cells["stock_day"][position], cells["stock_days"][position]
        if later <= 0:
            return int(known >> -later) & _WHOLE_DAYS_MASK
        kept = known << later if later < DAYS else 0
        filled = (1 << min(later, DAYS)) - 1 if self.available(position) > 0 else 0
        return int(kept | filled) & _WHOLE_DAYS_MASK

    def evaluate(self, sku: int) -> list[Change]:
        """Works out what everybody may sell of `sku` now; returns the levels that changed, channels first."""
        resolved, moment_ms = self._resolved[sku], self.moment_ms(sku)
        if resolved.is_planned or resolved.is_dynamic:
            self.is_looked_at(sku)
        spares = self._spares(sku, resolved, moment_ms)
        changes = [
            change
            for view in self._views(sku, resolved, spares, moment_ms)
            if (change := self._stand(sku, view)) is not None
        ]
        changes.extend(self._positions_after(sku, resolved))
        return changes

    def follows_demand(self, sku: int) -> bool:
        """Whether anything that is published of `sku` follows from its demand."""
        resolved = self._resolved[sku]
        return resolved.is_planned or resolved.is_dynamic

    def is_looked_at(self, sku: int) -> None:
        """What follows from the demand for `sku` is as of now."""
        self.skus.cells["evaluated_day"][sku] = self.moment_ms(sku) // DAY_MS

    def is_evaluated(self, sku: int) -> bool:
        """Whether nothing about `sku` follows from its demand that has not been looked at today."""
        if not self.follows_demand(sku):
            return True
        return bool(self.skus.cells["evaluated_day"][sku] == self.moment_ms(sku) // DAY_MS)

    def is_shown(self, sku: int) -> bool:
        """Whether `sku` ever got a version: one that was only asked about, in vain, shows nothing."""
        return self.skus.cells["generation"][sku] > 0

    def reflects(self, sku: int, version: int, time_ms: int) -> None:
        """`sku` shows everything up to the record at `version` of its home, which happened at `time_ms`."""
        cells = self.skus.cells
        cells["version"][sku] = version
        cells["as_of_ms"][sku] = time_ms
        cells["generation"][sku] = self._generations[cells["home"][sku]].generation
        cells["seen_ms"][sku] = self.moment_ms(sku)
        cells["pending"][sku] = 0

    def availability(self, sku: int, incarnation: int) -> Availability:
        """The record of everything that is known about `sku` now."""
        cells = self.skus.cells
        return Availability(
            self.names[sku],
            incarnation,
            cells["version"][sku],
            format_ms(cells["as_of_ms"][sku]),
            cells["generation"][sku],
            self.channels_of(sku, self._resolved[sku]),
            self._location_availabilities(sku),
        )

    def channels_of(self, sku: int, resolved: SkuRules) -> Channels:
        """What every channel that has a field under `resolved` was last found to promise."""
        return dict(self._channel_availabilities(sku, resolved))

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
            "demand_windows": self.demand_windows.dump(),
            "return_windows": self.return_windows.dump(),
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Replaces everything; clocks and rules have been loaded before."""
        self.names.extend(dumped["skus"])
        self.locations.extend(dumped["locations"])
        for name in dumped["channels"]:
            self._channels.add(name)
        self.skus.load(dumped["sku_columns"])
        self.homes = set(np.unique(self.skus["home"]).tolist())
        self.positions.load(dumped["position_columns"])
        self._standings.load(dumped["standing_columns"])
        self._position_rows.rebuild()
        self._standing_rows.rebuild()
        self.history.load(dumped["history"])
        self.demand_windows.load(dumped["demand_windows"])
        self.return_windows.load(dumped["return_windows"])
        self._resolve_all()

    def channel_of(self, standing: int) -> str:
        """The name of the standing's channel."""
        return self._channels[self._standings.cells["channel"][standing]]

    @property
    def channels(self) -> Names:
        """The channels that are known, by row."""
        return self._channels

    def tables(self) -> tuple[Columns, Pairs, Standings, Pairs]:
        """Positions and standings, each with the table of its pairs, for compiled loops."""
        return self.positions, self._position_rows, self._standings, self._standing_rows

    def _resolve_all(self) -> None:
        """What holds for each SKU, after a restore; where no rule names any, that is the same for all of a home."""
        homes, ledgers = self.skus["home"].tolist(), self.skus["ledgers"].tolist()
        books = [self._generations[home].book for home in range(len(self._generations))]
        shared = [None if book.rules.rules else book.resolve("", self._clocks[at]) for at, book in enumerate(books)]
        self._resolved = [
            of_all
            if (of_all := shared[home]) is not None and not has_ledger
            else books[home].resolve(name, self._clocks[home], self._accounts_with_ledger(sku))
            for sku, (name, home, has_ledger) in enumerate(zip(self.names, homes, ledgers, strict=True))
        ]
        self.skus["classes"][:] = [self.plain_rules.class_of(resolved) for resolved in self._resolved]

    def _classify(self, sku: int) -> None:
        self.skus.cells["classes"][sku] = self.plain_rules.class_of(self._resolved[sku])

    def _note_stock(self, position: int, time_ms: int, before: int) -> None:
        """Remembers on which days something was available; `before` was, until now."""
        cells = self.positions.cells
        later = time_ms // DAY_MS - cells["stock_day"][position]
        if later > 0:
            kept = cells["stock_days"][position] << later if later < DAYS else 0
            filled = (1 << min(later, DAYS)) - 1 if before > 0 else 0
            cells["stock_days"][position] = (kept | filled) & _STOCK_DAYS_MASK
            cells["stock_day"][position] += later
        if self.available(position) > 0:
            cells["stock_days"][position] |= 1

    def _standing_row(self, sku: int, channel: str) -> int:
        row = self._channels.row(channel)
        return row if row < 0 else self._standing_rows.row(sku, row)

    def _accounts_with_ledger(self, sku: int) -> frozenset[str]:
        """Accounts that have had a commitment: their levels are looked at although no rule names them."""
        if not self.skus.cells["ledgers"][sku]:
            return frozenset()
        return frozenset(name for name in self.ledgers(sku) if ACCOUNT_SEPARATOR in name)

    def ledgers(self, sku: int) -> dict[str, Ledger]:
        """The commitments of `sku`, by channel."""
        if not self.skus.cells["ledgers"][sku]:
            return {}
        return {
            self.channel_of(row): ledger
            for row in self._standing_rows.of(sku)
            if (ledger := self._standings.ledger(row)) is not None
        }

    def _views(self, sku: int, resolved: SkuRules, spares: list[Spare], moment_ms: int) -> Iterator[View]:
        """What each channel of `resolved` sees of `sku`, in the order of the rules."""
        lookups, locations = self._lookups_of(resolved), self.locations
        return views_of(
            resolved.channels,
            spares,
            lambda rule: lookups.draws(rule, locations),
            self.ledgers(sku),
            lambda channel: self.backordered(sku, channel),
            self._dynamic(sku, resolved, moment_ms) if resolved.is_dynamic else (),
        )

    def _dynamic(self, sku: int, resolved: SkuRules, moment_ms: int) -> list[tuple[int, int]]:
        """By location row, the safety stock that follows from demand and lead time."""
        places = self._places(resolved)
        cells = self.positions.cells
        rows = ((row, cells["location"][row]) for row in self._position_rows.of(sku))
        return [
            (location, dynamic_safety_units(self.demand(row, moment_ms), places[location].planning))
            for row, location in rows
        ]

    def _spares(self, sku: int, resolved: SkuRules, moment_ms: int, *, is_trusting: bool = False) -> list[Spare]:
        """What each position of `sku` gives to the pools."""
        cells = self.positions.cells
        locations, on_hand, reserved = cells["location"], cells["on_hand"], cells["reserved"]
        allocated, quarantined = cells["allocated"], cells["quarantined"]
        places = self._places(resolved)
        trusts = None if is_trusting else self._trust.of(self.skus.cells["home"][sku])
        spares = []
        for row in self._position_rows.of(sku):
            location = locations[row]
            available = available_units(on_hand[row], reserved[row], allocated[row], quarantined[row])
            if trusts is not None:
                available = trusted_units(available, trusts.get(self.locations[location], TRUSTED_PERCENT))
            safety = places[location].safety_units
            if safety == DYNAMIC:
                safety = self._safety(row, places[location], moment_ms)
            spares.append(spare_of(location, available, safety))
        return spares

    def _safety(self, position: int, place: PlaceRules, moment_ms: int) -> int:
        if place.safety_units != DYNAMIC:
            return place.safety_units
        return dynamic_safety_units(self.demand(position, moment_ms), place.planning)

    def _lookups_of(self, resolved: SkuRules) -> _Lookups:
        lookups = self._lookups.get(resolved)
        if lookups is None:
            lookups = self._lookups[resolved] = _Lookups(resolved)
        return lookups

    def _places(self, resolved: SkuRules) -> Sequence[PlaceRules]:
        return self._lookups_of(resolved).places(self.locations)

    def _stand(self, sku: int, view: View) -> Change | None:
        """Writes down what the channel may sell, and where it stands with it."""
        rule, offer = view.rule, view.offer
        row = self._standing_rows.add(sku, self._channels.add(rule.name))
        cells = self._standings.cells
        cells["sellable"][row], cells["promised"][row] = offer
        self._standings.set_overcommitted(row, view.overcommitted)
        return _cross(
            cells, row, offer.sellable, rule.low_stock_at, rule.recovered_at, channel=rule.name, location=None
        )

    def _positions_after(self, sku: int, resolved: SkuRules) -> Iterator[Change]:
        """The positions with a threshold whose level changed."""
        cells, places = self.positions.cells, self._places(resolved)
        for row in self._position_rows.of(sku):
            low_stock_at = places[cells["location"][row]].low_stock_at
            if low_stock_at is None:
                continue
            location = self.locations[cells["location"][row]]
            change = _cross(
                cells, row, self.available(row), low_stock_at, low_stock_at + 1, channel=None, location=location
            )
            if change is not None:
                yield change

    def _channel_availabilities(self, sku: int, resolved: SkuRules) -> Iterator[tuple[str, ChannelAvailability]]:
        """Every channel with a field; an account has one where a rule names it or it has a contract."""
        cells = self._standings.cells
        for rule in resolved.channels:
            row = self._standing_row(sku, rule.name)
            if row < 0:
                continue  # not looked at yet
            is_account = ACCOUNT_SEPARATOR in rule.name
            if is_account and rule.name not in resolved.named and not self._has_contract_stock(row):
                continue
            yield (
                rule.name,
                ChannelAvailability(
                    cells["promised"][row],
                    cells["sellable"][row],
                    LEVELS[cells["level"][row]],
                    self._standings.overcommitted(row),
                ),
            )

    def _has_contract_stock(self, standing: int) -> bool:
        ledger = self._standings.ledger(standing)
        return ledger is not None and ledger.committed > 0

    def _location_availabilities(self, sku: int) -> dict[str, LocationAvailability]:
        cells = self.positions.cells
        columns = [cells[quantity] for quantity in QUANTITIES]
        trusts = self._trust.of(self.skus.cells["home"][sku]) or {}
        seen_ms = self.skus.cells["seen_ms"][sku]
        found = {}
        for row in self._position_rows.of(sku):
            on_hand, reserved, allocated, picked, quarantined, in_transit, incoming = (
                column[row] for column in columns
            )
            location = self.locations[cells["location"][row]]
            available = available_units(on_hand, reserved, allocated, quarantined)
            found[location] = LocationAvailability(
                on_hand, reserved, allocated, picked, quarantined, in_transit, incoming, available,
                trusts.get(location, TRUSTED_PERCENT),
                days_of_cover(self.demand(row, seen_ms), available),
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
