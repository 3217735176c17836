"""How long the caller of the call that is being answered still waits."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

seconds_left: Final[ContextVar[Callable[[], float | None]]] = ContextVar("seconds_left", default=lambda: None)
"""Tells how many seconds are left until the deadline of the call; None where it has none."""
