"""Maps errors to gRPC statuses. Only the health and the reflection service, which are standard ones, choose theirs themselves."""

from __future__ import annotations

import math
from typing import Any, Final, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from lstmserve_server.core.errors import (
    DeadlineExceeded,
    InvalidRequest,
    LimitExceeded,
    NoSuchModel,
    NotServing,
    OtherNumerics,
    OtherWeights,
    Overloaded,
    PermissionDenied,
    RequestError,
    Unauthenticated,
    WrongForModel,
)

_DOMAIN: Final = "lstmserve"
_DETAILS_KEY: Final = "grpc-status-details-bin"
_PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"

_CODES: Final[dict[type[RequestError], grpc.StatusCode]] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    WrongForModel: grpc.StatusCode.FAILED_PRECONDITION,
    OtherWeights: grpc.StatusCode.FAILED_PRECONDITION,
    OtherNumerics: grpc.StatusCode.FAILED_PRECONDITION,
    NoSuchModel: grpc.StatusCode.NOT_FOUND,
    LimitExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NotServing: grpc.StatusCode.UNAVAILABLE,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
}

Status = tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]
"""Code, text, and trailing metadata."""


def status_of(error: RequestError) -> Status:
    """Returns the status of an error: code, text, and the machine-readable details (google.rpc.Status) as metadata."""
    code = _CODES[type(error)]
    metadata = [_with_details(code, str(error), error.reason, _details(error))]
    if isinstance(error, Overloaded):
        metadata.append((_PUSHBACK_KEY, str(math.ceil(error.retry_after * 1000))))
    return code, str(error), tuple(metadata)


def code_of(error: RequestError) -> int:
    """Returns the gRPC code of an error, as a number."""
    number: int = _CODES[type(error)].value[0]
    return number


def internal_status(request_id: str) -> Status:
    """Returns the status of an internal error: a fixed text, and the request id to look for in the log."""
    code, text = grpc.StatusCode.INTERNAL, f"internal error; look for request {request_id} in the log of the server"
    return code, text, (_with_details(code, text, "INTERNAL", []),)


async def abort(context: Any, how: Status, *more: tuple[str, str | bytes]) -> NoReturn:
    """Ends a call with a status and further metadata."""
    code, text, metadata = how
    await context.abort(code, text, (*metadata, *more))
    raise AssertionError  # abort always raises


def _with_details(code: grpc.StatusCode, text: str, reason: str, details: list[Message]) -> tuple[str, str | bytes]:
    status = status_pb2.Status(code=code.value[0], message=text)
    for detail in (error_details_pb2.ErrorInfo(reason=reason, domain=_DOMAIN), *details):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return _DETAILS_KEY, status.SerializeToString()


def _details(error: RequestError) -> list[Message]:
    match error:
        case InvalidRequest():
            violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.text)
            return [error_details_pb2.BadRequest(field_violations=[violation])]
        case WrongForModel():
            precondition = error_details_pb2.PreconditionFailure.Violation(
                type=error.reason, subject=error.field, description=error.text
            )
            return [error_details_pb2.PreconditionFailure(violations=[precondition])]
        case Overloaded():
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(math.ceil(error.retry_after * 1000))
            return [error_details_pb2.RetryInfo(retry_delay=delay)]
        case _:
            return []
