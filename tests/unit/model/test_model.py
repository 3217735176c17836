"""A chain of layers: what it answers, in every cut and company (promises P1 and P2), and what it refuses."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstmserve_server.core.errors import UnsupportedModelError, WrongForModel
from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.model.numerics import Numerics
from lstmserve_server.model.spec import LayerSpec
from lstmserve_server.runtime import selftest
from tests.support import oracle
from tests.support.builders import activation, chain, lstm_layer, model, numbers, small_model
from tests.support.each_engine import ENGINES


def bytes_of(answer):
    """Returns every byte of an answer."""
    return b"".join(array.tobytes() for array in answer.outputs) + b"".join(
        array.tobytes() for part in answer.state for array in part
    )


def rows_of(state, rows):
    """Returns some rows of a state."""
    return tuple(type(part)(*(array[rows] for array in part)) for part in state)


def test_the_chain_is_its_layers_one_after_the_other():
    """The small model equals two plain LSTMs and a matrix, row by row."""
    small, x = small_model(), numbers(2, 6, 3)
    _, first, second, head = (layer.weights for layer in small.description.layers)
    plains = [oracle.from_keras(*weights.values(), oracle.tanh, oracle.sigmoid) for weights in (first, second)]

    answer = small.forward((x,), small.zero_state(2), all_outputs=True)

    for row in range(2):
        states = [(np.zeros(5), np.zeros(5)), (np.zeros(4), np.zeros(4))]
        for t in range(6):
            values = x[row, t].astype(np.float64)
            for i, plain in enumerate(plains):
                states[i] = plain.step(values, *states[i])
                values = states[i][0]
            np.testing.assert_allclose(values @ head["kernel"] + head["bias"], answer.output[row, t], atol=2e-6)


@pytest.mark.parametrize("engine", ENGINES)
@given(st.integers(1, 5), st.integers(1, 10), st.booleans(), st.data())
@settings(deadline=None, max_examples=60)
def test_p1_forward_steps_and_any_mixture_give_the_same_bytes(engine, batch, time, ragged, data):
    """Any cut of a sequence into Forward and Step calls gives the bytes of one Forward (P1), ragged or not."""
    small, x = small_model(engine=engine), numbers(batch, time, 3)
    whole = small.forward((x,), small.zero_state(batch), all_outputs=True)
    cuts = sorted(data.draw(st.sets(st.integers(1, time))) | {time})

    outputs, state = [], small.zero_state(batch)
    for start, stop in itertools.pairwise([0, *cuts]):
        if stop - start == 1 and data.draw(st.booleans()):
            answer = small.step(np.ascontiguousarray(x[:, start]), state)
            outputs.append(answer.output[:, None])
        else:
            lengths = np.full(batch, stop - start) if ragged else None
            answer = small.forward((np.ascontiguousarray(x[:, start:stop]),), state, lengths, all_outputs=True)
            outputs.append(answer.output)
        state = answer.state

    assert whole.output.tobytes() == np.concatenate(outputs, axis=1).tobytes()
    assert bytes_of(whole._replace(outputs=())) == bytes_of(answer._replace(outputs=()))


@pytest.mark.parametrize("engine", ENGINES)
@given(st.integers(1, 6), st.integers(1, 8), st.data())
@settings(deadline=None, max_examples=60)
def test_p2_rows_in_any_company_order_and_length(engine, batch, time, data):
    """Each row of a ragged batch has the bytes that it has alone, cut to its own length (P2)."""
    small, x = small_model(engine=engine), numbers(batch, time, 3)
    lengths = np.array(data.draw(st.lists(st.integers(1, time), min_size=batch, max_size=batch)))
    start = tuple(
        type(part)(np.tanh(numbers(*part.h.shape, seed=9)), numbers(*part.c.shape)) for part in small.zero_state(batch)
    )

    last = small.forward((x,), start, lengths)
    every = small.forward((x,), start, lengths, all_outputs=True)

    for row in range(batch):
        alone = small.forward((x[[row], : lengths[row]],), rows_of(start, [row]), all_outputs=True)
        assert alone.output[0].tobytes() == every.output[row, : lengths[row]].tobytes()
        assert alone.output[0, -1].tobytes() == last.output[row].tobytes()
        assert not every.output[row, lengths[row] :].any()
        assert bytes_of(alone)[alone.output.nbytes :] == bytes_of(
            last._replace(outputs=(), state=rows_of(last.state, [row]))
        )


def pooling(kind, window, strides, features, name="pool"):
    """Returns a pooling layer."""
    options = {"window": window, "strides": strides, "padding": "valid"}
    return LayerSpec(name, kind, options, {}, ((None, features),))


def summed_up(kind, features):
    """Returns a global pooling layer."""
    return LayerSpec("sum", kind, {"keepdims": False}, {}, ((features,),))


def strided(window, strides, dilation, padding):
    """Returns a convolution of 3 features to 3."""
    options = {
        "window": window, "strides": strides, "padding": padding, "dilation_rate": dilation, "filters": 3,
        "activation": activation("relu"),
    }  # fmt: skip
    return LayerSpec("conv", "Conv1D", options, {"kernel": numbers(window, 3, 3, seed=6)}, ((None, 3),))


MASKING = LayerSpec("skip", "Masking", {"mask_value": 0.5}, {}, ((None, 3),))
LAYERS_WITH_WINDOWS = [
    [strided(3, 1, 2, "causal"), lstm_layer(3, 4)],
    [strided(3, 2, 1, "causal"), pooling("MaxPooling1D", 2, 1, 3), lstm_layer(3, 4, return_sequences=True), summed_up("GlobalMaxPooling1D", 4)],
    [strided(2, 1, 1, "valid"), pooling("AveragePooling1D", 3, 2, 3), lstm_layer(3, 4, return_sequences=True), lstm_layer(4, 2, name="b")],
    [pooling("MaxPooling1D", 2, 3, 3), pooling("AveragePooling1D", 2, 2, 3, "again"), lstm_layer(3, 4)],
    [lstm_layer(3, 4, return_sequences=True), summed_up("GlobalAveragePooling1D", 4)],
    [MASKING, lstm_layer(3, 4, return_sequences=True), summed_up("GlobalAveragePooling1D", 4)],
    [MASKING, lstm_layer(3, 4, return_sequences=True), lstm_layer(4, 2, name="b", return_sequences=True)],
]  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
@given(st.sampled_from(LAYERS_WITH_WINDOWS), st.integers(1, 4), st.integers(1, 14), st.integers(0, 999))
@settings(deadline=None, max_examples=150)
def test_p1_and_p2_hold_for_layers_with_windows_and_masks(engine, layers, batch, time, seed):
    """Layers with windows and masks give the same bytes however rows are cut and mixed, at whatever step each of them is."""
    made, x, random = model(*layers, features=3, engine=engine), numbers(batch, time, 3), np.random.default_rng(seed)
    x[random.random((batch, time)) < 0.3] = 0.5
    whole = made.forward((x,), made.zero_state(batch), all_outputs=True)

    state, seen, at = made.zero_state(batch), np.zeros(batch, bool), np.zeros(batch, int)
    outputs = np.zeros_like(whole.output)
    while (at < time).any():
        wanted = np.minimum(random.integers(0, 4, batch), time - at)
        rows = np.flatnonzero(wanted)
        if not rows.size:
            continue
        lengths = wanted[rows]
        piece = np.zeros((len(rows), lengths.max(), 3), np.float32)
        for i, row in enumerate(rows):
            piece[i, : lengths[i]] = x[row, at[row] : at[row] + lengths[i]]
        answer = made.forward((piece,), rows_of(state, rows), lengths, all_outputs=True, seen=seen[rows])
        for part, new in zip(state, answer.state, strict=True):
            for array, own in zip(part, new, strict=True):
                array[rows] = own
        for i, row in enumerate(rows):
            outputs[row, at[row] : at[row] + lengths[i]] = answer.output[i, : lengths[i]]
        seen[rows] |= answer.steps > 0
        at[rows] += lengths

    assert whole.output.tobytes() == outputs.tobytes()
    assert bytes_of(whole._replace(outputs=())) == bytes_of(answer._replace(outputs=(), state=state))


@pytest.mark.parametrize("engine", ENGINES)
def test_p1_holds_across_chunks_of_time(engine):
    """A sequence longer than a chunk gives the bytes of its steps."""
    small = small_model(engine=engine)
    x = numbers(2, 1000, 3)

    whole = small.forward((x,), small.zero_state(2))
    state = small.zero_state(2)
    for t in range(1000):
        (output,), state, _ = small.step(np.ascontiguousarray(x[:, t]), state)

    assert whole.output.tobytes() == output.tobytes()


_THREADS = """
import sys
import numpy as np
from lstmserve_server.model.numerics import Engine, Numerics
from lstmserve_server.model.model import RecurrentModel
from tests.support.builders import activation, chain, dense_layer, lstm_layer, model, numbers, small_model
import hashlib
digest = hashlib.sha256()
for features, units in ((3, 300), (40000, 4), (200, 128)):
    described = chain(lstm_layer(features, units), dense_layer(units, 3), features=features)
    made = RecurrentModel(described, Numerics.EXACT, Engine(sys.argv[1]))
    answer = made.forward((numbers(5, 4, features, scale=0.1),), made.zero_state(5), all_outputs=True)
    digest.update(answer.output.tobytes() + answer.state[0].h.tobytes() + answer.state[0].c.tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_p2_with_any_number_of_blas_threads(engine):
    """The bytes are the same with one, two and four BLAS threads (P2); (40000, 16) is where OpenBLAS would differ."""
    answers = {
        subprocess.run(
            [sys.executable, "-c", _THREADS, engine.value],
            env={
                "OPENBLAS_NUM_THREADS": threads,
                "OMP_NUM_THREADS": threads,
                "PYTHONPATH": ":".join(sys.path),
                "PATH": "",
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "4")
    }

    assert len(answers) == 1


def test_fast_numerics_are_as_close_as_rounding():
    """The fast mode gives the same answers as the exact one up to rounding."""
    x = numbers(33, 7, 3)
    exact, fast = small_model(), small_model(numerics=Numerics.FAST)

    np.testing.assert_allclose(
        exact.forward((x,), exact.zero_state(33), all_outputs=True).output,
        fast.forward((x,), fast.zero_state(33), all_outputs=True).output,
        atol=2e-6,
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_go_backwards_reads_each_row_from_its_own_end(engine):
    """A backward layer equals the forward one on the reversed row, whatever follows the row's end."""
    x, lengths = numbers(3, 6, 3), np.array([6, 2, 4])
    backward = model(lstm_layer(3, 4, go_backwards=True), features=3, engine=engine)
    forward = model(lstm_layer(3, 4), features=3, engine=engine)

    answer = backward.forward((x,), backward.zero_state(3), lengths)

    for row, length in enumerate(lengths):
        reverse = np.ascontiguousarray(x[[row], :length][:, ::-1])
        assert bytes_of(forward.forward((reverse,), forward.zero_state(1))) == bytes_of(
            answer._replace(outputs=(answer.output[[row]],), state=rows_of(answer.state, [row]))
        )


def test_go_backwards_cannot_be_stepped():
    """Step on a model that reads from the end is refused, naming the layer and what is possible."""
    backward = model(lstm_layer(3, 4, name="late", go_backwards=True), features=3)

    with pytest.raises(WrongForModel, match=r"Step is not possible: layer 'late' has go_backwards: .* Forward is."):
        backward.step(numbers(1, 3), backward.zero_state(1))
    with pytest.raises(WrongForModel, match="only the last output exists: layer 'late' has go_backwards"):
        backward.forward((numbers(1, 5, 3),), backward.zero_state(1), all_outputs=True)


def test_an_overflow_is_refused_and_names_the_row():
    """A state that leaves the range of the numbers is refused rather than carried on as infinity."""
    steep = model(lstm_layer(3, 4, inner="exponential"), features=3)
    x = numbers(3, 3)
    x[2] = -500

    with pytest.raises(
        WrongForModel, match=r"row 2 leaves the range of float32: [hc] of layer 'lstm' is no longer finite"
    ):
        steep.step(x, steep.zero_state(3))


def test_a_pause_can_stop_a_long_sequence():
    """What the pause between chunks raises ends the computation."""
    small = small_model()

    def pause():
        raise TimeoutError

    with pytest.raises(TimeoutError):
        small.forward((numbers(1, 2000, 3),), small.zero_state(1), pause=pause)


@pytest.mark.parametrize(("lengths", "pauses"), [([5], 0), ([5, 5], 0), ([2, 5], 1), ([1, 3, 5], 2)])
def test_it_pauses_between_chunks_and_not_before_the_first(lengths, pauses):
    """A short call is one chunk, and is not interrupted; where the rows end at different steps there are as many chunks as ends."""
    small, calls = small_model(), []
    rows = len(lengths)
    small.forward((numbers(rows, 5, 3),), small.zero_state(rows), np.array(lengths), pause=lambda: calls.append(1))

    assert len(calls) == pauses


def test_the_self_test_gives_a_fingerprint_of_mode_and_weights():
    """The fingerprint is the same for the same model, and another for another mode or other weights."""
    one, again = selftest.run(small_model()), selftest.run(small_model())
    fast = selftest.run(small_model(numerics=Numerics.FAST))
    other = selftest.run(model(lstm_layer(3, 5, seed=3), features=3))

    assert one == again
    assert len({one, fast, other}) == 3


def convolution(window):
    """Returns a convolution over so many steps, to 3 features."""
    options = {"window": window, "strides": 1, "padding": "valid", "filters": 3, "activation": activation("linear")}
    return LayerSpec("look", "Conv1D", options, {"kernel": numbers(window, 3, 3)}, ((None, 3),))


def test_a_sequence_too_short_for_a_window_is_refused():
    """Of a model that is given sequences whole, one that does not fill a window is refused, naming the layer."""
    windowed = model(convolution(5), lstm_layer(3, 4, go_backwards=True), features=3)

    assert windowed.forward((numbers(2, 5, 3),), windowed.zero_state(2)).output.shape == (2, 4)
    with pytest.raises(
        WrongForModel, match=r"4 time-steps reach layer 'look'; expected at least 5. Send a longer sequence"
    ):
        windowed.forward((numbers(2, 4, 3),), windowed.zero_state(2))


def test_windows_after_windows_wait_in_steps_of_the_input():
    """A window of four values that come every third step, after a window of two, waits 1 + 3 * 3 steps; the next one counts in sixths."""
    waiting = model(
        pooling("MaxPooling1D", 2, 3, 3),
        pooling("AveragePooling1D", 4, 2, 3, "again"),
        pooling("MaxPooling1D", 2, 1, 3, "last"),
        lstm_layer(3, 4),
        features=3,
    )

    assert waiting.waiting_steps == 1 + 3 * 3 + 6 * 1


def test_a_model_with_a_window_waits_until_it_is_full():
    """Until a window is full there is no answer, and the output says so; then it is that of the whole, step by step."""
    waiting, x = model(convolution(5), lstm_layer(3, 4), features=3), numbers(2, 7, 3)

    whole = waiting.forward((x,), waiting.zero_state(2), all_outputs=True).output
    outputs, state = [], waiting.zero_state(2)
    for t in range(7):
        answer = waiting.step(np.ascontiguousarray(x[:, t]), state)
        outputs.append(answer.output)
        state = answer.state

    assert waiting.waiting_steps == 4
    assert np.isnan(whole[:, :4]).all()
    assert np.isfinite(whole[:, 4:]).all()
    assert whole.tobytes() == np.stack(outputs, axis=1).tobytes()


def test_the_self_test_probes_with_numbers_all_over_the_range():
    """Numbers that are alike would let a kernel pass that mixes them up."""
    made = selftest._probe(small_model(), small_model().inputs[0], (4, 50), 1.0)

    assert len(np.unique(made)) == made.size
    assert np.histogram(made, 8, (-1, 1))[0].min() > made.size / 16


def test_the_self_test_fills_wide_windows():
    """A model with a wide window and no declared length passes its self-test."""
    assert selftest.run(model(convolution(100), lstm_layer(3, 4), features=3))
    assert selftest.run(model(convolution(100), lstm_layer(3, 4, go_backwards=True), features=3))


def test_the_self_test_does_not_overflow():
    """A model whose numbers grow without bound from step to step passes its self-test all the same."""
    growing = lstm_layer(3, 4, inner="exponential", go_backwards=True)
    growing.weights["kernel"][:, 8:12] = 40

    assert selftest.run(model(growing, features=3))


class Drifting(RecurrentModel):
    """A model whose steps are not what Forward computes."""

    def step(self, x, state, seen=None):
        """Answers a little too much."""
        answer = super().step(x, state, seen)
        return answer._replace(outputs=(answer.output + np.float32(1e-6),))


def test_the_self_test_fails_where_a_promise_is_broken():
    """A model whose steps differ from its whole by one part in a million is not served."""
    with pytest.raises(UnsupportedModelError, match="the self-test failed: the steps give other bytes than the whole"):
        selftest.run(Drifting(chain(lstm_layer(3, 5), features=3)))
