"""A server in this process whose books can be read: what is taken, and what of it is not given back."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from lstmserve_server.serving.server import Server
from lstmserve_server.serving.settings import ServeSettings
from tests.support import builders

PATIENCE = 30.0

LONG = builders.served("long", builders.model(builders.lstm_layer(3, 64), features=3))
"""A model whose sequences of a hundred rows and some hundred steps are computed in a thread."""

SMALL = builders.served("small", builders.small_model())


class Kept:
    """A server, and what is in its books."""

    def __init__(self, server: Server, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.channel = channel

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.server.addresses[0]

    def books(self) -> dict[str, Any]:
        """Returns all that is taken at the moment."""
        server = self.server
        scheduler, streams = server._scheduler, server._streams
        return {
            "places": (server._dispatcher._limiter.in_use, dict(server._dispatcher._limiter._by)),
            "places of streams": (streams._limiter.in_use, dict(streams._limiter._by)),
            "calls under way": server._dispatcher._in_flight._calls,
            "calls in flight": server._observability.calls._in_flight,
            "streams open": server._observability.calls._streams,
            "seconds ahead": round(scheduler._backlog_seconds, 9),
            "waiting in batches": sum(len(batcher._queue) for batcher in scheduler._batchers.values()),
            "batches in threads": sum(len(batcher._computing) for batcher in scheduler._batchers.values()),
            "queue of the threads": scheduler._threads._work_queue.qsize(),
            "holders of tokens": len(server._access._token.holders) if hasattr(server._access, "_token") else 0,
            "watchers of the health": (len(server._health._watchers), server._health._limiter.in_use),
        }

    @contextlib.asynccontextmanager
    async def nothing_kept(self) -> AsyncIterator[None]:
        """What is taken within is given back, tasks among it."""
        before, tasks = self.books(), ours()
        yield
        try:
            await until(lambda: self.books() == before)
        except TimeoutError:
            assert self.books() == before
        await until(lambda: ours() <= tasks or gc.collect() < 0)


async def until(true: Callable[[], bool]) -> None:
    """Waits until something is true that no one is told of."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - for that reason
            await asyncio.sleep(0.005)


def ours() -> int:
    """Returns how many tasks there are but this one."""
    return len(asyncio.all_tasks()) - 1


@contextlib.asynccontextmanager
async def server(**settings: Any) -> AsyncIterator[Kept]:
    """Runs a server of two models in this loop."""
    chosen = ServeSettings(
        models=(), **{"listen": ("127.0.0.1:0",), "lame_duck_seconds": 0.0, "drain_seconds": 20.0, **settings}
    )

    async def load() -> list[Any]:
        """Returns models that are made here."""
        return [SMALL, LONG]

    made = Server(chosen, {"small": "small", "long": "long"}, load, None)
    await made.start()
    await made.make_ready()
    async with grpc.aio.insecure_channel(made.addresses[0]) as channel:
        try:
            yield Kept(made, channel)
        finally:
            await made.stop()
