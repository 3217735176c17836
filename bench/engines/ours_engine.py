"""The service's own mathematics, and its whole model as the server calls it."""

from __future__ import annotations

import dataclasses
from typing import Any

import threadpoolctl
from numpy.typing import NDArray

from bench.engines import Run
from bench.subject import Weights
from lstmserve_server.model import numerics
from lstmserve_server.model.activations import fast_variant
from lstmserve_server.model.engines.numpy_kernel import NumpyKernel
from lstmserve_server.model.lstm import LSTMSpec, LSTMState, LSTMWeights
from lstmserve_server.model.model import StepResult
from lstmserve_server.model.numerics import Numerics
from tests.support import builders

Array = NDArray[Any]


def make(variant: str, weights: Weights, batch: int, time: int) -> Run:  # noqa: ARG001 - as all engines
    """Returns the layer's mathematics, "exact" or "fast"; or a call of the whole model, "model-exact" or "model-fast"."""
    threadpoolctl.threadpool_limits(limits=1, user_api="blas")
    mode = Numerics(variant.removeprefix("model-"))
    if variant.startswith("model-"):
        return _whole(weights, mode, time)
    sigmoid = builders.activation("sigmoid")
    spec = LSTMSpec(
        weights.units, builders.activation("tanh"), fast_variant(sigmoid) if mode is Numerics.FAST else sigmoid
    )
    layer = LSTMWeights(weights.kernel, weights.recurrent_kernel, weights.bias)
    cell = NumpyKernel(spec, layer, numerics.matmul_of(mode))

    def step(x: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        h, c = cell.step(x[:, 0], LSTMState(h, c))
        return h[:, None], h, c

    def forward(x: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        outputs, (h, c) = cell.forward(x, LSTMState(h, c))
        return outputs, h, c

    return step if time == 1 else forward


def _whole(weights: Weights, mode: Numerics, time: int) -> Run:
    made = builders.lstm_layer(len(weights.kernel), weights.units, return_sequences=True)
    arrays = {"kernel": weights.kernel, "recurrent_kernel": weights.recurrent_kernel, "bias": weights.bias}
    model = builders.model(dataclasses.replace(made, weights=arrays), features=len(weights.kernel), numerics=mode)

    def step(x: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        answer = model.step(x[:, 0], (LSTMState(h, c),))
        return answer.output[:, None], *_state(answer)

    def forward(x: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        answer = model.forward((x,), (LSTMState(h, c),), all_outputs=True)
        return answer.output, *_state(answer)

    return step if time == 1 else forward


def _state(answer: StepResult) -> LSTMState:
    (state,) = answer.state
    assert isinstance(state, LSTMState)
    return state
