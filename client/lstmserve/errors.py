"""Errors of calls: one class per gRPC status, under one root.

- `LstmServeError`
    - `InvalidArgument`: the request is wrong by itself. Also a ValueError.
    - `FailedPrecondition`: the request is right by itself, but not for this model.
        - `ModelMismatch`: a state or a digest belongs to other weights.
        - `NumericsChanged`: a stream would have to continue with other numerics.
    - `NotFound`: no model of that name is served.
    - `ResourceExhausted`: the request exceeds a limit, or the server is full; the text names the limit.
    - `Unavailable`: no server could be reached, or it is starting or draining.
    - `DeadlineExceeded`: the answer did not come in time.
    - `Cancelled`: the call was cancelled.
    - `Unauthenticated`: the server needs a token that it knows.
    - `PermissionDenied`: the token is not valid for this model or method.
    - `Internal`: any other status; a fault of the server or of something between.
        - `InvalidResponse`: the server answered, but not what it was asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import grpc

from lstmserve import status_details
from lstmserve.text import printable
from lstmserve.v1 import lstm_pb2


class LstmServeError(Exception):
    """Base of all errors of a call; its text is the server's, made printable.

    Attributes:
        code: the gRPC status code.
        text: the server's sentence: what is wrong, what was expected, and what to do.
        reason: the reason for programs, such as "BUSY" (`LstmService` in the contract lists them); "" if the server gave none.
        field: the field of the request that is wrong, such as "x.shape"; "" if it is none in particular.
        request_id: the id of the call in the server's log; "" if no server answered.
        retry_after: seconds after which the server finds it worth asking again; None if it does not say so.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        text: str,
        reason: str = "",
        field: str = "",
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        text, reason, field, request_id = map(printable, (text, reason, field, request_id))
        super().__init__(code, text, reason, field, request_id, retry_after)  # all of them, so that it can be pickled
        self.code = code
        self.text = text
        self.reason = reason
        self.field = field
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        """Returns the server's text."""
        return self.text


class InvalidArgument(LstmServeError, ValueError):
    """The request is wrong by itself (INVALID_ARGUMENT)."""


class FailedPrecondition(LstmServeError):
    """The request is right by itself, but not for this model (FAILED_PRECONDITION)."""


class ModelMismatch(FailedPrecondition):
    """A state or a digest belongs to other weights than the server's."""


class NumericsChanged(FailedPrecondition):
    """A stream that must give the same bytes would have to continue on a server with other numerics."""


class NotFound(LstmServeError):
    """No model of that name is served (NOT_FOUND)."""


class ResourceExhausted(LstmServeError):
    """The request exceeds a limit of the server, or the server is full (RESOURCE_EXHAUSTED)."""


class Unavailable(LstmServeError):
    """No server could be reached, or it is starting or draining (UNAVAILABLE)."""


class DeadlineExceeded(LstmServeError):
    """The answer did not come in time (DEADLINE_EXCEEDED)."""


class Cancelled(LstmServeError):
    """The call was cancelled, by the caller or by a server that stopped (CANCELLED)."""


class Unauthenticated(LstmServeError):
    """The server needs a token that it knows (UNAUTHENTICATED)."""


class PermissionDenied(LstmServeError):
    """The token is not valid for this model or method (PERMISSION_DENIED)."""


class Internal(LstmServeError):
    """A fault of the server or of something between (any other status)."""


class InvalidResponse(Internal):
    """The server answered, but not what it was asked: other rows, numbers that are not finite, or no message at all."""


_BY_CODE: Final[dict[grpc.StatusCode, type[LstmServeError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
}
_BY_REASON: Final[dict[str, type[LstmServeError]]] = {
    "OTHER_WEIGHTS": ModelMismatch,
    "OTHER_NUMERICS": NumericsChanged,
}


def from_status(code: grpc.StatusCode, text: str | None, trailing: Iterable[Any] | None = None) -> LstmServeError:
    """Returns the error of a gRPC status with its trailing metadata."""
    details = status_details.read(trailing)
    return of_class(code, details.reason)(code, text or code.name, *details)


def of_class(code: grpc.StatusCode, reason: str) -> type[LstmServeError]:
    """Returns the class of the error of a status: that of its reason if it belongs to the code, else that of the code."""
    by_code = _BY_CODE.get(code, Internal)
    by_reason = _BY_REASON.get(reason, by_code)
    return by_reason if issubclass(by_reason, by_code) else by_code


def of_rejection(code: grpc.StatusCode, rejected: lstm_pb2.StreamRejected) -> LstmServeError:
    """Returns the error of a stream message that the server has rejected."""
    return of_class(code, rejected.reason)(code, rejected.text or code.name, rejected.reason, rejected.field)


def numerics_changed(before: str, now: str) -> NumericsChanged:
    """Returns the error of a stream that would continue with other numerics."""
    return NumericsChanged(
        grpc.StatusCode.FAILED_PRECONDITION,
        f"the server that would continue has the numerics {now!r}, and the one before had {before!r}: the outputs would differ "
        "by rounding. Ask without strict to continue nevertheless",
        reason="OTHER_NUMERICS",
    )


def invalid_response(address: str, text: str) -> InvalidResponse:
    """Returns the error of a response that does not fit its request."""
    return InvalidResponse(
        grpc.StatusCode.INTERNAL, f"the server at {address} gave an answer that does not fit what it was asked: {text}"
    )


def silent(address: str, seconds: float) -> DeadlineExceeded:
    """Returns the error of a server that does not answer."""
    return DeadlineExceeded(
        grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer from the server at {address} for {seconds:g} seconds"
    )


def ended() -> Unavailable:
    """Returns the error of a stream that the server ended before all was answered."""
    return Unavailable(grpc.StatusCode.UNAVAILABLE, "the server ended the stream")


def out_of_order() -> Unavailable:
    """Returns the error of a stream on which a message was lost."""
    return Unavailable(grpc.StatusCode.UNAVAILABLE, "a message of the stream was lost on its way to the server")


def stream_closed() -> Cancelled:
    """Returns the error of a stream that is used after it was closed."""
    return Cancelled(grpc.StatusCode.CANCELLED, "the stream was closed")


def closed() -> Cancelled:
    """Returns the error of a call on a client that was closed."""
    return Cancelled(grpc.StatusCode.CANCELLED, "the client was closed")
