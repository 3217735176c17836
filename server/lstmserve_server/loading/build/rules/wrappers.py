"""Rules of layers that wrap another layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lstmserve_server.loading.build.rules import base
from lstmserve_server.loading.build.rules.base import LayerConfigReader, LayerPlan
from lstmserve_server.loading.config import keras_config

_ANY_RANK: Final = frozenset(
    "Activation ActivityRegularization AlphaDropout BatchNormalization Dense Dropout ELU GaussianDropout GaussianNoise "
    "LayerNormalization LeakyReLU ReLU Rescaling Softmax SpatialDropout1D ThresholdedReLU".split()
)
"""Layers that do to a sequence what they do to each of its time-steps."""

_STATELESS: Final = ("Embedding", "Masking", "RepeatVector", "InputLayer", "TimeDistributed")
"""Layers that are not served inside a TimeDistributed, alongside those that are not served at all."""


_HEEDS_MASK: Final = ("LSTM", "CuDNNLSTM", "RNN", "Bidirectional", "GlobalAveragePooling1D", "Softmax")


def time_distributed(r: LayerConfigReader, plan: Callable[[LayerConfigReader], LayerPlan]) -> LayerPlan:
    """`TimeDistributed`, of a layer that `plan` plans."""
    if not r.incoming.sequence:
        raise r.refuse("gets no sequence: the layer before it answers the last time-step only")
    inner = keras_config.inner_layer(r.get("layer"), f"{r.layer}, layer")
    if inner.inside is not None or inner.kind in ("Sequential", "Functional", "Model"):
        raise r.refuse(f"wraps a model ({inner.kind}), which is not served; wrap its layers one by one")
    if inner.kind in _STATELESS:
        raise r.refuse(f"wraps a {inner.kind}, which is not served inside it")
    if r.incoming.mask is not None and inner.kind in _HEEDS_MASK:
        raise r.refuse(
            f"wraps a {inner.kind} and is given a mask, which Keras hands to it step by step; that fails there"
        )
    made = plan(r.inner(inner, r.incoming.shape[1:]))
    if len(made.output_shapes) > 1 or made.kind == base.STACK:
        raise r.refuse(f"wraps a {inner.kind} of several outputs or cells, which is not served")
    shape, below = (r.incoming.shape[0], *made.shape), made.below("layer")
    if inner.kind in _ANY_RANK:
        return r.plan(made.kind, made.options, output_shapes=(shape,), block=below.block, weights=made.weights)
    options = {"sequences": len(r.incoming.shape) > 2}  # noqa: PLR2004 - time and features
    return r.plan("TimeDistributed", options, output_shapes=(shape,), parts=(below,))
