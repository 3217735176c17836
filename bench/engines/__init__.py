"""Libraries that compute an LSTM. Each module imports one, and makes a function for one shape of input.

    make(variant, weights, batch, time) -> run(x, h, c) -> (outputs, h, c)

x is (batch, time, features), h and c (batch, units), outputs (batch, time, units); NumPy arrays on both sides, as a server
needs them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from bench.subject import Weights

Array = NDArray[Any]
Run = Callable[[Array, Array, Array], tuple[Array, Array, Array]]


def make(engine: str, weights: Weights, batch: int, time: int) -> Run:
    """Returns what computes a shape; `engine` is the name of a module here and of a variant of it, as in "keras:xla"."""
    module, _, variant = engine.partition(":")
    made: Run = importlib.import_module(f"{__name__}.{module}_engine").make(variant, weights, batch, time)
    return made
