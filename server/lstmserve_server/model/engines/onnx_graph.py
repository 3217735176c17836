"""Encodes a graph of one LSTM operator as an ONNX file.

Encoded by hand: it is a dozen fields of protobuf (onnx/onnx.proto3, whose field numbers never change), and the package onnx would
take 31 MB on disk, 13 MB of memory and a third of a second. An error here is caught twice when a session is made: by ONNX Runtime,
which checks the graph, and by the comparison with NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lstmserve_server.model.lstm import LSTMWeights

    Array = NDArray[Any]

INPUTS: Final = ("x", "h", "c")  # (time, batch, features), (1, batch, units) twice
OUTPUTS: Final = ("outputs", "next_h", "next_c")  # (time, 1, batch, units), (1, batch, units) twice

_IR_VERSION: Final = 8
_OPSET: Final = 14  # has the LSTM that has not changed since, and is old enough for any ONNX Runtime
_FLOAT: Final = 1  # TensorProto.DataType
_FLOATS, _INT, _STRINGS = 6, 2, 8  # AttributeProto.AttributeType


class Function(NamedTuple):
    """An activation function of ONNX."""

    name: str

    parameters: tuple[float, ...] = ()
    """Alpha and beta, or nothing."""


def lstm(weights: LSTMWeights, functions: Sequence[Function]) -> bytes:
    """Returns the model: one forward LSTM, weights included.

    Args:
        weights: as Keras lays them out, in float32.
        functions: activations of the gates i, o and f, of the gate c, and of c before it becomes h.
    """
    features, units = len(weights.kernel), len(weights.recurrent_kernel)
    bias = np.zeros(4 * units, np.float32) if weights.bias is None else weights.bias
    initializers = {
        "W": _by_gate(weights.kernel.T),  # (1, 4 * units, features)
        "R": _by_gate(weights.recurrent_kernel.T),  # (1, 4 * units, units)
        "B": np.concatenate([_by_gate(bias), np.zeros((1, 4 * units), np.float32)], axis=1),  # (1, 8 * units)
    }
    x, *state = INPUTS
    node = b"".join([
        *(_text(1, name) for name in (x, *initializers, "", *state)),  # "" is sequence_lens
        *(_text(2, name) for name in OUTPUTS),
        _text(4, "LSTM"),
        *(_part(5, attribute) for attribute in _attributes(units, functions)),
    ])  # fmt: skip
    graph = b"".join([
        _part(1, node),
        _text(2, "lstm"),
        *(_part(5, _tensor(name, array)) for name, array in initializers.items()),
        *(_part(11, value) for value in _values(INPUTS, ("time", "batch", features), units)),
        *(_part(12, value) for value in _values(OUTPUTS, ("time", 1, "batch", units), units)),
    ])  # fmt: skip
    return _number(1, _IR_VERSION) + _part(7, graph) + _part(8, _number(2, _OPSET))


def _by_gate(array: Array) -> Array:
    """Returns an array whose first axis goes through the gates as ONNX orders them, i o f c, with an axis in front."""
    i, f, c, o = np.split(array, 4)
    return np.concatenate([i, o, f, c])[None]


def _values(names: Sequence[str], first: Sequence[int | str], units: int) -> list[bytes]:
    shapes = (first, (1, "batch", units), (1, "batch", units))
    return [_value(name, shape) for name, shape in zip(names, shapes, strict=True)]


def _attributes(units: int, functions: Sequence[Function]) -> list[bytes]:
    parameters = [function.parameters for function in functions if function.parameters]
    return [
        _text(1, "hidden_size") + _number(20, _INT) + _number(3, units),
        _text(1, "activations") + _number(20, _STRINGS) + b"".join(_text(9, function.name) for function in functions),
        *(
            _text(1, f"activation_{name}") + _number(20, _FLOATS) + _part(7, np.array(values, "<f4").tobytes())
            for name, values in zip(("alpha", "beta"), zip(*parameters, strict=True), strict=False)
        ),
    ]


def _tensor(name: str, array: Array) -> bytes:
    sizes = b"".join(_number(1, size) for size in array.shape)
    return sizes + _number(2, _FLOAT) + _text(8, name) + _part(9, array.astype("<f4", copy=False).tobytes())


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    sizes = (_number(1, size) if isinstance(size, int) else _text(2, size) for size in shape)
    tensor = _number(1, _FLOAT) + _part(2, b"".join(_part(1, size) for size in sizes))
    return _text(1, name) + _part(2, _part(1, tensor))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, text: str) -> bytes:
    return _part(field, text.encode())


def _part(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    groups = [value >> shift & 0x7F for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])
