"""The model that every contender computes: an LSTM and a dense layer, with the same weights, and its inputs.

Knows NumPy alone, so that every environment can import it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FEATURES: Final = 16
UNITS: Final = (32, 128, 512, 1024)
BATCHES: Final = (1, 8, 64)
STEPS: Final = 100

TOLERANCE: Final = 2e-5
"""An answer further from the oracle's than this is wrong. Float32 after 100 steps of 1024 units is off by some 1e-6."""


class Weights(NamedTuple):
    """The weights in Keras' layout, gates i f c o."""

    kernel: Array  # (features, 4 * units)
    recurrent_kernel: Array  # (units, 4 * units)
    bias: Array  # (4 * units,)
    head_kernel: Array  # (units, 1)
    head_bias: Array  # (1,)

    @property
    def units(self) -> int:
        """The number of units."""
        return len(self.recurrent_kernel)


class Inputs(NamedTuple):
    """Input of a contender."""

    x: Array  # (batch, time, features)
    h: Array  # (batch, units)
    c: Array  # (batch, units)


def weights(units: int) -> Weights:
    """Returns the weights of a size: the same everywhere, as they come from a seed."""
    random = np.random.default_rng(units)

    def normal(*shape: int, scale: float) -> Array:
        return (random.normal(size=shape) * scale).astype(np.float32)

    return Weights(
        kernel=normal(FEATURES, 4 * units, scale=0.4),
        recurrent_kernel=normal(units, 4 * units, scale=0.7 / units**0.5),
        bias=normal(4 * units, scale=0.3),
        head_kernel=normal(units, 1, scale=1 / units**0.5),
        head_bias=normal(1, scale=0.1),
    )


def inputs(units: int, batch: int, time: int) -> Inputs:
    """Returns inputs of a shape, the same everywhere."""
    random = np.random.default_rng([units, batch, time])
    x = random.normal(size=(batch, time, FEATURES)).astype(np.float32)
    h = np.tanh(random.normal(size=(batch, units))).astype(np.float32)
    c = random.normal(size=(batch, units)).astype(np.float32)
    return Inputs(x, h, c)
