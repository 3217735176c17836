"""Streams that continue on another server when theirs is lost, for threads and for asyncio.

`replay_log` remembers what must be sent again, `stream_call` is one call, and `resumable_stream` is the shared logic. This module
has the two ways of waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import grpc
import grpc.aio
from numpy.typing import ArrayLike, NDArray

from lstmserve import errors
from lstmserve.replay_log import Answer, Request, Response
from lstmserve.resumable_stream import ResumableStream
from lstmserve.state import State
from lstmserve.stream_call import AsyncStreamCall, Endpoint, LostError, StreamCall
from lstmserve.v1 import lstm_pb2

Array = NDArray[Any]

_Found = TypeVar("_Found")

IN_FLIGHT: Final = 16
"""Messages that `steps` sends ahead of the answers."""

CHECKPOINT_INTERVAL_STEPS: Final = 100
"""Time-steps between two checkpoints, unless the caller says otherwise."""


class Stream(ResumableStream[StreamCall]):
    """A stream of time-steps, made by `Client.stream`; to be used by one thread at a time.

    It remembers the last checkpoint and what was sent since. When the server dies, drains or is cut off, it continues with
    another, and every output is delivered once, in order.
    """

    def __init__(
        self,
        endpoint: Endpoint[grpc.Channel],
        opening: lstm_pb2.StreamOpen,
        *,
        strict: bool,
        timeout: float,
        reconnect_timeout: float,
    ) -> None:
        super().__init__(opening, endpoint.address, strict=strict, timeout=timeout, reconnect_timeout=reconnect_timeout)
        self._endpoint = endpoint
        self._until(self._is_opened)

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
        """Yields the output of each of many inputs, in order; up to `in_flight` of them are sent ahead of the answers.

        Args:
            series: what `step` takes, again and again.
            in_flight: how many are under way at most; 1 to read an input only when the output before it was taken.
        """
        require_in_flight(in_flight)
        self._require_open()
        for x in series:
            self._send(self._request(x))
            while self._replay_log.outstanding >= in_flight:
                yield self._output(self._next())
        while self._replay_log.outstanding:
            yield self._output(self._next())

    def reset(self, rows: Sequence[int] = (0,), state: State | None = None) -> State:
        """Begins some rows again, with zeros or a state of as many rows; returns the state of all rows."""
        self._require_taken()
        return self._state(self._ask(self._replay_log.reset(rows, None if state is None else state.to_message())))

    def checkpoint(self) -> State:
        """Returns the state of all rows."""
        self._require_taken()
        return self._state(self._ask(self._replay_log.checkpoint()))

    def close(self) -> None:
        """Ends the stream."""
        self.end(errors.stream_closed())

    def end(self, error: errors.LstmServeError) -> None:
        """Ends the stream; what is asked of it from now on ends with an error."""
        self._end(error)
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

    def _next(self) -> Answer:
        """Returns the next answer that was not delivered yet."""
        return self._until(self._received)

    def _until(self, found: Callable[[Response], _Found | None]) -> _Found:
        """Takes messages until one is what is waited for: what `found` makes of it."""
        self._wait()
        try:
            while True:
                made = found(self._receive())
                if made is not None:
                    return made
        except BaseException:
            if self._ended is not None or not self._replay_log.opened:
                self._disconnect()
            raise

    def _receive(self) -> Response:
        """Returns the next message of a server, of another one where theirs is lost."""
        while True:
            if self._connection is None:
                self._connection = StreamCall(self._endpoint, self._resumed())
            try:
                return self._checked(self._connection.receive(self._seconds_left()))
            except LostError as lost:
                self._disconnect()
                time.sleep(self._pause_after(lost.error))


class AsyncStream(ResumableStream[AsyncStreamCall]):
    """A stream of time-steps for asyncio, made by `AsyncClient.stream`; to be used by one task at a time: see `Stream`."""

    def __init__(
        self,
        endpoint: Endpoint[grpc.aio.Channel],
        opening: lstm_pb2.StreamOpen,
        *,
        strict: bool,
        timeout: float,
        reconnect_timeout: float,
    ) -> None:
        super().__init__(opening, endpoint.address, strict=strict, timeout=timeout, reconnect_timeout=reconnect_timeout)
        self._endpoint = endpoint

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
        require_in_flight(in_flight)
        self._require_open()
        async for x in _each(series):
            self._send(self._request(x))
            while self._replay_log.outstanding >= in_flight:
                yield self._output(await self._next())
        while self._replay_log.outstanding:
            yield self._output(await self._next())

    async def reset(self, rows: Sequence[int] = (0,), state: State | None = None) -> State:
        """Begins some rows again: see `Stream.reset`."""
        self._require_taken()
        return self._state(await self._ask(self._replay_log.reset(rows, None if state is None else state.to_message())))

    async def checkpoint(self) -> State:
        """Returns the state of all rows."""
        self._require_taken()
        return self._state(await self._ask(self._replay_log.checkpoint()))

    async def close(self) -> None:
        """Ends the stream."""
        await self.end(errors.stream_closed())

    async def end(self, error: errors.LstmServeError) -> None:
        """Ends the stream; what is asked of it from now on ends with an error."""
        self._end(error)
        await self._disconnect()

    async def _disconnect(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def __aenter__(self) -> Self:
        await self._until(self._is_opened)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(self, messages: list[Request]) -> Answer:
        self._send(messages)
        return await self._next()

    async def _next(self) -> Answer:
        """Returns the next answer that was not delivered yet."""
        return await self._until(self._received)

    async def _until(self, found: Callable[[Response], _Found | None]) -> _Found:
        """Takes messages until one is what is waited for: what `found` makes of it."""
        self._wait()
        try:
            while True:
                made = found(await self._receive())
                if made is not None:
                    return made
        except BaseException:
            if self._ended is not None or not self._replay_log.opened:
                await self._disconnect()
            raise

    async def _receive(self) -> Response:
        """Returns the next message of a server, of another one where theirs is lost."""
        while True:
            if self._connection is None:
                self._connection = AsyncStreamCall(self._endpoint, self._resumed())
            try:
                return self._checked(await self._connection.receive(self._seconds_left()))
            except LostError as lost:
                await self._disconnect()
                await asyncio.sleep(self._pause_after(lost.error))


async def _each(series: Iterable[ArrayLike] | AsyncIterable[ArrayLike]) -> AsyncIterator[ArrayLike]:
    if hasattr(series, "__aiter__"):
        async for x in series:
            yield x
    else:
        for x in series:
            yield x


def require_in_flight(in_flight: int) -> None:
    """Refuses to wait for answers to nothing.

    Raises:
        ValueError: `in_flight` is below 1.
    """
    if in_flight < 1:
        message = f"in_flight is {in_flight}; expected 1 or more"
        raise ValueError(message)


def opening(
    model: str,
    rows: int | None,
    state: State | None,
    checkpoint_interval_steps: int,
    output: str,
) -> lstm_pb2.StreamOpen:
    """Returns the message that opens a stream.

    Raises:
        ValueError: the state has another number of rows, or there are none.
    """
    if rows is not None and rows < 1:
        message = f"a stream of {rows} rows; expected at least 1"
        raise ValueError(message)
    count = rows or (state.batch if state is not None else 1)
    if state is not None and state.batch not in (0, count):
        message = f"a state of {state.batch} rows for a stream of {count}"
        raise ValueError(message)
    return lstm_pb2.StreamOpen(
        model=model,
        row_count=count,
        model_digest="" if state is None else state.model_digest,
        state=None if state is None else state.to_message(),
        checkpoint_interval_steps=checkpoint_interval_steps,
        outputs=[output] if output else [],
    )
