"""`onhand rules push` and `show`: changes the rules of a running flow, and says which ones hold."""

import os
import time
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from redis import Redis
from redis.exceptions import RedisError

from cli.configuration import ConfigOption, Configuration, load_configuration, load_rules
from cli.connections import redis_client
from cli.embedded import is_embedded, running_url
from cli.failures import CliError, one_line
from cli.rules_at_start import CHANGES_SHOWN_MAX, claim, latest_of, make_registry, pushed_last, rule_log, write
from cli.screen import plain, print_json, print_line, print_note, print_table
from schemas.rule_changes import document_of
from schemas.watch import Generation
from sinks.redis_keys import Held, RulesHeld, read_partitions_held, read_rules_in_force
from sinks.rule_log import RuleLog
from sinks.slots import SinkError

PUSH_EXAMPLES: Final = ("onhand rules push", "onhand rules push new-rules.toml --wait 30")
SHOW_EXAMPLES: Final = ("onhand rules show", "onhand rules show --json")
LOOK_SECONDS: Final = 0.05


class PushReport(msgspec.Struct):
    """What a push did: `pushed` is false where nothing was to be changed."""

    pushed: bool
    generation: int
    changes: list[str]
    partitions: int
    in_force: int
    seconds: float


def push(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="The rules [rules.path].")] = None,
    wait: Annotated[
        float, typer.Option(min=0, max=3600, metavar="SECONDS", help="How long until they must hold; 0: do not wait.")
    ] = 10.0,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a file of rules and bring it in force, while the flow runs.

    With an error in it nothing is pushed, and every error is told with its line (exit code 2).
    """
    configuration = load_configuration(config, os.environ)
    document = document_of(load_rules(file or configuration.rules_path))
    log = rule_log(configuration.settings, _stream_url(configuration))
    try:
        with redis_client(configuration) as client:
            report = _push(configuration, client, log, document, wait)
    except SinkError as error:
        raise CliError(one_line(error)) from error
    if as_json:
        print_json(report)
    else:
        _print_report(report, is_awaited=wait > 0)
    if not report.pushed and report.in_force < report.partitions:
        print_note(
            f"generation {report.generation} is in force in {report.in_force} of {report.partitions} partitions; "
            "where that does not change, a start of `onhand run availability` writes it again"
        )
    if report.pushed and wait and report.in_force < report.partitions:
        raise CliError(
            f"generation {report.generation} is in the log but not in force everywhere within {wait:g} s; "
            "it will be as soon as `onhand run availability` reads it"
        )


def show(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show which rules hold now, in which partitions, and since when."""
    configuration = load_configuration(config, os.environ)
    with redis_client(configuration) as client:
        held = read_rules_in_force(client, configuration.settings.redis.prefix)
    latest, behind = _pushed(configuration, held)
    if as_json:
        print_json({"in_force": None if held is None else held._asdict(), "latest": latest, "behind": behind})
        return
    if held is None:
        print_line("no flow has told which rules hold: is `onhand run availability` running?")
    else:
        _print_held(held)
    if latest is not None and behind:
        print_note(
            f"generation {latest.generation} was pushed {latest.time} and is not in force yet in {_list(behind)}"
        )


def _push(
    configuration: Configuration, client: Redis, log: RuleLog, document: dict[str, Any], wait: float
) -> PushReport:
    """Claim, write, and wait until the flow goes by it."""
    begun = time.monotonic()
    prefix = configuration.settings.redis.prefix
    held = read_partitions_held(client, prefix)
    partitions = log.partitions()
    make_registry(configuration.settings)
    pushed = claim(log, document, max((rules.generation for rules in held.values()), default=0))
    if pushed is None:
        latest = latest_of(log)
        generation = 0 if latest is None else latest.generation
        in_force = len(partitions) - len(_behind(held, partitions, generation))
        return PushReport(False, generation, [], len(partitions), in_force, 0.0)
    before = pushed.before
    is_everywhere = before is not None and _is_everywhere(held, partitions, before)
    write(log, pushed.generation, before if is_everywhere else None)
    generation, deadline = pushed.generation.generation, begun + wait
    behind = _behind_by(deadline, client, prefix, partitions, generation)
    seconds = round(time.monotonic() - begun, 3)
    return PushReport(True, generation, pushed.changes, len(partitions), len(partitions) - len(behind), seconds)


def _behind_by(deadline: float, client: Redis, prefix: str, partitions: list[int], generation: int) -> list[int]:
    """The partitions that do not go by `generation` yet when all do, or at `deadline`.

    A Redis that does not answer for a moment is asked again: the rules are in the log.
    """
    behind = partitions
    while time.monotonic() < deadline:
        try:
            behind = _behind(read_partitions_held(client, prefix), partitions, generation)
        except RedisError:
            behind = partitions
        if not behind:
            break
        time.sleep(LOOK_SECONDS)
    return behind


def _behind(held: dict[int, Held], partitions: list[int], generation: int) -> list[int]:
    """The partitions that go by an earlier generation, or have not told."""
    return [at for at in partitions if at not in held or held[at].generation < generation]


def _is_everywhere(held: dict[int, Held], partitions: list[int], generation: Generation) -> bool:
    """Whether every partition goes by exactly these rules, so that what changes since then is enough."""
    named = (generation.generation, generation.digest)
    return all(at in held and (held[at].generation, held[at].digest) == named for at in partitions)


def _pushed(configuration: Configuration, held: RulesHeld | None) -> tuple[Generation | None, list[int]]:
    """The generation pushed last, and the partitions that do not go by it yet."""
    if configuration.settings.input.kind == "jsonl":
        return None, []
    url = _stream_url(configuration)
    try:
        latest = pushed_last(configuration.settings, url)
        if latest is None:
            return None, []
        partitions = rule_log(configuration.settings, url).partitions()
    except SinkError as error:
        raise CliError(one_line(error)) from error
    return latest, _behind({} if held is None else held.partitions, partitions, latest.generation)


def _stream_url(configuration: Configuration) -> str:
    """Where a Redis stream of movements is: an embedded one where the running flow has it."""
    if configuration.settings.input.kind != "redis_stream" or not is_embedded(configuration):
        return configuration.settings.redis.url
    url = running_url(configuration.at(configuration.settings.state.path))
    if url is None:
        raise CliError("the embedded Redis runs with the flow alone: start `onhand run availability`")
    return url


def _print_report(report: PushReport, *, is_awaited: bool) -> None:
    if not report.pushed:
        print_line(f"nothing to change: generation {report.generation} has these rules")
        return
    for change in report.changes[:CHANGES_SHOWN_MAX]:
        print_line(f"changed: {plain(change)}")
    if len(report.changes) > CHANGES_SHOWN_MAX:
        print_line(f"and {len(report.changes) - CHANGES_SHOWN_MAX} more changes")
    if not is_awaited:
        print_line(f"generation {report.generation} is in the log of {report.partitions} partitions")
        return
    print_line(
        f"generation {report.generation} in force in {report.in_force} of {report.partitions} partitions "
        f"after {report.seconds:.1f} s"
    )


def _print_held(held: RulesHeld) -> None:
    print_table(
        ("PARTITION", "GENERATION", "SINCE OFFSET", "PUSHED", "DIGEST"),
        [
            (str(partition), str(rules.generation), str(rules.offset), rules.time or "-", rules.digest)
            for partition, rules in sorted(held.partitions.items())
        ],
    )
    print_line(f"generation {held.generation}:")
    for line in msgspec.json.format(msgspec.json.encode(held.document), indent=2).decode().splitlines():
        print_line(plain(line))


def _list(partitions: list[int]) -> str:
    """Partitions as people read them: `partition 3`, `partitions 0, 3`."""
    return f"partition{'s' * (len(partitions) > 1)} {', '.join(map(str, partitions))}"
