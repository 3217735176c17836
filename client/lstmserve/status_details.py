"""Parses google.rpc.Status from the trailing metadata of a failed call.

Only the messages and fields that the client needs are declared here, so that it does not depend on googleapis-common-protos:
https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

_DETAILS_KEY: Final = "grpc-status-details-bin"
_REQUEST_ID_KEY: Final = "x-request-id"
_PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
_MAX_DETAILS_BYTES: Final = 16 << 10
_MAX_PUSHBACK_DIGITS: Final = 9

_FIELDS: Final = {
    "Status": (("details", 3, "repeated google.protobuf.Any"),),
    "ErrorInfo": (("reason", 1, "string"),),
    "FieldViolation": (("field", 1, "string"),),
    "BadRequest": (("field_violations", 1, "repeated lstmserve.rpc.FieldViolation"),),
    "PreconditionViolation": (("subject", 2, "string"),),
    "PreconditionFailure": (("violations", 1, "repeated lstmserve.rpc.PreconditionViolation"),),
}


class Details(NamedTuple):
    """Details of an error; each "" or None if the server gave none."""

    reason: str = ""
    field: str = ""
    request_id: str = ""
    retry_after: float | None = None


def read(trailing: Iterable[Any] | None) -> Details:
    """Returns the details in the trailing metadata of a call. What cannot be read is left out."""
    metadata = {key: value for key, value in trailing or () if key in (_DETAILS_KEY, _REQUEST_ID_KEY, _PUSHBACK_KEY)}
    reason, field = _reason_and_field(metadata.get(_DETAILS_KEY, b""))
    return Details(
        reason=reason,
        field=field,
        request_id=_text(metadata.get(_REQUEST_ID_KEY, "")),
        retry_after=_seconds(_text(metadata.get(_PUSHBACK_KEY, ""))),
    )


def _reason_and_field(data: Any) -> tuple[str, str]:
    reason = field = ""
    if not isinstance(data, bytes) or not 0 < len(data) <= _MAX_DETAILS_BYTES:
        return reason, field
    try:
        for detail in _MESSAGES["Status"].FromString(data).details:
            kind = detail.type_url.rpartition("google.rpc.")[2]
            if kind == "ErrorInfo":
                reason = _MESSAGES[kind].FromString(detail.value).reason
            elif kind == "BadRequest":
                field = next((each.field for each in _MESSAGES[kind].FromString(detail.value).field_violations), "")
            elif kind == "PreconditionFailure":
                field = next((each.subject for each in _MESSAGES[kind].FromString(detail.value).violations), "")
    except DecodeError:
        return "", ""
    return reason, field


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _seconds(pushback: str) -> float | None:
    if pushback.isascii() and pushback.isdigit() and len(pushback) <= _MAX_PUSHBACK_DIGITS:
        return int(pushback) / 1000
    return None


def _declare() -> dict[str, Any]:
    """Returns the classes of the messages, in a pool of their own: a program may have the real google.rpc alongside them."""
    file = descriptor_pb2.FileDescriptorProto(
        name="lstmserve/rpc.proto", package="lstmserve.rpc", syntax="proto3", dependency=[any_pb2.DESCRIPTOR.name]
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            label, _, type_name = kind.rpartition(" ")
            declared = message.field.add(
                name=field, number=number, label="LABEL_REPEATED" if label else "LABEL_OPTIONAL"
            )
            if type_name == "string":
                declared.type = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
            else:
                declared.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
                declared.type_name = f".{type_name}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(any_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"lstmserve.rpc.{name}")) for name in _FIELDS
    }


_MESSAGES: Final = _declare()
