"""The standard health service (grpc.health.v1), for the server as a whole and for each model.

Our own rather than grpcio-health-checking's: there, one watcher that does not read blocks everybody who sets a status, and
so the drain. Here a status is a value; watchers are woken, and never waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from lstmserve_server import status
from lstmserve_server.errors import RequestError, listed
from lstmserve_server.servicer import SERVICE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from lstmserve_server.access import Access

    Context = grpc.aio.ServicerContext[bytes, bytes]

HEALTH_SERVICE: Final = health_pb2.DESCRIPTOR.services_by_name["Health"]

MAX_WATCHERS: Final = 1000
"""A watcher costs a few kilobytes for as long as it likes; beyond this number new ones are turned away."""


class Health:
    """Knows the status of the server ("") and of its services, and tells those who ask or watch."""

    def __init__(self, services: list[str]) -> None:
        """Makes it say NOT_SERVING of all these services."""
        self._statuses = dict.fromkeys(services, health_pb2.HealthCheckResponse.NOT_SERVING)
        self._watchers: set[asyncio.Event] = set()

    def serving(self) -> bool:
        """Returns whether the server as a whole is SERVING; from any thread."""
        return bool(self._statuses[""] == health_pb2.HealthCheckResponse.SERVING)

    def set_all(self, *, serving: bool) -> None:
        """Sets the status of the server and of all services."""
        value = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        self._statuses = dict.fromkeys(self._statuses, value)
        for changed in self._watchers:
            changed.set()

    def handlers(self, access: Access) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        """Returns the methods of the service as gRPC calls them, bytes in, bytes out, for those who may call."""

        async def check(data: bytes, context: Context) -> bytes:
            """Answers `Check`."""
            return await self._check(await _service_asked_for(data, context, access), context)

        async def watch(data: bytes, context: Context) -> AsyncIterator[bytes]:
            """Answers `Watch`."""
            service = await _service_asked_for(data, context, access)
            async with contextlib.aclosing(self._watch(service, context)) as statuses:
                async for value in statuses:
                    yield value

        return {
            "Check": grpc.unary_unary_rpc_method_handler(check),
            "Watch": grpc.unary_stream_rpc_method_handler(watch),
        }

    async def _check(self, service: str, context: Context) -> bytes:
        value = self._statuses.get(service)
        if value is None:
            known = listed(self._statuses)
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {service[:128]!r}; expected one of {known}")
            raise AssertionError  # abort always raises
        return _response(value)

    async def _watch(self, service: str, context: Context) -> AsyncGenerator[bytes]:
        if len(self._watchers) >= MAX_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WATCHERS} watchers are here; expected fewer")
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            told = None
            while True:
                changed.clear()
                value = self._statuses.get(service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
                if value != told:
                    told = value
                    yield _response(value)
                await changed.wait()
        finally:
            self._watchers.discard(changed)


async def _service_asked_for(data: bytes, context: Context, access: Access) -> str:
    try:
        access.token_of(context.invocation_metadata())
        return str(health_pb2.HealthCheckRequest.FromString(data).service)
    except RequestError as error:
        await status.abort(context, status.of(error))
    except DecodeError:
        text = f"{len(data)} bytes came that are no HealthCheckRequest"
        await status.abort(context, (grpc.StatusCode.INVALID_ARGUMENT, text, ()))


def _response(value: int) -> bytes:
    return bytes(health_pb2.HealthCheckResponse(status=value).SerializeToString())


def service_of_model(name: str) -> str:
    """Returns the name under which the health of a model is asked for."""
    return f"{SERVICE.full_name}/{name}"
