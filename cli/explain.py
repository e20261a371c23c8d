"""`onhand explain`: why a SKU shows the numbers that it shows."""

import os
import time
from typing import Annotated, Final, NamedTuple

import msgspec
import typer
from redis import Redis, RedisCluster
from redis.exceptions import NoPermissionError

from cli.configuration import ConfigOption, Configuration, load_configuration
from cli.failures import CliError, one_line
from cli.get import duration, freshness
from cli.screen import plain, print_json, print_line, print_table
from schemas.outputs import ChannelExplanation, Explanation, LocationExplanation, RecentRecord, Step
from schemas.times import parse_ms
from sinks.redis_keys import (
    Health,
    Promises,
    availability_key,
    explain_key,
    health_key,
    parse_explanation,
    parse_health,
    parse_promises,
)
from sources.asked_skus import asked_channel

EXAMPLES: Final = ("onhand explain SKU-1", "onhand explain SKU-1 --channel web --json")
LOOKS_MAX: Final = 5  # an explanation follows its number by some milliseconds, though nobody asks for it
LOOK_AGAIN_SECONDS: Final = 0.005
ASK_AGAIN_SECONDS: Final = 0.25
ASKED_SECONDS_MAX: Final = 2.0
WORDS: Final = {
    "not_for_sale": "not for sale",
    "contract_only": "only its own contract stock",
    "contracts": "set aside for contracts",
    "share": "share of what is free, in percent",
    "safety": "safety stock kept back",
    "own_contract": "its own contract stock",
    "backorder": "may be sold before it is here",
    "cap": "cap",
}


class Reading(NamedTuple):
    """What Redis holds of a SKU at one moment."""

    explanation: Explanation | None
    promises: Promises | None
    health: Health | None


class Explained(msgspec.Struct):
    """The explanation, what channels read at the same moment, and whether the two are of the same version."""

    sku: str
    known: bool
    current: bool
    promised: dict[str, int]
    explanation: Explanation | None
    health: str
    read_milliseconds: float


def explain(
    sku: Annotated[str, typer.Argument(metavar="SKU", help="The SKU, as the movements name it.")],
    channel: Annotated[
        str | None, typer.Option(metavar="CHANNEL", help="One channel or account [all that have a number].")
    ] = None,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show why a SKU has the numbers that it has: its positions, each rule in its turn, and the last movements.

    The steps of a channel add up to what it may sell. Works while the flow runs, from what that publishes.
    """
    explained = _read(load_configuration(config, os.environ), sku, channel)
    if as_json:
        print_json(explained)
    else:
        _print(explained)


def _read(configuration: Configuration, sku: str, channel: str | None) -> Explained:
    """Ask Redis; CliError where it does not answer, or holds something else there."""
    from cli.connections import redis_client

    with redis_client(configuration) as client:
        client.ping()
        begun = time.perf_counter()
        try:
            reading = read_settled(client, configuration.settings.redis.prefix, _explain_prefix(configuration), sku)
        except (ValueError, msgspec.DecodeError) as error:
            raise CliError(f"{sku} in Redis: {one_line(error)}; are redis.prefix and explain_prefix right?") from error
        milliseconds = (time.perf_counter() - begun) * 1000
    explanation, promises, health = reading
    if explanation is not None and channel is not None:
        explanation = _of_channel(explanation, channel)
    now_ms = round(time.time() * 1000)
    return Explained(
        sku=sku,
        known=promises is not None,
        current=is_current(reading),
        promised={} if promises is None else promises.promised if channel is None else {channel: promises.to(channel)},
        explanation=explanation,
        health=freshness(health, now_ms).text,
        read_milliseconds=round(milliseconds, 3),
    )


def read_settled(client: Redis, prefix: str, explain_prefix: str, sku: str) -> Reading:
    """What Redis holds of `sku`; where the explanation is not of the numbers' version it is asked for and waited for.

    Not longer than ASKED_SECONDS_MAX, and for a few looks only where no flow hears it, or this user may not ask.
    """
    reading, looks, is_heard = read_once(client, prefix, explain_prefix, sku), 1, True
    ask_at = time.monotonic()
    until = ask_at + ASKED_SECONDS_MAX
    while not is_current(reading) and reading.promises is not None:
        if is_heard and time.monotonic() >= ask_at:
            is_heard = _ask(client, explain_prefix, sku)
            ask_at += ASK_AGAIN_SECONDS
        if time.monotonic() > until if is_heard else looks >= LOOKS_MAX:
            break
        time.sleep(LOOK_AGAIN_SECONDS)
        reading = read_once(client, prefix, explain_prefix, sku)
        looks += 1
    return reading


def _ask(client: Redis, explain_prefix: str, sku: str) -> bool:
    """Ask the flow to explain `sku` now; whether it may have been heard."""
    try:
        hearers = int(client.publish(asked_channel(explain_prefix), sku))
    except NoPermissionError:
        return False
    return hearers > 0 or isinstance(client, RedisCluster)  # each server of a cluster knows only its own


def is_current(reading: Reading) -> bool:
    """Whether the explanation is of the very numbers that channels read."""
    explanation, promises, _ = reading
    if explanation is None or promises is None:
        return False
    return (explanation.incarnation, explanation.version) == (promises.incarnation, promises.version)


def read_once(client: Redis, prefix: str, explain_prefix: str, sku: str) -> Reading:
    """What Redis holds of `sku`."""
    alone = not isinstance(client, RedisCluster)  # in a cluster the three lie on several servers
    with client.pipeline(transaction=alone) as pipeline:  # all of one moment
        pipeline.hget(explain_key(explain_prefix, sku), "doc")
        pipeline.hgetall(availability_key(prefix, sku))
        pipeline.hgetall(health_key(prefix))
        document, promises, health = pipeline.execute()
    return Reading(parse_explanation(document), parse_promises(promises), parse_health(health))


def _explain_prefix(configuration: Configuration) -> str:
    return configuration.settings.redis.explain_prefix


def _of_channel(explanation: Explanation, channel: str) -> Explanation:
    """The explanation for one channel; an account without a number of its own reads that of its channel."""
    name = channel if channel in explanation.channels else channel.partition("/")[0]
    kept = {name: explanation.channels[name]} if name in explanation.channels else {}
    return msgspec.structs.replace(explanation, channels=kept)


def _print(explained: Explained) -> None:
    explanation, sku = explained.explanation, plain(explained.sku)
    if not explained.known:
        print_line(f"{sku}: never seen, treat as 0")
    elif explanation is None:
        print_line(f"{sku}: no explanation yet; a flow that catches up explains when it has time")
    else:
        _print_explanation(explanation)
        if not explained.current:
            now = ", ".join(f"{plain(name)} {units}" for name, units in explained.promised.items())
            print_line(f"The numbers have moved on since: channels read {now} now; ask again.")
    print_line(explained.health)


def _print_explanation(explanation: Explanation) -> None:
    sku = plain(explanation.sku)
    clock = f", clock {explanation.clock}" if explanation.clock else ""
    print_line(
        f"{sku}: version {explanation.version} of {explanation.home}, as of {explanation.as_of}, "
        f"rules generation {explanation.rules}{clock}"
    )
    print_table(
        ("LOCATION", "ON HAND", "RESERVED", "ALLOCATED", "QUARANTINED", "AVAILABLE", "TRUSTED", "SAFETY", "SPARE"),
        [_position(plain(name), place) for name, place in explanation.locations.items()],
    )
    for name, place in explanation.locations.items():
        for line in _about_place(place):
            print_line(f"  {plain(name)}: {line}")
    for name, channel in explanation.channels.items():
        _print_channel(plain(name), channel)
    _print_open(explanation)
    for record in explanation.movements:
        print_line(f"  {_movement(record)}")


def _position(name: str, place: LocationExplanation) -> tuple[str, ...]:
    numbers = (
        place.on_hand, place.reserved, place.allocated, place.quarantined, place.available, place.trusted,
        place.safety_units, place.spare,
    )  # fmt: skip
    return (name, *map(str, numbers))


def _about_place(place: LocationExplanation) -> list[str]:
    """What else there is to say about a position, a line each."""
    lines = []
    if place.trust_percent < 100:  # noqa: PLR2004  # per cent
        lines.append(f"silent: trusted by {place.trust_percent} %")
    if place.safety_units:
        lines.append(f"safety stock {place.safety_units} by {plain(place.safety_rule)}")
    if place.incoming or place.in_transit:
        lines.append(f"on its way: {place.incoming} incoming, {place.in_transit} in transit")
    if place.demand_days:
        cover = "" if place.days_of_cover is None else f", lasts {place.days_of_cover} days"
        until = f", until {place.runs_out[:16]}Z" if place.runs_out else ""
        lines.append(f"sells {place.demand_per_day} a day (±{place.demand_sigma}){cover}{until}")
    if place.reorder_point is not None:
        proposed = f", {place.proposed} proposed" if place.proposed else ""
        lines.append(f"reorder point {place.reorder_point}, position {place.position}{proposed}")
    return lines


def _print_channel(name: str, channel: ChannelExplanation) -> None:
    """Its steps, and what they add up to."""
    rows = [_step(step) for step in channel.steps]
    rows.append((f"{name} may sell", str(channel.promised), f"{channel.level}: low at {channel.low_stock_at}"))
    print_table((f"CHANNEL {name}", "UNITS", "RULE"), rows)


def _step(step: Step) -> tuple[str, str, str]:
    if step.step == "location":
        return f"spare at {plain(str(step.value))}", f"{step.units:+d}", step.rule or ""
    value = "" if step.value is None or isinstance(step.value, bool) else f" ({step.value})"
    return f"{WORDS.get(step.step, step.step)}{value}", f"{step.units:+d}", step.rule or ""


def _print_open(explanation: Explanation) -> None:
    for divergence in explanation.divergences:
        print_line(
            f"  disagrees: {plain(divergence.system)} at {plain(divergence.location)} says {divergence.of} "
            f"{divergence.stated}, derived {divergence.derived} ({divergence.reason}) since {divergence.opened_at}"
        )
    for request in explanation.requests:
        parts = ", ".join(f"{units} at {plain(location)}" for location, units in request.parts.items())
        until = f" until {request.expires}" if request.expires else ""
        owed = f", {request.backordered} backordered" if request.backordered else ""
        print_line(f"  held: {parts or 'nothing'}{owed} for {plain(request.channel)} ({plain(request.request)}){until}")
    if explanation.requests_left_out:
        print_line(f"  and {explanation.requests_left_out} more requests")


def _movement(record: RecentRecord) -> str:
    where = record.location or record.channel
    at = f" at {plain(where)}" if where else ""
    quantity = "" if record.quantity is None else f" {record.quantity}"
    age = duration(max(0.0, time.time() - parse_ms(record.time) / 1000))
    return f"{record.time}  {record.kind}{quantity}{at}  ({plain(record.source)} {plain(record.id)}, {age} ago)"
