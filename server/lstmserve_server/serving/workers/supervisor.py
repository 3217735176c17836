"""Starts workers, restarts those that end, and stops them. Answers no calls itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import replace
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from lstmserve_server.core.backoff import RestartBackoff
from lstmserve_server.core.errors import SettingsError, StartupError
from lstmserve_server.loading.store import memory_files
from lstmserve_server.observability import admin_server
from lstmserve_server.serving import models
from lstmserve_server.serving.server import Signals
from lstmserve_server.serving.settings import ServeSettings
from lstmserve_server.serving.workers import aggregation
from lstmserve_server.serving.workers.messages import REPORT_EVERY, WorkerConfig, WorkerReady
from lstmserve_server.serving.workers.ports import ReservedPorts

_log = structlog.get_logger(__name__)

_BACKOFF_INITIAL_SECONDS: Final = 0.1
_BACKOFF_MAX_SECONDS: Final = 10.0
_SECONDS_TO_START: Final = 120.0  # of a worker, whose self-test may take some; then it is killed
_MOST_MISSING: Final = 6  # reports of a worker, then it is killed
_GRACE: Final = 5.0  # seconds beyond its own time to drain, then a worker is killed
_THREADS: Final = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


async def run(settings: ServeSettings) -> None:
    """Serves with several processes until SIGTERM or SIGINT, then lets them drain; a second one stops them at once.

    Raises:
        StartupError: the service could not start.
    """
    files = models.by_name(settings.models)
    signals = Signals()
    with ReservedPorts.of(settings.listen) as ports, memory_files.weights_memfd() as weights:
        _log.info("starting", listen=ports.addresses, models=files, workers=settings.workers)
        copies = await models.copies_of(settings, files)
        loading = asyncio.create_task(models.export_specs(settings, files, weights, copies))
        if await signals.let_finish(loading):
            forms = loading.result()
            shared = {name: copy.descriptor for name, copy in copies.items()}
            own = replace(settings, listen=tuple(ports.addresses), compute_threads=_threads_of_each(settings))
            supervisor = Supervisor(
                [WorkerConfig(i + 1, own, files, forms, weights, shared) for i in range(settings.workers)], signals
            )
            with contextlib.ExitStack() as stack:
                if settings.metrics is not None:
                    port = stack.enter_context(contextlib.closing(supervisor.show_metrics(settings.metrics)))
                    _log.info("metrics", listen=port.address)
                await supervisor.run()
    _log.info("all_stopped")
    signals.close()


def _threads_of_each(settings: ServeSettings) -> int:
    return settings.compute_threads or max(1, settings.threads // settings.workers)


class Supervisor:
    """Keeps workers running."""

    def __init__(self, handovers: list[WorkerConfig], signals: Signals) -> None:
        self._handovers = handovers
        self._signals = signals
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._asking: dict[int, aggregation.WorkerMetricsClient] = {}
        self._ready: set[int] = set()
        self._serving: dict[int, bool] = {}
        """What each worker has said last of its health."""
        self._restarts = 0

    def show_metrics(self, address: str) -> admin_server.AdminServer:
        """Opens the admin port, with the metrics of all workers.

        Raises:
            StartupError: it cannot be listened on.
        """
        gathered = aggregation.AggregatedMetrics(self._asking, lambda: self._restarts)
        registry = CollectorRegistry()
        registry.register(gathered)
        return admin_server.AdminServer(address, registry, self._is_serving)

    def _is_serving(self) -> bool:
        """Returns whether a worker is SERVING and the service is not draining; thread-safe."""
        return not self._signals.first.is_set() and any(tuple(self._serving.values()))

    async def run(self) -> None:
        """Keeps the workers running until a signal comes, and returns when all have ended.

        Raises:
            StartupError: the first of them could not start.
        """
        first, *others = self._handovers
        canary = asyncio.Event()  # what is wrong with models or settings is seen, and said, once
        ending, ready = asyncio.create_task(self._end()), asyncio.create_task(canary.wait())
        keeping = [asyncio.create_task(self._keep(first, canary))]
        try:
            await asyncio.wait({ready, *keeping}, return_when=asyncio.FIRST_COMPLETED)
            if canary.is_set():
                keeping += [asyncio.create_task(self._keep(handover, asyncio.Event())) for handover in others]
            await asyncio.gather(*keeping)
        finally:
            for task in (ending, ready):
                task.cancel()

    async def _keep(self, handover: WorkerConfig, ready: asyncio.Event) -> None:
        """Restarts a worker whenever it ends."""
        backoff = RestartBackoff(_BACKOFF_INITIAL_SECONDS, _BACKOFF_MAX_SECONDS)
        while not self._signals.first.is_set():
            backoff.started()
            try:
                end, report = await self._run_once(handover, ready)
            except (OSError, MemoryError, RuntimeError) as error:
                # No descriptor, process, memory or thread: there may be one soon.
                end, report = f"it could not be started: {error}", None
            if self._signals.first.is_set():
                return
            if handover.number == 1 and not ready.is_set():
                message = report.failure if report else f"the first worker ended before it could serve: {end}"
                raise (SettingsError if report and report.exit_code == SettingsError.exit_code else StartupError)(
                    message
                )
            pause = backoff.pause()
            self._restarts += 1
            _log.warning(
                "worker_ended", worker=handover.number, end=end, restarts=self._restarts, again_in_seconds=pause
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._signals.first.wait(), pause)

    async def _run_once(self, handover: WorkerConfig, ready: asyncio.Event) -> tuple[str, WorkerReady | None]:
        """Runs a worker to its end; returns how it ended and its first report."""
        asking = aggregation.WorkerMetricsClient()
        try:
            process = await _start(replace(handover, metrics=asking.descriptor))
            asking.inherited()
            self._processes[handover.number], self._asking[handover.number] = process, asking
            if self._signals.first.is_set():  # it came while the process was started
                process.terminate()
            report = await self._first_report(handover.number, process)
            if report and not report.failure:
                ready.set()
                self._note_ready(handover.number, process.pid)
                await self._listen(handover.number, process)
            return _name_of_end(await process.wait()), report
        finally:
            self._ready.discard(handover.number)
            for known in (self._processes, self._asking, self._serving):
                known.pop(handover.number, None)
            asking.close()

    async def _first_report(self, number: int, process: asyncio.subprocess.Process) -> WorkerReady | None:
        """Returns the first report of a worker; None if it ends without one, or is killed because it takes too long."""
        try:
            async with asyncio.timeout(_SECONDS_TO_START):
                line = await process.stdout.readline() if process.stdout else b""
        except TimeoutError:
            self._kill(number, process, _SECONDS_TO_START)
            return None
        with contextlib.suppress(ValueError, TypeError):
            return WorkerReady.from_line(line)
        return None

    def _kill(self, number: int, process: asyncio.subprocess.Process, seconds: float) -> None:
        _log.error("worker_silent", worker=number, pid=process.pid, seconds=seconds)
        with contextlib.suppress(ProcessLookupError):
            process.kill()

    async def _listen(self, number: int, process: asyncio.subprocess.Process) -> None:
        """Reads the reports of a worker until it ends. Kills a worker that stops reporting: its event loop hangs."""
        assert process.stdout is not None  # noqa: S101 - it was started with one
        missing = 0  # rather than a time, which continues while a whole machine is halted
        self._serving[number] = True
        while missing < _MOST_MISSING:
            try:
                line = await asyncio.wait_for(process.stdout.readline(), REPORT_EVERY)
            except TimeoutError:
                missing += 1
                continue
            if not line:
                return
            missing = 0
            with contextlib.suppress(ValueError, TypeError):  # something else was printed there
                self._serving[number] = WorkerReady.from_line(line).serving
        self._kill(number, process, missing * REPORT_EVERY)

    def _note_ready(self, number: int, pid: int) -> None:
        self._ready.add(number)
        _log.info("worker_ready", worker=number, pid=pid)
        if len(self._ready) == len(self._handovers):
            _log.info("all_workers_ready", listen=list(self._handovers[0].settings.listen), workers=len(self._ready))

    async def _end(self) -> None:
        """Forwards the first and the second signal to the workers."""
        settings = self._handovers[0].settings
        await self._signals.first.wait()
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(
                self._signals.second.wait(), settings.lame_duck_seconds + settings.drain_seconds + _GRACE
            )
            self._signal(signal.SIGTERM)
            await asyncio.sleep(_GRACE)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)


async def _start(handover: WorkerConfig) -> asyncio.subprocess.Process:
    # A group of its own: Ctrl-C on the terminal goes to the supervisor, who sees to the rest. The end of its standard input
    # tells the worker that the supervisor is gone, even by SIGKILL.
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "lstmserve_server.serving.workers.worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        pass_fds=(handover.weights, handover.metrics, *handover.copies.values()),
        process_group=0,
        env={**dict.fromkeys(_THREADS, "1"), **os.environ},
    )
    if process.stdin is not None:
        process.stdin.write(handover.to_line())
    return process


def _name_of_end(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
