"""Writes log lines in a thread of its own. A reader that is gone or slow loses lines and never holds up a call."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Final

import structlog

_MAX_WAITING: Final = 4096  # lines


class LogWriter:
    """Writes text line by line and never blocks or raises; thread-safe."""

    def __init__(self, descriptor: int) -> None:
        """Begins to write to a descriptor."""
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._writing = False
        self._lost = self._told = 0
        threading.Thread(target=self._run, name="log", daemon=True).start()

    @property
    def lost(self) -> int:
        """Number of lines that were dropped."""
        return self._lost

    def write(self, text: str) -> int:
        """Queues a line; drops it if too many wait."""
        with self._changed:
            if len(self._waiting) >= _MAX_WAITING:
                self._lost += 1
            else:
                self._waiting.append(text.encode(errors="backslashreplace"))
                self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Does nothing: logging never waits."""

    def wait_until_written(self, seconds: float) -> None:
        """Waits until all lines are written."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._writing, seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                line, self._writing = self._waiting.popleft(), True
            if not self._written(line):
                with self._changed:
                    self._lost += 1
            elif self._lost > self._told:
                lost, self._told = self._lost - self._told, self._lost
                structlog.get_logger(__name__).warning("log_lines_lost", lines=lost)

    def _written(self, line: bytes) -> bool:
        """Writes a line, however slow its reader is; returns whether there is a reader."""
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            return False
        return True
