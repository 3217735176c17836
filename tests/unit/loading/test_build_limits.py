"""What a configuration may ask for, at its limits and beyond; and what an input is, after layers that leave it as it is."""

from __future__ import annotations

import numpy as np
import pytest

from lstmserve_server.core.errors import UnsupportedModelError, WrongForModel
from lstmserve_server.loading import reader
from lstmserve_server.loading.store.limits import LoadLimits
from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.model.numerics import Numerics
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


def loaded(tmp_path, *layers, weights=None, limits=None):
    """Returns the description of a Sequential."""
    content = weights_file(weights or {"layers/lstm/cell/vars": lstm_weights()})
    return reader.load(write_zip(tmp_path / "m.keras", sequential(*layers), content), limits=limits)


IDS = {"class_name": "InputLayer", "config": {"name": "ids", "batch_shape": [None, None]}}
EMBEDDING = keras_layer("Embedding", "embedding", input_dim=7, output_dim=3, mask_zero=False)
WORDS = {"layers/embedding/vars": [numbers(7, 3)], "layers/lstm/cell/vars": lstm_weights()}


@pytest.mark.parametrize("between", [[], ["Dropout"], ["Dropout", "SpatialDropout1D"]], ids=["none", "one", "two"])
def test_ids_are_known_behind_layers_that_do_nothing(tmp_path, between):
    """The vocabulary is that of the first layer that does something with them."""
    layers = [keras_layer(kind, f"nothing_{number}", rate=0.5) for number, kind in enumerate(between)]
    made = loaded(tmp_path, IDS, *layers, EMBEDDING, lstm_config(), weights=WORDS)

    assert made.inputs[0].vocabulary == 7


def both(*layers, inputs, outputs):
    """Returns a functional model of Keras 3; each layer is (kind, name, options, names of what it is called on)."""

    def tensor(name):
        config = {"shape": [], "dtype": "float32", "keras_history": [name, 0, 0]}
        return {"class_name": "__keras_tensor__", "config": config}

    entries = []
    for kind, name, options, *sources in layers:
        arguments = [tensor(source) for source in sources]
        entries.append(
            {
                "module": "keras.layers",
                "class_name": kind,
                "config": {"name": name, **options},
                "registered_name": None,
                "name": name,
                "inbound_nodes": [{"args": [arguments] if len(arguments) > 1 else arguments, "kwargs": {}}]
                if sources
                else [],
            }
        )
    config = {
        "name": "m",
        "layers": entries,
        "input_layers": [[name, 0, 0] for name in inputs],
        "output_layers": [[name, 0, 0] for name in outputs],
    }
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": config,
        "registered_name": "Functional",
    }


LSTM = lstm_config()["config"]


def two_embeddings(other=9):
    """Returns a model that looks its ids up in two tables."""
    return both(
        ("InputLayer", "ids", {"batch_shape": [None, None]}),
        ("Embedding", "small", {"input_dim": 7, "output_dim": 2, "mask_zero": False}, "ids"),
        ("Embedding", "large", {"input_dim": other, "output_dim": 1, "mask_zero": False}, "ids"),
        ("Concatenate", "joined", {"axis": -1}, "small", "large"),
        ("LSTM", "lstm", {**LSTM, "name": "lstm"}, "joined"),
        inputs=["ids"],
        outputs=["lstm"],
    )


def test_an_id_has_to_be_in_every_table_that_it_is_looked_up_in(tmp_path):
    """The vocabulary is the smaller one; an id beyond it would read after the other table."""
    weights = {
        "layers/embedding/vars": [numbers(7, 2)],
        "layers/embedding_1/vars": [numbers(9, 1)],
        "layers/lstm/cell/vars": lstm_weights(),
    }
    made = reader.load(write_zip(tmp_path / "m.keras", two_embeddings(), weights_file(weights)))
    model = RecurrentModel(made, Numerics.EXACT)

    assert made.inputs[0].vocabulary == 7
    assert model.step(np.float32([[6]]), model.zero_state(1)).outputs[0].shape == (1, 4)


def test_an_input_is_ids_or_numbers_and_not_both(tmp_path):
    """Of one that is looked up and computed with no one knows what may be sent."""
    config = both(
        ("InputLayer", "ids", {"batch_shape": [None, 5]}),
        ("Embedding", "embedding", {"input_dim": 7, "output_dim": 3, "mask_zero": False}, "ids"),
        ("LSTM", "lstm", {**LSTM, "name": "lstm"}, "embedding"),
        ("Dense", "dense", {"units": 4, "activation": "linear", "use_bias": True}, "ids"),
        ("Add", "sum", {}, "lstm", "dense"),
        inputs=["ids"],
        outputs=["sum"],
    )
    weights = {**WORDS, "layers/dense/vars": [numbers(5, 4), numbers(4)]}
    with pytest.raises(
        UnsupportedModelError, match="used as token ids by an Embedding, and as numbers by layer 'dense'"
    ):
        reader.load(write_zip(tmp_path / "m.keras", config, weights_file(weights)))


@pytest.mark.parametrize(("count", "served"), [(3, True), (4, False)])
def test_all_layers_together_have_a_limit_of_steps(tmp_path, count, served):
    """Where a file fixes how many there are: each may be within its own limit, and all of them too many."""
    layers = [keras_layer("Activation", f"a{number}", activation="tanh") for number in range(count)]
    repeat = keras_layer("RepeatVector", "repeat", n=60_000)

    def load():
        return loaded(tmp_path, input_config(), lstm_config(), repeat, *layers)

    if served:
        assert load().layers[-1].output_shapes == ((60_000, 4),)
    else:
        with pytest.raises(UnsupportedModelError, match="time-steps for each row; expected at most 262144"):
            load()


@pytest.mark.parametrize(("n", "served"), [(65_536, True), (65_537, False)])
def test_a_layer_has_a_limit_of_steps(tmp_path, n, served):
    """Exactly as many, and one more."""
    layers = (input_config(), lstm_config(), keras_layer("RepeatVector", "repeat", n=n))
    if served:
        loaded(tmp_path, *layers)
    else:
        with pytest.raises(UnsupportedModelError, match="expected at most 65536 time-steps"):
            loaded(tmp_path, *layers)


def test_weights_have_a_limit_in_all(tmp_path):
    """That of the size of a file, of what the configuration asks for; exactly as many bytes are taken."""
    size = sum(weight.size for weight in lstm_weights()) * 4
    second = {"layers/lstm_1/cell/vars": lstm_weights(4, 4), "layers/lstm/cell/vars": lstm_weights()}
    first = lstm_config(return_sequences=True)
    both_sizes = size + sum(weight.size for weight in lstm_weights(4, 4)) * 4
    layers = (input_config(), first, lstm_config(name="again"))
    write_zip(tmp_path / "m.keras", sequential(*layers), weights_file(second))
    enough = max(both_sizes, (tmp_path / "m.keras").stat().st_size)

    loaded(tmp_path, *layers, weights=second, limits=LoadLimits(file_bytes=enough))
    big = {"layers/lstm/cell/vars": lstm_weights(3, 64)}
    with pytest.raises(UnsupportedModelError, match="expected at most"):
        loaded(tmp_path, input_config(), lstm_config(64), weights=big, limits=LoadLimits(file_bytes=20_000))


@pytest.mark.parametrize(
    ("options", "time", "places"),
    [
        ({"kernel_size": [3], "padding": "valid"}, 5, 3),
        ({"kernel_size": [5], "padding": "valid"}, 5, 1),
        ({"kernel_size": [6], "padding": "valid"}, 5, None),
        ({"kernel_size": [3], "padding": "valid", "dilation_rate": [2]}, 5, 1),
        ({"kernel_size": [3], "padding": "valid", "dilation_rate": [3]}, 5, None),
        ({"kernel_size": [3], "padding": "same", "strides": [2]}, 5, 3),
        ({"kernel_size": [3], "padding": "causal", "strides": [5]}, 5, 1),
        ({"kernel_size": [2], "padding": "valid", "strides": [2]}, 5, 2),
    ],
)
def test_a_window_gives_as_many_places_as_fit(tmp_path, options, time, places):
    """Or none, and then the file is refused; the numbers are those of Keras."""
    window = options["kernel_size"][0]
    conv = keras_layer("Conv1D", "conv", filters=3, **options)
    weights = {"layers/conv1d/vars": [numbers(window, 3, 3), numbers(3)], "layers/lstm/cell/vars": lstm_weights()}
    layers = (input_config(time=time), conv, lstm_config())
    if places is None:
        with pytest.raises(UnsupportedModelError, match="time-steps at once, and 5 reach it"):
            loaded(tmp_path, *layers, weights=weights)
    else:
        assert loaded(tmp_path, *layers, weights=weights).layers[1].output_shapes == ((places, 3),)


@pytest.mark.parametrize(
    ("kind", "option", "time", "left"),
    [
        ("Cropping1D", "cropping", 5, 2),
        ("Cropping1D", "cropping", 4, 1),
        ("Cropping1D", "cropping", 3, None),
        ("ZeroPadding1D", "padding", 5, 8),
    ],
)
def test_ends_are_cut_off_and_put_on(tmp_path, kind, option, time, left):
    """At least one time-step must be left."""
    layers = (input_config(time=time), keras_layer(kind, "ends", **{option: [1, 2]}), lstm_config())
    if left is None:
        with pytest.raises(UnsupportedModelError, match="leaves none of 3 time-steps"):
            loaded(tmp_path, *layers)
    else:
        assert loaded(tmp_path, *layers).layers[1].output_shapes == ((left, 3),)


@pytest.mark.parametrize(
    ("mode", "units", "served"),
    [("concat", 2, True), ("sum", 4, True), ("sum", 2, False), ("mul", 2, False), ("ave", 2, False), (None, 2, True)],
)
def test_two_directions_of_different_widths_can_be_joined_and_not_added(tmp_path, mode, units, served):
    """As in Keras."""
    backward = lstm_config(units, name="b", go_backwards=True)
    config = {"name": "both", "layer": lstm_config(), "backward_layer": backward, "merge_mode": mode}
    weights = {
        "layers/bidirectional/forward_layer/cell/vars": lstm_weights(),
        "layers/bidirectional/backward_layer/cell/vars": lstm_weights(3, units),
    }
    layers = (input_config(), {"class_name": "Bidirectional", "config": config})
    if served:
        assert loaded(tmp_path, *layers, weights=weights).layers[1].options["merge_mode"] == (mode or "none")
    else:
        with pytest.raises(UnsupportedModelError, match="with 4 and 2 units"):
            loaded(tmp_path, *layers, weights=weights)


def test_a_model_that_looks_ahead_says_so_and_can_be_asked_for_a_sequence(tmp_path):
    """Step is refused with the reason; Forward is not."""
    made = loaded(tmp_path, input_config(), lstm_config(go_backwards=True))
    model = RecurrentModel(made, Numerics.EXACT)
    with pytest.raises(WrongForModel, match=r"Step is not possible: .*Forward is"):
        model.step(np.zeros((1, 3), np.float32), model.zero_state(1))

    assert model.forward((numbers(2, 4, 3),), model.zero_state(2)).outputs[0].shape == (2, 4)


@pytest.mark.parametrize(("dilation", "served"), [(21_845, True), (21_846, False)])
def test_a_window_may_look_back_as_far_as_a_sequence_is_long(tmp_path, dilation, served):
    """Its size times its dilation counts."""
    conv = keras_layer("Conv1D", "conv", filters=3, kernel_size=[3], padding="causal", dilation_rate=[dilation])
    weights = {"layers/conv1d/vars": [numbers(3, 3, 3), numbers(3)], "layers/lstm/cell/vars": lstm_weights()}
    layers = (input_config(), conv, lstm_config())
    if served:
        loaded(tmp_path, *layers, weights=weights)
    else:
        with pytest.raises(UnsupportedModelError, match="needs or returns"):
            loaded(tmp_path, *layers, weights=weights)


def test_an_input_may_have_as_many_axes_as_the_limit(tmp_path):
    """That of time counts, that of the batch does not."""
    loaded(tmp_path, input_config(), lstm_config(), limits=LoadLimits(axes=2))
    with pytest.raises(UnsupportedModelError, match="the input 'input_layer' of the model has the shape"):
        loaded(tmp_path, input_config(), lstm_config(), limits=LoadLimits(axes=1))
