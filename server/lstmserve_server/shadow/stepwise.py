"""One call step by step and gate by gate, from both sides, for replay and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.model.types import Array
from lstmserve_server.shadow.captured_call import CapturedCall


@dataclass(frozen=True, slots=True)
class Stepwise:
    """Every step of one LSTM, in the order of processing; NaN at masked steps, and after the last step of a row."""

    layer: str

    ours_h: Array  # (rows, time, units)
    ours_c: Array  # (rows, time, units)
    keras_h: Array  # (rows, time, units): from our h and c before the step
    keras_c: Array  # (rows, time, units)
    exact_h: Array  # (rows, time, units), float64: the same with the weights and functions of Keras
    exact_c: Array  # (rows, time, units), float64
    ours_gates: Array  # (rows, time, 4, units): i f c o
    keras_gates: Array  # (rows, time, 4, units)
    free_h: Array  # (rows, time, units): of Keras with its own h and c all along

    @property
    def forced_difference(self) -> Array:
        """The largest |ours - Keras| of h and c at each step, over rows and units, (time,)."""
        return np.fmax(_largest(self.ours_h, self.keras_h), _largest(self.ours_c, self.keras_c))

    @property
    def free_difference(self) -> Array:
        """The largest |ours - Keras| of h at each step where Keras carries its own state, (time,)."""
        return _largest(self.ours_h, self.free_h)

    @property
    def gate_difference(self) -> Array:
        """The largest |ours - Keras| of each gate and unit, over rows and steps, (4, units)."""
        with np.errstate(invalid="ignore"):
            largest: Array = np.fmax.reduce(_apart(self.ours_gates, self.keras_gates), axis=(0, 1))
        return largest


def of(model: RecurrentModel, case: CapturedCall, arrays: Mapping[str, Array]) -> list[Stepwise]:
    """Returns the LSTMs of a call in the order of the model.

    Args:
        model: the model, which computes our gates again.
        case: the call.
        arrays: arrays of the reference, as in `Reply.arrays` with details.
    """
    return [
        _of(model, case, arrays, place, number)
        for place, number in model.lstm_indices
        if f"forced/h/{place}/{number}" in arrays
    ]


def _of(model: RecurrentModel, case: CapturedCall, arrays: Mapping[str, Array], place: int, number: int) -> Stepwise:
    def of_keras(name: str) -> Array:
        return arrays[f"{name}/{place}/{number}"]

    keras_h, x = of_keras("forced/h"), of_keras("forced/x")
    before_h, ours_h, ours_c = _ours(case, place, number, keras_h)
    lstm = model.lstm(place, number)
    with np.errstate(all="ignore"):
        rows = (np.ascontiguousarray(array.reshape(-1, array.shape[-1])) for array in (x, before_h))
        gates = lstm.gates(*rows).reshape(*x.shape[:2], 4, -1)
    free = arrays.get(f"free/h/{place}/{number}", np.full_like(keras_h, np.nan))
    free = np.where(_passed_over(case, place, number, keras_h)[..., None], np.nan, free)
    return Stepwise(
        lstm.name,
        ours_h,
        ours_c,
        keras_h,
        of_keras("forced/c"),
        of_keras("forced/exact_h"),
        of_keras("forced/exact_c"),
        gates,
        of_keras("forced/gates"),
        free,
    )


def _ours(case: CapturedCall, place: int, number: int, like: Array) -> tuple[Array, Array, Array]:
    """Returns h before each step, and h and c after it."""
    before_h, h, c = (np.full_like(like, np.nan) for _ in range(3))
    for piece in case.pieces:
        part = piece.steps[place][number]
        times = slice(piece.start, piece.start + part.h.shape[1] - 1)
        before_h[piece.rows, times] = part.h[:, :-1]
        h[piece.rows, times] = part.h[:, 1:]
        c[piece.rows, times] = part.c[:, 1:]
    for array in (h, c):
        array[_passed_over(case, place, number, like)] = np.nan
    return before_h, h, c


def _passed_over(case: CapturedCall, place: int, number: int, like: Array) -> Array:
    """Returns a mask of the masked steps, (rows, time)."""
    passed = np.zeros(like.shape[:2], bool)
    for piece in case.pieces:
        mask = piece.steps[place][number].mask
        if mask is not None:
            passed[piece.rows, piece.start : piece.start + mask.shape[1]] = ~mask
    return passed


def _largest(ours: Array, theirs: Array) -> Array:
    with np.errstate(invalid="ignore"):
        largest: Array = np.fmax.reduce(_apart(ours, theirs), axis=(0, 2))
    return largest


def _apart(ours: Array, theirs: Array) -> Array:
    """Returns |ours - theirs|, infinity where only ours is NaN; NaN where theirs is NaN."""
    apart = np.abs(ours.astype(np.float64) - theirs)
    return np.where(np.isnan(ours) & ~np.isnan(theirs), np.inf, apart)
