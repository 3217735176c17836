"""The layers of a model as a graph: what flows between them for one chunk of rows and time steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lstmserve_server.model import causality, fast_path
from lstmserve_server.model.layers import registry as kinds
from lstmserve_server.model.layers.base import Batch, Layer, LayerInputs, LayerState, Stateful
from lstmserve_server.model.layers.recurrent import LSTM, Bidirectional
from lstmserve_server.model.numerics import ComputeConfig
from lstmserve_server.model.recording import Chunk, LayerRecorder
from lstmserve_server.model.spec import LayerSpec, ModelSpec
from lstmserve_server.model.types import Array

ModelState = tuple["LayerState", ...]
"""The state of each layer that has one, in the order of the model."""


def copy_state(state: ModelState) -> ModelState:
    """Returns a state that shares no memory with another."""
    return tuple(type(part)(*(array.copy() for array in part)) for part in state)


def rows_of(state: ModelState, rows: Array | slice) -> ModelState:
    """Returns some rows of a state."""
    return tuple(type(part)(*(array[rows] for array in part)) for part in state)


def concat_states(states: Sequence[ModelState]) -> ModelState:
    """Returns the rows of several states of one model, one after the other."""
    return tuple(type(parts[0])(*map(np.concatenate, zip(*parts, strict=True))) for parts in zip(*states, strict=True))


@dataclass(frozen=True, slots=True)
class _Node:
    """A layer in the graph."""

    spec: LayerSpec
    layer: Layer | None
    """None where it does nothing at inference."""
    stateful_layers: tuple[Stateful, ...]
    needless: tuple[int, ...]
    """Numbers of the values whose last use is here."""


class Flow(NamedTuple):
    """Results of one chunk."""

    outputs: list[Batch]
    state: ModelState
    steps: Array
    """How many time-steps each row has gone on by, (batch,): those that no mask passed over."""


class LayerGraph:
    """A graph of layers, ready to compute. It keeps nothing between calls, and is thread-safe."""

    def __init__(self, spec: ModelSpec, compute_config: ComputeConfig) -> None:
        self._description = spec
        layers = [kinds.make(layer, compute_config) for layer in spec.layers]
        self.step_obstacle = causality.step_obstacle(spec, layers)
        """Why the model cannot be stepped; empty where it can."""
        causal = not self.step_obstacle
        self.waiting_steps = causality.waiting_steps(spec, layers) if causal else 0
        """After how many time-steps of a sequence there is no answer yet."""
        needless = _last_uses(spec)
        self._nodes = [
            _Node(layer_spec, layer, layer.stateful_parts(causal=causal) if layer is not None else (), needless[place])
            for place, (layer_spec, layer) in enumerate(zip(spec.layers, layers, strict=True))
        ]
        self.straight = fast_path.compile_path(spec, layers, needless) if causal else None
        """The same in fewer words, where nothing is ever masked or waited for."""
        self.stateful_layers = [part for node in self._nodes for part in node.stateful_layers]
        """The layers whose state the caller carries, in the order of `ModelState`."""
        self.stateful_indices = [
            (place, number) for place, node in enumerate(self._nodes) for number in range(len(node.stateful_layers))
        ]
        """Where each of them is: the place of the layer in the model, and its number among those that the layer is made of."""
        self.lstm_indices = [
            (place, number)
            for place, node in enumerate(self._nodes)
            if isinstance(node.layer, (LSTM, Bidirectional))
            for number in range(max(1, len(node.spec.parts)))
        ]
        """Where the LSTMs are, in the same terms; also those whose state other layers give."""
        self.computed = [computed for layer in layers if layer is not None for computed in layer.computed]
        """What computes each LSTM, in the order of the model."""

    def lstm(self, place: int, number: int) -> LSTM:
        """Returns the LSTM of a layer; of a Bidirectional the forward (0) or the backward one (1)."""
        layer = self._nodes[place].layer
        if isinstance(layer, Bidirectional):
            return (layer.forward, layer.backward)[number]
        assert isinstance(layer, LSTM)  # noqa: S101 - anyone who asks knows the place from a trace
        return layer

    def run(
        self,
        inputs: Sequence[Array],
        state: ModelState,
        seen: Array,
        rectangle: Chunk | None = None,
        *,
        every: bool,
    ) -> Flow:
        """Runs a chunk through the layers.

        Args:
            inputs: for each input of the model (batch, time, ...), or (batch, ...) where it has no time axis.
            state: the state before.
            seen: whether the sequence of a row has had a step that no mask passed over, (batch,).
            rectangle: what is to be filled with all that flows; None for nothing.
            every: whether each step is to be answered as if the sequence ended with it, of a model that can be cut anywhere.
        """
        values: list[Batch | None] = []
        remaining = list(state)
        after: list[LayerState] = []
        given = iter(self._inputs(inputs))
        steps = np.full(len(seen), inputs[0].shape[1] if self._description.inputs[0].sequence else 0)
        for place, node in enumerate(self._nodes):
            if not node.spec.inputs:
                values.append(next(given))
                continue
            recording = None if rectangle is None else LayerRecorder(rectangle, place)
            call = _call(node.spec, values, seen, recording, every=every)
            if node.layer is None:
                values.append(call.values[0])
            else:
                if isinstance(node.layer, (LSTM, Bidirectional)) and call.values[0].mask is not None:
                    steps = call.values[0].mask.sum(axis=1)
                count = len(node.stateful_layers)
                made, new = node.layer.run(call, remaining[:count])
                remaining = remaining[count:]
                values += made
                after += new
            if node.spec.options.get("drops_mask"):
                values[-1] = replace(_needed(values, -1), mask=None)
            if rectangle is None:
                for number in node.needless:
                    values[number] = None
        if rectangle is not None:
            rectangle.values.extend(_needed(values, number) for number in range(len(values)))
        return Flow([_needed(values, output.value) for output in self._description.outputs], tuple(after), steps)

    def _inputs(self, inputs: Sequence[Array]) -> list[Batch]:
        return [
            Batch(array[..., 0] if item.vocabulary is not None else array, item.sequence)
            for array, item in zip(inputs, self._description.inputs, strict=True)
        ]


def _call(
    spec: LayerSpec, values: Sequence[Batch | None], seen: Array, recording: LayerRecorder | None, *, every: bool
) -> LayerInputs:
    inputs = [_needed(values, number) for number in spec.inputs]
    states = tuple(_needed(values, number).array for number in spec.initial_state)
    return LayerInputs(tuple(inputs), seen, every, states, recording)


def _needed(values: Sequence[Batch | None], number: int) -> Batch:
    value = values[number]
    assert value is not None  # noqa: S101 - it is let go only after the last who needs it
    return value


def _last_uses(spec: ModelSpec) -> list[tuple[int, ...]]:
    """Returns, for each layer, the indices of the values whose last consumer it is."""
    last_user: dict[int, int] = {}
    for place, layer in enumerate(spec.layers):
        last_user.update(dict.fromkeys((*layer.inputs, *layer.initial_state), place))
    kept = {output.value for output in spec.outputs}
    return [
        tuple(number for number, user in last_user.items() if user == place and number not in kept)
        for place in range(len(spec.layers))
    ]
