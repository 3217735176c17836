"""Decodes the messages of a stream into valid values, and encodes responses. `rpc.codec` does the same for single calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lstmserve.v1 import lstm_pb2, shadow_pb2
from lstmserve_server.core.errors import InvalidRequest, OtherNumerics, OtherWeights, WrongForModel, format_names
from lstmserve_server.model.graph import ModelState
from lstmserve_server.model.model import StepResult
from lstmserve_server.model.types import Array
from lstmserve_server.rpc.codec import state as state_codec
from lstmserve_server.rpc.codec.requests import Codec, encode_outputs, validate_input
from lstmserve_server.runtime.calls import ForwardCall, StepCall
from lstmserve_server.runtime.registry import ServedModel

_MAX_CHECKPOINT_INTERVAL_STEPS = 2**31 - 1  # time-steps between two checkpoints


@dataclass(frozen=True, slots=True)
class StreamParameters:
    """A valid first message."""

    served: ServedModel
    rows: int
    state: ModelState
    steps_seen: Array | None
    checkpoint_interval_steps: int
    outputs: tuple[int, ...]
    """The numbers of the outputs that are wanted."""


class StreamCodec:
    """Decodes the messages of streams, within the limits of single calls, and encodes responses."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def parse_open(self, request: lstm_pb2.StreamOpen) -> StreamParameters:
        """Returns the parameters in a first message.

        Raises:
            RequestError: they are not valid; the error names the field.
        """
        served = self._codec.find(request.model)
        model = served.model
        model.require_causal()
        for field, wanted, own, refusal in (
            ("model_digest", request.model_digest, served.digest, OtherWeights),
            ("numerics_fingerprint", request.numerics_fingerprint, served.fingerprint, OtherNumerics),
        ):
            if wanted not in ("", own):
                raise refusal(field, f"got {wanted[:64]!r}; this server has {own!r}. Ask another one")
        if not 0 <= request.checkpoint_interval_steps <= _MAX_CHECKPOINT_INTERVAL_STEPS:
            text = f"got {request.checkpoint_interval_steps}, expected 0 to {_MAX_CHECKPOINT_INTERVAL_STEPS}"
            raise InvalidRequest("checkpoint_interval_steps", text)
        message = request.state if request.HasField("state") else None
        rows = request.row_count or state_codec.rows_of(message) or 1
        self._codec.check_rows(rows, "row_count")
        self._codec.check_answer(model, rows, 1, "row_count", as_values=False)
        state, seen = state_codec.parse(message, served, rows)
        return StreamParameters(
            served, rows, state, seen, request.checkpoint_interval_steps, _wanted(request.outputs, served)
        )

    def parse_steps(
        self, request: lstm_pb2.StepInput, parameters: StreamParameters, state: ModelState, seen: Array | None
    ) -> StepCall:
        """Returns the call in a message: a `StepCall` for one time step, a `ForwardCall` for several.

        Raises:
            RequestError: the message is not valid; the error names the field.
        """
        served, item = parameters.served, parameters.served.model.inputs[0]
        message = request.x if request.HasField("x") else None
        one_step = message is not None and len(message.shape) == 1 + len(item.features)
        x = self._codec.decode_input(message, "x", item, served.model, stepped=one_step)
        if len(x) != parameters.rows:
            raise InvalidRequest(
                "x.shape", f"got {len(x)} rows, expected {parameters.rows}, the number of rows of the stream"
            )
        as_values = bool(request.x.values)
        self._codec.check_answer(served.model, len(x), 1 if one_step else x.shape[1], "x.shape", as_values=as_values)
        x = validate_input(x, item, served.model, "x")
        if one_step:
            return StepCall(served, (x,), state, seen, as_values, compare=request.compare)
        return ForwardCall(served, (x,), state, seen, as_values, None, all_outputs=True, compare=request.compare)

    def parse_reset(
        self, request: lstm_pb2.StreamReset, parameters: StreamParameters
    ) -> tuple[Array, ModelState, Array | None]:
        """Returns the rows that a message resets, their new state, and its step counts.

        Raises:
            RequestError: the message is not valid; the error names the field.
        """
        if not request.rows:
            raise InvalidRequest("rows", "got none, expected at least one")
        for i, row in enumerate(request.rows):
            if not 0 <= row < parameters.rows:
                raise InvalidRequest(f"rows[{i}]", f"got {row}, expected 0 to {parameters.rows - 1}")
        if len(set(request.rows)) < len(request.rows):
            raise InvalidRequest("rows", "got a row twice, expected each at most once")
        message = request.state if request.HasField("state") else None
        state, seen = state_codec.parse(message, parameters.served, len(request.rows))
        return np.array(request.rows, np.int64), state, seen

    def outputs(
        self,
        number: int,
        call: StepCall,
        answer: StepResult,
        parameters: StreamParameters,
        state: lstm_pb2.State | None,
        discrepancy: shadow_pb2.Comparison | None,
    ) -> lstm_pb2.StreamStepsResponse:
        """Returns the answer to a message of time-steps."""
        output, outputs = encode_outputs(call, answer, parameters.outputs)
        message = lstm_pb2.StepOutput(
            number=number, output=output, outputs=outputs, state=state, comparison=discrepancy
        )
        return lstm_pb2.StreamStepsResponse(output=message)


def _wanted(names: Sequence[str], served: ServedModel) -> tuple[int, ...]:
    known = [output.name for output in served.model.outputs]
    for i, name in enumerate(names):
        if name not in known:
            raise WrongForModel(f"outputs[{i}]", f"got {name[:64]!r}; the model has {format_names(known)}")
    return tuple(known.index(name) for name in dict.fromkeys(names)) or tuple(range(len(known)))
