"""`onhand run`: flows, each until it is told to stop."""

import os
from typing import Final

from cli.configuration import ConfigOption, load_configuration

EXAMPLES: Final = ("onhand run availability --config examples/onhand.toml",)


def availability(config: ConfigOption = None) -> None:
    """Turn stock movements into what every channel may sell: in Redis, and on the output topics.

    The first SIGTERM or SIGINT drains it: input ends, everything read is written, exit code 0. A second one ends it
    at once (130).
    """
    from cli.availability import run_availability

    run_availability(load_configuration(config, os.environ))
