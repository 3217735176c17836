"""A model: a graph of layers with at least one LSTM, and the state that a caller carries for it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lstmserve_server.core.errors import WrongForModel
from lstmserve_server.model.cost import CostModel
from lstmserve_server.model.graph import LayerGraph, ModelState, copy_state, rows_of
from lstmserve_server.model.layers.base import Batch
from lstmserve_server.model.layers.recurrent import LSTM
from lstmserve_server.model.numerics import ComputeConfig, Engine, Numerics, all_finite, matmul_of
from lstmserve_server.model.recording import Recording
from lstmserve_server.model.spec import LayerSpec, ModelSpec, OutputSpec
from lstmserve_server.model.types import Array

# A chunk of a sequence: its largest buffer stays in the second-level cache, and between two a call can be stopped.
_CHUNK_BYTES = 1 << 20
_CHUNK_STEPS = 256

_FIXES_TIME = ("Flatten", "Reshape", "Permute")  # layers whose weights behind them know the number of time-steps


class StepResult(NamedTuple):
    """Result of `step` and `forward`."""

    outputs: tuple[Array, ...]
    """Of each output of the model: NaN where Keras has no answer yet, as a layer with a window still waits."""

    state: ModelState

    steps: Array
    """How many time-steps each row has gone on by, (batch,): those that no mask passed over."""

    @property
    def output(self) -> Array:
        """The first output; most models have no other."""
        return self.outputs[0]


def _go_on() -> None:
    """Default of `should_continue`: always true."""


class RecurrentModel:
    """A graph of layers, ready to compute. Thread-safe. Between calls it keeps nothing but scratch memory of each thread."""

    def __init__(
        self, description: ModelSpec, numerics: Numerics = Numerics.EXACT, engine: Engine = Engine.NUMPY
    ) -> None:
        self.description = description
        self.numerics = numerics
        self.dtype = description.dtype
        self.inputs = description.inputs
        self.outputs = description.outputs
        self._network = LayerGraph(
            description, ComputeConfig(matmul_of(numerics), description.dtype, numerics=numerics, engine=engine)
        )
        self.engine = ", ".join(dict.fromkeys(computed.engine for computed in self._network.computed))
        """What computes its LSTMs, with the version; several where some are computed by another."""
        self.engine_remarks = tuple(filter(None, (computed.remark for computed in self._network.computed)))
        """Which LSTMs are not computed by the engine that was asked for, and why."""
        self.step_obstacle = self._network.step_obstacle
        """Why the model cannot be stepped; empty where it can."""
        self.waiting_steps = self._network.waiting_steps
        """After how many time-steps of a sequence there is no answer yet, as a layer with a window still waits."""
        self.stateful_layers = self._network.stateful_layers
        """The layers whose state the caller carries, in the order of `ModelState`."""
        self.stateful_indices = self._network.stateful_indices
        """The place of each in the model, and its number in the layer that stands there."""
        self.lstm_indices = self._network.lstm_indices
        """The same of every LSTM."""
        self._width = max(_width(layer) for layer in description.layers)
        self._output_sizes = [_time_and_width(output, causal=self.causal) for output in description.outputs]
        self._state_size = sum(array.size for part in self.zero_state(1) for array in part)
        self.work = CostModel(description, step_by_step=Engine.NUMPY.value in self.engine)
        self.fixed_time = any(layer.kind in _FIXES_TIME for layer in description.layers)
        """Whether a sequence must have exactly as many time-steps as the file declares."""

    @property
    def causal(self) -> bool:
        """Whether an output depends on no later input, so that a sequence may be cut anywhere."""
        return not self.step_obstacle

    def require_causal(self) -> None:
        """Checks that the model can be stepped.

        Raises:
            WrongForModel: it cannot; the error says why.
        """
        if self.step_obstacle:
            raise WrongForModel("model", f"Step is not possible: {self.step_obstacle}. Forward is.")

    @property
    def returns_sequences(self) -> bool:
        """Whether Keras answers with a sequence, in one output at least."""
        return any(len(output.shape) > 1 for output in self.outputs)

    @property
    def bytes_per_step(self) -> int:
        """Bytes that a time step of a row takes in memory if a sequence is computed whole: input, gates and output of a layer."""
        features = sum(math.prod(length or 1 for length in item.features) for item in self.inputs)
        return (features + 2 * self._width) * self.dtype.itemsize

    def answer_size(self, steps: int) -> int:
        """Returns the number of values in the answer for a row, next state included, by the number of answered time steps."""
        size = self._state_size
        for time, width in self._output_sizes:
            size += (time if time and steps > 1 else steps) * width
        return size

    def lstm(self, place: int, number: int) -> LSTM:
        """Returns an LSTM by the index of its layer and its number in that layer."""
        return self._network.lstm(place, number)

    def zero_state(self, batch: int) -> ModelState:
        """Returns the state of `batch` new sequences."""
        return tuple(layer.zero_state(batch) for layer in self.stateful_layers)

    def step(
        self, x: Array, state: ModelState, seen: Array | None = None, recording: Recording | None = None
    ) -> StepResult:
        """Advances every row by one time-step.

        Args:
            x: (batch, features...), in the dtype of the model, C-contiguous.
            state: the state before.
            seen: as in `forward`.
            recording: as in `forward`.

        Returns:
            The outputs, (batch, features) each, that the Keras model would give if the sequence ended here; and the next
            state.

        Raises:
            WrongForModel: the model cannot be stepped, or the result is not finite.
        """
        self.require_causal()
        with np.errstate(all="ignore"):
            return self._run((x[:, None],), state, seen, recording=recording, every=False)

    def forward(
        self,
        inputs: Sequence[Array],
        state: ModelState,
        lengths: Array | None = None,
        *,
        all_outputs: bool = False,
        seen: Array | None = None,
        pause: Callable[[], None] = _go_on,
        recording: Recording | None = None,
    ) -> StepResult:
        """Advances every row by a sequence: equals the loop over `step`, to the last bit in exact mode.

        It is computed in chunks: some rows, for some time steps that all of them have. Those of a causal model are short, so that
        memory does not grow with the length of the sequence.

        Args:
            inputs: (batch, time, features...), in the dtype of the model, C-contiguous, at least one time-step. Several
                where the model has several, (batch, features) of those without a time axis.
            state: the state before.
            lengths: time-steps of each row, (batch,), 1 to time each; None where all have them all, and for a model with
                several inputs.
            all_outputs: whether the output of every step is wanted, rather than that of each row's last.
            seen: whether the sequence of a row has had a step that no mask passed over, (batch,); None where none has.
            pause: called between rectangles; may raise to stop.
            recording: what is to be filled with all that flows through the layers; None for nothing.

        Returns:
            The outputs, (batch, features) each, or (batch, time, features) with zeros after a row's own last step; and
            the state after each row's last step.

        Raises:
            WrongForModel: outputs of every step are wanted and the model has none, or the result is not finite.
        """
        if all_outputs and not self.causal and not self.returns_sequences:
            raise WrongForModel(
                "all_outputs", f"only the last output exists: {self.step_obstacle}. Ask without all_outputs."
            )
        with np.errstate(all="ignore"):
            if len(inputs) > 1 or not self.inputs[0].sequence:
                return self._run(inputs, state, seen, recording=recording, every=all_outputs)
            return self._in_rectangles(inputs[0], state, lengths, seen, pause, recording, every=all_outputs)

    def _in_rectangles(
        self,
        x: Array,
        state: ModelState,
        lengths: Array | None,
        seen: Array | None,
        pause: Callable[[], None],
        recording: Recording | None,
        *,
        every: bool,
    ) -> StepResult:
        lengths = np.full(len(x), x.shape[1]) if lengths is None else lengths
        seen = _never(x) if seen is None else seen
        state = copy_state(state)
        steps = np.zeros(len(x), np.int64)
        pieces: list[_Piece] = []
        for number, (rows, start, stop) in enumerate(self._rectangles(lengths)):
            if number:
                pause()
            here = seen[rows] | (steps[rows] > 0)
            answer = self._run((x[rows, start:stop],), rows_of(state, rows), here, rows, start, recording, every=every)
            for part, new in zip(state, answer.state, strict=True):
                for array, piece in zip(part, new, strict=True):
                    array[rows] = piece
            steps[rows] += answer.steps
            ending = lengths[rows] == stop
            if every:
                pieces.append(_Piece(rows, start, answer.outputs))
            elif ending.any():
                pieces.append(_Piece(rows[ending], 0, tuple(output[ending] for output in answer.outputs)))
        time = x.shape[1] if self.causal else 0
        outputs = tuple(
            _sequences(pieces, number, len(x), time)
            if every and (self.causal or len(output.shape) > 1)
            else _lasts(pieces, number, len(x))
            for number, output in enumerate(self.outputs)
        )
        return StepResult(outputs, state, steps)

    def _run(
        self,
        inputs: Sequence[Array],
        state: ModelState,
        seen: Array | None,
        rows: Array | None = None,
        start: int = 0,
        recording: Recording | None = None,
        *,
        every: bool,
    ) -> StepResult:
        """Runs one chunk, of the rows of a call that `rows` selects.

        Returns the output of every step if `every` is true, else that of the last.
        """
        straight, x = self._network.straight, inputs[0]
        if straight is not None and recording is None:
            arrays, after = straight.run(x, state, every=every)
            if all(map(all_finite, itertools.chain(arrays, *after))):
                return StepResult(tuple(map(np.ascontiguousarray, arrays)), after, np.full(len(x), x.shape[1]))
            # What follows computes it once more, and says what is not finite.
        rows = np.arange(len(x)) if rows is None else rows
        seen = _never(x) if seen is None else seen
        rectangle = None if recording is None else recording.begin(rows, start)
        flow = self._network.run(inputs, state, seen, rectangle, every=every and self.causal)
        self._require_finite_state(flow.state, rows)
        outputs = tuple(self._output(values, rows, every=every) for values in flow.outputs)
        return StepResult(outputs, flow.state, flow.steps)

    def _output(self, values: Batch, rows: Array, *, every: bool) -> Array:
        """Returns an output in the requested form; NaN where there is none yet."""
        if values.sequence and not every:
            values = values.last()
        array, ready = values.array, values.ready
        finite = np.isfinite(array).reshape(*array.shape[: 1 if ready is None else ready.ndim], -1).all(axis=-1)
        if ready is not None and not ready.all():
            array = np.where(
                ready.reshape(*ready.shape, *[1] * (array.ndim - ready.ndim)), array, array.dtype.type(np.nan)
            )
            finite |= ~ready
        if not finite.all():
            row = rows[np.argwhere(~finite)[0][0]]
            raise WrongForModel("x", f"row {row} leaves the range of {self.dtype.name}: the output is not finite")
        return np.ascontiguousarray(array)

    def _require_finite_state(self, state: ModelState, rows: Array) -> None:
        """Rejects a state that left the range of the dtype: the next step would make it NaN."""
        for layer, part in zip(self.stateful_layers, state, strict=True):
            for name, array in zip(part._fields, part, strict=True):
                if not all_finite(array):
                    row = rows[np.argwhere(~np.isfinite(array))[0][0]]
                    text = f"{name} of layer {layer.name!r} is no longer finite with this input and state"
                    raise WrongForModel("x", f"row {row} leaves the range of {self.dtype.name}: {text}")

    def _rectangles(self, lengths: Array) -> Iterator[tuple[Array, int, int]]:
        """Yields chunks, as rows and a range of time steps; together they cover the steps of every row.

        A causal model continues from chunk to chunk. Any other gets each row whole.
        """
        if not self.causal:
            for length in np.unique(lengths):
                yield np.flatnonzero(lengths == length), 0, int(length)
            return
        chunk = max(1, min(_CHUNK_STEPS, _CHUNK_BYTES // (len(lengths) * self._width * self.dtype.itemsize)))
        ends = sorted({*lengths.tolist(), *range(chunk, int(lengths.max()), chunk)})
        for start, stop in itertools.pairwise([0, *ends]):
            yield np.flatnonzero(lengths >= stop), start, stop


class _Piece(NamedTuple):
    """The outputs of some rows for a piece of time."""

    rows: Array
    start: int
    outputs: tuple[Array, ...]


def _time_and_width(output: OutputSpec, *, causal: bool) -> tuple[int, int]:
    """Returns the number of time steps of an output, 0 if it depends on the request, and the size of each."""
    sequence = len(output.shape) > 1
    time = output.shape[0] if sequence and not causal else None
    return time or 0, math.prod(length or 1 for length in (output.shape[1:] if sequence else output.shape))


def _width(layer: LayerSpec) -> int:
    """Returns how many numbers per time step a layer holds at once: its gates, its windows or its output."""
    if layer.kind in ("LSTM", "Bidirectional"):
        return max(int(part.weights["kernel"].shape[1]) for part in layer.parts or (layer,))
    windows: int = math.prod(layer.weights["kernel"].shape[:2]) if layer.kind == "Conv1D" else 0
    return max(windows, *(math.prod(length or 1 for length in shape[1:]) for shape in layer.output_shapes))


def _lasts(pieces: list[_Piece], number: int, batch: int) -> Array:
    """Returns the last step of every row of one output."""
    first = pieces[0].outputs[number]
    output = np.empty((batch, *first.shape[1:]), first.dtype)
    for piece in pieces:
        output[piece.rows] = piece.outputs[number]
    return output


def _sequences(pieces: list[_Piece], number: int, batch: int, time: int) -> Array:
    """Returns one output for all rows, zero-padded after each row's last step to `time` steps or to the longest row."""
    time = time or max(piece.outputs[number].shape[1] for piece in pieces)
    first = pieces[0].outputs[number]
    output = np.zeros((batch, time, *first.shape[2:]), first.dtype)
    for piece in pieces:
        made = piece.outputs[number]
        output[piece.rows, piece.start : piece.start + made.shape[1]] = made
    return output


def _never(x: Array) -> Array:
    """Returns False for every row: no step was seen."""
    return np.zeros(len(x), bool)
