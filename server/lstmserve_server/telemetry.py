"""The log: one line per event, text for a terminal and JSON for a collector, with no payload of any call in it."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final, TextIO, cast

import structlog

from lstmserve_server import request_id
from lstmserve_server.log_writer import LogWriter

if TYPE_CHECKING:
    from structlog.typing import Processor

_LAST_WORDS: Final = 1.0  # seconds

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


_writer: LogWriter | None = None


def lines_lost() -> int:
    """Returns how many lines of the log were lost; from any thread."""
    return 0 if _writer is None else _writer.lost


def finish() -> None:
    """Waits until the log is written, for a second at most: before the process ends, or says something by itself."""
    if _writer is not None:
        _writer.wait_until_written(_LAST_WORDS)


def configure_log(form: str, level: str) -> None:
    """Sets up the log on standard error.

    Args:
        form: "text", "json", or "auto" for text on a terminal, else JSON.
        level: "debug", "info", "warning" or "error".
    """
    global _writer  # noqa: PLW0603 - a process has one log
    writer = _writer = _writer or LogWriter(sys.stderr.fileno())
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
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", writer)),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.CRITICAL)  # grpc's and asyncio's own tracebacks: every exception passes our guard
