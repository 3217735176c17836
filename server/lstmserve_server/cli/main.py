"""Entry point of the command `lstmserve`."""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

from lstmserve_server.core import packages
from lstmserve_server.core.errors import StartupError

_NEEDED: Final = (
    "click",
    "google.rpc",
    "grpc_health",
    "grpc_reflection",
    "h5py",
    "rich",
    "scipy",
    "structlog",
    "threadpoolctl",
)


def main() -> None:
    """Runs the command line of the service."""
    if sys.argv[1:2] == ["serve"]:
        _take_signals()
    # gRPC's core writes what strangers send to standard error, as it came, and so into the log.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    missing = packages.missing(_NEEDED)
    if missing:
        print(  # noqa: T201 - there is no other output here
            f"lstmserve needs packages that are not installed ({', '.join(missing)}): pip install 'lstmserve[server]'",
            file=sys.stderr,
        )
        sys.exit(StartupError.exit_code)
    try:
        from lstmserve_server.cli.commands import lstmserve  # noqa: PLC0415 - only now is it sure that it can be imported
    except (ImportError, MemoryError, OSError) as error:  # as of a limit on memory (ulimit)
        print(f"lstmserve: the system refused what it needs ({type(error).__name__}: {error})", file=sys.stderr)  # noqa: T201 - the same
        sys.exit(StartupError.exit_code)
    lstmserve()


def _take_signals() -> None:
    """Handles signals until the server does. Process 1 of a container would otherwise never see them.

    SIGTERM and SIGINT end the process; signals without meaning here are ignored, in workers too.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
