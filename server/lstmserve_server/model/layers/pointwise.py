"""Layers that work on every time step by itself: the last axis in, the last axis out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lstmserve_server.model.layers.base import Batch, StatelessLayer
from lstmserve_server.model.numerics import ComputeConfig
from lstmserve_server.model.spec import LayerSpec
from lstmserve_server.model.types import Array


class Pointwise(StatelessLayer):
    """A layer that keeps all axes but the last."""

    def __init__(self, spec: LayerSpec, compute_config: ComputeConfig) -> None:
        self._weights = spec.weights
        self._options = spec.options
        self._activations = spec.activations
        self._matmul = compute_config.matmul

    def apply(self, values: Batch) -> Batch:
        """Applies `compute` to the array, and passes the mask on."""
        return values.replace_array(self.compute(values.array))

    def array_function(self) -> Callable[[Array], Array]:
        """Returns `compute`."""
        return self.compute

    def compute(self, x: Array) -> Array:
        """Maps (..., features) to (..., other features); leaves `x` as it is."""
        raise NotImplementedError


class Dense(Pointwise):
    """`activation(x W + b)`."""

    def compute(self, x: Array) -> Array:
        """Maps (..., features) to (..., units)."""
        kernel, bias = self._weights["kernel"], self._weights.get("bias")
        y = np.empty((*x.shape[:-1], kernel.shape[1]), x.dtype)
        self._matmul(x, kernel, y)
        if bias is not None:
            np.add(y, bias, out=y)
        self._activations["activation"].apply(y)
        return y


class ActivationLayer(Pointwise):
    """An activation function as a layer of its own."""

    def compute(self, x: Array) -> Array:
        """Maps (..., features) to the same shape."""
        y = x.copy()
        self._activations["activation"].apply(y)
        return y


class BatchNormalization(Pointwise):
    """`(x - mean) / sqrt(variance + epsilon) * gamma + beta`, with the mean and variance of the training."""

    def __init__(self, spec: LayerSpec, compute_config: ComputeConfig) -> None:
        super().__init__(spec, compute_config)
        w, dtype = spec.weights, spec.weights["moving_mean"].dtype
        scale = 1 / np.sqrt(w["moving_variance"] + dtype.type(spec.options["epsilon"]))
        self._scale = scale * w["gamma"] if "gamma" in w else scale
        self._shift = w.get("beta", dtype.type(0)) - w["moving_mean"] * self._scale

    def compute(self, x: Array) -> Array:
        """Maps (..., features) to the same shape."""
        y: Array = x * self._scale
        y += self._shift
        return y


class LayerNormalization(Pointwise):
    """`(x - mean) / sqrt(variance + epsilon) * gamma + beta` over the features of each time-step."""

    def compute(self, x: Array) -> Array:
        """Maps (..., features) to the same shape."""
        y: Array = x - x.mean(axis=-1, keepdims=True)
        variance = np.square(y).mean(axis=-1, keepdims=True)
        y *= 1 / np.sqrt(variance + x.dtype.type(self._options["epsilon"]))
        if "gamma" in self._weights:
            y *= self._weights["gamma"]
        if "beta" in self._weights:
            y += self._weights["beta"]
        return y


class Rescaling(Pointwise):
    """`x * scale + offset`, or `x / divisor`."""

    def compute(self, x: Array) -> Array:
        """Maps (..., features) to the same shape."""
        if "divisor" in self._options:
            return x / x.dtype.type(self._options["divisor"])  # type: ignore[no-any-return]
        y: Array = x * x.dtype.type(self._options["scale"])
        y += x.dtype.type(self._options["offset"])
        return y


class Normalization(Pointwise):
    """`(x - mean) / max(sqrt(variance), epsilon)`, with the mean and variance of `adapt()` or the file; or its inverse."""

    def __init__(self, spec: LayerSpec, compute_config: ComputeConfig) -> None:
        super().__init__(spec, compute_config)
        w = spec.weights
        self._scale = np.maximum(np.sqrt(w["variance"]), compute_config.dtype.type(spec.options["epsilon"]))
        self._mean = w["mean"]
        self._invert = bool(spec.options["invert"])

    def compute(self, x: Array) -> Array:
        """Maps (..., features) to the same shape."""
        y: Array = x * self._scale + self._mean if self._invert else (x - self._mean) / self._scale
        return y


class PReLU(Pointwise):
    """`x` above zero and `alpha * x` below, with an alpha for each feature."""

    def compute(self, x: Array) -> Array:
        """Maps (..., features) to the same shape."""
        y = x.copy()
        np.multiply(y, self._weights["alpha"], out=y, where=y < 0)
        return y


class Embedding(StatelessLayer):
    """A vector for each token id."""

    def __init__(self, spec: LayerSpec, compute_config: ComputeConfig) -> None:  # noqa: ARG002 - one signature for all
        self._vectors = spec.weights["embeddings"]  # (input_dim, features)
        self._mask_zero = bool(spec.options["mask_zero"])

    def apply(self, values: Batch) -> Batch:
        """Maps (batch, time), whole numbers below input_dim, to (batch, time, features)."""
        mask = values.array.astype(np.intp) != 0 if self._mask_zero else None
        return Batch(self._look_up(values.array), values.sequence, mask)

    def array_function(self) -> Callable[[Array], Array] | None:
        """Returns the lookup, if no id is masked."""
        return None if self._mask_zero else self._look_up

    def _look_up(self, ids: Array) -> Array:
        vectors: Array = self._vectors[ids.astype(np.intp)]
        return vectors


class Masking(StatelessLayer):
    """Masks the time steps in which every feature has a certain value."""

    def __init__(self, spec: LayerSpec, compute_config: ComputeConfig) -> None:  # noqa: ARG002 - one signature for all
        self._value = float(spec.options["mask_value"])  # type: ignore[arg-type]  # the rule made it a number

    def apply(self, values: Batch) -> Batch:
        """Returns (batch, time, features) with zeros at the masked steps."""
        mask = (values.array != values.array.dtype.type(self._value)).any(axis=-1)
        return Batch(values.array * mask[..., None], values.sequence, mask)
