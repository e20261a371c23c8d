"""Child processes that do not outlive the one that has started them, in whatever way it ends."""

import os
import sys
from typing import Final

# Run before the command in its own process: a function run between fork and exec may deadlock when threads hold locks.
# 1 is PR_SET_PDEATHSIG; the parent is asked for once more because it may have died before the request.
_TETHER: Final = """
import ctypes, os, signal, sys
if ctypes.CDLL(None).prctl(1, signal.SIGKILL) or os.getppid() != int(sys.argv[1]):
    sys.exit("the starter of this process is gone")
os.execvp(sys.argv[2], sys.argv[2:])
"""


def tethered(command: list[str]) -> list[str]:
    """`command`, killed by the kernel (Linux) when the thread that starts it ends."""
    if sys.platform != "linux":
        return command
    return [sys.executable, "-I", "-S", "-c", _TETHER, str(os.getpid()), *command]
