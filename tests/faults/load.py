"""The load of the campaign: movements, facts of all kinds, poison, duplicates, late ones, and the rules for them."""

import json
import random
import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from bench.drain import Raw
from bench.generate import LoadConfig, movements, partition_of
from schemas.times import format_ms, parse_ms
from tests.fact_storms import FAR_MS, storm
from tests.integration.test_availability_process import broken

AGO_MS: Final = 60_000  # the load begins a little in the past, so that none of it is ever ahead of the broker
TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
CONTEST_UNITS: Final = 25
CONTEST: Final = "contest-"
BASE_SOURCES: Final = ("shop", "wms", "till")
PLACES: Final = ("dc-1", "dc-2", "dc-3")
CHANNELS: Final = ("web", "b2b", "b2b/acme", "marketplace")


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How much of what; shares are of 1."""

    partitions: int
    messages_per_second: int
    skus: int
    zipf_exponent: float
    duplicate_share: float
    late_share: float
    shuffled_over: int  # messages
    storm_share: float
    live_share: float
    poison_share: float
    with_sources: bool
    with_silence: bool
    with_replenishment: bool


def draw_load(chance: random.Random) -> LoadPlan:
    """A plan."""
    return LoadPlan(
        partitions=chance.choice((1, 2, 3, 5, 9)),
        messages_per_second=chance.choice((100, 200, 400, 800)),
        skus=chance.choice((30, 150, 400)),
        zipf_exponent=chance.choice((0.0, 0.9)),
        duplicate_share=chance.choice((0.0, 0.05, 0.3)),
        late_share=chance.choice((0.0, 0.1)),
        shuffled_over=chance.choice((0, 0, 50, 500)),
        storm_share=chance.choice((0.1, 0.3)),
        live_share=chance.choice((0.05, 0.15)),
        poison_share=chance.choice((0.0, 0.01, 0.03)),
        with_sources=chance.random() < 0.5,
        with_silence=chance.random() < 0.25,
        with_replenishment=chance.random() < 0.5,
    )


def load(plan: LoadPlan, seed: int, now_ms: Callable[[], int]) -> Iterator[Raw]:
    """Messages without end, as the plan says; times follow `now_ms`, everything else the seed."""
    chance = random.Random(seed)
    messages = _Mixture(plan, seed, now_ms).messages()
    if plan.shuffled_over:
        messages = _shuffled(messages, plan.shuffled_over, chance)
    if plan.duplicate_share:
        messages = _repeated(messages, plan.duplicate_share, chance)
    return messages


class _Mixture:
    """A shop's movements, with storms of all facts and facts of this moment strewn in."""

    def __init__(self, plan: LoadPlan, seed: int, now_ms: Callable[[], int]) -> None:
        self._plan = plan
        self._chance = random.Random(seed)
        self._now_ms = now_ms
        self._begun_ms = now_ms() - AGO_MS
        self._number = 0
        self._contests = 0
        self._asked: deque[tuple[str, str]] = deque(maxlen=100)  # SKU, request
        self._seed = seed

    def messages(self) -> Iterator[Raw]:
        """Without end."""
        plan, chance = self._plan, self._chance
        shop, storms = self._shop(), self._storms()
        limits = (plan.storm_share, plan.storm_share + plan.live_share)
        while True:
            draw = chance.random()
            if draw < limits[0]:
                message = next(storms)
            elif draw < limits[1]:
                message = self._live()
            else:
                message = next(shop)
            yield message
            if chance.random() < plan.poison_share:
                yield message[0], message[1], broken(message[2], chance)

    def _shop(self) -> Iterator[Raw]:
        plan = self._plan
        config = LoadConfig(
            movements=10_000_000,
            skus=plan.skus,
            locations=len(PLACES),
            partitions=plan.partitions,
            zipf_exponent=plan.zipf_exponent,
            start_ms=self._begun_ms,
            movements_per_second=plan.messages_per_second,
            late_share=plan.late_share,
            end_markers=False,
        )
        return movements(config, random.Random(self._seed + 1))

    def _storms(self) -> Iterator[Raw]:
        """One storm after the other, brought forward to now, each with SKUs of its own."""
        number = 0
        while True:
            number += 1
            logs, _ = storm(self._seed * 1000 + number)
            texts = [(message.payload or b"").decode() for log in logs for message in log]
            times = [parse_ms(time) for text in texts for time in TIME.findall(json.loads(text)["time"])]
            later_ms = self._now_ms() - max(time for time in times if time != FAR_MS)
            for text in texts:
                body = json.loads(_later(text, later_ms))
                if parse_ms(body["time"]) < FAR_MS + later_ms:
                    yield self._placed(body, f"-{number}")

    def _placed(self, body: dict[str, object], suffix: str) -> Raw:
        """A record of a storm in its partition; a tick goes into any."""
        if "sku" not in body:
            return self._chance.randrange(self._plan.partitions), b"", _encoded(body)
        body["sku"] = f"{body['sku']}{suffix}"
        return self._raw(str(body["sku"]), body)

    def _live(self) -> Raw:
        """Something that happens now: what waits for the clock, what contradicts, what competes."""
        chance = self._chance
        self._number += 1
        sku = f"SKU-{chance.randrange(1, self._plan.skus + 1):06}"
        place, units = chance.choice(PLACES), chance.randrange(1, 9)
        bodies: list[Callable[[], dict[str, object]]] = [
            lambda: {"kind": "counted", "sku": sku, "location": place, "quantity": units * 5},
            lambda: {
                "kind": "stated", "sku": sku, "location": place, "quantity": units * 5,
                "of": chance.choice(("on_hand", "available")),
            },
            lambda: self._request(sku, units),
            lambda: self._request(sku, units),
            self._more_time,
            lambda: {
                "kind": chance.choice(("channel_committed", "channel_committed", "channel_uncommitted")),
                "sku": sku, "channel": "b2b/acme", "quantity": units,
            },
            lambda: {"kind": "expected", "sku": sku, "location": place, "quantity": units * 10, "order": "PO"},
            self._contest,
            self._contest,
            self._contest,
        ]  # fmt: skip
        if chance.random() < 0.03:
            body: dict[str, object] = {
                "kind": "location",
                "location": place,
                "trust_percent": chance.choice((0, 50, 100)),
            }
            return chance.randrange(self._plan.partitions), b"", _encoded(body)
        late_ms = chance.choice((0, 0, 0, 2000, 30_000))
        plain = {"id": f"live-{self._number}", "source": f"wms/{place}", "time": format_ms(self._now_ms() - late_ms)}
        body = {**plain, **chance.choice(bodies)()}
        return self._raw(str(body["sku"]), body)

    def _request(self, sku: str, units: int) -> dict[str, object]:
        chance = self._chance
        request = f"R-{self._number}"
        self._asked.append((sku, request))
        body: dict[str, object] = {
            "kind": "requested", "id": request, "source": "shop/dc-1", "sku": sku, "quantity": units,
            "channel": chance.choice(CHANNELS), "partial": chance.random() < 0.3,
        }  # fmt: skip
        if chance.random() < 0.7:
            body["expires"] = format_ms(self._now_ms() + chance.randrange(500, 6000))
        return body

    def _more_time(self) -> dict[str, object]:
        """More time for one of the last requests, or an end of it, or a shipment on it."""
        sku, request = self._chance.choice(self._asked) if self._asked else ("SKU-000001", "R-none")
        body: dict[str, object] = {"sku": sku, "request": request, "source": "shop/dc-1"}
        kind = self._chance.choice(("extended", "released", "shipped"))
        if kind == "extended":
            return {**body, "kind": kind, "expires": format_ms(self._now_ms() + self._chance.randrange(1000, 8000))}
        return {**body, "kind": kind, "location": self._chance.choice(PLACES), "quantity": 1}

    def _contest(self) -> dict[str, object]:
        """Many who want the last units of one SKU: a known stock, then requests for more than that."""
        units = CONTEST_UNITS
        number, place = divmod(self._contests, 2 * units)
        self._contests += 1
        sku = f"{CONTEST}{number}"
        if place == 0:
            return {"kind": "received", "sku": sku, "location": "dc-1", "quantity": units}
        return {
            "kind": "requested", "id": f"C-{place}", "source": "shop/dc-1", "sku": sku, "channel": "web",
            "quantity": self._chance.randrange(1, 4),
        }  # fmt: skip

    def _raw(self, sku: str, body: dict[str, object]) -> Raw:
        key = sku.encode()
        return partition_of(key, self._plan.partitions), key, _encoded(body)


def _encoded(body: dict[str, object]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def _later(text: str, later_ms: int) -> str:
    return TIME.sub(lambda found: format_ms(parse_ms(found[0]) + later_ms), text)


def _shuffled(messages: Iterator[Raw], over: int, chance: random.Random) -> Iterator[Raw]:
    """Each message up to some `over` places away from its own, sometimes far more."""
    waiting = [next(messages) for _ in range(over)]
    for message in messages:
        place = chance.randrange(over)
        yield waiting[place]
        waiting[place] = message


def _repeated(messages: Iterator[Raw], share: float, chance: random.Random) -> Iterator[Raw]:
    """Some messages come a second time, soon."""
    recent: deque[Raw] = deque(maxlen=100)
    for message in messages:
        yield message
        recent.append(message)
        if chance.random() < share:
            yield chance.choice(recent)


# Rules


def rules_text(plan: LoadPlan, seed: int, generation: int, now_ms: int) -> str:
    """rules.toml for the load of a seed; each generation differs from the one before."""
    chance = random.Random(f"{seed}/{generation}")
    low = 3 + generation
    begin, end = format_ms(now_ms + 4000), format_ms(now_ms + chance.randrange(8000, 20_000))
    silence = 'stale_after = "3s"\n' if plan.with_silence else ""
    text = f"""
[locations.dc-1]
safety_units = {chance.choice((0, 1))}
[locations.dc-2]
low_stock_at = {low}
{silence}
[locations.dc-3]
[locations.store]
[locations.maker]
kind = "supplier"
[channels.web]
low_stock_at = {low}
recovered_at = {low + chance.choice((1, 3))}
priority = {chance.choice((0, 5))}
[channels.b2b]
share_percent = {chance.choice((50, 80))}
low_stock_at = 5
backorder_units = {chance.choice((0, 5))}
[channels."b2b/acme"]
priority = 2
[channels.marketplace]
locations = ["dc-2", "dc-3", "store"]
safety_units = {chance.choice((0, 4))}
cap_units = 50
[[rules]]
category = "some"
channel = "web"
safety_units = {generation}
[[rules]]
category = "some"
channel = "marketplace"
sell = false
valid_from = {begin}
valid_to = {end}
[categories]
some = ["SKU-00000*", "fire-*"]
"""
    if plan.with_sources:
        text += "".join(_source(name, chance) for name in _source_names())
    if plan.with_replenishment:
        text += "[replenishment]\nlead_time_days = 2.0\nservice_level_percent = 95.0\n"
    return text


def _source_names() -> list[str]:
    return ["wms", "erp", "shop", *(f"{system}/{place}" for system in BASE_SOURCES for place in PLACES)]


def _source(name: str, chance: random.Random) -> str:
    corrects = str(chance.random() < 0.4).lower()
    return f"""
[sources."{name}"]
grace = "{chance.choice(("0s", "1s", "3s"))}"
corrects = {corrects}
authority = {chance.choice((0, 1))}
tolerance_units = {chance.choice((0, 2))}
"""
