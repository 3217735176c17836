"""The synchronous and the asyncio client: the same calls, sent in two ways."""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio
from numpy.typing import ArrayLike, NDArray

from lstmserve import calls, channels, errors, streams
from lstmserve.credentials import Tls, Token
from lstmserve.state import State
from lstmserve.stream_call import Endpoint, cancelled_by_owner
from lstmserve.v1 import lstm_pb2, shadow_pb2

_Answer = TypeVar("_Answer")


class Client:
    """Calls an lstmserve server; thread-safe.

    ```python
    with Client("localhost:50051") as client:
        output, state = client.step([0.1, 0.2, 0.3])
        output, state = client.step([0.4, 0.5, 0.6], state)
    ```

    Args:
        address: "host:port", "unix:/path", or any other name that gRPC resolves; or several servers that have the same
            models, as a list or with commas between them.
        model: name of the model to call; may be left out if the server has one.
        timeout: default timeout of a call in seconds, retries included; infinity for no limit.
        max_message_bytes: largest message to send or receive; None for any size. The server's limits hold in any case.
        tls: TLS settings; None for plain text.
        token: bearer token of the caller, or a function that returns it at each call; None for none. In plain text anyone on the
            network can read it.

    Every method raises a subclass of `LstmServeError` if the server refuses or cannot be reached.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        model: str = "",
        timeout: float = calls.DEFAULT_TIMEOUT,
        max_message_bytes: int | None = None,
        tls: Tls | None = None,
        token: str | Callable[[], str | None] | None = None,
    ) -> None:
        target, options = channels.target(address, tls), channels.channel_options(max_message_bytes, tls)
        self._address = channels.display_address(address)
        self._channel = (
            grpc.insecure_channel(target, options)
            if tls is None
            else grpc.secure_channel(target, tls.credentials(), options)
        )
        self._token = Token.of(token)
        self._model = model
        self._timeout = timeout
        self._closed = False
        self._streams: weakref.WeakSet[streams.Stream] = weakref.WeakSet()

    def step(
        self, x: ArrayLike, state: State | None = None, *, compare: bool = False, timeout: float | None = None
    ) -> calls.Result:
        """Advances every row by one time-step.

        Args:
            x: (batch, features), or (features,) for one sequence.
            state: what the call before gave back; None for new sequences.
            compare: whether the server first compares the answer with the real Keras layer (`Result.comparison`); the server
                needs shadow mode.
            timeout: seconds for this call.

        Returns:
            The output, (batch, features) or (features,) as `x`, and the next state.
        """
        return self._send(calls.step(x, state, self._model, compare=compare), timeout)

    def forward(
        self,
        x: ArrayLike | Mapping[str, ArrayLike],
        state: State | None = None,
        *,
        lengths: Sequence[int] | NDArray[Any] | None = None,
        all_outputs: bool = False,
        compare: bool = False,
        timeout: float | None = None,
    ) -> calls.Result:
        """Advances every row by a whole sequence.

        Args:
            x: (batch, time, features), or (time, features) for one sequence; of a model with several inputs all of them
                by name, each with its batch axis.
            state: what the call before gave back; None for new sequences.
            lengths: time-steps of each row, (batch,), where rows are shorter than `x` is long.
            all_outputs: whether the output of every step is wanted, rather than that of each row's last.
            compare: as in `step`.
            timeout: seconds for this call.

        Returns:
            The output, (batch, features) or (batch, time, features), without batch if `x` has none, and the next state.
        """
        return self._send(
            calls.forward(x, state, self._model, lengths, all_outputs=all_outputs, compare=compare), timeout
        )

    def forward_windows(
        self,
        series: ArrayLike,
        length: int,
        *,
        stride: int = 1,
        rows: int = 256,
        timeout: float | None = None,
    ) -> NDArray[Any]:
        """Answers every window of a series, each from a new sequence: what the Keras model's `predict` gives for them.

        This is right for a model that was trained on windows of a fixed length. One that continues from step to step has seen
        more than such a model ever did.

        Args:
            series: (time, features)
            length: time-steps of a window.
            stride: time-steps from one window to the next.
            rows: windows in a call.
            timeout: seconds for each call.

        Returns:
            The last output of each window, (windows, features).
        """
        parts = calls.windows(series, length, stride, rows, self._model)
        return calls.joined([self._send(part, timeout).output for part in parts], self._address)

    def stream(
        self,
        *,
        rows: int | None = None,
        state: State | None = None,
        checkpoint_interval_steps: int = streams.CHECKPOINT_INTERVAL_STEPS,
        output: str = "",
        strict: bool = False,
        timeout: float = 5,
        reconnect_timeout: float = 60,
    ) -> streams.Stream:
        """Opens a stream: cheaper than calls of `step`, with the same answers; it survives the loss of its server.

        ```python
        with client.stream() as stream:
            for output in stream.steps(series):
                print(output)
        ```

        Args:
            rows: how many rows (sequences) it advances; None for as many as `state` has, or one.
            state: what an earlier call or stream gave back; None for new sequences.
            checkpoint_interval_steps: after how many time-steps the server sends the state, so that what came before need not be
                sent again when it is lost; 0 for only when asked, or when too much is to be remembered.
            output: name of the output that is wanted, of a model with several; the first, where it is left out.
            strict: whether to stop rather than to continue with a server of other numerics, whose bytes may differ.
            timeout: seconds without an answer that was asked for, after which another server is tried.
            reconnect_timeout: seconds without any answer after which to give up.
        """
        seconds = calls.validate_timeout(timeout) or math.inf
        opening = streams.opening(self._model, rows, state, checkpoint_interval_steps, output)
        endpoint = Endpoint(self._channel, self._token, self._address)
        stream = streams.Stream(
            endpoint,
            opening,
            strict=strict,
            timeout=seconds,
            reconnect_timeout=calls.validate_reconnect_timeout(reconnect_timeout),
        )
        self._streams.add(stream)
        return stream

    def model(self, *, timeout: float | None = None) -> lstm_pb2.Model:
        """Returns the description of the model."""
        return self._send(calls.get_model(self._model), timeout)

    def models(self, *, timeout: float | None = None) -> list[lstm_pb2.Model]:
        """Returns the descriptions of all models that the server has."""
        return self._send(calls.list_models(), timeout)

    def shadow_report(self, *, timeout: float | None = None) -> shadow_pb2.ShadowReport:
        """Returns what a server with shadow mode has compared with Keras."""
        return self._send(calls.shadow_report(self._model), timeout)

    def close(self) -> None:
        """Closes the connection and all streams; calls under way end with `Cancelled`."""
        self._closed = True
        for stream in tuple(self._streams):
            stream.end(errors.closed())
        self._channel.close()

    def _send(self, call: calls.Request[_Answer], timeout: float | None) -> _Answer:
        seconds = calls.validate_timeout(self._timeout if timeout is None else timeout)
        if self._closed:
            raise errors.closed()
        send: grpc.UnaryUnaryMultiCallable[Any, bytes] = self._channel.unary_unary(call.method, calls.serialize)
        try:
            data = send(call.request, timeout=seconds, metadata=self._token.metadata())
        except grpc.RpcError as error:
            raise errors.from_status(error.code(), error.details(), error.trailing_metadata()) from None
        return call.answer(data, self._address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """Calls an lstmserve server from asyncio. Arguments, methods and errors are those of `Client`."""

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        model: str = "",
        timeout: float = calls.DEFAULT_TIMEOUT,
        max_message_bytes: int | None = None,
        tls: Tls | None = None,
        token: str | Callable[[], str | None] | None = None,
    ) -> None:
        target, options = channels.target(address, tls), channels.channel_options(max_message_bytes, tls)
        self._address = channels.display_address(address)
        self._channel = (
            grpc.aio.insecure_channel(target, options)
            if tls is None
            else grpc.aio.secure_channel(target, tls.credentials(), options)
        )
        self._token = Token.of(token)
        self._model = model
        self._timeout = timeout
        self._closed = False
        self._streams: weakref.WeakSet[streams.AsyncStream] = weakref.WeakSet()

    async def step(
        self, x: ArrayLike, state: State | None = None, *, compare: bool = False, timeout: float | None = None
    ) -> calls.Result:
        """Advances every row by one time-step: see `Client.step`."""
        return await self._send(calls.step(x, state, self._model, compare=compare), timeout)

    async def forward(
        self,
        x: ArrayLike | Mapping[str, ArrayLike],
        state: State | None = None,
        *,
        lengths: Sequence[int] | NDArray[Any] | None = None,
        all_outputs: bool = False,
        compare: bool = False,
        timeout: float | None = None,
    ) -> calls.Result:
        """Advances every row by a whole sequence: see `Client.forward`."""
        return await self._send(
            calls.forward(x, state, self._model, lengths, all_outputs=all_outputs, compare=compare), timeout
        )

    async def forward_windows(
        self,
        series: ArrayLike,
        length: int,
        *,
        stride: int = 1,
        rows: int = 256,
        timeout: float | None = None,
    ) -> NDArray[Any]:
        """Answers every window of a series: see `Client.forward_windows`."""
        parts = calls.windows(series, length, stride, rows, self._model)
        return calls.joined([(await self._send(part, timeout)).output for part in parts], self._address)

    def stream(
        self,
        *,
        rows: int | None = None,
        state: State | None = None,
        checkpoint_interval_steps: int = streams.CHECKPOINT_INTERVAL_STEPS,
        output: str = "",
        strict: bool = False,
        timeout: float = 5,
        reconnect_timeout: float = 60,
    ) -> streams.AsyncStream:
        """Makes a stream, which `async with` opens: see `Client.stream`."""
        seconds = calls.validate_timeout(timeout) or math.inf
        opening = streams.opening(self._model, rows, state, checkpoint_interval_steps, output)
        endpoint = Endpoint(self._channel, self._token, self._address)
        stream = streams.AsyncStream(
            endpoint,
            opening,
            strict=strict,
            timeout=seconds,
            reconnect_timeout=calls.validate_reconnect_timeout(reconnect_timeout),
        )
        self._streams.add(stream)
        return stream

    async def model(self, *, timeout: float | None = None) -> lstm_pb2.Model:
        """Returns the description of the model."""
        return await self._send(calls.get_model(self._model), timeout)

    async def models(self, *, timeout: float | None = None) -> list[lstm_pb2.Model]:
        """Returns the descriptions of all models that the server has."""
        return await self._send(calls.list_models(), timeout)

    async def shadow_report(self, *, timeout: float | None = None) -> shadow_pb2.ShadowReport:
        """Returns what a server with shadow mode has compared with Keras."""
        return await self._send(calls.shadow_report(self._model), timeout)

    async def close(self) -> None:
        """Closes the connection and all streams; calls under way end with `Cancelled`."""
        self._closed = True
        for stream in tuple(self._streams):
            await stream.end(errors.closed())
        await self._channel.close()

    async def _send(self, call: calls.Request[_Answer], timeout: float | None) -> _Answer:
        seconds = calls.validate_timeout(self._timeout if timeout is None else timeout)
        if self._closed:
            raise errors.closed()
        send: grpc.aio.UnaryUnaryMultiCallable[Any, bytes] = self._channel.unary_unary(call.method, calls.serialize)
        try:
            data = await send(call.request, timeout=seconds, metadata=self._token.metadata())
        except grpc.aio.AioRpcError as error:
            raise errors.from_status(error.code(), error.details(), error.trailing_metadata()) from None
        except asyncio.CancelledError:
            if self._closed and not cancelled_by_owner():  # but by `close`
                raise errors.closed() from None
            raise
        return call.answer(data, self._address)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
