"""One call of `StreamSteps` as queues of messages, for threads and for asyncio.

A call that is lost is not repaired: `streams` opens another.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from typing import Any, Final, Generic, TypeVar

import grpc
import grpc.aio

from lstmserve import calls, errors
from lstmserve.credentials import Token
from lstmserve.replay_log import Request

_METHOD: Final = calls.method("StreamSteps")
_MAX_WAITING_BYTES: Final = 4 << 20  # of what came and was not taken; a message that is larger comes alone
_BYTES_PER_ITEM: Final = 1 << 10  # so that empty messages are bounded too

_Channel = TypeVar("_Channel")


class LostError(Exception):
    """The connection to the server is lost, or the server is silent."""

    def __init__(self, error: errors.LstmServeError) -> None:
        super().__init__(str(error))
        self.error = error


class Endpoint(Generic[_Channel]):
    """Channel, address and credentials of a stream's calls."""

    def __init__(self, channel: _Channel, token: Token, address: str) -> None:
        self.channel = channel
        self.token = token
        self.address = address
        """As it is shown in errors."""


class _Inbox:
    """Received messages, bounded in bytes: a server that sends more than is taken is held back by gRPC's flow control."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: deque[bytes | errors.LstmServeError] = deque()
        self._bytes = 0
        self._closed = False

    def put(self, item: bytes | errors.LstmServeError) -> bool:
        """Adds an item when there is room for it; returns whether more may come."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes < _MAX_WAITING_BYTES or self._closed)
            if not self._closed:
                self._items.append(item)
                self._bytes += _size(item)
                self._changed.notify_all()
            return not self._closed

    def get(self, timeout: float) -> bytes | errors.LstmServeError | None:
        """Returns the next item; None where none comes within `timeout` seconds, and an error once it is closed."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._closed, timeout):
                return None
            if self._closed:
                return errors.ended()
            item = self._items.popleft()
            self._bytes -= _size(item)
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Lets go anyone who waits, for room or for an item."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _size(item: bytes | errors.LstmServeError) -> int:
    return _BYTES_PER_ITEM + (len(item) if isinstance(item, bytes) else 0)


class StreamCall:
    """One call of the method: a queue of messages to send, and one of messages received."""

    def __init__(self, endpoint: Endpoint[grpc.Channel], messages: list[Request]) -> None:
        self._outgoing: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._inbox = _Inbox()
        for message in messages:
            self._outgoing.put(message)
        call: Any = endpoint.channel.stream_stream(_METHOD, calls.serialize)
        try:
            self._call: Any = call(
                iter(self._outgoing.get, None), metadata=endpoint.token.metadata(), wait_for_ready=True
            )
        except ValueError:  # how gRPC says so
            raise errors.closed() from None
        threading.Thread(target=self._read, name="lstmserve-stream", daemon=True).start()

    def send(self, message: Request) -> None:
        """Sends a message, soon."""
        self._outgoing.put(message)

    def receive(self, timeout: float) -> bytes | None:
        """Returns the next message; None where nothing comes within `timeout` seconds.

        Raises:
            LostError: the connection is lost.
        """
        received = self._inbox.get(timeout)
        if received is None:
            return None
        if isinstance(received, bytes):
            return received
        raise LostError(received)

    def close(self) -> None:
        """Ends the call."""
        self._outgoing.put(None)
        self._call.cancel()
        self._inbox.close()

    def _read(self) -> None:
        try:
            for data in self._call:
                if not self._inbox.put(data):
                    return
            self._inbox.put(errors.ended())
        except grpc.RpcError as error:
            self._inbox.put(errors.from_status(error.code(), error.details(), error.trailing_metadata()))


class AsyncStreamCall:
    """One call of the method with a sending task, so that neither side waits for the other to read."""

    def __init__(self, endpoint: Endpoint[grpc.aio.Channel], messages: list[Request]) -> None:
        self._outgoing = deque(messages)
        self._more = asyncio.Event()
        self._more.set()
        call: Any = endpoint.channel.stream_stream(_METHOD, calls.serialize)
        try:
            self._call: Any = call(metadata=endpoint.token.metadata(), wait_for_ready=True)
        except grpc.aio.UsageError:  # how gRPC says so
            raise errors.closed() from None
        self._writing = asyncio.create_task(self._write())

    def send(self, message: Request) -> None:
        """Sends a message, soon."""
        self._outgoing.append(message)
        self._more.set()

    async def receive(self, timeout: float) -> bytes | None:
        """Returns the next message; None where nothing comes within `timeout` seconds.

        Raises:
            LostError: the connection is lost.
        """
        try:
            received = await asyncio.wait_for(self._call.read(), timeout)
        except TimeoutError:
            return None
        except grpc.aio.AioRpcError as error:
            raise LostError(errors.from_status(error.code(), error.details(), error.trailing_metadata())) from None
        except asyncio.CancelledError:
            if self._call.cancelled() and not cancelled_by_owner():
                raise LostError(errors.ended()) from None
            raise
        if received is grpc.aio.EOF:
            code = await self._call.code()
            ended = code is grpc.StatusCode.OK
            raise LostError(
                errors.ended()
                if ended
                else errors.from_status(code, await self._call.details(), await self._call.trailing_metadata())
            )
        return received  # type: ignore[no-any-return]  # bytes, as nothing makes anything else of them

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
    """Returns whether the task that runs was cancelled by anyone who owns it, rather than the call that it waits for."""
    task = asyncio.current_task()
    return bool(task and task.cancelling())
