"""What a process holds: resident memory and open descriptors, as the system counts them."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path
from typing import Final

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def resident(pid: int) -> int:
    """Returns the resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def open_files(pid: int) -> Counter[str]:
    """Returns what a process has open, and how many of each: sockets, pipes, eventfds, and files by their path."""
    found: Counter[str] = Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - names alone, the files behind them come and go
        with contextlib.suppress(FileNotFoundError):
            found[os.readlink(f"/proc/{pid}/fd/{name}").partition(":[")[0]] += 1  # noqa: PTH115 - no path at all
    return found


def descriptors(pid: int) -> int:
    """Returns how many descriptors a process has open."""
    return open_files(pid).total()


def processor_seconds(pid: int) -> float:
    """Returns how long a process has been computing, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
