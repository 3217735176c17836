"""Decodes the state of a request into valid arrays, and encodes the next state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from lstmserve import tensors
from lstmserve.v1 import lstm_pb2
from lstmserve_server.core.errors import InvalidRequest, OtherWeights, WrongForModel, format_names
from lstmserve_server.model.graph import ModelState
from lstmserve_server.model.layers.base import LayerState, Stateful, WindowState
from lstmserve_server.model.layers.recurrent import LSTM
from lstmserve_server.model.lstm import LSTMState
from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.model.types import Array
from lstmserve_server.rpc.codec import array_checks
from lstmserve_server.runtime.registry import ServedModel

_MAX_STEPS_SEEN: Final = 2**62  # counting on from it never overflows


def parse(message: lstm_pb2.State | None, served: ServedModel, batch: int) -> tuple[ModelState, Array | None]:
    """Returns the state in a request, and its step counts; None if they are unknown.

    Raises:
        RequestError: it is invalid, or does not fit this model; the error names the field.
    """
    model = served.model
    if message is not None and message.model_digest not in ("", served.digest):
        raise OtherWeights(
            "state.model_digest",
            f"the state belongs to a model with the digest {message.model_digest[:64]!r}; this one has {served.digest!r}. "
            "Start the sequence again, or ask a server that has the model of the state",
        )
    if message is None or not message.layers:
        if message is not None and message.steps_seen and model.stateful_layers:
            raise InvalidRequest(
                "state.steps_seen",
                "got step counts without h and c, expected them together with h and c, or not at all",
            )
        return model.zero_state(batch), np.zeros(batch, np.int64)
    if len(message.layers) != len(model.stateful_layers):
        raise WrongForModel("state.layers", f"got {len(message.layers)}; the model has {_layers_of(model)}")
    layers: list[LayerState] = []
    for i, (part, layer) in enumerate(zip(message.layers, model.stateful_layers, strict=True)):
        field = f"state.layers[{i}]"
        if part.layer not in ("", layer.name):
            raise WrongForModel(
                f"{field}.layer",
                f"got {part.layer[:64]!r}, expected {layer.name!r}: the layers are {_layer_names(model)}",
            )
        # With a digest it was computed by this model, so is within what it can compute; bare h and c may be anything.
        if isinstance(layer, LSTM):
            layers.append(_lstm(part, layer, field, batch, model, computed_here=bool(message.model_digest)))
        else:
            layers.append(_window(part, layer, field, batch, model))
    return tuple(layers), _steps_seen(message.steps_seen, "state.steps_seen", batch) if message.steps_seen else None


def rows_of(message: lstm_pb2.State | None) -> int:
    """Returns the number of rows that a state seems to have; 0 if it does not show."""
    if message is None:
        return 0
    for part in message.layers:
        for tensor in (part.h, part.window):
            if tensor.shape:
                return max(0, tensor.shape[0])
    return len(message.steps_seen)


def message_of(served: ServedModel, state: ModelState, steps: Array | None, *, as_values: bool) -> lstm_pb2.State:
    """Returns the message of a state; `steps` are its step counts, None if they are unknown."""
    return lstm_pb2.State(
        layers=[
            _layer_message(layer, part, as_values=as_values)
            for layer, part in zip(served.model.stateful_layers, state, strict=True)
        ],
        model_digest=served.digest,
        numerics_fingerprint=served.fingerprint,
        steps_seen=None if steps is None else steps.tolist(),
    )


def _layer_message(layer: Stateful, part: LayerState, *, as_values: bool) -> lstm_pb2.LayerState:
    if isinstance(part, LSTMState):
        h, c = (tensors.encode(array, as_values=as_values) for array in part)
        return lstm_pb2.LayerState(h=h, c=c, layer=layer.name)
    window = tensors.encode(part.window, as_values=as_values)
    return lstm_pb2.LayerState(window=window, steps_received=part.steps.tolist(), layer=layer.name)


def _lstm(
    part: lstm_pb2.LayerState, layer: LSTM, field: str, batch: int, model: RecurrentModel, *, computed_here: bool
) -> LSTMState:
    """Returns the state of an LSTM layer."""
    if part.HasField("window") or part.steps_received:
        raise WrongForModel(
            f"{field}.window", f"got a window for {layer.name!r}, which is an LSTM layer, expected h and c alone"
        )
    shape = (batch, layer.spec.units)
    h = _array(part.h if part.HasField("h") else None, f"{field}.h", shape, ("batch", "units"), model)
    c = _array(part.c if part.HasField("c") else None, f"{field}.c", shape, ("batch", "units"), model)
    if computed_here:
        _check_bound(h, layer.h_bound, f"{field}.h")
    return LSTMState(h, c)


def _window(part: lstm_pb2.LayerState, layer: Stateful, field: str, batch: int, model: RecurrentModel) -> WindowState:
    """Returns the state of a layer with a window."""
    if part.HasField("h") or part.HasField("c"):
        raise WrongForModel(
            f"{field}.h", f"got h for {layer.name!r}, which is not an LSTM layer, expected window and steps_received"
        )
    zero = layer.zero_state(1)
    assert isinstance(zero, WindowState)  # noqa: S101 - there are two kinds of states
    axes = ("batch", "steps", "features")
    shape = (batch, *zero.window.shape[1:])
    window = _array(part.window if part.HasField("window") else None, f"{field}.window", shape, axes, model)
    return WindowState(window, _steps_seen(part.steps_received, f"{field}.steps_received", batch))


def _array(
    message: lstm_pb2.Tensor | None, field: str, shape: tuple[int, ...], axes: Sequence[str], model: RecurrentModel
) -> Array:
    array = array_checks.decode(message, field, model.dtype)
    if array.shape == shape and array.dtype == model.dtype:
        return array_checks.finite(array, field)
    if array.ndim != len(shape):
        raise InvalidRequest(
            f"{field}.shape",
            f"got {array_checks.format_shape(array.shape)}, expected ({', '.join(axes)}), here {array_checks.format_shape(shape)}",
        )
    if array.shape[0] != shape[0]:
        raise InvalidRequest(
            f"{field}.shape", f"got {array.shape[0]} rows, expected {shape[0]}, the number of rows of x"
        )
    for length, expected, axis in zip(array.shape[1:], shape[1:], axes[1:], strict=True):
        if length != expected:
            raise WrongForModel(f"{field}.shape", f"got {length} {axis}; the layer has {expected}")
    raise WrongForModel(
        f"{field}.dtype",
        f"got {array.dtype.name}; the model computes in {model.dtype.name}, and rounding a state would change it",
    )


def _steps_seen(steps: Sequence[int], field: str, batch: int) -> Array:
    if len(steps) != batch:
        raise InvalidRequest(field, f"got {len(steps)}, expected one per row, which is {batch}, or none")
    for row, count in enumerate(steps):
        if not 0 <= count <= _MAX_STEPS_SEEN:
            raise InvalidRequest(f"{field}[{row}]", f"got {count}, expected 0 to {_MAX_STEPS_SEEN}")
    return np.array(steps, np.int64)


def _check_bound(h: Array, bound: float, field: str) -> None:
    if bound == math.inf or -bound <= np.minimum.reduce(h, axis=None) <= np.maximum.reduce(h, axis=None) <= bound:
        return
    beyond = np.abs(h) > bound
    if beyond.any():
        index = array_checks.first(beyond)
        where = array_checks.format_shape(index)
        text = f"got {h[index]} at {where}; this layer computes no h beyond {bound:g}. Were h and c exchanged?"
        raise WrongForModel(field, text)


def _layers_of(model: RecurrentModel) -> str:
    what = "LSTM layers" if all(isinstance(layer, LSTM) for layer in model.stateful_layers) else "layers with a state"
    return f"{len(model.stateful_layers)} {what}: {_layer_names(model)}"


def _layer_names(model: RecurrentModel) -> str:
    return format_names(layer.name for layer in model.stateful_layers)
