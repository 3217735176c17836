"""The layers by the names of their Keras classes. Those that do nothing at inference have none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from lstmserve_server.layers import pointwise, recurrent, shape, window

if TYPE_CHECKING:
    from lstmserve_server.description import LayerDescription
    from lstmserve_server.layers.base import StatelessLayer
    from lstmserve_server.numerics import Product


class _Made(Protocol):
    """Makes a layer without memory of its description."""

    def __call__(self, description: LayerDescription, product: Product) -> StatelessLayer: ...


RECURRENT: Final[dict[str, type[recurrent.LSTM | recurrent.Bidirectional]]] = {
    "LSTM": recurrent.LSTM,
    "Bidirectional": recurrent.Bidirectional,
}

STATELESS: Final[dict[str, _Made]] = {
    "Activation": pointwise.ActivationLayer,
    "AveragePooling1D": window.AveragePooling1D,
    "BatchNormalization": pointwise.BatchNormalization,
    "Conv1D": window.Conv1D,
    "Cropping1D": shape.Cropping1D,
    "Dense": pointwise.Dense,
    "Embedding": pointwise.Embedding,
    "Flatten": shape.Flatten,
    "GlobalAveragePooling1D": window.GlobalAveragePooling1D,
    "GlobalMaxPooling1D": window.GlobalMaxPooling1D,
    "LayerNormalization": pointwise.LayerNormalization,
    "Masking": pointwise.Masking,
    "MaxPooling1D": window.MaxPooling1D,
    "Permute": shape.Permute,
    "RepeatVector": shape.RepeatVector,
    "Rescaling": pointwise.Rescaling,
    "Reshape": shape.Reshape,
    "ZeroPadding1D": shape.ZeroPadding1D,
}
