"""Replay log of a stream: the last checkpoint and the messages sent since.

It is sans-I/O. Messages are numbered 1, 2, 3 and so on, and a server answers them in order. What a checkpoint covers is not sent
again, and an answer that was already delivered is skipped.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from numpy.typing import NDArray

from lstmserve import errors, validation
from lstmserve.state import State
from lstmserve.v1 import lstm_pb2
from lstmserve.validation import Expected

_MOST_BYTES: Final = 8 << 20  # of messages to remember before a checkpoint is asked for
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}

Request = lstm_pb2.StreamStepsRequest
Response = lstm_pb2.StreamStepsResponse


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a message: an output, a state, both, or an error."""

    number: int
    output: NDArray[Any] | None = None
    state: State | None = None
    error: errors.LstmServeError | None = None


class ReplayLog:
    """The messages of one stream since its last checkpoint."""

    def __init__(self, opening: lstm_pb2.StreamOpen, *, strict: bool) -> None:
        self._opening = opening
        self._strict = strict
        given = opening.state if opening.HasField("state") and opening.state.layers else None
        self._records: dict[int, Request] = {}
        self._bytes = 0
        self._last = 0
        """Number of the last message."""
        self._delivered = 0
        """Number of the last message whose answer was delivered."""
        self._own: set[int] = set()
        """Numbers of the checkpoints that no one but this journal asked for, until they are answered."""
        self._awaited: deque[tuple[int, str]] = deque()
        """Number and kind of the answers that the server that serves now is to send, in order."""
        self._state = None if given is None else State.from_message(given)
        """The last state; None before the first."""
        self.opened = False
        """Whether a server has opened the stream."""
        self.fingerprint = ""
        """Numerics of the server that answers."""
        self.numerics_changes = 0
        """How often another server had other numerics, so that the bytes may differ from those of an uninterrupted run."""

    @property
    def outstanding(self) -> int:
        """Number of the caller's messages without an answer."""
        return self._last - self._delivered - len(self._own)

    def steps(self, x: lstm_pb2.Tensor) -> list[Request]:
        """Returns the message of time steps, and a checkpoint request if the log is long."""
        messages = [self._recorded(Request(input=lstm_pb2.StepInput(number=self._last + 1, x=x)))]
        if self._bytes > _MOST_BYTES and not self._own:
            messages += self.checkpoint()
            self._own.add(self._last)
        return messages

    def reset(self, rows: Iterable[int], state: lstm_pb2.State | None) -> list[Request]:
        """Returns the message that resets rows."""
        return [self._recorded(Request(reset=lstm_pb2.StreamReset(number=self._last + 1, rows=rows, state=state)))]

    def checkpoint(self) -> list[Request]:
        """Returns the message that asks for the state."""
        return [self._recorded(Request(checkpoint=lstm_pb2.StreamCheckpointRequest(number=self._last + 1)))]

    def resumed(self) -> list[Request]:
        """Returns the messages for a new server: the checkpoint, and everything sent since."""
        self._awaited = deque((number, _answer_of(request)) for number, request in self._records.items())
        return [Request(open=self._opening), *self._records.values()]

    def is_in_order(self, response: Response) -> bool:
        """Returns whether a response answers the next message in order, so that none was lost.

        Raises:
            InvalidResponseError: it is another kind of response.
        """
        kind = response.WhichOneof("message")
        if kind not in ("output", "checkpoint", "rejected"):
            return True
        if not self._awaited:
            return False
        number, expected = self._awaited.popleft()
        if number != getattr(response, kind).number:
            return False
        if kind not in (expected, "rejected") or (kind == "rejected" and number in self._own):
            message = f"got {kind} for message {number}, expected {expected}"
            raise validation.InvalidResponseError(message)
        return True

    def receive(self, response: Response) -> Answer | None:
        """Records a response; returns the answer if it was not delivered before.

        Raises:
            NumericsChanged: another server has other numerics, which the stream does not allow.
            InvalidResponseError: it does not fit the request.
        """
        kind = response.WhichOneof("message")
        if kind == "opened":
            self._opened(response.opened)
            return None
        if kind == "going_away":
            validation.state(response.going_away.state, self._asked())
            self._checkpointed(response.going_away.number, response.going_away.state)
            return None
        answer = _answer(response, self._asked())
        if kind == "rejected":
            self._forget(answer.number)
        elif answer.state is not None:
            state = response.checkpoint.state if kind == "checkpoint" else response.output.state
            self._state = answer.state
            self._checkpointed(answer.number, state)
        if answer.number <= self._delivered:
            return None
        self._delivered = answer.number
        if answer.number in self._own:
            self._own.discard(answer.number)
            return None
        return answer

    def _asked(self) -> Expected:
        """Returns what a response must fit: its state has the layers of the previous one."""
        before = (
            None if self._state is None else dataclasses.replace(self._state, steps_seen=None)
        )  # a reset starts again
        return Expected(self._opening.row_count, before, self._opening.model_digest)

    def _recorded(self, message: Request) -> Request:
        self._last += 1
        self._records[self._last] = message
        self._awaited.append((self._last, _answer_of(message)))
        self._bytes += message.ByteSize()
        return message

    def _opened(self, opened: lstm_pb2.StreamOpened) -> None:
        if opened.row_count != (self._opening.row_count or opened.row_count) or opened.row_count < 1:
            message = f"the stream was opened with {opened.row_count} rows; expected {self._opening.row_count or 1}"
            raise validation.InvalidResponseError(message)
        if not opened.model_digest or opened.model_digest != (self._opening.model_digest or opened.model_digest):
            expected = self._opening.model_digest[:16] or "a digest"
            message = f"the stream was opened for the model {opened.model_digest[:16]!r}; expected {expected!r}"
            raise validation.InvalidResponseError(message)
        self.opened = True
        self._opening.row_count, self._opening.model_digest = opened.row_count, opened.model_digest
        if self.fingerprint not in ("", opened.numerics_fingerprint):
            if self._strict:
                raise errors.numerics_changed(self.fingerprint, opened.numerics_fingerprint)
            self.numerics_changes += 1
        self.fingerprint = opened.numerics_fingerprint

    def _checkpointed(self, number: int, state: lstm_pb2.State) -> None:
        self._opening.state.CopyFrom(state)
        for old in [old for old in self._records if old <= number]:
            self._forget(old)

    def _forget(self, number: int) -> None:
        message = self._records.pop(number, None)
        self._bytes -= 0 if message is None else message.ByteSize()


def _answer_of(request: Request) -> str:
    """Returns the kind of message that answers a request."""
    return "output" if request.WhichOneof("message") == "input" else "checkpoint"


def _answer(response: Response, asked: Expected) -> Answer:
    kind = response.WhichOneof("message")
    if kind == "output":
        outputs = response.output
        state = validation.state(outputs.state, asked) if outputs.HasField("state") else None
        return Answer(outputs.number, validation.output(outputs.output, asked, state), state)
    if kind == "checkpoint":
        return Answer(response.checkpoint.number, state=validation.state(response.checkpoint.state, asked))
    rejected = response.rejected
    code = _CODES.get(rejected.code, grpc.StatusCode.UNKNOWN)
    return Answer(rejected.number, error=errors.of_rejection(code, rejected))
