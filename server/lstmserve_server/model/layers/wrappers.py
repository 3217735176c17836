"""Layers that wrap another layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lstmserve_server.model.layers.base import Batch, Layer, LayerInputs, LayerOutputs, LayerState


class TimeDistributed(Layer):
    """Another layer, applied to each time step separately."""

    def __init__(self, inner: Layer, *, of_sequences: bool) -> None:
        self._inner = inner
        self.computed = inner.computed
        self._of_sequences = of_sequences

    def run(self, given: LayerInputs, before: Sequence[LayerState]) -> LayerOutputs:  # noqa: ARG002 - every step starts again
        """Maps (batch, time, ...) to (batch, time, others)."""
        values = given.values[0]
        batch, time = values.array.shape[:2]
        steps = np.ascontiguousarray(values.array).reshape(batch * time, *values.array.shape[2:])
        nothing_seen = np.zeros(batch * time, bool)
        states = [part.zero_state(batch * time) for part in self._inner.stateful_parts(causal=False)]
        made, _ = self._inner.run(LayerInputs((Batch(steps, self._of_sequences),), nothing_seen, every=False), states)
        array = made[0].array
        return (values.replace_array(array.reshape(batch, time, *array.shape[1:])),), ()
