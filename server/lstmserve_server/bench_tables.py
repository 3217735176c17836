"""The figures of `lstmserve bench` as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lstmserve_server.benchmark_advice import in_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from lstmserve_server.benchmark import Machine, Measured, Measurement
    from lstmserve_server.benchmark_advice import Advice
    from lstmserve_server.load import Case

_WIDE: Final = 110
"""Columns of a terminal from which on every figure has its place."""

_PARTS: Final = {
    "decode": ("▒", "magenta", "decode"),
    "compute": ("█", "green", "compute"),
    "encode": ("▓", "blue", "encode"),
    "rest": ("░", "yellow", "gRPC and event loop"),
}
"""Character, colour and name of each part of a call."""

_ABOUT: Final = {
    "numerics": "--numerics",
    "calls": "call by",
    "rows": "rows in a message",
    "workers": "--workers",
    "max_pending_calls": "--max-pending-calls",
}
_CALLS: Final = {"streams": "streams", "step": "Step", "forward": "Forward"}
_FULL: Final = 0.9


def title(case: Case) -> str:
    """Returns what a case is, in a column's width."""
    rows = f", {case.rows} rows" if case.rows > 1 else ""
    match case.kind:
        case "step":
            return f"Step{rows}, {_count(case.callers, 'caller')}"
        case "stream":
            steps = f", {case.steps} steps" if case.steps > 1 else ""
            return f"{_count(case.callers, 'stream')}{rows or ', 1 row'}{steps}"
        case "forward":
            callers = f", {_count(case.callers, 'caller')}" if case.callers > 1 else ""
            return f"Forward T={case.steps}{rows}{callers}"


def heading(file: str, model: Mapping[str, Any], machine: Machine) -> RenderableType:
    """Returns which model it is, and which machine."""
    facts = _facts()
    weights = f"{model['parameters']:,} parameters, {_bytes(model['weight_bytes'])}"
    facts.add_row("model", f"{weights}, digest {model['digest'][:12]}")
    usable = "" if machine.usable_cpus == machine.cpus else f" ({machine.usable_cpus:g} can be used)"
    facts.add_row("machine", f"{_count(machine.cpus, 'CPU')}{usable}, {machine.processor}, {machine.system}")
    facts.add_row("versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items()))
    head: list[RenderableType] = [Text(f"\n{file}\n", style="bold"), facts]
    if not model["step_possible"]:
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
        shown += [Text(""), _figures(measured.measurements, wide=width >= _WIDE)]
        shown += [_title("Where the server's CPU time of a call goes"), _times(measured.measurements, width)]
    shown += [Text(f"{title(case)}: not measured: {text}", style="red") for case, text in measured.failures]
    return Group(*shown)


def of_advice(advice: Mapping[str, Advice]) -> RenderableType:
    """Returns what to do, and why."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for about, one in advice.items():
        value = "-" if one.value is None else _CALLS.get(str(one.value), _number(one.value))
        table.add_row(_ABOUT[about], Text(value, style="bold green"), Text(f"{one.why}.", style="dim"))
    return Group(_title("What suits, by these figures"), table)


def small_print(command: str, servers: Sequence[Measured]) -> RenderableType:
    """Returns what the figures are of, and what they are not."""
    every = [one for server in servers for one in server.measurements]
    text = (
        "Steps are those of each row. Latencies are those of a caller on the same machine, who asks again at once; one message of "
        "each is under way. The load generator and the server share the CPUs. A single run: repeat it before relying on a small "
        "difference."
    )
    busiest = max((one.taken.load_cpu / one.taken.seconds for one in every), default=0.0)
    if busiest >= _FULL:
        text += " Where a * stands, the load generator was as busy as one process can be: the server could answer more."
    return Group(Text(f"\n{text}", style="dim"), Text(f"\n{command}\n", style="dim cyan", no_wrap=False))


def _figures(measurements: Sequence[Measurement], *, wide: bool) -> RenderableType:
    """Returns the table of rates and latencies; in a narrow terminal calls per second and a p90 are left to the JSON."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 2 if wide else 1, 0, 0))
    table.add_column("", no_wrap=True)
    heads = ["calls/s", "steps/s", "p50", "p90", "p99", "max", "CPU a call", "CPU 1,000 steps"]
    narrow = ["", "steps/s", "p50", "p90", "p99", "max", "CPU/call", "CPU/1k"]
    for head in heads if wide else filter(None, narrow):
        table.add_column(head, justify="right", no_wrap=True)
    kind = measurements[0].case.kind
    for one in measurements:
        if one.case.kind != kind:
            table.add_section()
            kind = one.case.kind
        busy = "*" if one.taken.load_cpu / one.taken.seconds >= _FULL else ""
        taken = one.taken
        cells = [
            f"{one.steps_per_second:,.0f}{busy}",
            *(_milliseconds(seconds) for seconds in (taken.p50, taken.p90, taken.p99, taken.max)),
            in_words(one.cpu_per_call),
            in_words(one.cpu_per_1000_steps),
        ]
        if wide:
            cells.insert(0, f"{one.calls_per_second:,.0f}{busy}")
        table.add_row(Text(title(one.case)), *cells)
    return Group(table, Text("p50 to max in milliseconds; CPU is the server's", style="dim"))


def _times(measurements: Sequence[Measurement], width: int) -> RenderableType:
    table = Table.grid(padding=(0, 2 if width >= _WIDE else 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    for _ in _PARTS:
        table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    length = max(16, min(48, width - 58))
    heads = [Text(part if part != "rest" else "gRPC", style=colour) for part, (_, colour, _) in _PARTS.items()]
    table.add_row("", "", *heads, Text("waits", style="dim"))
    for one in measurements:
        unseen = one.case.kind == "stream"
        cells = [
            "·" if unseen and part in ("decode", "encode") else f"{share:.0%}" for part, share in one.shares.items()
        ]
        queue = one.counted.queue / one.taken.calls
        table.add_row(Text(title(one.case)), _bar(one.shares, length), *cells, in_words(queue) if queue else "·")
    legend = Text.assemble(
        *((f"{glyph} {name}   ", colour) for glyph, colour, name in _PARTS.values()),
        style="dim",
    )
    notes = "Streams: decoding and encoding are in gRPC's share. waits: for a thread, in a call that takes long; no CPU time."
    return Group(table, Padding(legend, (1, 0, 0, 0)), Text(notes, style="dim"))


def _bar(shares: Mapping[str, float], length: int) -> Text:
    """Returns the shares as a bar, as long as all together are to be; each ends where the sum so far does."""
    bar, so_far, drawn = Text(), 0.0, 0
    for part, share in shares.items():
        so_far += share
        upto = round(so_far * length)
        glyph, colour, _ = _PARTS[part]
        bar.append(glyph * (upto - drawn), style=colour)
        drawn = upto
    return bar


def _facts() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    return table


def _title(text: str) -> Text:
    return Text(f"\n{text}\n", style="bold")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _number(value: str | int) -> str:
    return f"{value:,}" if isinstance(value, int) else value


def _milliseconds(seconds: float) -> str:
    milliseconds = 1000 * seconds
    return f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"  # noqa: PLR2004 - three digits


def _bytes(number: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} bytes"
