"""One call of `StreamSteps`, as messages to send and to receive: one kind for threads and one for asyncio.

A connection that is lost is not mended: `streams` opens another.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from lstmserve import calls, errors
from lstmserve.journal import Request, Response

if TYPE_CHECKING:
    from lstmserve.transport import Token

_METHOD: Final = calls.method("StreamSteps")


class LostError(Exception):
    """The way to the server is lost, or nothing comes on it."""

    def __init__(self, error: errors.LstmServeError) -> None:
        super().__init__(str(error))
        self.error = error


class Connection:
    """One call of the method: a queue of what is to be sent, and one of what came."""

    def __init__(self, channel: grpc.Channel, messages: list[Request], token: Token) -> None:
        self._outgoing: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._incoming: queue.SimpleQueue[Response | errors.LstmServeError] = queue.SimpleQueue()
        for message in messages:
            self._outgoing.put(message)
        call = channel.stream_stream(_METHOD, calls.serialize, Response.FromString)
        try:
            self._call: Any = call(iter(self._outgoing.get, None), metadata=token.metadata(), wait_for_ready=True)
        except ValueError:  # how gRPC says so
            raise errors.closed() from None
        threading.Thread(target=self._read, name="lstmserve-stream", daemon=True).start()

    def send(self, message: Request) -> None:
        """Sends a message, soon."""
        self._outgoing.put(message)

    def receive(self, timeout: float) -> Response:
        """Returns the next message.

        Raises:
            LostError: the connection is lost, or nothing came in time.
        """
        try:
            received = self._incoming.get(timeout=timeout)
        except queue.Empty:
            raise LostError(errors.silent(timeout)) from None
        if isinstance(received, Response):
            return received
        raise LostError(received)

    def close(self) -> None:
        """Ends the call."""
        self._outgoing.put(None)
        self._call.cancel()

    def _read(self) -> None:
        try:
            for response in self._call:
                self._incoming.put(response)
            self._incoming.put(errors.ended())
        except grpc.RpcError as error:
            self._incoming.put(errors.from_status(error.code(), error.details(), error.trailing_metadata()))


class AsyncConnection:
    """One call of the method, and a task that sends, lest both ends wait for the other to read."""

    def __init__(self, channel: grpc.aio.Channel, messages: list[Request], token: Token) -> None:
        self._outgoing = deque(messages)
        self._more = asyncio.Event()
        self._more.set()
        call = channel.stream_stream(_METHOD, calls.serialize, Response.FromString)
        try:
            self._call: Any = call(metadata=token.metadata(), wait_for_ready=True)
        except grpc.aio.UsageError:  # how gRPC says so
            raise errors.closed() from None
        self._writing = asyncio.create_task(self._write())

    def send(self, message: Request) -> None:
        """Sends a message, soon."""
        self._outgoing.append(message)
        self._more.set()

    async def receive(self, timeout: float) -> Response:
        """Returns the next message.

        Raises:
            LostError: the connection is lost, or nothing came in time.
        """
        try:
            received = await asyncio.wait_for(self._call.read(), timeout)
        except TimeoutError:
            raise LostError(errors.silent(timeout)) from None
        except grpc.aio.AioRpcError as error:
            raise LostError(errors.from_status(error.code(), error.details(), error.trailing_metadata())) from None
        except asyncio.CancelledError:
            if self._call.cancelled() and not cancelled_by_owner():
                raise LostError(errors.ended()) from None
            raise
        if received is grpc.aio.EOF:
            raise LostError(errors.from_status(await self._call.code(), await self._call.details()))
        return received  # type: ignore[no-any-return]  # what FromString gives

    async def close(self) -> None:
        """Ends the call."""
        self._writing.cancel()
        self._call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._writing

    async def _write(self) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # `receive` says why
            while True:
                await self._more.wait()
                while self._outgoing:
                    await self._call.write(self._outgoing.popleft())
                self._more.clear()


def cancelled_by_owner() -> bool:
    """Returns whether the task that runs was cancelled by whoever owns it, rather than the call that it waits for."""
    task = asyncio.current_task()
    return bool(task and task.cancelling())
