"""The layers with memory: LSTM, and two of them in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lstmserve_server import lstm
from lstmserve_server.layers.base import Values
from lstmserve_server.lstm import LSTMSpec, LSTMState, LSTMWeights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lstmserve_server.description import LayerDescription
    from lstmserve_server.numerics import Product

    Array = NDArray[Any]


class LSTM:
    """An LSTM layer: `lstm` with the options and weights of a description."""

    def __init__(self, description: LayerDescription, product: Product) -> None:
        self.name = description.name
        self.backwards = bool(description.options["go_backwards"])
        self.returns_sequences = bool(description.options["return_sequences"])
        self.spec = LSTMSpec(
            units=int(description.options["units"]),  # type: ignore[arg-type]  # the rule made it a number
            activation=description.activations["activation"],
            recurrent_activation=description.activations["recurrent_activation"],
        )
        self.weights = LSTMWeights(
            description.weights["kernel"], description.weights["recurrent_kernel"], description.weights.get("bias")
        )
        self._zero_masked = bool(description.options.get("zero_output_for_mask", False))
        self._product = product

    @property
    def lstms(self) -> list[LSTM]:
        """The LSTM layers whose states this layer carries: itself."""
        return [self]

    @property
    def obstacle(self) -> str:
        """Why a model with this layer cannot be stepped; empty where it can."""
        if not self.backwards:
            return ""
        return (
            "has go_backwards: it reads a sequence from its end, so there is no answer before the whole of it is known"
        )

    @property
    def h_bound(self) -> float:
        """No h that this layer computes is larger in magnitude: both factors of h' are images of its activations."""
        return self.spec.activation.bound * self.spec.recurrent_activation.bound

    def zero_state(self, batch: int) -> LSTMState:
        """Returns the state of `batch` new sequences."""
        return lstm.zero_state(self.spec, batch, self.weights.kernel.dtype)

    def run(self, values: Values, states: Sequence[LSTMState], seen: Array) -> tuple[Values, list[LSTMState]]:
        """Advances every row by a sequence.

        Args:
            values: (batch, time, features), with or without a mask.
            states: h and c before, each (batch, units), of this one layer.
            seen: whether a row's sequence has had a step that no mask passes over, (batch,).

        Returns:
            The outputs in the order of processing, (batch, time, units), and the next state.
        """
        x, mask = values.array, values.mask
        if self.backwards:
            x = np.ascontiguousarray(x[:, ::-1])
            mask = None if mask is None else mask[:, ::-1]
        if mask is None or mask.all():
            outputs, after = lstm.forward(self.spec, self.weights, self._product, x, states[0])
            return Values(outputs, sequence=True, mask=values.mask), [after]
        outputs, after = lstm.forward_masked(
            self.spec, self.weights, self._product, x, states[0], mask, seen, zero_masked=self._zero_masked
        )
        return Values(outputs, sequence=True, mask=values.mask), [after]


class Bidirectional:
    """Two LSTMs, one of which reads the sequence from its end, and their outputs merged step by step."""

    def __init__(self, description: LayerDescription, product: Product) -> None:
        self.name = description.name
        self.forward, self.backward = (LSTM(part, product) for part in description.parts)
        self.returns_sequences = self.forward.returns_sequences
        self._merge = description.texts["merge_mode"]

    @property
    def lstms(self) -> list[LSTM]:
        """The LSTM layers whose states this layer carries."""
        return [self.forward, self.backward]

    @property
    def obstacle(self) -> str:
        """Why a model with this layer cannot be stepped."""
        return "reads the sequence from both ends, so there is no answer before the whole of it is known"

    def run(self, values: Values, states: Sequence[LSTMState], seen: Array) -> tuple[Values, list[LSTMState]]:
        """Advances every row by a whole sequence: as `LSTM.run`, with the states of both directions.

        Where only the last output is wanted it is the last of each direction, which for the backward one stands first.
        """
        ahead, after = self.forward.run(values, states[:1], seen)
        back, before = self.backward.run(values, states[1:], seen)
        backward = back.array if not self.returns_sequences else back.array[:, ::-1]
        return Values(self._merged(ahead.array, backward), sequence=True, mask=values.mask), [*after, *before]

    def _merged(self, ahead: Array, back: Array) -> Array:
        match self._merge:
            case "concat":
                return np.concatenate([ahead, back], axis=-1)
            case "sum":
                return ahead + back
            case "mul":
                return ahead * back
            case _:
                return (ahead + back) / 2
