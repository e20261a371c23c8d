"""What libraries print past Python, kept off the terminal: Bytewax panics in 40 lines where we say it in one."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

STDERR_DESCRIPTOR = 2


@contextmanager
def native_errors_apart() -> Iterator[BinaryIO]:
    """Standard error of Python stays where it is; what native code writes there goes to the file given."""
    python_stderr = sys.stderr
    with tempfile.TemporaryFile() as apart, os.fdopen(os.dup(STDERR_DESCRIPTOR), "w", buffering=1) as terminal:
        python_stderr.flush()
        os.dup2(apart.fileno(), STDERR_DESCRIPTOR)
        sys.stderr = terminal
        try:
            yield apart
        finally:
            os.dup2(terminal.fileno(), STDERR_DESCRIPTOR)
            sys.stderr = python_stderr
