"""`onhand doctor`: is everything there that a run needs, and what to do where it is not."""

import os
from collections.abc import Iterator
from typing import Annotated, Final

import typer

from cli.configuration import ConfigOption, Configuration, Located, load_configuration, read_rules
from cli.doctor_kafka import kafka_checks
from cli.doctor_redis import redis_checks
from cli.failures import DIFFERENT, FAILED, CliError, one_line
from cli.findings import Check
from cli.screen import print_json, print_line, print_table
from flows.store import StoreError, is_new, opened

EXAMPLES: Final = ("onhand doctor", "onhand doctor --json")


def doctor(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at Kafka, topics, lag, Redis, state and rules, and say what to do about each finding.

    Exits with 0 where all is fine, with 3 where something is to be done, and with 1 where neither Kafka nor Redis
    answers, so that nothing could be checked.
    """
    configuration = load_configuration(config, os.environ)
    checks = [
        *_rules_checks(configuration),
        *kafka_checks(configuration.settings),
        *redis_checks(configuration),
        _state_check(configuration),
    ]
    if as_json:
        print_json({"checks": checks})
    else:
        _print(checks)
    findings = sum(check.result in ("finding", "unreachable") for check in checks)
    if not any(check.result == "ok" for check in checks if check.subject not in ("rules", "state")):
        raise CliError("no server answers, so nothing could be checked; begin with the first advice above", FAILED)
    if findings:
        raise CliError(f"{findings} finding{'s' * (findings != 1)}, each with what to do", DIFFERENT)


def _print(checks: list[Check]) -> None:
    print_table(
        ("", "CHECKED", "FOUND"),
        [
            ("ok" if check.result == "ok" else "!" if check.advice else "-", check.subject, check.found)
            for check in checks
        ],
    )
    for check in checks:
        if check.advice:
            print_line(f"{check.subject}: {check.advice}")


def _rules_checks(configuration: Configuration) -> Iterator[Check]:
    """The rules in force and, where there are any, those computed beside them."""
    rules = configuration.settings.rules
    for path in filter(None, (rules.path, rules.shadow_path)):
        complaints = read_rules(configuration.at(path))[1]
        errors = [located for located in complaints if located.complaint.severity == "error"]
        yield _rules_check(path, errors, len(complaints) - len(errors))


def _rules_check(path: str, errors: list[Located], warnings: int) -> Check:
    if errors:
        return Check("rules", "finding", errors[0].line(), f"`onhand check` lists all that is wrong with {path}")
    return Check("rules", "ok", f"{path} is valid" + (f", {warnings} warnings" if warnings else ""))


def _state_check(configuration: Configuration) -> Check:
    """The store of the settings, without reading its content."""
    settings = configuration.settings
    path = configuration.at(settings.state.path)
    if is_new(path):
        return Check("state", "ok", f"{path} is new: the first start makes it, and reads the log from its beginning")
    try:
        meta = opened(path, settings.state.lanes)
    except StoreError as error:
        what, _, advice = one_line(error).partition(": ")
        return Check("state", "finding", what, advice or "`onhand recovery check` says more")
    return Check("state", "ok", f"{path}: incarnation {meta.incarnation}, made {meta.created}")
