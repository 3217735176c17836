"""Faults that are put into a served model, for the tests of shadow mode to find: each changes it, and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

from lstmserve_server.cli import main as cli_main
from lstmserve_server.model import activations, lstm
from lstmserve_server.model.activations import KerasMajor
from lstmserve_server.model.layers.recurrent import LSTM
from lstmserve_server.model.lstm import LSTMSpec, LSTMState, LSTMWeights
from lstmserve_server.model.model import StepResult
from lstmserve_server.runtime.registry import ServedModel


@contextlib.contextmanager
def weights(layer: LSTM, change: Callable[[LSTMWeights], LSTMWeights]) -> Iterator[None]:
    """Gives a layer other weights."""
    own = layer.weights
    _compute_with(layer, weights=change(own))
    try:
        yield
    finally:
        _compute_with(layer, weights=own)


def _compute_with(layer: LSTM, **changed: object) -> None:
    """Gives a layer, and what computes it, other weights or another specification."""
    for name, value in changed.items():
        setattr(layer, name, value)
        setattr(layer._cell, name, value)


def off(which: str, index: tuple[int, ...], by: float) -> Callable[[LSTMWeights], LSTMWeights]:
    """Returns a change of one number of one array of weights."""

    def change(own: LSTMWeights) -> LSTMWeights:
        array = getattr(own, which).copy()
        array[index] += by
        return own._replace(**{which: array})

    return change


def exchanged(one: int, other: int) -> Callable[[LSTMWeights], LSTMWeights]:
    """Returns the exchange of two gates, by their numbers in i f c o."""

    def change(own: LSTMWeights) -> LSTMWeights:
        order = [0, 1, 2, 3]
        order[one], order[other] = other, one
        arrays = [np.concatenate([np.split(array, 4, -1)[gate] for gate in order], -1) for array in own]
        return type(own)(*map(np.ascontiguousarray, arrays))

    return change


def without_bias(own: LSTMWeights) -> LSTMWeights:
    """Leaves the bias out."""
    return own._replace(bias=None)


def forget_bias_twice(own: LSTMWeights) -> LSTMWeights:
    """Adds the one of `unit_forget_bias` once more."""
    bias, units = own.bias.copy(), len(own.recurrent_kernel)
    bias[units : 2 * units] += 1
    return own._replace(bias=bias)


@contextlib.contextmanager
def other_hard_sigmoid(layer: LSTM) -> Iterator[None]:
    """Gives a layer the hard_sigmoid of Keras 2."""
    own = layer.spec
    _compute_with(layer, spec=LSTMSpec(own.units, own.activation, activations.find("hard_sigmoid", KerasMajor.KERAS_2)))
    try:
        yield
    finally:
        _compute_with(layer, spec=own)


@contextlib.contextmanager
def c_zeroed_at(step: int, units: int) -> Iterator[None]:
    """Zeroes c at one step of the first sequence that an LSTM of so many units computes, counted from 0."""
    own, count = lstm.Workspace.advance, 0

    def advance(cell, projected):
        nonlocal count
        own(cell, projected)
        if cell.c.shape[1] == units:
            if count == step:
                cell.c[:] = 0
            count += 1

    lstm.Workspace.advance = advance
    try:
        yield
    finally:
        lstm.Workspace.advance = own


def h_and_c_exchanged(answer: StepResult) -> StepResult:
    """Exchanges h and c of the first layer in an answer."""
    first, *others = answer.state
    return answer._replace(state=(LSTMState(first.c, first.h), *others))


def states_exchanged(answer: StepResult) -> StepResult:
    """Exchanges the states of two layers in an answer."""
    first, second, *others = answer.state
    return answer._replace(state=(second, first, *others))


def nan_in_output(answer: StepResult) -> StepResult:
    """Makes one number of the output NaN."""
    output = answer.output.copy()
    output.flat[-1] = np.nan
    return answer._replace(outputs=(output, *answer.outputs[1:]))


def nan_in_state(answer: StepResult) -> StepResult:
    """Makes one c of the second layer NaN."""
    first, second, *others = answer.state
    c = second.c.copy()
    c[-1, 3] = np.nan
    return answer._replace(state=(first, LSTMState(second.h, c), *others))


def main() -> None:
    """Runs the command line, with a bias of one weight off in the second layer of every model that it serves."""
    prepare = ServedModel.prepare.__func__

    def faulty(cls, *given, **named):
        served = prepare(cls, *given, **named)
        layer = served.model.lstm(*served.model.lstm_indices[-1])
        _compute_with(layer, weights=off("bias", (3,), 1e-2)(layer.weights))
        return served

    ServedModel.prepare = classmethod(faulty)
    cli_main.main()


if __name__ == "__main__":
    main()
