"""Measures the service alongside all contenders, and writes tables, figures and plots.

python -m bench [rpc] [units] [streams] [batching] [startup] [memory] [kernels] [growth] [--quick] [--only TEXT]
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from bench import (
    batching,
    environments,
    growth,
    kernels,
    machine,
    memory,
    places,
    plots,
    report,
    rpc,
    startup,
    streams,
    subject,
    summary,
)
from bench.contenders import CONTENDERS, Contender

PARTS: Final = ("rpc", "units", "streams", "batching", "startup", "memory", "kernels", "growth")

_RAW: Final = "raw.json"
"""Every sample of every round, next to the results: too much for the repository, so git ignores it."""

_console = Console(stderr=True)


def _say(text: str) -> None:
    _console.print(text, highlight=False, markup=False)


def _rpc(chosen: Sequence[Contender], *, quick: bool) -> list[Any]:
    flights, rounds, seconds = ((1, 32), 3, 0.5) if quick else ((1, 2, 4, 8, 16, 32, 64), 7, 1.0)
    return rpc.measure(chosen, 128, flights, rounds, seconds, _say)


def _units(chosen: Sequence[Contender], *, quick: bool) -> list[Any]:
    sizes, rounds, seconds = ((32, 128, 512), 2, 0.5) if quick else (subject.UNITS, 5, 1.0)
    return [outcome for units in sizes for outcome in rpc.measure(chosen, units, (32,), rounds, seconds, _say)]


def _streams(_: Sequence[Contender], *, quick: bool) -> list[Any]:
    return streams.measure(*((3, 0.5) if quick else (7, 2.0)), _say)


def _batching(_: Sequence[Contender], *, quick: bool) -> list[Any]:
    sizes, rounds, seconds = ((128, 1024), 3, 0.5) if quick else (subject.UNITS, 7, 1.0)
    return batching.measure(sizes, rounds, seconds, _say)


def _startup(chosen: Sequence[Contender], *, quick: bool) -> list[Any]:
    return startup.measure(chosen, 128, 1 if quick else 3, _say)


def _memory(_: Sequence[Contender], *, quick: bool) -> list[Any]:
    return memory.measure(100_000 if quick else 1_000_000, _say)


def _growth(_: Sequence[Contender], *, quick: bool) -> list[Any]:
    return growth.measure(*((3, 0.05) if quick else (7, 0.3)), _say)


def _kernels(only: Sequence[str], *, quick: bool) -> list[Any]:
    sizes, batches = ((32, 128), (1, 64)) if quick else (subject.UNITS, subject.BATCHES)
    shapes = [(units, batch, steps) for steps in (1, subject.STEPS) for units in sizes for batch in batches]
    return kernels.measure(shapes, *((3, 0.1) if quick else (7, 0.3)), _say, only)


_MEASURE: Final[dict[str, Callable[..., list[Any]]]] = {
    "rpc": _rpc, "units": _units, "streams": _streams, "batching": _batching,
    "startup": _startup, "memory": _memory, "kernels": _kernels, "growth": _growth,
}  # fmt: skip


@click.command(help=__doc__)
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--quick", is_flag=True, help="Few rounds and sizes: minutes rather than an hour.")
@click.option(
    "--only", multiple=True, help="Only contenders whose name, or engine, has this in it; may come several times."
)
@click.option("--into", type=click.Path(path_type=Path), default=places.RESULTS, help="Folder for what is found.")
def main(parts: tuple[str, ...], only: tuple[str, ...], into: Path, *, quick: bool) -> None:
    """Measures, and writes."""
    if shutil.which("h2load") is None:
        raise click.ClickException("h2load is not there; Debian has it in the package nghttp2-client")
    if into == places.RESULTS and set(PARTS) - set(parts or PARTS) - _raw(into).keys():
        raise click.UsageError(f"{into} would lose the figures of other parts. Measure all of them, or give --into")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that no server is left behind
    for folder in (places.CACHE, places.ENVIRONMENTS, into):
        folder.mkdir(parents=True, exist_ok=True)
    for name in environments.NAMES:
        environments.make(name, _say)
    results: dict[str, Any] = {"command": " ".join(["python -m bench", *sys.argv[1:]]), "machine": machine.describe()}
    for part in parts or PARTS:
        _console.rule(part)
        chosen = only if part == "kernels" else [one for one in CONTENDERS if _wanted(one, only)]
        results[part] = [_record(one) for one in _MEASURE[part](chosen, quick=quick)]
        write(results, into)
    _say(f"written to {into}")


def _wanted(contender: Contender, only: Sequence[str]) -> bool:
    return not only or any(text.lower() in contender.name.lower() for text in only)


def _record(one: Any) -> dict[str, Any]:
    """Returns a figure as JSON has it: keys are texts."""
    made: dict[str, Any] = json.loads(json.dumps(asdict(one)))
    return made


def write(results: dict[str, Any], folder: Path) -> None:
    """Writes the results so far; a part whose raw figures are in the folder already stays."""
    together = {**_raw(folder), **results}
    (folder / _RAW).write_text(json.dumps(together) + "\n")
    (folder / "results.md").write_text(report.page(together))
    (folder / "summary.json").write_text(summary.text(together))
    plots.draw(together, folder)


def _raw(folder: Path) -> dict[str, Any]:
    """Returns the raw figures of earlier runs."""
    path = folder / _RAW
    made: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return made


if __name__ == "__main__":
    main()
