"""A configuration and a place where weights are, to a checked description."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lstmserve_server.description import LayerDescription, ModelDescription
from lstmserve_server.errors import ModelRefused
from lstmserve_server.loading import keras_config, layer_rules
from lstmserve_server.loading.layer_rules import RULES, Values

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from lstmserve_server.description import Source
    from lstmserve_server.loading.keras_config import LayerConfig, ModelConfig
    from lstmserve_server.loading.limits import Limits


class Weights(Protocol):
    """Where a format keeps the weights of a layer. Every method raises `ModelRefused` where they are not as expected."""

    def read(
        self, layer: LayerConfig, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype[Any]
    ) -> dict[str, NDArray[Any]]:
        """Returns the weights of a layer, each of its shape, in `dtype`, finite and read-only."""
        ...

    def features_of(self, layer: LayerConfig) -> int:
        """Returns how many features a layer reads: the length of the first axis of its first weight."""
        ...


@dataclass(frozen=True, slots=True)
class KerasFile:
    """An open file of any format: what it configures, and where its weights are."""

    config: ModelConfig
    weights: Weights
    source: Source


def describe(file: KerasFile, limits: Limits, only_layer: str | None) -> ModelDescription:
    """Returns the description of a whole model, or of one LSTM layer of it.

    Raises:
        ModelRefused: something in it cannot be served as Keras would compute it.
    """
    config, weights, source = file.config, file.weights, file.source
    era = keras_config.era_of(source.keras_version)
    chain = _whole(config) if only_layer is None else (_one(config, only_layer),)
    dtype = _common_dtype(chain)
    shape = _input_shape(config, chain) if only_layer is None else None
    features = _features(shape, chain, weights, limits)
    values, layers, total = Values(features, sequence=True), [], 0
    for layer in chain:
        plan = layer_rules.plan(layer, era, values, limits)
        total += sum(math.prod(weight) for weight in plan.weights.values()) * dtype.itemsize
        if total > limits.file_bytes:
            message = f"the weights up to {layer} take {total} bytes; expected at most {limits.file_bytes}"
            raise ModelRefused(message)
        arrays = weights.read(layer, plan.weights, dtype) if plan.weights else {}
        layers.append(LayerDescription(layer.name, layer.kind, plan.options, arrays, plan.features))
        values = Values(plan.features, plan.sequence)
    return ModelDescription(
        source=source,
        layers=tuple(layers),
        dtype=dtype,
        features=features,
        time=shape[1] if shape else None,
        returns_sequences=values.sequence,
    )


def _whole(config: ModelConfig) -> tuple[LayerConfig, ...]:
    if config.chain is None:
        message = f"the model is no chain of layers: {config.not_a_chain}. {_advice(config)}"
        raise ModelRefused(message)
    for layer in config.chain:
        if layer.kind not in RULES:
            message = f"{layer} is of a kind that is not served; these are: {', '.join(RULES)}. {_advice(config)}"
            raise ModelRefused(message)
    for layer in config.chain[1:]:
        if layer.kind == "InputLayer":
            message = f"{layer} stands in the middle of the model; expected it first"
            raise ModelRefused(message)
    if not any(layer.kind == "LSTM" for layer in config.chain):
        message = "the model has no LSTM layer, so there is no state to carry"
        raise ModelRefused(message)
    return config.chain


def _one(config: ModelConfig, name: str) -> LayerConfig:
    for layer in config.layers:
        if layer.name == name and layer.kind == "LSTM":
            return layer
    found = next((str(layer) for layer in config.layers if layer.name == name), f"no layer {name!r}")
    message = f"--layer {name} asks for an LSTM layer, and the model has {found}. {_advice(config)}"
    raise ModelRefused(message)


def _advice(config: ModelConfig) -> str:
    lstms = [layer.name for layer in config.layers if layer.kind == "LSTM"]
    if not lstms:
        return "It has no LSTM layer that could be served alone"
    return f"Its LSTM layers can be served alone, one at a time: {', '.join(f'--layer {name}' for name in lstms)}"


def _common_dtype(chain: tuple[LayerConfig, ...]) -> np.dtype[Any]:
    computing = [layer for layer in chain if layer.kind != "InputLayer"]
    dtype = layer_rules.dtype_of(computing[0])
    for layer in computing:
        if layer_rules.dtype_of(layer) != dtype:
            message = (
                f"{layer} computes in {layer_rules.dtype_of(layer)}, and {computing[0]} in {dtype}; expected one type"
            )
            raise ModelRefused(message)
    return dtype


def _input_shape(config: ModelConfig, chain: tuple[LayerConfig, ...]) -> tuple[int | None, ...] | None:
    """Returns the shape of the input with its batch axis, or None where the file does not declare it."""
    first = chain[0]
    for key in ("batch_shape", "batch_input_shape"):
        shape = first.options.get(key)
        if isinstance(shape, list):
            break
    else:
        shape = list(config.declared_shape) if config.declared_shape else None
    if shape is None:
        return None
    lengths_fit = all(length is None or (type(length) is int and 1 <= length < 2**31) for length in shape[1:])
    if len(shape) != 3 or not lengths_fit:  # noqa: PLR2004 - the three of the message
        message = f"the input of the model has the shape {tuple(shape)}; expected (batch, time, features)"
        raise ModelRefused(message)
    return tuple(shape)


def _features(
    shape: tuple[int | None, ...] | None, chain: tuple[LayerConfig, ...], weights: Weights, limits: Limits
) -> int:
    features = shape[2] if shape else None
    if features is None:
        features = weights.features_of(next(layer for layer in chain if layer.kind in ("LSTM", "Dense")))
    if not 1 <= features <= limits.features:
        message = f"the input of the model has {features} features; expected 1 to {limits.features}"
        raise ModelRefused(message)
    return features
