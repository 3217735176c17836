"""Benchmark of the start: time to the first right answer of each server, and its memory then. Each runs alone, several times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile

from bench import environments, rpc
from bench.contenders import Contender
from bench.processes import NotReady

Say = Callable[[str], None]


@dataclass
class Startup:
    """Result of starting a contender."""

    contender: str
    ready_seconds: list[float] = field(default_factory=list)
    """From the start of its process to its first right answer."""
    resident_bytes: int | None = None
    """What all its processes have in RAM then; what they share counts once."""
    trouble: str = ""


def measure(contenders: Sequence[Contender], units: int, rounds: int, say: Say) -> list[Startup]:
    """Starts every contender in turn, alone, several times."""
    rpc.write_models([units])
    found = {contender.name: Startup(contender.name) for contender in contenders}
    with NamedTemporaryFile() as file:
        Path(file.name).write_bytes(b"\0" * 1000)
        for _ in range(rounds):
            for contender in contenders:
                _start(contender, units, file.name, found[contender.name])
    for one in found.values():
        say(f"{one.contender}: {one.trouble or ', '.join(f'{seconds:.2f} s' for seconds in one.ready_seconds)}")
    return list(found.values())


def _start(contender: Contender, units: int, answer_file: str, into: Startup) -> None:
    if into.trouble:
        return
    if not environments.installed(contender.environment):
        into.trouble = environments.trouble(contender.environment)
        return
    one = rpc.Running(contender, units, answer_file)
    with one.server:
        try:
            one.first_answer()
        except NotReady as error:
            into.trouble = str(error)
            return
        into.ready_seconds += one.outcome.ready_seconds
        into.resident_bytes = one.server.resident_bytes()
