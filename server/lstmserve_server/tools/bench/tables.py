"""Tables of `lstmserve bench` for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from lstmserve_server.tools.bench.advice import WORTH_OTHER_BYTES, Advice, count, title
from lstmserve_server.tools.bench.benchmark import Machine, Measured, Measurement

_WIDE: Final = 110
"""Columns of a terminal from which on every figure has its place."""

_PARTS: Final = {
    "decode": ("▒", "magenta", "decode"),
    "compute": ("█", "green", "compute"),
    "encode": ("▓", "blue", "encode"),
    "rest": ("░", "yellow", "gRPC and event loop"),
}
"""Character, color and name of each part of a call."""

_ABOUT: Final = {
    "numerics": "--numerics",
    "calls": "call by",
    "rows": "rows in a message",
    "workers": "--workers",
    "max_pending_calls": "--max-pending-calls",
}
_CALLS: Final = {"streams": "streams", "step": "Step", "forward": "Forward"}
_FULL: Final = 0.9  # of a CPU
_BUSY: Final = 0.3  # processes that want to run, for each CPU


def heading(file: str, model: Mapping[str, Any], machine: Machine) -> RenderableType:
    """Returns the heading: model and machine."""
    facts = _facts()
    weights = f"{model['parameters']:,} parameters, {_bytes(model['weight_bytes'])}"
    facts.add_row("model", f"{weights}, digest {model['digest'][:12]}")
    usable = "" if machine.usable_cpus == machine.cpus else f" ({machine.usable_cpus:g} can be used)"
    facts.add_row("machine", f"{count(machine.cpus, 'CPU')}{usable}, {machine.processor}, {machine.system}")
    facts.add_row("versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items()))
    head: list[RenderableType] = [Text(f"\n{file}\n", style="bold"), facts]
    if not model["supports_step"]:
        text = f"\nOnly Forward is measured: this model cannot be stepped, as {model['step_obstacle']}."
        head.append(Text(text, style="yellow"))
    return Group(*head)


def of_server(measured: Measured, width: int) -> RenderableType:
    """Returns all figures of one server."""
    facts = _facts()
    facts.add_row(
        "ready", f"{measured.ready_seconds:.2f} s after its start, {measured.load_seconds:.2f} s of them for the model"
    )
    ready, end, peak = map(_bytes, (measured.ready.resident, measured.ended.resident, measured.ended.peak))
    facts.add_row("memory", f"{ready} when ready, {end} at the end, {peak} at most")
    shown: list[RenderableType] = [_title(f"Server, --numerics {measured.numerics}"), facts]
    if measured.measurements:
        shown += [_figures(measured.measurements, wide=width >= _WIDE)]
        shown += [_title("Where the server's CPU time of a call goes"), _times(measured.measurements, width)]
    shown += [Text(f"{title(case)}: not measured: {text}", style="red") for case, text in measured.failures]
    return Group(*shown)


def of_advice(advice: Mapping[str, Advice]) -> RenderableType:
    """Returns the advice, with reasons."""
    table = Table.grid(padding=(0, 2), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for about, one in advice.items():
        value = "-" if one.value is None else _CALLS.get(str(one.value), _number(one.value))
        table.add_row(_ABOUT[about], Text(value, style="bold green"), Text(f"{one.why}."))
    return Group(_title("What suits, by these figures"), table)


def small_print(machine: Machine, servers: Sequence[Measured]) -> RenderableType:
    """Returns the notes on how to read the figures."""
    every = [one for server in servers for one in server.measurements]
    text = (
        "Steps are those of each row. Latencies are those of a caller on the same machine, who asks again at once; one message of "
        "each is under way. The load generator and the server share the CPUs. A single run: repeat it before relying on a small "
        "difference."
    )
    if any(map(is_load_busy, every)):
        text += " Where a * stands, the load generator was as busy as one process can be: the server could answer more."
    if machine.load_average > _BUSY * machine.usable_cpus:
        text += f" Before this run the machine was busy already: its load average was {machine.load_average:.1f}."
    return Text(f"\n{text}\n", style="dim")


def of_comparison(servers: Sequence[Measured]) -> RenderableType:
    """Returns the CPU time of both numerics side by side."""
    table = _table(["", *(f"{server.numerics}, ms/1,000 steps" for server in servers), "ratio"])
    exact, fast = ({one.case: one.cpu_per_1000_steps for one in server.measurements} for server in servers)
    for case, seconds in exact.items():
        if case in fast:
            ratio = fast[case] / seconds
            style = "green" if ratio <= WORTH_OTHER_BYTES else ""
            table.add_row(
                title(case), _thousandths(seconds), _thousandths(fast[case]), Text(f"{ratio:.2f}", style=style)
            )
    return Group(_title("The server's CPU time by numerics"), table)


def _figures(measurements: Sequence[Measurement], *, wide: bool) -> RenderableType:
    """Returns the table of rates and latencies; in a narrow terminal some are left to the JSON."""
    heads = ["", "calls/s", "steps/s", "p50 ms", "p90 ms", "p99 ms", "max ms", "CPU µs/call", "CPU ms/1,000 steps"]
    narrow = ["", "steps/s", "p50 ms", "p99 ms", "max ms", "µs/call", "ms/1k"]
    table = _table(heads if wide else narrow)
    kind = measurements[0].case.kind
    for one in measurements:
        if one.case.kind != kind:
            table.add_section()
            kind = one.case.kind
        taken, busy = one.taken, "*" if is_load_busy(one) else ""
        rates = [f"{one.calls_per_second:,.0f}"] * wide + [f"{one.steps_per_second:,.0f}{busy}"]
        latencies = [taken.p50, *([taken.p90] * wide), taken.p99, taken.max]
        cpu = [_thousandths(1000 * one.cpu_per_call), _thousandths(one.cpu_per_1000_steps)]
        table.add_row(Text(title(one.case)), *rates, *map(_thousandths, latencies), *cpu)
    if wide:
        return table
    return Group(table, Text("µs/call and ms/1k: the server's CPU time for a call, and for 1,000 steps.", style="dim"))


def _times(measurements: Sequence[Measurement], width: int) -> RenderableType:
    """Returns the shares of the CPU time, as bars and as numbers."""
    waits = any(one.counted.queue for one in measurements)
    longest = max(len(title(one.case)) for one in measurements)
    length = max(10, min(48, width - longest - (48 if waits else 38)))
    table = Table.grid(padding=(0, 1))
    for _ in range(2):
        table.add_column(no_wrap=True)
    heads = [Text(part if part != "rest" else "gRPC", style=color) for part, (_, color, _) in _PARTS.items()]
    for head in [*heads, *([Text("waits")] if waits else [])]:
        table.add_column(justify="right", no_wrap=True, min_width=len(head))
    table.add_row("", "", *heads, *([Text("waits µs", style="dim")] if waits else []))
    for one in measurements:
        unseen = ("decode", "encode") if one.case.kind == "stream" else ()
        cells = ["·" if part in unseen else f"{share:.0%}" for part, share in one.shares.items()]
        if waits:
            queue = 1e6 * one.counted.queue / one.taken.calls
            cells.append(f"{queue:,.0f}" if queue else "·")
        mark = "†" if _is_by_the_clock(one) else ""
        table.add_row(Text(f"{title(one.case)}{mark}"), _bar(one.shares, length), *cells)
    legend = Text.assemble(*((f"{glyph} {name}   ", color) for glyph, color, name in _PARTS.values()))
    return Group(table, Padding(legend, (1, 0, 0, 0)), *(Text(note, style="dim") for note in _notes(measurements)))


def _notes(measurements: Sequence[Measurement]) -> Iterator[str]:
    if any(one.case.kind == "stream" for one in measurements):
        yield "In streams, decoding and encoding are in gRPC's share."
    if any(one.counted.queue for one in measurements):
        yield "waits: for a thread, if a call takes long; that is not CPU time."
    if any(map(_is_by_the_clock, measurements)):
        yield (
            "† The parts are measured by the clock, and took longer than the server had CPU time: something else had the CPUs, or "
            "threads waited for one another; these shares tell little."
        )


def _is_by_the_clock(one: Measurement) -> bool:
    return one.time["rest"] <= 0


def is_load_busy(one: Measurement) -> bool:
    """Returns whether the load generator, rather than the server, may have been the limit."""
    return one.taken.load_cpu / one.taken.seconds >= _FULL


def _table(heads: Sequence[str]) -> Table:
    """Returns a table of titles and numbers."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", border_style="dim", pad_edge=False, padding=(0, 1, 0, 0))
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left", no_wrap=True)
    return table


def _bar(shares: Mapping[str, float], length: int) -> Text:
    """Returns the shares as a stacked bar."""
    bar, so_far, drawn = Text(), 0.0, 0
    for part, share in shares.items():
        so_far += share
        upto = round(so_far * length)
        glyph, color, _ = _PARTS[part]
        bar.append(glyph * (upto - drawn), style=color)
        drawn = upto
    return bar


def _facts() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    return table


def _title(text: str) -> RenderableType:
    return Padding(Rule(Text(text, style="bold"), align="left", style="dim"), (1, 0, 0, 0))


def _number(value: str | int) -> str:
    return f"{value:,}" if isinstance(value, int) else value


def _thousandths(seconds: float) -> str:
    """Returns a number of milliseconds; given milliseconds, of microseconds."""
    number = 1000 * seconds
    return f"{number:,.0f}" if number >= 100 else f"{number:.2f}"  # noqa: PLR2004 - about three digits


def _bytes(number: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} bytes"
