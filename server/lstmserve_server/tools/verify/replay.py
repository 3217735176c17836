"""`lstmserve replay`: repeats calls from bundles in our model, in Keras and in float64, step by step and gate by gate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import click
import numpy as np
import plotext
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lstmserve import report_text
from lstmserve.cli import terminal
from lstmserve.text import printable
from lstmserve.v1 import shadow_pb2
from lstmserve_server.core import packages
from lstmserve_server.core.errors import RequestError, SettingsError, StartupError, UnsupportedModelError
from lstmserve_server.model.recording import Recording
from lstmserve_server.model.types import Array
from lstmserve_server.runtime.calls import ForwardCall, StepCall
from lstmserve_server.runtime.registry import ServedModel
from lstmserve_server.shadow import bundles, gate_differences, stepwise
from lstmserve_server.shadow import captured_call as cases
from lstmserve_server.shadow.bundles import Bundle
from lstmserve_server.shadow.captured_call import CapturedCall
from lstmserve_server.shadow.compare import Tolerances
from lstmserve_server.shadow.reference_process import (
    CaseFailed,
    ComparedModel,
    ReferenceLimits,
    ReferenceLost,
    ReferenceProcess,
    Reply,
)
from lstmserve_server.shadow.stepwise import Stepwise
from lstmserve_server.tools.inspection import load_for_keras

_STEPS_AROUND: Final = 4  # of the first place over tolerance, that are shown in a table
_LIMITS: Final = ReferenceLimits(threads=2, niceness=0, seconds=600)
_PLOT: Final = (100, 20)  # columns and lines


class Replayed(NamedTuple):
    """A call that was computed again."""

    bundle: Bundle
    served: ServedModel
    same_bytes: bool
    """Whether our answer is today what it was then, to the last bit."""

    case: CapturedCall
    reply: Reply


def run(
    files: Sequence[str],
    *,
    model: str | None,
    architecture: str | None,
    tolerance_h: float,
    tolerance_c: float,
    tolerance_unbounded: float,
) -> int:
    """Computes the calls of bundles again, shows them, and returns the exit code."""
    tolerances = Tolerances(tolerance_h, tolerance_c, tolerance_unbounded)
    console = terminal.console(width=140)
    differs = False
    try:
        packages.require_keras()
        for file in files:
            differs |= _replay_and_show(console, Path(file), model, architecture, tolerances)
    except (UnsupportedModelError, StartupError) as error:
        click.echo(f"lstmserve: {error}", err=True)
        return error.exit_code if isinstance(error, StartupError) else StartupError.exit_code
    return int(differs)


def _replay_and_show(
    console: Console, file: Path, model: str | None, architecture: str | None, tolerances: Tolerances
) -> bool:
    """Computes the call of a bundle again and shows it; returns whether it differs.

    Raises:
        StartupError, UnsupportedModelError: as `_replay`; or the bundle contradicts itself.
    """
    try:
        replayed = _replay(file, model, architecture, tolerances)
        _show(console, file, replayed)
    except (UnsupportedModelError, StartupError):
        raise
    except Exception as error:  # arrays of a changed bundle fail where they are first used
        message = (
            f"{file} is damaged, or was changed: its parts do not fit one another ({type(error).__name__}: {error})"
        )
        raise SettingsError(message) from error
    return replayed.reply.comparison.verdict == shadow_pb2.VERDICT_DIFFERS


def _replay(file: Path, model: str | None, architecture: str | None, tolerances: Tolerances) -> Replayed:
    """Computes the call of a bundle again.

    Raises:
        StartupError: it is not a bundle, or of another model, or Keras cannot be asked.
        UnsupportedModelError: the model is refused.
    """
    try:
        bundle = bundles.read(file)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    path = model or bundle.file
    served = _served(file, bundle, model, architecture)
    _require_fits(served, bundle.captured)
    recording = Recording()
    call = _call(served, bundle.captured, recording)
    subject = ComparedModel(served, path, bundle.layer, bundle.until, architecture)
    try:
        answer = call.compute()
        with ReferenceProcess([subject], tolerances, _LIMITS) as reference:
            reference.wait_until_ready()
            case = cases.capture(call, answer, recording, bundle.captured.method)
            reply = reference.ask(case.to_bytes(), detailed=True)
    except (RequestError, ReferenceLost, CaseFailed) as error:
        message = f"{file} cannot be computed again: {error}"
        raise StartupError(message) from error
    gate_differences.name_gates(served.model, reply, tolerances)
    return Replayed(bundle, served, _same(bundle.captured, case), case, reply)


def _served(file: Path, bundle: Bundle, model: str | None, architecture: str | None) -> ServedModel:
    """Returns the model of a bundle: from the named file, or from the path in the bundle, if the digest is the same.

    Raises:
        StartupError: it is another one. Of a file that no one named nothing is told: a bundle may come from a stranger.
        UnsupportedModelError: the file that was named is refused.
    """
    wanted = bundle.captured.digest[:16]
    try:
        served = load_for_keras(bundle.captured.model, model or bundle.file, bundle.layer, bundle.until, architecture)
    except UnsupportedModelError:
        if model is not None:
            raise
    else:
        if served.digest == bundle.captured.digest:
            return served
        if model is not None:
            message = f"{file} is of a model with the digest {wanted}; {model} has {served.digest[:16]}"
            raise SettingsError(f"{message}. Give the right model file with --model")
    message = f"{file} is of a model with the digest {wanted}, which is not at the path of the server, {bundle.file!r}"
    raise SettingsError(f"{message}. Give the model file with --model")


def _require_fits(served: ServedModel, case: CapturedCall) -> None:
    """Rejects a call that no server would have computed: bundles are untrusted.

    Raises:
        ValueError: the call of the bundle is not one for the model.
    """
    model, request = served.model, case.request
    rows, inputs = case.rows, request.inputs
    state = [array for part in model.zero_state(1) for array in part]
    given = [array for part in request.state for array in part]
    fits = (
        rows >= 1
        and len(inputs) == len(model.inputs)
        and all(array.dtype == model.dtype and array.ndim >= 1 and len(array) == rows for array in inputs)
        and [(array.shape[1:], array.dtype) for array in given] == [(array.shape[1:], array.dtype) for array in state]
        and all(len(array) == rows and np.isfinite(array).all() for array in (*given, *inputs))
    )
    longest = max((array.shape[1] for array in inputs if array.ndim > 1), default=0)
    for counts, most in ((request.lengths, longest), (request.steps_seen, 1 << 62)):
        if counts is not None:
            fits = fits and counts.dtype.kind in "iu" and counts.shape == (rows,)
            fits = fits and bool(((counts >= 0) & (counts <= most)).all())
    if not fits:
        raise ValueError("the request in the bundle does not fit this model")


def _call(served: ServedModel, case: CapturedCall, recording: Recording) -> StepCall:
    """Returns the call of a bundle."""
    request = case.request
    parts = zip(served.model.zero_state(1), request.state, strict=True)
    state = tuple(type(part)(*arrays) for part, arrays in parts)
    inputs = tuple(request.inputs)
    if case.method == "Step" or (case.method == "StreamSteps" and not case.every):
        return StepCall(served, inputs, state, request.steps_seen, as_values=False, recording=recording)
    return ForwardCall(
        served,
        inputs,
        state,
        request.steps_seen,
        as_values=False,
        lengths=request.lengths,
        all_outputs=case.every,
        recording=recording,
    )


def _same(then: CapturedCall, now: CapturedCall) -> bool:
    """Returns whether two answers to a call are the same: outputs, and h and c after every step."""
    pairs = [
        *zip(then.outputs, now.outputs, strict=True),
        *(
            (getattr(a, name), getattr(b, name))
            for one, other in zip(then.pieces, now.pieces, strict=True)
            for place in one.steps
            for a, b in zip(one.steps[place], other.steps[place], strict=True)
            for name in ("h", "c")
        ),
    ]
    return all(a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


def _show(console: Console, file: Path, replayed: Replayed) -> None:
    bundle, case, comparison = replayed.bundle, replayed.case, replayed.reply.comparison
    recorded = bundle.comparison
    console.print(Text(f"\n{file}", style="bold"))
    console.print(
        printable(f"{case.method} of {case.model}, {case.rows} rows, {case.time} steps, digest {case.digest[:16]}")
    )
    console.print(printable(f"then: {', '.join(f'{name} {version}' for name, version in bundle.versions.items())}"))
    console.print("what was answered then:", style="bold")
    _show_verdict(console, recorded)
    console.print("computed now:", style="bold")
    _show_verdict(console, comparison)
    if not replayed.same_bytes:
        text = "our answer now has other bytes than then: what was wrong then was in that process, or has been mended"
        console.print(Text(text, style="yellow"))
    for then, now in zip(
        stepwise.of(replayed.served.model, bundle.captured, bundle.arrays),
        stepwise.of(replayed.served.model, case, replayed.reply.arrays),
        strict=True,
    ):
        first = recorded.first_location if recorded.first_location.layer == then.layer else None
        console.print(_table(then, now, first))
        console.print(Text.from_ansi(_plot(then, now)))


def _show_verdict(console: Console, comparison: shadow_pb2.Comparison) -> None:
    differs = comparison.verdict == shadow_pb2.VERDICT_DIFFERS
    console.print(Text("  differs" if differs else "  agrees", style="bold red" if differs else "bold green"))
    if comparison.HasField("first_location"):
        console.print(printable(f"  {report_text.place_in_words(comparison.first_location)}"))
    for odd in comparison.outlier_units:
        console.print(printable(f"  {report_text.odd_in_words(odd)}"))


def _table(then: Stepwise, now: Stepwise, first: shadow_pb2.Location | None) -> Table:
    """Returns the largest differences of each step, around the first one that is over tolerance."""
    title = f"\n{then.layer}: the largest difference of each step"
    table = Table(
        "step", "then: h", "c", "now: h", "c", *"ifco", "to float64: ours", "Keras", title=title, title_justify="left"
    )
    for column in table.columns:
        column.justify = "right"
    steps = then.ours_h.shape[1]
    middle = min(first.step, steps - 1) if first is not None else int(np.nanargmax(_filled(then.forced_difference)))
    start = max(0, middle - _STEPS_AROUND)
    for t in range(start, min(steps, middle + _STEPS_AROUND + 1)):
        gates = [_largest(now.ours_gates[:, t, gate] - now.keras_gates[:, t, gate]) for gate in range(4)]
        cells = [
            _largest(then.ours_h[:, t] - then.keras_h[:, t]),
            _largest(then.ours_c[:, t] - then.keras_c[:, t]),
            _largest(now.ours_h[:, t] - now.keras_h[:, t]),
            _largest(now.ours_c[:, t] - now.keras_c[:, t]),
            *gates,
            max(_largest(now.ours_h[:, t] - now.exact_h[:, t]), _largest(now.ours_c[:, t] - now.exact_c[:, t])),
            max(_largest(now.keras_h[:, t] - now.exact_h[:, t]), _largest(now.keras_c[:, t] - now.exact_c[:, t])),
        ]
        table.add_row(str(t), *(f"{cell:.2g}" for cell in cells), style="bold" if t == middle else "")
    return table


def _plot(then: Stepwise, now: Stepwise) -> str:
    """Returns a plot of the differences over the steps, for a terminal."""
    least = float(np.finfo(np.float32).tiny)
    plotext.clear_figure()
    plotext.plot_size(*_PLOT)
    for series, label in (
        (then.forced_difference, "then, from our h and c"),
        (now.forced_difference, "now, from our h and c"),
        (now.free_difference, "now, Keras on its own"),
    ):
        known = _filled(series)
        plotext.plot(list(range(len(known))), np.log10(np.maximum(known, least)).tolist(), label=label)
    plotext.title(f"{then.layer}: log10 of the largest |ours - Keras|")
    plotext.xlabel("step")
    text: str = plotext.build()
    return text


def _filled(series: Array) -> Array:
    return np.nan_to_num(series, nan=0.0, posinf=np.finfo(np.float64).max)


def _largest(differences: Array) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.fmax.reduce(np.abs(differences), axis=None))
