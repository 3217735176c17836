"""The right answers, by the plain LSTM that the tests measure the service against, in float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.subject import Inputs, Weights
from tests.support import oracle

Array = NDArray[Any]


class Truth(NamedTuple):
    """Expected results."""

    outputs: Array  # (batch, time, units)
    c: Array  # (batch, units), after the last step
    head: Array  # (batch, 1), of the last step

    @property
    def h(self) -> Array:
        """Returns h after the last step."""
        return self.outputs[:, -1]


def of(weights: Weights, given: Inputs) -> Truth:
    """Returns the right answer to inputs."""
    kernel, recurrent_kernel, bias, head_kernel, head_bias = (array.astype(np.float64) for array in weights)
    plain = oracle.from_keras(kernel, recurrent_kernel, bias, oracle.tanh, oracle.sigmoid)
    batch, time = given.x.shape[:2]
    outputs = np.empty((batch, time, weights.units))
    last_c = np.empty((batch, weights.units))
    for row in range(batch):
        h, c = given.h[row].astype(np.float64), given.c[row].astype(np.float64)
        for t in range(time):
            h, c = plain.step(given.x[row, t].astype(np.float64), h, c)
            outputs[row, t] = h
        last_c[row] = c
    return Truth(outputs, last_c, outputs[:, -1] @ head_kernel + head_bias)


def distance(made: Array, right: Array) -> float:
    """Returns how far an answer is off at most, relative to max(1, |value|); infinite where it has another shape."""
    if made.shape != right.shape:
        return float("inf")
    return float(np.max(np.abs(made - right) / np.maximum(1, np.abs(right))))
