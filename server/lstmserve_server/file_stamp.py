"""Whether files have changed since they were read: written in place, exchanged, or put behind another symbolic link."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Stamp = tuple[tuple[int, int, int] | None, ...]


def of(files: Iterable[Path]) -> Stamp:
    """Returns what differs when one of some files was written or exchanged, or has come or gone."""
    return tuple(map(_of_one, files))


def _of_one(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
