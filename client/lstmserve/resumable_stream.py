"""The logic that both kinds of streams share: reconnecting, checking and interpreting responses."""

from __future__ import annotations

import random
import time
from typing import Any, Final, Generic, TypeVar

import grpc
from numpy.typing import ArrayLike, NDArray

from lstmserve import calls, errors, tensors, validation
from lstmserve.replay_log import Answer, ReplayLog, Request, Response
from lstmserve.state import State
from lstmserve.stream_call import AsyncStreamCall, LostError, StreamCall
from lstmserve.v1 import lstm_pb2

Array = NDArray[Any]

_RETRYABLE: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,  # what gRPC's core answers to calls that meet a server in the moment when it stops
    grpc.StatusCode.DEADLINE_EXCEEDED,  # a server that does not keep idle streams
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
)
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0  # seconds between two attempts

_Connection = TypeVar("_Connection", StreamCall, AsyncStreamCall)


class ReconnectPolicy:
    """Reconnect policy: gives up after `reconnect_timeout` seconds without an answer."""

    def __init__(self, reconnect_timeout: float) -> None:
        self._reconnect_timeout = reconnect_timeout
        self._failures = 0
        self._since = time.monotonic()
        self.reconnects = 0

    def wait(self) -> None:
        """Records that something is waited for: a caller may be silent for as long as he likes."""
        if not self._failures:
            self._since = time.monotonic()

    def progressed(self) -> None:
        """Records that something came."""
        self._failures, self._since = 0, time.monotonic()

    @property
    def deadline(self) -> float:
        """Time to give up if no answer arrives, by the monotonic clock."""
        return self._since + self._reconnect_timeout

    def failed(self, error: errors.LstmServeError) -> float:
        """Returns the seconds to wait before the next attempt.

        Raises:
            LstmServeError: continuing is useless.
        """
        retryable = error.code in _RETRYABLE or error.retry_after is not None
        if not retryable or time.monotonic() - self._since > self._reconnect_timeout:
            raise error
        self.reconnects += 1
        self._failures += 1
        pause = min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2 ** (self._failures - 1))
        return 0 if self._failures == 1 else pause * random.uniform(0.5, 1)  # noqa: S311 - to spread callers out


class ResumableStream(Generic[_Connection]):
    """Base of both kinds of streams: a replay log, and the rules of reconnecting."""

    def __init__(
        self, opening: lstm_pb2.StreamOpen, address: str, *, strict: bool, timeout: float, reconnect_timeout: float
    ) -> None:
        self._replay_log = ReplayLog(opening, strict=strict)
        self._address = address
        self._timeout = timeout
        self._due = 0.0
        """When the server that is waited for has been silent for too long, by the monotonic clock."""
        self._greeted = False
        """Whether this connection's server has opened the stream."""
        self._reconnects = ReconnectPolicy(reconnect_timeout)
        self._single = opening.row_count <= 1
        self._connection: _Connection | None = None
        self._checkpoint: State | None = None
        self._ended: errors.LstmServeError | None = None

    @property
    def reconnects(self) -> int:
        """Number of times the stream continued in another call."""
        return self._reconnects.reconnects

    @property
    def numerics_changes(self) -> int:
        """Number of times it continued on a server with other numerics, so that bytes may differ from an uninterrupted run."""
        return self._replay_log.numerics_changes

    @property
    def last_checkpoint(self) -> State | None:
        """The last state that the server sent; None before the first."""
        return self._checkpoint

    def _require_open(self) -> None:
        """Refuses to send on a stream that has ended."""
        if self._ended is not None:
            raise self._ended

    def _end(self, error: errors.LstmServeError) -> None:
        """Records why the stream is over."""
        self._ended = self._ended or error

    def _pause_after(self, error: errors.LstmServeError) -> float:
        """Returns the seconds to wait before the next attempt; where there is none, the stream has ended.

        Raises:
            LstmServeError: it has.
        """
        try:
            return self._reconnects.failed(error)
        except errors.LstmServeError as last:
            self._ended = last
            raise

    def _require_taken(self) -> None:
        """Refuses what would be answered only after outputs that no one has taken, before it is remembered."""
        self._require_open()
        if self._replay_log.outstanding:
            message = (
                f"{self._replay_log.outstanding} outputs of steps() have not been taken; go through it to its end, or through "
                "steps([]), which yields them"
            )
            raise RuntimeError(message)

    def _wait(self) -> None:
        """Begins to wait for an answer."""
        self._reconnects.wait()
        self._due = time.monotonic() + self._timeout

    def _seconds_left(self) -> float:
        """Returns how long a server may continue without an answer. What no one asked for does not count as one.

        Raises:
            LostError: no longer, whatever it sends.
        """
        left = self._due - time.monotonic()
        if left <= 0:
            raise self._silent()
        return left

    def _silent(self) -> LostError:
        """Returns that the server of this connection does not answer."""
        return LostError(errors.silent(self._address, self._timeout))

    def _resumed(self) -> list[Request]:
        """Returns what another connection begins with, which gets time of its own."""
        self._greeted, self._due = False, time.monotonic() + self._timeout
        return self._replay_log.resumed()

    def _checked(self, data: bytes | None) -> Response:
        """Returns a message of the server, if no other was lost before it.

        Raises:
            LostError: one was, so that the state of the server is not what it should be; or none came (None).
            InvalidResponse: it is none of those that may come.
        """
        if data is None:
            raise self._silent()
        try:
            response = validation.parsed(Response, data)
            self._require_turn(response)
            if not self._replay_log.is_in_order(response):
                raise LostError(errors.out_of_order())
        except validation.InvalidResponseError as error:
            raise self._unfit(error) from error
        if response.WhichOneof("message") != "going_away":
            self._greeted = True
            # An answer that was delivered before is progress, but not without end.
            self._due = min(time.monotonic(), self._reconnects.deadline) + self._timeout
        return response

    def _require_turn(self, response: Response) -> None:
        """Refuses a message that is none, that opens a stream twice, or that comes before it is opened."""
        kind = response.WhichOneof("message")
        if kind is None:
            raise validation.InvalidResponseError(
                "got an empty message, expected one of the message types of the contract"
            )
        if kind == "opened" and self._greeted:
            raise validation.InvalidResponseError("the stream was opened twice; expected the answer to a message")
        if kind not in ("opened", "going_away") and not self._greeted:
            message = f"got {kind} before the stream was opened"
            raise validation.InvalidResponseError(message)

    def _is_opened(self, response: Response) -> bool | None:
        """Takes a message; returns True if the stream is open, else None."""
        self._received(response)
        return self._replay_log.opened or None

    def _unfit(self, error: validation.InvalidResponseError) -> errors.LstmServeError:
        """Returns the error of an answer that fits nothing that was asked; the stream has ended with it."""
        self._ended = errors.invalid_response(self._address, str(error))
        return self._ended

    def _send(self, messages: list[Request]) -> None:
        if self._connection is not None:
            for message in messages:
                self._connection.send(message)

    def _request(self, x: ArrayLike) -> list[Request]:
        array = calls.to_sendable(x)
        if array.ndim < 2 and self._single:  # noqa: PLR2004 - rows and features
            array = array.reshape(1, -1)
        return self._replay_log.steps(tensors.encode(array))

    def _received(self, response: Response) -> Answer | None:
        try:
            answer = self._replay_log.receive(response)
        except validation.InvalidResponseError as error:
            raise self._unfit(error) from error
        except errors.NumericsChanged as error:
            self._ended = error
            raise
        # What another server has answered before proves nothing: the next input may kill them all.
        if answer is not None:
            self._reconnects.progressed()
            self._checkpoint = answer.state or self._checkpoint
        return answer

    @staticmethod
    def _output(answer: Answer) -> Array:
        if answer.error is not None:
            raise answer.error
        assert answer.output is not None  # noqa: S101 - the answer to time-steps
        return answer.output

    @staticmethod
    def _state(answer: Answer) -> State:
        if answer.error is not None:
            raise answer.error
        assert answer.state is not None  # noqa: S101 - the answer to what asks for a state
        return answer.state
