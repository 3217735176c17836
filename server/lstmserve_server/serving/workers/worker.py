"""A worker: a server whose models, port and shutdown come from a supervisor.

It is started as a new program and never forked: gRPC does not survive a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sys

import structlog

from lstmserve_server.core.errors import StartupError
from lstmserve_server.loading.store.memory_files import SealedCopy
from lstmserve_server.observability import logs
from lstmserve_server.serving import models, server
from lstmserve_server.serving.workers import aggregation
from lstmserve_server.serving.workers.messages import REPORT_EVERY, WorkerConfig, WorkerReady


async def serve(handover: WorkerConfig) -> None:
    """Serves until SIGTERM, or until the supervisor is gone.

    Raises:
        StartupError: it could not start.
    """
    signals = server.Signals()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), _supervisor_gone, signals)
    settings, files = handover.settings, handover.files
    copies = {name: SealedCopy(descriptor) for name, descriptor in handover.copies.items()}
    load = functools.partial(models.import_specs, settings, handover.models, files, handover.weights, copies)
    observability = (
        None if handover.metrics < 0 else functools.partial(aggregation.WorkerMetricsServer, handover.metrics)
    )
    own = server.Server(settings, files, load, observability, shares_port=True)

    async def begin() -> None:
        """Loads the models, listens, and reports it."""
        # The port last: until then the others get all connections.
        await own.make_ready()
        await own.start()
        _say(WorkerReady(serving=own.serving()))

    reporting = asyncio.create_task(_report(own))
    try:
        await server.live(own, begin(), signals)
    finally:
        reporting.cancel()


async def _report(own: server.Server) -> None:
    """Reports periodically that the event loop is alive, once the server serves."""
    os.set_blocking(sys.stdout.fileno(), False)  # a supervisor that does not read holds no one up
    while True:
        await asyncio.sleep(REPORT_EVERY)
        if own.addresses:
            _say(WorkerReady(serving=own.serving()))


def _supervisor_gone(signals: server.Signals) -> None:
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    signals.arrived()


def _say(report: WorkerReady) -> None:
    with contextlib.suppress(BlockingIOError):
        os.write(sys.stdout.fileno(), report.to_line())


def main() -> None:
    """Reads the configuration from standard input, and serves."""
    line = sys.stdin.buffer.readline()
    if not line:  # the supervisor could not start it after all
        return
    handover = WorkerConfig.from_line(line)
    logs.configure_log(handover.settings.log_format, handover.settings.log_level)
    structlog.contextvars.bind_contextvars(worker=handover.number)
    code = 0
    try:
        asyncio.run(serve(handover))
    except StartupError as error:
        _say(WorkerReady(str(error), error.exit_code))
        code = error.exit_code
    logs.finish()
    os._exit(code)  # as `lstmserve serve` itself ends


if __name__ == "__main__":
    main()
