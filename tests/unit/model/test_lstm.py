"""The mathematics: against the plain oracle, and against itself in every cut (promises P1 and P2)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstmserve_server.model import lstm
from lstmserve_server.model.lstm import LSTMSpec, LSTMState, LSTMWeights
from lstmserve_server.model.numerics import Numerics, matmul_of
from tests.support import oracle
from tests.support.builders import activation, cell_of, numbers
from tests.support.each_engine import ENGINES

EXACT = matmul_of(Numerics.EXACT)
FAST = matmul_of(Numerics.FAST)
TANH_SIGMOID = {"activation": activation("tanh"), "recurrent_activation": activation("sigmoid")}


def weights_of(features, units, dtype=np.float32, *, bias=True):
    """Returns weights that all differ."""
    return LSTMWeights(
        numbers(features, 4 * units, seed=1, scale=0.5, dtype=dtype),
        numbers(units, 4 * units, seed=2, scale=0.9 / units**0.5, dtype=dtype),
        numbers(4 * units, seed=3, scale=0.4, dtype=dtype) if bias else None,
    )


def state_of(batch, units, dtype=np.float32):
    """Returns a state that is not zero."""
    return LSTMState(np.tanh(numbers(batch, units, seed=4, dtype=dtype)), numbers(batch, units, seed=5, dtype=dtype))


def oracle_step(weights, x, state):
    """Returns the next h and c by the oracle, row after row."""
    plain = oracle.from_keras(*weights, oracle.tanh, oracle.sigmoid)
    rows = [plain.step(x[row], state.h[row], state.c[row]) for row in range(len(x))]
    return LSTMState(np.stack([h for h, _ in rows]), np.stack([c for _, c in rows]))


def same_bytes(expected, got):
    """Returns whether two states have the same bytes."""
    return all(a.tobytes() == b.tobytes() for a, b in zip(expected, got, strict=True))


sizes = st.tuples(st.integers(1, 40), st.integers(1, 30), st.integers(1, 9))  # units, features, batch


@given(sizes, st.booleans(), st.sampled_from([EXACT, FAST]))
@settings(deadline=None, max_examples=60)
def test_step_equals_the_oracle_in_float64(size, bias, matmul):
    """A step in float64 equals the plain oracle up to the last few bits."""
    units, features, batch = size
    weights, state = weights_of(features, units, np.float64, bias=bias), state_of(batch, units, np.float64)
    x = numbers(batch, features, dtype=np.float64)

    expected = oracle_step(weights, x, state)
    got = lstm.step(LSTMSpec(units, **TANH_SIGMOID), weights, matmul, x, state)

    np.testing.assert_allclose(expected.h, got.h, rtol=0, atol=1e-14)
    np.testing.assert_allclose(expected.c, got.c, rtol=0, atol=1e-14)


@pytest.mark.parametrize("engine", ENGINES)
@given(sizes)
@settings(deadline=None, max_examples=40)
def test_step_equals_the_oracle_in_float32(engine, size):
    """A step in float32 equals the plain oracle in float32 up to rounding."""
    units, features, batch = size
    weights, state, x = weights_of(features, units), state_of(batch, units), numbers(batch, features)

    expected = oracle_step(weights, x, state)
    got = cell_of(engine, LSTMSpec(units, **TANH_SIGMOID), weights).step(x, state)

    assert np.float32 == got.h.dtype == got.c.dtype
    np.testing.assert_allclose(expected.h, got.h, rtol=0, atol=2e-6)
    np.testing.assert_allclose(expected.c, got.c, rtol=0, atol=2e-6)


def test_published_vector_of_tflite():
    """The one published vector with distinct weights per gate comes out (TensorFlow Lite,
    unidirectional_sequence_lstm_test.cc, NoCifgNoPeepholeNoProjectionNoClipping).
    """
    to_gates = {
        "i": [
            [-0.45018822, -0.02338299],
            [-0.0870589, -0.34550029],
            [0.04266912, -0.15680569],
            [-0.34856534, 0.43890524],
        ],
        "f": [
            [0.09701663, 0.20334584],
            [-0.50592935, -0.31343272],
            [-0.40032279, 0.44781327],
            [0.01387155, -0.35593212],
        ],
        "c": [[-0.50013041, 0.1370284], [0.11810488, 0.2013163], [-0.20583314, 0.44344562], [0.22077113, -0.29909778]],
        "o": [[-0.25065863, -0.28290087], [0.04613829, 0.40525138], [0.44272184, 0.03897077], [-0.1556896, 0.19487578]],
    }
    recurrent = {
        "i": [-0.0063535, -0.2042388, 0.31454784, -0.35746509, 0.28902304, 0.08183324, -0.16555229, 0.02286911,
              -0.13566875, 0.03034258, 0.48091322, -0.12528998, 0.24077177, -0.51332325, -0.33502164, 0.10629296],
        "f": [-0.48684245, -0.06655136, 0.42224967, 0.2112639, 0.27654213, 0.20864892, -0.07646349, 0.45877004,
              0.00141793, -0.14609534, 0.36447752, 0.09196436, 0.28053468, 0.01560611, -0.20127171, -0.01140004],
        "c": [-0.3407414, 0.24443203, -0.2078532, 0.26320225, 0.05695659, -0.00123841, -0.4744786, -0.35869038,
              -0.06418842, -0.13502428, -0.501764, 0.22830659, -0.46367589, 0.26016325, -0.03894562, -0.16368064],
        "o": [0.43385774, -0.17194885, 0.2718237, 0.09215671, 0.24107647, -0.39835793, 0.18212086, 0.01301402,
              0.48572797, -0.50656658, 0.20047462, -0.20607421, -0.51818722, -0.15390486, 0.0468148, 0.39922136],
    }  # fmt: skip
    weights = LSTMWeights(
        np.concatenate([np.array(to_gates[gate]).T for gate in "ifco"], axis=1),
        np.concatenate([np.array(recurrent[gate]).reshape(4, 4).T for gate in "ifco"], axis=1),
        np.repeat([0.0, 1.0, 0.0, 0.0], 4),
    )
    x = np.array([[[2.0, 3.0], [3.0, 4.0], [1.0, 1.0]]])
    expected = [
        [-0.02973187, 0.1229473, 0.20885126, -0.15358765],
        [-0.03716109, 0.12507336, 0.41193449, -0.20860538],
        [-0.15053082, 0.09120187, 0.24278517, -0.12222792],
    ]

    outputs, _ = lstm.forward(
        LSTMSpec(4, **TANH_SIGMOID), weights, EXACT, x, lstm.zero_state(LSTMSpec(4, **TANH_SIGMOID), 1, x.dtype)
    )

    np.testing.assert_allclose(expected, outputs[0], rtol=0, atol=1e-7)


@pytest.mark.parametrize("engine", ENGINES)
@given(sizes, st.integers(1, 12), st.data())
@settings(deadline=None, max_examples=60)
def test_p1_any_chunking_gives_the_same_bytes(engine, size, time, data):
    """Forward over a sequence, over any chunks of it, and step by step give the same bytes (P1)."""
    units, features, batch = size
    spec, weights, state = LSTMSpec(units, **TANH_SIGMOID), weights_of(features, units), state_of(batch, units)
    x = numbers(batch, time, features)
    cuts = sorted(data.draw(st.sets(st.integers(1, time))) | {time})
    cell = cell_of(engine, spec, weights)

    expected, expected_state = cell.forward(x, state)
    parts, chunked = [], state
    for start, stop in itertools.pairwise([0, *cuts]):
        outputs, chunked = cell.forward(x[:, start:stop], chunked)
        parts.append(outputs)
    stepped, steps = state, []
    for t in range(time):
        stepped = cell.step(np.ascontiguousarray(x[:, t]), stepped)
        steps.append(stepped.h)

    assert expected.tobytes() == np.concatenate(parts, axis=1).tobytes() == np.stack(steps, axis=1).tobytes()
    assert same_bytes(expected_state, chunked)
    assert same_bytes(expected_state, stepped)


@pytest.mark.parametrize("engine", ENGINES)
@given(sizes, st.integers(1, 6), st.data())
@settings(deadline=None, max_examples=60)
def test_p2_a_row_has_the_same_bytes_in_any_company(engine, size, time, data):
    """A row's answer has the same bytes alone, in any order, and among any others (P2)."""
    units, features, batch = size
    spec, weights, state = LSTMSpec(units, **TANH_SIGMOID), weights_of(features, units), state_of(batch, units)
    x = numbers(batch, time, features)
    rows = data.draw(st.lists(st.integers(0, batch - 1), min_size=1, max_size=12))

    cell = cell_of(engine, spec, weights)

    outputs, after = cell.forward(x, state)
    some, some_after = cell.forward(x[rows], LSTMState(state.h[rows], state.c[rows]))

    assert outputs[rows].tobytes() == some.tobytes()
    assert same_bytes(LSTMState(after.h[rows], after.c[rows]), some_after)


@pytest.mark.parametrize("engine", ENGINES)
@given(sizes, st.integers(1, 7), st.booleans(), st.data())
@settings(deadline=None, max_examples=60)
def test_masked_steps_are_passed_over(engine, size, time, zero_masked, data):
    """At a masked step h and c stay and the output is repeated: zeros before the first step that counts, whatever h is."""
    units, features, batch = size
    spec, weights, state = LSTMSpec(units, **TANH_SIGMOID), weights_of(features, units), state_of(batch, units)
    x = numbers(batch, time, features)
    mask = np.array(
        data.draw(st.lists(st.lists(st.booleans(), min_size=time, max_size=time), min_size=batch, max_size=batch))
    )
    seen = np.array(data.draw(st.lists(st.booleans(), min_size=batch, max_size=batch)))

    cell = cell_of(engine, spec, weights)

    outputs, after = cell.forward_masked(x, state, mask, seen, zero_masked=zero_masked)

    for row in range(batch):
        now = LSTMState(state.h[row : row + 1], state.c[row : row + 1])
        shown = now.h[0] if seen[row] else np.zeros(units, np.float32)
        for t in range(time):
            if mask[row, t]:
                now = cell.step(np.ascontiguousarray(x[row : row + 1, t]), now)
                shown = now.h[0]
            expected = np.zeros(units) if zero_masked and not mask[row, t] else shown
            np.testing.assert_array_equal(expected, outputs[row, t])
        assert same_bytes(now, LSTMState(after.h[row : row + 1], after.c[row : row + 1]))


@pytest.mark.parametrize("engine", ENGINES)
def test_step_leaves_its_arguments_as_they_are(engine):
    """Neither x, nor the state before, nor the weights change in a step."""
    weights, state, x = weights_of(3, 5), state_of(2, 5), numbers(2, 3)
    copies = [array.copy() for array in (*weights, *state, x)]
    cell = cell_of(engine, LSTMSpec(5, **TANH_SIGMOID), weights)

    cell.step(x, state)
    cell.forward(x[:, None], state)

    for before, now in zip(copies, (*weights, *state, x), strict=True):
        np.testing.assert_array_equal(before, now)


def mutants():
    """Yields a name and weights for every wrong order of the gates, and for other mistakes people make."""
    weights = weights_of(6, 6, np.float64)
    for order in itertools.permutations(range(4)):
        if order != (0, 1, 2, 3):
            columns = np.concatenate([np.arange(6) + 6 * gate for gate in order])
            yield f"gates {order}", LSTMWeights(*(array[..., columns] for array in weights))
    kernel, recurrent, bias = weights
    yield (
        "kernel transposed",
        LSTMWeights(np.concatenate([block.T for block in np.split(kernel, 4, axis=1)], axis=1), recurrent, bias),
    )
    yield (
        "recurrent kernel transposed",
        LSTMWeights(kernel, np.concatenate([block.T for block in np.split(recurrent, 4, axis=1)], axis=1), bias),
    )
    yield "bias twice", LSTMWeights(kernel, recurrent, 2 * bias)
    yield "no bias", LSTMWeights(kernel, recurrent, None)


@pytest.mark.parametrize(
    ("mistake", "wrong"), list(mutants()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_oracle_catches_mistakes(mistake, wrong):
    """Every wrong order of the gates, a transposed kernel and a bias added twice are far from the oracle."""
    x, state = numbers(3, 6, dtype=np.float64), state_of(3, 6, np.float64)

    expected = oracle_step(weights_of(6, 6, np.float64), x, state)
    got = lstm.step(LSTMSpec(6, **TANH_SIGMOID), wrong, EXACT, x, state)

    assert max(np.abs(expected.h - got.h).max(), np.abs(expected.c - got.c).max()) > 1e-3, mistake


def test_the_oracle_catches_h_and_c_exchanged():
    """A state whose h and c are exchanged gives an answer far from the oracle's."""
    x, state, weights = numbers(3, 6, dtype=np.float64), state_of(3, 6, np.float64), weights_of(6, 6, np.float64)

    expected = oracle_step(weights, x, state)
    got = lstm.step(LSTMSpec(6, **TANH_SIGMOID), weights, EXACT, x, LSTMState(state.c, state.h))

    assert np.abs(expected.c - got.c).max() > 1e-3
