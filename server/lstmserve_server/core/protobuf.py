"""Protobuf messages of other projects, declared in a table: neither their packages nor their generated code is needed.

```python
messages = declare("example", {"Point": "int32 x = 1; int32 y = 2", "Line": "Point* points = 1"})
line = messages["Line"].FromString(content)
```

A field is written as in a .proto file; a star says "repeated". Undeclared fields are skipped by the parser. Each table has a pool
of its own, so that the other project may be loaded in the same process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD: Final = descriptor_pb2.FieldDescriptorProto
_TYPES: Final = {
    "bool": _FIELD.TYPE_BOOL,
    "bytes": _FIELD.TYPE_BYTES,
    "fixed32": _FIELD.TYPE_FIXED32,
    "float": _FIELD.TYPE_FLOAT,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "string": _FIELD.TYPE_STRING,
}


def declare(package: str, messages: Mapping[str, str]) -> dict[str, Any]:
    """Returns the class of each message of a table.

    Args:
        package: of the messages.
        messages: the fields of each message, by its name, with semicolons between them.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field in fields.split("; "):
            _add_field(message, field, package)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages}


def _add_field(message: descriptor_pb2.DescriptorProto, field: str, package: str) -> None:
    kind, name, _, number = field.split()
    added = message.field.add(name=name, number=int(number))
    added.label = _FIELD.LABEL_REPEATED if kind.endswith("*") else _FIELD.LABEL_OPTIONAL
    kind = kind.removesuffix("*")
    if kind in _TYPES:
        added.type = _TYPES[kind]
    else:
        added.type = _FIELD.TYPE_MESSAGE
        added.type_name = f".{package}.{kind}"
