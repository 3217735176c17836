"""Returns freed memory to the system.

glibc keeps the memory that a thread has freed in an arena of that thread, so a long-running server grows. One arena for all
(`MALLOC_ARENA_MAX=1`) would make calls in threads a fifth more expensive: docs/decisions/memory.md.
"""

from __future__ import annotations

import asyncio
import ctypes
from typing import Final

_TRIM_INTERVAL_SECONDS: Final = 30.0  # seconds


def trim() -> bool:
    """Returns freed memory to the system; returns whether the C library can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):  # another C library than glibc
        return False
    return True


async def trim_periodically() -> None:
    """Returns memory periodically, without end; returns at once if the C library cannot."""
    while True:
        await asyncio.sleep(_TRIM_INTERVAL_SECONDS)
        if not await asyncio.to_thread(trim):
            return
