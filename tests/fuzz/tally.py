"""What came of a run: outcomes by kind, failures, memory; and how far it is, for who watches."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final, Self

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.support import resources

MOST_GROWTH: Final = 32 << 20
"""Bytes by which memory may have grown at the end, since a tenth of the run was done and everything was warm."""

_MOST_SHOWN: Final = 3  # failures of one kind
_LONGEST_SHOWN: Final = 4096  # bytes of one


class Tally:
    """Counts what comes of a run.

    Args:
        name: of the run.
        count: how many things it sends.
        pid: the process whose memory is watched; None for this one.
    """

    def __init__(self, name: str, count: int, pid: int | None = None) -> None:
        self.name = name
        self.count = count
        self.outcomes: Counter[str] = Counter()
        self.failures = 0
        self.slowest = 0.0
        self._shown: Counter[str] = Counter()
        self._pid = pid or os.getpid()
        self._before = self._warm = resources.resident(self._pid)
        self._began = time.perf_counter()

    def numbers(self) -> Iterator[int]:
        """Yields 0, 1, 2 ... up to the count, and shows how far it is."""
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task(self.name, total=self.count)
            for number in range(self.count):
                if number == self.count // 10:
                    self._warm = resources.resident(self._pid)
                if number % max(1, self.count // 20) == 0:
                    progress.update(task, completed=number)
                    if not console.is_terminal:
                        click.echo(self._line(number), err=True)
                yield number

    def add(self, kind: str, seconds: float = 0.0) -> None:
        """Records an outcome, and how long it took to come."""
        self.outcomes[kind] += 1
        self.slowest = max(self.slowest, seconds)

    def fail(self, what: str, data: bytes = b"") -> None:
        """Records a failure, and shows it, with the bytes that brought it about."""
        self.failures += 1
        self._shown[what] += 1
        if self._shown[what] <= _MOST_SHOWN:
            cut = f" ... ({len(data)} bytes)" if len(data) > _LONGEST_SHOWN else ""
            click.echo(f"FAILURE of {self.name}: {what}\n    {data[:_LONGEST_SHOWN].hex()}{cut}", err=True)

    def finish(self) -> Self:
        """Judges the memory, and shows what came of the run in one line."""
        growth = resources.resident(self._pid) - self._warm
        if growth > MOST_GROWTH:
            self.fail(f"memory grew by {growth >> 20} MB since a tenth of the run was done")
        click.echo(self._line(sum(self.outcomes.values())))
        return self

    def _line(self, number: int) -> str:
        seconds = time.perf_counter() - self._began
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.outcomes.most_common())
        memory = "/".join(
            f"{size / (1 << 20):.1f}" for size in (self._before, self._warm, resources.resident(self._pid))
        )
        return (
            f"{self.name}: {number} of {self.count}: {kinds or 'nothing yet'}; {self.failures} failures; {seconds:.1f} s, "
            f"slowest {self.slowest:.3f} s; MB before/warm/after {memory}"
        )
