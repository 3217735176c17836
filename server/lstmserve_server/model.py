"""A model: a chain of layers with at least one LSTM, and the state that a caller carries for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lstmserve_server.errors import WrongForModel
from lstmserve_server.layers import LSTM, STATELESS
from lstmserve_server.numerics import Numerics, product_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from lstmserve_server.description import ModelDescription
    from lstmserve_server.layers import StatelessLayer
    from lstmserve_server.lstm import LSTMState

    Array = NDArray[Any]

ModelState = tuple["LSTMState", ...]
"""The state of each LSTM layer, in the order of the model."""

# A chunk of a sequence: its largest buffer stays in the second-level cache, and between two a call can be stopped.
_CHUNK_BYTES = 1 << 20
_CHUNK_STEPS = 256

_CALL_COST = 50_000  # multiplications in the time that NumPy's calls of one step take apart from the arithmetic


class Answer(NamedTuple):
    """What `step` and `forward` give."""

    output: Array
    state: ModelState


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
        self._chain: list[LSTM | StatelessLayer] = []
        for layer in description.layers:
            if layer.kind == "LSTM":
                self._chain.append(LSTM(layer, product))
            elif layer.kind in STATELESS:
                self._chain.append(STATELESS[layer.kind](layer, product))
        self.lstms = [layer for layer in self._chain if isinstance(layer, LSTM)]
        self._tail = 1 + max(i for i, layer in enumerate(self._chain) if isinstance(layer, LSTM))
        self.output_features = description.layers[-1].features
        self._width = max(4 * layer.spec.units for layer in self.lstms)

    @property
    def step_obstacle(self) -> str:
        """Why the model cannot be stepped, naming the layer; empty where it can."""
        for layer in self.lstms:
            if layer.backwards:
                return (
                    f"layer {layer.name!r} has go_backwards: it reads a sequence from its end, so there is no answer before "
                    "the whole of it is known"
                )
        return ""

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

    def step(self, x: Array, state: ModelState) -> Answer:
        """Advances every row by one time-step.

        Args:
            x: (batch, features), in the dtype of the model, C-contiguous.
            state: the state before.

        Returns:
            The output, (batch, features), that the Keras model would give if the sequence ended here; and the next state.

        Raises:
            WrongForModel: the model cannot be stepped, or the result is not finite.
        """
        if self.step_obstacle:
            raise WrongForModel("model", f"Step is not possible: {self.step_obstacle}. Forward is.")
        remaining, after = iter(state), []
        with np.errstate(all="ignore"):
            for layer in self._chain:
                if isinstance(layer, LSTM):
                    after.append(layer.step(x, next(remaining)))
                    x = after[-1].h
                else:
                    x = layer.apply(x)
        return self._finite(Answer(x, tuple(after)))

    def forward(
        self,
        x: Array,
        state: ModelState,
        lengths: Array | None = None,
        *,
        all_outputs: bool = False,
        pause: Callable[[], None] = _go_on,
    ) -> Answer:
        """Advances every row by a sequence: equals the loop over `step`, to the last bit in exact mode.

        A causal model computes it in chunks of time, so that memory does not grow with the length.

        Args:
            x: (batch, time, features), in the dtype of the model, C-contiguous, at least one time-step.
            state: the state before.
            lengths: time-steps of each row, (batch,), 1 to time each; None where all have them all.
            all_outputs: whether the output of every step is wanted, rather than that of each row's last.
            pause: called between chunks; may raise to stop.

        Returns:
            The output, (batch, features), or (batch, time, features) with zeros behind a row's own last step; and the
            state after each row's last step.

        Raises:
            WrongForModel: outputs of every step are wanted and the model has none, or the result is not finite.
        """
        if all_outputs and not self.causal and not self.description.returns_sequences:
            raise WrongForModel(
                "all_outputs", f"only the last output exists: {self.step_obstacle}. Ask without all_outputs."
            )
        if lengths is None or (lengths == x.shape[1]).all():
            with np.errstate(all="ignore"):
                return self._finite(self._forward(x, state, None, all_outputs=all_outputs, pause=pause))
        order = np.argsort(-lengths, kind="stable")  # `lstm.forward` wants the rows that run longest first
        place = np.argsort(order, kind="stable")
        with np.errstate(all="ignore"):
            answer = self._forward(x[order], _rows(state, order), lengths[order], all_outputs=all_outputs, pause=pause)
        return self._finite(Answer(answer.output[place], _rows(answer.state, place)))

    def _forward(
        self, x: Array, state: ModelState, lengths: Array | None, *, all_outputs: bool, pause: Callable[[], None]
    ) -> Answer:
        batch, time = x.shape[:2]
        chunk = self._chunk(batch) if self.causal else time
        ends = np.full(batch, time) if lengths is None else lengths
        last = np.empty((batch, self.lstms[-1].spec.units), self.dtype)
        outputs = np.zeros((batch, time, self.output_features), self.dtype) if all_outputs else None
        for start in range(0, int(ends.max()), chunk):
            if start:
                pause()
            stop = min(start + chunk, time)
            part = None if lengths is None else np.clip(lengths - start, 0, stop - start)
            y, state = self._head_forward(x[:, start:stop], state, part)
            ending = np.flatnonzero((ends > start) & (ends <= stop))
            last[ending] = y[ending, ends[ending] - start - 1]
            if outputs is not None:
                outputs[:, start:stop] = self._tail_apply(y)
                if part is not None:
                    outputs[:, start:stop][np.arange(stop - start) >= part[:, None]] = 0
        return Answer(self._tail_apply(last) if outputs is None else outputs, state)

    def _head_forward(self, x: Array, state: ModelState, lengths: Array | None) -> tuple[Array, ModelState]:
        """Runs a chunk through the chain up to the last LSTM."""
        remaining, after = iter(state), []
        for layer in self._chain[: self._tail]:
            if isinstance(layer, LSTM):
                x, new = layer.forward(x, next(remaining), lengths)
                after.append(new)
            else:
                x = layer.apply(x)
        return x, tuple(after)

    def _tail_apply(self, x: Array) -> Array:
        """Runs (..., units) through the layers behind the last LSTM."""
        for layer in self._chain[self._tail :]:
            if not isinstance(layer, LSTM):
                x = layer.apply(x)
        return x

    def _chunk(self, batch: int) -> int:
        return max(1, min(_CHUNK_STEPS, _CHUNK_BYTES // (batch * self._width * self.dtype.itemsize)))

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


def _rows(state: ModelState, index: Array) -> ModelState:
    return tuple(type(part)(part.h[index], part.c[index]) for part in state)


def _first_bad_row(array: Array) -> int:
    return int(np.argwhere(~np.isfinite(array))[0][0])
