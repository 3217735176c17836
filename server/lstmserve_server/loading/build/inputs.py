"""Finds the shapes of a model's inputs, which files declare in many places or not at all."""

from __future__ import annotations

from typing import Any, Final

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.build.keras_file import WeightSource
from lstmserve_server.loading.build.rules.base import LayerInput
from lstmserve_server.loading.build.rules.registry import WITH_WEIGHTS
from lstmserve_server.loading.config.keras_config import LayerConfig
from lstmserve_server.loading.config.keras_graph import CallGraph, Tensor
from lstmserve_server.loading.store.limits import LoadLimits
from lstmserve_server.model.spec import Shape

_FLOATS: Final = ("float32", "float64", None)
_IDS: Final = (
    *_FLOATS,
    "int32",
    "int64",
    "uint32",
    "uint64",
    "int16",
    "uint16",
)  # in which the ids of most vocabularies fit
_ALIKE_WITH_TIME_FIRST: Final = frozenset(
    "InputLayer LSTM Dense Dropout Activation BatchNormalization LayerNormalization GaussianNoise Masking".split()
)
_MAX_LENGTH: Final = 1 << 31


def incoming(
    graph: CallGraph, number: int, weights: WeightSource, limits: LoadLimits, *, time_major: bool
) -> LayerInput:
    """Returns the specification of an input of the model.

    Raises:
        UnsupportedModelError: its shape is not declared, or not valid.
    """
    layer = graph.calls[number].layer
    ids = _first_user(graph, number) == "Embedding"
    declared = _declared(layer)
    if declared is None:
        length = layer.options.get("input_length")
        declared = [None, length if type(length) is int else None, *([] if ids else [None])]
    if time_major:
        declared[:2] = declared[1], declared[0]
    shape: Shape = tuple(declared[1:])
    if not ids and len(shape) > 1 and shape[-1] is None:
        shape = (*shape[:-1], weights.features_of(_first_with_weights(graph, number)))
    lengths_fit = all(length is None or (type(length) is int and 1 <= length < _MAX_LENGTH) for length in shape)
    if (
        not 1 <= len(shape) <= limits.axes
        or not lengths_fit
        or (not ids and None in shape[1:])
        or _is_too_large(shape, limits)
    ):
        message = (
            f"the input {layer.name!r} of the model has the shape {tuple(declared)}; expected (batch, time, features)"
        )
        raise UnsupportedModelError(message)
    if layer.options.get("optional") is True:
        message = f"{layer} may be left out (optional=True), which is not supported"
        raise UnsupportedModelError(message)
    _require_dtype(layer, ids=ids)
    return LayerInput(shape, ids=True)


def _require_dtype(layer: LayerConfig, *, ids: bool) -> None:
    """Rejects an input of a dtype to which Keras would round.

    Raises:
        UnsupportedModelError: it is not float32 or float64, nor an integer type for token ids.
    """
    dtype = layer.options.get("dtype", "float32")
    if dtype not in (_IDS if ids else _FLOATS):
        expected = "expected float32, float64, or token ids as integers"
        message = f"{layer} takes {dtype}, to which Keras rounds its input; {expected}"
        raise UnsupportedModelError(message)


def are_time_major(graph: CallGraph) -> bool:
    """Returns whether the sequences of a model are time-major: time axis before batch axis.

    Raises:
        UnsupportedModelError: some are time-major, and others are not.
    """
    lstms = [call.layer for call in graph.calls if call.layer.kind == "LSTM"]
    if not any(layer.options.get("time_major") is True for layer in lstms):
        return False
    for call in graph.calls:
        alike = call.layer.kind in _ALIKE_WITH_TIME_FIRST and len(call.inputs) <= 1
        if not alike or (call.layer.kind == "LSTM" and call.layer.options.get("time_major") is not True):
            message = f"{call.layer} is in a model with time_major=True; supported with it: {', '.join(_ALIKE_WITH_TIME_FIRST)}"
            raise UnsupportedModelError(message)
    return True


def _declared(layer: LayerConfig) -> list[Any] | None:
    for key in ("batch_shape", "batch_input_shape"):
        shape = layer.options.get(key)
        if isinstance(shape, list) and len(shape) > 1:
            return list(shape)
    return None


def _is_too_large(shape: Shape, limits: LoadLimits) -> bool:
    size = 1
    for length in shape[1:] if len(shape) > 1 else shape:
        size *= length or 1
    return size > limits.features and len(shape) > 1


def _first_user(graph: CallGraph, number: int) -> str:
    """Returns the kind of the first layer that uses an input."""
    same = {Tensor(number, 0)}
    for place, call in enumerate(graph.calls):
        if same & set(call.inputs):
            if call.layer.kind not in ("InputLayer", "Dropout", "SpatialDropout1D") and not call.layer.operation:
                return call.layer.kind
            same.add(Tensor(place, 0))
    return ""


def _first_with_weights(graph: CallGraph, number: int) -> LayerConfig:
    for call in graph.calls[number:]:
        if call.layer.kind in WITH_WEIGHTS:
            return call.layer
    message = f"the model does not declare how many features its input {graph.calls[number].layer.name!r} has"
    raise UnsupportedModelError(message)
