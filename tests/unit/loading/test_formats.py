"""Files of every format give the same model."""

from __future__ import annotations

import zipfile

import h5py
import numpy as np
import pytest

from lstmserve_server.loading import reader
from lstmserve_server.loading.build.builder import ModelSelection
from lstmserve_server.model.model import RecurrentModel
from tests.support.builders import (
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
from tests.unit.loading.configs import changed, functional, refusal


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
