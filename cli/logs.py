"""Logs on standard error: readable on a terminal, one JSON object a line otherwise."""

import logging
import sys
from collections.abc import Mapping
from typing import Final

import structlog

DEBUG_VARIABLE: Final = "ONHAND_DEBUG"
OFF: Final = ("", "0", "false", "no", "off")


def debug_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the environment asks for tracebacks and debug lines."""
    return environment.get(DEBUG_VARIABLE, "").lower() not in OFF


def configure_logs(*, debug: bool) -> None:
    """Send structlog's events to standard error, from level info on, or debug; what other libraries log is debug."""
    terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(pad_event_to=0) if terminal else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if terminal else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if debug else logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # asked each time: it may have been replaced
    )
    logging.basicConfig(handlers=[_ToStructlog()], force=True)


class _ToStructlog(logging.Handler):
    """Librdkafka tells each failed attempt to connect; sources and sinks say in one line what follows from it."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger(record.name).debug(record.getMessage())
