"""The `onhand` command: its sub-commands, and how they end."""

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Annotated, Final, NamedTuple

import typer

from cli.failures import DONE, FAILED, INTERRUPTED, MISUSED, CliError, one_line
from cli.loading import loading
from cli.logs import DEBUG_VARIABLE, configure_logs, debug_wanted
from cli.screen import ReaderGone, print_note

DEBUG_OPTION: Final = "--debug"
HELP: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 80}

GROUPS: Final = {
    "run": "Run a flow until it is told to stop.",
    "topics": "The Kafka topics.",
    "recovery": "The store that a flow goes on from.",
    "rules": "The rules of a running flow.",
    "rebuild": "Make anew what was lost.",
    "bench": "Measure on this machine, checked by an oracle.",
}


class Command(NamedTuple):
    """Where a command is: a function and its examples, which are loaded only for the command line that names it."""

    name: str
    module: str
    function: str
    examples: str = "EXAMPLES"
    group: str = ""

    @property
    def words(self) -> list[str]:
        """What is typed for it."""
        return [word for word in (self.group, self.name) if word]


COMMANDS: Final = (
    Command("demo", "cli.demo", "demo"),
    Command("availability", "cli.run", "availability", group="run"),
    Command("get", "cli.get", "get"),
    Command("explain", "cli.explain", "explain"),
    Command("check", "cli.check", "check"),
    Command("doctor", "cli.doctor", "doctor"),
    Command("create", "cli.topics", "create", group="topics"),
    Command("create", "cli.recovery", "create", "CREATE_EXAMPLES", "recovery"),
    Command("check", "cli.recovery", "check", "CHECK_EXAMPLES", "recovery"),
    Command("push", "cli.rules", "push", "PUSH_EXAMPLES", "rules"),
    Command("show", "cli.rules", "show", "SHOW_EXAMPLES", "rules"),
    Command("diff", "cli.rules_diff", "diff", group="rules"),
    Command("redis", "cli.rebuild", "redis", group="rebuild"),
    Command("verify", "cli.verify", "verify"),
    Command("heartbeat", "cli.heartbeat", "heartbeat"),
    Command("tail", "cli.tail", "tail"),
    Command("load", "cli.load", "load"),
    Command("drain", "cli.bench", "drain", "DRAIN_EXAMPLES", "bench"),
    Command("kernel", "cli.bench", "kernel", "KERNEL_EXAMPLES", "bench"),
    Command("replenishment", "cli.bench", "replenishment", "REPLENISHMENT_EXAMPLES", "bench"),
    Command("healing", "cli.bench", "healing", "HEALING_EXAMPLES", "bench"),
    Command("latency", "cli.bench_latency", "latency", group="bench"),
    Command("lookups", "cli.bench_lookups", "lookups", group="bench"),
    Command("peers", "cli.bench_peers", "peers", group="bench"),
    Command("scale", "cli.bench_scale", "scale", group="bench"),
    Command("state", "cli.bench_state", "state", group="bench"),
    Command("report", "cli.bench_report", "report", "REPORT_EXAMPLES", "bench"),
    Command("all", "cli.bench_report", "all_", "ALL_EXAMPLES", "bench"),
)


def onhand(
    debug: Annotated[
        bool, typer.Option(DEBUG_OPTION, help="Show tracebacks; taken anywhere on the line, or from ONHAND_DEBUG=1.")
    ] = False,
) -> None:
    """How many of this SKU may I sell right now? Stock movements in, channel availability out."""


def application(arguments: Sequence[str] = ()) -> typer.Typer:
    """The command line with the command that `arguments` begin with; else with all, which take longest to load."""
    named = [command for command in COMMANDS if command.words == list(arguments[: len(command.words)])]
    app = typer.Typer(
        name="onhand",
        rich_markup_mode=None,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings=HELP,
    )
    app.callback()(onhand)
    groups = {"": app}
    for command in named or COMMANDS:
        if command.group not in groups:
            group = groups[command.group] = typer.Typer(no_args_is_help=True, help=GROUPS[command.group])
            app.add_typer(group, name=command.group)
        _add(groups[command.group], command)
    return app


def _add(group: typer.Typer, command: Command) -> None:
    """Make `command` a sub-command of `group`, its help ending with examples that run as they stand."""
    module = import_module(command.module)
    examples: tuple[str, ...] = getattr(module, command.examples)
    epilog = "\n".join(["\b", "Examples:" if len(examples) > 1 else "Example:", *(f"  {line}" for line in examples)])
    group.command(command.name, epilog=epilog, context_settings=HELP)(getattr(module, command.function))


def main() -> int:
    """Run the command line of this process and return its exit code (INTERFACE: 0, 1, 2, 3 or 130)."""
    arguments, debug = debug_taken(sys.argv[1:], os.environ)
    configure_logs(debug=debug)
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"  # for the processes that a command starts
    try:
        with loading():
            app = application(arguments)
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
