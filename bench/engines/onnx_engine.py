"""ONNX Runtime: one LSTM node, whose gates are in the order i o f c."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bench.engines import Run
from bench.subject import Weights

Array = NDArray[Any]

_OPSET, _IR = 17, 9


def make(variant: str, weights: Weights, batch: int, time: int) -> Run:  # noqa: ARG001 - as all engines
    """Returns a session's run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        _model(weights).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def run(x: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        given = {"x": np.ascontiguousarray(x.swapaxes(0, 1)), "h": h[None], "c": c[None]}
        outputs, h, c = session.run(None, given)
        return outputs[:, 0].swapaxes(0, 1), h[0], c[0]

    return run


def _model(weights: Weights) -> Any:
    units = weights.units

    def ordered(array: Array) -> Array:
        i, f, g, o = np.split(array, 4, axis=-1)
        return np.ascontiguousarray(np.concatenate([i, o, f, g], axis=-1).T)[None]

    bias = np.concatenate([ordered(weights.bias), np.zeros((1, 4 * units), np.float32)], axis=1)
    constants = {"W": ordered(weights.kernel), "R": ordered(weights.recurrent_kernel), "B": bias}
    shapes = {
        "x": ["time", "batch", len(weights.kernel)],
        "h": [1, "batch", units],
        "c": [1, "batch", units],
        "outputs": ["time", 1, "batch", units],
        "next_h": [1, "batch", units],
        "next_c": [1, "batch", units],
    }
    info = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    made = ["outputs", "next_h", "next_c"]
    node = helper.make_node("LSTM", ["x", "W", "R", "B", "", "h", "c"], made, hidden_size=units)
    graph = helper.make_graph(
        [node], "lstm", [info[name] for name in "xhc"], [info[name] for name in made],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, ir_version=_IR, opset_imports=[helper.make_opsetid("", _OPSET)])
