"""`onhand check`: are configuration and rules valid, and what is wrong, at which line."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from cli.configuration import ConfigOption, Located, count_errors, is_rules, read_configuration, read_rules
from cli.failures import MISUSED, CliError
from cli.screen import print_json, print_line

EXAMPLES = ("onhand check", "onhand check examples/onhand.toml examples/rules.toml")


def check(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Configuration or rules [the configuration in force, and its rules]."),
    ] = None,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say whether configuration and rules are valid, and at which line they are not.

    Exits with 0 where there are no more than warnings, with 2 on errors.
    """
    checked = dict(_named(files) if files else _in_force(config))
    complaints = [located for found in checked.values() for located in found]
    errors = count_errors(complaints)
    if as_json:
        print_json(_as_json(list(checked), complaints))
    else:
        _print_lines(checked)
    if errors:
        raise CliError(_summary(errors, len(complaints) - errors), MISUSED)


def _in_force(config: Path | None) -> Iterator[tuple[str, list[Located]]]:
    """What `onhand run` would read."""
    configuration, complaints = read_configuration(config, os.environ)
    yield str(configuration.file or "defaults"), complaints
    yield str(configuration.rules_path), read_rules(configuration.rules_path)[1]
    if configuration.settings.rules.shadow_path:
        shadow = configuration.at(configuration.settings.rules.shadow_path)
        yield str(shadow), read_rules(shadow)[1]


def _named(files: list[Path]) -> Iterator[tuple[str, list[Located]]]:
    """Each file by itself, without the environment."""
    for path in files:
        yield str(path), read_rules(path)[1] if is_rules(path) else read_configuration(path, {})[1]


def _print_lines(checked: dict[str, list[Located]]) -> None:
    for name, complaints in checked.items():
        for located in complaints:
            print_line(located.line())
        if not complaints:
            print_line(f"{name}: valid")


def _as_json(files: list[str], complaints: list[Located]) -> dict[str, object]:
    errors = count_errors(complaints)
    return {
        "files": files,
        "errors": errors,
        "warnings": len(complaints) - errors,
        "complaints": [{"file": located.file, **located.complaint._asdict()} for located in complaints],
    }


def _summary(errors: int, warnings: int) -> str:
    return f"{errors} error{'s' * (errors != 1)} and {warnings} warning{'s' * (warnings != 1)}, to be corrected"
