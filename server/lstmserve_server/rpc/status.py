"""The one table from our errors to gRPC status."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from lstmserve_server.core.errors import (
    Busy,
    Forbidden,
    InvalidRequest,
    LimitExceeded,
    NoSuchModel,
    NotServing,
    RequestError,
    TooLate,
    Unauthenticated,
    WrongForModel,
)

if TYPE_CHECKING:
    from google.protobuf.message import Message

_DOMAIN: Final = "lstmserve"
_DETAILS_KEY: Final = "grpc-status-details-bin"
_PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"

_CODES: Final[dict[type[RequestError], grpc.StatusCode]] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    WrongForModel: grpc.StatusCode.FAILED_PRECONDITION,
    NoSuchModel: grpc.StatusCode.NOT_FOUND,
    LimitExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Busy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NotServing: grpc.StatusCode.UNAVAILABLE,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    TooLate: grpc.StatusCode.DEADLINE_EXCEEDED,
}

Status = tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]
"""Code, text, and trailing metadata."""


def of(error: RequestError) -> Status:
    """Returns the status of an error: code, text, and as metadata the details that programs read (google.rpc.Status)."""
    code = _CODES[type(error)]
    details = [error_details_pb2.ErrorInfo(reason=error.reason, domain=_DOMAIN), *_details(error)]
    status = status_pb2.Status(code=code.value[0], message=str(error))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    metadata: list[tuple[str, str | bytes]] = [(_DETAILS_KEY, status.SerializeToString())]
    if isinstance(error, Busy):
        metadata.append((_PUSHBACK_KEY, str(math.ceil(error.retry_after * 1000))))
    return code, str(error), tuple(metadata)


def code_of(error: RequestError) -> int:
    """Returns the number of the gRPC code of an error."""
    number: int = _CODES[type(error)].value[0]
    return number


def of_fault(request_id: str) -> Status:
    """Returns the status of a fault of ours: a fixed text and the id to look for in the log."""
    return grpc.StatusCode.INTERNAL, f"internal error; look for request {request_id} in the log of the server", ()


async def abort(context: Any, how: Status, *more: tuple[str, str | bytes]) -> NoReturn:
    """Ends a call with a status, and with more metadata behind its own."""
    code, text, metadata = how
    await context.abort(code, text, (*metadata, *more))
    raise AssertionError  # abort always raises


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
        case Busy():
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(math.ceil(error.retry_after * 1000))
            return [error_details_pb2.RetryInfo(retry_delay=delay)]
        case _:
            return []
