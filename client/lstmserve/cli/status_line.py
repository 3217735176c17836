"""Progress of a stream on one line of the terminal."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Self, TypeVar

from rich.live import Live
from rich.spinner import Spinner

from lstmserve.cli.terminal import console
from lstmserve.streams import Stream

_Item = TypeVar("_Item")


class StatusLine:
    """Shows steps, steps per second, latency and reconnects on standard error, where that is a terminal.

    If the outputs go to the same terminal, it only prints a summary at the end, so that the two do not mix.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._console = console(stderr=True, highlight=False)
        self._spinner = Spinner("dots", "waiting for the first line")
        # Not redirected: the outputs on standard output are not for the terminal.
        self._live = Live(
            self._spinner, console=self._console, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._shown = sys.stderr.isatty() and not sys.stdout.isatty()
        self._sent: deque[float] = deque()
        self._steps = 0
        self._latency = 0.0
        self._began = time.monotonic()

    def sent(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Yields items, and records when each was sent."""
        for item in items:
            self._sent.append(time.monotonic())
            yield item

    def answered(self) -> None:
        """Records an answer."""
        self._steps += 1
        self._latency = time.monotonic() - self._sent.popleft()
        if self._shown:
            self._spinner.update(text=self.text)

    @property
    def text(self) -> str:
        """Text of the status line."""
        rate = self._steps / max(time.monotonic() - self._began, 1e-9)
        return (
            f"{self._steps} steps, {rate:.0f} steps/s, latency {1000 * self._latency:.1f} ms, "
            f"{self._stream.reconnects} reconnects"
        )

    def __enter__(self) -> Self:
        if self._shown:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._live.stop()
        if sys.stderr.isatty():
            self._console.print(self.text)
