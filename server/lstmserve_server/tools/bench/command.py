"""Output of `lstmserve bench`: a progress bar, tables, advice, JSON and an exit code."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Group
from rich.text import Text

from lstmserve.cli import terminal
from lstmserve_server.core.errors import SettingsError, StartupError
from lstmserve_server.tools.bench import advice as benchmark_advice
from lstmserve_server.tools.bench import tables
from lstmserve_server.tools.bench.advice import Advice
from lstmserve_server.tools.bench.benchmark import Benchmark, Machine, Measured, Plan
from lstmserve_server.tools.progress import bar

INTERRUPTED: Final = 130
"""The exit code after Ctrl-C, as of a shell."""

_FORMAT: Final = 1
"""Of the JSON; a key that changes or goes makes it another."""


@dataclass(frozen=True, slots=True)
class Found:
    """Results of a run."""

    plan: Plan
    deadline: float
    machine: Machine
    model: Mapping[str, Any]
    servers: Sequence[Measured]
    advice: Mapping[str, Advice]

    @property
    def command(self) -> str:
        """The command that measures the same again."""
        plan = self.plan
        words = ["lstmserve", "bench", plan.file, "--duration", f"{plan.duration:g}"]
        for flag, values in (("--concurrency", plan.concurrency), ("--rows", plan.rows)):
            words += [word for value in values for word in (flag, str(value))]
        words += ["--compare-numerics"] if len(plan.numerics) > 1 else ["--numerics", plan.numerics[0]]
        words += ["--deadline", f"{self.deadline:g}"]
        words += [word for flag, text in plan.part.items() if text is not None for word in (f"--{flag}", text)]
        return shlex.join(words)

    def as_json(self) -> str:
        """Returns everything as JSON; the keys are described in docs/performance.md."""
        plan = {"deadline": self.deadline, **asdict(self.plan)}
        return json.dumps(
            {
                "format": _FORMAT,
                "command": self.command,
                "parameters": {**plan.pop("part"), **plan},
                "machine": asdict(self.machine),
                "model": self.model,
                "servers": [_server(one) for one in self.servers],
                "recommendation": {about: advice.as_dict() for about, advice in self.advice.items()},
            },
            indent=2,
        )

    def show(self) -> None:
        """Prints tables."""
        console = terminal.console(width=120, highlight=False)
        console.print(
            Group(
                tables.heading(Path(self.plan.file).name, self.model, self.machine),
                *(tables.of_server(one, console.width) for one in self.servers),
                *([tables.of_comparison(self.servers)] if len(self.servers) > 1 else []),
                tables.of_advice(self.advice),
                tables.small_print(self.machine, self.servers),
            )
        )
        console.print(Text(f"{self.command}\n", style="cyan"), soft_wrap=True)  # so that it can be copied


def run(file: str, options: Mapping[str, Any], *, as_json: bool) -> int:
    """Measures, prints the results, and returns the exit code."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no process is left behind
    try:
        found = _measure(_plan(file, options), options["deadline"])
    except StartupError as error:
        click.echo(f"lstmserve: {error}", err=True)
        return error.exit_code
    except KeyboardInterrupt:
        click.echo("lstmserve: interrupted; the server and the load generator are ended", err=True)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, previous)
    if as_json:
        click.echo(found.as_json())
    else:
        found.show()
    if any(server.measurements for server in found.servers):
        return 0
    click.echo("lstmserve: nothing could be measured; see the failures", err=True)
    return StartupError.exit_code


def _plan(file: str, options: Mapping[str, Any]) -> Plan:
    """Returns the plan from the options.

    Raises:
        SettingsError: the options are not valid.
    """
    numerics = options["numerics"]
    if options["compare_numerics"] and numerics is not None:
        message = "--compare-numerics measures both exact and fast; expected no --numerics alongside it"
        raise SettingsError(message)
    return Plan(
        file,
        ("exact", "fast") if options["compare_numerics"] else (numerics or "exact",),
        options["duration"],
        tuple(sorted(set(options["rows"]) - {1})),
        tuple(sorted(set(options["concurrency"]))),
        {part: options[part] for part in ("layer", "until", "architecture")},
    )


def _measure(plan: Plan, deadline: float) -> Found:
    """Measures everything, with a progress bar on a terminal.

    Raises:
        StartupError: it cannot be done.
    """
    machine = Machine.here()
    with bar() as progress:
        task = progress.add_task("starting the server", total=None)
        with Benchmark(plan) as benchmark:
            progress.update(task, total=len(plan.numerics) * len(benchmark.cases))
            for done, case in enumerate(benchmark.run()):
                progress.update(task, description=benchmark_advice.title(case), completed=done)
            servers, model = benchmark.found(), benchmark.model
    every = [one for server in servers for one in server.measurements]
    advice = benchmark_advice.advise(every, machine.usable_cpus, deadline)
    return Found(plan, deadline, machine, model, servers, advice)


def _server(measured: Measured) -> dict[str, Any]:
    return {
        "numerics": measured.numerics,
        "ready_seconds": measured.ready_seconds,
        "model_load_seconds": measured.load_seconds,
        "memory_bytes": {
            "ready": measured.ready.resident,
            "end": measured.ended.resident,
            "peak": measured.ended.peak,
        },
        "measurements": [one.as_dict() for one in measured.measurements],
        "failures": [
            {
                "kind": case.kind,
                "concurrency": case.callers,
                "rows": case.rows,
                "steps_per_call": case.steps,
                "text": text,
            }
            for case, text in measured.failures
        ],
    }
