"""The life of the service: start, ready, drain, stop. Owns the signals, the health and the port."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final

import grpc
import structlog
from grpc_reflection.v1alpha import reflection

from lstmserve_server import addresses, health
from lstmserve_server.codec import Codec, RequestLimits
from lstmserve_server.errors import BadSettings, ModelRefused, StartFailed
from lstmserve_server.loading import sandbox
from lstmserve_server.loading.limits import Limits
from lstmserve_server.numerics import Numerics
from lstmserve_server.registry import Registry, ServedModel
from lstmserve_server.runner import Runner
from lstmserve_server.servicer import SERVICE, Handlers, LstmServicer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lstmserve_server.config import ServeSettings

_log = structlog.get_logger(__name__)

_LAST_WORDS: Final = 0.2  # seconds for answers that are on their way when the last call has ended

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


async def run(settings: ServeSettings) -> None:
    """Serves until SIGTERM or SIGINT, then drains; a second one stops at once.

    Raises:
        StartFailed: the server could not start.
    """
    files = name_models(settings.models)
    signals = _Signals()
    server = Server(settings, files)
    await server.start()
    try:
        loading_models = asyncio.create_task(server.make_ready())
        stopping = asyncio.create_task(signals.first.wait())
        await asyncio.wait({loading_models, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if loading_models.done():
            loading_models.result()
            await stopping
            await server.drain(signals.second)
    finally:
        await server.stop()
        _log.info("stopped")


def name_models(arguments: tuple[str, ...]) -> dict[str, str]:
    """Returns the file of each model by the model's name: `NAME=FILE`, or `FILE`, which is named after itself.

    Raises:
        BadSettings: a name cannot be used, or stands twice.
    """
    files: dict[str, str] = {}
    for argument in arguments:
        name, equals, file = argument.partition("=")
        if not equals or "/" in name:  # a path may have an equals sign in it
            name, file = Path(argument).name.split(".", maxsplit=1)[0], argument
        if not file:
            message = f"{argument!r} names no file; expected FILE or NAME=FILE"
            raise BadSettings(message)
        if not _NAME.fullmatch(name):
            message = (
                f"{name!r} cannot be the name of a model; expected up to 64 letters, digits, '.', '_' and '-', beginning with a "
                f"letter or digit. Name it yourself: NAME={file}"
            )
            raise BadSettings(message)
        if name in files:
            message = f"two models are called {name!r}: {files[name]} and {file}. Name them apart: NAME=FILE"
            raise BadSettings(message)
        files[name] = file
    return files


class Server:
    """A gRPC server on its way from NOT_SERVING to SERVING and back."""

    def __init__(self, settings: ServeSettings, files: Mapping[str, str]) -> None:
        self._settings = settings
        self._files = files
        self._handlers = Handlers()
        self._health = health.Health(["", SERVICE.full_name, *map(health.service_of_model, files)])
        self._runner = Runner(settings.max_concurrent_calls, settings.threads)
        self._grpc = grpc.aio.server(options=_options(settings))
        self.addresses: list[str] = []
        """Where the server listens; a port 0 has become the one that the system chose."""

    async def start(self) -> None:
        """Opens the port. Health says NOT_SERVING, and calls are answered with UNAVAILABLE.

        Raises:
            StartFailed: an address cannot be listened on.
        """
        for name, handlers in (
            (SERVICE.full_name, self._handlers.by_method()),
            (health.HEALTH_SERVICE.full_name, self._health.handlers()),
        ):
            self._grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        if self._settings.reflection:
            names = (SERVICE.full_name, health.HEALTH_SERVICE.full_name, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._grpc)
        for address in self._settings.listen:
            self.addresses.append(self._listen(address))
        await self._grpc.start()
        _log.info("starting", listen=self.addresses, models=dict(self._files))

    async def make_ready(self) -> None:
        """Loads the models, runs their self-tests, and begins to answer.

        Raises:
            StartFailed: a model is refused.
        """
        registry = Registry(await self._load())
        limits = RequestLimits(
            rows=self._settings.max_rows,
            steps=self._settings.max_steps,
            message_bytes=self._settings.max_message_bytes,
            sequence_bytes=self._settings.max_sequence_bytes,
        )
        self._handlers.answer_with(LstmServicer(registry, Codec(registry, limits), self._runner))
        self._health.set_all(serving=True)
        _log.info("serving", listen=self.addresses)

    async def drain(self, at_once: asyncio.Event) -> None:
        """Says NOT_SERVING, goes on for a while, then takes no more calls and waits for those that run.

        `at_once` cuts it short.
        """
        self._health.set_all(serving=False)
        _log.info(
            "draining", lame_duck_seconds=self._settings.lame_duck_seconds, drain_seconds=self._settings.drain_seconds
        )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(at_once.wait(), self._settings.lame_duck_seconds)
        self._runner.close()
        # Our own count, as gRPC would also wait for those who watch the health and for calls whose message never comes.
        idle = asyncio.create_task(self._handlers.wait_until_idle())
        hurrying = asyncio.create_task(at_once.wait())
        await asyncio.wait({idle, hurrying}, timeout=self._settings.drain_seconds, return_when=asyncio.FIRST_COMPLETED)
        hurried = at_once.is_set() or not idle.done()
        for waiting in (idle, hurrying):
            waiting.cancel()
        await self.stop(0 if hurried else _LAST_WORDS)

    async def stop(self, grace: float = 0) -> None:
        """Stops; calls that still run after the grace, in seconds, end with UNAVAILABLE."""
        self._runner.close()
        await self._grpc.stop(grace)

    def _listen(self, address: str) -> str:
        addresses.check(address)
        try:
            port = self._grpc.add_insecure_port(address)
        except RuntimeError as error:
            message = f"cannot listen on {address}: {error}. Choose another address with --listen"
            raise StartFailed(message) from error
        return address if address.startswith(addresses.UNIX_PREFIX) else f"{address.rpartition(':')[0]}:{port}"

    async def _load(self) -> list[ServedModel]:
        settings, models = self._settings, []
        limits = Limits(file_bytes=settings.max_model_bytes, seconds=settings.load_seconds)
        began = perf_counter()
        names = iter(self._files)
        name = ""
        try:
            async with contextlib.aclosing(
                sandbox.load(list(self._files.values()), settings.layer, limits, settings.architecture)
            ) as loaded:
                name = next(names)
                async for description in loaded:
                    numerics = Numerics(settings.numerics)
                    models.append(await asyncio.to_thread(ServedModel.prepare, name, description, numerics))
                    _log_model(models[-1], perf_counter() - began)
                    name, began = next(names, ""), perf_counter()
        except ModelRefused as error:
            message = f"model {name!r} is refused. {error}"
            raise StartFailed(message) from error
        return models


def _log_model(served: ServedModel, seconds: float) -> None:
    description = served.model.description
    _log.info(
        "model_loaded",
        model=served.name,
        digest=served.digest[:12],
        fingerprint=served.fingerprint,
        keras=description.source.keras_version,
        parameters=description.parameter_count,
        seconds=round(seconds, 3),
    )


class _Signals:
    """The first SIGTERM or SIGINT, and the second."""

    def __init__(self) -> None:
        self.first, self.second = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._arrived)

    def _arrived(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


def _options(settings: ServeSettings) -> list[tuple[str, int]]:
    return [
        # A second server on the same port is a mistake, and by default gRPC would share the port with it in silence.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),  # the codec refuses what is too long before it is computed
        # Without a bound gRPC's defences against floods of new streams on one connection are off.
        # It is well below what the health service lets watch, so that no single connection can take all places there.
        ("grpc.max_concurrent_streams", 256),
    ]
