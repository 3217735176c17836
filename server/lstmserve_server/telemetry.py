"""The log: one line per event, text for a terminal and JSON for a collector, with no payload of any call in it."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final

import structlog

from lstmserve_server import request_id

if TYPE_CHECKING:
    from structlog.typing import Processor

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure_log(form: str, level: str) -> None:
    """Sets up the log on standard error.

    Args:
        form: "text", "json", or "auto" for text on a terminal, else JSON.
        level: "debug", "info", "warning" or "error".
    """
    if form == "auto":
        form = "text" if sys.stderr.isatty() else "json"
    text = form == "text"
    rendering: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,  # the number of a worker
            request_id.add_to_log,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if text else "iso", utc=not text),
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.CRITICAL)  # grpc's and asyncio's own tracebacks: every exception passes our guard
