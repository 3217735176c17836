"""What a call may end with instead of an answer, one class per gRPC status that the service uses.

- `LstmServeError`
    - `InvalidRequest`: the request is wrong by itself.
    - `WrongForModel`: the request is right in itself, but not for this model.
    - `NoSuchModel`: no model of that name is served.
    - `LimitReached`: a limit of the server; the text names it.
    - `ServerUnavailable`: no server could be reached, or it is starting or draining.
    - `DeadlineExceeded`: the answer did not come in time.
    - `CallCancelled`: the call was cancelled.
    - `AccessDenied`: the server wants other credentials.
    - `ServerFault`: anything else; a fault of the server or of something between.
"""

from __future__ import annotations

import grpc


class LstmServeError(Exception):
    """Base of all errors of a call; its text is the server's."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class InvalidRequest(LstmServeError):
    """The request is wrong by itself (INVALID_ARGUMENT)."""


class WrongForModel(LstmServeError):
    """The request is right in itself, but not for this model (FAILED_PRECONDITION)."""


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


def from_status(code: grpc.StatusCode, text: str | None) -> LstmServeError:
    """Returns the error that stands for a gRPC status."""
    return _BY_CODE.get(code, ServerFault)(code, text or code.name)
