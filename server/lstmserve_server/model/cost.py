"""Estimates the cost of a call before it is computed, to decide where to compute it."""

from __future__ import annotations

from typing import Final

from lstmserve_server.model.spec import LayerSpec, ModelSpec

_OVERHEAD_MULTIPLICATIONS: Final = 50_000
"""Multiplications in the time that NumPy's calls of one recurrent step take apart from the arithmetic."""

_ASSUMED_STEPS: Final = 1000
"""Taken for the length of a sequence within a time-step that the file leaves open."""


class CostModel:
    """Cost of the calls of one model."""

    def __init__(self, spec: ModelSpec, *, step_by_step: bool) -> None:
        """Adds up what a time-step of a row costs, which would take as long as a small model's step.

        Args:
            spec: of the model.
            step_by_step: whether a sequence is computed by a call of NumPy's for each step, rather than by one for all.
        """
        self._step_by_step = step_by_step
        self._multiplications = 0
        self._recurrences = 0
        shapes = [shape for layer in spec.layers for shape in layer.output_shapes]
        for layer in spec.layers:
            within = 1
            if layer.kind == "TimeDistributed" and layer.options["sequences"]:  # a sequence within each time-step
                within = shapes[layer.inputs[0]][1] or _ASSUMED_STEPS
            self._multiplications += within * layer.parameter_count
            self._recurrences += within * _recurrences(layer)

    def cost(self, rows: int, steps: int) -> int:
        """Returns what a call costs, in multiplications; NumPy's own cost per step counts as some of them."""
        in_turn = self._recurrences * (steps if self._step_by_step else 1)
        return steps * rows * self._multiplications + _OVERHEAD_MULTIPLICATIONS * in_turn


def _recurrences(layer: LayerSpec) -> int:
    """Returns the number of LSTMs in a layer."""
    return int(layer.kind == "LSTM") + sum(map(_recurrences, layer.parts))
