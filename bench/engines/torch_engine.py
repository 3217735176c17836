"""PyTorch's own LSTM module, as it is or traced and frozen."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.engines import Run
from bench.subject import Weights

Array = NDArray[Any]


def make(variant: str, weights: Weights, batch: int, time: int) -> Run:
    """Returns a call of the module: "eager", or "traced" by TorchScript."""
    torch.set_num_threads(1)
    module: Any = torch.nn.LSTM(len(weights.kernel), weights.units, batch_first=True).eval()
    with torch.no_grad():  # gates are in the same order as Keras'
        module.weight_ih_l0.copy_(torch.from_numpy(np.ascontiguousarray(weights.kernel.T)))
        module.weight_hh_l0.copy_(torch.from_numpy(np.ascontiguousarray(weights.recurrent_kernel.T)))
        module.bias_ih_l0.copy_(torch.from_numpy(weights.bias))
        module.bias_hh_l0.zero_()
        if variant == "traced":
            h = torch.zeros(1, batch, weights.units)
            example = (torch.zeros(batch, time, len(weights.kernel)), (h, h))
            module = torch.jit.freeze(torch.jit.trace(module, example))

    @torch.inference_mode()
    def run(x: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        state = torch.from_numpy(h)[None], torch.from_numpy(c)[None]
        outputs, (next_h, next_c) = module(torch.from_numpy(x), state)
        return outputs.numpy(), next_h[0].numpy(), next_c[0].numpy()

    return run
