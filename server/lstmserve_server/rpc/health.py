"""The standard health service (grpc.health.v1), for the server and for each model.

It replaces that of grpcio-health-checking, where a watcher that does not read blocks every status change, and so the
drain: docs/decisions/health.md. Here a status is a value: watchers are woken, never waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from lstmserve_server.core.errors import InvalidRequest, RequestError, Unauthenticated
from lstmserve_server.rpc import status
from lstmserve_server.rpc.auth.authenticators import Authenticator, Token, while_admitted
from lstmserve_server.rpc.auth.callers import ANONYMOUS, Caller
from lstmserve_server.rpc.servicers import SERVICE
from lstmserve_server.runtime.admission import FairLimiter

Context = grpc.aio.ServicerContext[bytes, bytes]

HEALTH_SERVICE: Final = health_pb2.DESCRIPTOR.services_by_name["Health"]

EXPECTED: Final = (
    f"'' for the server, {SERVICE.full_name!r}, or with a token {SERVICE.full_name + '/NAME'!r} for the model NAME"
)
"""What may be asked for."""

MAX_WATCHERS: Final = 1000
"""A watcher costs a few kilobytes for as long as it likes; beyond this number new ones are turned away."""


class Health:
    """Status of the server ("") and of its services, for callers that check or watch.

    Callers without a token, where they are allowed, only see the server and its services, no model.
    """

    def __init__(self, services: list[str], models: list[str]) -> None:
        """Begins with NOT_SERVING.

        Args:
            services: the names of the services, "" among them.
            models: the names of the models.
        """
        self._services = frozenset(services)
        self._models = {service_of_model(name): name for name in models}
        self._status = health_pb2.HealthCheckResponse.NOT_SERVING
        self._watchers: set[asyncio.Event] = set()
        self._limiter = FairLimiter(MAX_WATCHERS, "watchers of the health are here", "its own bound")

    def serving(self) -> bool:
        """Returns whether the server is SERVING; thread-safe."""
        return bool(self._status == health_pb2.HealthCheckResponse.SERVING)

    def set_all(self, *, serving: bool) -> None:
        """Sets the status of the server, of all services and of all models."""
        self._status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for changed in self._watchers:
            changed.set()

    def handlers(self, access: Authenticator, *, is_open: bool) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        """Returns the methods of the service as gRPC calls them, bytes in, bytes out.

        Args:
            access: authenticates the caller.
            is_open: whether callers without a token are answered.
        """

        async def check(data: bytes, context: Context) -> bytes:
            """Answers `Check`."""
            async with _refusals(context):
                service = _asked_for(data)
                token = _token(context, access, is_open=is_open)
                if self._knows(service, None if token is None else token.caller):
                    return _response(self._status)
                await context.abort(
                    grpc.StatusCode.NOT_FOUND,
                    f"service: no {service[:128]!r} is here, or not for you; expected {EXPECTED}",
                )
            raise AssertionError  # the refusal has ended the call

        async def watch(data: bytes, context: Context) -> AsyncIterator[bytes]:
            """Answers `Watch`."""
            async with _refusals(context):
                service, token = _asked_for(data), _token(context, access, is_open=is_open)
                caller = ANONYMOUS if token is None else token.caller
                with (
                    self._limiter.slot(caller.name or context.peer().rpartition(":")[0]),
                    contextlib.ExitStack() as held,
                ):
                    statuses = self._watch(known=self._knows(service, None if token is None else caller))
                    if token is not None:
                        admission = held.enter_context(token.admission())
                        if service in self._models:
                            admission.uses(self._models[service])
                        statuses = while_admitted(statuses, admission)
                    async with contextlib.aclosing(statuses):
                        async for value in statuses:
                            yield value

        return {
            "Check": grpc.unary_unary_rpc_method_handler(check),
            "Watch": grpc.unary_stream_rpc_method_handler(watch),
        }

    def _knows(self, service: str, caller: Caller | None) -> bool:
        """Returns whether a service exists and the caller may see it; None stands for a caller without a token."""
        model = self._models.get(service)
        return service in self._services or (model is not None and caller is not None and caller.may_use(model))

    async def _watch(self, *, known: bool) -> AsyncGenerator[bytes]:
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            told = None
            while True:
                changed.clear()
                value = self._status if known else health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
                if value != told:
                    told = value
                    yield _response(value)
                await changed.wait()
        finally:
            self._watchers.discard(changed)


def _token(context: Context, access: Authenticator, *, is_open: bool) -> Token | None:
    """Returns the token of the caller; None for a caller without one, where that is allowed.

    Raises:
        Unauthenticated: it is not.
    """
    try:
        return access.authenticate(context.invocation_metadata())
    except Unauthenticated:
        if is_open:
            return None
        raise


def _asked_for(data: bytes) -> str:
    try:
        return str(health_pb2.HealthCheckRequest.FromString(data).service)
    except DecodeError:
        raise InvalidRequest("", f"got {len(data)} bytes that are not a valid HealthCheckRequest") from None


@contextlib.asynccontextmanager
async def _refusals(context: Context) -> AsyncIterator[None]:
    """Ends the call with the status of an error raised within."""
    try:
        yield
    except RequestError as error:
        await status.abort(context, status.status_of(error))


def _response(value: int) -> bytes:
    return bytes(health_pb2.HealthCheckResponse(status=value).SerializeToString())


def service_of_model(name: str) -> str:
    """Returns the service name of a model's health."""
    return f"{SERVICE.full_name}/{name}"
