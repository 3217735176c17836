"""Charts of a verification as SVG: differences over time steps, histograms, and heat maps of gates and units."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lstmserve import report_text
from lstmserve.v1 import shadow_pb2
from lstmserve_server.model.types import Array
from lstmserve_server.shadow import stepwise
from lstmserve_server.shadow.compare import Tolerances
from lstmserve_server.shadow.gate_differences import GATES
from lstmserve_server.shadow.stepwise import Stepwise
from lstmserve_server.tools.verify.verifier import Detailed, Verification

# A color of a figure stands for a variable of the style sheet, so that figures turn dark as the page does.
_INK, _RULE, _FIRST, _SECOND, _THIRD, _OVER = (f"#00000{i}" for i in range(1, 7))
_VARIABLES: Final = {_INK: "ink", _RULE: "rule", _FIRST: "first", _SECOND: "second", _THIRD: "third", _OVER: "over"}
_STYLE: Final[Any] = {
    **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), _RULE),
    **dict.fromkeys(("axes.labelcolor", "axes.titlecolor", "text.color", "xtick.labelcolor", "ytick.labelcolor"), _INK),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("axes.spines.right", "axes.spines.top", "legend.frameon"), False),
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.linewidth": 0.5,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a layer may be called $x$
}
_WIDTH: Final = 9  # inches
_KINDS: Final = {"h": _FIRST, "c": _SECOND, "output": _THIRD}
_EQUAL: Final = (0.5, 0.5, 0.5, 0.3)  # neither in the light nor in the dark part of the other colors
_MOST_POINTS: Final = 1000  # of a line: more cannot be told apart
_MOST_DOTS: Final = 200  # of a line, each to be seen
_MOST_UNITS: Final = 128  # side by side
_FEWEST_BINS: Final = 6  # so that one alone is not as wide as the figure
_MOST_BINS: Final = 19  # whose counts do not touch one another
_PLAIN: Final = 7  # powers of two before they are written as such
_LONGEST_NAME: Final = 60  # in a figure
_EDGES: Final = range(-12, 3)  # powers of ten between the bins of `Totals.by_difference`
_SUPERSCRIPTS: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Drawing(NamedTuple):
    """A chart of the page."""

    name: str
    title: str
    text: str  # what there is to be seen
    box: str  # of its coordinates
    inner: str  # markup


class _Lines(NamedTuple):
    """One LSTM of the call, with every step."""

    name: str
    tolerance: float  # of h and c up to 1, the larger of both
    forced: Array  # (time,): the largest differences, teacher-forced
    free: Array  # (time,): free-running
    odd: Array  # (time,): whether something is NaN or infinite on our side alone
    gates: Array  # (4, units): the largest differences of each


def tolerance(found: Verification, array: str, *, bounded: bool = True) -> float:
    """Returns a tolerance for the dtype of the model."""
    allowed = found.report.tolerances
    return Tolerances(allowed.h, allowed.c, allowed.unbounded).of(array, found.served.model.dtype, bounded=bounded)


def drawings(found: Verification) -> list[Drawing]:
    """Returns the charts, in the order of the page."""
    totals, made = found.report.teacher_forced, []
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of letters that a font lacks: the browser has others
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        lines = [] if found.detailed is None else _lines(found, found.detailed)
        if lines:
            made.append(_over_time(lines, found.report.noise_floor))
        if any(any(one.difference_histogram) for one in totals):
            made += [_by_difference(found), _by_ulp(totals)]
        lines = [one for one in lines if not np.isnan(one.gates).all()]  # a mask passes over all steps
        allowed = tolerance(found, "h")
        scale = _Scale([allowed, *(one.gates for one in lines)])
        made += [_gates(one, scale, allowed, f"gates-{number}") for number, one in enumerate(lines)]
    return made


def _lines(found: Verification, detailed: Detailed) -> list[_Lines]:
    """Returns the LSTMs of the call whose every step is known, in the order of the model."""
    model, lines = found.served.model, []
    known = [model.lstm(*place) for place in model.lstm_indices if "forced/h/{}/{}".format(*place) in detailed.arrays]
    for lstm, steps in zip(known, stepwise.of(model, detailed.case, detailed.arrays), strict=True):
        bounded = math.isfinite(lstm.spec.activation.bound)
        allowed = max(tolerance(found, array, bounded=bounded) for array in "hc")
        name = "".join(letter if letter.isprintable() else "\ufffd" for letter in steps.layer[:_LONGEST_NAME])
        name += " (backwards)" * lstm.backwards
        found_here = (steps.forced_difference, steps.free_difference, _not_finite(steps), steps.gate_difference)
        lines.append(_Lines(name, allowed, *found_here))
    return lines


class _Scale:
    """A logarithmic scale from one power of ten to another, with a place for 0 below."""

    def __init__(self, numbers: Sequence[Array | float]) -> None:
        every = np.concatenate([np.ravel(array) for array in numbers])
        powers = np.log10(every[np.isfinite(every) & (every > 0)])
        self.lowest = math.floor(powers.min(initial=0))
        self.highest = max(math.ceil(powers.max(initial=self.lowest)), self.lowest + 1)
        self.zero = 10.0 ** (self.lowest - 1)

    def at(self, numbers: Array | float) -> Array:
        """Returns where numbers stand; what is infinite or NaN does not."""
        return np.where(np.equal(numbers, 0), self.zero, np.where(np.isfinite(numbers), numbers, np.nan))

    def powers(self, most: int) -> range:
        """Returns the powers of ten that label the scale, at most `most`."""
        return range(self.lowest, self.highest + 1, -(-(self.highest + 1 - self.lowest) // most))

    def put_on(self, axes: Axes) -> None:
        """Uses it as the scale of the y-axis."""
        powers = self.powers(6)
        axes.set_yscale("log")
        axes.set_yticks([self.zero, *(10.0**power for power in powers)], ["equal", *map(_power, powers)])
        axes.minorticks_off()
        axes.set_ylim(self.zero / 2, 10.0**self.highest * 2)
        axes.grid(axis="y")


def _power(exponent: int, base: int = 10) -> str:
    return f"{base}{str(exponent).translate(_SUPERSCRIPTS)}"


def _over_time(lines: Sequence[_Lines], noise_floor: float) -> Drawing:
    scale = _Scale([noise_floor, *(array for one in lines for array in (one.tolerance, one.forced, one.free))])
    figure = Figure(figsize=(_WIDTH, 0.8 + 1.7 * len(lines)))
    panels = figure.subplots(len(lines), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    floor, told = float(scale.at(noise_floor)), []
    for axes, one in zip(panels, lines, strict=True):
        axes.axhline(one.tolerance, color=_OVER, linestyle=(0, (7, 3)), linewidth=1.2, label="tolerance")
        axes.axhline(floor, color=_INK, linestyle=":", linewidth=1.2, label=f"noise floor {noise_floor:.2g}")
        _line(axes, scale.at(one.free), color=_SECOND, linestyle=(0, (3, 1)), linewidth=1.1, label="free-running")
        _line(axes, scale.at(one.forced), color=_FIRST, linewidth=1.5, label="teacher-forced")
        if one.odd.any():
            odd = np.flatnonzero(one.odd)
            top = axes.get_xaxis_transform()
            axes.plot(odd, np.full(len(odd), 0.96), "x", color=_OVER, transform=top, label="ours not finite")
        axes.set_title(one.name)
        told.append(f"{one.name}: teacher-forced {_at_most(one.forced)}, free-running {_at_most(one.free)}")
    scale.put_on(panels[0])
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[-1].set_xlabel("time-step of the call, in the order in which the layer goes through it")
    handles = {line.get_label(): line for axes in panels for line in axes.get_lines()}
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=5)
    text = (
        "The largest difference of any row and unit at each step, of h and c; free-running of h alone. What is equal to the last "
        f"bit stands at the bottom. {'; '.join(told)}."
    )
    return _drawn(figure, "over-time", "Difference over the time-steps of the first call", text)


def _line(axes: Axes, numbers: Array, **style: Any) -> None:
    """Draws a line; with very many steps, the largest of each group."""
    each = -(-len(numbers) // _MOST_POINTS)
    padded = np.append(numbers, np.full(-len(numbers) % each, np.nan))
    largest = np.fmax.reduce(padded.reshape(-1, each), axis=1)
    axes.plot(np.arange(len(largest)) * each, largest, marker="." if len(numbers) <= _MOST_DOTS else "", **style)


def _not_finite(steps: Stepwise) -> Array:
    """Returns at which steps ours is NaN or infinite where Keras is not, (time,)."""
    pairs = ((steps.ours_h, steps.keras_h), (steps.ours_c, steps.keras_c))
    apart = [np.isfinite(theirs) & ~np.isfinite(ours) for ours, theirs in pairs]
    odd: Array = np.any(apart, axis=(0, 1, 3))
    return odd


def _at_most(numbers: Array) -> str:
    """Returns the largest of a line in words."""
    if np.isnan(numbers).all():
        return "unknown"
    step = int(np.nanargmax(numbers))
    largest = f"{numbers[step]:.2g}" if np.isfinite(numbers[step]) else "infinite"
    return f"at most {largest}, at step {step}" if numbers[step] else "equal"


def _by_difference(found: Verification) -> Drawing:
    counts, model = _counts(found.report.teacher_forced, "difference_histogram"), found.served.model
    bounded = {math.isfinite(model.lstm(*place).spec.activation.bound) for place in model.lstm_indices}
    allowed = {array: [tolerance(found, array, bounded=one) for one in bounded] for array in "hc"}
    allowed["output"] = [tolerance(found, "h")]
    marks = {array: [math.log10(one) - _EDGES[0] + 1.5 for one in allowed[array]] for array in counts}
    edges = {edge: _power(power) for edge, power in enumerate(_EDGES, 1)}
    figure = _histograms(counts, marks, edges, "|ours \N{MINUS SIGN} Keras|")
    text = (
        "Teacher-forced differences of all calls and layers, by powers of ten; heights are logarithmic, and the dashed line is "
        f"the tolerance of values up to 1. {_in_words(counts)}."
    )
    return _drawn(figure, "by-difference", "How far numbers are apart", text)


def _by_ulp(totals: Sequence[shadow_pb2.DifferenceStats]) -> Drawing:
    counts = _counts(totals, "ulp_histogram")
    each = 2 if any(numbers[_MOST_BINS:].any() for numbers in counts.values()) else 1  # powers of two in a bin
    counts = {kind: np.append(one[0], one[1:].reshape(-1, each).sum(axis=1)) for kind, one in counts.items()}
    powers = {edge: edge * each for edge in range(32 // each)}
    edges = {edge: str(2**power) if power < _PLAIN else _power(power, 2) for edge, power in powers.items()}
    figure = _histograms(counts, dict.fromkeys(counts, ()), edges, "units in the last place")
    text = (
        f"The same numbers, by how many others of their type lie between, plus one; by powers of {2**each}. Next to zero even a "
        f"tiny difference is many of them. {_in_words(counts)}."
    )
    return _drawn(figure, "by-ulp", "How far numbers are apart in units in the last place (ULP)", text)


def _counts(totals: Sequence[shadow_pb2.DifferenceStats], name: str) -> dict[str, Array]:
    """Returns a histogram of each kind of arrays, over all layers."""
    every = {
        kind: [
            getattr(one, name)
            for one in totals
            if report_text.array_name(one.array) == kind and any(getattr(one, name))
        ]
        for kind in _KINDS
    }
    return {kind: np.sum(counts, axis=0) for kind, counts in every.items() if counts}


def _in_words(counts: Mapping[str, Array]) -> str:
    return "; ".join(
        f"{kind}: {numbers[0] / numbers.sum():.1%} of {numbers.sum():,} are equal" for kind, numbers in counts.items()
    )


def _histograms(
    counts: Mapping[str, Array], marks: Mapping[str, Sequence[float]], edges: Mapping[int, str], label: str
) -> Figure:
    """Draws a histogram of each kind, all with the same bins.

    Args:
        counts: numbers in each bin; the first is of those that are equal.
        marks: where lines are drawn.
        edges: what stands between a bin and the next one.
        label: of the x-axis.
    """
    used = [
        *(np.flatnonzero(np.sum(list(counts.values()), axis=0)[1:]) + 1),
        *(math.ceil(mark) for at in marks.values() for mark in at),
    ]
    last = max([*used, _FEWEST_BINS])
    first = min([*used, last - _FEWEST_BINS + 1])
    bins = np.arange(first, last + 1)
    where = np.append(first - 1.6, bins)  # what is equal stands apart
    figure = Figure(figsize=(_WIDTH, 0.6 + 1.15 * len(counts)))
    panels = figure.subplots(len(counts), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (kind, numbers) in zip(panels, counts.items(), strict=True):
        shown = numbers[np.append(0, bins)]
        axes.bar(where, shown, width=0.9, color=_KINDS[kind])
        for x, number in zip(where[shown > 0], shown[shown > 0], strict=True):
            axes.annotate(_compact(number), (x, number), (0, 2), textcoords="offset points", ha="center", fontsize=8)
        for mark in marks[kind]:
            axes.axvline(mark, color=_OVER, linestyle=(0, (7, 3)), linewidth=1.2)
        axes.set_title(kind)
        axes.set_yscale("log")
        axes.tick_params(axis="y", which="both", left=False, labelleft=False)
        axes.spines.left.set_visible(False)
    panels[0].set_ylim(0.5, 6 * max(numbers.max() for numbers in counts.values()))
    shown_edges = {edge: text for edge, text in edges.items() if first - 1 <= edge <= last}
    panels[0].set_xticks([where[0], *(edge + 0.5 for edge in shown_edges)], ["equal", *shown_edges.values()])
    panels[-1].set_xlabel(label)
    return figure


def _compact(number: int) -> str:
    """Returns a count in a few letters."""
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.{int(number < 10 * unit)}f}{name}"
    return str(number)


def _gates(one: _Lines, scale: _Scale, allowed: float, name: str) -> Drawing:
    largest = np.nan_to_num(one.gates, nan=np.inf)
    units = largest.shape[1]
    across = min(units, _MOST_UNITS)
    starts = range(0, units, across)
    figure = Figure(figsize=(_WIDTH, 0.7 + 0.75 * len(starts)))
    strips = figure.subplots(len(starts), 1, squeeze=False)[:, 0]
    norm = LogNorm(10.0**scale.lowest, 10.0**scale.highest, clip=True)
    colors = mpl.colormaps["viridis"].with_extremes(bad=_EQUAL)
    for axes, start in zip(strips, starts, strict=True):
        part = np.ma.masked_equal(largest[:, start : start + across], 0)
        extent = (start - 0.5, start + part.shape[1] - 0.5, 3.5, -0.5)
        image = axes.imshow(part, colors, norm, aspect="auto", interpolation="none", extent=extent)
        axes.set_xlim(start - 0.5, start + across - 0.5)
        axes.set_yticks(range(4), GATES)
        axes.set_xticks(range(start, start + part.shape[1], max(1, across // 8)))
    strips[-1].set_xlabel("unit")
    powers = scale.powers(4)
    bar = figure.colorbar(image, ax=strips, ticks=[10.0**power for power in powers], aspect=8 * len(strips))
    bar.ax.set_yticklabels(map(_power, powers))
    bar.ax.minorticks_off()
    bar.ax.axhline(allowed, color=_OVER, linewidth=2)
    for solid in bar.ax.collections:
        solid.set_rasterized(True)  # instead of hundreds of rectangles
    worst = ", ".join(
        f"{gate} {row.max():.2g} at unit {int(row.argmax())}" for gate, row in zip(GATES, largest, strict=True)
    )
    text = (
        "The largest difference of any row and step, both sides computing from the same x and h; gray where all are equal to the "
        f"last bit. The line across the scale is the tolerance of h. Largest: {worst}."
    )
    return _drawn(figure, name, f"Gates of {one.name}, unit by unit", text)


def _drawn(figure: Figure, name: str, title: str, text: str) -> Drawing:
    """Returns a figure as it may are in a page: names in it are its own, and so is its style."""
    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg")
    root = ET.fromstring(file.getvalue())  # noqa: S314 - we have just written it
    for parent in list(root.iter()):
        for child in list(parent):
            child.tag = _local(child.tag)
            child.attrib = {_local(key): _own(_local(key), value, name) for key, value in child.attrib.items()}
            if child.tag in ("metadata", "style"):
                parent.remove(child)
    inner = "".join(ET.tostring(child, "unicode") for child in root)
    return Drawing(name, title, text, root.attrib["viewBox"], inner)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _own(key: str, value: str, name: str) -> str:
    """Returns the value of an attribute with unique ids and the colors of the page."""
    if key == "id":
        return f"{name}-{value}"
    if key == "href" and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    for color, variable in _VARIABLES.items():
        value = value.replace(color, f"var(--{variable})")
    return value.replace("url(#", f"url(#{name}-")
