"""Dispatches gRPC calls to the servicers: authentication, error mapping and metrics."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import grpc
import structlog
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from lstmserve_server.core import request_context
from lstmserve_server.core.errors import DeadlineExceeded, InvalidRequest, NotServing, RequestError
from lstmserve_server.core.request_context import seconds_left
from lstmserve_server.observability.call_metrics import CallMetrics
from lstmserve_server.rpc import status
from lstmserve_server.rpc.auth.authenticators import Admission, Authenticator, Token, while_admitted
from lstmserve_server.rpc.auth.callers import current_caller, current_peer
from lstmserve_server.runtime.admission import FairLimiter

Context = grpc.aio.ServicerContext[bytes, bytes]

_log = structlog.get_logger(__name__)

_MAX_BYTES_WHEN_FULL: Final = 16 << 10
"""Bytes. When all places for long calls are taken, a message above it is refused unread: it would take longer to decode it."""


class Dispatcher:
    """The methods of the services as gRPC calls them: bytes in, bytes out.

    gRPC's own decoding would answer malformed requests with UNKNOWN and the name of one of our classes.
    Here a caller is authenticated before its message is decoded. Until there are servicers, every call ends with UNAVAILABLE.
    """

    def __init__(self, access: Authenticator, limiter: FairLimiter, metrics: CallMetrics) -> None:
        self._access = access
        self._limiter = limiter
        self._metrics = metrics
        self._servicers: Mapping[ServiceDescriptor, Any] = {}
        self._in_flight = _CallsInFlight()

    def set_servicers(self, servicers: Mapping[ServiceDescriptor, Any]) -> None:
        """Sets the servicers; from then on calls are answered."""
        self._servicers = servicers

    async def wait_until_idle(self) -> None:
        """Returns when no call is in flight, apart from watchers."""
        await self._in_flight.none.wait()

    def handlers_for(self, service: ServiceDescriptor) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        """Returns a handler for each method of a service."""
        return {method.name: self._handler(method) for method in service.methods}

    def _handler(self, method: MethodDescriptor) -> grpc.RpcMethodHandler[bytes, bytes]:
        request_type = message_factory.GetMessageClass(method.input_type)

        async def one(servicer: Any, token: Token, data: bytes) -> bytes:
            await token.caller.check_rate()
            response = await getattr(servicer, method.name)(self._parsed(request_type, data))
            encoded: bytes = response.SerializeToString()
            return encoded

        async def many(servicer: Any, token: Token, data: bytes, context: Context) -> None:
            await token.caller.check_rate()
            with token.admission(method.name) as admission:
                request = _parse(request_type, data)
                admission.uses(token.caller.resolve_model(request.model))
                answers = getattr(servicer, method.name)(request)
                async with contextlib.aclosing(while_admitted(answers, admission)) as responses:
                    async for response in responses:
                        await _write(context, response)

        async def answer_one(data: bytes, context: Context) -> bytes:
            with self._in_flight:
                answer: bytes = await self._guard(method, context, lambda servicer, token: one(servicer, token, data))
                return answer

        async def answer_stream(_: AsyncIterator[bytes], context: Context) -> None:
            async def serve(servicer: Any, token: Token) -> None:
                with token.admission(method.name) as admission:
                    await getattr(servicer, method.name)(GrpcMessageStream(request_type, context, admission))

            with self._in_flight:
                await self._guard(method, context, serve)

        async def answer_many(data: bytes, context: Context) -> None:
            await self._guard(method, context, lambda servicer, token: many(servicer, token, data, context))

        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(answer_stream)
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(answer_many)
        return grpc.unary_unary_rpc_method_handler(answer_one)

    def _parsed(self, request_type: Any, data: bytes) -> Any:
        if len(data) > _MAX_BYTES_WHEN_FULL:
            self._limiter.check_free()
        return _parse(request_type, data)

    async def _guard(
        self, method: MethodDescriptor, context: Context, work: Callable[[Any, Token], Awaitable[Any]]
    ) -> Any:
        """Authenticates a call, runs it with its servicer, and records how it ended."""
        metadata = context.invocation_metadata()
        own_id = request_context.begin_request(metadata)
        seconds_left.set(context.time_remaining)
        current_peer.set(context.peer)
        context.set_trailing_metadata(((request_context.REQUEST_ID_HEADER, own_id),))
        recorder = self._metrics.on_start(method, metadata)
        try:
            answer = await self._with_status(method, context, metadata, work)
        except _CallerGoneError:
            recorder.on_end(asyncio.CancelledError(), context)
            return None
        except BaseException as error:
            recorder.on_end(error, context)
            raise
        recorder.on_end(None, context)
        return answer

    async def _with_status(
        self,
        method: MethodDescriptor,
        context: Context,
        metadata: Any,
        work: Callable[[Any, Token], Awaitable[Any]],
    ) -> Any:
        """Runs a call, and ends it with a status of ours, whatever happens."""
        own_id = (request_context.REQUEST_ID_HEADER, request_context.request_id())
        try:
            servicer, token = self._admit(method, metadata)
            with token.caller.call():
                return await work(servicer, token)
        except RequestError as error:
            self._metrics.count_refusal(error, current_caller.get().name)
            _log.debug("refused", method=method.name, reason=error.reason, text=str(error))
            await status.abort(context, status.status_of(error), own_id)
        except (grpc.aio.AbortError, _CallerGoneError):
            raise
        except Exception:  # noqa: BLE001 - the last guard: whatever it is, its text is not the caller's business
            _log.exception("internal_error", method=method.name)
            await status.abort(context, status.internal_status(own_id[1]), own_id)

    def _admit(self, method: MethodDescriptor, metadata: Any) -> tuple[Any, Token]:
        servicer = self._servicers.get(method.containing_service)
        if servicer is None:
            raise NotServing("", "the server is starting; its models are being loaded")
        left = seconds_left.get()()
        if left is not None and left <= 0:
            raise DeadlineExceeded(
                "",
                "the deadline passed while the call waited. Set a longer deadline, or send fewer calls at the same time",
            )
        token = self._access.authenticate(metadata)
        token.caller.require_method(method.name)
        if token.caller.name:
            current_caller.set(token.caller)
            self._metrics.count_caller(token.caller.name)
        return servicer, token


class _CallsInFlight:
    """Counts calls in flight."""

    def __init__(self) -> None:
        self.none = asyncio.Event()
        self.none.set()
        self._calls = 0

    def __enter__(self) -> None:
        self._calls += 1
        self.none.clear()

    def __exit__(self, *_: object) -> None:
        self._calls -= 1
        if not self._calls:
            self.none.set()


class _CallerGoneError(Exception):
    """The caller is gone and no longer reads."""


class GrpcMessageStream:
    """A gRPC stream as messages, read by one task and written by one."""

    def __init__(self, request_type: Any, context: Context, admission: Admission) -> None:
        self._request_type = request_type
        self._context = context
        self._caller = admission.token.caller
        self.admission = admission

    async def read(self) -> Any:
        """Returns the next message, once the caller's rate limit allows it; None at the end of the stream.

        Raises:
            RequestError: the message is malformed, or exceeds a limit of the caller.
        """
        data: Any = await self._context.read()
        if data is grpc.aio.EOF:
            return None
        await self._caller.wait_for_rate()
        return _parse(self._request_type, data)

    async def write(self, response: Message) -> None:
        """Sends a message; waits while the caller does not read."""
        await _write(self._context, response)


async def _write(context: Context, response: Message) -> None:
    data = response.SerializeToString()
    try:
        await context.write(data)
    except Exception as error:  # of a kind that is gRPC's own secret: the call has ended at the other end, or by `stop`
        raise _CallerGoneError from error


def _parse(request_type: Any, data: bytes) -> Any:
    try:
        return request_type.FromString(data)
    except DecodeError:
        raise InvalidRequest(
            "", f"got {len(data)} bytes that are not a valid {request_type.DESCRIPTOR.full_name}"
        ) from None
