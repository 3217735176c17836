"""Entry point of the command `lstmserve-client`."""

from __future__ import annotations

import importlib.util
import sys


def main() -> None:
    """Runs the command line of the client."""
    missing = [name for name in ("click", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        print(  # noqa: T201 - there is no other output here
            f"lstmserve-client needs packages that are not installed ({', '.join(missing)}): pip install 'lstmserve[cli]'",
            file=sys.stderr,
        )
        sys.exit(3)
    from lstmserve.cli.commands import lstmserve_client  # noqa: PLC0415 - only now is it sure that it can be imported

    lstmserve_client()
