"""Processes: a function in fresh processes, one or several at once, each with its answer."""

import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.synchronize import Barrier
from typing import Concatenate, Final, NamedTuple, ParamSpec, TypeVar

from bench.drain import BenchError

KILL_SECONDS_MAX: Final = 10.0

AnswerT = TypeVar("AnswerT")
ArgumentsP = ParamSpec("ArgumentsP")
Start = Callable[[], None]  # waits until all processes that belong together are there


class _Failed(NamedTuple):
    """What a function raised in its process."""

    error: str


class _Started(NamedTuple):
    process: SpawnProcess
    answers: Connection


def at_once(
    function: Callable[..., AnswerT], arguments: Sequence[tuple[object, ...]], seconds_max: float
) -> list[AnswerT]:
    """What `function` answers to each of `arguments`, in a fresh process for each, all at the same time.

    Before the arguments it gets a `Start`. Answers and arguments are pickled. BenchError where one raises, dies, or all
    take longer than `seconds_max`; none is left behind.
    """
    context = get_context("spawn")  # nothing of this process's memory is in theirs
    barrier = context.Barrier(len(arguments))
    deadline = time.monotonic() + seconds_max
    started = [_start(context, barrier, function, each) for each in arguments]
    try:
        return [_answer(one, deadline) for one in started]
    finally:
        for one in started:
            one.process.kill()
            one.process.join(KILL_SECONDS_MAX)
            one.answers.close()


def fresh(
    function: Callable[Concatenate[Start, ArgumentsP], AnswerT],
    seconds_max: float,
    *arguments: ArgumentsP.args,
    **_: ArgumentsP.kwargs,
) -> AnswerT:
    """What `function` answers in a fresh process of its own, after a `Start` that does not wait; as `at_once`."""
    return at_once(function, [arguments], seconds_max)[0]


def _start(
    context: SpawnContext, barrier: Barrier, function: Callable[..., AnswerT], arguments: tuple[object, ...]
) -> _Started:
    answers, answering = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(answering, barrier, function, arguments), daemon=True)
    process.start()
    answering.close()  # theirs alone, so that its end is seen
    return _Started(process, answers)


def _run(
    answering: Connection, barrier: Barrier, function: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    """In the fresh process."""
    try:
        answer = function(barrier.wait, *arguments)
    except Exception as error:  # noqa: BLE001  # told to the process that asked, which raises it
        barrier.abort()
        answer = _Failed(f"{type(error).__name__}: {error}")
    answering.send(answer)


def _answer(one: _Started, deadline: float) -> AnswerT:  # type: ignore[type-var]  # as the caller's function has it
    if not one.answers.poll(max(0.0, deadline - time.monotonic())):
        raise BenchError("a process of the benchmark took too long: ask for less")
    try:
        answer = one.answers.recv()
    except EOFError:
        one.process.join(KILL_SECONDS_MAX)
        raise BenchError(f"a process of the benchmark died (exit code {one.process.exitcode})") from None
    if isinstance(answer, _Failed):
        raise BenchError(f"a process of the benchmark failed: {answer.error}")
    told: AnswerT = answer
    return told
