"""Subscribers of discrepancies. They are notified and never waited for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Final

from lstmserve.v1 import shadow_pb2
from lstmserve_server.core.errors import Overloaded

MAX_SUBSCRIBERS: Final = 64
_MAX_UNREAD: Final = 100  # discrepancies that one may leave unread; then the oldest are left out


class _Subscriber:
    """One subscriber."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.unread: deque[shadow_pb2.Discrepancy] = deque()
        self.left_out = 0
        self.woken = asyncio.Event()


class Subscribers:
    """All subscribers. Only used in the event loop."""

    def __init__(self) -> None:
        self._subscribers: set[_Subscriber] = set()

    def publish(self, discrepancy: shadow_pb2.Discrepancy) -> None:
        """Reports to the subscribers of its model."""
        for watcher in self._subscribers:
            if watcher.model in ("", discrepancy.model):
                if len(watcher.unread) == _MAX_UNREAD:
                    watcher.unread.popleft()
                    watcher.left_out += 1
                watcher.unread.append(discrepancy)
                watcher.woken.set()

    async def watch(self, model: str) -> AsyncGenerator[shadow_pb2.WatchDiscrepanciesResponse]:
        """Yields discrepancies from now on; of all models for "".

        Raises:
            Overloaded: there are too many subscribers.
        """
        if len(self._subscribers) >= MAX_SUBSCRIBERS:
            raise Overloaded("", f"{MAX_SUBSCRIBERS} clients are watching for discrepancies; expected fewer")
        watcher = _Subscriber(model)
        self._subscribers.add(watcher)
        try:
            while True:
                await watcher.woken.wait()
                while watcher.unread:
                    left_out, watcher.left_out = watcher.left_out, 0
                    yield shadow_pb2.WatchDiscrepanciesResponse(
                        discrepancy=watcher.unread.popleft(), dropped_count=left_out
                    )
                watcher.woken.clear()
        finally:
            self._subscribers.discard(watcher)
