"""Streams that go on with another server when theirs is lost: one for threads and one for asyncio.

What is remembered and what is sent again is `journal`; here are the two ways of waiting for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Self

import grpc
import grpc.aio

from lstmserve import calls, errors, tensors
from lstmserve.journal import Journal, Request, Response
from lstmserve.v1 import lstm_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
    from types import TracebackType

    from numpy.typing import ArrayLike, NDArray

    from lstmserve.journal import Answer
    from lstmserve.state import State

    Array = NDArray[Any]

IN_FLIGHT: Final = 16
"""Messages that `steps` sends ahead of the answers."""

CHECKPOINT_EVERY: Final = 100
"""Time-steps between two checkpoints, unless the caller says otherwise."""

_METHOD: Final = calls.method("StreamSteps")
_RETRYABLE: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,  # what gRPC's core answers to calls that meet a server in the moment when it stops
    grpc.StatusCode.DEADLINE_EXCEEDED,  # a server that does not keep idle streams
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
)
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0  # seconds between two attempts


class _LostError(Exception):
    """The way to the server is lost, or nothing comes on it."""

    def __init__(self, error: errors.LstmServeError) -> None:
        super().__init__(str(error))
        self.error = error


class _Attempts:
    """How long to go on looking for a server: `patience` seconds without anything that came while it was waited for."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._failures = 0
        self._since = time.monotonic()
        self.reconnects = 0

    def wait(self) -> None:
        """Takes note that something is waited for: a caller may be silent for as long as he likes."""
        if not self._failures:
            self._since = time.monotonic()

    def progressed(self) -> None:
        """Takes note that something came."""
        self._failures, self._since = 0, time.monotonic()

    def failed(self, error: errors.LstmServeError) -> float:
        """Returns the seconds to wait before the next attempt.

        Raises:
            LstmServeError: it is no use to go on.
        """
        retryable = error.code in _RETRYABLE or error.retry_after is not None
        if not retryable or time.monotonic() - self._since > self._patience:
            raise error
        self.reconnects += 1
        self._failures += 1
        pause = min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2 ** (self._failures - 1))
        return 0 if self._failures == 1 else pause * random.uniform(0.5, 1)  # noqa: S311 - to spread callers out


class _Base:
    """What both kinds of streams have in common: a journal, and how it is seen."""

    def __init__(self, opening: lstm_pb2.StreamOpen, *, strict: bool, timeout: float, patience: float) -> None:
        self._journal = Journal(opening, strict=strict)
        self._timeout = timeout
        self._attempts = _Attempts(patience)
        self._single = opening.rows <= 1
        self._checkpoint: State | None = None
        self._ended: errors.LstmServeError | None = None

    @property
    def reconnects(self) -> int:
        """How often the stream went on with another connection."""
        return self._attempts.reconnects

    @property
    def numerics_changes(self) -> int:
        """How often it went on with a server of other numerics, so that bytes may differ from an uninterrupted run's."""
        return self._journal.numerics_changes

    @property
    def last_checkpoint(self) -> State | None:
        """The last state that the server sent; None before the first."""
        return self._checkpoint

    def _require_open(self) -> None:
        """Refuses what nobody would answer any more."""
        if self._ended is not None:
            raise self._ended

    def _pause_after(self, error: errors.LstmServeError) -> float:
        """Returns the seconds to wait before the next attempt; where there is none, the stream has ended.

        Raises:
            LstmServeError: it has.
        """
        try:
            return self._attempts.failed(error)
        except errors.LstmServeError as last:
            self._ended = last
            raise

    def _require_taken(self) -> None:
        """Refuses what would be answered only behind outputs that nobody has taken, before it is remembered."""
        self._require_open()
        if self._journal.outstanding:
            message = (
                f"{self._journal.outstanding} outputs of steps() have not been taken; go through it to its end, or through "
                "steps([]), which yields them"
            )
            raise RuntimeError(message)

    def _checked(self, response: Response) -> Response:
        """Returns a message of the server, if no other was lost before it.

        Raises:
            _LostError: one was, so that the state of the server is not what it should be.
        """
        if not self._journal.is_in_order(response):
            raise _LostError(errors.out_of_order())
        return response

    def _request(self, x: ArrayLike) -> list[Request]:
        array = calls.sendable(x)
        if array.ndim < 2 and self._single:  # noqa: PLR2004 - rows and features
            array = array.reshape(1, -1)
        return self._journal.steps(tensors.encode(array))

    def _received(self, response: Response) -> Answer | None:
        answer = self._journal.receive(response)
        if (
            answer is not None
        ):  # what another server has answered before proves nothing: the next input may kill them all
            self._attempts.progressed()
            self._checkpoint = answer.state or self._checkpoint
        return answer

    @staticmethod
    def _output(answer: Answer) -> Array:
        if answer.error is not None:
            raise answer.error
        assert answer.outputs is not None  # noqa: S101 - the answer to time-steps
        return answer.outputs[""]

    @staticmethod
    def _state(answer: Answer) -> State:
        if answer.error is not None:
            raise answer.error
        assert answer.state is not None  # noqa: S101 - the answer to what asks for a state
        return answer.state


class Stream(_Base):
    """A stream of time-steps, made by `Client.stream`; to be used by one thread at a time.

    It remembers the last checkpoint and what was sent since. When the server dies, drains or is cut off, it goes on with
    another, and every output is delivered once, in order.
    """

    def __init__(
        self, channel: grpc.Channel, opening: lstm_pb2.StreamOpen, *, strict: bool, timeout: float, patience: float
    ) -> None:
        super().__init__(opening, strict=strict, timeout=timeout, patience=patience)
        self._channel = channel
        self._connection: _Connection | None = None
        self._until_opened()

    def step(self, x: ArrayLike) -> Array:
        """Advances all rows by one time-step.

        Args:
            x: (rows, features), or (features,) where the stream has one row.

        Returns:
            The output, (rows, features).
        """
        self._require_taken()
        return self._output(self._ask(self._request(x)))

    def forward(self, x: ArrayLike) -> Array:
        """Advances all rows by several time-steps: (rows, time, features) to the output after each, (rows, time, features)."""
        return self.step(x)

    def steps(self, series: Iterable[ArrayLike], in_flight: int = IN_FLIGHT) -> Iterator[Array]:
        """Yields the output of each of many inputs, in order; so many of them are sent ahead of the answers.

        Args:
            series: what `step` takes, again and again.
            in_flight: how many are under way at most; 1 to read an input only when the output before it was taken.
        """
        self._require_open()
        for x in series:
            self._send(self._request(x))
            while self._journal.outstanding >= in_flight:
                yield self._output(self._next())
        while self._journal.outstanding:
            yield self._output(self._next())

    def reset(self, rows: Sequence[int] = (0,), state: State | None = None) -> State:
        """Begins some rows anew, with zeros or a state of as many rows; returns the state of all rows."""
        self._require_taken()
        return self._state(self._ask(self._journal.reset(rows, None if state is None else state.to_message())))

    def checkpoint(self) -> State:
        """Returns the state of all rows."""
        self._require_taken()
        return self._state(self._ask(self._journal.checkpoint()))

    def close(self) -> None:
        """Ends the stream."""
        self._ended = self._ended or errors.stream_closed()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, messages: list[Request]) -> Answer:
        self._send(messages)
        return self._next()

    def _send(self, messages: list[Request]) -> None:
        if self._connection is not None:
            for message in messages:
                self._connection.send(message)

    def _next(self) -> Answer:
        """Returns the next answer that was not delivered yet."""
        while True:
            response = self._receive()
            answer = self._received(response)
            if answer is not None:
                return answer

    def _until_opened(self) -> None:
        while not self._journal.fingerprint:
            self._received(self._receive())

    def _receive(self) -> Response:
        """Returns the next message of a server, of another one where theirs is lost."""
        self._attempts.wait()
        while True:
            if self._connection is None:
                self._connection = _Connection(self._channel, self._journal.resumed())
            try:
                return self._checked(self._connection.receive(self._timeout))
            except _LostError as lost:
                self._disconnect()
                time.sleep(self._pause_after(lost.error))


class _Connection:
    """One call of the method: a queue of what is to be sent, and one of what came."""

    def __init__(self, channel: grpc.Channel, messages: list[Request]) -> None:
        self._outgoing: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._incoming: queue.SimpleQueue[Response | errors.LstmServeError] = queue.SimpleQueue()
        for message in messages:
            self._outgoing.put(message)
        call = channel.stream_stream(_METHOD, _serialized, Response.FromString)
        try:
            self._call: Any = call(iter(self._outgoing.get, None), wait_for_ready=True)
        except ValueError:  # how gRPC says so
            raise errors.closed() from None
        threading.Thread(target=self._read, name="lstmserve-stream", daemon=True).start()

    def send(self, message: Request) -> None:
        """Sends a message, soon."""
        self._outgoing.put(message)

    def receive(self, timeout: float) -> Response:
        """Returns the next message.

        Raises:
            _LostError: the connection is lost, or nothing came in time.
        """
        try:
            received = self._incoming.get(timeout=timeout)
        except queue.Empty:
            raise _LostError(errors.silent(timeout)) from None
        if isinstance(received, Response):
            return received
        raise _LostError(received)

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


class AsyncStream(_Base):
    """A stream of time-steps for asyncio, made by `AsyncClient.stream`; to be used by one task at a time: see `Stream`."""

    def __init__(
        self, channel: grpc.aio.Channel, opening: lstm_pb2.StreamOpen, *, strict: bool, timeout: float, patience: float
    ) -> None:
        super().__init__(opening, strict=strict, timeout=timeout, patience=patience)
        self._channel = channel
        self._connection: _AsyncConnection | None = None

    async def step(self, x: ArrayLike) -> Array:
        """Advances all rows by one time-step: see `Stream.step`."""
        self._require_taken()
        return self._output(await self._ask(self._request(x)))

    async def forward(self, x: ArrayLike) -> Array:
        """Advances all rows by several time-steps: see `Stream.forward`."""
        return await self.step(x)

    async def steps(
        self, series: Iterable[ArrayLike] | AsyncIterable[ArrayLike], in_flight: int = IN_FLIGHT
    ) -> AsyncIterator[Array]:
        """Yields the output of each of many inputs: see `Stream.steps`; the inputs may come from asyncio too."""
        self._require_open()
        async for x in _each(series):
            self._send(self._request(x))
            while self._journal.outstanding >= in_flight:
                yield self._output(await self._next())
        while self._journal.outstanding:
            yield self._output(await self._next())

    async def reset(self, rows: Sequence[int] = (0,), state: State | None = None) -> State:
        """Begins some rows anew: see `Stream.reset`."""
        self._require_taken()
        return self._state(await self._ask(self._journal.reset(rows, None if state is None else state.to_message())))

    async def checkpoint(self) -> State:
        """Returns the state of all rows."""
        self._require_taken()
        return self._state(await self._ask(self._journal.checkpoint()))

    async def close(self) -> None:
        """Ends the stream."""
        self._ended = self._ended or errors.stream_closed()
        await self._disconnect()

    async def _disconnect(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def __aenter__(self) -> Self:
        while not self._journal.fingerprint:
            self._received(await self._receive())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(self, messages: list[Request]) -> Answer:
        self._send(messages)
        return await self._next()

    def _send(self, messages: list[Request]) -> None:
        if self._connection is not None:
            for message in messages:
                self._connection.send(message)

    async def _next(self) -> Answer:
        """Returns the next answer that was not delivered yet."""
        while True:
            answer = self._received(await self._receive())
            if answer is not None:
                return answer

    async def _receive(self) -> Response:
        """Returns the next message of a server, of another one where theirs is lost."""
        self._attempts.wait()
        while True:
            if self._connection is None:
                self._connection = _AsyncConnection(self._channel, self._journal.resumed())
            try:
                return self._checked(await self._connection.receive(self._timeout))
            except _LostError as lost:
                await self._disconnect()
                await asyncio.sleep(self._pause_after(lost.error))


class _AsyncConnection:
    """One call of the method, and a task that sends, lest both ends wait for the other to read."""

    def __init__(self, channel: grpc.aio.Channel, messages: list[Request]) -> None:
        self._outgoing = deque(messages)
        self._more = asyncio.Event()
        self._more.set()
        call = channel.stream_stream(_METHOD, _serialized, Response.FromString)
        try:
            self._call: Any = call(wait_for_ready=True)
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
            _LostError: the connection is lost, or nothing came in time.
        """
        try:
            received = await asyncio.wait_for(self._call.read(), timeout)
        except TimeoutError:
            raise _LostError(errors.silent(timeout)) from None
        except grpc.aio.AioRpcError as error:
            raise _LostError(errors.from_status(error.code(), error.details(), error.trailing_metadata())) from None
        except asyncio.CancelledError:
            if self._call.cancelled() and not _is_cancelled():
                raise _LostError(errors.ended()) from None
            raise
        if received is grpc.aio.EOF:
            raise _LostError(errors.from_status(await self._call.code(), await self._call.details()))
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


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return bool(task and task.cancelling())


async def _each(series: Iterable[ArrayLike] | AsyncIterable[ArrayLike]) -> AsyncIterator[ArrayLike]:
    if hasattr(series, "__aiter__"):
        async for x in series:
            yield x
    else:
        for x in series:
            yield x


def _serialized(message: Request) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def opening(
    model: str,
    rows: int | None,
    state: State | None,
    checkpoint_every: int,
    output: str,
) -> lstm_pb2.StreamOpen:
    """Returns the message that opens a stream.

    Raises:
        ValueError: the state has another number of rows.
    """
    count = rows or (state.batch if state is not None else 1)
    if state is not None and state.batch not in (0, count):
        message = f"a state of {state.batch} rows for a stream of {count}"
        raise ValueError(message)
    return lstm_pb2.StreamOpen(
        model=model,
        rows=count,
        state=None if state is None else state.to_message(),
        checkpoint_every=checkpoint_every,
        outputs=[output] if output else [],
    )
