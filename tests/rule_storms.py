"""Seeded logs over weeks in which rules change, locations fall silent, clocks jump and stock is bought and sold."""

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from bench.oracle import Message
from schemas.batches import Origin
from schemas.movements import encode
from schemas.rule_changes import document_of, patch_between, records_of
from schemas.rules import ChannelRules, LocationRules, ReplenishmentRules, Rule, Rules, SourceRules
from schemas.times import format_ms

BEGIN_MS = 1_795_219_200_000  # 2026-11-21T00:00:00Z
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
PLACES = ("east", "west", "acme")
CHANNELS = ("web", "b2b", "b2b/acme")
MISPLACED_SHARE = 0.1
Logs = tuple[tuple[Message, ...], ...]


def rules_of(chance: random.Random) -> Rules:
    """Some rules for a small world."""
    channels = {
        name: ChannelRules(
            locations=chance.choice([None, ("east", "west"), ("west", "acme")]),
            priority=chance.randrange(3),
            share_percent=chance.choice([40, 100]),
            safety_units=chance.choice([0, 2]),
            safety_percent=chance.choice([0, 10]),
            low_stock_at=chance.choice([0, 5]),
            cap_units=chance.choice([None, 20]),
            backorder_units=chance.choice([0, 5]),
            commitment_only=name == "b2b/acme" and chance.random() < 0.5,  # half of them
        )
        for name in CHANNELS
    }
    locations = {
        "east": LocationRules(safety_units=chance.choice([0, 1]), stale_after=chance.choice([None, "15m"])),
        "acme": LocationRules(kind="supplier", low_stock_at=chance.choice([None, 3])),
    }
    return Rules(
        channels=channels,
        locations=locations if chance.randrange(4) else {},
        rules=tuple(exception(chance) for _ in range(chance.randrange(5))),
        categories={"some": ("A", "B*"), "all": ("*",)},
        sources=sources_of(chance) if not chance.randrange(3) else {},
        replenishment=ReplenishmentRules(
            lead_time_days=chance.choice([1.0, 3.5]), lead_time_sigma_days=chance.choice([0.0, 1.0]),
            review_days=chance.choice([0.0, 2.0]), service_level_percent=chance.choice([40.0, 95.0]),
            pack_units=chance.choice([1, 6]), minimum_units=chance.choice([0, 10]),
        ) if chance.randrange(2) else None,
    )  # fmt: skip


def sources_of(chance: random.Random) -> dict[str, SourceRules]:
    """One or two sources, that may say everything everywhere, or some of it."""
    kinds = chance.choice([None, None, ("received", "shipped", "counted", "stated", "transfer_shipped", "expected")])
    places = chance.choice([None, None, ("east", "west")])
    sources = {"wms": SourceRules(grace="2h", corrects=True, kinds=kinds, locations=places), "shop": SourceRules()}
    if not chance.randrange(3):
        sources["shop"] = SourceRules(kinds=("reserved", "shipped", "returned", "stated"))
    if not chance.randrange(6):
        del sources["shop"]
    return sources


def exception(chance: random.Random) -> Rule:
    """One rule for a SKU, a category or a place, of the channel or of the position, sometimes for a time."""
    begin = datetime(2026, 11, 21, tzinfo=UTC) + timedelta(hours=chance.randrange(900))
    span: dict[str, Any] = {"valid_from": begin, "valid_to": begin + timedelta(hours=chance.randrange(1, 200))}
    whom: dict[str, Any] = chance.choice([{"sku": "A"}, {"category": "some"}, {"category": "all"}])
    fields: dict[str, Any] = chance.choice(
        [
            {"location": "east", "safety_units": chance.choice([3, "dynamic"])},
            {"location": "west", "low_stock_at": 4, "lead_time_days": 2.0},
            {"lead_time_days": 5.0, "pack_units": 4},
            {"channel": "web", "safety_units": chance.choice([4, "dynamic"]), "low_stock_at": 8},
            {"channel": "b2b/acme", "share_percent": 60, "safety_units": "dynamic"},
            {"channel": "web", "sell": False},
            {"cap_units": 9},
        ]
    )
    if "location" in fields and chance.random() < 0.3:  # some
        whom = {}
    return Rule(**whom, **fields, **(span if chance.randrange(2) else {}))


class Storm:
    """What happens in some logs, one message after the other, each in its own time.

    A calm one has movements, ticks, rules and trust alone.
    """

    def __init__(self, seed: int, *, misplaced: bool, calm: bool = False) -> None:
        self._chance = random.Random(seed)
        self._is_misplaced = misplaced
        self._is_calm = calm
        self.rules = rules_of(self._chance)
        self.shadow = rules_of(self._chance) if self._chance.randrange(2) and not calm else None
        self._time_ms = BEGIN_MS
        self._ids = 0
        self._requests: list[tuple[str, str]] = []
        self._documents: dict[int, dict[str, Any]] = {}
        self._generations: dict[int, int] = {}

    def logs(self) -> Logs:
        """One to three logs."""
        partitions = self._chance.choice([1, 1, 2, 3])
        logs: list[list[Message]] = [[] for _ in range(partitions)]
        for number in range(self._chance.randrange(20, 160)):
            partition = number if number < partitions else self._chance.randrange(partitions)
            for key, payload in self._next(partition, partitions):
                is_lost = self._is_misplaced and key and self._chance.random() < MISPLACED_SHARE
                place = (partition + 1) % partitions if is_lost and logs[partition] else partition
                origin = Origin("cluster", "topic-id", place, "log")
                logs[place].append(Message(origin, len(logs[place]), -1, key, payload))
        return tuple(map(tuple, logs))

    def _next(self, partition: int, partitions: int) -> Iterator[tuple[bytes | None, bytes]]:
        draw = self._chance.random()
        self._time_ms += self._chance.choice([60_000, HOUR_MS, 7 * HOUR_MS])
        if draw < 0.22:  # about every fifth
            self._time_ms += self._chance.choice([0, 0, 0, DAY_MS, 3 * DAY_MS])
            yield None, json.dumps({"kind": "tick", "time": format_ms(self._time_ms)}).encode()
        elif draw < 0.32:  # one in ten
            for payload in self._chance.choice([self._generation, self._generation, self._odd_generation])(partition):
                yield None, payload
        elif draw < 0.40:  # one in twelve
            yield None, self._trust()
        else:
            sku = self._chance.choice(["A", "B1", "C"]) + ("" if partitions == 1 else f"-{partition}")
            yield sku.encode(), json.dumps(self._fact(sku)).encode()

    def _generation(self, partition: int) -> list[bytes]:
        """The next rules, complete, as a delta, or in pieces."""
        before = self._documents.get(partition, document_of(self.rules))
        generation = self._generations.get(partition, 1)
        after = document_of(rules_of(self._chance)) if self._chance.randrange(3) else before
        since = generation if generation > 1 and self._chance.randrange(2) else 0
        patch = patch_between(before, after) if since else after
        time = format_ms(self._time_ms) if self._chance.randrange(2) else None
        number = generation + self._chance.choice([0, 1, 1, 2])
        if number == generation and generation > 1:
            patch, after, since = before, before, 0  # the same again
        self._documents[partition], self._generations[partition] = after, number
        if self._chance.randrange(3):
            return [encode(record) for record in records_of(number, since, patch, time)]
        return self._in_pieces(number, since, json.dumps(patch))

    def _in_pieces(self, generation: int, since: int, text: str) -> list[bytes]:
        size = max(1, len(text) // self._chance.randrange(1, 5))
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        head = {"kind": "rules", "generation": generation, "since": since, "parts": len(pieces)}
        if len(pieces) == 1:
            return [json.dumps({**head, "changes": json.loads(text)}).encode()]
        return [json.dumps({**head, "part": part, "changes": piece}).encode() for part, piece in enumerate(pieces, 1)]

    def _odd_generation(self, partition: int) -> list[bytes]:
        """Something that is no change of rules, or none that may be made."""
        generation = self._generations.get(partition, 1)
        broken: dict[str, Any] = self._chance.choice(
            [
                {"generation": generation + 1, "since": generation + 5, "changes": {}},
                {"generation": generation + 1, "changes": {"channels": {"web": {"share_percent": 101}}}},
                {"generation": generation + 1, "changes": {}},
                {"generation": generation + 1, "changes": []},
                {"generation": generation + 1, "changes": "{}"},
                {"generation": generation + 1, "part": 2, "parts": 2, "changes": "{}"},
                {"generation": generation + 1, "part": 3, "parts": 2, "changes": "{}"},
                {"generation": generation + 1, "part": 1, "parts": 2, "changes": {}},
                {"generation": generation + 1, "part": 1, "parts": 2, "changes": "{"},
                {"generation": 0, "changes": {}},
                {"generation": max(1, generation - 1), "changes": {"channels": {"web": {}}}},
            ]
        )
        return [json.dumps({"kind": "rules", **broken}).encode()]

    def _trust(self) -> bytes:
        body: dict[str, Any] = {"kind": "location", "location": self._chance.choice([*PLACES, "nowhere"])}
        body["trust_percent"] = self._chance.choice([0, 30, 70, 100, 100])
        if self._chance.randrange(2):
            body |= {"time": format_ms(self._time_ms), "last_heard": format_ms(self._time_ms - HOUR_MS)}
        return json.dumps(body).encode()

    def _fact(self, sku: str) -> dict[str, Any]:
        self._ids += 1
        late_ms = self._chance.choice([0, 0, 0, 5 * HOUR_MS, DAY_MS, 2 * DAY_MS])
        body: dict[str, Any] = {
            "id": str(self._chance.choice([self._ids, max(1, self._ids - 3)])), "sku": sku,
            "source": self._chance.choice(["wms", "shop"]), "time": format_ms(self._time_ms - late_ms),
        }  # fmt: skip
        makers: list[Callable[[str], dict[str, Any]]] = [self._movement, self._movement, self._movement]
        makers.append(self._movement if self._is_calm else self._rare)
        return body | self._chance.choice(makers)(sku)

    def _movement(self, _sku: str) -> dict[str, Any]:
        kinds = ("received", "received", "shipped", "shipped", "shipped", "returned", "expected", "reserved")
        body: dict[str, Any] = {"kind": self._chance.choice(kinds), "quantity": self._chance.randrange(1, 15)}
        body["location"] = self._chance.choice(PLACES)
        if not self._chance.randrange(8):
            body["reversal"] = True
        if not self._chance.randrange(8):
            body |= {"kind": "transfer_shipped", "destination": self._chance.choice(PLACES)}
        return body

    def _rare(self, sku: str) -> dict[str, Any]:
        place, units = self._chance.choice(PLACES), self._chance.randrange(1, 12)
        other = self._chance.choice(PLACES)
        request = self._chance.choice([name for owner, name in self._requests if owner == sku] or ["none"])
        bodies: list[dict[str, Any]] = [
            {"kind": "transfer_shipped", "location": place, "destination": other, "quantity": units},
            {"kind": "counted", "location": place, "quantity": units},
            {
                "kind": "stated",
                "location": place,
                "quantity": units,
                "of": self._chance.choice(["on_hand", "available"]),
            },
            {"kind": "channel_committed", "channel": self._chance.choice(["web", "b2b/acme"]), "quantity": units},
            {"kind": "shipped", "location": place, "quantity": units, "request": request},
            {"kind": "quarantined", "location": place, "quantity": units},
            self._request(sku, units),
        ]
        return self._chance.choice(bodies)

    def _request(self, sku: str, units: int) -> dict[str, Any]:
        name = f"R-{self._ids}"
        self._requests.append((sku, name))
        expires = format_ms(self._time_ms + self._chance.choice([HOUR_MS, DAY_MS]))
        body = {"kind": "requested", "id": name, "channel": self._chance.choice(CHANNELS), "quantity": units}
        return body | {"partial": True} | ({"expires": expires} if self._chance.randrange(2) else {})


def last_ticks(logs: Logs) -> Logs:
    """One more tick for each log, long after: every home speaks."""
    payload = json.dumps({"kind": "tick", "time": format_ms(BEGIN_MS + 400 * DAY_MS)}).encode()
    return tuple((Message(log[0].origin, len(log), -1, None, payload),) for log in logs)
