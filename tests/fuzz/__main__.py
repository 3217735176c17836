"""The command line.

    python -m tests.fuzz messages --count 1000000
    python -m tests.fuzz wire --count 50000
    python -m tests.fuzz files --count 100000
    python -m tests.fuzz connections --count 10000

What comes of it is one line; the exit code is 1 if anything failed, and the bytes that brought it about are shown.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

_MODULES = {
    "messages": "Damaged requests, in this process.",
    "wire": "Damaged requests to a server.",
    "files": "Damaged model files.",
    "connections": "Damaged conversations in HTTP/2, and noise.",
}


@click.group()
def main() -> None:
    """Send things that are damaged at random, and see that nothing but a refusal comes of it."""


def _command(name: str, text: str) -> click.Command:
    def callback(**options: Any) -> None:
        sys.exit(1 if importlib.import_module(f"tests.fuzz.{name}").run(**options).failures else 0)

    count = click.Option(["--count"], type=click.IntRange(1), default=1000, show_default=True, help="How many.")
    seed = click.Option(["--seed"], type=int, default=0, show_default=True, help="Where chance begins.")
    return click.Command(name, callback=callback, params=[count, seed], help=text)


for _name, _text in _MODULES.items():
    main.add_command(_command(_name, _text))

if __name__ == "__main__":
    main()
