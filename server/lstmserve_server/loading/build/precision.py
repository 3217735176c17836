"""Chooses the dtype a model computes in, and says where Keras would use another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.config.keras_config import LayerConfig
from lstmserve_server.loading.config.keras_graph import CallGraph

_EXACT: Final = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}

_HALF: Final = {"float16": "1e-3", "mixed_float16": "1e-3", "bfloat16": "1e-2", "mixed_bfloat16": "1e-2"}
"""Policies that round to half precision, and how far that takes Keras' own answers from exact ones."""


POLICIES: Final = (*_EXACT, *_HALF)
"""The policies that are served."""


class Precision(NamedTuple):
    """The dtype a model computes in, and remarks about it."""

    dtype: np.dtype[Any]
    remarks: list[str]


def of(graph: CallGraph) -> Precision:
    """Returns the dtype that a model computes in: the widest of its layers, at least float32.

    Raises:
        UnsupportedModelError: a layer computes in a dtype, or has weights of a dtype, that is not supported.
    """
    policies: dict[str, LayerConfig] = {}
    for call in graph.calls:
        # An Embedding of early Keras 2 says int32, the type of what it reads.
        reads_ids = call.layer.kind == "Embedding" and call.layer.options.get("dtype") == "int32"
        if call.inputs and not call.layer.operation and not reads_ids:
            for policy in _policies(call.layer):
                policies.setdefault(policy, call.layer)
    for policy, layer in policies.items():
        if policy not in POLICIES:
            message = (
                f"{layer} computes in {policy}; supported: {', '.join(POLICIES)}. Rebuild the model with "
                "keras.config.set_dtype_policy('float32'), copy the weights with set_weights, and save it again"
            )
            raise UnsupportedModelError(message)
    dtype = np.dtype(np.float64) if "float64" in policies else np.dtype(np.float32)
    remarks = [
        f"Keras computes {layer} in {policy}, and is up to {_HALF[policy]} from exact for it; here it is {dtype.name}"
        for policy, layer in policies.items()
        if policy in _HALF
    ]
    if {"float32", "float64"} <= set(policies):
        remarks.append("Keras computes some layers in float32 and some in float64; here it is float64 for all")
    return Precision(dtype, remarks)


def _policies(layer: LayerConfig) -> Iterator[str]:
    """Yields the dtype policies of a layer and of the layers in it, which do not inherit from a wrapper."""
    yield policy_of(layer.options)
    waiting: list[Any] = [layer.options]
    while waiting:
        options = waiting.pop()
        for name in ("layer", "backward_layer", "cell", "cells"):
            inner = options.get(name)
            for entry in inner if isinstance(inner, list) else [inner]:
                own = entry.get("config") if isinstance(entry, dict) else None
                if isinstance(own, dict):
                    yield policy_of(own)
                    waiting.append(own)


def policy_of(options: Mapping[str, Any]) -> str:
    """Returns the name of the policy that is among a layer's options."""
    policy = options.get("dtype", "float32")
    if isinstance(policy, dict):
        inner = policy.get("config")
        policy = inner.get("name", policy.get("class_name")) if isinstance(inner, dict) else policy.get("class_name")
        if isinstance(policy, str) and policy.startswith(("Quantized", "int8", "int4", "float8")):
            policy = "QuantizedDTypePolicy"
    return "float32" if policy is None else str(policy)
