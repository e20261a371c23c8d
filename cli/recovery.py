"""`onhand recovery`: the store that a flow goes on from."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.configuration import ConfigOption, load_configuration
from cli.failures import DIFFERENT, MISUSED, CliError, one_line
from cli.screen import print_json, print_line

if TYPE_CHECKING:
    from flows.store import Report

CREATE_EXAMPLES: Final = (
    "onhand recovery create",
    "onhand recovery create --machines 2 --machine 1 --incarnation 1795601211",
)
CHECK_EXAMPLES: Final = ("onhand recovery check", "onhand recovery check --json")
MACHINES_MAX: Final = 8  # as many as there are parts
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def create(
    config: ConfigOption = None,
    machines: Annotated[
        int, typer.Option("--machines", min=1, max=MACHINES_MAX, help="How many machines share the state's parts.")
    ] = 1,
    machine: Annotated[int, typer.Option("--machine", min=0, help="Which of them this one is, from 0.")] = 0,
    incarnation: Annotated[
        int | None, typer.Option("--incarnation", min=1, help="That of the first machine, which it has printed.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the store in `state.path`; the first start does it too, where one machine runs the flow.

    Of several machines each has a directory of its own with a share of the parts: run this on each of them, on the
    others with the incarnation that the first one has printed.
    """
    from cli.state import make_store

    if machine >= machines:
        raise CliError(f"--machine {machine}: with --machines {machines} they are numbered from 0", MISUSED)
    if (machine > 0) != (incarnation is not None):
        raise CliError("--incarnation is for the machines after the first, and they need it", MISUSED)
    path, meta = make_store(load_configuration(config, os.environ), machine, machines, incarnation)
    if as_json:
        print_json({"path": str(path), "lanes": meta.lanes, "incarnation": meta.incarnation, "parts": meta.own_parts})
        return
    print_line(
        f"{path}: incarnation {meta.incarnation}, {meta.lanes} lanes, {len(meta.own_parts)} of {meta.parts} parts"
    )
    for other in range(1, machines if machine == 0 else 1):
        options = f"--machines {machines} --machine {other} --incarnation {meta.incarnation}"
        print_line(f"machine {other}: onhand recovery create {options}")


def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Read the whole store in `state.path`, and say whether a flow can go on from it; exit code 3 where it cannot.

    It changes nothing. Beside a running flow it sees what the last whole epoch has left.
    """
    from flows.store import report

    configuration = load_configuration(config, os.environ)
    path = configuration.at(configuration.settings.state.path)
    try:
        found = report(path)
    except OSError as error:
        raise CliError(f"{path} cannot be read ({one_line(error)}): correct state.path, or its rights") from error
    if as_json:
        print_json({"path": str(path), **found._asdict()})
    else:
        for line in _lines(path, found):
            print_line(line)
    if found.findings:
        raise CliError(f"{found.findings[0].what}: {found.findings[0].advice}", DIFFERENT)


def _lines(path: Path, found: "Report") -> Iterator[str]:
    """What a person wants to know of a store."""
    if found.meta is not None:
        made = f"incarnation {found.meta.incarnation}, made {found.meta.created}"
        yield f"{path}: {found.bytes / 1e6:.1f} MB, {made}"
        yield f"lanes {found.lanes_found} of {found.meta.lanes}, reader slots {found.slots_found}"
        yield f"goes on at epoch {found.resume_epoch}, last written {found.newest or 'never'}"
    for finding in found.findings[1:]:
        yield f"{finding.what}: {finding.advice}"
