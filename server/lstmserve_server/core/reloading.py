"""Detects that files changed, and reads them again: rewritten, replaced, or re-pointed by a symbolic link."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

_Value = TypeVar("_Value")
_Stamp = tuple[tuple[int, int, int, int] | None, ...]


def read_regular_file(path: Path) -> bytes:
    """Returns what a file holds; never waits for a named pipe.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return file.read()


class ReloadingFile(Generic[_Value]):
    """Content of files that is reloaded when they change. A change counts once it was read; thread-safe."""

    def __init__(self, files: Sequence[Path], read: Callable[[], _Value], *, settles: bool) -> None:
        """Reads the files.

        Args:
            files: that are looked at.
            read: makes the value of them.
            settles: whether a change only counts when two checks have seen the same, so that a file that is written in pieces is
                not read halfway; checks must then be regular.

        Raises:
            Exception: what `read` raises.
        """
        self._files = files
        self._read = read
        self._settles = settles
        self._lock = threading.Lock()
        self._taken = self._seen = self._look()
        self._refused: _Stamp | None = None
        self._told = ""
        self.first = read()
        """What they held at first."""
        if self._look() != self._taken:
            self._taken = None  # it changed meanwhile, and is read again

    def newer(self) -> _Value | None:
        """Checks the files; returns their value if they have changed, else None.

        Raises:
            Exception: what `read` raises, once per content; if the system refused to open them, the next check tries again.
        """
        with self._lock:
            before, self._seen = self._seen, self._look()
            stamp = self._seen
            if stamp in (self._taken, self._refused) or (self._settles and stamp != before):
                return None
            try:
                value = self._read()
            except Exception as error:
                if not isinstance(error.__cause__, OSError):
                    self._refused = stamp
                if str(error) == self._told:
                    return None
                self._told = str(error)
                raise
            if self._look() != stamp:  # it changes while it is read
                return None
            self._taken, self._refused, self._told = stamp, None, ""
            return value

    def _look(self) -> _Stamp | None:
        return tuple(map(_of_one, self._files))


def _of_one(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size, found.st_ctime_ns
