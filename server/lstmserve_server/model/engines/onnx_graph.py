"""Encodes a graph of one LSTM operator as an ONNX file.

The messages are those of onnx/onnx.proto3, whose field numbers never change: docs/decisions/onnx-graph.md. An error here is caught
twice when a session is made: by ONNX Runtime, which checks the graph, and by the comparison with NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from lstmserve_server.core import protobuf
from lstmserve_server.model.lstm import LSTMWeights
from lstmserve_server.model.types import Array

INPUTS: Final = ("x", "h", "c")  # (time, batch, features), (1, batch, units) twice
OUTPUTS: Final = ("outputs", "next_h", "next_c")  # (time, 1, batch, units), (1, batch, units) twice

_IR_VERSION: Final = 8
_OPSET: Final = 14  # has the LSTM that has not changed since, and is old enough for any ONNX Runtime
_FLOAT: Final = 1  # TensorProto.DataType
_FLOATS, _INT, _STRINGS = 6, 2, 8  # AttributeProto.AttributeType

_ONNX: Final = protobuf.declare(
    "lstmserve.onnx",
    {
        "Model": "int64 ir_version = 1; Graph graph = 7; OperatorSet* opset_import = 8",
        "OperatorSet": "string domain = 1; int64 version = 2",
        "Graph": "Node* node = 1; string name = 2; Tensor* initializer = 5; Value* input = 11; Value* output = 12",
        "Node": "string* input = 1; string* output = 2; string op_type = 4; Attribute* attribute = 5",
        "Attribute": "string name = 1; int64 i = 3; float* floats = 7; bytes* strings = 9; int32 type = 20",
        "Tensor": "int64* dims = 1; int32 data_type = 2; string name = 8; bytes raw_data = 9",
        "Value": "string name = 1; Type type = 2",
        "Type": "TensorType tensor_type = 1",
        "TensorType": "int32 elem_type = 1; Shape shape = 2",
        "Shape": "Dimension* dim = 1",
        "Dimension": "int64 dim_value = 1; string dim_param = 2",
    },
)


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
    model = _ONNX["Model"](ir_version=_IR_VERSION, opset_import=[{"version": _OPSET}])
    model.graph.name = "lstm"
    node = model.graph.node.add(
        op_type="LSTM", input=[x, *initializers, "", *state], output=OUTPUTS
    )  # "": sequence_lens
    _add_attributes(node, units, functions)
    for name, array in initializers.items():
        raw = array.astype("<f4", copy=False).tobytes()
        model.graph.initializer.add(name=name, dims=array.shape, data_type=_FLOAT, raw_data=raw)
    of_state: tuple[int | str, ...] = (1, "batch", units)
    of_x: tuple[int | str, ...] = ("time", "batch", features)
    of_outputs: tuple[int | str, ...] = ("time", 1, "batch", units)
    for name, shape in zip(INPUTS, (of_x, of_state, of_state), strict=True):
        _describe(model.graph.input.add(name=name), shape)
    for name, shape in zip(OUTPUTS, (of_outputs, of_state, of_state), strict=True):
        _describe(model.graph.output.add(name=name), shape)
    content: bytes = model.SerializeToString()
    return content


def _by_gate(array: Array) -> Array:
    """Returns an array with the gates in the order of ONNX, i o f c, and a leading axis."""
    i, f, c, o = np.split(array, 4)
    return np.concatenate([i, o, f, c])[None]


def _add_attributes(node: Any, units: int, functions: Sequence[Function]) -> None:
    names = [function.name.encode() for function in functions]
    parameters = [function.parameters for function in functions if function.parameters]
    node.attribute.add(name="hidden_size", type=_INT, i=units)
    node.attribute.add(name="activations", type=_STRINGS, strings=names)
    for name, values in zip(("alpha", "beta"), zip(*parameters, strict=True), strict=False):
        node.attribute.add(name=f"activation_{name}", type=_FLOATS, floats=values)


def _describe(value: Any, shape: Sequence[int | str]) -> None:
    """Writes the type of an input or output: float32 of a shape in which text names a variable length."""
    tensor = value.type.tensor_type
    tensor.elem_type = _FLOAT
    for size in shape:
        tensor.shape.dim.add(**({"dim_value": size} if isinstance(size, int) else {"dim_param": size}))
