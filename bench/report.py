"""The tables in Markdown: what a person reads first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.batching import EACH, TOGETHER

Record = dict[str, Any]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown, whose first column is of texts and the others of numbers."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(results: Record) -> str:
    """Returns the whole page."""
    machine = results["machine"]
    what = (
        f"By `{results['command']}` on {machine['date']}: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, {machine['system']}, Python {machine['python']}, {machine['h2load']}; "
        f"load average at the start {machine['load_average']:.1f}. "
        "The cores are shared with the load generator and whatever else ran: compare figures of one table, not of two runs. "
        "Each is the median over the rounds; the range after it is of all rounds.\n"
    )
    parts = ["# What was measured\n", what]
    for name, write in _PARTS.items():
        if results.get(name):
            parts.append(write(results[name]))
    parts.append(_versions(machine["versions"]))
    return "\n".join(parts)


def median(values: Sequence[float]) -> float:
    """Returns the median."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def figures(samples: Sequence[Record], what: str) -> list[float]:
    """Returns one figure of all rounds."""
    return [sample[what] for sample in samples]


def _spread(values: Sequence[float], form: str) -> str:
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def best_echo(outcomes: Sequence[Record], flight: str, what: str, *, highest: bool) -> list[float] | None:
    """Returns one figure in all rounds of the bare echo whose median of it is the best."""
    found = [
        figures(outcome["samples"][flight], what)
        for outcome in outcomes
        if outcome["contender"].startswith("bare echo") and flight in outcome["samples"]
    ]
    return (max if highest else min)(found, key=median) if found else None


def _rpc(outcomes: list[Record]) -> str:
    flights = sorted({flight for outcome in outcomes for flight in outcome["samples"]}, key=int)
    parts = [
        "## Step, one row, 128 units\n",
        "The ratios are to the best of the bare echoes in the same round, and the median of those of all rounds.\n",
    ]
    for flight in flights:
        headings = ["", "calls/s", "ratio", "median us", "ratio", "p99 us", "CPU s per 1,000 calls", "ratio"]
        parts.append(f"### {flight} in flight\n\n{table(headings, _rpc_rows(outcomes, flight))}\n")
    parts += [f"- {outcome['contender']}: {outcome['trouble']}" for outcome in outcomes if outcome["trouble"]]
    return "\n".join(parts) + "\n"


def _ratio(values: Sequence[float], baseline: Sequence[float]) -> float:
    """Returns the median of the ratios of each round: what a neighbor takes from one round, it takes from both."""
    return median([a / b for a, b in zip(values, baseline, strict=False)])


def _rpc_rows(outcomes: Sequence[Record], flight: str) -> list[list[str]]:
    columns: list[tuple[str, str, bool]] = [
        ("calls_per_second", ",.0f", True), ("median_us", ",.0f", False), ("cpu_seconds_per_1000", ".3f", False),
    ]  # fmt: skip
    rows = []
    for outcome in outcomes:
        if flight not in outcome["samples"]:
            continue
        samples, row = outcome["samples"][flight], [outcome["contender"]]
        for what, form, highest in columns:
            best = best_echo(outcomes, flight, what, highest=highest)
            values = figures(samples, what)
            row += [_spread(values, form), f"{_ratio(values, best):.2f}" if best else ""]
            if what == "median_us":
                row.append(f"{median(figures(samples, 'p99_us')):,.0f}")
        rows.append(row)
    return rows


def _units(outcomes: list[Record]) -> str:
    sizes = sorted({outcome["units"] for outcome in outcomes})
    names = list(dict.fromkeys(outcome["contender"] for outcome in outcomes))
    found = {(outcome["contender"], outcome["units"]): outcome["samples"] for outcome in outcomes}

    def cell(name: str, units: int) -> str:
        samples = next(iter((found.get((name, units)) or {}).values()), None)
        return f"{median(figures(samples, 'calls_per_second')):,.0f}" if samples else "-"

    rows = [[name, *(cell(name, units) for units in sizes)] for name in names]
    return f"## Calls of Step a second by units, 32 in flight\n\n{table(['', *map(str, sizes)], rows)}\n"


def _startup(startups: list[Record]) -> str:
    rows = [
        [one["contender"], _spread(one["ready_seconds"], ".2f"), f"{one['resident_bytes'] / 1e6:,.0f}"]
        for one in startups
        if one["ready_seconds"]
    ]
    text = f"## To the first right answer\n\n{table(['', 'seconds', 'MB in RAM then'], rows)}\n"
    return text + "".join(f"\n- {one['contender']}: {one['trouble']}" for one in startups if one["trouble"])


def _streams(outcomes: list[Record]) -> str:
    base = {(one["contender"], one["callers"]): one for one in outcomes if one["case"].startswith("Step")}
    rows = []
    for one in outcomes:
        rates = figures(one["samples"], "row_steps_per_second")
        cpu = figures(one["samples"], "cpu_seconds_per_1000")
        baseline = figures(base[one["contender"], one["callers"]]["samples"], "cpu_seconds_per_1000")
        ratio = _ratio(baseline, cpu)
        rows.append(
            [f"{one['contender']}: {one['case']}", _spread(rates, ",.0f"), f"{median(cpu):.4f}", f"{ratio:.1f}"]
        )
    headings = ["", "row-steps/s", "CPU s per 1,000", "row-steps per CPU s, times those of Step"]
    return f"## Streams, 128 units\n\n{table(headings, rows)}\n"


def _batching(outcomes: list[Record]) -> str:
    found = {(one["units"], *one["contender"].split(", ")): one["samples"] for one in outcomes}
    rows = []
    for (units, numerics, how), samples in found.items():
        if how != TOGETHER:
            continue
        for flight, together in samples.items():
            each = found[units, numerics, EACH][flight]
            row = [f"{units} units, {numerics}, {flight} in flight"]
            for what, form in (("calls_per_second", ",.0f"), ("median_us", ",.0f"), ("cpu_seconds_per_1000", ".3f")):
                row += [_spread(figures(together, what), form)]
                row += [f"{_ratio(figures(together, what), figures(each, what)):.2f}"]
            rows.append(row)
    headings = ["", "calls/s", "ratio", "median us", "ratio", "CPU s per 1,000 calls", "ratio"]
    text = "The ratios are to the same server with `--max-batch-rows 1`, which computes each call by itself.\n"
    return f"## Steps that arrive together\n\n{text}\n{table(headings, rows)}\n"


def _memory(cases: list[Record]) -> str:
    rows = []
    for one in cases:
        sizes = [size / 1e6 for size in one["resident_bytes"]]
        rows.append(
            [
                one["case"],
                f"{one['file_bytes'] / 1e6:,.1f}" if one["file_bytes"] else "",
                ", ".join(f"{size:,.1f}" for size in sizes),
            ]
        )
    return f"## Memory\n\n{table(['', 'MB of files', 'MB in RAM'], rows)}\n"


def _growth(found: list[Record]) -> str:
    parts = ["## How the time of a call grows, microseconds\n"]
    for what in dict.fromkeys(one["what"] for one in found):
        own = [one for one in found if one["what"] == what]
        rows = [
            [
                one["contender"],
                *(f"{time:,.1f}{_times(one['median_us'], i)}" for i, time in enumerate(one["median_us"])),
            ]
            for one in own
        ]
        parts.append(table([what, *map(str, own[0]["sizes"])], rows) + "\n")
    return "\n".join(parts) + "\nBehind a time stands how many times that of half the size it is.\n"


def _times(values: Sequence[float], number: int) -> str:
    return f" ({values[number] / values[number - 1]:.2f})" if number else ""


def _kernels(timings: list[Record]) -> str:
    shapes = list(dict.fromkeys((one["units"], one["batch"], one["steps"]) for one in timings))
    names = list(dict.fromkeys(one["contender"] for one in timings))
    found = {(one["contender"], one["units"], one["batch"], one["steps"]): one for one in timings}
    parts = ["## Kernels without RPC, one thread, median us a call\n"]
    for steps in sorted({shape[2] for shape in shapes}):
        columns = [shape for shape in shapes if shape[2] == steps]
        rows = [[name, *(_kernel_cell(found.get((name, *shape))) for shape in columns)] for name in names]
        headings = ["units, batch", *(f"{units}, {batch}" for units, batch, _ in columns)]
        parts.append(f"### {steps} step{'s' * (steps > 1)}\n\n{table(headings, rows)}\n")
    return "\n".join(parts)


def _kernel_cell(timing: Record | None) -> str:
    if timing is None:
        return "-"
    return f"{timing['median_us']:,.1f}" if timing["median_us"] else timing["trouble"]


def _versions(versions: dict[str, dict[str, str]]) -> str:
    lines = [
        f"- {name}: {', '.join(f'{package} {number}' for package, number in packages.items()) or 'not installed'}"
        for name, packages in versions.items()
    ]
    return "## Versions\n\n" + "\n".join(lines) + "\n"


_PARTS: dict[str, Callable[[list[Record]], str]] = {
    "rpc": _rpc, "units": _units, "streams": _streams, "batching": _batching,
    "startup": _startup, "memory": _memory, "kernels": _kernels, "growth": _growth,
}  # fmt: skip
