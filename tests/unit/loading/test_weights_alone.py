"""Weights without an architecture of their own."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from lstmserve_server.loading import reader
from tests.support.builders import (
    SIMPLE,
    input_config,
    keras_layer,
    lstm_config,
    lstm_weights,
    sequential,
    weights_file,
    write_hdf5,
)
from tests.unit.loading.configs import NAMES, refusal


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
