"""Makes gRPC's asyncio server, and guards it against a bug that would end it.

In grpcio 1.82 to 1.85 a call whose path is not UTF-8 ends the loop that accepts calls: the port closes, and the process stays.
Registered methods have loops of their own. Only unregistered paths reach the loop that can end, and here they are answered
UNIMPLEMENTED before it sees them.

This uses private names of grpcio, whose version is bounded in `pyproject.toml`. `tests/hostile/test_odd_calls.py` holds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NoReturn

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # an extension without types


def make(options: Sequence[tuple[str, Any]]) -> grpc.aio.Server:
    """Returns a server whose methods have all to be registered (`add_registered_method_handlers`)."""
    original = cygrpc.AioServer
    cygrpc.AioServer = _Core
    try:
        return grpc.aio.server(options=options)
    finally:
        cygrpc.AioServer = original


class _Core(cygrpc.AioServer):  # type: ignore[misc]  # of an extension without types
    """The core's server without its paths."""

    async def _request_call(self) -> NoReturn:
        """Answers calls of unknown methods itself."""
        loop = asyncio.get_running_loop()
        none = cygrpc._MethodResolver([], {})  # noqa: SLF001 - see above
        answering: set[asyncio.Task[None]] = set()
        while True:
            call = await super()._request_call()
            answer = cygrpc._handle_rpc("", none, (), call, loop, False)  # noqa: FBT003, SLF001 - not "over the limit"
            task = loop.create_task(cygrpc._schedule_rpc_coro(answer, call, loop, ""))  # noqa: SLF001
            answering.add(task)
            task.add_done_callback(answering.discard)
