"""The fault campaign: `make faults SEEDS=n`. Seeded load and seeded faults against real processes, and the oracle."""

import argparse
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import msgspec

from tests.faults.report import markdown
from tests.faults.results import Noted, note, noted, product_of
from tests.faults.schedule import FAULTS, FaultKind, draw, slowed
from tests.faults.servers import Servers
from tests.faults.striking import Run, SeedResult

DONE: Final = 0
FOUND_SOMETHING: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130
SLOW_MAX: Final = 20.0
CHECKOUT: Final = Path(__file__).parents[2]


def main(arguments: list[str]) -> int:
    """Run the seeds, print a line for each, and return 1 where anything was violated."""
    options = _options(arguments)
    seeds = range(options.first, options.first + options.seeds)
    results: list[SeedResult] = []
    product = product_of(CHECKOUT) + (f"/{options.slow:g}" if options.slow != 1 else "")
    try:
        known = noted(options.results, product, options.only) if options.results else {}
    except ValueError as error:
        _say(f"error: {error}")
        return MISUSED
    folder = Path(tempfile.mkdtemp(prefix="onhand-faults-"))
    with Servers() as servers:
        for seed in seeds:
            result = known.get(seed) or _one(seed, options, servers, folder)
            results.append(result)
            if options.results and seed not in known:
                note(options.results, Noted(product, options.only, result))
            if options.report:
                options.report.write_text(markdown(results, _command(options)), encoding="utf-8")
    failed = [result.seed for result in results if result.violations]
    _say(f"{len(seeds)} seeds, {len(failed)} with violations{f': {failed}, kept in {folder}' if failed else ''}")
    if not failed and not options.keep:
        shutil.rmtree(folder)
    return FOUND_SOMETHING if failed else DONE


def _one(seed: int, options: argparse.Namespace, servers: Servers, folder: Path) -> SeedResult:
    """One seed; its folder stays where something was violated."""
    schedule = slowed(draw(seed, options.only), options.slow)
    own = folder / f"seed-{seed}"
    own.mkdir()
    text = msgspec.json.encode(schedule).decode()
    (own / "schedule.json").write_text(f"{text}\n")
    result = Run(schedule, servers, own).run()
    (own / "result.json").write_bytes(msgspec.json.encode(result))
    _say(_line(result))
    if result.violations:
        (own / "violations.txt").write_text("\n\n".join(result.violations))
        for violation in result.violations:
            _say(f"  {violation[:1500]}")
        _say(f"  schedule: {text}")
        _say(f"  kept: {own}")
        _say(f"  again: make faults SEEDS=1 FIRST={seed}{_chosen(options)}")
    elif not options.keep:
        shutil.rmtree(own)
    return result


def _line(result: SeedResult) -> str:
    faults = ", ".join(
        f"{fault.kind} ({fault.skipped})"
        if fault.skipped
        else f"{fault.kind} ×{fault.struck} read again {fault.read_again} recovered {fault.recovery_seconds or 0:.1f} s"
        for fault in result.faults
    )
    verdict = f"{len(result.violations)} VIOLATIONS" if result.violations else "ok"
    return (
        f"seed {result.seed}: {verdict} in {result.seconds:.0f} s, {result.starts} starts; {faults}; "
        f"{result.messages} records, {result.duplicates} duplicates, {result.dead_letters} dead letters, "
        f"{result.crossings} crossings, {result.written_again} written again, {result.writes} writes, "
        f"{result.reads} reads"
    )


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="how many [10]")
    parser.add_argument("--first", type=int, default=1, help="the first one [1]")
    parser.add_argument("--only", type=_fault, default=None, help=f"one fault alone: {', '.join(map(_dashed, FAULTS))}")
    parser.add_argument("--slow", type=_times, default=1.0, help="how many times as long this machine takes [1]")
    parser.add_argument("--report", type=Path, default=None, help="write the table there, after every seed")
    parser.add_argument(
        "--results", type=Path, default=None, help="go on where those noted there end, and note all there"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folders of all seeds")
    return parser.parse_args(arguments)


def _times(text: str) -> float:
    with suppress(ValueError):
        if 1.0 <= (times := float(text)) <= SLOW_MAX:
            return times
    raise argparse.ArgumentTypeError(f"{text!r} is no number between 1 and {SLOW_MAX:g}")


def _fault(text: str) -> FaultKind:
    for kind in FAULTS:
        if _dashed(kind) == _dashed(text):
            return kind
    raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(map(_dashed, FAULTS))}")


def _dashed(kind: str) -> str:
    return kind.replace(" ", "-")


def _command(options: argparse.Namespace) -> str:
    first = f" FIRST={options.first}" if options.first != 1 else ""
    return f"make faults SEEDS={options.seeds}{first}{_chosen(options)}"


def _chosen(options: argparse.Namespace) -> str:
    only = f" ONLY={_dashed(options.only)}" if options.only else ""
    return only + (f" SLOW={options.slow:g}" if options.slow != 1 else "")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    """SIGTERM as Ctrl-C: everything that was started is ended on the way out."""
    raise SystemExit(INTERRUPTED)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main(sys.argv[1:]))
