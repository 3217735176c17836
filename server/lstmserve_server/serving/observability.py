"""Composes what operators see of a server: metrics, traces, and gRPC's channelz."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Protocol

import grpc
import structlog
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.registry import Collector

from lstmserve_server.core import addresses, memory, packages
from lstmserve_server.core.errors import SettingsError
from lstmserve_server.observability.call_metrics import CallMetrics
from lstmserve_server.observability.server_metrics import ServerMetrics
from lstmserve_server.serving.settings import ServeSettings

_log = structlog.get_logger(__name__)


class Exporter(Protocol):
    """An open port that shows the metrics."""

    address: str

    def close(self) -> None:
        """Shows no more."""
        ...


class Observability:
    """Metrics, traces and channelz of one server."""

    def __init__(
        self,
        settings: ServeSettings,
        serving: Callable[[], bool],
        expose: Callable[[CollectorRegistry, Callable[[], bool]], Exporter] | None,
    ) -> None:
        """Makes the metrics; nothing is shown yet.

        Args:
            settings: those of the server.
            serving: returns whether the server is SERVING; thread-safe.
            expose: opens the admin port; None for none.

        Raises:
            StartupError: a required package is not installed.
        """
        self.calls = CallMetrics() if settings.traces is None else _traced(settings.traces)
        self.server = ServerMetrics(serving)
        self._settings = settings
        self._serving = serving
        self._expose = expose
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.add([*self.calls.collectors(), *self.server.collectors()])
        self._opened = contextlib.AsyncExitStack()

    def add(self, collectors: Iterable[Collector]) -> None:
        """Shows more."""
        for collector in collectors:
            self._registry.register(collector)

    async def start(self) -> None:
        """Opens the ports.

        Raises:
            StartupError: an address cannot be listened on, or a required package is not installed.
        """
        for background in (self.server.watch_event_loop(), memory.trim_periodically()):
            self._opened.callback(asyncio.create_task(background).cancel)
        self._opened.callback(self.calls.close)
        if self._expose is not None:
            opened = self._expose(self._registry, self._serving)
            self._opened.callback(opened.close)
            _log.info("metrics", listen=opened.address)
        if self._settings.channelz is not None:
            await self._opened.enter_async_context(_channelz(self._settings.channelz, self._settings.workers))

    async def stop(self) -> None:
        """Shows no more."""
        await self._opened.aclose()


def _traced(endpoint: str) -> CallMetrics:
    packages.require(["opentelemetry.exporter.otlp.proto.http"], "--traces", "traces")
    from lstmserve_server.observability import tracing  # noqa: PLC0415 - only who wants it pays for it

    return tracing.TracedCalls(endpoint)


@contextlib.asynccontextmanager
async def _channelz(address: str, workers: int) -> AsyncIterator[None]:
    """Serves channelz while the context is active."""
    packages.require(["grpc_channelz"], "--channelz", "channelz")
    if workers > 1 or not addresses.is_local(address):
        message = (
            f"--channelz {address} cannot be had: it tells anybody who asks of all connections of one process. "
            "Expected an address on this machine, and --workers 1"
        )
        raise SettingsError(message)
    from grpc_channelz.v1 import channelz  # noqa: PLC0415 - only who wants it pays for it

    addresses.require_valid(address)
    server = grpc.aio.server()
    channelz.add_channelz_servicer(server)
    port = server.add_insecure_port(address)
    await server.start()
    _log.info("channelz", listen=addresses.resolved_address(address, port))
    try:
        yield
    finally:
        await server.stop(0)
