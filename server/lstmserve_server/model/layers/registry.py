"""Layers by the names of their Keras classes. Layers that do nothing at inference have none."""

from __future__ import annotations

from typing import Final, Protocol

from lstmserve_server.model.layers import merge, pointwise, recurrent, reshape, window, wrappers
from lstmserve_server.model.layers.base import Layer
from lstmserve_server.model.numerics import ComputeConfig
from lstmserve_server.model.spec import LayerSpec


class _LayerFactory(Protocol):
    """Makes a layer of its description."""

    def __call__(self, spec: LayerSpec, compute_config: ComputeConfig) -> Layer: ...


LAYERS: Final[dict[str, _LayerFactory]] = {
    "LSTM": recurrent.LSTM,
    "Bidirectional": recurrent.Bidirectional,
    "Activation": pointwise.ActivationLayer,
    "BatchNormalization": pointwise.BatchNormalization,
    "Dense": pointwise.Dense,
    "Embedding": pointwise.Embedding,
    "LayerNormalization": pointwise.LayerNormalization,
    "Masking": pointwise.Masking,
    "Normalization": pointwise.Normalization,
    "PReLU": pointwise.PReLU,
    "Rescaling": pointwise.Rescaling,
    "AveragePooling1D": window.AveragePooling1D,
    "Conv1D": window.Conv1D,
    "GlobalAveragePooling1D": window.GlobalAveragePooling1D,
    "GlobalMaxPooling1D": window.GlobalMaxPooling1D,
    "MaxPooling1D": window.MaxPooling1D,
    "Cropping1D": reshape.Cropping1D,
    "Flatten": reshape.Flatten,
    "Permute": reshape.Permute,
    "RepeatVector": reshape.RepeatVector,
    "Reshape": reshape.Reshape,
    "ZeroPadding1D": reshape.ZeroPadding1D,
    "Add": merge.Merge,
    "Average": merge.Merge,
    "Concatenate": merge.Merge,
    "Maximum": merge.Merge,
    "Minimum": merge.Merge,
    "Multiply": merge.Merge,
    "Subtract": merge.Merge,
}


def make(spec: LayerSpec, compute_config: ComputeConfig) -> Layer | None:
    """Returns the layer of a description, or None where it does nothing at inference."""
    if spec.kind == "TimeDistributed":
        part = spec.parts[0]
        inner = make(part, compute_config)
        return None if inner is None else wrappers.TimeDistributed(inner, of_sequences=bool(spec.options["sequences"]))
    made = LAYERS.get(spec.kind)
    return None if made is None else made(spec, compute_config)
