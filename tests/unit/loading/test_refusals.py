"""What is refused in a configuration and in a file, each in one sentence."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading import reader
from lstmserve_server.loading.store.limits import LoadLimits
from tests.support.builders import (
    input_config,
    keras_layer,
    lstm_config,
    lstm_weights,
    sequential,
    weights_file,
    write_hdf5,
    write_zip,
)
from tests.unit.loading.configs import changed, functional, refusal

LAMBDA = keras_layer("Lambda", "trick", function={"class_name": "__lambda__", "config": {"code": "4wEAAAA="}})


LSTM = "layer 'lstm' (LSTM)"


CONFIGS = [
    (sequential(input_config(), LAMBDA, lstm_config()), "layer 'trick' (Lambda) is of a kind that is not supported: it contains custom code, which is never run"),
    (sequential(input_config(), keras_layer("GRU", "gru", units=4)), "layer 'gru' (GRU) is of a kind that is not supported: it is not an LSTM: it has other gates and another state"),
    (sequential(input_config(), keras_layer("Dense", "d", units=4)), "the model has no LSTM layer, so there is no state to carry"),
    (changed(activation="wave"), f"{LSTM} has activation='wave', which is not supported. Supported for files of Keras 3: celu, elu"),
    (changed(activation={"class_name": "function", "config": "mine", "registered_name": "function"}),
     f"{LSTM} has the custom function 'mine' as activation; its code is not in the file"),
    (changed(units=0), f"{LSTM} has units=0; expected an integer from 1 to 16384"),
    (changed(units=True), f"{LSTM} has units=True; expected an integer from 1 to 16384"),
    (changed(units=2**31), f"{LSTM} has units=2147483648; expected an integer from 1 to 16384"),
    (changed(use_bias="yes"), f"{LSTM} has use_bias='yes'; expected true or false"),
    (sequential(input_config(), lstm_config(return_sequences=True, time_major=True), lstm_config(4, "b")),
     "layer 'b' (LSTM) is in a model with time_major=True; supported with it: "),
    (sequential(input_config(), keras_layer("Bidirectional", "both", layer=lstm_config(time_major=True), merge_mode="concat")),
     f"{LSTM} and the other LSTM layers disagree about time_major"),
    (changed(peephole=True), f"{LSTM} has the option peephole=True, which is not recognized and may change the outputs"),
    (changed(dtype="int8_from_float32"), f"{LSTM} computes in int8_from_float32; supported: float32, float64, float16, mixed_float16"),
    (changed(dtype={"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8"}}), f"{LSTM} computes in QuantizedDTypePolicy;"),
    (sequential(input_config(), lstm_config(), lstm_config(4, "again")), "layer 'again' (LSTM) gets no sequence: the previous layer"),
    (sequential(input_config(), lstm_config(return_sequences=True), lstm_config(4)), "two layers have the same name"),
    (sequential(), "the Sequential model lists no layers"),
    (sequential(keras_layer("InputLayer", "i", batch_shape=[None, 3]), lstm_config()),
     f"{LSTM} gets no sequence: the previous layer returns only the last time step"),
    ({"class_name": "Mine", "module": "mine.models", "registered_name": "mine>Mine", "config": {}},
     "the model (Mine) is the custom class 'mine>Mine'; its code is not in the file"),
    ({"class_name": "Mine", "config": {}}, "the model is of class 'Mine', whose code is not in the file. Only Sequential and"),
    (sequential(input_config(), lstm_config() | {"module": "mine", "registered_name": None}),
     f"{LSTM} is the custom class 'mine'; its code is not in the file"),
    ({"class_name": "Sequential"}, "Sequential holds a NoneType where its configuration should be"),
    ({"config": {}}, "the configuration has the class_name None; expected up to 256 printable characters"),
    (functional(input_config(), lstm_config(), lstm=["nowhere"]), "the graph leads to call 0 of 'nowhere', which the model does not have"),
    (functional(input_config(), lstm_config(), lstm=["input_layer"], inputs=["lstm"]),
     "the model names 'lstm' as an input, which is not an InputLayer of it"),
    (functional(input_config(), lstm_config(), keras_layer("Dense", "two", units=4, activation="linear"), lstm=["input_layer"],
                two=["lstm"] * 2, outputs=["two"]), "layer 'two' (Dense) is called on 2 tensors; expected one"),
    (sequential(keras_layer("InputLayer", "i", batch_shape=[None, None, 3]) | {"config": {"name": "i", "dtype": "int32"}}, lstm_config()),
     "layer 'i' (InputLayer) takes int32, to which Keras rounds its input; expected float32, float64, or token ids as integers"),
    (sequential(input_config(), lstm_config() | {"module": None, "registered_name": "LSTM"}),
     f"{LSTM} is the custom class 'LSTM'; its code is not in the file"),
    (sequential(input_config(), lstm_config() | {"name": "other"}), "a layer (LSTM) has two names, 'other' and 'lstm'"),
    (sequential(input_config(), lstm_config(name="\ud800")), "a layer (LSTM) has the name '\\ud800'; expected 1 to 256 printable"),
    (sequential(input_config(), lstm_config(name="\x1b[2J")), "a layer (LSTM) has the name '\\x1b[2J'; expected 1 to 256 printable"),
    (sequential(lstm_config(), input_config()), "layer 'input_layer' (InputLayer) is in the middle of the model; expected it first"),
    (sequential(input_config(), lstm_config(), keras_layer("Attention", "look")),
     "layer 'look' (Attention) is of a kind that is not supported: it reads the whole sequence at once. Its LSTM"),
    (sequential(input_config(), keras_layer("ConvLSTM2D", "film")), "layer 'film' (ConvLSTM2D) is of a kind that is not supported: it convolves"),
    (sequential(input_config(time=10**30), lstm_config()), "the input 'input_layer' of the model has the shape"),
    (changed(activation={"module": "keras.layers", "class_name": "UpSampling1D", "config": {"name": "up"}}),
     f"{LSTM} has the layer 'UpSampling1D' as activation; supported as activation: Activation, ELU, LeakyReLU, ReLU, Softmax, ThresholdedReLU"),
    (functional(input_config(), lstm_config(), lstm=["lstm"]), "the graph leads in a circle through 'lstm'"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "reason"), CONFIGS)
def test_refused_configuration(tmp_path, config, reason):
    """What is configured and cannot be computed as Keras does is refused by name."""
    assert refusal(write_zip(tmp_path / "a", config)).startswith(reason)


@pytest.mark.parametrize(
    "node",
    [
        {"args": [{"config": {"keras_history": ["input_layer", 0.5, 0]}}], "kwargs": {}},
        {"args": [{"config": None}], "kwargs": {}},
        {"args": None},
        {"args": [{"config": {"keras_history": ["input_layer", 0, 0]}}], "kwargs": [1]},
        [["input_layer", "0", 0, {}]],
        [["input_layer"]],
        [7],
        7,
    ],
)
def test_edges_of_a_graph_that_make_no_sense(tmp_path, node):
    """An edge that is no [name, node, tensor] is refused, whatever it is instead."""
    config = functional(input_config(), lstm_config(), lstm=["input_layer"])
    config["config"]["layers"][1]["inbound_nodes"] = [node]

    assert "inbound_nodes that cannot be read" in refusal(write_zip(tmp_path / "a", config))


def test_groups_are_numbered_along_the_graph(tmp_path):
    """Keras numbers the layers of a functional model along the graph, not as its configuration lists them."""
    first, second = lstm_config(4, "first", return_sequences=True), lstm_config(4, "second")
    config = functional(second, first, input_config(), second=["first"], first=["input_layer"], outputs=["second"])
    groups = {"layers/lstm/cell/vars": lstm_weights(3, 4, 1), "layers/lstm_1/cell/vars": lstm_weights(4, 4, 5)}

    read = reader.load(write_zip(tmp_path / "a", config, weights_file(groups)))

    np.testing.assert_array_equal(lstm_weights(4, 4, 5)[1], read.layers[2].weights["recurrent_kernel"])


def test_attributes_of_other_types_are_refused(tmp_path):
    """An attribute that is not text, or of another rank than Keras writes, is refused before it is read."""
    for value in (7, [b"a", b"b"], np.zeros((2, 2)), h5py.Empty("f")):
        path = write_hdf5(tmp_path / "a")
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = value
        assert refusal(path).startswith("attribute model_config of / is of type")
    path = write_hdf5(tmp_path / "a")
    with h5py.File(path, "r+") as file:
        file.attrs["keras_version"] = np.bytes_(b"2.\xff")
    assert refusal(path).startswith("attribute keras_version of / is not text in UTF-8")


def test_training_baked_into_the_graph_is_refused(tmp_path):
    """A layer called with training=True is random in Keras itself."""
    config = functional(input_config(), lstm_config(), lstm=["input_layer"])
    config["config"]["layers"][1]["inbound_nodes"] = [[["input_layer", 0, 0, {"training": True}]]]

    assert refusal(write_hdf5(tmp_path / "a", config)).startswith(
        "layer 'lstm' (LSTM) was called with training=True (Monte-Carlo dropout), so its outputs are random in Keras too."
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"class_name": "Sequential", "class_name": "Sequential"}', "the key 'class_name' occurs twice in one object"),
        ('{"a": NaN}', "NaN is not JSON number"),
        ("[]", "config.json is a list; expected a JSON object"),
        ("{", "config.json is not valid JSON"),
        ('{"a":' * 70 + "0" + "}" * 70, "config.json is nested too deeply; expected at most 64 levels"),
        ("[" * 200_000, "config.json is nested too deeply; expected at most 64 levels"),
        ('"' + "a" * (4 << 20) + '"', "config.json declares 4194306 bytes"),
    ],
)
def test_refused_json(tmp_path, text, reason):
    """JSON that two readers might read differently, or that is meant to exhaust one, is refused."""
    assert reason in refusal(write_zip(tmp_path / "a", text))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "this is a Git LFS pointer, not the file itself. Fetch it with: git lfs pull",
        ),
        (
            b"GIF89a\x01\x00\x01\x00",
            "this is neither a .keras nor an .h5 file, nor anything else that is read: it begins with b'GIF89a\\x01\\x00'",
        ),
        (b"PK\x03\x04nonsense", "the file is a damaged zip archive"),
        (b"\x89HDF\r\n\x1a\nnonsense", "the file cannot be read"),
    ],
)
def test_refused_content(tmp_path, content, reason):
    """Something that is not a model is named for what it is."""
    path = tmp_path / "a.keras"
    path.write_bytes(content)

    assert refusal(path).startswith(reason)


def test_refused_paths(tmp_path):
    """A missing file, a folder, a pipe and a file beyond the limit are each refused in a sentence."""
    os.mkfifo(tmp_path / "pipe")

    assert refusal(tmp_path / "none.keras") == "the file cannot be opened: No such file or directory"
    assert refusal(tmp_path).startswith(
        "this is a folder that holds pipe; expected config.json of an unpacked .keras file, saved_model.pb"
    )
    assert refusal(tmp_path / "pipe") == "this is not a regular file"
    assert refusal(write_zip(tmp_path / "a"), limits=LoadLimits(file_bytes=1000)).endswith(
        "bytes long; expected at most 1000 (--max-model-bytes)"
    )


@pytest.mark.parametrize("write", [write_zip, write_hdf5])
def test_every_truncation_is_refused(tmp_path, write):
    """A file cut off anywhere is refused, never half read."""
    whole = write(tmp_path / "whole").read_bytes()
    for size in range(0, len(whole) - 1, max(1, len(whole) // 150)):
        path = tmp_path / "cut"
        path.write_bytes(whole[:size])
        refusal(path)


@pytest.mark.parametrize("write", [write_zip, write_hdf5])
def test_damage_is_refused_or_harmless(tmp_path, write):
    """Whatever byte of a file is changed, it is refused or a valid model, and nothing else happens."""
    whole = write(tmp_path / "whole").read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "damaged"
    for _ in range(400):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), random.integers(1, 4)):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            reader.load(path)
        except UnsupportedModelError:
            continue
