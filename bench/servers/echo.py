"""A bare echo of grpcio: any method is answered with the same bytes, whatever came. The limit of what grpcio can do.

python -m bench.servers.echo PORT FLAVOR ANSWER_FILE

FLAVOR: "sync" (a thread pool), "asyncio", "uvloop", or "busy", which is asyncio and for a while does nothing but hold the event
loop: what gRPC costs alongside a handler that takes as long as one that computes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

THREADS = 10
BUSY = 150e-6
"""Seconds: what a call of one step takes the service when it is called in a loop, without gRPC."""
OPTIONS = [("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", 256)]


def serve_sync(port: int, answer: bytes) -> None:
    """Answers with threads."""

    def echo(_: bytes, __: Any) -> bytes:
        return answer

    handler = grpc.unary_unary_rpc_method_handler(echo)
    server = grpc.server(ThreadPoolExecutor(THREADS), options=OPTIONS)
    server.add_generic_rpc_handlers((_AnyMethod(handler, None),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


async def serve_asyncio(port: int, answer: bytes, busy: float = 0) -> None:
    """Answers in one event loop, which is held for a given time before."""

    async def echo(_: bytes, __: Any) -> bytes:
        if busy:
            end = time.perf_counter() + busy
            while time.perf_counter() < end:
                pass
        return answer

    async def echo_stream(_: Any, context: Any) -> None:
        while await context.read() is not grpc.aio.EOF:
            await context.write(answer)

    server = grpc.aio.server(options=OPTIONS)
    handlers = (grpc.unary_unary_rpc_method_handler(echo), grpc.stream_stream_rpc_method_handler(echo_stream))
    server.add_generic_rpc_handlers((_AnyMethod(*handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


class _AnyMethod(grpc.GenericRpcHandler):
    """Handles whatever method is called; one whose name begins with Stream as a stream."""

    def __init__(self, unary: Any, streams: Any) -> None:
        self._unary, self._streams = unary, streams

    def service(self, handler_call_details: Any) -> Any:
        """Returns the handler of a call."""
        return self._streams if "/Stream" in handler_call_details.method else self._unary


def main() -> None:
    """Serves until it is killed."""
    port, flavor, answer = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]).read_bytes()
    if flavor == "sync":
        serve_sync(port, answer)
    elif flavor == "uvloop":
        import uvloop  # noqa: PLC0415 - only this flavor needs it

        uvloop.run(serve_asyncio(port, answer))
    else:
        asyncio.run(serve_asyncio(port, answer, BUSY if flavor == "busy" else 0))


if __name__ == "__main__":
    main()
