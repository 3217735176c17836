"""The standard health service (grpc.health.v1), for the server as a whole and for each model.

Our own rather than grpcio-health-checking's: there, one watcher that does not read blocks everybody who sets a status, and
so the drain. Here a status is a value; watchers are woken, and never waited for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import grpc
from grpc_health.v1 import health_pb2

from lstmserve_server.servicer import SERVICE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Context = grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]

HEALTH_SERVICE: Final = health_pb2.DESCRIPTOR.services_by_name["Health"]

MAX_WATCHERS: Final = 1000
"""A watcher costs a few kilobytes for as long as it likes; beyond this number new ones are turned away."""


class Health:
    """Knows the status of the server ("") and of its services, and tells those who ask or watch."""

    def __init__(self, services: list[str]) -> None:
        self._statuses = dict.fromkeys(services, health_pb2.HealthCheckResponse.NOT_SERVING)
        self._watchers: set[asyncio.Event] = set()

    def set_all(self, *, serving: bool) -> None:
        """Sets the status of the server and of all services."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        self._statuses = dict.fromkeys(self._statuses, status)
        for changed in self._watchers:
            changed.set()

    def handlers(
        self,
    ) -> dict[str, grpc.RpcMethodHandler[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]]:
        """Returns the methods of the service as gRPC calls them."""
        read = health_pb2.HealthCheckRequest.FromString
        write = health_pb2.HealthCheckResponse.SerializeToString
        return {
            "Check": grpc.unary_unary_rpc_method_handler(self._check, read, write),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch, read, write),
        }

    async def _check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        status = self._statuses.get(request.service)
        if status is None:
            known = ", ".join(repr(service) for service in self._statuses)
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"no service {request.service[:128]!r}; expected one of {known}"
            )
            raise AssertionError  # abort always raises
        return health_pb2.HealthCheckResponse(status=status)

    async def _watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        if len(self._watchers) >= MAX_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WATCHERS} watchers are here; expected fewer")
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            told = None
            while True:
                changed.clear()
                status = self._statuses.get(request.service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
                if status != told:
                    told = status
                    yield health_pb2.HealthCheckResponse(status=status)
                await changed.wait()
        finally:
            self._watchers.discard(changed)


def service_of_model(name: str) -> str:
    """Returns the name under which the health of a model is asked for."""
    return f"{SERVICE.full_name}/{name}"
