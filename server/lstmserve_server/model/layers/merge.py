"""Layers that merge several inputs into one output."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from lstmserve_server.model.layers.base import Batch, Layer, LayerInputs, LayerOutputs, LayerState
from lstmserve_server.model.numerics import ComputeConfig
from lstmserve_server.model.spec import LayerSpec
from lstmserve_server.model.types import Array

_ELEMENTWISE: Final[dict[str, Callable[[Array, Array], Array]]] = {
    "Add": np.add,
    "Average": np.add,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
    "Multiply": np.multiply,
    "Subtract": np.subtract,
}


class Merge(Layer):
    """A layer with several inputs of the same rank: `Add` and its relatives, and `Concatenate`."""

    def __init__(self, spec: LayerSpec, compute_config: ComputeConfig) -> None:  # noqa: ARG002 - one signature for all
        self._kind = spec.kind
        self._along_time = spec.options.get("axis") == "time"
        self._masks_with = spec.options.get("mask", "none")
        if self._along_time:
            self.obstacle = (
                "puts one sequence after the other, so there is no answer before the end of the first is known"
            )

    def run(self, given: LayerInputs, before: Sequence[LayerState]) -> LayerOutputs:  # noqa: ARG002 - there is none
        """Maps several (batch, ..., features) to one."""
        values = given.values
        array = self._merged(*(value.array for value in values))
        fresh = next((value.fresh for value in values if value.fresh is not None), None)
        return (Batch(array, values[0].sequence, self._mask(values), fresh, _all_ready(values)),), ()

    def array_function(self) -> Callable[..., Array]:
        """Returns the function that merges."""
        return self._merged

    def _merged(self, *arrays: Array) -> Array:
        if self._kind == "Concatenate":
            return np.concatenate(arrays, axis=1 if self._along_time else -1)
        merged = functools.reduce(_ELEMENTWISE[self._kind], arrays)
        return merged / len(arrays) if self._kind == "Average" else merged

    def _mask(self, values: Sequence[Batch]) -> Array | None:
        """Returns the mask of the output by the rule of the Keras that wrote the model."""
        masks = [value.mask for value in values]
        if self._masks_with == "none" or all(mask is None for mask in masks):
            return None
        whole = [
            np.ones(value.array.shape[:2], bool) if mask is None else mask
            for value, mask in zip(values, masks, strict=True)
        ]
        if self._along_time:
            return np.concatenate(whole, axis=1)
        return functools.reduce(np.logical_or if self._masks_with == "any" else np.logical_and, whole)


def _all_ready(values: Sequence[Batch]) -> Array | None:
    ready = [value.ready for value in values if value.ready is not None]
    return functools.reduce(np.logical_and, ready) if ready else None
