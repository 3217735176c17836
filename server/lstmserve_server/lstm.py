"""The mathematics of an LSTM layer, as Keras computes it on a CPU.

    z = x K + h R + b                 gates of z on the last axis: i f c o
    c' = sigma(f) * c + sigma(i) * phi(g)
    h' = sigma(o) * phi(c')

with K the kernel, R the recurrent kernel, b the bias, g the third gate of z, phi the `activation` and sigma the
`recurrent_activation` (keras/src/layers/rnn/lstm.py, `LSTMCell.call`). Hochreiter and Schmidhuber 1997, with the forget
gate of Gers et al. 2000. Everything is in the dtype of the weights.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from lstmserve_server.activations import Activation
    from lstmserve_server.numerics import Product
    from lstmserve_server.trace import Steps

    Array = NDArray[Any]


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
    """What a layer remembers."""

    h: Array  # (batch, units)
    c: Array  # (batch, units)


def zero_state(spec: LSTMSpec, batch: int, dtype: np.dtype[Any]) -> LSTMState:
    """Returns the state of `batch` new sequences."""
    return LSTMState(np.zeros((batch, spec.units), dtype), np.zeros((batch, spec.units), dtype))


def step(spec: LSTMSpec, weights: LSTMWeights, product: Product, x: Array, state: LSTMState) -> LSTMState:
    """Advances every row by one time-step.

    Args:
        spec: options of the layer.
        weights: its weights.
        product: how rows are multiplied with a matrix.
        x: (batch, features)
        state: h and c, each (batch, units); left as it is.

    Returns:
        The next state; its h is the output of the layer.
    """
    z = np.empty((len(x), 4 * spec.units), x.dtype)
    recurrent = np.empty_like(z)
    after = LSTMState(np.empty_like(state.h), np.empty_like(state.c))
    product(x, weights.kernel, z)
    _advance(spec, weights, product, z, recurrent, state, after)
    return after


def forward(
    spec: LSTMSpec,
    weights: LSTMWeights,
    product: Product,
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
        product: how rows are multiplied with a matrix.
        x: (batch, time, features)
        state: h and c, each (batch, units); left as it is.
        record: where h and c of every step are to be left; None for nowhere.

    Returns:
        The outputs, (batch, time, units), and the state after the last step.
    """
    batch, time = x.shape[:2]
    projected = np.empty((time, batch, 4 * spec.units), x.dtype)
    product(x.swapaxes(0, 1), weights.kernel, projected)
    recurrent = np.empty((batch, 4 * spec.units), x.dtype)
    outputs = np.empty((batch, time, spec.units), x.dtype)
    state = LSTMState(state.h.copy(), state.c.copy())
    for t in range(time):
        _advance(spec, weights, product, projected[t], recurrent, state, state)
        outputs[:, t] = state.h
        if record is not None:
            record.h[:, t], record.c[:, t] = state
    return outputs, state


def forward_masked(  # noqa: PLR0913 - what a masked sequence is made of
    spec: LSTMSpec,
    weights: LSTMWeights,
    product: Product,
    x: Array,
    state: LSTMState,
    mask: Array,
    seen: Array,
    record: Steps | None = None,
    *,
    zero_masked: bool,
) -> tuple[Array, LSTMState]:
    """Advances every row by the steps of a sequence that a mask does not pass over (`rnn` of the Keras backends).

    At a step that is passed over h and c stay, and the output is the one before it again: zeros if there was none in this
    sequence, whatever h began with.

    Args:
        spec: options of the layer.
        weights: its weights.
        product: how rows are multiplied with a matrix.
        x: (batch, time, features)
        state: h and c, each (batch, units); left as it is.
        mask: (batch, time), False at the steps that are passed over.
        seen: (batch,), whether the sequence of a row has had a step that was not passed over.
        record: where h and c of every step are to be left; None for nowhere.
        zero_masked: whether the output is zeros at all steps that are passed over (`zero_output_for_mask`).

    Returns:
        The outputs, (batch, time, units), and the state after the last step.
    """
    advance = functools.partial(step, spec, weights, product)
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


def gates(spec: LSTMSpec, weights: LSTMWeights, product: Product, x: Array, h: Array) -> Array:
    """Returns the gates of a step, (batch, 4 * units): i f c o, as `step` computes them.

    Args:
        spec: options of the layer.
        weights: its weights.
        product: how rows are multiplied with a matrix.
        x: (batch, features)
        h: (batch, units), before the step.
    """
    z = np.empty((len(x), 4 * spec.units), x.dtype)
    product(x, weights.kernel, z)
    _activate(spec, weights, product, z, np.empty_like(z), h)
    return z


def _advance(
    spec: LSTMSpec,
    weights: LSTMWeights,
    product: Product,
    z: Array,  # (batch, 4 * units): x K; overwritten
    recurrent: Array,  # (batch, 4 * units): overwritten
    before: LSTMState,
    after: LSTMState,  # written; may be `before`
) -> None:
    i, f, g, o = _activate(spec, weights, product, z, recurrent, before.h)
    np.multiply(i, g, out=g)
    np.multiply(f, before.c, out=after.c)
    np.add(after.c, g, out=after.c)
    np.copyto(after.h, after.c)
    spec.activation.apply(after.h)
    np.multiply(after.h, o, out=after.h)


def _activate(
    spec: LSTMSpec,
    weights: LSTMWeights,
    product: Product,
    z: Array,  # (batch, 4 * units): x K; becomes the gates
    recurrent: Array,  # (batch, 4 * units): overwritten
    h: Array,  # (batch, units)
) -> tuple[Array, Array, Array, Array]:
    u = spec.units
    product(h, weights.recurrent_kernel, recurrent)
    np.add(z, recurrent, out=z)
    if weights.bias is not None:
        np.add(z, weights.bias, out=z)

    i, f, g, o = z[:, :u], z[:, u : 2 * u], z[:, 2 * u : 3 * u], z[:, 3 * u :]
    if spec.recurrent_activation.along_axis:
        spec.recurrent_activation.apply(i)
        spec.recurrent_activation.apply(f)
    else:
        spec.recurrent_activation.apply(z[:, : 2 * u])
    spec.activation.apply(g)
    spec.recurrent_activation.apply(o)
    return i, f, g, o
