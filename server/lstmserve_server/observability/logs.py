"""Configures the log: one line per event, text for a terminal, JSON for a collector, no payload of any call."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Final, TextIO, cast

import structlog
from structlog.typing import Processor

from lstmserve_server.core import request_context
from lstmserve_server.observability.log_writer import LogWriter

_FINAL_FLUSH_SECONDS: Final = 1.0  # seconds

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


def finish(last_words: str = "") -> None:
    """Waits until the log is written, for a second at most, before the process ends.

    Args:
        last_words: text to write after it.
    """
    if _writer is not None:
        if last_words:
            _writer.write(last_words)
        _writer.wait_until_written(_FINAL_FLUSH_SECONDS)
    elif last_words:
        with contextlib.suppress(OSError, AttributeError):  # there is no standard error
            sys.stderr.write(last_words)


def _standard_error() -> int:
    """Returns a descriptor to write to: standard error's, or one of /dev/null if the process has none."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return os.open(os.devnull, os.O_WRONLY)


def configure_log(form: str, level: str) -> None:
    """Sets up the log on standard error.

    Args:
        form: "text", "json", or "auto" for text on a terminal, else JSON.
        level: "debug", "info", "warning" or "error".
    """
    global _writer  # noqa: PLW0603 - a process has one log
    writer = _writer = _writer or LogWriter(_standard_error())
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if form == "auto":
        form = "text" if terminal else "json"
    text = form == "text"
    rendering: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=terminal)]
        if text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,  # the number of a worker
            request_context.add_request_id,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if text else "iso", utc=not text),
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", writer)),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.CRITICAL)  # grpc's and asyncio's own tracebacks: every exception passes our guard
