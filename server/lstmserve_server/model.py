"""A model: a chain of layers with at least one LSTM, and the state that a caller carries for it."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lstmserve_server.errors import WrongForModel
from lstmserve_server.layers.base import Values
from lstmserve_server.layers.kinds import RECURRENT, STATELESS
from lstmserve_server.layers.recurrent import LSTM, Bidirectional
from lstmserve_server.numerics import Numerics, product_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from lstmserve_server.description import LayerDescription, ModelDescription
    from lstmserve_server.layers.base import StatelessLayer
    from lstmserve_server.lstm import LSTMState

    Array = NDArray[Any]

ModelState = tuple["LSTMState", ...]
"""The state of each LSTM layer, in the order of the model."""

# A chunk of a sequence: its largest buffer stays in the second-level cache, and between two a call can be stopped.
_CHUNK_BYTES = 1 << 20
_CHUNK_STEPS = 256

_CALL_COST = 50_000  # multiplications in the time that NumPy's calls of one step take apart from the arithmetic


_FIXES_TIME = ("Flatten", "Reshape", "Permute")  # layers whose weights behind them know the number of time-steps


class Answer(NamedTuple):
    """What `step` and `forward` give."""

    output: Array
    state: ModelState
    steps: Array
    """How many time-steps each row has gone on by, (batch,): those that no mask passed over."""


def _go_on() -> None:
    """Stands for a caller who never wants to stop."""


class RecurrentModel:
    """A chain of layers, ready to compute. It keeps nothing between calls and may be used from several threads."""

    def __init__(self, description: ModelDescription, numerics: Numerics = Numerics.EXACT) -> None:
        self.description = description
        self.numerics = numerics
        self.dtype = description.dtype
        self.features = description.features
        product = product_of(numerics)
        self._chain: list[tuple[str, LSTM | Bidirectional | StatelessLayer]] = []
        for layer in description.layers:
            if layer.kind in RECURRENT:
                self._chain.append((layer.name, RECURRENT[layer.kind](layer, product)))
            elif layer.kind in STATELESS:
                self._chain.append((layer.name, STATELESS[layer.kind](layer, product)))
        self.lstms = [
            part for _, layer in self._chain if isinstance(layer, (LSTM, Bidirectional)) for part in layer.lstms
        ]
        self._width = max(_width(layer) for layer in description.layers)
        self.returns_sequences = len(description.output_shape) > 1
        self.step_obstacle = self._obstacle()
        self.fixed_time = any(layer.kind in _FIXES_TIME for layer in description.layers)
        """Whether a sequence must have exactly as many time-steps as the file declares."""

    @property
    def output_features(self) -> int:
        """Length of the last axis of the output."""
        return int(self.description.output_shape[-1] or 0)

    def output_steps(self, steps: int) -> int:
        """Returns how many time-steps the output has, of so many of the input."""
        known = self.description.output_shape[0] if self.returns_sequences and not self.causal else None
        return steps if known is None else known

    @property
    def causal(self) -> bool:
        """Whether an output depends on no later input, so that a sequence may be cut anywhere."""
        return not self.step_obstacle

    @property
    def bytes_per_step(self) -> int:
        """What a row's time-step takes in memory where a sequence is computed whole: input, gates and output of a layer."""
        return (self.features + 2 * self._width) * self.dtype.itemsize

    def cost(self, rows: int, steps: int) -> int:
        """Returns what a call costs, in multiplications; NumPy's own cost per step counts as some of them."""
        return steps * (rows * self.description.parameter_count + _CALL_COST * len(self.lstms))

    def zero_state(self, batch: int) -> ModelState:
        """Returns the state of `batch` new sequences."""
        return tuple(layer.zero_state(batch) for layer in self.lstms)

    def step(self, x: Array, state: ModelState, seen: Array | None = None) -> Answer:
        """Advances every row by one time-step.

        Args:
            x: (batch, features), in the dtype of the model, C-contiguous.
            state: the state before.
            seen: as in `forward`.

        Returns:
            The output, (batch, features), that the Keras model would give if the sequence ended here; and the next state.

        Raises:
            WrongForModel: the model cannot be stepped, or the result is not finite.
        """
        if self.step_obstacle:
            raise WrongForModel("model", f"Step is not possible: {self.step_obstacle}. Forward is.")
        with np.errstate(all="ignore"):
            return self._finite(self._run(x[:, None], state, _never(x) if seen is None else seen, every=False))

    def forward(
        self,
        x: Array,
        state: ModelState,
        lengths: Array | None = None,
        *,
        all_outputs: bool = False,
        seen: Array | None = None,
        pause: Callable[[], None] = _go_on,
    ) -> Answer:
        """Advances every row by a sequence: equals the loop over `step`, to the last bit in exact mode.

        It is computed in rectangles: rows that all run through a piece of time. Those of a causal model are short, so that
        memory does not grow with the length of the sequence.

        Args:
            x: (batch, time, features), in the dtype of the model, C-contiguous, at least one time-step.
            state: the state before.
            lengths: time-steps of each row, (batch,), 1 to time each; None where all have them all.
            all_outputs: whether the output of every step is wanted, rather than that of each row's last.
            seen: whether the sequence of a row has had a step that no mask passed over, (batch,); None where none has.
            pause: called between rectangles; may raise to stop.

        Returns:
            The output, (batch, features), or (batch, time, features) with zeros behind a row's own last step; and the
            state after each row's last step.

        Raises:
            WrongForModel: outputs of every step are wanted and the model has none, or the result is not finite.
        """
        if all_outputs and not self.causal and not self.returns_sequences:
            raise WrongForModel(
                "all_outputs", f"only the last output exists: {self.step_obstacle}. Ask without all_outputs."
            )
        lengths = np.full(len(x), x.shape[1]) if lengths is None else lengths
        seen = _never(x) if seen is None else seen
        state = tuple(type(part)(part.h.copy(), part.c.copy()) for part in state)
        steps = np.zeros(len(x), np.int64)
        pieces: list[_Piece] = []
        with np.errstate(all="ignore"):
            for rows, start, stop in self._rectangles(lengths):
                if pieces:
                    pause()
                before = tuple(type(part)(part.h[rows], part.c[rows]) for part in state)
                here = seen[rows] | (steps[rows] > 0)
                answer = self._run(x[rows, start:stop], before, here, every=all_outputs)
                for part, new in zip(state, answer.state, strict=True):
                    part.h[rows], part.c[rows] = new.h, new.c
                steps[rows] += answer.steps
                if all_outputs:
                    pieces.append(_Piece(rows, start, answer.output))
                else:
                    ending = lengths[rows] == stop
                    pieces.append(_Piece(rows[ending], 0, answer.output[ending]))
        output = _sequences(pieces, len(x), x.shape[1] if self.causal else 0) if all_outputs else _lasts(pieces, len(x))
        return self._finite(Answer(output, state, steps))

    def _run(self, x: Array, states: ModelState, seen: Array, *, every: bool) -> Answer:
        """Runs a rectangle, (batch, time, features), through the chain.

        The output has a time axis if `every` step is wanted, and none otherwise.
        """
        values, remaining, after = Values(x, sequence=True), list(states), []
        steps = np.full(len(x), x.shape[1])
        for _, layer in self._chain:
            if isinstance(layer, (LSTM, Bidirectional)):
                if values.mask is not None:
                    steps = values.mask.sum(axis=1)
                own, remaining = remaining[: len(layer.lstms)], remaining[len(layer.lstms) :]
                values, new = layer.run(values, own, seen)
                after += new
                if not layer.returns_sequences and not (every and self.causal):
                    values = Values(values.array[:, -1], sequence=False)
            else:
                values = layer.apply(values)
        output = values.array[:, -1] if values.sequence and not every else values.array
        return Answer(np.ascontiguousarray(output), tuple(after), steps)

    def _rectangles(self, lengths: Array) -> Iterator[tuple[Array, int, int]]:
        """Yields rows, and a piece of time that all of them run through; together they cover every row's own steps.

        A causal model goes on from piece to piece. Any other is given each row whole.
        """
        if not self.causal:
            for length in np.unique(lengths):
                yield np.flatnonzero(lengths == length), 0, int(length)
            return
        chunk = max(1, min(_CHUNK_STEPS, _CHUNK_BYTES // (len(lengths) * self._width * self.dtype.itemsize)))
        ends = sorted({*lengths.tolist(), *range(chunk, int(lengths.max()), chunk)})
        for start, stop in itertools.pairwise([0, *ends]):
            yield np.flatnonzero(lengths >= stop), start, stop

    def _obstacle(self) -> str:
        for name, layer in self._chain:
            if layer.obstacle:
                return f"layer {name!r} {layer.obstacle}"
        return ""

    def _finite(self, answer: Answer) -> Answer:
        """Returns the answer, unless it left the range of the numbers: then the next step would make NaN of it."""
        for layer, part in zip(self.lstms, answer.state, strict=True):
            for name, array in (("h", part.h), ("c", part.c)):
                if not np.isfinite(array).all():
                    raise WrongForModel(
                        "x",
                        f"row {_first_bad_row(array)} leaves the range of {self.dtype.name}: {name} of layer {layer.name!r} is no "
                        "longer finite with this input and state",
                    )
        if not np.isfinite(answer.output).all():
            raise WrongForModel(
                "x",
                f"row {_first_bad_row(answer.output)} leaves the range of {self.dtype.name}: the output is not finite",
            )
        return answer


class _Piece(NamedTuple):
    """The output of some rows for a piece of time."""

    rows: Array
    start: int
    output: Array


def _width(layer: LayerDescription) -> int:
    """Returns how many numbers of a time-step a layer holds at once: its gates, its windows or its output."""
    if layer.kind in RECURRENT:
        return max(int(part.weights["kernel"].shape[1]) for part in layer.parts or (layer,))
    windows: int = math.prod(layer.weights["kernel"].shape[:2]) if layer.kind == "Conv1D" else 0
    return max(windows, (layer.output_shape[-1] or 0) if len(layer.output_shape) > 1 else 0)


def _lasts(pieces: list[_Piece], batch: int) -> Array:
    """Returns the last output of every row."""
    output = np.empty((batch, *pieces[0].output.shape[1:]), pieces[0].output.dtype)
    for piece in pieces:
        output[piece.rows] = piece.output
    return output


def _sequences(pieces: list[_Piece], batch: int, time: int) -> Array:
    """Returns the outputs of every row, zeros behind its last; `time` steps of them, or as many as the longest has."""
    time = time or max(piece.output.shape[1] for piece in pieces)
    output = np.zeros((batch, time, *pieces[0].output.shape[2:]), pieces[0].output.dtype)
    for piece in pieces:
        output[piece.rows, piece.start : piece.start + piece.output.shape[1]] = piece.output
    return output


def _never(x: Array) -> Array:
    """Returns, for every row, that its sequence has had no step."""
    return np.zeros(len(x), bool)


def _first_bad_row(array: Array) -> int:
    return int(np.argwhere(~np.isfinite(array))[0][0])
