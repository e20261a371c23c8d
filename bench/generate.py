"""Movements for benchmarks and load: seeded, uniform or skewed, with a plausible life for every position.

Opening stock counts among the movements: they begin with one `received` for each position. After that orders reserve,
what was reserved ships or is released, goods come in, come back, are corrected and travel between locations; nobody
reserves or ships what is not there, stock comes in instead. End markers and ticks come on top.

A SKU's partition is that of Kafka's Java clients: murmur2 of the key.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from random import Random
from typing import Final

from schemas.complaints import Complaint, read_toml
from schemas.rules import Rules, rules_from
from schemas.times import format_ms, parse_ms

Message = tuple[int, bytes, bytes]  # partition, key, payload; ticks have an empty key
RULES_PATH: Final = Path(__file__).with_name("rules.toml")
END_MARKER: Final = "zz-end-"
OPENING_UNITS_MAX: Final = 80
SHARE_FROM_RESERVED: Final = 0.85  # of what ships; the rest is bought without an order
RESTOCK_UNITS_MIN: Final = 1
RESTOCK_UNITS_MAX: Final = 16
DUPLICATE_DISTANCE_MAX: Final = 100
CHUNK: Final = 4096  # draws made at once


@dataclass(frozen=True, slots=True)
class LoadConfig:
    """What to generate; shares are between 0 and 1, times in ms since 1970.

    `hot_share` of the movements are of one SKU, the first, and the others as `zipf_exponent` says.
    `late_share` of the movements are dated up to `late_ms_max` before their place in the stream, `duplicate_share`
    are sent a second time shortly after, and a tick goes to every partition each `tick_ms` of the stream's own time.
    """

    movements: int = 1_000_000
    skus: int = 20_000
    locations: int = 4
    partitions: int = 8
    zipf_exponent: float = 0.0  # 0: every SKU is as busy as any other
    hot_share: float = 0.0
    start_ms: int = parse_ms("2025-01-01T00:00:00Z")
    movements_per_second: int = 1000  # of the stream's own time
    opening_units_max: int = OPENING_UNITS_MAX  # 0: no opening stock
    end_markers: bool = True
    duplicate_share: float = 0.0
    late_share: float = 0.0
    late_ms_max: int = 3_600_000
    tick_ms: int = 0  # 0: no ticks

    @property
    def opening_count(self) -> int:
        """How many of the movements are opening stock."""
        return self.skus * self.locations if self.opening_units_max else 0

    @property
    def dataset(self) -> str:
        """How busy the SKUs are, as figures name it."""
        skew = "uniform" if self.zipf_exponent == 0 else f"zipf {self.zipf_exponent}"
        return f"{skew}, hot {self.hot_share}" if self.hot_share else skew


def benchmark_rules() -> Rules:
    """The rules in bench/rules.toml."""
    document = read_toml(RULES_PATH.read_text(encoding="utf-8"))
    if isinstance(document, Complaint):
        raise TypeError(f"{RULES_PATH.name} line {document.line}: {document.message}")
    rules, complaints = rules_from(document)
    if errors := [complaint for complaint in complaints if complaint.severity == "error"]:
        raise ValueError(f"{RULES_PATH.name}: {errors}")
    return rules


def movements(config: LoadConfig, random: Random) -> Iterator[Message]:
    """`config.movements` movements in the order in which they are to be sent, with what else `config` asks for."""
    stream: Iterator[Message] = islice(_Shop(config, random).messages(), config.movements)
    if config.tick_ms:
        stream = _with_ticks(stream, config)
    if config.duplicate_share:
        stream = _with_duplicates(stream, config.duplicate_share, random)
    yield from stream
    if config.end_markers:
        yield from end_markers(config)


def end_markers(config: LoadConfig) -> Iterator[Message]:
    """The last message of each partition: stock of a SKU that nothing else names."""
    time = format_ms(config.start_ms + config.movements * 1000 // config.movements_per_second)
    for partition in range(config.partitions):
        sku = f"{END_MARKER}{partition}"
        payload = (
            f'{{"id":"end-{partition}","source":"bench","kind":"received","sku":"{sku}","location":"dc-1",'
            f'"quantity":100,"time":"{time}"}}'
        )
        yield partition, sku.encode(), payload.encode()


def partition_of(key: bytes, partitions: int) -> int:
    """The partition to which Kafka's Java clients send `key`."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """MurmurHash2 as in org.apache.kafka.common.utils.Utils, as an unsigned 32-bit number."""
    multiplier, mask = 0x5BD1E995, 0xFFFFFFFF
    value = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        value = value * multiplier & mask ^ word
    if rest := data[whole:]:
        value = (value ^ int.from_bytes(rest, "little")) * multiplier & mask
    value = (value ^ value >> 13) * multiplier & mask
    return value ^ value >> 15


class _Shop:
    """A shop's orders and goods, drawn at random; a position is SKU number × locations + location number."""

    def __init__(self, config: LoadConfig, random: Random) -> None:
        self._config = config
        self._random = random
        self._draw = random.random
        self._keys = [f"SKU-{number:06d}".encode() for number in range(1, config.skus + 1)]
        self._partitions = [partition_of(key, config.partitions) for key in self._keys]
        self._free = [0] * (config.skus * config.locations)  # units on hand and not reserved
        self._open: list[tuple[int, int, int]] = []  # position, units, number of the order
        self._travelling: list[tuple[int, int, int]] = []  # destination, units, number of the transfer
        self._sent = 0
        self._second = -1
        self._second_text = ""

    def messages(self) -> Iterator[Message]:
        """Opening stock, then acts without end."""
        if self._config.opening_units_max:
            for position in range(len(self._free)):
                yield self._receive(position, self._units(self._config.opening_units_max))
        shares: dict[Callable[[int], Message], float] = {
            self._reserve: 40,
            self._ship: 35,
            self._release: 8,
            self._restock: 7,
            self._take_back: 4,
            self._adjust: 3,
            self._send: 1.5,
            self._arrive: 1.5,
        }
        acts, limits = list(shares), list(accumulate(shares.values()))
        positions = self._positions()
        while True:
            for act in self._random.choices(acts, cum_weights=limits, k=CHUNK):
                yield act(next(positions))

    def _positions(self) -> Iterator[int]:
        """Positions as busy as their SKU is; locations of a SKU are alike."""
        count, exponent = self._config.locations, self._config.zipf_exponent
        limits = list(accumulate((rank + 1) ** -exponent for rank in range(self._config.skus)))
        hot_share = self._config.hot_share
        while True:
            for drawn in self._random.choices(range(self._config.skus), cum_weights=limits, k=CHUNK):
                sku = 0 if hot_share and self._draw() < hot_share else drawn
                yield sku * count + int(self._draw() * count)

    def _units(self, units_max: int) -> int:
        return 1 + int(self._draw() * units_max)

    def _reserve(self, position: int) -> Message:
        units = self._units(5)
        if self._free[position] < units:
            return self._restock(position)
        self._free[position] -= units
        self._open.append((position, units, self._sent))
        return self._message("shop", "reserved", position, units, f',"order":"SO-{self._sent}"')

    def _ship(self, position: int) -> Message:
        if self._open and self._draw() < SHARE_FROM_RESERVED:
            position, units, order = self._one_of(self._open)
            return self._message("wms", "shipped", position, units, f',"from":"reserved","order":"SO-{order}"')
        units = self._units(3)
        if self._free[position] < units:
            return self._restock(position)
        self._free[position] -= units
        return self._message("till", "shipped", position, units, f',"order":"TILL-{self._sent}"')

    def _release(self, position: int) -> Message:
        if not self._open:
            return self._reserve(position)
        position, units, order = self._one_of(self._open)
        self._free[position] += units
        return self._message("shop", "released", position, units, f',"order":"SO-{order}"')

    def _restock(self, position: int) -> Message:
        return self._receive(position, RESTOCK_UNITS_MIN + self._units(RESTOCK_UNITS_MAX - RESTOCK_UNITS_MIN))

    def _receive(self, position: int, units: int) -> Message:
        self._free[position] += units
        return self._message("wms", "received", position, units, f',"document":"DN-{self._sent}"')

    def _take_back(self, position: int) -> Message:
        units = self._units(2)
        self._free[position] += units
        return self._message("wms", "returned", position, units, f',"document":"RMA-{self._sent}"')

    def _adjust(self, position: int) -> Message:
        units = self._units(4) - 5
        if self._free[position] + units < 0 or self._draw() < 0.5:  # noqa: PLR2004  # one in two is found, not lost
            units = -units
        self._free[position] += units
        return self._message("wms", "adjusted", position, units, ',"reason":"cycle count"')

    def _send(self, position: int) -> Message:
        units = self._units(8)
        count = self._config.locations
        if self._free[position] < units or count == 1:
            return self._restock(position)
        self._free[position] -= units
        first = position - position % count
        destination = first + (position % count + self._units(count - 1)) % count
        self._travelling.append((destination, units, self._sent))
        extra = f',"destination":"dc-{destination - first + 1}","transfer":"T-{self._sent}"'
        return self._message("wms", "transfer_shipped", position, units, extra)

    def _arrive(self, position: int) -> Message:
        if not self._travelling:
            return self._send(position)
        position, units, transfer = self._one_of(self._travelling)
        self._free[position] += units
        return self._message("wms", "transfer_received", position, units, f',"transfer":"T-{transfer}"')

    def _one_of(self, things: list[tuple[int, int, int]]) -> tuple[int, int, int]:
        """Take out any one, in constant time."""
        place = int(self._draw() * len(things))
        things[place], things[-1] = things[-1], things[place]
        return things.pop()

    def _message(self, system: str, kind: str, position: int, units: int, extra: str) -> Message:
        count = self._config.locations
        sku = position // count
        number = self._sent
        key = self._keys[sku]
        payload = (
            f'{{"id":"{system}-{number}","source":"{system}/dc-{position % count + 1}","kind":"{kind}",'
            f'"sku":"{key.decode()}","location":"dc-{position % count + 1}","quantity":{units},'
            f'"time":"{self._time()}"{extra}}}'
        )
        self._sent = number + 1
        return self._partitions[sku], key, payload.encode()

    def _time(self) -> str:
        """When the next movement happened; the text of a second is made once."""
        config = self._config
        time_ms = config.start_ms + self._sent * 1000 // config.movements_per_second
        if config.late_share and self._draw() < config.late_share:
            return format_ms(time_ms - self._units(config.late_ms_max))
        second, ms = divmod(time_ms, 1000)
        if second != self._second:
            self._second, self._second_text = second, format_ms(second * 1000)[:-4]
        return f"{self._second_text}{ms:03d}Z"


def _with_ticks(stream: Iterator[Message], config: LoadConfig) -> Iterator[Message]:
    """`stream` with a tick for every partition whenever `tick_ms` of its own time have gone by."""
    due_ms = config.start_ms
    for number, message in enumerate(stream):
        if config.start_ms + number * 1000 // config.movements_per_second >= due_ms:
            payload = f'{{"kind":"tick","time":"{format_ms(due_ms)}"}}'.encode()
            yield from ((partition, b"", payload) for partition in range(config.partitions))
            due_ms += config.tick_ms
        yield message


def _with_duplicates(stream: Iterator[Message], share: float, random: Random) -> Iterator[Message]:
    """`stream` with some of its movements sent again, at most DUPLICATE_DISTANCE_MAX messages later."""
    recent: deque[Message] = deque(maxlen=DUPLICATE_DISTANCE_MAX)
    for message in stream:
        yield message
        if message[1]:
            recent.append(message)
            if random.random() < share:
                yield random.choice(recent)
