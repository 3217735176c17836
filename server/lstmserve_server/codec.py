"""Requests to values that are valid by construction, and answers to responses. Nothing behind this checks again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lstmserve import tensors
from lstmserve.tensors import TensorError
from lstmserve.v1 import lstm_pb2
from lstmserve_server.errors import InvalidRequest, LimitExceeded, WrongForModel, listed
from lstmserve_server.lstm import LSTMState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lstmserve_server.model import Answer, ModelState, RecurrentModel
    from lstmserve_server.registry import Registry, ServedModel

    Array = NDArray[Any]

_MAX_STEPS_SEEN: Final = 2**62  # counting on from it never overflows
_OVERHEAD_BYTES: Final = 4096  # of a response beside its tensors


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one request may ask for."""

    rows: int
    steps: int
    message_bytes: int
    sequence_bytes: int


@dataclass(frozen=True, slots=True)
class StepCall:
    """A valid request of one time-step."""

    served: ServedModel
    x: Array  # (batch, features), in the dtype of the model, finite
    state: ModelState
    steps_seen: Array | None  # (batch,); None where unknown
    as_values: bool

    @property
    def seen(self) -> Array | None:
        """Whether the sequence of a row has had a step, (batch,); None where unknown, and so taken for new."""
        return None if self.steps_seen is None else self.steps_seen > 0


@dataclass(frozen=True, slots=True)
class ForwardCall(StepCall):
    """A valid request of a sequence; its x is (batch, time, features), zeros behind a row's own last step."""

    lengths: Array | None  # (batch,), 1 to time each; None where all rows have them all
    all_outputs: bool


class Codec:
    """Reads requests for the models of a registry, within limits, and writes responses."""

    def __init__(self, registry: Registry, limits: RequestLimits) -> None:
        self._registry = registry
        self._limits = limits

    def parse_step(self, request: lstm_pb2.StepRequest) -> StepCall:
        """Returns the call that a request asks for.

        Raises:
            RequestError: it cannot be answered; the error names the field.
        """
        served = self._registry.find(request.model)
        x = _with_features(_decode(request.x if request.HasField("x") else None, "x", served.model), 1, served.model)
        self._check_shape(x, ("batch", "features"), served.model)
        as_values = bool(request.x.values)
        self._check_answer(served.model, len(x), 1, as_values=as_values)
        x = _known_ids(_finite(_cast(x, served.model)), served.model)
        state, seen = _parse_state(request.state if request.HasField("state") else None, served, len(x))
        return StepCall(served, x, state, seen, as_values)

    def parse_forward(self, request: lstm_pb2.ForwardRequest) -> ForwardCall:
        """Returns the call that a request asks for.

        Raises:
            RequestError: it cannot be answered; the error names the field.
        """
        served = self._registry.find(request.model)
        x = _with_features(_decode(request.x if request.HasField("x") else None, "x", served.model), 2, served.model)
        self._check_shape(x, ("batch", "time", "features"), served.model)
        as_values = bool(request.x.values)
        steps = served.model.output_steps(x.shape[1]) if request.all_outputs else 1
        self._check_answer(served.model, len(x), steps, as_values=as_values)
        self._check_memory(served.model, x)
        lengths = _parse_lengths(request.lengths, x.shape[0], x.shape[1])
        if lengths is not None:
            behind = np.arange(x.shape[1]) >= lengths[:, None]
            x = np.where(behind[:, :, None], x.dtype.type(0), x)
        x = _known_ids(_finite(_cast(x, served.model)), served.model)
        state, seen = _parse_state(request.state if request.HasField("state") else None, served, len(x))
        return ForwardCall(served, x, state, seen, as_values, lengths, request.all_outputs)

    def parse_get_model(self, request: lstm_pb2.GetModelRequest) -> ServedModel:
        """Returns the model that a request asks for."""
        return self._registry.find(request.model)

    def step_response(self, call: StepCall, answer: Answer) -> lstm_pb2.StepResponse:
        """Returns the response to a call."""
        return lstm_pb2.StepResponse(
            output=tensors.encode(answer.output, as_values=call.as_values), state=_state_message(call, answer)
        )

    def forward_response(self, call: ForwardCall, answer: Answer) -> lstm_pb2.ForwardResponse:
        """Returns the response to a call."""
        return lstm_pb2.ForwardResponse(
            output=tensors.encode(answer.output, as_values=call.as_values), state=_state_message(call, answer)
        )

    def _check_shape(self, x: Array, axes: tuple[str, ...], model: RecurrentModel) -> None:
        if x.ndim != len(axes):
            raise InvalidRequest("x.shape", f"{_show(x.shape)} came; expected ({', '.join(axes)})")
        if 0 in x.shape:
            raise InvalidRequest(
                "x.shape", f"{_show(x.shape)} came; expected at least 1 of each of ({', '.join(axes)})"
            )
        if x.shape[0] > self._limits.rows:
            raise LimitExceeded("x.shape", f"{x.shape[0]} rows came; expected at most {self._limits.rows} (--max-rows)")
        if len(axes) > 2 and x.shape[1] > self._limits.steps:  # noqa: PLR2004 - there is a time axis
            raise LimitExceeded(
                "x.shape",
                f"{x.shape[1]} time-steps came; expected at most {self._limits.steps} (--max-steps). {_way_out(model)}",
            )
        time = model.description.input_shape[0]
        if len(axes) > 2 and model.fixed_time and x.shape[1] != time:  # noqa: PLR2004 - there is a time axis
            raise WrongForModel("x.shape", f"{x.shape[1]} time-steps came; the model reads {time} at once")
        if x.shape[-1] != model.features:
            raise WrongForModel("x.shape", f"{x.shape[-1]} features came; the model has {model.features}")

    def _check_answer(self, model: RecurrentModel, rows: int, steps: int, *, as_values: bool) -> None:
        """Refuses, before it is computed, what would not fit into a message."""
        width = 8 if as_values else model.dtype.itemsize
        state_width = sum(2 * layer.spec.units for layer in model.lstms)
        size = rows * (steps * model.output_features + state_width) * width + _OVERHEAD_BYTES
        if size > self._limits.message_bytes:
            raise LimitExceeded(
                "x.shape",
                f"the answer would be {size} bytes long; expected at most {self._limits.message_bytes} "
                f"(--max-message-bytes). Send fewer rows. {_way_out(model)}",
            )

    def _check_memory(self, model: RecurrentModel, x: Array) -> None:
        """Refuses what would not fit into memory. Only a model that reads a sequence whole needs more the longer it is."""
        size = x.shape[0] * x.shape[1] * model.bytes_per_step
        if not model.causal and size > self._limits.sequence_bytes:
            raise LimitExceeded(
                "x.shape",
                f"the sequence would take {size} bytes, as the model reads it whole; expected at most "
                f"{self._limits.sequence_bytes} (--max-sequence-bytes). Send fewer rows",
            )


def _parse_lengths(lengths: Sequence[int], batch: int, time: int) -> Array | None:
    if not lengths:
        return None
    if len(lengths) != batch:
        raise InvalidRequest("lengths", f"{len(lengths)} came; expected one per row, which is {batch}, or none")
    for row, length in enumerate(lengths):
        if not 1 <= length <= time:
            raise InvalidRequest(f"lengths[{row}]", f"{length} came; expected 1 to {time}, the time-steps of x")
    return np.array(lengths, np.int64)


def _parse_state(message: lstm_pb2.State | None, served: ServedModel, batch: int) -> tuple[ModelState, Array | None]:
    """Returns the state that a request carries, and the steps that it has seen."""
    model = served.model
    if message is not None and message.model_digest not in ("", served.digest):
        raise WrongForModel(
            "state.model_digest",
            f"the state belongs to a model with the digest {message.model_digest[:64]!r}; this one has {served.digest!r}. "
            "Start the sequence anew, or ask a server that has the model of the state",
        )
    if message is None or not message.layers:
        if message is not None and message.steps:
            raise InvalidRequest("state.steps", "step counts came without h and c; expected both or neither")
        return model.zero_state(batch), np.zeros(batch, np.int64)
    if len(message.layers) != len(model.lstms):
        raise WrongForModel(
            "state.layers",
            f"{len(message.layers)} came; the model has {len(model.lstms)} LSTM layers: {_layer_names(model)}",
        )
    layers = []
    for i, (part, layer) in enumerate(zip(message.layers, model.lstms, strict=True)):
        field = f"state.layers[{i}]"
        if part.layer not in ("", layer.name):
            raise WrongForModel(
                f"{field}.layer",
                f"{part.layer[:64]!r} came; expected {layer.name!r}: the layers are {_layer_names(model)}",
            )
        shape = (batch, layer.spec.units)
        h = _parse_part(part.h if part.HasField("h") else None, f"{field}.h", shape, model)
        c = _parse_part(part.c if part.HasField("c") else None, f"{field}.c", shape, model)
        if message.model_digest:  # computed by this model, so within what it can compute; bare h and c may be anything
            _check_bound(h, layer.h_bound, f"{field}.h")
        layers.append(LSTMState(h, c))
    return tuple(layers), _parse_steps_seen(message.steps, batch)


def _parse_part(message: lstm_pb2.Tensor | None, field: str, shape: tuple[int, int], model: RecurrentModel) -> Array:
    array = _decode(message, field, model)
    if array.ndim != len(shape):
        raise InvalidRequest(
            f"{field}.shape", f"{_show(array.shape)} came; expected (batch, units), here {_show(shape)}"
        )
    if array.shape[0] != shape[0]:
        raise InvalidRequest(f"{field}.shape", f"{array.shape[0]} rows came; expected {shape[0]}, as x has")
    if array.shape[1] != shape[1]:
        raise WrongForModel(f"{field}.shape", f"{array.shape[1]} units came; the layer has {shape[1]}")
    if array.dtype != model.dtype:
        raise WrongForModel(
            f"{field}.dtype",
            f"{array.dtype.name} came; the model computes in {model.dtype.name}, and rounding a state would change it",
        )
    return _finite(array, field)


def _parse_steps_seen(steps: Sequence[int], batch: int) -> Array | None:
    if not steps:
        return None
    if len(steps) != batch:
        raise InvalidRequest("state.steps", f"{len(steps)} came; expected one per row, which is {batch}, or none")
    for row, count in enumerate(steps):
        if not 0 <= count <= _MAX_STEPS_SEEN:
            raise InvalidRequest(f"state.steps[{row}]", f"{count} came; expected 0 to {_MAX_STEPS_SEEN}")
    return np.array(steps, np.int64)


def _check_bound(h: Array, bound: float, field: str) -> None:
    beyond = np.abs(h) > bound
    if beyond.any():
        index = _first(beyond)
        raise WrongForModel(
            field,
            f"{h[index]} at {_show(index)} came; this layer computes no h beyond {bound:g}. Were h and c exchanged?",
        )


def _decode(message: lstm_pb2.Tensor | None, field: str, model: RecurrentModel) -> Array:
    if message is None:
        raise InvalidRequest(field, "nothing came; expected a tensor")
    try:
        return tensors.decode(message, default=model.dtype)
    except TensorError as error:
        raise InvalidRequest(f"{field}.{error.part}" if error.part else field, error.text) from None


def _with_features(x: Array, rank: int, model: RecurrentModel) -> Array:
    """Returns x with an axis for its one feature, if it is token ids without one, as Keras has them."""
    return x[..., None] if model.description.vocabulary is not None and x.ndim == rank else x


def _known_ids(x: Array, model: RecurrentModel) -> Array:
    """Returns x, which may have to be token ids that the model knows."""
    words = model.description.vocabulary
    if words is not None:
        unknown = (x < 0) | (x >= words) | (x != np.floor(x))
        if unknown.any():
            index = _first(unknown)
            text = f"{x[index]:g} at {_show(index)} came; expected token ids, whole numbers from 0 to {words - 1}"
            raise WrongForModel("x", text)
    return x


def _cast(x: Array, model: RecurrentModel) -> Array:
    """Returns x in the dtype of the model, C-contiguous."""
    if x.dtype == model.dtype:
        return x
    with np.errstate(over="ignore"):
        cast = x.astype(model.dtype)
    overflowed = np.isinf(cast) & np.isfinite(x)
    if overflowed.any():
        index = _first(overflowed)
        raise WrongForModel("x", f"{x[index]} at {_show(index)} does not fit {model.dtype.name}, the type of the model")
    return cast


def _finite(array: Array, field: str = "x") -> Array:
    finite = np.isfinite(array)
    if not finite.all():
        index = _first(~finite)
        raise InvalidRequest(field, f"{array[index]} at {_show(index)} came; expected finite numbers")
    return array


def _state_message(call: StepCall | ForwardCall, answer: Answer) -> lstm_pb2.State:
    served = call.served
    return lstm_pb2.State(
        layers=[
            lstm_pb2.LayerState(
                h=tensors.encode(part.h, as_values=call.as_values),
                c=tensors.encode(part.c, as_values=call.as_values),
                layer=layer.name,
            )
            for layer, part in zip(served.model.lstms, answer.state, strict=True)
        ],
        model_digest=served.digest,
        numerics_fingerprint=served.fingerprint,
        steps=None if call.steps_seen is None else (call.steps_seen + answer.steps).tolist(),
    )


def _way_out(model: RecurrentModel) -> str:
    """Returns what to do with a sequence that is too long."""
    if model.causal:
        return "Send the sequence in parts, each with the state that the one before gave back: the answers are the same"
    return "The sequence cannot be sent in parts, as the model reads it whole"


def _layer_names(model: RecurrentModel) -> str:
    return listed(layer.name for layer in model.lstms)


def _first(mask: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])


def _show(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))})"
