"""What `onhand doctor` looked at, and what it found."""

from typing import Literal

import msgspec

Result = Literal["ok", "finding", "unreachable", "skipped"]


class Check(msgspec.Struct):
    """One thing looked at: what was found, and what to do where it is not as it should be."""

    subject: str
    result: Result
    found: str
    advice: str = ""
