"""The RPCs of `LstmService`: parse, run, encode. And the one guard that every call passes."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import structlog
from google.protobuf import message_factory
from google.protobuf.message import DecodeError

from lstmserve.v1 import lstm_pb2
from lstmserve_server import status
from lstmserve_server.errors import InvalidRequest, NotServing, RequestError
from lstmserve_server.model_message import model_message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from lstmserve_server.codec import Codec
    from lstmserve_server.registry import Registry
    from lstmserve_server.runner import Runner

    Context = grpc.aio.ServicerContext[bytes, bytes]

SERVICE = lstm_pb2.DESCRIPTOR.services_by_name["LstmService"]

_log = structlog.get_logger(__name__)


class LstmServicer:
    """Answers the calls of `LstmService` for the models of a registry."""

    def __init__(self, registry: Registry, codec: Codec, runner: Runner) -> None:
        self._registry = registry
        self._codec = codec
        self._runner = runner

    async def Step(self, request: lstm_pb2.StepRequest) -> lstm_pb2.StepResponse:
        """Advances every row by one time-step."""
        call = self._codec.parse_step(request)
        answer = await self._runner.step(call)
        return self._codec.step_response(call, answer)

    async def Forward(self, request: lstm_pb2.ForwardRequest) -> lstm_pb2.ForwardResponse:
        """Advances every row by a whole sequence."""
        call = self._codec.parse_forward(request)
        answer = await self._runner.forward(call)
        return self._codec.forward_response(call, answer)

    async def GetModel(self, request: lstm_pb2.GetModelRequest) -> lstm_pb2.GetModelResponse:
        """Describes one model."""
        return lstm_pb2.GetModelResponse(model=model_message(self._codec.parse_get_model(request)))

    async def ListModels(self, request: lstm_pb2.ListModelsRequest) -> lstm_pb2.ListModelsResponse:  # noqa: ARG002
        """Describes all models."""
        return lstm_pb2.ListModelsResponse(models=[model_message(served) for served in self._registry])


class Handlers:
    """The methods of `LstmService` as gRPC calls them: bytes in, bytes out.

    gRPC would decode the requests itself, and answer what it cannot decode with UNKNOWN and the name of a class of ours.
    Until there is a servicer, every call ends with UNAVAILABLE.
    """

    def __init__(self) -> None:
        self._servicer: LstmServicer | None = None
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def answer_with(self, servicer: LstmServicer) -> None:
        """Begins to answer."""
        self._servicer = servicer

    async def wait_until_idle(self) -> None:
        """Returns when no call is under way."""
        await self._idle.wait()

    def by_method(self) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        """Returns a handler for each method of the service."""
        return {
            method.name: grpc.unary_unary_rpc_method_handler(
                self._guarded(method.name, message_factory.GetMessageClass(method.input_type))
            )
            for method in SERVICE.methods
        }

    def _guarded(self, method: str, request_type: Any) -> Callable[[bytes, Context], Awaitable[bytes]]:
        """Returns the method, so that whatever happens in it ends in a status of our choosing."""

        async def handle(data: bytes, context: Context) -> bytes:
            with self._counted():
                return await answer(data, context)

        async def answer(data: bytes, context: Context) -> bytes:
            try:
                servicer = self._ready_servicer()
                request = _parse(request_type, data)
                response = await getattr(servicer, method)(request)
                encoded: bytes = response.SerializeToString()
            except RequestError as error:
                await _abort(context, status.of(error))
            except asyncio.CancelledError:
                if context.cancelled():  # by the caller, or by its deadline
                    raise
                await _abort(context, status.of(NotServing("", "the server is stopping; ask another one")))
            except Exception:  # noqa: BLE001 - the last guard: whatever it is, its text is not the caller's business
                request_id = uuid.uuid4().hex
                _log.exception("internal_error", method=method, request_id=request_id)
                await _abort(context, status.of_fault(request_id))
            return encoded

        return handle

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self._calls += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    def _ready_servicer(self) -> LstmServicer:
        if self._servicer is None:
            raise NotServing("", "the server is starting; its models are being loaded")
        return self._servicer


def _parse(request_type: Any, data: bytes) -> Any:
    try:
        return request_type.FromString(data)
    except DecodeError:
        raise InvalidRequest("", f"{len(data)} bytes came that are no {request_type.DESCRIPTOR.full_name}") from None


async def _abort(context: Context, how: status.Status) -> NoReturn:
    code, text, metadata = how
    await context.abort(code, text, metadata)
    raise AssertionError  # abort always raises
