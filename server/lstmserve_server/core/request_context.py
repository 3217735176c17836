"""The call that is being answered: its request id, which every log line carries, and the time left until its deadline."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, Final

from structlog.typing import EventDict

REQUEST_ID_HEADER: Final = "x-request-id"
"""The metadata key of the request id, in requests and in responses."""

_MAX_ID_LENGTH: Final = 128

_request_id: Final[ContextVar[str]] = ContextVar("request_id", default="")

seconds_left: Final[ContextVar[Callable[[], float | None]]] = ContextVar("seconds_left", default=lambda: None)
"""Returns the seconds left until the deadline of the call; None if it has no deadline."""


def begin_request(metadata: Iterable[Any] | None) -> str:
    """Sets and returns the request id of the current call: the caller's, if it is printable and short, or a new random one."""
    given = next((value for key, value in metadata or () if key == REQUEST_ID_HEADER), None)
    usable = isinstance(given, str) and 0 < len(given) <= _MAX_ID_LENGTH and given.isascii() and given.isprintable()
    own = str(given) if usable else f"{random.getrandbits(128):032x}"
    _request_id.set(own)
    return own


def request_id() -> str:
    """Returns the request id of the current call; "" outside of calls."""
    return _request_id.get()


def add_request_id(logger: Any, method: str, event: EventDict) -> EventDict:  # noqa: ARG001 - of structlog's processors
    """Adds the request id to a log event (a structlog processor)."""
    own = _request_id.get()
    if own:
        event.setdefault("request_id", own)
    return event
