"""Files that are well formed and say one thing to us and another to Keras: each is refused, and its honest neighbor is served."""

from __future__ import annotations

import io

import h5py
import numpy as np
import pytest

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading import reader
from tests.support.builders import (
    input_config,
    lstm_config,
    lstm_weights,
    sequential,
    weights_file,
    write_hdf5,
    write_zip,
)

DENSE = {"class_name": "Dense", "config": {"name": "dense", "units": 1, "activation": "linear", "use_bias": True}}


def layer(kind, **options):
    """Returns the configuration of a layer."""
    return {"class_name": kind, "config": {"name": kind.lower(), **options}}


def loaded(tmp_path, *layers, weights=None):
    """Loads a model of an LSTM and more layers after it."""
    config = sequential(input_config(), lstm_config(), *layers)
    content = {"layers/lstm/cell/vars": lstm_weights(), **(weights or {})}
    return reader.load(write_zip(tmp_path / "m.keras", config, weights_file(content)))


@pytest.mark.parametrize(
    ("good", "bad", "text"),
    [
        (layer("ReLU", max_value=5.0), layer("ReLU", max_value=-5), "has max_value=-5; expected 0 or more"),
        (layer("ReLU", max_value=0), layer("ReLU", max_value=-1e-9), "expected 0 or more"),
        (layer("ReLU", negative_slope=0.1), layer("ReLU", negative_slope=-0.1), "has negative_slope=-0.1"),
        (layer("ReLU", threshold=1.0), layer("ReLU", threshold=-1), "has threshold=-1"),
        (layer("ThresholdedReLU", theta=1.0), layer("ThresholdedReLU", theta=-1), "has theta=-1"),
        (layer("Dropout", rate=1.0), layer("Dropout", rate=1.5), "has rate=1.5; expected 0 to 1"),
        (layer("SpatialDropout1D", rate=0.0), layer("SpatialDropout1D", rate=-0.5), "has rate=-0.5"),
        (layer("GaussianNoise", stddev=3.0), layer("GaussianNoise", stddev=-3), "has stddev=-3; expected 0 or more"),
        (layer("Dropout", rate=0.5, dtype="float32"), layer("Dropout", rate=0.5, dtype="int32"), "computes in int32"),
    ],
)
def test_what_keras_refuses_or_rounds_is_refused(tmp_path, good, bad, text):
    """Numbers that Keras does not take, and types to which it would round what flows."""
    loaded(tmp_path, good)
    with pytest.raises(UnsupportedModelError, match=text):
        loaded(tmp_path, bad)


def bidirectional(inner_dtype):
    """Returns a Bidirectional whose layer has a type of its own."""
    inner = lstm_config()
    inner["config"] = {**inner["config"], "dtype": inner_dtype, "return_sequences": False}
    return {"class_name": "Bidirectional", "config": {"name": "both", "layer": inner, "merge_mode": "concat"}}


@pytest.mark.parametrize(("dtype", "text"), [("nonsense", "computes in nonsense"), ("int8", "computes in int8")])
def test_the_type_of_a_wrapped_layer_counts(tmp_path, dtype, text):
    """What the wrapper says does not reach the layer in it."""
    weights = {f"layers/bidirectional/{way}_layer/cell/vars": lstm_weights() for way in ("forward", "backward")}
    good, bad = (
        write_zip(tmp_path / name, sequential(input_config(), bidirectional(of)), weights_file(weights))
        for name, of in (("good.keras", "float32"), ("bad.keras", dtype))
    )
    reader.load(good)
    with pytest.raises(UnsupportedModelError, match=text):
        reader.load(bad)


def test_half_precision_within_a_wrapper_is_remarked(tmp_path):
    """As it is of a layer by itself: Keras is farther from exact there."""
    weights = {f"layers/bidirectional/{way}_layer/cell/vars": lstm_weights() for way in ("forward", "backward")}
    path = write_zip(tmp_path / "m.keras", sequential(input_config(), bidirectional("float16")), weights_file(weights))

    assert "computes layer 'both' (Bidirectional) in float16" in reader.load(path).source.remarks[0]


def test_two_groups_that_are_the_first_of_their_kind_are_refused(tmp_path):
    """Else both LSTMs would get the weights of one."""
    first = lstm_config(name="a")
    first["config"] = {**first["config"], "return_sequences": True}
    config = sequential(input_config(), first, lstm_config(name="b"))
    units = len(lstm_weights()[1])
    weights = {"layers/lstm/cell/vars": lstm_weights(), "layers/lstm_1/cell/vars": lstm_weights(features=units)}
    reader.load(write_zip(tmp_path / "good.keras", config, weights_file(weights)))
    buffer = io.BytesIO(weights_file(weights))
    with h5py.File(buffer, "r+") as file:
        file.move("layers/lstm_1", "layers/lstm_0")
    with pytest.raises(UnsupportedModelError, match="two groups that are the first of their kind, lstm and lstm_0"):
        reader.load(write_zip(tmp_path / "bad.keras", config, buffer.getvalue()))


def test_names_that_stand_twice_or_in_another_order_are_refused(tmp_path):
    """Keras reads the groups of an `.h5` file in the order of their list, whatever they are called."""
    first = lstm_config(name="a")
    first["config"] = {**first["config"], "return_sequences": True}
    config = sequential(input_config(), first, lstm_config(name="b"))
    units = len(lstm_weights()[1])
    names = ("kernel", "recurrent_kernel", "bias")
    weights = {
        "a": {f"a/{name}:0": array for name, array in zip(names, lstm_weights(), strict=True)},
        "b": {f"b/{name}:0": array for name, array in zip(names, lstm_weights(features=units), strict=True)},
    }

    def read(*listed):
        path = write_hdf5(tmp_path / "m.h5", config, weights)
        with h5py.File(path, "r+") as file:
            file["model_weights"].attrs["layer_names"] = np.array(listed, dtype="S")
        return reader.load(path)

    read("input", "a", "b")
    with pytest.raises(UnsupportedModelError, match="two groups of weights have the same name"):
        read("a", "b", "b")
    with pytest.raises(UnsupportedModelError, match="Keras would give them to others than we do"):
        read("b", "a")


def test_a_layer_without_any_use_is_refused():
    """No one has looked at how large it is, and Keras would make it all the same."""
    from lstmserve_server.loading.build import builder  # noqa: PLC0415 - the same
    from lstmserve_server.loading.config import keras_config  # noqa: PLC0415 - what the reader uses
    from lstmserve_server.loading.store.limits import LoadLimits  # noqa: PLC0415 - the same

    def model(*, used):
        dense = {
            "class_name": "Dense",
            "name": "d",
            "config": {"name": "d", "units": 2},
            "inbound_nodes": [[["l", 0, 0, {}]]],
        }
        config = {
            "name": "m",
            "layers": [
                {"class_name": "InputLayer", "name": "i", "config": {"name": "i"}, "inbound_nodes": []},
                {"class_name": "LSTM", "name": "l", "config": {"name": "l"}, "inbound_nodes": [[["i", 0, 0, {}]]]},
                dense,
            ],
            "input_layers": [["i", 0, 0]],
            "output_layers": [["d" if used else "l", 0, 0]],
        }
        return keras_config.parse({"class_name": "Functional", "config": config}, LoadLimits())

    builder.require_all_used(model(used=True), LoadLimits())
    with pytest.raises(UnsupportedModelError, match=r"layer 'd' \(Dense\) does not lead to an output of the model"):
        builder.require_all_used(model(used=False), LoadLimits())
