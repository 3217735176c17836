"""The id of a request: as its caller gave it, or made here; sent back with the answer, and in every line of the log about it."""

from __future__ import annotations

import contextvars
import random
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from structlog.typing import EventDict

HEADER: Final = "x-request-id"
"""The metadata that it comes and goes in."""

_LONGEST: Final = 128

_current: Final[contextvars.ContextVar[str]] = contextvars.ContextVar("request_id", default="")


def begin(metadata: Iterable[Any] | None) -> str:
    """Takes the id of the call that is being answered from its metadata, or makes one, and returns it.

    One that is too long for a log, or that is not printable, is no id.
    """
    given = next((value for key, value in metadata or () if key == HEADER), None)
    usable = isinstance(given, str) and 0 < len(given) <= _LONGEST and given.isascii() and given.isprintable()
    own = str(given) if usable else f"{random.getrandbits(128):032x}"
    _current.set(own)
    return own


def current() -> str:
    """Returns the id of the call that is being answered; "" outside of calls."""
    return _current.get()


def add_to_log(logger: Any, method: str, event: EventDict) -> EventDict:  # noqa: ARG001 - of structlog's processors
    """Adds the id to a line of the log that is about a request."""
    own = _current.get()
    if own:
        event.setdefault("request_id", own)
    return event
