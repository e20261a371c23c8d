"""How a command ends when it cannot do what it was asked: one line, and an exit code that scripts can read."""

from typing import Final

DONE: Final = 0
FAILED: Final = 1
MISUSED: Final = 2  # wrong usage or configuration
DIFFERENT: Final = 3  # a check found differences
INTERRUPTED: Final = 130


class CliError(Exception):
    """What went wrong and what to do about it, in one line, with the exit code."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def one_line(error: BaseException) -> str:
    """The message of `error` without line breaks; its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
