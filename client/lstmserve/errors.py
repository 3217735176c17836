"""What a call may end with instead of an answer, one class per gRPC status that the service uses.

- `LstmServeError`
    - `InvalidRequest`: the request is wrong by itself.
    - `WrongForModel`: the request is right in itself, but not for this model.
        - `NumericsChanged`: a stream would have to go on with other numerics.
    - `NoSuchModel`: no model of that name is served.
    - `LimitReached`: a limit of the server; the text names it.
    - `ServerUnavailable`: no server could be reached, or it is starting or draining.
    - `DeadlineExceeded`: the answer did not come in time.
    - `CallCancelled`: the call was cancelled.
    - `AccessDenied`: the server wants other credentials.
    - `ServerFault`: anything else; a fault of the server or of something between.
        - `BadAnswer`: the server answered, and not what it was asked.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import grpc

from lstmserve.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable


class LstmServeError(Exception):
    """Base of all errors of a call; its text is the server's, made printable."""

    def __init__(self, code: grpc.StatusCode, text: str, retry_after: float | None = None) -> None:
        text = printable(text)
        super().__init__(code, text, retry_after)  # all of them, so that the error can be pickled
        self.code = code
        self.text = text
        self.retry_after = retry_after
        """Seconds after which the server finds it worth asking again; None where it does not say so."""

    def __str__(self) -> str:
        """Returns the server's text."""
        return self.text


class InvalidRequest(LstmServeError):
    """The request is wrong by itself (INVALID_ARGUMENT)."""


class WrongForModel(LstmServeError):
    """The request is right in itself, but not for this model (FAILED_PRECONDITION)."""


class NumericsChanged(WrongForModel):
    """A stream that was to give the same bytes would have to go on with a server that computes others."""


class NoSuchModel(LstmServeError):
    """No model of that name is served (NOT_FOUND)."""


class LimitReached(LstmServeError):
    """The request needs more than the server gives, or it is full (RESOURCE_EXHAUSTED)."""


class ServerUnavailable(LstmServeError):
    """No server could be reached, or it is starting or draining (UNAVAILABLE)."""


class DeadlineExceeded(LstmServeError):
    """The answer did not come in time (DEADLINE_EXCEEDED)."""


class CallCancelled(LstmServeError):
    """The call was cancelled, by the caller or by a server that stopped (CANCELLED)."""


class AccessDenied(LstmServeError):
    """The server wants other credentials (UNAUTHENTICATED, PERMISSION_DENIED)."""


class ServerFault(LstmServeError):
    """A fault of the server or of something between (any other status)."""


class BadAnswer(ServerFault):
    """The server answered, and not what it was asked: other rows, numbers that are not finite, or no message at all."""


_PUSHBACK: Final = re.compile(r"[0-9]{1,9}")  # milliseconds

_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.FAILED_PRECONDITION: WrongForModel,
    grpc.StatusCode.NOT_FOUND: NoSuchModel,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitReached,
    grpc.StatusCode.UNAVAILABLE: ServerUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: CallCancelled,
    grpc.StatusCode.UNAUTHENTICATED: AccessDenied,
    grpc.StatusCode.PERMISSION_DENIED: AccessDenied,
}


def from_status(code: grpc.StatusCode, text: str | None, trailing: Iterable[Any] | None = None) -> LstmServeError:
    """Returns the error that stands for a gRPC status with its trailing metadata."""
    pushback = next((value for key, value in trailing or () if key == "grpc-retry-pushback-ms"), "")
    seconds = int(pushback) / 1000 if _PUSHBACK.fullmatch(str(pushback)) else None
    return _BY_CODE.get(code, ServerFault)(code, text or code.name, seconds)


def numerics_changed(before: str, now: str) -> NumericsChanged:
    """Returns the error of a stream that would go on with other numerics."""
    return NumericsChanged(
        grpc.StatusCode.FAILED_PRECONDITION,
        f"the server that would go on has the numerics {now!r}, and the one before had {before!r}: the outputs would differ by "
        "rounding. Ask without strict to go on all the same",
    )


def bad_answer(address: str, text: str) -> BadAnswer:
    """Returns the error of an answer that does not fit what was asked of the server at an address."""
    return BadAnswer(
        grpc.StatusCode.INTERNAL, f"the server at {address} gave an answer that does not fit what it was asked: {text}"
    )


def silent(address: str, seconds: float) -> DeadlineExceeded:
    """Returns the error of a server that does not answer what it was asked."""
    return DeadlineExceeded(
        grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer came from the server at {address} for {seconds:g} seconds"
    )


def ended() -> ServerUnavailable:
    """Returns the error of a stream that the server ended before all was answered."""
    return ServerUnavailable(grpc.StatusCode.UNAVAILABLE, "the server ended the stream")


def out_of_order() -> ServerUnavailable:
    """Returns the error of a stream on which a message was lost."""
    return ServerUnavailable(grpc.StatusCode.UNAVAILABLE, "a message of the stream was lost on its way to the server")


def stream_closed() -> CallCancelled:
    """Returns the error of a stream that is used after it was closed."""
    return CallCancelled(grpc.StatusCode.CANCELLED, "the stream was closed")


def closed() -> CallCancelled:
    """Returns the error of a call on a client that was closed."""
    return CallCancelled(grpc.StatusCode.CANCELLED, "the client was closed")
