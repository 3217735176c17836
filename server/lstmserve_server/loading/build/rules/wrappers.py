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
        raise r.refuse("gets no sequence: the previous layer returns only the last time step")
    inner = keras_config.inner_layer(r.get("layer"), f"{r.layer}, layer")
    if inner.inside is not None or inner.kind in ("Sequential", "Functional", "Model"):
        raise r.refuse(f"wraps a model ({inner.kind}), which is not supported. Wrap each layer of that model instead")
    if inner.kind in _STATELESS:
        raise r.refuse(f"wraps a {inner.kind}, which is not supported inside it")
    if r.incoming.mask is not None and inner.kind in _HEEDS_MASK:
        raise r.refuse(
            f"wraps a {inner.kind} and is given a mask. Keras fails on such a model: it passes the mask to the "
            "wrapped layer one time step at a time"
        )
    made = plan(r.inner(inner, r.incoming.shape[1:]))
    if len(made.output_shapes) > 1 or made.kind == base.STACK:
        raise r.refuse(f"wraps a {inner.kind} of several outputs or cells, which is not supported")
    shape, below = (r.incoming.shape[0], *made.shape), made.below("layer")
    if inner.kind in _ANY_RANK:
        return r.plan(made.kind, made.options, output_shapes=(shape,), block=below.block, weights=made.weights)
    options = {"sequences": len(r.incoming.shape) > 2}  # noqa: PLR2004 - time and features
    return r.plan("TimeDistributed", options, output_shapes=(shape,), parts=(below,))
