"""The `onhand` command: its sub-commands, and how they end."""

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Annotated, Final

import typer

from cli import (
    bench,
    bench_latency,
    bench_lookups,
    bench_peers,
    bench_report,
    bench_scale,
    bench_state,
    check,
    demo,
    doctor,
    explain,
    get,
    heartbeat,
    load,
    rebuild,
    recovery,
    rules,
    rules_diff,
    run,
    tail,
    topics,
    verify,
)
from cli.failures import DONE, FAILED, INTERRUPTED, MISUSED, CliError, one_line
from cli.logs import DEBUG_VARIABLE, configure_logs, debug_wanted
from cli.screen import ReaderGone, print_note

DEBUG_OPTION: Final = "--debug"
HELP: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 80}

app = typer.Typer(
    name="onhand", rich_markup_mode=None, no_args_is_help=True, pretty_exceptions_enable=False, context_settings=HELP
)
run_app = typer.Typer(no_args_is_help=True, help="Run a flow until it is told to stop.")
topics_app = typer.Typer(no_args_is_help=True, help="The Kafka topics.")
recovery_app = typer.Typer(no_args_is_help=True, help="The store that a flow goes on from.")
rules_app = typer.Typer(no_args_is_help=True, help="The rules of a running flow.")
rebuild_app = typer.Typer(no_args_is_help=True, help="Make anew what was lost.")
bench_app = typer.Typer(no_args_is_help=True, help="Measure on this machine, checked by an oracle.")


@app.callback()
def onhand(
    debug: Annotated[
        bool, typer.Option(DEBUG_OPTION, help="Show tracebacks; taken anywhere on the line, or from ONHAND_DEBUG=1.")
    ] = False,
) -> None:
    """How many of this SKU may I sell right now? Stock movements in, channel availability out."""


def add(group: typer.Typer, command: Callable[..., None], examples: tuple[str, ...], name: str | None = None) -> None:
    """Make `command` a sub-command of `group`, its help ending with examples that run as they stand."""
    epilog = "\n".join(["\b", "Examples:" if len(examples) > 1 else "Example:", *(f"  {line}" for line in examples)])
    group.command(name, epilog=epilog, context_settings=HELP)(command)


add(app, demo.demo, demo.EXAMPLES)
app.add_typer(run_app, name="run")
add(run_app, run.availability, run.EXAMPLES)
add(app, get.get, get.EXAMPLES)
add(app, explain.explain, explain.EXAMPLES)
add(app, check.check, check.EXAMPLES)
add(app, doctor.doctor, doctor.EXAMPLES)
app.add_typer(topics_app, name="topics")
add(topics_app, topics.create, topics.EXAMPLES)
app.add_typer(recovery_app, name="recovery")
add(recovery_app, recovery.create, recovery.CREATE_EXAMPLES)
add(recovery_app, recovery.check, recovery.CHECK_EXAMPLES)
app.add_typer(rules_app, name="rules")
add(rules_app, rules.push, rules.PUSH_EXAMPLES)
add(rules_app, rules.show, rules.SHOW_EXAMPLES)
add(rules_app, rules_diff.diff, rules_diff.EXAMPLES)
app.add_typer(rebuild_app, name="rebuild")
add(rebuild_app, rebuild.redis, rebuild.EXAMPLES)
add(app, verify.verify, verify.EXAMPLES)
add(app, heartbeat.heartbeat, heartbeat.EXAMPLES)
add(app, tail.tail, tail.EXAMPLES)
add(app, load.load, load.EXAMPLES)
app.add_typer(bench_app, name="bench")
add(bench_app, bench.drain, bench.DRAIN_EXAMPLES)
add(bench_app, bench.kernel, bench.KERNEL_EXAMPLES)
add(bench_app, bench.replenishment, bench.REPLENISHMENT_EXAMPLES)
add(bench_app, bench.healing, bench.HEALING_EXAMPLES)
add(bench_app, bench_latency.latency, bench_latency.EXAMPLES)
add(bench_app, bench_lookups.lookups, bench_lookups.EXAMPLES)
add(bench_app, bench_peers.peers, bench_peers.EXAMPLES)
add(bench_app, bench_scale.scale, bench_scale.EXAMPLES)
add(bench_app, bench_state.state, bench_state.EXAMPLES)
add(bench_app, bench_report.report, bench_report.REPORT_EXAMPLES)
add(bench_app, bench_report.all_, bench_report.ALL_EXAMPLES, "all")


def main() -> int:
    """Run the command line of this process and return its exit code (INTERFACE: 0, 1, 2, 3 or 130)."""
    arguments, debug = debug_taken(sys.argv[1:], os.environ)
    configure_logs(debug=debug)
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"  # for the processes that a command starts
    try:
        return app(arguments, prog_name="onhand", standalone_mode=False) or DONE
    except ReaderGone:
        return _without_reader()
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  # the last one to see it: it is told and the process ends
        return _told(error, debug=debug)


def debug_taken(arguments: list[str], environment: Mapping[str, str]) -> tuple[list[str], bool]:
    """The arguments without `--debug` (before a `--`), and whether tracebacks are wanted."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    rest = [argument for argument in arguments[:end] if argument != DEBUG_OPTION] + arguments[end:]
    return rest, len(rest) < len(arguments) or debug_wanted(environment)


def _told(error: Exception, *, debug: bool) -> int:
    """Say in one line what went wrong; the exit code."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, CliError):
        print_note(f"onhand: {one_line(error)}")
        return error.exit_code
    if isinstance(error, typer.TyperException):
        print_note(_usage_line(error))
        return MISUSED
    print_note(f"onhand: unexpected {type(error).__name__}: {one_line(error)}; --debug shows where")
    return FAILED


def _usage_line(error: typer.TyperException) -> str:
    """What is wrong with the command line; the whole help where nothing was asked."""
    message = error.format_message()
    if "\n" in message:
        return message
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "onhand"
    return f"{command}: {one_line(RuntimeError(message))} See `{command} --help`."


def _without_reader() -> int:
    """Let the interpreter flush what nobody reads any more into nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


if __name__ == "__main__":
    sys.exit(main())
