"""Exponential backoff between restarts of a process."""

from __future__ import annotations

from time import monotonic
from typing import Final

_STABLE_AFTER_SECONDS: Final = 60.0


class RestartBackoff:
    """Pauses between restarts: doubled after each, and short again after a run that was stable for a minute."""

    def __init__(self, initial_seconds: float, max_seconds: float) -> None:
        self._initial = initial_seconds
        self._max = max_seconds
        self._next = initial_seconds
        self._began = 0.0

    def started(self) -> None:
        """Records that the process is being started."""
        self._began = monotonic()

    def pause(self) -> float:
        """Returns how long to wait before the next start, in seconds; called once after each run."""
        if monotonic() - self._began > _STABLE_AFTER_SECONDS:
            self._next = self._initial
        pause = self._next
        self._next = min(2 * pause, self._max)
        return pause
