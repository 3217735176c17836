"""Checks a kernel against NumPy and against itself, before it is served."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from lstmserve_server.core.errors import UnsupportedModelError, WrongForModel
from lstmserve_server.model.engines.base import LSTMKernel
from lstmserve_server.model.engines.numpy_kernel import NumpyKernel
from lstmserve_server.model.lstm import LSTMState
from lstmserve_server.model.numerics import Numerics
from lstmserve_server.model.types import Array

_SIZES: Final = ((1, 16), (2, 1), (3, 7), (8, 5), (33, 3))  # rows and time-steps
_SIZES_OF_LARGE: Final = ((1, 4), (5, 2))
_MANY_WEIGHTS: Final = 2_000_000  # weights
_SCALES: Final = (1.0, 1e-2, 1e-4)  # of the numbers of a probe
_TOLERANCES: Final = {True: 1e-5, False: 1e-3}  # times max(1, |value|), where the activation is bounded, and where not
_ROUNDINGS: Final = 4  # units of rounding, of the sums' size, that two ways of adding up may be apart


def check(name: str, engine: str, cell: LSTMKernel, reference: NumpyKernel, numerics: Numerics) -> None:
    """Checks that a kernel computes what NumPy does, and keeps the promises of the numerics mode.

    Args:
        name: of the layer.
        engine: of the cell.
        cell: what is checked.
        reference: the same layer in NumPy.
        numerics: the mode.

    Raises:
        UnsupportedModelError: it does not; the error says how far it is off.
    """
    weights = sum(array.size for array in reference.weights if array is not None)
    with np.errstate(all="ignore"):
        for rows, time in _SIZES if weights <= _MANY_WEIGHTS else _SIZES_OF_LARGE:
            x, states = _computed(name, engine, cell, reference, rows, time)
            inputs = x.swapaxes(0, 1).reshape(-1, x.shape[2])
            margin = _margin(reference, inputs, _joined(states[:-1]), _joined(states[1:]))
            if not margin <= 1:
                message = (
                    f"layer {name!r}: {engine} is {margin:.3g} times as far from NumPy as it may be, on a probe of {rows} rows "
                    f"and {x.shape[1]} time-steps. Serve with --engine numpy"
                )
                raise UnsupportedModelError(message)
            _require_promises(name, engine, cell, x, states, numerics)


def _computed(
    name: str, engine: str, cell: LSTMKernel, reference: NumpyKernel, rows: int, time: int
) -> tuple[Array, list[LSTMState]]:
    """Returns the inputs of a probe, (rows, time, features), and the states before and after its steps.

    A layer with unbounded activations gets smaller inputs and fewer steps.
    """
    random = np.random.default_rng(0)
    failure: WrongForModel | None = None
    for steps, scale in itertools.product((time, 1), _SCALES):
        x = random.normal(size=(rows, steps, len(reference.weights.kernel)), scale=scale).astype(np.float32)
        h, c = random.normal(size=(2, rows, reference.spec.units), scale=scale).astype(np.float32)
        try:
            return x, _stepped(cell, x, LSTMState(np.tanh(h), c))
        except WrongForModel as error:
            failure = failure or error
    message = f"layer {name!r}: {engine} computes no probe ({failure}). Serve with --engine numpy"
    raise UnsupportedModelError(message)


def _stepped(cell: LSTMKernel, x: Array, state: LSTMState) -> list[LSTMState]:
    """Returns the state before the first step, and after each."""
    steps = (np.ascontiguousarray(x[:, t]) for t in range(x.shape[1]))
    return list(itertools.accumulate(steps, lambda before, step: cell.step(step, before), initial=state))


def _joined(states: list[LSTMState]) -> LSTMState:
    return LSTMState(*(np.concatenate(arrays) for arrays in zip(*states, strict=True)))


def _margin(reference: NumpyKernel, x: Array, before: LSTMState, after: LSTMState) -> float:
    """Returns the distance of steps from NumPy's, from the same states, as a multiple of the tolerance."""
    expected = reference.step(x, before)
    kernel, recurrent, bias = (np.abs(array) if array is not None else 0 for array in reference.weights)
    sums = np.abs(x) @ kernel + np.abs(before.h) @ recurrent + bias
    rounding = sums.reshape(len(x), 4, -1).max(axis=1) * (_ROUNDINGS * np.finfo(np.float32).eps)
    tolerance = _TOLERANCES[math.isfinite(reference.spec.activation.bound)]
    return max(
        float((np.abs(theirs - ours) / (np.maximum(tolerance, rounding) * np.maximum(1, np.abs(ours)))).max())
        for ours, theirs in zip(expected, after, strict=True)
    )


def _require_promises(
    name: str, engine: str, cell: LSTMKernel, x: Array, states: list[LSTMState], numerics: Numerics
) -> None:
    """Rejects a kernel whose sequences differ from its steps, or whose rows depend on the other rows."""
    whole = np.stack([state.h for state in states[1:]], axis=1)
    for what, rows, start, stop in _cuts(*x.shape[:2]):
        before = LSTMState(states[start].h[rows], states[start].c[rows])
        outputs, after = cell.forward(x[rows, start:stop], before)
        made = np.concatenate([outputs, after.h[:, None], after.c[:, None]], axis=1)
        last = states[stop]
        expected = np.concatenate([whole[rows, start:stop], last.h[rows, None], last.c[rows, None]], axis=1)
        if numerics is Numerics.EXACT and made.tobytes() != expected.tobytes():
            message = (
                f"layer {name!r}: {engine} gives other bytes for {what} than for the steps of all rows, on this machine. Serve "
                "with --engine numpy, or with --numerics fast, which promises a tolerance instead of bytes"
            )
            raise UnsupportedModelError(message)
        # From step to step a difference of rounding may grow, so this asks only whether it is the same computation.
        if not np.allclose(made, expected, rtol=1e-2, atol=1e-2):
            message = f"layer {name!r}: {engine} computes something else for {what} than for its steps. Serve with --engine numpy"
            raise UnsupportedModelError(message)


def _cuts(rows: int, time: int) -> Iterator[tuple[str, Array, int, int]]:
    """Yields ways to compute what the steps of all rows have computed: some rows, from one time-step to another."""
    every = np.arange(rows)
    yield "a whole sequence", every, 0, time
    yield "half a sequence", every, time // 2, time
    yield "rows in another order", every[::-1], 0, time
    yield "two rows", every[-2:], 0, min(time, 3)
    for row in every[:3]:
        yield "a row alone", every[row : row + 1], 0, time
