"""The reference model: layers of the real Keras in their places in one of our models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from lstmserve.v1 import shadow_pb2
from lstmserve_server.model.spec import LayerSpec, ModelSpec
from lstmserve_server.model.types import Array

_RECURRENT = ("LSTM", "Bidirectional")


class LSTMWitness:
    """One LSTM layer of Keras or tf_keras."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._cell = layer.cell

    @property
    def dtype(self) -> str:
        """The type in which it computes."""
        return str(self._layer.compute_dtype)

    @property
    def weights(self) -> list[Array]:
        """Kernel, recurrent kernel and bias; zeros where there is none."""
        cell = self._cell
        kernel, recurrent = np.asarray(cell.kernel), np.asarray(cell.recurrent_kernel)
        bias = np.asarray(cell.bias) if cell.use_bias else np.zeros(kernel.shape[1], kernel.dtype)
        return [kernel, recurrent, bias]

    def step(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """Advances rows by one time-step: (batch, features), (batch, units) and (batch, units) to h and c."""
        _, after_h, after_c = self._call(x[:, None], h, c)
        return np.asarray(after_h), np.asarray(after_c)

    def sequence(self, x: Array, h: Array, c: Array, mask: Array | None) -> tuple[Array, Array, Array]:
        """Advances rows by a sequence: returns the output of every step in the order of processing, h and c."""
        masked = {} if mask is None else {"mask": _tensor(mask)}
        outputs, after_h, after_c = self._call(x, h, c, **masked)
        return np.asarray(outputs), np.asarray(after_h), np.asarray(after_c)

    def _call(self, x: Array, h: Array, c: Array, **more: Any) -> Any:
        # The mathematics stay as they are; what is asked for is every step, and h and c after it.
        layer = self._layer
        names = ("return_sequences", "return_state", "stateful", "input_spec")
        request = [getattr(layer, name) for name in names]
        for name, wanted in zip(
            names, (True, True, False, None), strict=True
        ):  # no spec: that of a stateful layer has a batch
            setattr(layer, name, wanted)
        try:
            return layer(_tensor(x), initial_state=[_tensor(h), _tensor(c)], training=False, **more)
        finally:
            for name, own in zip(names, request, strict=True):
                setattr(layer, name, own)

    def gates(self, x: Array, h: Array, dtype: Any = None) -> Array:
        """Returns the gates of a step, (batch, 4, units): i f c o."""
        kernel, recurrent, bias = (weight.astype(dtype or weight.dtype) for weight in self.weights)
        z = x.astype(kernel.dtype) @ kernel + h.astype(kernel.dtype) @ recurrent + bias
        blocks = np.split(z, 4, axis=1)
        functions = [self._cell.recurrent_activation] * 4
        functions[2] = self._cell.activation
        return np.stack(
            [np.asarray(function(_tensor(block))) for function, block in zip(functions, blocks, strict=True)], 1
        )

    def exactly(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """Returns h and c after a step, computed in float64 with these weights and these functions."""
        i, f, g, o = self.gates(x, h, np.float64).swapaxes(0, 1)
        after = f * c.astype(np.float64) + i * g
        return o * np.asarray(self._cell.activation(_tensor(after))), after


def _tensor(array: Array) -> Any:
    return tf.constant(array)


@dataclass(frozen=True, slots=True)
class ReferenceModel:
    """Keras layers for a model."""

    kind: shadow_pb2.ReferenceModelKind
    text: str
    description: ModelSpec
    layers: list[Any]
    """The layer of each place; None where it does nothing, or where none could be had."""

    lstms: dict[int, list[LSTMWitness]]
    """The LSTMs of each place that has some."""

    differing_weights: tuple[str, ...] = ()
    """Weights that are not those that our loader found, in words."""

    model: Any = None
    """The whole model, where the file itself was loaded."""

    @classmethod
    def of(
        cls,
        kind: shadow_pb2.ReferenceModelKind,
        text: str,
        description: ModelSpec,
        layers: list[Any],
        model: Any = None,
    ) -> ReferenceModel:
        """Creates a reference model from layers.

        Raises:
            ValueError: an LSTM has none, or one of another size.
        """
        lstms: dict[int, list[LSTMWitness]] = {}
        differing: list[str] = []
        for place, (described, layer) in enumerate(zip(description.layers, layers, strict=True)):
            if described.kind in _RECURRENT:
                if layer is None:
                    message = f"it has no layer {described.name!r}"
                    raise ValueError(message)
                lstms[place] = [LSTMWitness(part) for part in _parts(layer)]
                differing += _differing(described, lstms[place])
        return cls(kind, text, description, layers, lstms, tuple(differing), model)

    def computes_in(self, place: int) -> str | None:
        """Returns the dtype of the layer at an index; None if there is none."""
        layer = self.layers[place]
        return None if layer is None else str(layer.compute_dtype)

    def apply(self, place: int, arrays: Sequence[Array], masks: Sequence[Array | None]) -> Array | None:
        """Computes the layer at an index; None if there is none, or it cannot be called alone."""
        layer = self.layers[place]
        if layer is None:
            return None
        if self.description.layers[place].kind == "Embedding":
            arrays = [array.astype(np.int32) for array in arrays]
        tensors = [_masked(_tensor(array), mask) for array, mask in zip(arrays, masks, strict=True)]
        made = layer(tensors[0] if len(tensors) == 1 else tensors)
        return np.asarray(made)


def _parts(layer: Any) -> list[Any]:
    return [layer.forward_layer, layer.backward_layer] if hasattr(layer, "forward_layer") else [layer]


def _masked(tensor: Any, mask: Array | None) -> Any:
    if mask is not None:
        tensor._keras_mask = _tensor(mask)  # noqa: SLF001 - how both libraries hand a mask from layer to layer
    return tensor


def _differing(described: LayerSpec, witnesses: list[LSTMWitness]) -> Iterator[str]:
    """Yields the differences between the weights of Keras and those that our loader read.

    Raises:
        ValueError: the shapes differ, as in a file that has changed since.
    """
    for part, reference_model in zip(described.parts or (described,), witnesses, strict=True):
        for name, theirs in zip(("kernel", "recurrent_kernel", "bias"), reference_model.weights, strict=True):
            ours = part.weights.get(name, np.zeros_like(theirs))
            if ours.shape != theirs.shape:
                message = (
                    f"{name} of layer {part.name!r} has the shape {theirs.shape}, and {ours.shape} as we loaded it"
                )
                raise ValueError(message)
            if not np.array_equal(ours, theirs):
                yield f"{name} of layer {part.name!r}, by up to {np.abs(ours - theirs).max():.3g}"
