"""Activation functions: their definitions by era, and that they work in place on any layout."""

from __future__ import annotations

import numpy as np
import pytest

from lstmserve_server.model import activations
from lstmserve_server.model.activations import KerasMajor
from tests.support.builders import numbers

X = np.array([-8.0, -3.5, -1.0, -0.5, -0.2, 0.0, 0.3, 0.5, 1.0, 2.9, 7.5])

DEFINITIONS = {
    "celu": np.where(X > 0, X, np.exp(X) - 1),
    "elu": np.where(X > 0, X, np.exp(X) - 1),
    "exponential": np.exp(X),
    "hard_shrink": np.where(np.abs(X) > 0.5, X, 0),
    "hard_sigmoid": np.clip(X / 6 + 0.5, 0, 1),
    "hard_silu": X * np.clip(X / 6 + 0.5, 0, 1),
    "hard_swish": X * np.clip(X / 6 + 0.5, 0, 1),
    "hard_tanh": np.clip(X, -1, 1),
    "leaky_relu": np.where(X > 0, X, 0.2 * X),
    "linear": X,
    "log_sigmoid": -np.log1p(np.exp(-X)),
    "log_softmax": X - np.log(np.exp(X).sum()),
    "mish": X * np.tanh(np.log1p(np.exp(X))),
    "relu": np.where(X > 0, X, 0),
    "relu6": np.clip(X, 0, 6),
    "selu": 1.05070098735548 * np.where(X > 0, X, 1.67326324235437 * (np.exp(X) - 1)),
    "sigmoid": 1 / (1 + np.exp(-X)),
    "silu": X / (1 + np.exp(-X)),
    "soft_shrink": np.where(X > 0.5, X - 0.5, np.where(X < -0.5, X + 0.5, 0)),
    "softmax": np.exp(X) / np.exp(X).sum(),
    "softplus": np.log1p(np.exp(X)),
    "softsign": X / (1 + np.abs(X)),
    "sparse_plus": np.where(X <= -1, 0, np.where(X < 1, 0.25 * (X + 1) ** 2, X)),
    "sparse_sigmoid": np.where(X <= -1, 0, np.where(X >= 1, 1, 0.5 * (X + 1))),
    "sparsemax": np.array([0.0] * 10 + [1.0]),
    "squareplus": (X + np.sqrt(X * X + 4)) / 2,
    "swish": X / (1 + np.exp(-X)),
    "tanh": np.tanh(X),
    "tanh_shrink": X - np.tanh(X),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_definition(name):
    """Each activation of Keras 3 computes its formula."""
    got = X.copy()
    activations.find(name, KerasMajor.KERAS_3).apply(got)

    np.testing.assert_allclose(DEFINITIONS[name], got, rtol=1e-13, atol=1e-13)


def test_every_activation_of_keras_3_is_defined_here():
    """The table above and gelu, which has no short formula, are all that is served."""
    assert sorted([*DEFINITIONS, "gelu"]) == activations.names(KerasMajor.KERAS_3)


def test_gelu_is_the_exact_one():
    """Gelu uses erf, not the approximation by tanh, which differs by 1e-4."""
    got = np.array([1.0])
    activations.find("gelu", KerasMajor.KERAS_3).apply(got)

    np.testing.assert_allclose([0.8413447460685429], got, rtol=1e-14)


def test_hard_sigmoid_changed_with_keras_3():
    """The hard sigmoid of Keras 2 has the slope 1/5, that of Keras 3 the slope 1/6."""
    old, new = np.array([1.5]), np.array([1.5])
    activations.find("hard_sigmoid", KerasMajor.KERAS_2).apply(old)
    activations.find("hard_sigmoid", KerasMajor.KERAS_3).apply(new)

    assert (old[0], new[0]) == (pytest.approx(0.8), pytest.approx(0.75))


def test_sparsemax_is_the_one_of_keras():
    """Keras adds up all partial sums of the support: with a support of one it is the sparsemax of the literature, with more
    it is not, and the answers are Keras' own (measured with Keras 3.15.1).
    """
    got = np.array([[2.0, 0.8, -2.0], [1.0, 0.8, -2.0]])
    activations.find("sparsemax", KerasMajor.KERAS_3).apply(got)

    np.testing.assert_allclose([[1.0, 0.0, 0.0], [0.1, 0.0, 0.0]], got, atol=1e-15)


@pytest.mark.parametrize("era", KerasMajor)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_in_place_in_the_type_and_layout_given(era, dtype):
    """An activation changes a strided slice in place, in its own type, to the bytes that a copy of each row gives."""
    for name in activations.names(era):
        activation = activations.find(name, era)
        whole = numbers(5, 24, scale=4, dtype=dtype)
        before = whole.copy()
        activation.apply(whole[:, 6:17])

        rows = [row.copy() for row in before[:, 6:17]]
        for row in rows:
            activation.apply(row)
        assert np.stack(rows).tobytes() == whole[:, 6:17].tobytes(), name
        np.testing.assert_array_equal(before[:, :6], whole[:, :6])
        np.testing.assert_array_equal(before[:, 17:], whole[:, 17:])


@pytest.mark.parametrize("era", KerasMajor)
def test_bounds_hold(era):
    """No image exceeds the bound that an activation names."""
    for name in activations.names(era):
        activation = activations.find(name, era)
        x = np.concatenate([numbers(1000, scale=100, dtype=np.float32), [np.float32(3e38), np.float32(-3e38)]])
        with np.errstate(all="ignore"):
            activation.apply(x)

        assert np.abs(x[np.isfinite(x)]).max(initial=0) <= activation.bound, name


def test_relu_at_its_threshold_and_at_its_most():
    """What is at the threshold counts as below it, as in Keras; the most is reached and not passed."""
    x = np.array([0.5, 1, 1.25, 3, 3.5], np.float32)
    plain, sloped = x.copy(), x.copy()

    activations.relu(threshold=1, max_value=3).apply(plain)
    activations.relu(negative_slope=0.5, threshold=1, max_value=3).apply(sloped)

    assert plain.tolist() == [0, 0, 1.25, 3, 3]
    assert sloped.tolist() == [-0.25, 0, 1.25, 3, 3]


def test_unknown_names_are_not_found():
    """A name that the Keras of an era did not know is not found, though another's did."""
    assert activations.find("relu6", KerasMajor.KERAS_2) is None
    assert activations.find("Tanh", KerasMajor.KERAS_3) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_quick_sigmoid_keeps_the_tail(dtype):
    """The sigmoid of fast mode is as close as rounding, relatively too where the sigmoid is tiny, and warns of nothing."""
    x = np.linspace(-200, 200, 4001, dtype=dtype)
    expected, got = x.copy(), x.copy()
    sigmoid = activations.find("sigmoid", KerasMajor.KERAS_3)
    sigmoid.apply(expected)

    activations.fast_variant(sigmoid).writer(got, got)

    np.testing.assert_allclose(expected, got, rtol=8 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)


@pytest.mark.parametrize(
    "made",
    [
        activations.elu(0.5),
        activations.relu(0.25, 1.0),
        activations.relu(0.25, 1.0, 3.0),
        activations.relu(0.0, 0.0, 2.0),
    ],
    ids=lambda made: made.name,
)
def test_an_activation_with_numbers_is_found_by_its_definition(made):
    """As the name goes from one process to the other, the function has to come back from it."""
    x = np.linspace(-4, 4, 33, dtype=np.float32)
    here, there = x.copy(), x.copy()
    found = activations.activation_by_definition(made.name)
    assert found is not None

    made.apply(here)
    found.apply(there)

    assert found.name == made.name
    assert here.tobytes() == there.tobytes()


@pytest.mark.parametrize("name", ["selu(0.5)", "relu(1)", "relu(1, 2, 3, 4)", "max(0.5)"])
def test_a_definition_that_nobody_wrote_is_not_found(name):
    """Neither with another name, nor with more or fewer numbers."""
    assert activations.activation_by_definition(name) is None
