"""What is told beside the movements: that a location lives, and which rules were pushed."""

from typing import Any

import msgspec

from schemas.movements import Text, TimeText


class Heartbeat(msgspec.Struct, kw_only=True):
    """`source` has heard from `location` at `time`; a movement is none, so that a quiet warehouse is not a dead one."""

    source: Text
    location: Text
    time: TimeText


class Generation(msgspec.Struct, kw_only=True):
    """A set of rules that was pushed as `generation` at `time`; `document` is the whole of it."""

    generation: int
    digest: str
    time: str
    document: dict[str, Any]
