"""The mathematics of an LSTM layer, as Keras computes it on a CPU.

    z = x K + h R + b                 gates of z on the last axis: i f c o
    c' = sigma(f) * c + sigma(i) * phi(g)
    h' = sigma(o) * phi(c')

with K the kernel, R the recurrent kernel, b the bias, g the third gate of z, phi the `activation` and sigma the
`recurrent_activation` (keras/src/layers/rnn/lstm.py, `LSTMCell.call`). Hochreiter and Schmidhuber 1997, with the forget
gate of Gers et al. 2000. Everything is in the dtype of the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lstmserve_server.model.activations import Activation
from lstmserve_server.model.numerics import Product
from lstmserve_server.model.recording import Steps
from lstmserve_server.model.types import Array


@dataclass(frozen=True, slots=True)
class LSTMSpec:
    """The options of a layer that its mathematics depend on."""

    units: int
    activation: Activation
    recurrent_activation: Activation


class LSTMWeights(NamedTuple):
    """The weights of a layer, as Keras lays them out; gates i f c o on the last axis."""

    kernel: Array  # (features, 4 * units)
    recurrent_kernel: Array  # (units, 4 * units)
    bias: Array | None  # (4 * units,)


class LSTMState(NamedTuple):
    """State of a layer: h and c."""

    h: Array  # (batch, units)
    c: Array  # (batch, units)


def zero_state(spec: LSTMSpec, batch: int, dtype: np.dtype[Any]) -> LSTMState:
    """Returns the state of `batch` new sequences."""
    return LSTMState(np.zeros((batch, spec.units), dtype), np.zeros((batch, spec.units), dtype))


def step(spec: LSTMSpec, weights: LSTMWeights, matmul: Product, x: Array, state: LSTMState) -> LSTMState:
    """Advances every row by one time-step.

    Args:
        spec: options of the layer.
        weights: its weights.
        matmul: how rows are multiplied with a matrix.
        x: (batch, features)
        state: h and c, each (batch, units); left as it is.

    Returns:
        The next state; its h is the output of the layer.
    """
    return Workspace(spec, weights, matmul, len(x)).step(x, state)


def forward(
    spec: LSTMSpec,
    weights: LSTMWeights,
    matmul: Product,
    x: Array,
    state: LSTMState,
    record: Steps | None = None,
) -> tuple[Array, LSTMState]:
    """Advances every row by a sequence: the loop over `step`, to the last bit.

        for t in range(time):
            state = step(spec, weights, product, x[:, t], state)
            outputs[:, t] = state.h

    The products with the kernel are hoisted out of the loop, row by row as before, and the buffers with them.

    Args:
        spec: options of the layer.
        weights: its weights.
        matmul: how rows are multiplied with a matrix.
        x: (batch, time, features)
        state: h and c, each (batch, units); left as it is.
        record: where h and c of every step are to be left; None for nowhere.

    Returns:
        The outputs, (batch, time, units), and the state after the last step.
    """
    batch, time = x.shape[:2]
    cell = Workspace(spec, weights, matmul, batch)
    cell.begin(state)
    projected = np.empty((time, batch, 4 * spec.units), x.dtype)
    matmul(x.swapaxes(0, 1), weights.kernel, projected)
    outputs = np.empty((batch, time, spec.units), x.dtype)
    for t, (x_k, output) in enumerate(zip(projected, outputs.swapaxes(0, 1), strict=True)):
        cell.advance(x_k)
        np.copyto(output, cell.h)
        if record is not None:
            record.h[:, t], record.c[:, t] = cell.h, cell.c
    return outputs, LSTMState(cell.h, cell.c)


def forward_masked(  # noqa: PLR0913 - what a masked sequence is made of
    spec: LSTMSpec,
    weights: LSTMWeights,
    matmul: Product,
    x: Array,
    state: LSTMState,
    mask: Array,
    seen: Array,
    record: Steps | None = None,
    *,
    zero_masked: bool,
) -> tuple[Array, LSTMState]:
    """Advances every row by the unmasked steps of a sequence (`rnn` of the Keras backends).

    At a masked step h and c stay, and the previous output is repeated: zeros if there was none in this
    sequence, whatever h began with.

    Args:
        spec: options of the layer.
        weights: its weights.
        matmul: how rows are multiplied with a matrix.
        x: (batch, time, features)
        state: h and c, each (batch, units); left as it is.
        mask: (batch, time), False at the steps that are passed over.
        seen: (batch,), whether the sequence of a row has had a step that was not passed over.
        record: where h and c of every step are to be left; None for nowhere.
        zero_masked: whether the output is zeros at all steps that are passed over (`zero_output_for_mask`).

    Returns:
        The outputs, (batch, time, units), and the state after the last step.
    """
    advance = Workspace(spec, weights, matmul, len(x)).step
    return step_by_step(advance, x, state, mask, seen, record, zero_masked=zero_masked)


def step_by_step(
    advance: Callable[[Array, LSTMState], LSTMState],
    x: Array,
    state: LSTMState,
    mask: Array,
    seen: Array,
    record: Steps | None,
    *,
    zero_masked: bool,
) -> tuple[Array, LSTMState]:
    """Is `forward_masked`, with `advance` for `step`."""
    batch, time = x.shape[:2]
    outputs = np.zeros((batch, time, state.h.shape[1]), x.dtype)
    h, c = state.h.copy(), state.c.copy()
    shown = np.where(seen[:, None], h, x.dtype.type(0))
    for t in range(time):
        after = advance(np.ascontiguousarray(x[:, t]), LSTMState(h, c))
        here = mask[:, t, None]
        np.copyto(h, after.h, where=here)
        np.copyto(c, after.c, where=here)
        np.copyto(shown, after.h, where=here)
        np.copyto(outputs[:, t], shown, where=here | (not zero_masked))
        if record is not None:
            record.h[:, t], record.c[:, t] = h, c
    return outputs, LSTMState(h, c)


def gates(spec: LSTMSpec, weights: LSTMWeights, matmul: Product, x: Array, h: Array) -> Array:
    """Returns the gates of a step, (batch, 4 * units): i f c o, as `step` computes them.

    Args:
        spec: options of the layer.
        weights: its weights.
        matmul: how rows are multiplied with a matrix.
        x: (batch, features)
        h: (batch, units), before the step.
    """
    cell = Workspace(spec, weights, matmul, len(x))
    cell.begin(LSTMState(h, np.zeros_like(h)))
    cell.activate(cell.project(x))
    return cell.gates.swapaxes(0, 1).reshape(len(x), 4 * spec.units)


class Workspace:
    """Preallocated buffers for stepping `batch` rows in one thread: h, c and the arrays of a step.

    Each gate is contiguous for all rows, where activations are fastest; so the last addition goes from rows to gates.
    """

    def __init__(self, spec: LSTMSpec, weights: LSTMWeights, matmul: Product, batch: int) -> None:
        units, dtype = spec.units, weights.recurrent_kernel.dtype
        self.spec, self.weights, self.batch = spec, weights, batch
        self.h, self.c = np.empty((batch, units), dtype), np.empty((batch, units), dtype)
        self.gates = np.empty((4, batch, units), dtype)  # i f g o
        self._i, self._f, self._g, self._o = self.gates  # (batch, units)
        self._i_f = self.gates[:2]  # (2, batch, units)
        self._x = np.empty((batch, len(weights.kernel)), dtype)
        self._projected = np.empty((batch, 4 * units), dtype)  # x K
        self._sum = np.empty((batch, 4 * units), dtype)  # h R, then x K + h R
        self._sum_by_gate = self._sum.reshape(batch, 4, units).swapaxes(0, 1)  # (4, batch, units): the same numbers
        self._bias = None if weights.bias is None else weights.bias.reshape(4, 1, units)
        self._multiply_x = matmul.bind(self._x, weights.kernel, self._projected)
        self._multiply_h = matmul.bind(self.h, weights.recurrent_kernel, self._sum)
        self._phi, self._sigma = spec.activation.writer, spec.recurrent_activation.writer

    def step(self, x: Array, state: LSTMState) -> LSTMState:
        """Returns the state after `state` and x, (batch, features)."""
        self.begin(state)
        self.advance(self.project(x))
        return LSTMState(self.h.copy(), self.c.copy())

    def begin(self, state: LSTMState) -> None:
        """Sets the state that the rows continue from."""
        np.copyto(self.h, state.h)
        np.copyto(self.c, state.c)

    def project(self, x: Array) -> Array:
        """Returns x K, (batch, 4 * units), of x, (batch, features)."""
        np.copyto(self._x, x)
        self._multiply_x()
        return self._projected

    def activate(self, projected: Array) -> None:
        """Computes the gates from x K, (batch, 4 * units), which is left as it is, and h."""
        self._multiply_h()
        np.add(projected, self._sum, self._sum)
        if self._bias is None:
            np.copyto(self.gates, self._sum_by_gate)
        else:
            np.add(self._sum_by_gate, self._bias, self.gates)
        self._sigma(self._i_f, self._i_f)
        self._phi(self._g, self._g)
        self._sigma(self._o, self._o)

    def advance(self, projected: Array) -> None:
        """Advances h and c by a step, from its x K, (batch, 4 * units)."""
        self.activate(projected)
        np.multiply(self._i, self._g, self._g)
        np.multiply(self._f, self.c, self.c)
        np.add(self.c, self._g, self.c)
        self._phi(self.c, self.h)
        np.multiply(self.h, self._o, self.h)
