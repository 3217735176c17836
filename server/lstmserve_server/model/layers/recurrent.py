"""Recurrent layers, with h and c: LSTM and Bidirectional.

A GRU would be a module of its own next to this one: a layer whose `run` advances its state by a sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lstmserve_server.model import lstm
from lstmserve_server.model.activations import fast_variant
from lstmserve_server.model.engines import select
from lstmserve_server.model.layers.base import Batch, Layer, LayerInputs, LayerOutputs, LayerState
from lstmserve_server.model.lstm import LSTMSpec, LSTMState, LSTMWeights
from lstmserve_server.model.numerics import ComputeConfig
from lstmserve_server.model.recording import LayerRecorder
from lstmserve_server.model.spec import LayerSpec
from lstmserve_server.model.types import Array


class LSTM(Layer):
    """An LSTM layer: `lstm` with the options and weights of a description."""

    def __init__(self, spec: LayerSpec, compute_config: ComputeConfig) -> None:
        self.name = spec.name
        self.backwards = bool(spec.options["go_backwards"])
        self.returns_sequences = bool(spec.options["return_sequences"])
        self.returns_last_only = not self.returns_sequences
        phi, sigma = (spec.activations[name] for name in ("activation", "recurrent_activation"))
        self.spec = LSTMSpec(
            units=int(spec.options["units"]),  # type: ignore[arg-type]  # the rule made it a number
            activation=fast_variant(phi) if compute_config.quick else phi,
            recurrent_activation=fast_variant(sigma) if compute_config.quick else sigma,
        )
        self.weights = LSTMWeights(spec.weights["kernel"], spec.weights["recurrent_kernel"], spec.weights.get("bias"))
        self.carried = () if spec.initial_state else (self,)
        self._gives_state = len(spec.output_shapes) > 1
        self._ignores_mask = bool(spec.options.get("ignores_mask", False))
        self._zero_masked = bool(spec.options.get("zero_output_for_mask", False))
        self._compute_config = compute_config
        self._cell, computed = select.select_kernel(self.name, self.spec, self.weights, compute_config)
        self.computed = (computed,)
        self.obstacle = self._obstacle(spec)

    def _obstacle(self, spec: LayerSpec) -> str:
        if self.backwards:
            return "has go_backwards: it reads a sequence from its end, so there is no answer before the whole of it is known"
        if spec.initial_state:
            return "begins with an h and c that come from other layers or inputs, so it is the model that carries them"
        return ""

    @property
    def h_bound(self) -> float:
        """No h that this layer computes is larger in magnitude: both factors of h' are images of its activations."""
        return self.spec.activation.bound * self.spec.recurrent_activation.bound

    def zero_state(self, batch: int) -> LSTMState:
        """Returns the state of `batch` new sequences."""
        return lstm.zero_state(self.spec, batch, self._compute_config.dtype)

    def run(self, given: LayerInputs, before: Sequence[LayerState]) -> LayerOutputs:
        """Advances every row by a sequence.

        Args:
            given: (batch, time, features), with or without a mask.
            before: h and c before, each (batch, units), of this one layer; none where they are given.

        Returns:
            The outputs in the order of processing, (batch, time, units) or the last of them; where the model asks for them
            h and c, each (batch, units); and the next state.
        """
        values, state = given.values[0], LSTMState(*(given.initial_state or before[0]))
        outputs, after = self.advance(values, state, given.seen, given.recording)
        shown = outputs if self.returns_sequences else Batch(outputs.array, sequence=True, ready=outputs.ready)
        made = shown if self.returns_sequences or given.every else shown.last()
        further = [Batch(array, sequence=False) for array in after] if self._gives_state else []
        return (made, *further), [after] if self.carried else []

    def forward_unmasked(self, x: Array, before: LayerState, *, every: bool) -> tuple[Array, LSTMState]:
        """Advances every row by a sequence in which no step is masked or waited for, as `run` does.

        Args:
            x: (batch, time, features)
            before: h and c, each (batch, units).
            every: as in `LayerInputs`.

        Returns:
            The outputs, (batch, time, units) or the last of them, and the next state. The outputs may share memory with it.
        """
        state = LSTMState(*before)
        if x.shape[1] == 1:
            after = self._cell.step(x[:, 0], state)
            outputs = after.h[:, None]
        else:
            outputs, after = self._cell.forward(x, state)
        return outputs if self.returns_sequences or every else outputs[:, -1], after

    def gates(self, x: Array, h: Array) -> Array:
        """Returns the gates of a step, (batch, 4, units): i f c o, from (batch, features) and (batch, units); NumPy's always."""
        z = lstm.gates(self.spec, self.weights, self._compute_config.matmul, x, h)
        return z.reshape(len(x), 4, self.spec.units)

    def advance(
        self, values: Batch, state: LSTMState, seen: Array, recording: LayerRecorder | None
    ) -> tuple[Batch, LSTMState]:
        """Advances every row by a sequence, and returns the outputs of all steps and the next state."""
        x, mask = values.array, None if self._ignores_mask else values.mask
        if values.fresh is not None:  # a step without anything new changes nothing, whatever came before it
            mask, seen = values.fresh, np.ones(len(x), bool)
        if self.backwards:
            x = np.ascontiguousarray(x[:, ::-1])
            mask = None if mask is None else mask[:, ::-1]
        if mask is not None and mask.all():
            mask = None
        record = None if recording is None else recording.record(mask, state, x.shape[1])
        if mask is None:
            outputs, after = self._cell.forward(x, state, record)
        else:
            outputs, after = self._cell.forward_masked(x, state, mask, seen, record, zero_masked=self._zero_masked)
        return values.replace_array(outputs), after


class Bidirectional(Layer):
    """Two LSTMs, one of which reads the sequence from its end, and their outputs merged step by step."""

    obstacle = "reads the sequence from both ends, so there is no answer before the whole of it is known"

    def __init__(self, spec: LayerSpec, compute_config: ComputeConfig) -> None:
        self.name = spec.name
        self.forward, self.backward = (LSTM(part, compute_config) for part in spec.parts)
        self.returns_last_only = self.forward.returns_last_only
        self.computed = (*self.forward.computed, *self.backward.computed)
        self.carried = () if spec.initial_state else (self.forward, self.backward)
        self._merge = spec.texts["merge_mode"]
        self._gives_state = len(spec.output_shapes) > (2 if self._merge == "none" else 1)

    def run(self, given: LayerInputs, before: Sequence[LayerState]) -> LayerOutputs:
        """Advances every row by a whole sequence: as `LSTM.run`, with the states of both directions.

        If only the last output is wanted, it is the last one of each direction; that of the backward LSTM is at the first step.
        """
        values = given.values[0]
        states = [given.initial_state[:2], given.initial_state[2:]] if given.initial_state else before
        ahead, after = self.forward.advance(values, LSTMState(*states[0]), given.seen, given.recording)
        back, earlier = self.backward.advance(values, LSTMState(*states[1]), given.seen, given.recording)
        if self.returns_last_only:
            ahead, back = ahead.last(), back.last()
        else:
            back = back.replace_array(back.array[:, ::-1])
        further = [Batch(array, sequence=False) for array in (*after, *earlier)] if self._gives_state else []
        return (*self._merged(ahead, back), *further), [after, earlier] if self.carried else []

    def _merged(self, ahead: Batch, back: Batch) -> tuple[Batch, ...]:
        match self._merge:
            case "concat":
                return (ahead.replace_array(np.concatenate([ahead.array, back.array], axis=-1)),)
            case "sum":
                return (ahead.replace_array(ahead.array + back.array),)
            case "mul":
                return (ahead.replace_array(ahead.array * back.array),)
            case "ave":
                return (ahead.replace_array((ahead.array + back.array) / 2),)
            case _:
                return (ahead, back)
