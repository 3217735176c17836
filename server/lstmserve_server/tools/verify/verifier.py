"""Compares our answers with those of Keras over many calls, before a model is deployed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from lstmserve.v1 import shadow_pb2
from lstmserve_server.core import packages
from lstmserve_server.core.errors import RequestError, SettingsError, StartupError
from lstmserve_server.model.layers.recurrent import LSTM
from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.model.recording import Recording
from lstmserve_server.model.spec import InputSpec
from lstmserve_server.model.types import Array
from lstmserve_server.runtime.calls import ForwardCall
from lstmserve_server.runtime.registry import ServedModel
from lstmserve_server.shadow import captured_call as cases
from lstmserve_server.shadow import compare, gate_differences
from lstmserve_server.shadow.captured_call import CapturedCall
from lstmserve_server.shadow.compare import Tolerances
from lstmserve_server.shadow.reference_process import (
    CaseFailed,
    ComparedModel,
    ReferenceLimits,
    ReferenceLost,
    ReferenceProcess,
)
from lstmserve_server.shadow.report import ShadowReport
from lstmserve_server.tools.inspection import load_for_keras

_LIMITS: Final = ReferenceLimits(threads=2, niceness=0, seconds=600)


@dataclass(frozen=True, slots=True)
class Plan:
    """Plan of a verification."""

    calls: int
    rows: int
    steps: int
    seed: int
    given: Path | None
    """File with inputs, .npy or .npz; None for random ones."""


@dataclass(frozen=True, slots=True)
class Detailed:
    """One call with all arrays of both sides."""

    case: CapturedCall
    comparison: shadow_pb2.Comparison
    arrays: Mapping[str, Array]
    """What the reference has: "forced/..." and "free/...", each with the place of the layer and the number of the LSTM in it."""


@dataclass(frozen=True, slots=True)
class Verification:
    """Results of a verification."""

    path: str
    served: ServedModel
    plan: Plan
    part: Mapping[str, str | None]
    """Which part of the model it is, by the names of the flags."""

    report: shadow_pb2.ModelReport
    versions: Mapping[str, str]
    first: shadow_pb2.Location | None
    """The first place over tolerance, of the first call that had one."""

    detailed: Detailed | None
    """The call whose every step is shown: the first over tolerance, else the first; None where none could be compared."""

    failures: tuple[str, ...]
    """What Keras, or we, failed with, each text once."""

    @property
    def wired_alike(self) -> bool:
        """Whether the whole model of the file answers the probe as ours does."""
        allowed = self.report.tolerances
        return compare.wired_alike(self.report.reference_model, Tolerances(allowed.h, allowed.c, allowed.unbounded))

    @property
    def verdict(self) -> shadow_pb2.Verdict:
        """The verdict. Agreement counts only if steps of LSTMs were compared and no comparison failed."""
        coverage, reference_model = self.report.coverage, self.report.reference_model
        if coverage.discrepant_count or reference_model.differing_weights or not self.wired_alike:
            return shadow_pb2.VERDICT_DIFFERS
        if not coverage.row_step_count or coverage.error_counts:
            return (
                shadow_pb2.VERDICT_NOT_COMPARABLE if coverage.not_comparable_counts else shadow_pb2.VERDICT_NOT_COMPARED
            )
        return shadow_pb2.VERDICT_AGREES


class Verifier:
    """Compares one model, call by call, with a reference process.

    verifier = Verifier(path, plan, tolerances, part)
    for done in verifier.run():
        ...
    found = verifier.found()
    """

    def __init__(self, path: str, plan: Plan, tolerances: Tolerances, part: Mapping[str, str | None]) -> None:
        """Loads the model.

        Raises:
            UnsupportedModelError: it is refused.
            StartupError: there is no Keras to compare with, or the given inputs do not fit.
        """
        packages.require_keras()
        self._served = load_for_keras(None, path, **part)
        self.calls = plan.calls
        self._path, self._plan, self._tolerances, self._part = path, plan, tolerances, part
        self._failures: dict[str, None] = {}
        self._inputs = _Inputs(self._served.model, plan)
        self._report = ShadowReport(1, [self._served], tolerances)
        self._subject = ComparedModel(self._served, path, **part)
        self._first: shadow_pb2.Location | None = None
        self._detailed: Detailed | None = None
        self._versions: Mapping[str, str] = {}

    def run(self) -> Iterator[int]:
        """Yields the number of compared calls, after each.

        Raises:
            StartupError: the reference could not start, or was lost.
        """
        try:
            with ReferenceProcess([self._subject], self._tolerances, _LIMITS) as reference:
                reference.wait_until_ready()
                self._report.reference_up(reference.versions, reference.models)
                self._versions = {**reference.versions, "our numpy": np.__version__}
                yield 0
                for number, (inputs, state) in enumerate(self._inputs.calls()):
                    self._compare(reference, inputs, state, shown=number == 0)
                    yield number + 1
        except ReferenceLost as error:
            message = f"Keras cannot be asked: {error}"
            raise StartupError(message) from error

    def found(self) -> Verification:
        """Returns the results so far."""
        report = self._report.copy().models[0]
        return Verification(
            self._path,
            self._served,
            self._plan,
            self._part,
            report,
            self._versions,
            self._first,
            self._detailed,
            tuple(self._failures),
        )

    def _compare(self, reference: ReferenceProcess, inputs: tuple[Array, ...], state: Any, *, shown: bool) -> None:
        name, model, recording = self._served.name, self._served.model, Recording()
        every = model.causal or model.returns_sequences
        rows = len(inputs[0])
        call = ForwardCall(
            self._served,
            inputs,
            state,
            np.zeros(rows, np.int64),
            as_values=False,
            lengths=None,
            all_outputs=every,
            recording=recording,
        )
        self._report.offered(name)
        self._report.sampled(name)
        try:
            answer = model.forward(inputs, state, all_outputs=every, recording=recording)
        except RequestError as error:  # such as an overflow: what would be refused is nothing to compare
            self._report.dropped(name, "refused")
            self._failures[str(error)] = None
            return
        case = cases.capture(call, answer, recording, "Forward")
        try:
            data = case.to_bytes()
            reply = reference.ask(data, detailed=shown)
            first_over = self._first is None and reply.comparison.HasField("first_location")
            if first_over and not shown:
                reply = reply._replace(arrays={**reply.arrays, **reference.ask(data, detailed=True, again=True).arrays})
        except CaseFailed as error:
            self._failures[str(error)] = None
            self._report.failed(name, "reference_error")
            return
        gate_differences.name_gates(model, reply, self._tolerances)
        comparison = reply.comparison
        self._report.compared(name, comparison, case.steps)
        if (shown or first_over) and comparison.teacher_forced:
            self._detailed = Detailed(case, comparison, reply.arrays)
        if first_over:
            self._first = comparison.first_location
        discrepancy = shadow_pb2.Discrepancy(model=name, row_count=rows, step_count=call.time, comparison=comparison)
        if self._report.is_among_worst(discrepancy):
            self._report.remember(discrepancy)


class _Inputs:
    """Inputs of the calls: given ones, or random ones. Every second call begins with a state."""

    def __init__(self, model: RecurrentModel, plan: Plan) -> None:
        self._model = model
        self._plan = plan
        self._random = np.random.default_rng(plan.seed)
        self._given = None if plan.given is None else _read(plan.given, model)

    def calls(self) -> Iterator[tuple[tuple[Array, ...], Any]]:
        """Yields inputs and states."""
        for number in range(self._plan.calls):
            inputs = self._given or tuple(self._drawn(item) for item in self._model.inputs)
            state = self._model.zero_state(len(inputs[0]))
            yield inputs, self._in_the_midst(state) if number % 2 else state

    def _drawn(self, item: InputSpec) -> Array:
        time = [item.shape[0] or self._plan.steps] if item.sequence else []
        if self._model.causal and item.sequence:
            time = [self._plan.steps]
        shape = (self._plan.rows, *time, *(length or 1 for length in item.features))
        if item.vocabulary is not None:
            return self._random.integers(0, item.vocabulary, shape).astype(self._model.dtype)
        return self._random.normal(size=shape).astype(self._model.dtype)

    def _in_the_midst(self, state: Any) -> Any:
        """Returns a plausible state of a running sequence; windows are new."""
        return tuple(
            type(part)(*(np.tanh(self._random.normal(size=array.shape)).astype(array.dtype) for array in part))
            if isinstance(layer, LSTM)
            else part
            for part, layer in zip(state, self._model.stateful_layers, strict=True)
        )


def _read(path: Path, model: RecurrentModel) -> tuple[Array, ...]:
    """Returns the inputs in a file.

    Raises:
        SettingsError: they do not fit the model.
    """
    names = [item.name for item in model.inputs]
    try:
        read = np.load(path, allow_pickle=False)
        arrays = [read[name] for name in names] if isinstance(read, np.lib.npyio.NpzFile) else [read]
    except Exception as error:  # NumPy and zipfile fail on a damaged file in many ways
        expected = f"Expected .npy, or .npz with the inputs by name: {', '.join(names)}"
        message = f"{path} cannot be read: {type(error).__name__}: {error}. {expected}"
        raise SettingsError(message) from error
    if len(arrays) != len(names):
        message = (
            f"{path} has one array; the model has several inputs: {', '.join(names)}. Give an .npz with all by name"
        )
        raise SettingsError(message)
    fitted = tuple(_fitted(array, item, model, path) for array, item in zip(arrays, model.inputs, strict=True))
    if len({len(array) for array in fitted}) > 1:
        message = (
            f"{path} has inputs of {', '.join(str(len(array)) for array in fitted)} rows; expected as many of each"
        )
        raise SettingsError(message)
    return fitted


def _fitted(array: Array, item: InputSpec, model: RecurrentModel, path: Path) -> Array:
    features = item.features
    rank = 1 + item.sequence + len(features)
    if item.vocabulary is not None and array.ndim in (rank - 1, rank - 2) and array.shape[-1:] != (1,):
        array = array[..., None]
    if array.ndim == rank - 1:
        array = array[None]
    fits = array.ndim == rank and all(
        want in (None, got) for want, got in zip(features, array.shape[-len(features) :], strict=True)
    )
    if not fits or array.dtype.kind not in "fiu" or 0 in array.shape:
        axes = ["batch", *(["time"] if item.sequence else []), *(str(n or "any") for n in features)]
        message = f"{path} has {array.dtype} numbers of the shape {array.shape} for {item.name!r}; expected ({', '.join(axes)})"
        raise SettingsError(message)
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array.astype(model.dtype))
    if not np.isfinite(array).all():
        message = f"{path} has numbers for {item.name!r} that are not finite in {model.dtype.name}"
        raise SettingsError(message)
    words = item.vocabulary
    if words is not None and ((array < 0) | (array >= words) | (array != np.floor(array))).any():
        message = (
            f"{path} has numbers for {item.name!r} that are not token ids; expected whole ones from 0 to {words - 1}"
        )
        raise SettingsError(message)
    return array
