"""Layers with windows, against plain loops over their definition."""

from __future__ import annotations

import numpy as np
import pytest

from lstmserve_server.model.layers.base import Batch, LayerInputs
from lstmserve_server.model.layers.window import Conv1D
from lstmserve_server.model.numerics import ComputeConfig, Numerics, matmul_of
from lstmserve_server.model.spec import LayerSpec
from tests.support.builders import activation, numbers


@pytest.mark.parametrize("cuts", [(7,), (1,) * 7, (2, 5), (3, 1, 3)], ids=str)
@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("padding", ["causal", "valid"])
def test_a_convolution_answers_at_each_stride_whatever_the_messages_are(padding, strides, cuts):
    """New values stand at the first step that has a whole window (or, causal, at the first step) and at every stride from there."""
    window, kernel, x = 2, numbers(2, 3, 4, seed=1), numbers(2, 7, 3, seed=2)
    options = {
        "window": window, "strides": strides, "padding": padding, "dilation_rate": 1, "filters": 4,
        "activation": activation("linear"),
    }  # fmt: skip
    described = LayerSpec("conv", "Conv1D", options, {"kernel": kernel}, ((None, 4),), inputs=(0,))
    layer = Conv1D(described, ComputeConfig(matmul_of(Numerics.EXACT), np.dtype(np.float32), Numerics.EXACT))
    state, start, answered = layer.zero_state(2), 0, {}
    for length in cuts:
        values = Batch(np.ascontiguousarray(x[:, start : start + length]), sequence=True)
        given = LayerInputs((values,), np.zeros(2, bool), initial_state=(), every=True, recording=None)
        (made,), (state,) = layer.run(given, (state,))
        for step in range(length):
            if made.fresh is None or made.fresh[:, step].all():
                answered[start + step] = made.array[:, step]
        start += length

    wait = 0 if padding == "causal" else window - 1
    assert sorted(answered) == list(range(wait, 7, strides))
    for step, value in answered.items():
        before = x[:, step - 1] if step else np.zeros_like(x[:, 0])
        np.testing.assert_allclose(value, before @ kernel[0] + x[:, step] @ kernel[1], rtol=1e-5, atol=1e-6)
