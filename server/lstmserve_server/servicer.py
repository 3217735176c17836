"""The RPCs: parse, run, tap, encode. And the one guard that every call passes."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import structlog
from google.protobuf import message_factory
from google.protobuf.message import DecodeError

from lstmserve.v1 import lstm_pb2, shadow_pb2
from lstmserve_server import status
from lstmserve_server.errors import InvalidRequest, NotServing, RequestError
from lstmserve_server.model_message import model_message
from lstmserve_server.shadow.base import seconds_left

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from google.protobuf.message import Message

    from lstmserve_server.call_metrics import CallMetrics
    from lstmserve_server.codec import Codec
    from lstmserve_server.registry import Registry
    from lstmserve_server.runner import Runner
    from lstmserve_server.shadow.base import Shadow
    from lstmserve_server.streams import Streams

    Context = grpc.aio.ServicerContext[bytes, bytes]

SERVICE = lstm_pb2.DESCRIPTOR.services_by_name["LstmService"]
SHADOW_SERVICE = shadow_pb2.DESCRIPTOR.services_by_name["ShadowService"]

_log = structlog.get_logger(__name__)


class LstmServicer:
    """Answers the calls of `LstmService` for the models of a registry."""

    def __init__(self, registry: Registry, codec: Codec, runner: Runner, streams: Streams, shadow: Shadow) -> None:
        self._registry = registry
        self._codec = codec
        self._runner = runner
        self._streams = streams
        self._shadow = shadow

    async def Step(self, request: lstm_pb2.StepRequest) -> lstm_pb2.StepResponse:
        """Advances every row by one time-step."""
        call = self._shadow.traced(self._codec.parse_step(request))
        answer = await self._runner.run(call)
        discrepancy = await self._shadow.offer(call, answer, "Step")
        return self._codec.step_response(call, answer, discrepancy)

    async def Forward(self, request: lstm_pb2.ForwardRequest) -> lstm_pb2.ForwardResponse:
        """Advances every row by a whole sequence."""
        call = self._shadow.traced(self._codec.parse_forward(request))
        answer = await self._runner.run(call)
        discrepancy = await self._shadow.offer(call, answer, "Forward")
        return self._codec.forward_response(call, answer, discrepancy)

    async def StreamSteps(self, stream: Stream) -> None:
        """Advances the rows of a stream by time-steps, until its caller has sent all."""
        await self._streams.serve(stream)

    async def GetModel(self, request: lstm_pb2.GetModelRequest) -> lstm_pb2.GetModelResponse:
        """Describes one model."""
        return lstm_pb2.GetModelResponse(model=model_message(self._codec.find(request.model)))

    async def ListModels(self, request: lstm_pb2.ListModelsRequest) -> lstm_pb2.ListModelsResponse:  # noqa: ARG002
        """Describes all models."""
        return lstm_pb2.ListModelsResponse(models=[model_message(served) for served in self._registry])


class ShadowServicer:
    """Answers the calls of `ShadowService`."""

    def __init__(self, shadow: Shadow) -> None:
        self._shadow = shadow

    async def GetReport(self, request: shadow_pb2.GetReportRequest) -> shadow_pb2.GetReportResponse:
        """Reports what was compared."""
        return shadow_pb2.GetReportResponse(report=self._shadow.report(request.model))

    async def WatchDiscrepancies(
        self, request: shadow_pb2.WatchDiscrepanciesRequest
    ) -> AsyncIterator[shadow_pb2.WatchDiscrepanciesResponse]:
        """Yields discrepancies as they are found."""
        async with contextlib.aclosing(self._shadow.watch(request.model)) as found:
            async for response in found:
                yield response


class Handlers:
    """The methods of the services as gRPC calls them: bytes in, bytes out.

    gRPC would decode the requests itself, and answer what it cannot decode with UNKNOWN and the name of a class of ours.
    Until there are servicers, every call ends with UNAVAILABLE.
    """

    def __init__(self, metrics: CallMetrics) -> None:
        self._metrics = metrics
        self._servicers: Mapping[ServiceDescriptor, Any] = {}
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def answer_with(self, servicers: Mapping[ServiceDescriptor, Any]) -> None:
        """Begins to answer, each service by its own."""
        self._servicers = servicers

    async def wait_until_idle(self) -> None:
        """Returns when no call is under way, apart from those that only watch."""
        await self._idle.wait()

    def by_method(self, service: ServiceDescriptor) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        """Returns a handler for each method of a service."""
        return {method.name: self._handler(method) for method in service.methods}

    def _handler(self, method: MethodDescriptor) -> grpc.RpcMethodHandler[bytes, bytes]:
        request_type = message_factory.GetMessageClass(method.input_type)
        measured = self._metrics.of_method(method.name, timed=not (method.client_streaming or method.server_streaming))

        async def answer_one(data: bytes, context: Context) -> bytes:
            seconds_left.set(context.time_remaining)
            with measured(context):
                async with self._counted(), self._guarded(method, context) as servicer:
                    response = await getattr(servicer, method.name)(_parse(request_type, data))
                    encoded: bytes = response.SerializeToString()
            return encoded

        async def answer_stream(_: AsyncIterator[bytes], context: Context) -> None:
            with measured(context):
                async with self._counted(), self._guarded(method, context) as servicer:
                    await getattr(servicer, method.name)(Stream(request_type, context))

        async def answer_many(data: bytes, context: Context) -> None:
            with measured(context):
                async with self._guarded(method, context) as servicer:
                    responses = getattr(servicer, method.name)(_parse(request_type, data))
                    async with contextlib.aclosing(responses):
                        async for response in responses:
                            await _write(context, response)

        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(answer_stream)
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(answer_many)
        return grpc.unary_unary_rpc_method_handler(answer_one)

    @contextlib.asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        """Counts a call while it is under way."""
        self._calls += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    @contextlib.asynccontextmanager
    async def _guarded(self, method: MethodDescriptor, context: Context) -> AsyncIterator[Any]:
        """Yields the servicer of a method, and makes a status of our choosing of whatever happens in a call."""
        try:
            servicer = self._servicers.get(method.containing_service)
            if servicer is None:
                raise NotServing("", "the server is starting; its models are being loaded")  # noqa: TRY301 - as all others
            yield servicer
        except RequestError as error:
            self._metrics.refused(error.reason)
            await _abort(context, status.of(error))
        except asyncio.CancelledError:
            if context.cancelled():  # by the caller, or by its deadline
                raise
            await _abort(context, status.of(NotServing("", "the server is stopping; ask another one")))
        except grpc.aio.AbortError:
            raise
        except _CallerGoneError:
            _log.debug("caller_gone", method=method.name)
        except Exception:  # noqa: BLE001 - the last guard: whatever it is, its text is not the caller's business
            request_id = uuid.uuid4().hex
            _log.exception("internal_error", method=method.name, request_id=request_id)
            await _abort(context, status.of_fault(request_id))


class _CallerGoneError(Exception):
    """Nobody is there any more to read what is sent."""


class Stream:
    """One stream as messages, to be read by one task and written by one."""

    def __init__(self, request_type: Any, context: Context) -> None:
        self._request_type = request_type
        self._context = context

    async def read(self) -> Any:
        """Returns the next message of the caller; None when the caller has sent all."""
        data: Any = await self._context.read()
        return None if data is grpc.aio.EOF else _parse(self._request_type, data)

    async def write(self, response: Message) -> None:
        """Sends a message; waits as long as the caller does not read."""
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
        raise InvalidRequest("", f"{len(data)} bytes came that are no {request_type.DESCRIPTOR.full_name}") from None


async def _abort(context: Context, how: status.Status) -> NoReturn:
    code, text, metadata = how
    await context.abort(code, text, metadata)
    raise AssertionError  # abort always raises
