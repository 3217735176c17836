"""The plots, as SVG files that are the same for the same figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from bench.report import figures, median

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    Record = dict[str, Any]

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "lstmserve"
mpl.rcParams["axes.grid"] = True
mpl.rcParams["grid.alpha"] = 0.3

_STYLES = ("-", "--", ":", "-.")


def draw(results: Record, folder: Path) -> None:
    """Draws all that there are figures for."""
    if results.get("rpc"):
        _latency(results["rpc"], folder / "latency.svg")
        _concurrency(results["rpc"], folder / "concurrency.svg")
        _cpu(results["rpc"], folder / "cpu.svg")
    if results.get("units"):
        _units(results["units"], folder / "units.svg")
    if results.get("startup"):
        started = [one for one in results["startup"] if one["ready_seconds"]]
        ready = {one["contender"]: median(one["ready_seconds"]) for one in started}
        _bars(ready, "seconds to the first right answer", folder / "ready.svg")
        memory = {one["contender"]: one["resident_bytes"] / 1e6 for one in started}
        _bars(memory, "MB in RAM after the first answer", folder / "memory.svg")
    if results.get("kernels"):
        _kernels(results["kernels"], folder / "kernels.svg")


def _line_style(number: int) -> dict[str, Any]:
    return {"color": f"C{number % 10}", "linestyle": _STYLES[number // 10 % len(_STYLES)]}


def _save(path: Path, axes: Axes | None = None) -> None:
    if axes is not None:
        axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    plt.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close()


def _name_ticks(axes: Axes, values: Sequence[int]) -> None:
    """Has the sizes themselves under a logarithmic axis."""
    axes.set_xticks(values, map(str, values))
    axes.minorticks_off()


def _latency(outcomes: Sequence[Record], path: Path) -> None:
    flights = sorted({flight for outcome in outcomes for flight in outcome["latencies_us"]}, key=int)
    chosen = [flight for flight in ("1", "32") if flight in flights] or flights[:2]
    _, all_axes = plt.subplots(1, len(chosen), figsize=(5 * len(chosen), 4), squeeze=False)
    for axes, flight in zip(all_axes[0], chosen, strict=True):
        for number, outcome in enumerate(outcomes):
            if flight in outcome["latencies_us"]:
                axes.plot(outcome["latencies_us"][flight][:100], label=outcome["contender"], **_line_style(number))
        axes.set(title=f"{flight} in flight", xlabel="percent of the calls", ylabel="latency, us", yscale="log")
    _save(path, all_axes[0][-1])


def _concurrency(outcomes: Sequence[Record], path: Path) -> None:
    _, axes = plt.subplots(figsize=(6, 4))
    for number, outcome in enumerate(outcomes):
        flights = sorted(outcome["samples"], key=int)
        rates = [median(figures(outcome["samples"][flight], "calls_per_second")) for flight in flights]
        axes.plot([int(flight) for flight in flights], rates, "o", label=outcome["contender"], **_line_style(number))
    axes.set(xscale="log", xlabel="calls in flight", ylabel="calls a second")
    _name_ticks(axes, sorted({int(flight) for outcome in outcomes for flight in outcome["samples"]}))
    _save(path, axes)


def _units(outcomes: Sequence[Record], path: Path) -> None:
    _, axes = plt.subplots(figsize=(6, 4))
    for number, name in enumerate(dict.fromkeys(outcome["contender"] for outcome in outcomes)):
        points = [
            (one["units"], median(figures(samples, "calls_per_second")))
            for one in outcomes
            if one["contender"] == name
            for samples in one["samples"].values()
        ]
        if points:
            axes.plot(*zip(*points, strict=True), "o", label=name, **_line_style(number))
    axes.set(xscale="log", yscale="log", xlabel="units", ylabel="calls a second, 32 in flight")
    _name_ticks(axes, sorted({one["units"] for one in outcomes}))
    _save(path, axes)


def _cpu(outcomes: Sequence[Record], path: Path) -> None:
    flight = "32" if any("32" in outcome["samples"] for outcome in outcomes) else "1"
    values = {
        outcome["contender"]: median(figures(outcome["samples"][flight], "cpu_seconds_per_1000"))
        for outcome in outcomes
        if flight in outcome["samples"]
    }
    _bars(values, f"CPU seconds of the server per 1,000 steps, {flight} in flight", path)


def _bars(values: dict[str, float], label: str, path: Path) -> None:
    _, axes = plt.subplots(figsize=(6, 0.35 * len(values) + 1))
    bars = axes.barh(list(values), list(values.values()), color=["C1" if "ours" in name else "C0" for name in values])
    axes.bar_label(bars, fmt="%.3g", padding=3, fontsize="small")
    axes.invert_yaxis()
    axes.set(xlabel=label, xscale="log")
    _save(path)


def _kernels(timings: Sequence[Record], path: Path) -> None:
    shapes = sorted({(one["steps"], one["batch"]) for one in timings})
    columns = max(1, len(shapes) // 2)
    _, grid = plt.subplots(-(-len(shapes) // columns), columns, figsize=(4 * columns, 7), squeeze=False)
    names = list(dict.fromkeys(one["contender"] for one in timings))
    for axes, (steps, batch) in zip(grid.flat, shapes, strict=False):
        for number, name in enumerate(names):
            points = [
                (one["units"], one["median_us"])
                for one in timings
                if (one["contender"], one["steps"], one["batch"]) == (name, steps, batch) and one["median_us"]
            ]
            if points:
                axes.plot(*zip(*points, strict=True), "o", label=name, **_line_style(number))
        axes.set(
            title=f"batch {batch}, {steps} step{'s' * (steps > 1)}",
            xscale="log",
            yscale="log",
            xlabel="units",
            ylabel="us a call",
        )
        _name_ticks(axes, sorted({one["units"] for one in timings}))
    plt.tight_layout()
    _save(path, grid[0][-1])
