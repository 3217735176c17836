"""Whether files have changed since they were read: written in place, exchanged, or put behind another symbolic link."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class FileStamp:
    """What some files looked like when they were last looked at."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._seen = self._look()

    def changed(self) -> bool:
        """Looks at the files; returns whether one was written or exchanged, or has come or gone, since the last look."""
        before, self._seen = self._seen, self._look()
        return self._seen != before

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(map(_of_one, self._files))


def _of_one(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
