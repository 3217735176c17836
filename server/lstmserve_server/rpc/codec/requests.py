"""Decodes requests into calls that are valid by construction, and encodes responses. Nothing after this checks again.

The bytes of a tensor become an array in `lstmserve.tensors.decode`, which client and server share.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from lstmserve import tensors
from lstmserve.v1 import lstm_pb2, shadow_pb2
from lstmserve_server.core.errors import InvalidRequest, LimitExceeded, WrongForModel, format_names
from lstmserve_server.model.model import RecurrentModel, StepResult
from lstmserve_server.model.spec import InputSpec
from lstmserve_server.model.types import Array
from lstmserve_server.rpc.auth.callers import current_caller
from lstmserve_server.rpc.codec import array_checks
from lstmserve_server.rpc.codec import state as state_codec
from lstmserve_server.runtime.calls import ForwardCall, StepCall, time_of
from lstmserve_server.runtime.registry import Registry, ServedModel

_OVERHEAD_BYTES: Final = 4096  # of a response alongside its tensors


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Limits of one request."""

    rows: int
    steps: int
    message_bytes: int
    sequence_bytes: int


class Codec:
    """Decodes requests for the registered models within limits, and encodes responses."""

    def __init__(self, registry: Registry, limits: RequestLimits) -> None:
        self._registry = registry
        self._limits = limits

    def parse_step(self, request: lstm_pb2.StepRequest) -> StepCall:
        """Returns the call that a request asks for.

        Raises:
            RequestError: it cannot be answered; the error names the field.
        """
        served = self.find(request.model)
        model = served.model
        model.require_causal()
        item = model.inputs[0]
        x = self.decode_input(request.x if request.HasField("x") else None, "x", item, model, stepped=True)
        as_values = bool(request.x.values)
        self.check_answer(model, len(x), 1, "x.shape", as_values=as_values)
        x = validate_input(x, item, model, "x")
        state, seen = state_codec.parse(request.state if request.HasField("state") else None, served, len(x))
        return StepCall(served, (x,), state, seen, as_values, compare=request.compare)

    def parse_forward(self, request: lstm_pb2.ForwardRequest) -> ForwardCall:
        """Returns the call that a request asks for.

        Raises:
            RequestError: it cannot be answered; the error names the field.
        """
        served = self.find(request.model)
        model, given = served.model, _inputs(request, served.model)
        arrays = [
            self.decode_input(message, field, item, model)
            for (field, message), item in zip(given, model.inputs, strict=True)
        ]
        _require_one_batch(arrays, given)
        as_values = any(message is not None and message.values for _, message in given)
        time = time_of(arrays, model)
        self.check_answer(model, len(arrays[0]), time if request.all_outputs else 1, "x.shape", as_values=as_values)
        self._check_memory(model, len(arrays[0]), time)
        lengths = _parse_lengths(request.lengths, model, len(arrays[0]), time)
        if lengths is not None:
            behind = np.arange(time) >= lengths[:, None]
            arrays[0] = np.where(
                behind.reshape(*behind.shape, *[1] * (arrays[0].ndim - 2)), arrays[0].dtype.type(0), arrays[0]
            )
        inputs = tuple(
            validate_input(array, item, model, field)
            for array, item, (field, _) in zip(arrays, model.inputs, given, strict=True)
        )
        state, seen = state_codec.parse(request.state if request.HasField("state") else None, served, len(inputs[0]))
        every = request.all_outputs
        return ForwardCall(served, inputs, state, seen, as_values, lengths, every, compare=request.compare)

    def step_response(
        self, call: StepCall, answer: StepResult, discrepancy: shadow_pb2.Comparison | None
    ) -> lstm_pb2.StepResponse:
        """Returns the response to a call."""
        output, outputs, state = _encoded(call, answer)
        return lstm_pb2.StepResponse(output=output, outputs=outputs, state=state, comparison=discrepancy)

    def forward_response(
        self, call: ForwardCall, answer: StepResult, discrepancy: shadow_pb2.Comparison | None
    ) -> lstm_pb2.ForwardResponse:
        """Returns the response to a call."""
        output, outputs, state = _encoded(call, answer)
        return lstm_pb2.ForwardResponse(output=output, outputs=outputs, state=state, comparison=discrepancy)

    def find(self, name: str) -> ServedModel:
        """Returns the model that a request is for; "" means the only one.

        Raises:
            RequestError: there is none, or the caller may not use it.
        """
        return self._registry.find(current_caller.get().resolve_model(name))

    def decode_input(
        self,
        message: lstm_pb2.Tensor | None,
        field: str,
        item: InputSpec,
        model: RecurrentModel,
        *,
        stepped: bool = False,
    ) -> Array:
        """Returns an input in the dtype that was sent, with its shape checked; `stepped` for one time step."""
        array = array_checks.decode(message, field, model.dtype)
        sequence = item.sequence and not stepped
        rank = 1 + sequence + len(item.features)
        if item.vocabulary is not None and array.ndim == rank - 1:  # token ids without an axis for their one feature
            array = array[..., None]
        if array.ndim != rank or 0 in array.shape:
            axes = ("batch", *(["time"] if sequence else []), *_feature_axes(item))
            expected = "at least 1 of each of " if array.ndim == rank else ""
            raise InvalidRequest(
                f"{field}.shape",
                f"got {array_checks.format_shape(array.shape)}, expected {expected}({', '.join(axes)})",
            )
        self._check_size(array, field, model, sequence=sequence)
        if sequence and model.fixed_time and item.shape[0] is not None and array.shape[1] != item.shape[0]:
            raise WrongForModel(
                f"{field}.shape", f"got {array.shape[1]} time-steps; the model reads {item.shape[0]} at once"
            )
        features = array.shape[-len(item.features) :]
        if features != item.features and any(
            expected is not None and length != expected
            for length, expected in zip(features, item.features, strict=True)
        ):
            text = f"got {features[0]} features; the model has {item.features[0]}"
            if len(features) > 1:
                text = f"got {array_checks.format_shape(features)} for each time-step; the model has {item.features}"
            raise WrongForModel(f"{field}.shape", text)
        return array

    def _check_size(self, array: Array, field: str, model: RecurrentModel, *, sequence: bool) -> None:
        self.check_rows(array.shape[0], f"{field}.shape")
        if sequence and array.shape[1] > self._limits.steps:
            text = f"got {array.shape[1]} time-steps, expected at most {self._limits.steps} (--max-steps). {_way_out(model)}"
            raise LimitExceeded(f"{field}.shape", text)

    def check_rows(self, rows: int, field: str) -> None:
        """Checks the number of rows of a request."""
        current_caller.get().require_rows(field, rows)
        if rows > self._limits.rows:
            raise LimitExceeded(field, f"got {rows} rows, expected at most {self._limits.rows} (--max-rows)")
        if rows < 1:
            raise InvalidRequest(field, f"got {rows} rows, expected at least 1")

    def check_answer(self, model: RecurrentModel, rows: int, steps: int, field: str, *, as_values: bool) -> None:
        """Rejects, before it is computed, an answer that would exceed the message limit. `field` is the field at fault."""
        width = 8 if as_values else model.dtype.itemsize
        size = rows * model.answer_size(steps) * width + _OVERHEAD_BYTES
        if size > self._limits.message_bytes:
            raise LimitExceeded(
                field,
                f"the answer would be {size} bytes long; expected at most {self._limits.message_bytes} "
                f"(--max-message-bytes). Send fewer rows. {_way_out(model)}",
            )

    def _check_memory(self, model: RecurrentModel, rows: int, steps: int) -> None:
        """Rejects what would not fit into memory. Only a model that reads sequences whole needs memory that grows with them."""
        size = rows * steps * model.bytes_per_step
        if not model.causal and size > self._limits.sequence_bytes:
            raise LimitExceeded(
                "x.shape",
                f"the sequences would take {size} bytes, because the model reads each of them whole; expected at most "
                f"{self._limits.sequence_bytes} (--max-sequence-bytes). Send fewer rows",
            )


_Given = list[tuple[str, "lstm_pb2.Tensor | None"]]


def _inputs(request: lstm_pb2.ForwardRequest, model: RecurrentModel) -> _Given:
    """Returns the field and the tensor of each input of a model."""
    names = [item.name for item in model.inputs]
    if not request.inputs:
        if len(names) > 1:
            text = f"got none by name; the model has several: {format_names(names)}"
            raise WrongForModel("inputs", text)
        return [("x", request.x if request.HasField("x") else None)]
    if request.HasField("x"):
        raise InvalidRequest("inputs", "got both x and named inputs, expected only one of them")
    unknown = sorted(set(request.inputs) - set(names))
    if unknown:
        raise WrongForModel("inputs", f"got {unknown[0][:64]!r}; the model has {format_names(names)}")
    return [(f"inputs[{name[:64]!r}]", request.inputs.get(name)) for name in names]


def _feature_axes(item: InputSpec) -> list[str]:
    """Returns the names of the axes of a time step."""
    features = item.features
    return ["features"] if len(features) == 1 else ["any" if length is None else str(length) for length in features]


def _require_one_batch(arrays: Sequence[Array], given: _Given) -> None:
    for array, (field, _) in zip(arrays, given, strict=True):
        if len(array) != len(arrays[0]):
            raise InvalidRequest(
                f"{field}.shape",
                f"got {len(array)} rows, expected {len(arrays[0])}, the number of rows of {given[0][0]}",
            )


def _parse_lengths(lengths: Sequence[int], model: RecurrentModel, batch: int, time: int) -> Array | None:
    if not lengths:
        return None
    if len(model.inputs) > 1 or not model.inputs[0].sequence:
        raise WrongForModel("lengths", "got lengths, expected none: the model has several inputs, or no time axis")
    if len(lengths) != batch:
        raise InvalidRequest("lengths", f"got {len(lengths)}, expected one per row, which is {batch}, or none")
    for row, length in enumerate(lengths):
        if not 1 <= length <= time:
            raise InvalidRequest(f"lengths[{row}]", f"got {length}, expected 1 to {time}, the time-steps of x")
        if model.fixed_time and length != time:
            raise WrongForModel(
                f"lengths[{row}]", f"got {length}; the model reads {time} time-steps of every row at once"
            )
    return np.array(lengths, np.int64)


def validate_input(array: Array, item: InputSpec, model: RecurrentModel, field: str) -> Array:
    """Returns an input in the dtype of the model, checked: finite, and token ids in their range."""
    array = np.ascontiguousarray(array_checks.finite(array_checks.cast(array, model.dtype, field), field))
    words = item.vocabulary
    if words is not None:
        unknown = (array < 0) | (array >= words) | (array != np.floor(array))
        if unknown.any():
            index = array_checks.first(unknown)
            where = array_checks.format_shape(index)
            text = f"got {array[index]:g} at {where}, expected token ids, integers from 0 to {words - 1}"
            raise WrongForModel(field, text)
    return array


def _encoded(call: StepCall, answer: StepResult) -> tuple[lstm_pb2.Tensor, dict[str, lstm_pb2.Tensor], lstm_pb2.State]:
    """Returns the first output, all of them by name if there are several, and the state."""
    output, outputs = encode_outputs(call, answer, range(len(answer.outputs)))
    state = state_codec.message_of(call.served, answer.state, call.steps_after(answer), as_values=call.as_values)
    return output, outputs, state


def encode_outputs(
    call: StepCall, answer: StepResult, wanted: Iterable[int]
) -> tuple[lstm_pb2.Tensor, dict[str, lstm_pb2.Tensor]]:
    """Returns the first wanted output, and all wanted ones by name if the model has several."""
    names = [output.name for output in call.served.model.outputs]
    encoded = {names[i]: tensors.encode(answer.outputs[i], as_values=call.as_values) for i in wanted}
    return next(iter(encoded.values())), encoded if len(names) > 1 else {}


def _way_out(model: RecurrentModel) -> str:
    """Returns the advice for a sequence that is too long."""
    if model.causal:
        return "Send the sequence in parts, each with the state that the one before gave back: the answers are the same"
    return "The sequence cannot be sent in parts, as the model reads it whole"
