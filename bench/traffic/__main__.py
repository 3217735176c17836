"""Puts a server under load, and prints how it bore it.

    python -m bench.traffic overload [--seconds 60] [--rows 256] [--json FILE]
    python -m bench.traffic soak [--minutes 10]

Both end with 1 if the server fell short of what is promised.
"""

# ruff: noqa: T201 - it talks to a person

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

from rich.console import Console

from bench.traffic import overload, servers, soak, verdict


def main() -> int:
    """Runs what was asked for, and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.traffic", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    over = commands.add_parser("overload", help="more calls than it can answer, alongside a textbook server")
    over.add_argument("--seconds", type=float, default=60, help="at each multiple of the capacity")
    over.add_argument("--rounds", type=int, default=4, help="number of stretches that these seconds are cut into")
    over.add_argument("--factors", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    over.add_argument("--deadline", type=float, default=0.2, help="of every call, in seconds")
    over.add_argument("--rows", type=int, default=1, help="of every call; of 256 the computing counts, not the wire")
    over.add_argument("--alone", action="store_true", help="without the textbook server")
    over.add_argument("--json", type=Path, metavar="FILE", help="writes the figures there too")
    over.add_argument("--serve", nargs="*", default=[], metavar="ARG", help="arguments of our server; without dashes")
    over.set_defaults(run=_overload)
    slow = commands.add_parser("soak", help="some of everything for a long time, while the memory is watched")
    slow.add_argument("--minutes", type=float, default=10)
    slow.add_argument("--rate", type=float, default=100, help="calls and streams that are begun in a second")
    slow.add_argument("--only", nargs="+", choices=soak.ACTIONS, default=list(soak.ACTIONS), metavar="KIND")
    slow.add_argument("--json", type=Path, metavar="FILE", help="writes the figures there too")
    slow.set_defaults(run=_soak)
    arguments = parser.parse_args()
    code: int = arguments.run(arguments)
    return code


def _overload(arguments: argparse.Namespace) -> int:
    with contextlib.ExitStack() as stack:
        settings = [part for pair in arguments.serve for part in f"--{pair}".split("=", 1)]
        targets = [stack.enter_context(servers.ours(*settings))]
        data = servers.step_message(targets[0].address, arguments.rows)
        if not arguments.alone:
            targets.append(stack.enter_context(servers.textbook()))
        drivers = [overload.Driver(target, data, arguments.deadline) for target in targets]
        levels = overload.measure(drivers, arguments.factors, arguments.seconds, arguments.rounds)
    found = [level.summary(arguments.deadline) for level in levels]
    Console(width=180).print(verdict.table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))
    missed = verdict.complaints(found, arguments.deadline)
    print("\n".join(missed) or "All that is promised was kept.")
    return 1 if missed else 0


def _soak(arguments: argparse.Namespace) -> int:
    found = soak.run(arguments.minutes, arguments.rate, arguments.only)
    Console(width=180).print(soak.table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))
    print(f"slope after the warm-up: {found['slope_mb']:+.2f} MB per 10 minutes; expected at most {soak.MOST_MB:g}")
    return 1 if found["slope_mb"] > soak.MOST_MB or found["odd"] else 0


if __name__ == "__main__":
    sys.exit(main())
