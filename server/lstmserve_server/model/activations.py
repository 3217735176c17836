"""Activation functions of Keras by name, as the Keras version that wrote the model defines them.

Each works in place on an array of any shape. Only softmax and its relatives read more than one element, along the last axis.
Definitions: keras/src/activations/activations.py (3.x) and keras/activations.py (2.x).
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy import special

from lstmserve_server.model.types import Array


class KerasMajor(enum.Enum):
    """Major version of Keras that wrote a model; a few names differ in meaning."""

    KERAS_2 = 2
    """Keras 1.x and 2.x, tf.keras up to 2.15, tf_keras."""

    KERAS_3 = 3


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation function, ready to be applied."""

    name: str
    """Names the definition, not only what the file calls it: two activations are equal if their names are."""

    apply: Callable[[Array], None]
    """Replaces the elements of an array by their images."""

    bound: float = math.inf
    """No image is larger than this in magnitude."""

    into: Callable[[Array, Array], object] | None = None
    """Writes the images of an array into another one or into itself, where there is something that does so at once."""

    @property
    def writer(self) -> Callable[[Array, Array], object]:
        """Function that writes the activations of an array into another array or into itself."""
        return self.into or self._write

    def _write(self, x: Array, out: Array) -> None:
        if out is not x:
            np.copyto(out, x)
        self.apply(out)


def find(name: str, era: KerasMajor) -> Activation | None:
    """Returns the activation that `name` means in a major version of Keras; None if it has none of this name."""
    if era is KerasMajor.KERAS_2:
        return _KERAS_2.get(name)
    return _KERAS_3.get(name)


def activation_by_definition(name: str) -> Activation | None:
    """Returns the activation whose own name, `Activation.name`, is `name`."""
    found = _BY_DEFINITION.get(name)
    if found is not None:
        return found
    numbers = _NUMBERS.findall(name)
    if name.startswith("elu(") and len(numbers) == 1:
        return elu(float(numbers[0]))
    if name.startswith("relu(") and 2 <= len(numbers) <= 3:  # noqa: PLR2004 - as `relu` writes them
        slope, threshold, *most = map(float, numbers)
        return relu(slope, threshold, most[0] if most else None)
    return None


def relu(negative_slope: float = 0, threshold: float = 0, max_value: float | None = None) -> Activation:
    """Returns `relu` with arguments: x above the threshold, `negative_slope * (x - threshold)` up to it, at most `max_value`."""
    if (negative_slope, threshold) == (0, 0) and max_value in (None, 6):
        return _COMMON["relu"] if max_value is None else _KERAS_3["relu6"]

    def apply(x: Array) -> None:
        below = np.minimum(x - x.dtype.type(threshold), 0) * x.dtype.type(negative_slope) if negative_slope else 0
        x *= x > threshold
        np.clip(x, 0, None if max_value is None else x.dtype.type(max_value), out=x)
        np.add(x, below, out=x)

    name = f"relu(negative_slope={negative_slope!r}, threshold={threshold!r}"
    most = "" if max_value is None else f", max_value={max_value!r}"
    return Activation(f"{name}{most})", apply)


def elu(alpha: float = 1) -> Activation:
    """Returns `elu`: x above zero, `alpha * (exp(x) - 1)` below."""
    if alpha == 1:
        return _COMMON["elu"]

    def apply(x: Array) -> None:
        below = x < 0
        np.expm1(x, out=x, where=below)
        np.multiply(x, x.dtype.type(alpha), out=x, where=below)

    return Activation(f"elu({alpha!r})", apply)


def fast_variant(activation: Activation) -> Activation:
    """Returns the activation of fast mode: equal up to rounding, and faster for many elements."""
    return _FAST.get(activation.name, activation)


def names(era: KerasMajor) -> list[str]:
    """Returns the names that `find` knows."""
    return sorted(_KERAS_2 if era is KerasMajor.KERAS_2 else _KERAS_3)


def _linear(x: Array) -> None:
    pass


def _sigmoid(x: Array) -> None:
    # Not 0.5 * tanh(x / 2) + 0.5, which is faster and is zero where the sigmoid is 1e-8.
    special.expit(x, out=x)


def _fast_sigmoid(x: Array, out: Array) -> None:
    if x.size < _MIN_FAST_ELEMENTS:
        special.expit(x, out)
        return
    # NumPy's exp computes many elements at once, and is some units in the last place off. This keeps the tail.
    np.negative(x, out)
    with np.errstate(over="ignore"):
        np.exp(out, out)
    np.add(out, 1, out)
    np.reciprocal(out, out)


def _tanh(x: Array) -> None:
    np.tanh(x, out=x)


def _relu(x: Array) -> None:
    np.maximum(x, 0, out=x)


def _relu6(x: Array) -> None:
    np.clip(x, 0, 6, out=x)


def _leaky_relu(x: Array) -> None:
    np.multiply(x, 0.2, out=x, where=x < 0)


def _elu(x: Array) -> None:
    np.expm1(x, out=x, where=x < 0)


def _selu(x: Array) -> None:
    scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    _elu(x)
    np.multiply(x, alpha, out=x, where=x < 0)
    np.multiply(x, scale, out=x)


def _exponential(x: Array) -> None:
    np.exp(x, out=x)


def _softplus(x: Array) -> None:
    np.logaddexp(x, 0, out=x)


def _softsign(x: Array) -> None:
    np.divide(x, np.abs(x) + 1, out=x)


def _silu(x: Array) -> None:
    np.multiply(x, special.expit(x), out=x)


def _gelu(x: Array) -> None:
    # The exact one: Keras approximates by tanh only where an argument says so, which no name can.
    # erfc(-x) rather than 1 + erf(x), which cancels far to the left.
    gate = special.erfc(x * -math.sqrt(0.5))
    gate *= 0.5
    np.multiply(x, gate, out=x)


def _mish(x: Array) -> None:
    softplus = x.copy()
    _softplus(softplus)
    np.multiply(x, np.tanh(softplus), out=x)


def _hard_sigmoid_fifth(x: Array) -> None:
    np.multiply(x, 0.2, out=x)
    np.add(x, 0.5, out=x)
    np.clip(x, 0, 1, out=x)


def _hard_sigmoid_sixth(x: Array) -> None:
    # relu6(x + 3) / 6 rather than x / 6 + 0.5: the two round differently, and Keras 3 computes this one.
    np.add(x, 3, out=x)
    np.clip(x, 0, 6, out=x)
    np.divide(x, 6, out=x)


def _hard_silu(x: Array) -> None:
    gate = x.copy()
    _hard_sigmoid_sixth(gate)
    np.multiply(x, gate, out=x)


def _hard_tanh(x: Array) -> None:
    np.clip(x, -1, 1, out=x)


def _hard_shrink(x: Array) -> None:
    x[np.abs(x) <= 0.5] = 0  # noqa: PLR2004 - Keras' default threshold


def _soft_shrink(x: Array) -> None:
    np.subtract(x, np.clip(x, -0.5, 0.5), out=x)


def _tanh_shrink(x: Array) -> None:
    np.subtract(x, np.tanh(x), out=x)


def _squareplus(x: Array) -> None:
    root = np.square(x)
    root += 4
    np.sqrt(root, out=root)
    np.add(x, root, out=x)
    np.multiply(x, 0.5, out=x)


def _sparse_plus(x: Array) -> None:
    np.copyto(x, np.where(x < 1, np.square(np.maximum(x, -1) + 1) * 0.25, x))


def _sparse_sigmoid(x: Array) -> None:
    np.clip(x, -1, 1, out=x)
    np.add(x, 1, out=x)
    np.multiply(x, 0.5, out=x)


def _log_sigmoid(x: Array) -> None:
    special.log_expit(x, out=x)


def _softmax(x: Array) -> None:
    np.subtract(x, x.max(axis=-1, keepdims=True), out=x)
    np.exp(x, out=x)
    np.divide(x, x.sum(axis=-1, keepdims=True), out=x)


def _log_softmax(x: Array) -> None:
    np.subtract(x, x.max(axis=-1, keepdims=True), out=x)
    np.subtract(x, np.log(np.exp(x).sum(axis=-1, keepdims=True)), out=x)


def _sparsemax(x: Array) -> None:
    # What Keras computes (keras/src/backend/*/nn.py), which is not quite the projection of Martins and Astudillo 2016: its
    # threshold adds up all the partial sums of the support where theirs has the last one, so the images need not add up to 1.
    falling = -np.sort(-x, axis=-1)
    sums = np.cumsum(falling, axis=-1)
    support = falling - (sums - 1) / np.arange(1, x.shape[-1] + 1, dtype=x.dtype) > 0
    total = np.where(support, sums, 0).sum(axis=-1, keepdims=True) - 1
    np.maximum(x - total / support.sum(axis=-1, keepdims=True).astype(x.dtype), 0, out=x)


_COMMON: Final = {
    "elu": Activation("elu", _elu),
    "exponential": Activation("exponential", _exponential),
    "gelu": Activation("gelu", _gelu),
    "linear": Activation("linear", _linear),
    "mish": Activation("mish", _mish),
    "relu": Activation("relu", _relu),
    "selu": Activation("selu", _selu),
    "sigmoid": Activation("sigmoid", _sigmoid, bound=1, into=special.expit),
    "softmax": Activation("softmax", _softmax, bound=1),
    "softplus": Activation("softplus", _softplus),
    "softsign": Activation("softsign", _softsign, bound=1),
    "swish": Activation("silu", _silu),
    "tanh": Activation("tanh", _tanh, bound=1, into=np.tanh),
}

_MIN_FAST_ELEMENTS: Final = 1024  # elements, from which on four calls of NumPy are faster than one of SciPy

_FAST: Final = {"sigmoid": replace(_COMMON["sigmoid"], into=_fast_sigmoid)}

_KERAS_2: Final = _COMMON | {
    "hard_sigmoid": Activation("hard_sigmoid(x/5+1/2)", _hard_sigmoid_fifth, bound=1),
}

_KERAS_3: Final = _COMMON | {
    "celu": Activation("elu", _elu),
    "hard_shrink": Activation("hard_shrink", _hard_shrink),
    "hard_sigmoid": Activation("hard_sigmoid(x/6+1/2)", _hard_sigmoid_sixth, bound=1),
    "hard_silu": Activation("hard_silu", _hard_silu),
    "hard_swish": Activation("hard_silu", _hard_silu),
    "hard_tanh": Activation("hard_tanh", _hard_tanh, bound=1),
    "leaky_relu": Activation("leaky_relu(0.2)", _leaky_relu),
    "log_sigmoid": Activation("log_sigmoid", _log_sigmoid),
    "log_softmax": Activation("log_softmax", _log_softmax),
    "relu6": Activation("relu6", _relu6, bound=6),
    "silu": Activation("silu", _silu),
    "soft_shrink": Activation("soft_shrink", _soft_shrink),
    "sparse_plus": Activation("sparse_plus", _sparse_plus),
    "sparse_sigmoid": Activation("sparse_sigmoid", _sparse_sigmoid, bound=1),
    "sparsemax": Activation("sparsemax", _sparsemax),
    "squareplus": Activation("squareplus", _squareplus),
    "tanh_shrink": Activation("tanh_shrink", _tanh_shrink),
}

_NUMBERS: Final = re.compile(r"(?<=[=(])-?[0-9.]+(?:e[-+]?[0-9]+)?")

_BY_DEFINITION: Final = {activation.name: activation for activation in (*_KERAS_2.values(), *_KERAS_3.values())}
