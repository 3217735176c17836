"""The layers of a chain, one small class per kind: those without memory, and the LSTM around `lstm`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lstmserve_server import lstm
from lstmserve_server.activations import Activation
from lstmserve_server.lstm import LSTMSpec, LSTMState, LSTMWeights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lstmserve_server.description import LayerDescription
    from lstmserve_server.numerics import Product

    Array = NDArray[Any]


class StatelessLayer(Protocol):
    """A layer without memory: the same function for every row and every time-step."""

    def apply(self, x: Array) -> Array:
        """Maps (..., features) to (..., other features); leaves `x` as it is."""
        ...


class Dense:
    """`activation(x W + b)`."""

    def __init__(self, description: LayerDescription, product: Product) -> None:
        self._kernel = description.weights["kernel"]  # (features, units)
        self._bias = description.weights.get("bias")  # (units,)
        self._activation = _activation(description, "activation")
        self._product = product

    def apply(self, x: Array) -> Array:
        """Maps (..., features) to (..., units)."""
        y = np.empty((*x.shape[:-1], self._kernel.shape[1]), x.dtype)
        self._product(x, self._kernel, y)
        if self._bias is not None:
            np.add(y, self._bias, out=y)
        self._activation.apply(y)
        return y


class ActivationLayer:
    """An activation function as a layer of its own."""

    def __init__(self, description: LayerDescription, product: Product) -> None:  # noqa: ARG002 - one signature for all
        self._activation = _activation(description, "activation")

    def apply(self, x: Array) -> Array:
        """Maps (..., features) to the same shape."""
        y = x.copy()
        self._activation.apply(y)
        return y


class LSTM:
    """An LSTM layer: `lstm` with the options and weights of a description."""

    def __init__(self, description: LayerDescription, product: Product) -> None:
        self.name = description.name
        self.backwards = bool(description.options["go_backwards"])
        self.spec = LSTMSpec(
            units=description.features,
            activation=_activation(description, "activation"),
            recurrent_activation=_activation(description, "recurrent_activation"),
        )
        self.weights = LSTMWeights(
            description.weights["kernel"], description.weights["recurrent_kernel"], description.weights.get("bias")
        )
        self._product = product

    @property
    def h_bound(self) -> float:
        """No h that this layer computes is larger in magnitude: both factors of h' are images of its activations."""
        return self.spec.activation.bound * self.spec.recurrent_activation.bound

    def zero_state(self, batch: int) -> LSTMState:
        """Returns the state of `batch` new sequences."""
        return lstm.zero_state(self.spec, batch, self.weights.kernel.dtype)

    def step(self, x: Array, state: LSTMState) -> LSTMState:
        """Advances every row by (batch, features); the next h is the output."""
        return lstm.step(self.spec, self.weights, self._product, x, state)

    def forward(self, x: Array, state: LSTMState, lengths: Array | None) -> tuple[Array, LSTMState]:
        """Advances every row by a sequence.

        Args:
            x: (batch, time, features)
            state: h and c, each (batch, units).
            lengths: time-steps of each row, (batch,), 0 to time, falling; None where all have them all.

        Returns:
            The outputs in the order of processing, (batch, time, units), zeros behind the end of a row, and the next
            state.
        """
        if self.backwards:
            x = _reversed_in_time(x, lengths)
        running = None if lengths is None else [int((lengths > t).sum()) for t in range(x.shape[1])]
        return lstm.forward(self.spec, self.weights, self._product, x, state, running)


STATELESS: dict[str, type[Dense | ActivationLayer]] = {"Dense": Dense, "Activation": ActivationLayer}
"""Layers without memory, by the name of their Keras class; those that do nothing at inference have none."""


def _activation(description: LayerDescription, option: str) -> Activation:
    activation = description.options[option]
    if not isinstance(activation, Activation):
        message = f"option {option} of layer {description.name} is {activation!r}; expected an activation"
        raise TypeError(message)
    return activation


def _reversed_in_time(x: Array, lengths: Array | None) -> Array:
    """Returns (batch, time, features) with each row's own steps in reverse order, and what is behind them in place."""
    if lengths is None:
        return np.ascontiguousarray(x[:, ::-1])
    t = np.arange(x.shape[1])
    index = np.where(t < lengths[:, None], lengths[:, None] - 1 - t, t)
    return np.take_along_axis(x, index[:, :, None], axis=1)
