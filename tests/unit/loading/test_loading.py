"""Files of Keras, made by hand: what is read, and what is refused, by name, with a remedy. One test per rule."""

from __future__ import annotations

import json
import os
import zipfile

import h5py
import numpy as np
import pytest

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading import reader
from lstmserve_server.loading.build.builder import ModelSelection
from lstmserve_server.loading.store.limits import LoadLimits
from lstmserve_server.model.model import RecurrentModel
from tests.support.builders import (
    SIMPLE,
    input_config,
    keras_layer,
    lstm_config,
    lstm_weights,
    numbers,
    sequential,
    weights_file,
    write_hdf5,
    write_zip,
)

NAMES = ("kernel", "recurrent_kernel", "bias")


def refusal(path, **options):
    """Returns why a file is refused, without the path in front."""
    with pytest.raises(UnsupportedModelError) as refused:
        reader.load(path, **options)
    assert str(refused.value).startswith(f"{path}: ")
    return str(refused.value).removeprefix(f"{path}: ")


def changed(**options):
    """Returns the simple configuration with other options of the LSTM."""
    return sequential(input_config(), lstm_config(**options))


def test_both_formats_give_the_same_model(tmp_path):
    """The same model has the same description and digest as .keras and as .h5."""
    from_zip = reader.load(write_zip(tmp_path / "a.keras"))
    from_hdf5 = reader.load(write_hdf5(tmp_path / "a.h5"))

    assert (from_zip.source.format, from_zip.source.keras_version) == ("keras-zip", "3.15.1")
    assert (from_hdf5.source.format, from_hdf5.source.keras_version) == ("keras-hdf5", "2.15.0")
    assert from_zip.digest() == from_hdf5.digest()
    for expected, got in zip(lstm_weights(), from_zip.layers[1].weights.values(), strict=True):
        np.testing.assert_array_equal(expected, got)


def test_the_digest_sees_every_option_and_weight(tmp_path):
    """Another activation, another weight and another order of layers each give another digest; a Dropout does not."""
    weight = lstm_weights()
    weight[1] = weight[1].copy()
    weight[1][2, 3] = np.nextafter(weight[1][2, 3], np.float32(9))
    dropped = sequential(input_config(), keras_layer("Dropout", "drop", rate=0.4), lstm_config())
    digests = [
        reader.load(write_zip(tmp_path / "0")).digest(),
        reader.load(write_zip(tmp_path / "1", dropped)).digest(),
        reader.load(write_zip(tmp_path / "2", changed(activation="relu"))).digest(),
        reader.load(write_zip(tmp_path / "3", changed(return_sequences=True))).digest(),
        reader.load(write_zip(tmp_path / "4", weights=weights_file({"layers/lstm/cell/vars": weight}))).digest(),
    ]

    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


def test_content_decides_not_the_extension(tmp_path):
    """An HDF5 file called .keras and a zip called .h5 are read as what they are."""
    assert reader.load(write_hdf5(tmp_path / "a.keras")).source.format == "keras-hdf5"
    assert reader.load(write_zip(tmp_path / "a.h5")).source.format == "keras-zip"


def test_weights_are_read_only(tmp_path):
    """No weight of a loaded model can be changed."""
    for path in (write_zip(tmp_path / "a"), write_hdf5(tmp_path / "b")):
        for weight in reader.load(path).layers[1].weights.values():
            assert not weight.flags.writeable
            assert weight.flags.c_contiguous


def test_a_deflated_archive_is_read(tmp_path):
    """An archive that was packed again is the same model."""
    packed = write_zip(tmp_path / "a", compression=zipfile.ZIP_DEFLATED)

    assert reader.load(write_zip(tmp_path / "b")).digest() == reader.load(packed).digest()


def test_hdf5_behind_a_user_block_is_read(tmp_path):
    """HDF5 that begins after a block of the user's own is found."""
    plain = write_hdf5(tmp_path / "plain")
    with h5py.File(tmp_path / "block", "w", userblock_size=512) as file, h5py.File(plain) as source:
        for name, value in source.attrs.items():
            file.attrs[name] = value
        source.copy("model_weights", file)

    assert reader.load(plain).digest() == reader.load(tmp_path / "block").digest()


def test_groups_are_numbered_not_named(tmp_path):
    """In a .keras file the second LSTM is in the group lstm_1, though the first may be called so."""
    config = sequential(input_config(), lstm_config(4, "lstm_1", return_sequences=True), lstm_config(4, "lstm"))
    first, second = lstm_weights(3, 4, seed=1), lstm_weights(4, 4, seed=5)
    groups = {"layers/lstm/cell/vars": first, "layers/lstm_1/cell/vars": second}

    read = reader.load(write_zip(tmp_path / "a", config, weights_file(groups)))

    assert [layer.name for layer in read.layers[1:]] == ["lstm_1", "lstm"]
    np.testing.assert_array_equal(first[1], read.layers[1].weights["recurrent_kernel"])
    np.testing.assert_array_equal(second[1], read.layers[2].weights["recurrent_kernel"])


@pytest.mark.parametrize(
    "names",
    [
        ["kernel", "recurrent_kernel", "bias"],
        ["lstm/kernel:0", "lstm/recurrent_kernel:0", "lstm/bias:0"],
        ["lstm/lstm_cell_3/kernel:0", "lstm/lstm_cell_3/recurrent_kernel:0", "lstm/lstm_cell_3/bias:0"],
        [
            "sequential/lstm/lstm_cell/kernel",
            "sequential/lstm/lstm_cell/recurrent_kernel",
            "sequential/lstm/lstm_cell/bias",
        ],
    ],
)
def test_every_way_in_which_hdf5_files_name_weights(tmp_path, names):
    """The names that four generations of Keras gave to weights in .h5 files all lead to them."""
    weights = {"lstm": dict(zip(names, lstm_weights(), strict=True))}

    read = reader.load(write_hdf5(tmp_path / "a", weights=weights))

    np.testing.assert_array_equal(lstm_weights()[1], read.layers[1].weights["recurrent_kernel"])


def test_a_sequential_of_keras_2_0_is_a_list(tmp_path):
    """The configuration of early Keras 2 is a bare list, and its first layer carries the input shape."""
    layer = lstm_config(recurrent_activation="hard_sigmoid", batch_input_shape=[None, 7, 3], implementation=0)
    config = {"class_name": "Sequential", "config": [layer]}

    read = reader.load(write_hdf5(tmp_path / "a", config, version="2.0.5"))

    assert read.inputs[0].shape == (7, 3)
    assert read.layers[1].options["recurrent_activation"].name == "hard_sigmoid(x/5+1/2)"


def test_long_lists_of_names_are_split_into_attributes(tmp_path):
    """Keras splits a list of names that HDF5 finds too long into numbered attributes."""
    path = write_hdf5(tmp_path / "a")
    with h5py.File(path, "r+") as file:
        group = file["model_weights/lstm"]
        names = group.attrs["weight_names"]
        del group.attrs["weight_names"]
        group.attrs["weight_names0"], group.attrs["weight_names1"] = names[:2], names[2:]

    assert len(reader.load(path).layers[1].weights) == 3


def test_the_hard_sigmoid_follows_the_writer(tmp_path):
    """The same name is another function in a file of Keras 2 than in one of Keras 3."""
    old = reader.load(write_hdf5(tmp_path / "a", changed(recurrent_activation="hard_sigmoid"), version="2.2.4-tf"))
    new = reader.load(write_hdf5(tmp_path / "b", changed(recurrent_activation="hard_sigmoid"), version="3.0.5"))

    names = [read.layers[1].options["recurrent_activation"].name for read in (old, new)]
    assert names == ["hard_sigmoid(x/5+1/2)", "hard_sigmoid(x/6+1/2)"]


def functional(*layers, inputs=("input_layer",), outputs=("lstm",), **edges):
    """Returns a functional model of Keras 2: each layer with the names of those before it."""
    entries = [
        layer
        | {
            "name": layer["config"]["name"],
            "inbound_nodes": [[[name, 0, 0, {}] for name in edges[layer["config"]["name"]]]]
            if edges.get(layer["config"]["name"])
            else [],
        }
        for layer in layers
    ]
    return {
        "class_name": "Functional",
        "config": {
            "name": "model",
            "layers": entries,
            "input_layers": [[name, 0, 0] for name in inputs],
            "output_layers": [[name, 0, 0] for name in outputs],
        },
    }


def test_a_functional_chain_is_read_in_the_order_of_its_values(tmp_path):
    """The chain follows the graph, whatever the order of the list."""
    drop = keras_layer("Dropout", "drop", rate=0.5)
    config = functional(lstm_config(), drop, input_config(), lstm=["drop"], drop=["input_layer"])

    read = reader.load(write_hdf5(tmp_path / "a", config))

    assert [layer.name for layer in read.layers] == ["input_layer", "drop", "lstm"]


def test_the_tensors_of_keras_3_are_followed(tmp_path):
    """Keras 3 writes the edges of a graph as keras_history."""
    config = functional(input_config(), lstm_config(), lstm=["input_layer"])
    tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": ["input_layer", 0, 0]}}
    config["config"]["layers"][1]["inbound_nodes"] = [{"args": [tensor], "kwargs": {"mask": None, "training": False}}]
    config["config"]["input_layers"] = ["input_layer", 0, 0]
    config["config"]["output_layers"] = ["lstm", 0, 0]

    assert len(reader.load(write_zip(tmp_path / "a", config)).layers) == 2


def test_one_layer_out_of_a_model_that_is_refused(tmp_path):
    """--layer serves an LSTM out of a model whose other layers are not served."""
    config = sequential(input_config(), keras_layer("Attention", "look"), lstm_config(4, "memory"))
    path = write_zip(tmp_path / "a", config)

    read = reader.load(path, part=ModelSelection(layer="memory"))

    assert (read.layers[1].name, read.inputs[0].shape) == ("memory", (None, 3))
    assert "Its LSTM layers can be served alone, one at a time: --layer memory" in refusal(path)
    assert refusal(path, part=ModelSelection(layer="other")).startswith(
        "--layer other asks for an LSTM layer, and the model has no layer 'other'."
    )
    assert refusal(path, part=ModelSelection(layer="look")).startswith(
        "--layer look asks for an LSTM layer, and the model has layer 'look' (Attention)."
    )


def test_the_number_of_features_can_come_from_the_weights(tmp_path):
    """A model without a declared input shape reads as many features as its first kernel has rows."""
    for path in (
        write_zip(tmp_path / "a", sequential(lstm_config())),
        write_hdf5(tmp_path / "b", sequential(lstm_config())),
    ):
        assert reader.load(path).inputs[0].shape == (None, 3)


def test_layers_behind_the_lstm_are_part_of_the_answer(tmp_path):
    """A Dense with softmax after the LSTM gives probabilities."""
    config = sequential(
        input_config(), lstm_config(), keras_layer("Dense", "d", units=2, activation="linear", use_bias=True),
        keras_layer("Activation", "a", activation="softmax"),
    )  # fmt: skip
    groups = {"layers/lstm/cell/vars": lstm_weights(), "layers/dense/vars": [numbers(4, 2), numbers(2)]}
    made = RecurrentModel(reader.load(write_zip(tmp_path / "a", config, weights_file(groups))))

    np.testing.assert_allclose([1, 1], made.step(numbers(2, 3), made.zero_state(2)).output.sum(axis=1), rtol=1e-6)


def test_options_without_consequence_are_passed_over(tmp_path):
    """Initialisers, regularisers, dropout rates and the like change no answer."""
    config = changed(
        kernel_initializer={"class_name": "GlorotUniform"}, unit_forget_bias=True, dropout=0.3, recurrent_dropout=0.1, unroll=True,
        stateful=True, seed=None, implementation=1, bias_constraint=None, time_major=False, some_future_option=None,
    )  # fmt: skip

    assert reader.load(write_zip(tmp_path / "a")).digest() == reader.load(write_zip(tmp_path / "b", config)).digest()


def write_weights(path, names=("first", "second")):
    """Writes weights alone, in the layout of Keras 2, of two LSTMs whose groups are called so."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"drop", *(name.encode() for name in names)]
        file.create_group("drop").attrs["weight_names"] = np.zeros(0)
        for name, arrays in zip(names, (lstm_weights(3, 4, 1), lstm_weights(4, 4, 5)), strict=True):
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{weight}:0".encode() for weight in NAMES]
            for weight, array in zip(NAMES, arrays, strict=True):
                group[f"{name}/{weight}:0"] = array
    return path


TWO = sequential(
    input_config(), keras_layer("Dropout", "drop", rate=0.5), lstm_config(4, "first", return_sequences=True), lstm_config(4, "second")
) | {"keras_version": "2.2.4"}  # fmt: skip


@pytest.mark.parametrize("name", ["lstm", "lstm_7", "encoder"])
def test_weights_of_one_lstm_need_no_architecture(tmp_path, name):
    """The shapes of its weights tell what an LSTM is, whatever its author called it."""
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode()]
        file.attrs["keras_version"] = b"2.2.4"
        group = file.create_group(name)
        group.attrs["weight_names"] = [f"{name}/{weight}:0".encode() for weight in NAMES]
        for weight, array in zip(NAMES, lstm_weights(3, 4, 1), strict=True):
            group[f"{name}/{weight}:0"] = array

    (layer,) = (layer for layer in reader.load(path).layers if layer.weights)
    np.testing.assert_array_equal(layer.weights["recurrent_kernel"], lstm_weights(3, 4, 1)[1])


@pytest.mark.parametrize("names", [("first", "second"), ("lstm_7", "lstm_8")])
def test_weights_alone_are_bound_by_name_or_in_order(tmp_path, names):
    """Weights alone go with an architecture: by the names of the layers, or in order where those differ."""
    (tmp_path / "arch.json").write_text(json.dumps(TWO))
    path = write_weights(tmp_path / "weights.h5", names)

    read = reader.load(path, architecture=tmp_path / "arch.json")

    assert (read.source.format, read.source.keras_version) == ("keras-weights", "2.2.4")
    np.testing.assert_array_equal(lstm_weights(4, 4, 5)[1], read.layers[3].weights["recurrent_kernel"])


@pytest.mark.parametrize("beside", ["weights.h5.json", "weights.json", "weights_architecture.json", "model.json"])
def test_the_architecture_is_found_beside(tmp_path, beside):
    """An architecture that lies alongside under a usual name is found by itself."""
    (tmp_path / beside).write_text(json.dumps(TWO))

    assert len(reader.load(write_weights(tmp_path / "weights.h5")).layers) == 4


@pytest.mark.parametrize(
    ("container", "groups"),
    [
        ("layers", ("lstm", "lstm_1")),
        ("_layer_checkpoint_dependencies", ("lstm", "lstm_1")),
        ("_layer_checkpoint_dependencies", ("lstm", "lstm_2")),
    ],
)
def test_weights_alone_in_the_new_layout(tmp_path, container, groups):
    """The layout of Keras 3 is read under the names that Keras 2.12 to 2.14 gave it, doubled numbers among them."""
    (tmp_path / "model.json").write_text(json.dumps(TWO))
    places = [f"{container}/{group}/cell/vars" for group in groups]
    (tmp_path / "a.weights.h5").write_bytes(
        weights_file(dict(zip(places, (lstm_weights(3, 4, 1), lstm_weights(4, 4, 5)), strict=True)))
    )

    read = reader.load(tmp_path / "a.weights.h5")

    np.testing.assert_array_equal(lstm_weights(4, 4, 5)[1], read.layers[3].weights["recurrent_kernel"])


def test_weights_alone_without_an_architecture_are_refused(tmp_path):
    """Without an architecture, with another one, or with one that is none, weights are refused with what to do."""
    path = write_weights(tmp_path / "weights.h5")
    (tmp_path / "other.json").write_text(json.dumps(SIMPLE | {"keras_version": "2.2.4"}))
    (tmp_path / "nameless.json").write_text(json.dumps(SIMPLE))
    (tmp_path / "none.json").write_bytes(b"\xff")

    (tmp_path / "weights.json").write_text(json.dumps(TWO))
    lone = write_weights(tmp_path / "weights.h5", ("lstm_7", "lstm_8"))
    assert refusal(lone).endswith("Do they belong together? If so, say so with --architecture")
    (tmp_path / "weights.json").unlink()
    write_weights(path)
    assert "Give it with --architecture (what model.to_json() writes)" in refusal(path)
    assert refusal(path, architecture=tmp_path / "other.json").startswith(
        "the architecture has 1 layers with weights (lstm), and the file 2 (first, second). Do they belong together?"
    )
    (tmp_path / "old.json").write_text(json.dumps({"class_name": "Sequential", "config": {"layers": [lstm_config()]}}))
    assert "written by Keras of an unknown version" in refusal(path, architecture=tmp_path / "old.json")
    assert "is not text" in refusal(path, architecture=tmp_path / "none.json")
    assert "cannot be opened" in refusal(path, architecture=tmp_path / "missing.json")


def test_two_weights_in_one_place_are_refused(tmp_path):
    """Keras 3.0 to 3.2 wrote both directions of a Bidirectional to one place, and broke the file."""
    path = write_hdf5(tmp_path / "a")
    with h5py.File(path, "r+") as file:
        names = file["model_weights/lstm"].attrs["weight_names"]
        file["model_weights/lstm"].attrs["weight_names"] = np.concatenate([names, names])

    assert refusal(path).startswith(
        "layer 'lstm' (LSTM) has two weights in one place. Keras 3.0 to 3.2 broke such files"
    )


# What is refused in a configuration.

LAMBDA = keras_layer("Lambda", "trick", function={"class_name": "__lambda__", "config": {"code": "4wEAAAA="}})
LSTM = "layer 'lstm' (LSTM)"
CONFIGS = [
    (sequential(input_config(), LAMBDA, lstm_config()), "layer 'trick' (Lambda) is of a kind that is not supported: it contains custom code, which is never run"),
    (sequential(input_config(), keras_layer("GRU", "gru", units=4)), "layer 'gru' (GRU) is of a kind that is not supported: it is not an LSTM: it has other gates and another state"),
    (sequential(input_config(), keras_layer("Dense", "d", units=4)), "the model has no LSTM layer, so there is no state to carry"),
    (changed(activation="wave"), f"{LSTM} has activation='wave', which is not supported. Supported for files of Keras 3: celu, elu"),
    (changed(activation={"class_name": "function", "config": "mine", "registered_name": "function"}),
     f"{LSTM} has a custom function as activation ('mine'), whose code is not in the file"),
    (changed(units=0), f"{LSTM} has units=0; expected an integer from 1 to 16384"),
    (changed(units=True), f"{LSTM} has units=True; expected an integer from 1 to 16384"),
    (changed(units=2**31), f"{LSTM} has units=2147483648; expected an integer from 1 to 16384"),
    (changed(use_bias="yes"), f"{LSTM} has use_bias='yes'; expected true or false"),
    (sequential(input_config(), lstm_config(return_sequences=True, time_major=True), lstm_config(4, "b")),
     "layer 'b' (LSTM) is in a model with time_major=True; supported there: "),
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
     "the model (Mine) is a custom class ('mine>Mine'), whose code is not in the file"),
    ({"class_name": "Mine", "config": {}}, "the model is of class 'Mine', whose code is not in the file. Only Sequential and"),
    (sequential(input_config(), lstm_config() | {"module": "mine", "registered_name": None}),
     f"{LSTM} is a custom class ('mine'), whose code is not in the file"),
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
     f"{LSTM} is a custom class ('LSTM'), whose code is not in the file"),
    (sequential(input_config(), lstm_config() | {"name": "other"}), "a layer (LSTM) has two names, 'other' and 'lstm'"),
    (sequential(input_config(), lstm_config(name="\ud800")), "a layer (LSTM) has the name '\\ud800'; expected 1 to 256 printable"),
    (sequential(input_config(), lstm_config(name="\x1b[2J")), "a layer (LSTM) has the name '\\x1b[2J'; expected 1 to 256 printable"),
    (sequential(lstm_config(), input_config()), "layer 'input_layer' (InputLayer) is in the middle of the model; expected it first"),
    (sequential(input_config(), lstm_config(), keras_layer("Attention", "look")),
     "layer 'look' (Attention) is of a kind that is not supported: it reads the whole sequence at once. Its LSTM"),
    (sequential(input_config(), keras_layer("ConvLSTM2D", "film")), "layer 'film' (ConvLSTM2D) is of a kind that is not supported: it convolves"),
    (sequential(input_config(time=10**30), lstm_config()), "the input 'input_layer' of the model has the shape"),
    (changed(activation={"module": "keras.layers", "class_name": "UpSampling1D", "config": {"name": "up"}}),
     f"{LSTM} has the layer 'UpSampling1D' as activation; supported there: Activation, ELU, LeakyReLU, ReLU, Softmax, ThresholdedReLU"),
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


# What is refused in a file.


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
