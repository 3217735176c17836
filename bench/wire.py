"""The messages of contenders that have no generated code here, described once and used by their servers and by the load.

`Floats` is the textbook's: numbers as `repeated float`. `Raw` is its thrifty sibling: arrays as bytes. `ModelInferRequest`
and `ModelInferResponse` are of the V2 inference protocol (MLServer, KServe, Triton), with the fields that are used here.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Field = descriptor_pb2.FieldDescriptorProto

SERVICE: Final = "bench.Lstm"
METHOD: Final = f"/{SERVICE}/Step"
V2_METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"

_FLOAT, _INT64, _STRING, _BYTES, _MESSAGE = 2, 3, 9, 12, 11
_ONE, _MANY = 1, 3


def _message(name: str, *fields: tuple[str, int, int, int, str]) -> descriptor_pb2.DescriptorProto:
    """Returns a message of fields, each name, number, type, label, and the type's name where it is a message."""
    made = descriptor_pb2.DescriptorProto(name=name)
    for field, number, kind, label, type_name in fields:
        made.field.add(name=field, number=number, type=kind, label=label, type_name=type_name or None)  # type: ignore[arg-type]
    return made


def _array_message(name: str, kind: int, label: int) -> descriptor_pb2.DescriptorProto:
    return _message(name, *((field, number, kind, label, "") for number, field in enumerate("xhcy", 1)))


def _tensor(name: str) -> descriptor_pb2.DescriptorProto:
    return _message(
        name,
        ("name", 1, _STRING, _ONE, ""), ("datatype", 2, _STRING, _ONE, ""), ("shape", 3, _INT64, _MANY, ""),
    )  # fmt: skip


def _infer(package: str) -> list[descriptor_pb2.DescriptorProto]:
    request = _message(
        "ModelInferRequest",
        ("model_name", 1, _STRING, _ONE, ""), ("inputs", 5, _MESSAGE, _MANY, f".{package}.InputTensor"),
        ("raw_input_contents", 7, _BYTES, _MANY, ""),
    )  # fmt: skip
    response = _message(
        "ModelInferResponse",
        ("outputs", 5, _MESSAGE, _MANY, f".{package}.OutputTensor"), ("raw_output_contents", 6, _BYTES, _MANY, ""),
    )  # fmt: skip
    return [_tensor("InputTensor"), _tensor("OutputTensor"), request, response]


def _classes() -> dict[str, Any]:
    package = "bench.wire"  # not the protocol's own name, which a contender's generated code may have taken
    file = descriptor_pb2.FileDescriptorProto(name="bench/wire.proto", package=package, syntax="proto3")
    file.message_type.extend(
        [_array_message("Floats", _FLOAT, _MANY), _array_message("Raw", _BYTES, _ONE), *_infer(package)]
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [message.name for message in file.message_type]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in names}


_made = _classes()
Floats: Any = _made["Floats"]
Raw: Any = _made["Raw"]
ModelInferRequest: Any = _made["ModelInferRequest"]
ModelInferResponse: Any = _made["ModelInferResponse"]
