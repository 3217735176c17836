"""An LSTM as textbooks have it: four gates, each with matrices of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.engines import Run
from bench.subject import Weights

Array = NDArray[Any]


def sigmoid(x: Array) -> Array:
    """Returns the logistic function."""
    return 1 / (1 + np.exp(-x))


def make(variant: str, weights: Weights, batch: int, time: int) -> Run:  # noqa: ARG001 - as all engines
    """Returns the loop over steps."""
    u = weights.units
    gates = [slice(n * u, (n + 1) * u) for n in range(4)]
    w_i, w_f, w_g, w_o = (np.ascontiguousarray(weights.kernel[:, gate]) for gate in gates)
    u_i, u_f, u_g, u_o = (np.ascontiguousarray(weights.recurrent_kernel[:, gate]) for gate in gates)
    b_i, b_f, b_g, b_o = (weights.bias[gate] for gate in gates)

    def run(x: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        outputs = []
        for t in range(x.shape[1]):
            x_t = x[:, t]
            i = sigmoid(x_t @ w_i + h @ u_i + b_i)
            f = sigmoid(x_t @ w_f + h @ u_f + b_f)
            g = np.tanh(x_t @ w_g + h @ u_g + b_g)
            o = sigmoid(x_t @ w_o + h @ u_o + b_o)
            c = f * c + i * g
            h = o * np.tanh(c)
            outputs.append(h)
        return np.stack(outputs, axis=1), h, c

    return run
