"""A configuration and a place where weights are, to a checked description."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lstmserve_server.description import LayerDescription, ModelDescription
from lstmserve_server.errors import ModelRefused
from lstmserve_server.loading import keras_config, layer_plans, layer_rules
from lstmserve_server.loading.layer_plans import PLANS
from lstmserve_server.loading.layer_rules import Incoming, Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lstmserve_server.description import Shape, Source
    from lstmserve_server.loading.keras_config import LayerConfig, ModelConfig
    from lstmserve_server.loading.layer_rules import Block, Plan
    from lstmserve_server.loading.limits import Limits


_LSTMS = ("LSTM", "CuDNNLSTM", "RNN")
_WITHOUT_WEIGHTS = ("Dropout", "SpatialDropout1D", "GaussianNoise", "GaussianDropout", "Masking", "Activation")


class Weights(Protocol):
    """Where a format keeps the weights of a layer. Every method raises `ModelRefused` where they are not as expected."""

    def read(self, layer: LayerConfig, blocks: Sequence[Block], dtype: np.dtype[Any]) -> list[dict[str, NDArray[Any]]]:
        """Returns the weights of each block of a layer, each of its shape, in `dtype`, finite and read-only."""
        ...

    def features_of(self, layer: LayerConfig) -> int:
        """Returns how many features a layer reads: the length of the first axis of its first weight."""
        ...


@dataclass(frozen=True, slots=True)
class Architecture:
    """The configuration for a file that holds weights alone."""

    text: str
    given: bool
    """Whether somebody named it for this file; else it was found beside it, and may belong to another."""


FindArchitecture = Callable[[], Architecture | None]
"""Opens the architecture, if there is one. Called only for a file that needs it: no other may have a second file opened."""


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
    writer = Writer(keras_config.era_of(source.keras_version), keras_config.is_standalone(source.keras_version))
    chain = _whole(config) if only_layer is None else (_one(config, only_layer),)
    dtype = _common_dtype(chain)
    declared = _input_shape(config, chain) if only_layer is None else None
    shape = _complete(declared, chain, weights, limits)
    incoming, layers, total = Incoming(shape), [], 0
    for layer in chain:
        plan = layer_plans.plan(layer, writer, incoming, limits)
        total += sum(math.prod(shape) for block in plan.blocks for shape in block.shapes.values()) * dtype.itemsize
        if total > limits.file_bytes:
            message = f"the weights up to {layer} take {total} bytes; expected at most {limits.file_bytes}"
            raise ModelRefused(message)
        stored = weights.read(layer, plan.blocks, dtype) if plan.blocks else []
        arrays = [block.convert(own) if block.convert else own for block, own in zip(plan.blocks, stored, strict=True)]
        layers.append(_described(layer, plan, arrays))
        incoming = Incoming(plan.output_shape, incoming.masked if plan.masks is None else plan.masks)
    return ModelDescription(source, tuple(layers), dtype, shape, _vocabulary(layers))


def _described(layer: LayerConfig, plan: Plan, arrays: list[dict[str, NDArray[Any]]]) -> LayerDescription:
    name = "/".join(layer.path)
    parts = tuple(
        LayerDescription(f"{name}/{place}", part.kind, part.options, own, part.output_shape)
        for place, part, own in zip(("forward", "backward"), plan.parts, arrays, strict=False)
    )
    weights = arrays[0] if arrays and not parts else {}
    return LayerDescription(name, plan.kind, plan.options, weights, plan.output_shape, parts)


def _vocabulary(layers: list[LayerDescription]) -> int | None:
    """Returns how many token ids the model knows, if that is what it reads."""
    first = next((layer for layer in layers if layer.kind != "InputLayer"), layers[0])
    return first.weights["embeddings"].shape[0] if first.kind == "Embedding" else None


def _whole(config: ModelConfig) -> tuple[LayerConfig, ...]:
    try:
        chain = keras_config.flat(config)
    except ModelRefused as refusal:
        message = f"{refusal}. {_advice(config)}"
        raise ModelRefused(message) from None
    for layer in chain:
        if layer.kind not in PLANS:
            message = f"{layer} is of a kind that is not served; these are: {', '.join(PLANS)}. {_advice(config)}"
            raise ModelRefused(message)
    for layer in chain[1:]:
        if layer.kind == "InputLayer":
            message = f"{layer} stands in the middle of the model; expected it first"
            raise ModelRefused(message)
    if not any(layer.kind in (*_LSTMS, "Bidirectional") for layer in chain):
        message = "the model has no LSTM layer, so there is no state to carry"
        raise ModelRefused(message)
    return chain


def _one(config: ModelConfig, name: str) -> LayerConfig:
    for layer in config.layers:
        if layer.name == name and layer.kind in _LSTMS:
            return layer
    found = next((str(layer) for layer in config.layers if layer.name == name), f"no layer {name!r}")
    message = f"--layer {name} asks for an LSTM layer, and the model has {found}. {_advice(config)}"
    raise ModelRefused(message)


def _advice(config: ModelConfig) -> str:
    lstms = [layer.name for layer in config.layers if layer.kind in _LSTMS]
    if not lstms:
        return "It has no LSTM layer that could be served alone"
    return f"Its LSTM layers can be served alone, one at a time: {', '.join(f'--layer {name}' for name in lstms)}"


def _common_dtype(chain: tuple[LayerConfig, ...]) -> np.dtype[Any]:
    # An Embedding of early Keras 2 says int32, the type of what it reads.
    computing = [layer for layer in chain if layer.kind != "InputLayer" and layer.options.get("dtype") != "int32"]
    if not computing:
        return np.dtype(np.float32)
    dtype = layer_rules.dtype_of(computing[0])
    for layer in computing:
        if layer_rules.dtype_of(layer) != dtype:
            message = (
                f"{layer} computes in {layer_rules.dtype_of(layer)}, and {computing[0]} in {dtype}; expected one type"
            )
            raise ModelRefused(message)
    return dtype


def _input_shape(config: ModelConfig, chain: tuple[LayerConfig, ...]) -> Shape | None:
    """Returns the shape of the input without its batch axis, or None where the file does not declare it."""
    first = chain[0]
    for key in ("batch_shape", "batch_input_shape"):
        shape = first.options.get(key)
        if isinstance(shape, list):
            break
    else:
        shape = list(config.declared_shape) if config.declared_shape else None
    if shape is None:
        return None
    ids = next((layer.kind for layer in chain if layer.kind != "InputLayer"), "") == "Embedding"
    expected = "(batch, time)" if ids else "(batch, time, features)"
    lengths_fit = all(length is None or (type(length) is int and 1 <= length < 2**31) for length in shape[1:])
    if len(shape) != expected.count(",") + 1 or not lengths_fit:
        message = f"the input of the model has the shape {tuple(shape)}; expected {expected}"
        raise ModelRefused(message)
    return tuple(shape[1:])


def _complete(declared: Shape | None, chain: tuple[LayerConfig, ...], weights: Weights, limits: Limits) -> Shape:
    """Returns the shape of the input with its number of features, which may have to come from the weights."""
    computing = [layer for layer in chain if layer.kind not in ("InputLayer", *_WITHOUT_WEIGHTS)]
    if computing and computing[0].kind == "Embedding":
        length = chain[0].options.get("input_length") if declared is None else declared[0]
        return (length if type(length) is int and 1 <= length < 2**31 else None,)
    features = declared[1] if declared else None
    if features is None:
        features = weights.features_of(computing[0])
    if not 1 <= features <= limits.features:
        message = f"the input of the model has {features} features; expected 1 to {limits.features}"
        raise ModelRefused(message)
    return (declared[0] if declared else None, features)
