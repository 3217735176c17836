"""Lifecycle of the server: start, ready, drain, stop. Owns the signals, the health and the port."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import grpc
import structlog
from prometheus_client import CollectorRegistry

from lstmserve_server.core import addresses, packages
from lstmserve_server.core.errors import ServerCrashed, StartupError
from lstmserve_server.observability.admin_server import AdminServer
from lstmserve_server.rpc import health, reflection
from lstmserve_server.rpc.auth import authenticators
from lstmserve_server.rpc.codec.requests import Codec, RequestLimits
from lstmserve_server.rpc.dispatcher import Dispatcher
from lstmserve_server.rpc.servicers import SERVICE, SHADOW_SERVICE, LstmServicer, ShadowServicer
from lstmserve_server.rpc.streams.codec import StreamCodec
from lstmserve_server.rpc.streams.server import StreamServer
from lstmserve_server.runtime.admission import FairLimiter
from lstmserve_server.runtime.registry import Registry, ServedModel
from lstmserve_server.runtime.scheduler import Scheduler
from lstmserve_server.serving import grpc_server, http2, models, shadow_mode
from lstmserve_server.serving.observability import Exporter, Observability
from lstmserve_server.serving.settings import ServeSettings
from lstmserve_server.shadow.base import NoShadow, Shadow

_log = structlog.get_logger(__name__)

_PLAIN_TEXT: Final = (
    "anyone who is on the way can read and change the calls; "
    "give --tls-certificate and --tls-key, or have a proxy speak TLS"
)
_OPEN_TO_ALL: Final = (
    "anyone who reaches this address may call; give --tokens or --tls-client-ca, or let a proxy see to it"
)
_LAST_WORDS: Final = 0.2  # seconds for answers that are on their way when the last call has ended


async def run(settings: ServeSettings) -> None:
    """Serves until SIGTERM or SIGINT, then drains; a second one stops at once.

    Raises:
        StartupError: the server could not start.
    """
    files = models.by_name(settings.models)
    signals = Signals()
    expose = None if settings.metrics is None else functools.partial(AdminServer, settings.metrics)
    server = Server(settings, files, functools.partial(models.from_files, settings, files), expose)
    await server.start()
    _log.info("starting", listen=server.addresses, models=files)
    await live(server, server.make_ready(), signals)


async def live(server: Server, beginning: Coroutine[None, None, None], signals: Signals) -> None:
    """Runs a server: start, serve until a signal, drain, stop.

    Raises:
        StartupError: it could not start, or it ended by itself.
    """
    try:
        begun = asyncio.create_task(beginning)
        if await signals.let_finish(begun):
            begun.result()
            _log.info("serving", listen=server.addresses)
            if not await signals.let_finish(asyncio.create_task(server.wait_until_gone())):
                await server.drain(signals.second)
                return
            message = (
                "gRPC's server has ended by itself, which it never should; see what is on standard error before this"
            )
            raise ServerCrashed(message)
    finally:
        await server.stop()
        _log.info("stopped")
        signals.close()


class Server:
    """A gRPC server from NOT_SERVING to SERVING and back."""

    def __init__(
        self,
        settings: ServeSettings,
        files: Mapping[str, str],
        load: Callable[[], Awaitable[Iterable[ServedModel]]],
        expose: Callable[[CollectorRegistry, Callable[[], bool]], Exporter] | None,
        *,
        shares_port: bool = False,
    ) -> None:
        """Creates a server that is not started.

        Args:
            settings: its settings.
            files: the file of each model by its name.
            load: loads the models.
            expose: opens the admin port; None for none.
            shares_port: whether other processes listen on the same port; the supervisor has reserved it.

        Raises:
            StartupError: a file of the settings cannot be used, or what they need is not installed.
        """
        self._settings = settings
        self._load = load
        self._shares_port = shares_port
        self._files = files
        self._shadow: Shadow = NoShadow()
        self._streams: StreamServer | None = None
        self._watching: asyncio.Task[None] | None = None
        services = (SERVICE.full_name, SHADOW_SERVICE.full_name)
        self._health = health.Health(["", *services], list(files))
        self._observability = Observability(settings, self._health.serving, expose)
        self._access = _access(settings, self._observability)
        limiter = FairLimiter(settings.max_concurrent_calls, "calls are running", "--max-concurrent-calls")
        self._dispatcher = Dispatcher(self._access, limiter, self._observability.calls)
        self._scheduler = Scheduler(
            limiter,
            settings.threads,
            self._observability.calls,
            batch_rows=settings.max_batch_rows,
        )
        self._credentials = _credentials(settings, self._observability)
        self._grpc = grpc_server.make(http2.options(settings, shares_port=shares_port))
        self.addresses: list[str] = []
        """Where the server listens; a port 0 has become the one that the system chose."""

    def serving(self) -> bool:
        """Returns whether the health is SERVING."""
        return self._health.serving()

    async def start(self) -> None:
        """Opens the port. Health reports NOT_SERVING, and calls get UNAVAILABLE.

        Raises:
            StartupError: an address cannot be listened on.
        """
        if self._settings.shadow != "off":
            packages.require_keras()
        await self._observability.start()
        self._watching = asyncio.create_task(self._access.watch())
        services = {
            SERVICE.full_name: self._dispatcher.handlers_for(SERVICE),
            SHADOW_SERVICE.full_name: self._dispatcher.handlers_for(SHADOW_SERVICE),
            health.HEALTH_SERVICE.full_name: self._health.handlers(self._access, is_open=self._settings.open_health),
        }
        if self._settings.reflection:
            services |= dict.fromkeys(reflection.SERVICES, reflection.handlers(services, self._access))
        for name, handlers in services.items():
            self._grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
            # So each method has a queue of its own in the core, and probes are answered while steps are refused.
            self._grpc.add_registered_method_handlers(name, handlers)
        for address in self._settings.listen:
            self.addresses.append(self._listen(address))
        await self._grpc.start()

    async def make_ready(self) -> None:
        """Loads the models, runs their self-tests, and starts serving.

        Raises:
            StartupError: a model is refused.
        """
        registry = Registry(await self._load())
        limits = RequestLimits(
            rows=self._settings.max_rows,
            steps=self._settings.max_steps,
            message_bytes=self._settings.max_message_bytes,
            sequence_bytes=self._settings.max_sequence_bytes,
        )
        codec = Codec(registry, limits)
        self._shadow = shadow_mode.start(self._settings, registry, self._files)
        for served in registry:
            self._observability.server.set_model(
                served.name, causal=served.model.causal, digest=served.digest, fingerprint=served.fingerprint
            )
        self._observability.add(self._shadow.collectors())
        self._streams = StreamServer(
            StreamCodec(codec),
            self._scheduler,
            self._shadow,
            self._observability.calls,
            FairLimiter(self._settings.max_streams, "streams are open", "--max-streams"),
            idle_seconds=self._settings.stream_idle_seconds,
            age_seconds=self._settings.stream_seconds,
        )
        calls = self._observability.calls
        servicer = LstmServicer(registry, codec, self._scheduler, self._streams, self._shadow, calls)
        self._dispatcher.set_servicers({SERVICE: servicer, SHADOW_SERVICE: ShadowServicer(self._shadow)})
        self._health.set_all(serving=True)

    async def wait_until_gone(self) -> None:
        """Returns when the port is closed."""
        # Shielded, as to cancel it would cancel what `stop` waits for.
        await asyncio.shield(self._grpc.wait_for_termination())

    async def drain(self, at_once: asyncio.Event) -> None:
        """Reports NOT_SERVING, serves for the lame-duck time, then rejects new calls and waits for those in flight.

        `at_once` ends it early.
        """
        self._health.set_all(serving=False)
        _log.info(
            "draining", lame_duck_seconds=self._settings.lame_duck_seconds, drain_seconds=self._settings.drain_seconds
        )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(at_once.wait(), self._settings.lame_duck_seconds)
        self._scheduler.close()
        self._shadow.release()
        if self._streams is not None:
            self._streams.drain()
        # Our own count, as gRPC would also wait for those who watch the health and for calls whose message never comes.
        idle = asyncio.create_task(self._dispatcher.wait_until_idle())
        hurrying = asyncio.create_task(at_once.wait())
        await asyncio.wait({idle, hurrying}, timeout=self._settings.drain_seconds, return_when=asyncio.FIRST_COMPLETED)
        hurried = at_once.is_set() or not idle.done()
        for waiting in (idle, hurrying):
            waiting.cancel()
        await self.stop(0 if hurried else _LAST_WORDS)

    async def stop(self, grace: float = 0) -> None:
        """Stops; calls still in flight after the grace, in seconds, end with UNAVAILABLE."""
        self._scheduler.close()
        if self._watching is not None:
            self._watching.cancel()
        await self._grpc.stop(grace)
        self._shadow.stop()
        await self._observability.stop()

    def _listen(self, address: str) -> str:
        if not self._shares_port:
            addresses.require_valid(address)
        try:
            if self._credentials is not None:
                port = self._grpc.add_secure_port(address, self._credentials)
            else:
                port = self._grpc.add_insecure_port(address)
            if not addresses.is_local(address):
                self._warn_of_strangers(address)
        except RuntimeError as error:
            message = f"cannot listen on {address}: {error}. Choose another address with --listen"
            raise StartupError(message) from error
        return addresses.resolved_address(address, port)

    def _warn_of_strangers(self, address: str) -> None:
        """Logs a warning about what others could do who reach an address."""
        if self._credentials is None:
            _log.warning("plain_text", listen=address, advice=_PLAIN_TEXT)
        if self._settings.tokens is None and self._settings.tls_client_ca is None:
            _log.warning("open_to_all", listen=address, advice=_OPEN_TO_ALL)


class Signals:
    """The first and the second SIGTERM or SIGINT."""

    def __init__(self) -> None:
        self.first, self.second = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.arrived)

    def arrived(self) -> None:
        """Records a signal."""
        (self.second if self.first.is_set() else self.first).set()

    def close(self) -> None:
        """Ignores further signals, so that the last log lines are written."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    async def let_finish(self, work: asyncio.Task[Any]) -> bool:
        """Awaits work; the first signal cancels it. Returns whether it finished."""
        stopping = asyncio.create_task(self.first.wait())
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if work.done():
            return True
        work.cancel()
        await asyncio.wait({work})
        return False


def _access(settings: ServeSettings, observability: Observability) -> authenticators.Authenticator:
    if settings.tokens is None:
        return authenticators.NoAuth()
    return authenticators.TokenAuth(Path(settings.tokens), observability.server.count_reload)


def _credentials(settings: ServeSettings, observability: Observability) -> grpc.ServerCredentials | None:
    """Returns the server credentials; None without TLS."""
    if not settings.any_tls:
        return None
    from lstmserve_server.serving import tls  # noqa: PLC0415 - what it needs would take memory in every server

    return tls.Certificates(tls.Files.of(settings), observability.server).credentials()
