"""Kernel of ONNX Runtime's LSTM operator. The only module that imports onnxruntime; it is imported on request."""

from __future__ import annotations

import math
import os
from typing import Final

import numpy as np
import onnxruntime

from lstmserve_server.core import memory
from lstmserve_server.core.errors import UnsupportedModelError, WrongForModel
from lstmserve_server.model import lstm
from lstmserve_server.model.engines import onnx_graph
from lstmserve_server.model.engines.onnx_graph import OUTPUTS, Function
from lstmserve_server.model.lstm import LSTMSpec, LSTMState, LSTMWeights
from lstmserve_server.model.recording import Steps
from lstmserve_server.model.types import Array

NAME: Final = f"onnxruntime {onnxruntime.__version__}"

_FUNCTIONS: Final = {
    "tanh": Function("Tanh"),
    "sigmoid": Function("Sigmoid"),
    "relu": Function("Relu"),
    "hard_sigmoid(x/5+1/2)": Function("HardSigmoid", (0.2, 0.5)),
    "hard_sigmoid(x/6+1/2)": Function("HardSigmoid", (1 / 6, 0.5)),
}
"""Activations by their definition (`Activation.name`). Others of the same name in ONNX round otherwise, or lose what is small."""

# ONNX Runtime's activations make a finite number of NaN, so that no one would see an overflow behind them. So sums are kept far
# from where they could overflow: no x or h above the first, and no weights that make more than the second of it.
_MAX_MAGNITUDE: Final = 1e15
_MAX_WEIGHT_MAGNITUDE: Final = 1e20

_PIECE_BYTES: Final = (
    1 << 20
)  # of the gates that are computed at once: they stay in the cache, and memory does not grow

_MAX_WEIGHT_BYTES: Final = 1_900_000_000  # of weights in one graph: protobuf ends at 2 GiB


def unsupported_reason(spec: LSTMSpec, weights: LSTMWeights) -> str:
    """Returns why a layer cannot be computed here, as the end of a sentence that begins with its name; "" if it can."""
    for activation in (spec.recurrent_activation, spec.activation):
        if activation.name not in _FUNCTIONS:
            return f"has the activation {activation.name}, which ONNX Runtime does not compute as Keras does"
    if weights.kernel.dtype != np.float32:
        return f"computes in {weights.kernel.dtype.name}, and ONNX Runtime's LSTM in float32"
    if weights.kernel.nbytes + weights.recurrent_kernel.nbytes > _MAX_WEIGHT_BYTES:
        return "has more weights than a graph can hold"
    if not all(np.abs(array).sum(axis=0).max() < _MAX_WEIGHT_MAGNITUDE for array in weights[:2]):
        return f"has weights above {_MAX_WEIGHT_MAGNITUDE:g}"
    return ""


class OnnxKernel:
    """An LSTM layer in ONNX Runtime: an `LSTMKernel`. Thread-safe."""

    def __init__(self, name: str, spec: LSTMSpec, weights: LSTMWeights) -> None:
        self._name = name
        self._gate_bytes = 4 * spec.units * weights.kernel.itemsize
        self._bounded = math.isfinite(spec.activation.bound)
        recurrent, inner = _FUNCTIONS[spec.recurrent_activation.name], _FUNCTIONS[spec.activation.name]
        try:
            self._session = _session(onnx_graph.lstm(weights, (recurrent, inner, inner)))
        except Exception as error:  # ONNX Runtime's have no class in common
            message = f"layer {name!r}: {NAME} does not take it ({error}); serve with --engine numpy"
            raise UnsupportedModelError(message) from error

    def step(self, x: Array, state: LSTMState) -> LSTMState:
        """Advances every row by one time-step."""
        h, c = self._run(OUTPUTS[1:], x[None], state)
        return LSTMState(h[0], c[0])

    def forward(self, x: Array, state: LSTMState, record: Steps | None = None) -> tuple[Array, LSTMState]:
        """Advances every row by a sequence."""
        if record is not None:  # the operator shows c of the last step alone
            every = np.ones(x.shape[:2], bool)
            return self.forward_masked(x, state, every, every[:, 0], record, zero_masked=False)
        x = np.ascontiguousarray(x.swapaxes(0, 1))  # (time, batch, features)
        pieces = []
        piece = max(1, _PIECE_BYTES // (x.shape[1] * self._gate_bytes))
        for start in range(0, len(x), piece):
            outputs, h, c = self._run(OUTPUTS, x[start : start + piece], state)
            pieces.append(outputs[:, 0])
            state = LSTMState(h[0], c[0])
        outputs = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return outputs.swapaxes(0, 1), state

    def forward_masked(
        self, x: Array, state: LSTMState, mask: Array, seen: Array, record: Steps | None = None, *, zero_masked: bool
    ) -> tuple[Array, LSTMState]:
        """Advances every row by the unmasked steps of a sequence."""
        return lstm.step_by_step(self.step, x, state, mask, seen, record, zero_masked=zero_masked)

    def _run(self, wanted: tuple[str, ...], x: Array, state: LSTMState) -> list[Array]:
        """Returns some of `OUTPUTS`, from x (time, batch, features)."""
        h, c = state
        x_, h_, c_ = x.ravel(), h.ravel(), c.ravel()
        if (
            not x_.dot(x_) + h_.dot(h_) + c_.dot(c_) <= _MAX_MAGNITUDE
        ):  # a quick look, enough for all but strange numbers
            self._require_range(("its input", x), ("h", h), ("c", c))
        made: list[Array] = self._session.run(wanted, {"x": x, "h": h[None], "c": c[None]})
        if not self._bounded:
            self._require_range(("h", made[0]))
        return made

    def _require_range(self, *arrays: tuple[str, Array]) -> None:
        for what, array in arrays:
            if not (np.abs(array) <= _MAX_MAGNITUDE).all():
                text = f"{what} of layer {self._name!r} is above {_MAX_MAGNITUDE:g}, the most that --engine onnxruntime computes"
                raise WrongForModel("x", text)


def _session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # the server has threads, one per call
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # they would keep the memory of the largest call
    options.log_severity_level = 3
    with open(os.memfd_create("lstm"), "wb") as file:  # noqa: PTH123 - a session keeps bytes for ever that are not in a file
        file.write(graph)
        file.flush()
        path = f"/proc/self/fd/{file.fileno()}"
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    memory.trim()  # what making it took is free, but not given back: as much again as the weights
    return session
