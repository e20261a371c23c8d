"""`onhand get`: what a channel would read of a SKU now, with version and age."""

import os
import time
from typing import Annotated, Final

import msgspec
import typer

from cli.configuration import ConfigOption, Configuration, load_configuration
from cli.failures import CliError, one_line
from cli.screen import plain, print_json, print_line, print_table
from schemas.times import format_ms
from sinks.redis_keys import Health, Promises

EXAMPLES: Final = ("onhand get SKU-1", "onhand get SKU-1 --channel web --json")
WRITTEN_SECONDS_MAX: Final = 10.0  # a running flow writes the health hash about once a second
LAG_SECONDS_MAX: Final = 60.0
UNITS: Final = (("years", 31_557_600), ("days", 86_400), ("h", 3600), ("min", 60))


class Freshness(msgspec.Struct):
    """Whether the numbers can be trusted, with the reason where they cannot."""

    fresh: bool
    text: str
    written_seconds_ago: float | None = None
    lag_seconds: float | None = None


class Answer(msgspec.Struct):
    """What channels would read of a SKU; `channels` holds units, 0 where nothing was ever promised."""

    sku: str
    known: bool
    channels: dict[str, int]
    health: Freshness
    incarnation: int | None = None
    version: int | None = None
    as_of: str | None = None
    age_seconds: float | None = None


def get(
    sku: Annotated[str, typer.Argument(metavar="SKU", help="The SKU, as the movements name it.")],
    channel: Annotated[
        str | None, typer.Option(metavar="CHANNEL", help="One channel or account [all that Redis holds].")
    ] = None,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what a channel would read of a SKU now, with version and age.

    A SKU without a key was never seen: a channel treats it as 0. An account without a value of its own (b2b/acme)
    reads that of its channel (b2b).
    """
    answer = _read(load_configuration(config, os.environ), sku, channel, round(time.time() * 1000))
    if as_json:
        print_json(answer)
    else:
        _print(answer)


def freshness(health: Health | None, now_ms: int) -> Freshness:
    """Whether numbers that come with `health` can be trusted at `now_ms` (since 1970)."""
    if health is None:
        return Freshness(fresh=False, text="stale: no run has written yet; start `onhand run availability`")
    written_seconds = max(0.0, (now_ms - health.written_ms) / 1000)
    lag = "unknown lag" if health.lag_seconds is None else f"{health.lag_seconds:.1f} s behind its input"
    text = f"last written {duration(written_seconds)} ago, {lag}"
    if written_seconds > WRITTEN_SECONDS_MAX:
        text = f"stale: {text}; is `onhand run availability` running?"
        return Freshness(False, text, written_seconds, health.lag_seconds)
    fresh = health.lag_seconds is not None and health.lag_seconds <= LAG_SECONDS_MAX
    return Freshness(fresh, f"{'fresh' if fresh else 'stale'}: {text}", written_seconds, health.lag_seconds)


def duration(seconds: float) -> str:
    """A span of time as people say it: `0.4 s`, `12 min`, `3 h`, `15 days`, `16 years`."""
    for unit, length_seconds in UNITS:
        if seconds >= 2 * length_seconds:
            return f"{seconds / length_seconds:.0f} {unit}"
    return f"{seconds:.1f} s"


def _read(configuration: Configuration, sku: str, channel: str | None, now_ms: int) -> Answer:
    """Ask Redis; CliError where it does not answer, or holds something else under this prefix."""
    from cli.connections import redis_client
    from sinks.redis_keys import read_health, read_promises

    prefix = configuration.settings.redis.prefix
    with redis_client(configuration) as client:
        try:
            promises = read_promises(client, prefix, sku)
            health = freshness(read_health(client, prefix), now_ms)
        except ValueError as error:
            raise CliError(f"{prefix}{sku} in Redis: {one_line(error)}; is redis.prefix right?") from error
    return _answer(sku, channel, promises, health, now_ms)


def _answer(sku: str, channel: str | None, promises: Promises | None, health: Freshness, now_ms: int) -> Answer:
    if promises is None:
        return Answer(sku, known=False, channels={channel: 0} if channel else {}, health=health)
    channels = {channel: promises.to(channel)} if channel else dict(sorted(promises.promised.items()))
    age_seconds = max(0.0, (now_ms - promises.as_of_ms) / 1000)
    as_of = format_ms(promises.as_of_ms)
    return Answer(sku, True, channels, health, promises.incarnation, promises.version, as_of, age_seconds)


def _print(answer: Answer) -> None:
    sku = plain(answer.sku)
    if not answer.known:
        print_line(f"{sku}: never seen, treat as 0")
    else:
        print_table(("CHANNEL", "MAY SELL"), [(plain(name), str(units)) for name, units in answer.channels.items()])
        age = duration(answer.age_seconds or 0.0)
        print_line(f"{sku}: version {answer.version}, as of {answer.as_of} ({age} ago)")
    print_line(answer.health.text)
