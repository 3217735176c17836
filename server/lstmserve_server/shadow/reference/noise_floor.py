"""Measures a reference model before it is used: its distance from our model, and from itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.model.types import Array
from lstmserve_server.shadow.reference.keras_model import LSTMWitness, ReferenceModel

_ROWS: Final = 8
_TIME: Final = 12
_UNKNOWN: Final = -1.0


def noise_floor(model: RecurrentModel, reference_model: ReferenceModel) -> float:
    """Returns the noise floor of a reference model: the same steps alone, together, and in another order.

    The largest difference of h and c, relative to max(1, |value|), over all LSTMs.
    """
    random = np.random.default_rng(7)
    largest = 0.0
    for lstms in reference_model.lstms.values():
        for lstm in lstms:
            kernel, recurrent, _ = lstm.weights
            x, h, c = (
                random.normal(size=(_ROWS * _TIME, n)).astype(model.dtype)
                for n in (kernel.shape[0], *[recurrent.shape[0]] * 2)
            )
            largest = max(largest, _own_distance(lstm, x, np.tanh(h), c))
    return largest


def _own_distance(lstm: LSTMWitness, x: Array, h: Array, c: Array) -> float:
    together = lstm.step(x, h, c)
    turned = [array[::-1] for array in lstm.step(x[::-1].copy(), h[::-1].copy(), c[::-1].copy())]
    alone = [
        np.concatenate(arrays)
        for arrays in zip(*(lstm.step(x[i : i + 1], h[i : i + 1], c[i : i + 1]) for i in range(_ROWS)), strict=True)
    ]
    pairs = [*zip(together, turned, strict=True), *((a[:_ROWS], b) for a, b in zip(together, alone, strict=True))]
    return max(_distance(a, b) for a, b in pairs)


def whole_model_difference(model: RecurrentModel, reference_model: ReferenceModel) -> tuple[float, float]:
    """Returns the distance of our whole model from that of the file for a probe, and the noise floor of the latter.

    The noise floor is the change of its output when each weight moves by one unit of rounding. Both are -1 without a file.
    Each is the largest difference of an output, relative to max(1, |value|). It tells of wiring and masks, which the comparison of
    single layers takes from our own reading of the file.
    """
    if reference_model.model is None:
        return _UNKNOWN, _UNKNOWN
    random = np.random.default_rng(11)
    rows = reference_model.model.inputs[0].shape[0] or _ROWS
    inputs = []
    for item in model.inputs:
        time = [item.shape[0] or _TIME] if item.sequence else []
        shape = (rows, *time, *(length or 1 for length in item.features))
        if item.vocabulary is not None:
            inputs.append(random.integers(0, item.vocabulary, shape).astype(model.dtype))
        else:
            inputs.append(random.normal(size=shape).astype(model.dtype))
    given = [
        array[..., 0].astype(np.int32) if item.vocabulary is not None else array
        for array, item in zip(inputs, model.inputs, strict=True)
    ]
    theirs = _answers(reference_model, given)
    whole = any(output.ndim > 2 for output in theirs) and model.returns_sequences  # noqa: PLR2004 - batch, time, features
    answer = model.forward(inputs, model.zero_state(rows), all_outputs=whole)
    own = reference_model.model.get_weights()
    reference_model.model.set_weights([_moved(weight, random) for weight in own])
    moved = _answers(reference_model, given)
    reference_model.model.set_weights(own)
    return _largest(answer.outputs, theirs), _largest(moved, theirs)


def _answers(reference_model: ReferenceModel, given: list[Array]) -> list[Array]:
    made = reference_model.model(given[0] if len(given) == 1 else given, training=False)
    return [np.asarray(output) for output in (made if isinstance(made, (list, tuple)) else [made])]


def _moved(weight: Array, random: np.random.Generator) -> Array:
    """Returns a weight moved by one unit of rounding, up or down."""
    if weight.dtype.kind != "f":
        return weight
    way = np.where(random.random(weight.shape) < 0.5, -np.inf, np.inf).astype(weight.dtype)  # noqa: PLR2004 - as often
    moved: Array = np.nextafter(weight, way)
    return moved


def _largest(some: Sequence[Array], others: Sequence[Array]) -> float:
    pairs = [(a, b) for a, b in zip(some, others, strict=True) if a.shape == b.shape]
    return max((_distance(a, b) for a, b in pairs), default=_UNKNOWN)


def _distance(a: Array, b: Array) -> float:
    return float((np.abs(a.astype(np.float64) - b) / np.maximum(1, np.abs(b))).max(initial=0))
