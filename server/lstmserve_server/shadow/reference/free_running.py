"""Free-running comparison: Keras carries its own h and c through the call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import numpy as np

from lstmserve_server.model.spec import LayerSpec, ModelSpec
from lstmserve_server.model.types import Array
from lstmserve_server.shadow.captured_call import Piece
from lstmserve_server.shadow.reference.keras_model import ReferenceModel

_LONGEST: Final = 1024  # steps that Keras goes through on its own: it takes a while for each


class FreeRunner:
    """Runs the pieces of one call, in order."""

    def __init__(self, description: ModelSpec, reference_model: ReferenceModel, windows: AbstractSet[int]) -> None:
        self._description = description
        self._reference_model = reference_model
        self._windows = windows
        self._states: dict[tuple[int, int, int], tuple[Array, Array]] = {}
        """h and c of each row, by place, number and row."""
        self.unknown: set[str] = set()
        """Why something is not known, each "reason: name of the layer"."""

    def run(self, piece: Piece) -> tuple[dict[int, Array], Mapping[tuple[int, int], tuple[Array, Array]]]:
        """Returns the values that are known, by number; and h of every step, and c after the last, of each LSTM."""
        values: dict[int, Array] = {}
        carried: dict[tuple[int, int], tuple[Array, Array]] = {}
        if piece.start >= _LONGEST:
            self.unknown.add(f"long: after step {_LONGEST}")
            return values, carried
        number = 0
        for place, layer in enumerate(self._description.layers):
            if not layer.inputs:
                values[number] = piece.values[number].array
            elif all(n in values for n in (*layer.inputs, *layer.initial_state)):
                for further, array in enumerate(self._layer(piece, place, values, carried)):
                    values[number + further] = array
            number += len(layer.output_shapes)
        return values, carried

    def _layer(
        self,
        piece: Piece,
        place: int,
        values: Mapping[int, Array],
        carried: dict[tuple[int, int], tuple[Array, Array]],
    ) -> list[Array]:
        layer = self._description.layers[place]
        if place in self._reference_model.lstms:
            return self._recurrent(piece, place, values, carried)
        arrays = [values[number] for number in layer.inputs]
        if does_nothing(layer):
            return arrays[:1]
        if place in self._windows:
            self.unknown.add(f"window: {layer.name}")
            return []
        made = apply(
            self._reference_model,
            self._description,
            place,
            arrays,
            [piece.values[number].mask for number in layer.inputs],
        )
        return [] if made is None else [made]

    def _recurrent(
        self,
        piece: Piece,
        place: int,
        values: Mapping[int, Array],
        carried: dict[tuple[int, int], tuple[Array, Array]],
    ) -> list[Array]:
        layer = self._description.layers[place]
        x = values[layer.inputs[0]]
        sequences, further = [], []
        for number, (part, steps) in enumerate(zip(layer.parts or (layer,), piece.steps[place], strict=True)):
            mask = steps.mask
            if mask is not None and part.options["go_backwards"]:
                mask = mask[:, ::-1]
            h, c = self._before(piece, place, number, (steps.h[:, 0], steps.c[:, 0]))
            if layer.initial_state:
                h, c = (values[n] for n in layer.initial_state[2 * number : 2 * number + 2])
            sequence, h, c = self._reference_model.lstms[place][number].sequence(x, h, c, mask)
            for i, row in enumerate(piece.rows.tolist()):
                self._states[place, number, row] = h[i], c[i]
            carried[place, number] = sequence, c
            sequences.append(sequence)
            further += [h, c]
        first = sum(len(before.output_shapes) for before in self._description.layers[:place])
        whole = merged(layer, sequences, like=piece.values[first].array)
        return [whole, *further] if len(layer.output_shapes) > 1 else [whole]

    def _before(self, piece: Piece, place: int, number: int, given: tuple[Array, Array]) -> tuple[Array, Array]:
        """Returns the h and c with which Keras continues; those of the caller at the first step of a row."""
        h, c = (array.copy() for array in given)
        for i, row in enumerate(piece.rows.tolist()):
            known = self._states.get((place, number, row))
            if known is not None:
                h[i], c[i] = known
        return h, c


def does_nothing(layer: LayerSpec) -> bool:
    """Returns whether a layer is an input, or has no effect at inference."""
    return not layer.inputs or not (layer.options.keys() - {"drops_mask"} or layer.weights or layer.parts)


def merged(layer: LayerSpec, sequences: Sequence[Array], *, like: Array) -> Array:
    """Returns the output of a layer from the sequences of its LSTMs, which are in the order of processing.

    Args:
        layer: an LSTM, or a Bidirectional.
        sequences: (batch, time, units) of each.
        like: our output: with a time axis, or only the last step.
    """
    lasts = like.ndim < 3  # noqa: PLR2004 - batch, time, units
    if len(sequences) == 1:
        return sequences[0][:, -1] if lasts else sequences[0]
    ahead, back = sequences
    ahead, back = (ahead[:, -1], back[:, -1]) if lasts else (ahead, back[:, ::-1])
    match layer.texts["merge_mode"]:
        case "concat":
            return np.concatenate([ahead, back], axis=-1)
        case "sum":
            return ahead + back
        case "mul":
            return ahead * back
        case "ave":
            return (ahead + back) / 2
        case _:
            return ahead


def apply(
    reference_model: ReferenceModel,
    description: ModelSpec,
    place: int,
    arrays: Sequence[Array],
    masks: Sequence[Array | None],
) -> Array | None:
    """Computes a layer without memory; None if the reference model does not have it.

    If every step is answered as if the sequence ended there, values without a time axis have one here. The
    steps are rows to the layer.
    """
    layer = description.layers[place]
    shapes = _shapes(description)
    extra = [array.ndim - 1 - len(shapes[number]) for array, number in zip(arrays, layer.inputs, strict=True)]
    extra = [0 if _is_ids(description, number) else n for n, number in zip(extra, layer.inputs, strict=True)]
    if not any(extra):
        return reference_model.apply(place, arrays, masks)
    if not all(n == 1 for n in extra):
        return None
    batch, time = arrays[0].shape[:2]
    made = reference_model.apply(
        place, [array.reshape(batch * time, *array.shape[2:]) for array in arrays], [None] * len(arrays)
    )
    return None if made is None else made.reshape(batch, time, *made.shape[1:])


def _is_ids(description: ModelSpec, number: int) -> bool:
    """Returns whether a value is the token ids of an input, which have no feature axis."""
    return any(item.value == number and item.vocabulary is not None for item in description.inputs)


def _shapes(description: ModelSpec) -> list[tuple[int | None, ...]]:
    return [shape for layer in description.layers for shape in layer.output_shapes]
