"""What all commands share: help with examples, one line for what goes wrong, and exit codes."""

import subprocess
import sys
from ast import literal_eval
from pathlib import Path

import pytest

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
    main,
    rebuild,
    recovery,
    rules,
    rules_diff,
    run,
    tail,
    topics,
    verify,
)
from tests.cli.command import ONHAND, assert_failed_in_one_line, environment, onhand

COMMANDS = {
    ("demo",): demo.EXAMPLES,
    ("run", "availability"): run.EXAMPLES,
    ("get",): get.EXAMPLES,
    ("check",): check.EXAMPLES,
    ("doctor",): doctor.EXAMPLES,
    ("topics", "create"): topics.EXAMPLES,
    ("recovery", "create"): recovery.CREATE_EXAMPLES,
    ("recovery", "check"): recovery.CHECK_EXAMPLES,
    ("rebuild", "redis"): rebuild.EXAMPLES,
    ("verify",): verify.EXAMPLES,
    ("explain",): explain.EXAMPLES,
    ("rules", "push"): rules.PUSH_EXAMPLES,
    ("rules", "show"): rules.SHOW_EXAMPLES,
    ("rules", "diff"): rules_diff.EXAMPLES,
    ("heartbeat",): heartbeat.EXAMPLES,
    ("tail",): tail.EXAMPLES,
    ("load",): load.EXAMPLES,
    ("bench", "drain"): bench.DRAIN_EXAMPLES,
    ("bench", "kernel"): bench.KERNEL_EXAMPLES,
    ("bench", "replenishment"): bench.REPLENISHMENT_EXAMPLES,
    ("bench", "healing"): bench.HEALING_EXAMPLES,
    ("bench", "latency"): bench_latency.EXAMPLES,
    ("bench", "lookups"): bench_lookups.EXAMPLES,
    ("bench", "peers"): bench_peers.EXAMPLES,
    ("bench", "scale"): bench_scale.EXAMPLES,
    ("bench", "state"): bench_state.EXAMPLES,
    ("bench", "report"): bench_report.REPORT_EXAMPLES,
    ("bench", "all"): bench_report.ALL_EXAMPLES,
}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_ends_with_examples_of_the_command_in_80_columns(command: tuple[str, ...], tmp_path: Path) -> None:
    """Whoever asks for help gets lines that can be copied."""
    shown = onhand(*command, "--help", cwd=tmp_path)
    assert shown.returncode == 0
    for example in COMMANDS[command]:
        assert example.startswith(" ".join(("onhand", *command)))
        assert f"  {example}\n" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_the_command_alone_lists_all_commands(tmp_path: Path) -> None:
    """Nothing asked is answered with what can be asked."""
    shown = onhand(cwd=tmp_path)
    assert shown.returncode == 2
    for command in COMMANDS:
        assert f"  {command[0]} " in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["get"], "Missing argument 'SKU'"),
        (["get", "SKU-1", "--frobnicate"], "No such option: --frobnicate"),
        (["load", "--rate", "many"], "Invalid value for '--rate'"),
        (["load", "--rate", "0"], "Invalid value for '--rate'"),
        (["load", "--start", "yesterday"], "is no RFC 3339 time"),
        (["bench", "lookups", "--writer", "0"], "--writer 0: idle, drain, or"),
        (["run"], "Usage: onhand run"),
    ],
)
def test_wrong_usage_is_told_in_one_line_with_exit_code_2(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    """A wrong command line shows no traceback."""
    done = onhand(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert complaint.startswith("Usage") or len(done.stderr.splitlines()) == 1


def test_debug_shows_the_traceback_wherever_it_stands(tmp_path: Path) -> None:
    """`--debug` after the command works as well as before it, and as ONHAND_DEBUG=1."""
    arguments = ("check", "--config", "absent.toml")
    assert_failed_in_one_line(onhand(*arguments, cwd=tmp_path), 2)
    for done in (
        onhand("--debug", *arguments, cwd=tmp_path),
        onhand(*arguments, "--debug", cwd=tmp_path),
        onhand(*arguments, cwd=tmp_path, settings={"debug": "1"}),
    ):
        assert done.returncode == 2
        assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "rest", "debug"),
    [
        (["get", "X"], {}, ["get", "X"], False),
        (["get", "--debug", "X"], {}, ["get", "X"], True),
        (["get", "--", "--debug"], {}, ["get", "--", "--debug"], False),
        (["get", "X"], {"ONHAND_DEBUG": "1"}, ["get", "X"], True),
        (["get", "X"], {"ONHAND_DEBUG": "0"}, ["get", "X"], False),
    ],
)
def test_debug_is_taken_from_the_line_and_the_environment(
    arguments: list[str], environment: dict[str, str], rest: list[str], *, debug: bool
) -> None:
    """A SKU that is called --debug can still be asked for, behind a `--`."""
    assert main.debug_taken(arguments, environment) == (rest, debug)


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    """`onhand … | head -1` is quiet."""
    command = [ONHAND, "load", "--to", "-", "--movements", "50000"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(None), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"')
        process.stdout.close()
        errors = process.stderr.read().decode()
        assert process.wait(30) == 0
    assert "Broken" not in errors
    assert "Traceback" not in errors


def test_the_shell_completes_commands(tmp_path: Path) -> None:
    """Completion as bash asks for it."""
    asked = {"_ONHAND_COMPLETE": "complete_bash", "COMP_WORDS": "onhand do", "COMP_CWORD": "1"}
    shown = subprocess.run(
        [ONHAND], check=False, cwd=tmp_path, env=environment(None) | asked, capture_output=True, text=True, timeout=30
    )
    assert shown.stdout.split() == ["doctor"]


def test_a_command_loads_only_itself() -> None:
    """All of them together take half a second, which every `onhand get` would wait for."""
    look = (
        "import sys; from cli.main import application; application(sys.argv[1:])\n"
        "print({'cli.doctor', 'cli.get', 'cli.run', 'bytewax', 'confluent_kafka'} & sys.modules.keys())"
    )
    for words, loaded in ((["get", "SKU-1"], {"cli.get"}), (["run", "availability"], {"cli.run"})):
        found = subprocess.run([sys.executable, "-c", look, *words], capture_output=True, text=True, check=True)
        assert literal_eval(found.stdout) == loaded


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_named_as_it_is_typed(command: tuple[str, ...]) -> None:
    """One that the command line does not find by its words would load all others with it."""
    assert [found for found in main.COMMANDS if found.words == list(command)]


def test_no_command_loads_what_only_a_worker_needs() -> None:
    """Compiled loops and their compiler take a third of a second, which every `onhand get` would wait for."""
    look = "import sys, cli.main, cli.availability; print('numba' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
