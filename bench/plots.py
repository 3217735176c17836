"""Plots as SVG files, identical for identical figures: the service in one strong color, everything else in gray.

Each line has its name at its end, so that no legend has to be matched by color.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from bench.report import Record, figures, median

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "lstmserve"
mpl.rcParams["axes.grid"] = True
mpl.rcParams["grid.alpha"] = 0.3

_OURS: Final = "#c2185b"
_OTHERS: Final = "0.62"
_LABEL_POINTS: Final = 8.5  # height of a label; labels closer than this are moved apart


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


def _is_ours(name: str) -> bool:
    return name.startswith("ours")


def _line_style(name: str) -> dict[str, Any]:
    ours = _is_ours(name)
    return {
        "label": name,
        "color": _OURS if ours else _OTHERS,
        "linewidth": 2.2 if ours else 1,
        "zorder": 3 if ours else 2,
    }


def _save(path: Path) -> None:
    plt.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close()


def _apart(lines: Sequence[Any], ends: Sequence[Any], height: float, top: float) -> list[tuple[Any, Any, float]]:
    """Returns each line with its end and the place of its label, at least `height` from the next, and below `top` if possible."""
    order = sorted(range(len(lines)), key=lambda number: float(ends[number][1]))
    places: list[float] = []
    for number in order:
        places.append(max(float(ends[number][1]), places[-1] + height if places else -np.inf))
    for index in reversed(range(len(places))):
        places[index] = min(places[index], top)
        top = places[index] - height
    return [(lines[number], ends[number], place) for number, place in zip(order, places, strict=True)]


def _label_ends(axes: Axes) -> None:
    """Writes the name of each line next to its last point, and moves labels apart that would overlap."""
    axes.figure.canvas.draw()
    lines = [line for line in axes.get_lines() if len(np.asarray(line.get_xdata()))]
    ends = [
        axes.transData.transform((np.asarray(line.get_xdata())[-1], np.asarray(line.get_ydata())[-1])) for line in lines
    ]
    right, top = axes.transAxes.transform((1.02, 1))
    height = _LABEL_POINTS * axes.figure.dpi / 72
    for line, end, place in _apart(lines, ends, height, float(top)):
        axes.annotate(
            str(line.get_label()),
            xy=axes.transData.inverted().transform(end),
            xytext=axes.transData.inverted().transform((right, place)),
            va="center",
            fontsize="x-small",
            color=line.get_color() if _is_ours(str(line.get_label())) else "0.35",
            fontweight="bold" if _is_ours(str(line.get_label())) else "normal",
            arrowprops={"arrowstyle": "-", "color": "0.85", "linewidth": 0.5},
            annotation_clip=False,
        )


def _name_ticks(axes: Axes, values: Sequence[int]) -> None:
    """Has the sizes themselves under a logarithmic axis."""
    axes.set_xticks(values, map(str, values))
    axes.minorticks_off()


def _latency(outcomes: Sequence[Record], path: Path) -> None:
    flights = sorted({flight for outcome in outcomes for flight in outcome["latencies_us"]}, key=int)
    chosen = [flight for flight in ("1", "32") if flight in flights] or flights[:2]
    _, all_axes = plt.subplots(
        1, len(chosen), figsize=(7 * len(chosen), 4), squeeze=False, gridspec_kw={"wspace": 0.75}
    )
    for axes, flight in zip(all_axes[0], chosen, strict=True):
        for outcome in outcomes:
            if flight in outcome["latencies_us"]:
                axes.plot(outcome["latencies_us"][flight][:100], **_line_style(outcome["contender"]))
        axes.set(title=f"{flight} in flight", xlabel="percent of the calls", ylabel="latency, us", yscale="log")
        _label_ends(axes)
    _save(path)


def _concurrency(outcomes: Sequence[Record], path: Path) -> None:
    _, axes = plt.subplots(figsize=(6, 4))
    for outcome in outcomes:
        flights = sorted(outcome["samples"], key=int)
        rates = [median(figures(outcome["samples"][flight], "calls_per_second")) for flight in flights]
        axes.plot([int(flight) for flight in flights], rates, "o-", **_line_style(outcome["contender"]))
    axes.set(xscale="log", xlabel="calls in flight", ylabel="calls a second")
    _name_ticks(axes, sorted({int(flight) for outcome in outcomes for flight in outcome["samples"]}))
    _label_ends(axes)
    _save(path)


def _units(outcomes: Sequence[Record], path: Path) -> None:
    _, axes = plt.subplots(figsize=(6, 4))
    for name in dict.fromkeys(outcome["contender"] for outcome in outcomes):
        points = [
            (one["units"], median(figures(samples, "calls_per_second")))
            for one in outcomes
            if one["contender"] == name
            for samples in one["samples"].values()
        ]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", **_line_style(name))
    axes.set(xscale="log", yscale="log", xlabel="units", ylabel="calls a second, 32 in flight")
    _name_ticks(axes, sorted({one["units"] for one in outcomes}))
    _label_ends(axes)
    _save(path)


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
    bars = axes.barh(
        list(values), list(values.values()), color=[_OURS if _is_ours(name) else _OTHERS for name in values]
    )
    axes.bar_label(bars, fmt="%.3g", padding=3, fontsize="small")
    axes.invert_yaxis()
    axes.set(xlabel=label, xscale="log")
    _save(path)


def _kernels(timings: Sequence[Record], path: Path) -> None:
    shapes = sorted({(one["steps"], one["batch"]) for one in timings})
    columns = max(1, len(shapes) // 2)
    _, grid = plt.subplots(
        -(-len(shapes) // columns),
        columns,
        figsize=(7 * columns, 9),
        squeeze=False,
        gridspec_kw={"wspace": 0.75, "hspace": 0.3},
    )
    names = list(dict.fromkeys(one["contender"] for one in timings))
    for axes, (steps, batch) in zip(grid.flat, shapes, strict=False):
        for name in names:
            points = [
                (one["units"], one["median_us"])
                for one in timings
                if (one["contender"], one["steps"], one["batch"]) == (name, steps, batch) and one["median_us"]
            ]
            if points:
                axes.plot(*zip(*points, strict=True), "o-", **_line_style(name))
        axes.set(
            title=f"batch {batch}, {steps} step{'s' * (steps > 1)}",
            xscale="log",
            yscale="log",
            xlabel="units",
            ylabel="us a call",
        )
        _name_ticks(axes, sorted({one["units"] for one in timings}))
        _label_ends(axes)
    _save(path)
