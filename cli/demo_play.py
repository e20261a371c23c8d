"""The demo from its beginning to its end: movements into the flow at a pace, a picture of it, and what remains."""

import gzip
import shutil
import sys
import time
from pathlib import Path
from typing import Final

from redis import Redis

from bench import retail
from cli.configuration import load_configuration
from cli.demo_flow import DemoFlow
from cli.demo_screen import DemoScreen
from cli.demo_sight import Probe, Sight, sku_to_probe
from cli.failures import MISUSED, CliError, one_line
from cli.pacing import Pace
from cli.screen import plain, print_line
from sinks.redis_keys import read_promises

CHECKOUT: Final = Path(__file__).resolve().parents[1]
CONFIGURATION: Final = CHECKOUT / "examples" / "demo" / "onhand.toml"
MOVEMENTS: Final = CHECKOUT / "examples" / "movements" / "online_retail_2010-12.csv.gz"
CHANNEL: Final = "web"
ENDING_SECONDS: Final = 2.0  # of those asked for, to write what is under way and to save
PLAY_SECONDS_MIN: Final = 1.0
LATE_SECONDS: Final = 1.0  # a machine that cannot keep up is cut off that much after the last movement was due
ANSWER_SECONDS_MAX: Final = 5.0


def play_demo(seconds: float, file: Path | None, rate: int | None) -> None:
    """Play the movements of `file` (None: a month of sales) in about `seconds`; CliError where something fails."""
    configuration = load_configuration(CONFIGURATION, {})
    deadline = time.monotonic() + max(PLAY_SECONDS_MIN, seconds - ENDING_SECONDS)
    payloads = read_payloads(file or MOVEMENTS)
    print_line("starting a Redis and `onhand run availability` …")
    with DemoFlow(configuration) as flow:
        url = flow.wait_until_ready()
        with Sight(url, configuration.settings.redis.prefix, flow.outputs, CHANNEL) as sight:
            play(payloads, flow, sight, rate, max(deadline, time.monotonic() + PLAY_SECONDS_MIN))
            sku = _example_sku(payloads, sight)
            _print_example(url, configuration.settings.redis.prefix, sku)
        flow.end()
    print_line("What it held is kept. Any SKU can be read:")
    print_line(f"  {_program()} get {plain(sku)} --config {_relative(CONFIGURATION)}")


def read_payloads(path: Path) -> list[bytes]:
    """The movements in `path`: sales lines of the retail data (.csv, .csv.gz), or JSON lines; CliError without any."""
    try:
        if path.name.endswith((".csv", ".csv.gz")):
            payloads = [payload for _, payload in retail.movements(retail.read_lines(path))]
        else:
            payloads = _lines(path)
    except (OSError, EOFError, ValueError) as error:
        raise CliError(f"{path} cannot be read: {one_line(error)}", MISUSED) from error
    if not payloads:
        raise CliError(f"{path} holds no movements", MISUSED)
    return payloads


def _lines(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [line for line in (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines() if line.strip()]


def play(payloads: list[bytes], flow: DemoFlow, sight: Sight, rate: int | None, deadline: float) -> None:
    """Write the movements to the flow at `rate` (None: so that all are written by `deadline`), showing how it goes."""
    screen = DemoScreen(sight, CHANNEL, len(payloads))
    pace = Pace(rate or len(payloads) / (deadline - time.monotonic()), flow.flush)
    with screen:
        for line, payload in enumerate(payloads):
            if time.monotonic() > deadline + LATE_SECONDS:
                break
            pace.wait()
            flow.write(payload)
            screen.sent_one(payload)
            if sight.wants_probe and (sku := sku_to_probe(payload)):
                sight.watch(Probe(line, sku, time.monotonic()))
                flow.flush()
        flow.flush()
        screen.stop_clock()
        sight.settle()
    for text in screen.summary():
        print_line(text)


def _print_example(url: str, prefix: str, sku: str) -> None:
    """What a channel reads of `sku` right now, where it reads it."""
    with Redis.from_url(url, socket_timeout=ANSWER_SECONDS_MAX) as client:
        promises = read_promises(client, prefix, sku)
    units = promises.to(CHANNEL) if promises else 0
    print_line(f"{CHANNEL} may sell {units} of {plain(sku)} now: HGET {prefix}{plain(sku)} {CHANNEL}")


def _example_sku(payloads: list[bytes], sight: Sight) -> str:
    """The SKU whose level changed last, for our channel if there is one, or the first one that was named."""
    last = sorted(sight.crossings, key=lambda crossing: crossing.channel == CHANNEL)
    return last[-1].sku if last else next(filter(None, map(sku_to_probe, payloads)), "")


def _program() -> str:
    """This command as one would type it here."""
    return "onhand" if shutil.which("onhand") else _relative(Path(sys.argv[0]).absolute())


def _relative(path: Path) -> str:
    """`path` as one would type it here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
