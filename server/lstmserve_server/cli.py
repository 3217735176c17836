"""The entry point of the command `lstmserve`."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Final

from lstmserve_server.errors import StartFailed

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
    # gRPC's core writes what strangers send to standard error, as it came, and so into the log.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    missing = [name for name in _NEEDED if _is_missing(name)]
    if missing:
        print(  # noqa: T201 - there is no other output here
            f"lstmserve needs packages that are not installed ({', '.join(missing)}): pip install 'lstmserve[server]'",
            file=sys.stderr,
        )
        sys.exit(StartFailed.exit_code)
    from lstmserve_server.commands import lstmserve  # noqa: PLC0415 - only now is it sure that it can be imported

    lstmserve()


def _is_missing(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is None
    except ModuleNotFoundError:  # the parent of a dotted name
        return True


if __name__ == "__main__":
    main()
