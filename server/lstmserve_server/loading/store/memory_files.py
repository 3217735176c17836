"""Files in memory: for the weights that another process parses, and for sealed copies of files."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import weakref
from collections.abc import Iterator
from typing import Final

_BLOCK: Final = 1 << 24
_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


@contextlib.contextmanager
def weights_memfd() -> Iterator[int]:
    """Opens a memory file to be shared with other processes."""
    weights = _made("weights")
    try:
        yield weights
    finally:
        os.close(weights)


def seal(descriptor: int) -> None:
    """Seals a memory file, so that no process can write it, with any descriptor.

    Raises:
        OSError: a process has it mapped for writing.
    """
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_SEAL)


class SealedCopy:
    """Content of a file at one moment: every reader reads the same bytes."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._closing = weakref.finalize(self, os.close, descriptor)


def copy_of(path: str | os.PathLike[str], most: int) -> SealedCopy | None:
    """Returns a sealed copy of a regular file; None if it cannot be opened, is not regular, or exceeds `most` bytes.

    Loading it later reports the reason.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            return None
        copy = SealedCopy(_made("model"))
        size = 0
        while block := os.read(descriptor, _BLOCK):
            size += len(block)
            if size > most:  # it grows meanwhile
                return None
            _write(copy.descriptor, block)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    seal(copy.descriptor)
    return copy


def private_copy(content: bytes) -> int:
    """Returns the descriptor of a writable memory file with some content."""
    descriptor = _made("private")
    _write(descriptor, content)
    return descriptor


def _made(name: str) -> int:
    return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
