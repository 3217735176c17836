"""The standard health service (grpc.health.v1), for the server as a whole and for each model.

Our own rather than grpcio-health-checking's: there, one watcher that does not read blocks everybody who sets a status, and
so the drain. Here a status is a value; watchers are woken, and never waited for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from lstmserve_server.errors import listed
from lstmserve_server.servicer import SERVICE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Context = grpc.aio.ServicerContext[bytes, bytes]

HEALTH_SERVICE: Final = health_pb2.DESCRIPTOR.services_by_name["Health"]

MAX_WATCHERS: Final = 1000
"""A watcher costs a few kilobytes for as long as it likes; beyond this number new ones are turned away."""


class Health:
    """Knows the status of the server ("") and of its services, and tells those who ask or watch."""

    def __init__(self, services: list[str]) -> None:
        self._statuses = dict.fromkeys(services, health_pb2.HealthCheckResponse.NOT_SERVING)
        self._watchers: set[asyncio.Event] = set()

    def serving(self) -> bool:
        """Returns whether the server as a whole is SERVING; from any thread."""
        return bool(self._statuses[""] == health_pb2.HealthCheckResponse.SERVING)

    def set_all(self, *, serving: bool) -> None:
        """Sets the status of the server and of all services."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        self._statuses = dict.fromkeys(self._statuses, status)
        for changed in self._watchers:
            changed.set()

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        """Returns the methods of the service as gRPC calls them: bytes in, bytes out, as in `servicer.Handlers`."""
        return {
            "Check": grpc.unary_unary_rpc_method_handler(self._check),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }

    async def _check(self, data: bytes, context: Context) -> bytes:
        service = await _service_asked_for(data, context)
        status = self._statuses.get(service)
        if status is None:
            known = listed(self._statuses)
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {service[:128]!r}; expected one of {known}")
            raise AssertionError  # abort always raises
        return _response(status)

    async def _watch(self, data: bytes, context: Context) -> AsyncIterator[bytes]:
        service = await _service_asked_for(data, context)
        if len(self._watchers) >= MAX_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WATCHERS} watchers are here; expected fewer")
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            told = None
            while True:
                changed.clear()
                status = self._statuses.get(service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
                if status != told:
                    told = status
                    yield _response(status)
                await changed.wait()
        finally:
            self._watchers.discard(changed)


async def _service_asked_for(data: bytes, context: Context) -> str:
    try:
        return str(health_pb2.HealthCheckRequest.FromString(data).service)
    except DecodeError:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{len(data)} bytes came that are no HealthCheckRequest")
        raise AssertionError from None  # abort always raises


def _response(status: int) -> bytes:
    return bytes(health_pb2.HealthCheckResponse(status=status).SerializeToString())


def service_of_model(name: str) -> str:
    """Returns the name under which the health of a model is asked for."""
    return f"{SERVICE.full_name}/{name}"
