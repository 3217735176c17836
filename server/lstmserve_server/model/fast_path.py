"""Fast path for models without masks or windows: the graph is compiled once into a list of array functions.

Most models that can be stepped have neither. For them a call is nothing but the computation of each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lstmserve_server.model.layers.base import Layer, LayerState
from lstmserve_server.model.layers.recurrent import LSTM
from lstmserve_server.model.spec import LayerSpec, ModelSpec
from lstmserve_server.model.types import Array


class _Instruction(NamedTuple):
    """One layer of the fast path."""

    compute: Callable[..., Array] | LSTM
    inputs: tuple[int, ...]
    """The numbers of the values that it is given."""
    output: int
    """The number of the value that it makes."""
    needless: tuple[int, ...]
    """Numbers of the values whose last use is here."""


class FastPath:
    """The layers of a model that can be stepped, in order. It keeps nothing between calls."""

    def __init__(self, spec: ModelSpec, legs: Sequence[_Instruction], sequences: Sequence[bool]) -> None:
        self._legs = legs
        self._count = len(sequences)
        self._is_ids = spec.inputs[0].vocabulary is not None
        self._input = spec.inputs[0].value
        self._outputs = [(output.value, sequences[output.value]) for output in spec.outputs]

    def run(self, x: Array, state: Sequence[LayerState], *, every: bool) -> tuple[list[Array], tuple[LayerState, ...]]:
        """Runs a chunk through the layers.

        Args:
            x: (batch, time, ...)
            state: the state before.
            every: whether to return an output for every step, as if the sequence ended there, instead of only for the last step.

        Returns:
            The outputs, (batch, time, ...) each if `every` step is answered, else (batch, ...); and the next state. The outputs
            may share memory with it.
        """
        values: list[Any] = [None] * self._count
        values[self._input] = x[..., 0] if self._is_ids else x
        after: list[LayerState] = []
        for compute, inputs, output, needless in self._legs:
            if isinstance(compute, LSTM):
                values[output], new = compute.forward_unmasked(values[inputs[0]], state[len(after)], every=every)
                after.append(new)
            else:
                values[output] = compute(*[values[number] for number in inputs])
            for number in needless:
                values[number] = None
        outputs = [
            values[number][:, -1] if sequence and not every else values[number] for number, sequence in self._outputs
        ]
        return outputs, tuple(after)


def compile_path(
    spec: ModelSpec, layers: Sequence[Layer | None], needless: Sequence[tuple[int, ...]]
) -> FastPath | None:
    """Returns the fast path of a model that can be stepped; None if one of its layers can mask or has a window."""
    legs: list[_Instruction] = []
    sequences: list[bool] = []  # whether each value has a time axis where the last step alone is answered
    for layer_spec, layer, gone in zip(spec.layers, layers, needless, strict=True):
        if layer_spec.inputs:
            compute = layer if isinstance(layer, LSTM) else _same if layer is None else layer.array_function()
            if compute is None:
                return None
            legs.append(_Instruction(compute, layer_spec.inputs, len(sequences), gone))
        sequences += [_is_sequence(layer_spec, layer, sequences)] * len(layer_spec.output_shapes)
    return FastPath(spec, legs, sequences)


def _is_sequence(layer_spec: LayerSpec, layer: Layer | None, before: Sequence[bool]) -> bool:
    if not layer_spec.inputs:
        return True
    return before[layer_spec.inputs[0]] and not (layer is not None and layer.returns_last_only)


def _same(x: Array, *_: Array) -> Array:
    return x
