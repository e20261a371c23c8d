"""The benchmark's rule of stock in plain arithmetic: movements in, what channels may sell and crossings out.

It stands alone, so that each engine's program can import it in an environment without onhand. It knows what the
benchmark asks for and no more: quantities on hand and reserved, safety stock, shares, and levels that recover.
"""

import tomllib
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

LEVELS: Final = ("out_of_stock", "low_stock", "in_stock")
OUT_OF_STOCK, LOW_STOCK, IN_STOCK = range(3)

# what a kind does to the units on hand and to those reserved, for each unit moved
SIGNS: Final = {
    "received": (1, 0),
    "returned": (1, 0),
    "adjusted": (1, 0),
    "transfer_received": (1, 0),
    "shipped": (-1, 0),
    "transfer_shipped": (-1, 0),
    "reserved": (0, 1),
    "released": (0, -1),
}


class Channel(NamedTuple):
    """One channel of rules.toml."""

    name: str
    low_stock_at: int
    recovered_at: int
    share_percent: int = 100
    safety_units: int = 0


class Rules(NamedTuple):
    """What rules.toml says: safety units by location, and the channels in their order."""

    safety_units: dict[str, int]
    channels: tuple[Channel, ...]


class Movement(msgspec.Struct, gc=False):
    """What the rule needs of a message; records that move no stock have no location."""

    kind: str
    sku: str = ""
    location: str = ""
    quantity: int = 0
    taken_from: str = msgspec.field(name="from", default="on_hand")


class Article(msgspec.Struct, array_like=True):
    """The state of one SKU: units on hand and reserved by location, and each channel's level in the rules' order."""

    positions: dict[str, list[int]]
    levels: list[int]
    recovered: list[bool]


class Crossing(msgspec.Struct, rename={"from_": "from"}, gc=False):
    """A channel's change of level, as it is written to Kafka."""

    id: str
    sku: str
    channel: str
    from_: str
    to: str
    sellable: int


class Taken(msgspec.Struct):
    """What came of a movement, or of several of one SKU: the last numbers by channel, and every crossing."""

    version: int
    sellable: list[int]
    crossings: list[Crossing]


def read_rules(path: Path) -> Rules:
    """The rules in a file; KeyError or TypeError where it says something that this arithmetic does not know."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    safety_units = {name: _safety_units(**table) for name, table in document["locations"].items()}
    return Rules(safety_units, tuple(_channel(name, table) for name, table in document["channels"].items()))


def _safety_units(*, safety_units: int) -> int:
    return safety_units


def _channel(name: str, table: dict[str, Any]) -> Channel:
    return Channel(name, **table)


def new_article(rules: Rules) -> Article:
    """A SKU of which nothing has been heard."""
    count = len(rules.channels)
    return Article({}, [OUT_OF_STOCK] * count, [False] * count)


def is_usable(movement: Movement) -> bool:
    """Whether it moves stock: not a clock's tick, nor a sales line without a shelf or of nothing."""
    return bool(movement.location and movement.quantity)


def take(article: Article, movement: Movement, version: int, rules: Rules) -> Taken:
    """Apply a movement to its SKU's state; `version` is the offset of its message."""
    move(article, movement)
    units = sellable(article, rules)
    return Taken(version, units, crossings(article, units, movement.sku, version, rules))


def move(article: Article, movement: Movement) -> None:
    """Add the movement's units to what is on hand or reserved; KeyError for a kind that the benchmark has not."""
    position = article.positions.get(movement.location)
    if position is None:
        position = article.positions[movement.location] = [0, 0]
    on_hand, reserved = SIGNS[movement.kind]
    position[0] += on_hand * movement.quantity
    position[1] += reserved * movement.quantity
    if movement.taken_from == "reserved":
        position[1] -= movement.quantity


def sellable(article: Article, rules: Rules) -> list[int]:
    """What each channel may sell: its share of what the locations can spare, less its safety units, or 0."""
    pool = 0
    for location, (on_hand, reserved) in article.positions.items():
        spare = on_hand - rules.safety_units.get(location, 0)
        if reserved > 0:
            spare -= reserved
        if spare > 0:
            pool += spare
    return [max(0, pool * channel.share_percent // 100 - channel.safety_units) for channel in rules.channels]


def crossings(article: Article, units: list[int], sku: str, version: int, rules: Rules) -> list[Crossing]:
    """Bring each channel's level up to what it may sell, and tell which have changed."""
    crossed = []
    for index, (channel, now) in enumerate(zip(rules.channels, units, strict=True)):
        if now >= channel.recovered_at:
            article.recovered[index] = True
        elif now <= channel.low_stock_at:
            article.recovered[index] = False
        before, after = article.levels[index], level(now, recovered=article.recovered[index])
        if before != after:
            article.levels[index] = after
            crossing_id = f"{sku}:channel={channel.name}:{version}"
            crossed.append(Crossing(crossing_id, sku, channel.name, LEVELS[before], LEVELS[after], now))
    return crossed


def level(units: int, *, recovered: bool) -> int:
    """The level, as its place in LEVELS, at `units`."""
    if units <= 0:
        return OUT_OF_STOCK
    return IN_STOCK if recovered else LOW_STOCK
