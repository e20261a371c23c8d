"""`onhand rules push` and `show`: changes the rules of a running flow, and says which ones hold."""

import os
import time
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from cli.configuration import ConfigOption, Configuration, load_configuration, load_rules
from cli.connections import redis_client
from cli.embedded import is_embedded, running_url
from cli.failures import CliError, one_line
from cli.rules_at_start import CHANGES_SHOWN_MAX, claim, latest_of, rule_log, write
from cli.screen import plain, print_json, print_line, print_note, print_table
from schemas.rule_changes import document_of
from sinks.redis_keys import RulesHeld, read_rules_in_force
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
    log = rule_log(configuration.settings, _redis_url(configuration))
    try:
        report = _push(configuration, log, document, wait)
    except SinkError as error:
        raise CliError(one_line(error)) from error
    if as_json:
        print_json(report)
    else:
        _print_report(report)
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
    held = _held(configuration)
    latest = None
    if configuration.settings.input.kind != "jsonl":
        try:
            latest = latest_of(rule_log(configuration.settings, _redis_url(configuration)))
        except SinkError as error:
            raise CliError(one_line(error)) from error
    if as_json:
        print_json({"in_force": None if held is None else held._asdict(), "latest": latest})
        return
    if held is None:
        print_line("no flow has told which rules hold: is `onhand run availability` running?")
    else:
        _print_held(held)
    if latest is not None and (held is None or held.generation < latest.generation):
        print_note(f"generation {latest.generation} was pushed {latest.time} and is not in force yet")


def _push(configuration: Configuration, log: RuleLog, document: dict[str, Any], wait: float) -> PushReport:
    """Claim, write, and wait until the flow goes by it."""
    begun = time.monotonic()
    held = _held(configuration)
    partitions = log.partitions()
    pushed = claim(log, document, 0 if held is None else held.generation)
    if pushed is None:
        latest = latest_of(log)
        return PushReport(False, 0 if latest is None else latest.generation, [], len(partitions), 0, 0.0)
    before = pushed.before
    is_everywhere = held is not None and before is not None and _in_force(held, partitions, before.generation)
    write(log, pushed.generation, before if is_everywhere else None)
    generation, deadline, in_force = pushed.generation.generation, begun + wait, 0
    while True:
        held = _held(configuration) if wait else None
        in_force = 0 if held is None else sum(_is_reached(held, at, generation) for at in partitions)
        if in_force == len(partitions) or time.monotonic() >= deadline:
            break
        time.sleep(LOOK_SECONDS)
    seconds = round(time.monotonic() - begun, 3)
    return PushReport(True, generation, pushed.changes, len(partitions), in_force, seconds)


def _redis_url(configuration: Configuration) -> str:
    """Where Redis is; an embedded one where the running flow has it."""
    if not is_embedded(configuration):
        return configuration.settings.redis.url
    url = running_url(configuration.at(configuration.settings.state.path))
    if url is None:
        raise CliError("the embedded Redis runs with the flow alone: start `onhand run availability`")
    return url


def _held(configuration: Configuration) -> RulesHeld | None:
    with redis_client(configuration) as client:
        return read_rules_in_force(client, configuration.settings.redis.prefix)


def _in_force(held: RulesHeld, partitions: list[int], generation: int) -> bool:
    """Whether every partition goes by exactly this generation."""
    return all(at in held.partitions and held.partitions[at].generation == generation for at in partitions)


def _is_reached(held: RulesHeld, partition: int, generation: int) -> bool:
    return partition in held.partitions and held.partitions[partition].generation >= generation


def _print_report(report: PushReport) -> None:
    if not report.pushed:
        print_line(f"nothing to change: generation {report.generation} has these rules")
        return
    for change in report.changes[:CHANGES_SHOWN_MAX]:
        print_line(f"changed: {plain(change)}")
    if len(report.changes) > CHANGES_SHOWN_MAX:
        print_line(f"and {len(report.changes) - CHANGES_SHOWN_MAX} more changes")
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
