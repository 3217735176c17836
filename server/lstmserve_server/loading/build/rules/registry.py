"""Rules by the names of Keras classes. A class without a rule is refused here.

A new layer is a rule in this package, a line in `RULES`, and a class in `model.layers`; one with weights is also in `WITH_WEIGHTS`.
ARCHITECTURE.md has the whole list ("How to add").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.build.rules import (
    activations,
    base,
    merge,
    pointwise,
    recurrent,
    refusal_reasons,
    reshape,
    window,
    wrappers,
)
from lstmserve_server.loading.build.rules.base import LayerConfigReader, LayerPlan
from lstmserve_server.loading.config.keras_config import LayerConfig


def plan(reading: LayerConfigReader) -> LayerPlan:
    """Returns the plan of a layer.

    Raises:
        UnsupportedModelError: the kind of layer or one of its options is not supported, or an option is not valid.
    """
    rule = RULES.get(reading.layer.kind)
    if rule is None:
        raise UnsupportedModelError(refusal_of(reading.layer))
    if len(reading.incomings) > 1 + reading.states and rule not in (merge.elementwise, merge.concatenate):
        raise reading.refuse(f"is called on {len(reading.incomings)} tensors; expected one")
    made = rule(reading)
    base.require_known_options(reading)
    return made


def refusal_of(layer: LayerConfig) -> str:
    """Returns the reason why a kind of layer is refused."""
    why = refusal_reasons.REASONS.get(layer.kind, f"supported: {', '.join(RULES)}")
    return f"{layer} is of a kind that is not supported: {why}"


RULES: Final[dict[str, Callable[[LayerConfigReader], LayerPlan]]] = {
    "InputLayer": pointwise.nothing,
    "LSTM": recurrent.lstm,
    "CuDNNLSTM": recurrent.cudnn_lstm,
    "RNN": recurrent.rnn,
    "Bidirectional": recurrent.bidirectional,
    "TimeDistributed": lambda r: wrappers.time_distributed(r, plan),
    "Dense": pointwise.dense,
    "Embedding": pointwise.embedding,
    "Masking": pointwise.masking,
    **dict.fromkeys(activations.LAYERS, activations.layer),
    "PReLU": pointwise.prelu,
    "BatchNormalization": pointwise.batch_normalization,
    "LayerNormalization": pointwise.layer_normalization,
    "Normalization": pointwise.normalization,
    "Rescaling": pointwise.rescaling,
    "Conv1D": window.conv,
    "MaxPooling1D": window.pooling,
    "AveragePooling1D": window.pooling,
    "GlobalMaxPooling1D": window.global_pooling,
    "GlobalAveragePooling1D": window.global_pooling,
    "Flatten": reshape.flatten,
    "Reshape": reshape.reshape,
    "Permute": reshape.permute,
    "RepeatVector": reshape.repeat,
    "ZeroPadding1D": reshape.padding,
    "Cropping1D": reshape.cropping,
    "Add": merge.elementwise,
    "Subtract": merge.elementwise,
    "Multiply": merge.elementwise,
    "Average": merge.elementwise,
    "Maximum": merge.elementwise,
    "Minimum": merge.elementwise,
    "Concatenate": merge.concatenate,
    "Dropout": pointwise.dropout,
    "SpatialDropout1D": pointwise.dropout,
    "AlphaDropout": pointwise.dropout,
    "GaussianDropout": pointwise.dropout,
    "GaussianNoise": pointwise.noise,
    "ActivityRegularization": pointwise.nothing,
    "Identity": pointwise.identity,
}
"""The kinds of layers that are served."""

WITH_WEIGHTS: Final = frozenset(
    "LSTM CuDNNLSTM RNN Bidirectional Dense TimeDistributed Embedding BatchNormalization LayerNormalization Normalization "
    "Conv1D PReLU Sequential Functional Model".split()
)
"""The kinds of layers that have weights."""
