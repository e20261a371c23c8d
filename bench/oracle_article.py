"""One SKU as the oracle keeps it: every movement and count of its positions in plain lists, and what it remembers."""

from collections import defaultdict, deque
from math import inf
from typing import Literal, NamedTuple

from schemas import movements as m
from schemas.batches import Origin
from schemas.movements import Movement
from schemas.outputs import Cause, Level, Reservation, ShadowOffer
from schemas.rules import ChannelRules, Rule, Rules

QUANTITIES = ("on_hand", "reserved", "allocated", "picked", "quarantined", "in_transit", "incoming")
RECENT_MAX = 8  # plain movements of a SKU among which one told twice is looked for
MISSING_MAX = 16  # sequence numbers of a source at a position
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
WINDOW_DAYS = 28  # before the newest one

Safety = int | Literal["dynamic"]

_SIGNS: dict[type[Movement], dict[str, int]] = {
    m.Expected: {"incoming": +1},
    m.ExpectationCancelled: {"incoming": -1},
    m.Received: {"on_hand": +1},
    m.Reserved: {"reserved": +1},
    m.Released: {"reserved": -1},
    m.Allocated: {"allocated": +1},
    m.Deallocated: {"allocated": -1},
    m.Picked: {"picked": +1},
    m.Shipped: {"on_hand": -1},
    m.Returned: {"on_hand": +1},
    m.Quarantined: {"quarantined": +1},
    m.Cleared: {"quarantined": -1},
    m.Scrapped: {"on_hand": -1},
    m.Adjusted: {"on_hand": +1},
    m.TransferShipped: {"on_hand": -1},
    m.TransferReceived: {"on_hand": +1},
    m.TransferLost: {},
}


class Happening(NamedTuple):
    """A record at work: where it stands, when it happened, and what it is in the records that come of it."""

    origin: Origin
    offset: int
    time_ms: int
    cause: Cause
    correlation: str | None = None
    traceparent: str | None = None


class Offer(NamedTuple):
    """What one channel is shown of a SKU."""

    promised: int
    sellable: int
    level: Level
    overcommitted: int = 0


class Gauge:
    """The level of a channel or position, and whether it recovered since it was last low."""

    def __init__(self) -> None:
        self.level: Level = "out_of_stock"
        self.recovered = False
        self.crossed = False  # ever

    def read(self, units: int, low_stock_at: int, recovered_at: int) -> Level:
        """The level at `units`; what it was before stands in `level` until it is set."""
        if units >= recovered_at:
            self.recovered = True
        elif units <= low_stock_at:
            self.recovered = False
        if units <= 0:
            return "out_of_stock"
        return "in_stock" if self.recovered else "low_stock"


class Numbering:
    """Sequence numbers of one source at one position: the highest, and those skipped before it."""

    def __init__(self, first: int) -> None:
        self.highest = first
        self.missing: list[int] = []

    def take(self, number: int) -> None:
        """A number arrived."""
        if number > self.highest:
            skipped = range(self.highest + 1, min(number, self.highest + 1 + MISSING_MAX))
            self.missing = [*self.missing, *skipped][:MISSING_MAX]
            self.highest = number
        elif number in self.missing:
            self.missing.remove(number)


class Position:
    """One SKU at one location: lists of (quantity, time, units), and the values that they add up to."""

    __slots__ = ("available", "counts", "last_day", "moves", "newest_ms", "now", "returned", "sold", "stocked")

    def __init__(self) -> None:
        self.now = dict.fromkeys(QUANTITIES, 0)
        self.available = 0
        self.moves: list[tuple[str, int, int]] = []
        self.counts: list[tuple[str, int, int]] = []
        self.newest_ms = -1
        self.sold: dict[int, int] = {}  # units shipped and transferred out, by hour since 1970
        self.returned: dict[int, int] = {}
        self.last_day = -1  # the latest day on which anything reached it
        self.stocked: list[int] = []  # days on which something was available, in their order, up to the last day

    def move(self, quantity: str, time_ms: int, units: int) -> None:
        """`units` more (or less) of a quantity, since `time_ms`."""
        self.newest_ms = max(self.newest_ms, time_ms)
        self.moves.append((quantity, time_ms, units))
        self.now[quantity] = self.at(quantity) if self.counts else self.now[quantity] + units
        self.available = available(self.now)

    def count(self, quantity: str, time_ms: int, units: int) -> None:
        """There were `units` of a quantity at `time_ms`."""
        self.newest_ms = max(self.newest_ms, time_ms)
        self.counts.append((quantity, time_ms, units))
        self.now[quantity] = self.at(quantity)
        self.available = available(self.now)

    def reach(self, time_ms: int, before: int) -> None:
        """A record changed the position (or could have) at `time_ms`; `before` it, so many units were available."""
        day = time_ms // DAY_MS
        if self.last_day < 0:
            self.last_day = day
        elif day > self.last_day:
            if before > 0:
                self.stocked.extend(range(max(self.last_day + 1, day - WINDOW_DAYS), day + 1))
            self.last_day = day
        if self.available > 0 and self.last_day not in self.stocked[-1:]:
            self.stocked.append(self.last_day)

    def was_in_stock(self, day: int) -> bool:
        """Whether anything was available on a day; since the last one that was heard of, nothing has changed."""
        if day > self.last_day:
            return self.available > 0
        return day >= self.last_day - WINDOW_DAYS and day in self.stocked

    def at(self, quantity: str, time_ms: float = inf) -> int:
        """The last count up to `time_ms` (of several at one time the last to arrive), and what moved after it."""
        counts = [(when, units) for what, when, units in self.counts if what == quantity and when <= time_ms]
        counted_ms, counted = max(reversed(counts), key=lambda count: count[0]) if counts else (-1, 0)
        moves = [(when, units) for what, when, units in self.moves if what == quantity and when <= time_ms]
        return counted + sum(units for when, units in moves if when > counted_ms)

    def all_at(self, time_ms: float) -> dict[str, int]:
        """Every quantity as it was at `time_ms`."""
        return {quantity: self.at(quantity, time_ms) for quantity in QUANTITIES}


class Promise:
    """A request that was answered; what is still open of it, per location and beyond any."""

    def __init__(self, body: tuple[object, ...], order: str | None, answer: Reservation) -> None:
        self.body = body
        self.order = order
        self.answer = answer
        self.parts = dict(answer.parts)
        self.owed = answer.backordered
        self.drawn = 0  # of its channel's contract
        self.expires_ms: int | None = None
        self.ended_ms: int | None = None

    def open_parts(self) -> list[tuple[str, int]]:
        """What is still reserved, in the order of the answer."""
        return [(place, units) for place, units in self.parts.items() if units > 0]


class Contract:
    """Contract stock of one channel: set aside in all, not yet used, and promised out of it."""

    def __init__(self) -> None:
        self.committed = 0
        self.open = 0
        self.drawn = 0

    def draw(self, units: int) -> int:
        """Promise up to `units` from what is open; returns how many."""
        drawn = min(units, max(0, self.open))
        self.open -= drawn
        self.drawn += drawn
        return drawn

    def restore(self, units: int) -> None:
        """Promised units are free again, as far as they were not taken by others."""
        back = min(units, self.drawn)
        self.open += back
        self.drawn -= back

    def use(self, units: int) -> int:
        """Promised units have gone for good; returns how many were promised."""
        used = min(units, self.drawn)
        self.drawn -= used
        return used


class Waiting(NamedTuple):
    """A statement until it is judged."""

    due_ms: int
    number: int  # in order of arrival
    fact: m.Stated
    time_ms: int


class Finding(NamedTuple):
    """What a system says that is not so, at a location."""

    of: str
    stated: int
    derived: int
    time_ms: int
    reason: str
    evidence: tuple[str, ...]
    opened_ms: int


class Policy(NamedTuple):
    """The rules for one SKU, as they hold at a moment."""

    rules: Rules
    exceptions: list[int]  # indices of those that concern it, weakest first
    in_force: list[int]  # of these
    named: list[str]  # channels with a field whatever is committed
    channels: dict[str, ChannelRules]
    dynamic_channels: set[str]  # whose safety units come from demand
    safety: dict[str, Safety]  # by location, where an exception names one
    low: dict[str, int]  # the same
    buying: list[Rule]  # exceptions in force that say when or how much to buy

    @property
    def follows_demand(self) -> bool:
        """Whether anything can become of demand; else a look at it is in vain."""
        return self.is_dynamic or bool(self.buying) or self.rules.replenishment is not None

    @property
    def is_dynamic(self) -> bool:
        """Whether what is offered depends on demand."""
        return bool(self.dynamic_channels) or "dynamic" in self.safety.values()


class Article:
    """Everything known about one SKU."""

    def __init__(self, sku: str, home: Origin, policy: Policy, *, dedupe_ms: int, as_of_ms: int) -> None:
        self.sku = sku
        self.home = home
        self.policy = policy
        self.dedupe_ms = dedupe_ms
        self.as_of_window_ms = as_of_ms
        # stock
        self.places: dict[str, Position] = {}
        self.recent: deque[Movement] = deque(maxlen=RECENT_MAX)
        self.numbering: dict[tuple[str, str], Numbering] = {}  # by location and source
        self.heard: set[tuple[str, str, str]] = set()  # (location, source, kind) of plain movements
        self.ids: dict[tuple[str, str], int] = {}  # when each applied fact happened
        self.newest_ms = 0
        # promises
        self.promises: dict[str, Promise] = {}  # in order of their answers
        self.owed: dict[str, int] = {}  # backordered, by channel
        self.contracts: dict[str, Contract] = {}
        # statements
        self.waiting: list[Waiting] = []
        self.late: dict[int, int] = {}  # movements that arrived while a statement waited, by its number
        self.findings: dict[tuple[str, str], Finding] = {}  # open, by location and system
        # purchases
        self.proposed: dict[str, int] = {}  # units of the open proposal, by location
        self.expected: set[str] = set()  # locations that a purchase was announced for since the last look
        # what is shown
        self.offers: dict[str, Offer] = {}
        self.channel_gauges: defaultdict[str, Gauge] = defaultdict(Gauge)
        self.place_gauges: defaultdict[str, Gauge] = defaultdict(Gauge)
        self.version = -1  # nothing shown yet
        self.as_of_ms = 0
        self.generation = 0
        self.moment_ms = 0  # what demand was judged by
        self.differences: dict[str, ShadowOffer] = {}  # from the shadow rules, as told last

    @property
    def horizon_ms(self) -> int:
        """Facts from before this could be forgotten duplicates."""
        return self.newest_ms - self.dedupe_ms

    def position(self, place: str) -> Position:
        """The position at `place`, made if there is none."""
        return self.places.setdefault(place, Position()) if place not in self.places else self.places[place]

    def number(self, place: str, source: str, sequence: int | None) -> None:
        """A movement or count of `source` at `place` was applied; this is its sequence number."""
        if sequence is None:
            return
        if (place, source) in self.numbering:
            self.numbering[place, source].take(sequence)
        else:
            self.numbering[place, source] = Numbering(sequence)

    def too_old_for(self, place: str, time_ms: int) -> bool:
        """Whether the position no longer knows what was at `time_ms`."""
        return place in self.places and time_ms < self.places[place].newest_ms - self.as_of_window_ms

    def repeats(self, source: str, fact_id: str) -> bool:
        """Whether the fact was applied before, as far as that is remembered."""
        known_ms = self.ids.get((source, fact_id))
        return known_ms is not None and known_ms >= self.horizon_ms

    def promise(self, request: str) -> Promise | None:
        """What was answered to a request, as far as that is remembered."""
        promise = self.promises.get(request)
        if promise is None or (promise.ended_ms is not None and promise.ended_ms < self.horizon_ms):
            return None
        return promise


def signs(movement: Movement) -> dict[str, int]:
    """The row of signs of a movement at its own location, turned round for a reversal."""
    row = dict(_SIGNS[type(movement)])
    taken_from, put_to = getattr(movement, "from_", "on_hand"), getattr(movement, "to", "on_hand")
    if taken_from != "on_hand":
        row[taken_from] = -1
    if taken_from == "allocated":
        row["picked"] = -1
    if put_to != "on_hand":
        row[put_to] = +1
    if isinstance(movement, m.Received) and movement.order is not None:
        row["incoming"] = -1
    if isinstance(movement, m.TransferReceived | m.TransferLost) and movement.transfer is not None:
        row["in_transit"] = -1
    return {name: -sign for name, sign in row.items()} if movement.reversal else row


def available(units: dict[str, int]) -> int:
    """What is there and promised to nobody; a quantity below zero makes nothing available."""
    return units["on_hand"] - max(0, units["reserved"]) - max(0, units["allocated"]) - max(0, units["quarantined"])
