"""Models with several inputs and outputs, and models with windows, over the wire."""

from __future__ import annotations

import numpy as np
import pytest

from lstmserve import Client, FailedPrecondition, State
from tests.support import live
from tests.support.builders import (
    input_config,
    keras_layer,
    lstm_config,
    lstm_weights,
    numbers,
    sequential,
    weights_file,
    write_zip,
)
from tests.support.paths import ROOT

FIXTURES = ROOT / "tests" / "fixtures" / "keras3.15"
SERIES = numbers(9, 3)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Returns a server with a seq2seq decoder, and a model with a causal convolution and pooling."""
    layers = (
        keras_layer("Conv1D", "conv", filters=4, kernel_size=[3], padding="causal"),
        keras_layer("MaxPooling1D", "pool", pool_size=[2], strides=[1], padding="valid"),
        lstm_config(3),
    )
    weights = {"layers/conv1d/vars": [numbers(3, 3, 4), numbers(4)], "layers/lstm/cell/vars": lstm_weights(4, 3)}
    config = sequential(input_config(), *layers)
    path = write_zip(tmp_path_factory.mktemp("models") / "windows.keras", config, weights_file(weights))
    with live.serving(FIXTURES / "func_state_io.keras", path, *live.QUICK) as server:
        yield server


@pytest.fixture
def decoder(server):
    """Returns a client of the decoder."""
    with Client(server.address, model="func_state_io") as client:
        yield client


@pytest.fixture
def windows(server):
    """Returns a client of the model with windows."""
    with Client(server.address, model="windows") as client:
        yield client


def test_inputs_and_outputs_have_names(decoder):
    """A model with several inputs and outputs takes and gives them by name, with the numbers of Keras itself."""
    model = decoder.model()
    golden = np.load(FIXTURES / "func_state_io.golden.npz")
    answer = decoder.forward({item.name: golden[f"x{i}"] for i, item in enumerate(model.inputs)}, all_outputs=True)

    assert {item.name for item in model.outputs} == set(answer.outputs)
    for i, item in enumerate(model.outputs):
        np.testing.assert_allclose(golden[f"y{i}"], answer.outputs[item.name], atol=2e-6)


def test_a_missing_input_is_named(decoder):
    """Where one of several inputs is left out, the refusal names it."""
    first, second, _ = decoder.model().inputs
    with pytest.raises(Exception, match="input") as refused:
        decoder.forward({first.name: numbers(2, 5, 3), second.name: numbers(2, 4)})

    assert decoder.model().inputs[2].name in str(refused.value)


def test_a_model_with_several_inputs_is_not_stepped(decoder):
    """Step of a model with several inputs is refused with the reason that its description gives."""
    obstacle = decoder.model().step_unsupported_reason
    with pytest.raises(FailedPrecondition) as refused:
        decoder.step(numbers(3))

    assert "several inputs" in obstacle
    assert obstacle in str(refused.value)


def test_windows_travel_with_the_state(windows, tmp_path):
    """Through convolution and pooling, steps whose state was saved and read in between have the bytes of the whole."""
    whole, end = windows.forward(SERIES, all_outputs=True)
    state, outputs = None, []
    for x in SERIES:
        output, state = windows.step(x, state)
        outputs.append(output)
        state.save(tmp_path / "state.npz")
        state = State.load(tmp_path / "state.npz")

    assert whole[1:].tobytes() == np.stack(outputs[1:]).tobytes()
    assert end.to_message() == state.to_message()
    assert tuple(np.isnan(row).all() for row in (whole[0], outputs[0])) == (True, True)  # a window that is not full yet
    assert windows.model().waiting_steps == 1


def test_a_window_that_is_too_short_is_refused(windows):
    """A state whose window has other lengths than the model's is refused by name."""
    message = windows.step(SERIES[0]).state.to_message()
    message.layers[0].window.CopyFrom(message.layers[1].window)
    with pytest.raises(Exception, match="window") as refused:
        windows.step(SERIES[1], State.from_message(message))

    assert "state.layers[0].window" in str(refused.value)
