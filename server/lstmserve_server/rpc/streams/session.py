"""Sans-I/O session of one stream: message in, decision out. It never waits.

session = Session(codec)
decision = session.receive(message)          # what to do
if isinstance(decision, Compute):
    response = session.computed(answer)      # when it is done
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lstmserve.v1 import lstm_pb2, shadow_pb2
from lstmserve_server.core.errors import InvalidRequest, RequestError
from lstmserve_server.model.graph import ModelState, copy_state
from lstmserve_server.model.model import StepResult
from lstmserve_server.model.types import Array
from lstmserve_server.rpc import status
from lstmserve_server.rpc.codec import state as state_codec
from lstmserve_server.rpc.streams.codec import StreamCodec, StreamParameters
from lstmserve_server.runtime.calls import StepCall

Request = lstm_pb2.StreamStepsRequest
Response = lstm_pb2.StreamStepsResponse

_OPEN_FIRST: Final = "expected a message that opens the stream first, and once"


@dataclass(frozen=True, slots=True)
class Compute:
    """Decision that time steps must be computed; pass the result to `Session.computed`."""

    call: StepCall


class Session:
    """State of one stream, and the effect of its messages."""

    def __init__(self, codec: StreamCodec, refused: Callable[[RequestError], None]) -> None:
        """Begins a session.

        Args:
            codec: reads the messages.
            refused: called for messages that are rejected without ending the stream.
        """
        self._codec = codec
        self._refused = refused
        self._parameters: StreamParameters | None = None
        self._state: ModelState = ()
        self._steps_seen: Array | None = None
        self._pending: tuple[int, StepCall] | None = None
        self._number = 0
        """Number of the last message that changed the state."""
        self._since_checkpoint = 0
        self._as_values = False

    @property
    def model(self) -> str:
        """Name of the model; "" before the stream is opened."""
        return self._parameters.served.name if self._parameters is not None else ""

    def receive(self, request: Request) -> Compute | Response:
        """Returns the decision about a message: compute, or an answer.

        Raises:
            RequestError: the message breaks the protocol, or cannot open the stream; the stream must end.
        """
        kind = request.WhichOneof("message")
        if self._parameters is None:
            if kind != "open":
                raise InvalidRequest("message", f"got {kind or 'nothing'} first, {_OPEN_FIRST}")
            return self._open(request.open)
        if kind == "open":
            raise InvalidRequest("message", f"got a second `open` message, {_OPEN_FIRST}")
        try:
            match kind:
                case "input":
                    return self._steps(request.input, self._parameters)
                case "reset":
                    return self._reset(request.reset, self._parameters)
                case "checkpoint":
                    return self._checkpoint(request.checkpoint.number)
                case _:
                    raise InvalidRequest("message", "got nothing, expected input, checkpoint or reset")
        except RequestError as error:
            return self._rejected(_number_of(request), error)

    def computed(self, answer: StepResult, discrepancy: shadow_pb2.Comparison | None = None) -> Response:
        """Returns the answer to the computed message, with the state if a checkpoint is due."""
        assert self._pending is not None  # noqa: S101 - `receive` gave a Compute before
        assert self._parameters is not None  # noqa: S101 - so the stream is open
        number, call = self._pending
        self._pending, self._number, self._as_values = None, number, call.as_values
        self._state, self._steps_seen = answer.state, call.steps_after(answer)
        self._since_checkpoint += call.time
        due = 0 < self._parameters.checkpoint_interval_steps <= self._since_checkpoint
        state = self._state_message() if due else None
        return self._codec.outputs(number, call, answer, self._parameters, state, discrepancy)

    def failed(self, error: RequestError) -> Response:
        """Returns the answer to a message that could not be computed; the state is unchanged."""
        number, _ = self._pending or (0, None)
        self._pending = None
        return self._rejected(number, error)

    def last(self) -> Response | None:
        """Returns the final checkpoint, after the caller has sent everything; None if the stream was never opened."""
        return None if self._parameters is None else self._checkpoint(self._number)

    def going_away(self) -> Response | None:
        """Returns the message that ends a stream when the server drains; None if the stream was never opened."""
        if self._parameters is None:
            return None
        note = lstm_pb2.StreamGoingAway(number=self._number, state=self._state_message())
        return lstm_pb2.StreamStepsResponse(going_away=note)

    def _open(self, request: lstm_pb2.StreamOpen) -> Response:
        parameters = self._codec.parse_open(request)
        self._parameters, self._state, self._steps_seen = parameters, parameters.state, parameters.steps_seen
        opened = lstm_pb2.StreamOpened(
            row_count=parameters.rows,
            model_digest=parameters.served.digest,
            numerics_fingerprint=parameters.served.fingerprint,
        )
        return lstm_pb2.StreamStepsResponse(opened=opened)

    def _steps(self, request: lstm_pb2.StepInput, parameters: StreamParameters) -> Compute:
        call = self._codec.parse_steps(request, parameters, self._state, self._steps_seen)
        self._pending = (request.number, call)
        return Compute(call)

    def _reset(self, request: lstm_pb2.StreamReset, parameters: StreamParameters) -> Response:
        rows, state, seen = self._codec.parse_reset(request, parameters)
        merged = copy_state(self._state)
        for part, new in zip(merged, state, strict=True):
            for array, own in zip(part, new, strict=True):
                array[rows] = own
        self._state, self._number = merged, request.number
        if seen is None:
            self._steps_seen = None
        elif self._steps_seen is not None:
            self._steps_seen = self._steps_seen.copy()
            self._steps_seen[rows] = seen
        return self._checkpoint(request.number)

    def _checkpoint(self, number: int) -> Response:
        checkpoint = lstm_pb2.StreamCheckpoint(number=number, state=self._state_message())
        return lstm_pb2.StreamStepsResponse(checkpoint=checkpoint)

    def _rejected(self, number: int, error: RequestError) -> Response:
        self._refused(error)
        rejected = lstm_pb2.StreamRejected(
            number=number, code=status.code_of(error), text=str(error), field=error.field, reason=error.reason
        )
        return lstm_pb2.StreamStepsResponse(rejected=rejected)

    def _state_message(self) -> lstm_pb2.State:
        assert self._parameters is not None  # noqa: S101 - there is a state since the stream is open
        self._since_checkpoint = 0
        return state_codec.message_of(self._parameters.served, self._state, self._steps_seen, as_values=self._as_values)


def _number_of(request: Request) -> int:
    kind = request.WhichOneof("message")
    return int(getattr(request, kind).number) if kind else 0
