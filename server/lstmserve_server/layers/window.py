"""Layers that look at several time-steps at once: convolution and pooling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lstmserve_server.layers.base import StatelessLayer, Values, require_steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lstmserve_server.description import LayerDescription
    from lstmserve_server.numerics import Product

    Array = NDArray[Any]


class _Window(StatelessLayer):
    """A layer whose output at a place depends on a window of steps around it."""

    obstacle = "looks at a window of time-steps, which it would have to be given whole"

    def __init__(self, description: LayerDescription, product: Product) -> None:
        self._name = description.name
        self._size = int(description.options["window"])  # type: ignore[arg-type]  # the rule made these numbers
        self._stride = int(description.options["strides"])  # type: ignore[arg-type]
        self._dilation = int(description.options.get("dilation_rate", 1))  # type: ignore[arg-type]
        self._padding = description.texts["padding"]
        self._product = product

    def _windows(self, x: Array, fill: float) -> Array:
        """Returns (batch, places, features, window), padded with `fill` as Keras does (TensorFlow's rule for "same")."""
        reach = self._dilation * (self._size - 1) + 1
        before = after = 0
        if self._padding == "valid":
            require_steps(self._name, x.shape[1], reach)
        elif self._padding == "causal":
            before = reach - 1
        elif self._padding == "same":
            places = -(-x.shape[1] // self._stride)
            whole = max((places - 1) * self._stride + reach - x.shape[1], 0)
            before, after = whole // 2, whole - whole // 2
        x = np.pad(x, ((0, 0), (before, after), (0, 0)), constant_values=fill)
        windows = np.lib.stride_tricks.sliding_window_view(x, reach, axis=1)
        return windows[:, :: self._stride, :, :: self._dilation]


class Conv1D(_Window):
    """`activation(window W + b)`, each window a row of its own."""

    def __init__(self, description: LayerDescription, product: Product) -> None:
        super().__init__(description, product)
        kernel = description.weights["kernel"]  # (window, features, filters)
        self._kernel = kernel.reshape(-1, kernel.shape[2])
        self._bias = description.weights.get("bias")  # (filters,)
        self._activation = description.activations["activation"]

    def apply(self, values: Values) -> Values:
        """Maps (batch, time, features) to (batch, places, filters)."""
        windows = self._windows(values.array, 0).swapaxes(2, 3)
        rows = np.ascontiguousarray(windows).reshape(*windows.shape[:2], -1)
        y = np.empty((*rows.shape[:2], self._kernel.shape[1]), rows.dtype)
        self._product(rows, self._kernel, y)
        if self._bias is not None:
            np.add(y, self._bias, out=y)
        self._activation.apply(y)
        return Values(y, sequence=True)


class MaxPooling1D(_Window):
    """The largest number of each window."""

    def apply(self, values: Values) -> Values:
        """Maps (batch, time, features) to (batch, places, features)."""
        return Values(self._windows(values.array, -np.inf).max(axis=-1), sequence=True)


class AveragePooling1D(_Window):
    """The mean of each window; of what is padded, only the real steps count."""

    def apply(self, values: Values) -> Values:
        """Maps (batch, time, features) to (batch, places, features)."""
        counts = self._windows(np.ones_like(values.array[:1, :, :1]), 0).sum(axis=-1)
        return Values(self._windows(values.array, 0).sum(axis=-1) / counts, sequence=True)


class GlobalMaxPooling1D(StatelessLayer):
    """The largest number of the whole sequence."""

    obstacle = "takes the largest number of the whole sequence"

    def __init__(self, description: LayerDescription, product: Product) -> None:  # noqa: ARG002 - one signature for all
        self._keepdims = bool(description.options["keepdims"])

    def apply(self, values: Values) -> Values:
        """Maps (batch, time, features) to (batch, features)."""
        return Values(values.array.max(axis=1, keepdims=self._keepdims), sequence=self._keepdims)


class GlobalAveragePooling1D(StatelessLayer):
    """The mean of the whole sequence, over the steps that no mask passes over."""

    obstacle = "takes the mean of the whole sequence"

    def __init__(self, description: LayerDescription, product: Product) -> None:  # noqa: ARG002 - one signature for all
        self._keepdims = bool(description.options["keepdims"])

    def apply(self, values: Values) -> Values:
        """Maps (batch, time, features) to (batch, features)."""
        x, mask = values.array, values.mask
        if mask is None:
            y = x.mean(axis=1, keepdims=self._keepdims)
        else:
            weights = mask[..., None].astype(x.dtype)
            with np.errstate(invalid="ignore"):
                y = (x * weights).sum(axis=1, keepdims=self._keepdims) / weights.sum(axis=1, keepdims=self._keepdims)
        return Values(y, sequence=self._keepdims)
