"""One step of an LSTM once more, deliberately plain: what the stepper is measured against.

It shares no line and no layout with the product: one matrix (units, input + units) per gate, x and h concatenated, gate
after gate, row after row, in whatever type its inputs are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Function = Callable[[Array], Array]

GATES = ("input", "forget", "candidate", "output")


@dataclass
class PlainLSTM:
    """A matrix and a bias per gate, by the gate's name."""

    matrices: dict[str, Array]  # each (units, input + units)
    biases: dict[str, Array]  # each (units,)
    activation: Function
    recurrent_activation: Function

    def step(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """Advances one row: x (input,), h (units,), c (units,) to the next h and c."""
        together = np.concatenate([x, h])
        sums = {gate: self.matrices[gate] @ together + self.biases[gate] for gate in GATES}
        forget = self.recurrent_activation(sums["forget"])
        write = self.recurrent_activation(sums["input"])
        show = self.recurrent_activation(sums["output"])
        candidate = self.activation(sums["candidate"])
        new_c = forget * c + write * candidate
        new_h = show * self.activation(new_c)
        return new_h, new_c


def from_keras(
    kernel: Array, recurrent_kernel: Array, bias: Array | None, activation: Function, recurrent_activation: Function
) -> PlainLSTM:
    """Returns the plain form of weights in Keras' layout: gates i f c o in blocks of columns."""
    units = recurrent_kernel.shape[0]
    matrices, biases = {}, {}
    for number, gate in enumerate(GATES):
        columns = slice(number * units, (number + 1) * units)
        matrices[gate] = np.concatenate([kernel[:, columns].T, recurrent_kernel[:, columns].T], axis=1)
        biases[gate] = np.zeros(units, kernel.dtype) if bias is None else bias[columns]
    return PlainLSTM(matrices, biases, activation, recurrent_activation)


def tanh(x: Array) -> Array:
    """Returns the hyperbolic tangent."""
    return np.tanh(x)


def sigmoid(x: Array) -> Array:
    """Returns the logistic function."""
    return 1 / (1 + np.exp(-x))
