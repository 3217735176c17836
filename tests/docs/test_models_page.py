"""docs/models.md says what is true of formats, layers and policies."""

from __future__ import annotations

import re

import pytest

from lstmserve_server.loading import reader
from lstmserve_server.loading.build import precision
from lstmserve_server.loading.build.builder import ModelSelection
from lstmserve_server.loading.build.rules import refusal_reasons
from lstmserve_server.loading.build.rules.activations import LAYERS
from lstmserve_server.loading.build.rules.registry import RULES
from lstmserve_server.model.activations import KerasMajor, names
from lstmserve_server.model.model import RecurrentModel
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
from tests.unit.loading.configs import refusal

PAGE = (ROOT / "docs" / "models.md").read_text()
STEP = dict(re.findall(r"^\| (\w+) \| (yes|no) \|", PAGE, re.MULTILINE))

# What each layer that has to be tried takes alongside its name; those after the LSTM get one vector.
BEFORE = {
    "Dense": {"units": 3, "activation": "linear"},
    "Masking": {"mask_value": 0.0},
    "Activation": {"activation": "tanh"},
    "ELU": {"alpha": 0.5},
    "LeakyReLU": {"negative_slope": 0.5},
    "ReLU": {},
    "Softmax": {"axis": -1},
    "ThresholdedReLU": {"theta": 0.5},
    "PReLU": {"shared_axes": [1]},
    "BatchNormalization": {"axis": -1},
    "LayerNormalization": {"axis": -1},
    "Normalization": {"axis": -1, "mean": [0.5], "variance": [2.0]},
    "Rescaling": {"scale": 2.0},
    "Conv1D": {"filters": 3, "kernel_size": [2], "padding": "causal", "activation": "linear"},
    "MaxPooling1D": {"pool_size": [2]},
    "AveragePooling1D": {"pool_size": [2]},
    "Reshape": {"target_shape": [2, 3]},
    "Permute": {"dims": [2, 1]},
    "ZeroPadding1D": {"padding": [1, 1]},
    "Cropping1D": {"cropping": [1, 1]},
    "TimeDistributed": {"layer": keras_layer("ReLU", "inner")},
    "Bidirectional": {"layer": lstm_config(3, "inner", return_sequences=True), "merge_mode": "concat"},
    "Flatten": {},
    "Identity": {},
    "Dropout": {},
    "SpatialDropout1D": {},
    "AlphaDropout": {},
    "GaussianDropout": {},
    "GaussianNoise": {},
    "ActivityRegularization": {},
}
BEHIND = {"GlobalMaxPooling1D": {}, "GlobalAveragePooling1D": {}}
WEIGHTS = {
    "Dense": {"layers/dense/vars": [numbers(3, 3), numbers(3)]},
    "Conv1D": {"layers/conv1d/vars": [numbers(2, 3, 3), numbers(3)]},
    "PReLU": {"layers/p_re_lu/vars": [numbers(1, 3)]},
    "BatchNormalization": {"layers/batch_normalization/vars": [numbers(3, seed=i) ** 2 + 1 for i in range(4)]},
    "LayerNormalization": {"layers/layer_normalization/vars": [numbers(3), numbers(3)]},
    "Bidirectional": {
        "layers/bidirectional/forward_layer/cell/vars": lstm_weights(3, 3),
        "layers/bidirectional/backward_layer/cell/vars": lstm_weights(3, 3),
    },
}  # of the layer that is tried
ALWAYS = {"InputLayer", "LSTM", "CuDNNLSTM", "RNN", "Embedding", "RepeatVector"}  # tried by other tests
MERGES = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"}


def model_of(path, **options):
    """Returns the model in a file."""
    return RecurrentModel(reader.load(path, **options))


def test_every_kind_of_layer_is_on_the_page():
    """The page lists the kinds of layers that the loader knows, and no other."""
    assert {kind for kind in STEP if kind in RULES or kind[0].isupper()} - {"Sequential"} == set(RULES)
    assert set(RULES) == ALWAYS | MERGES | set(BEFORE) | set(BEHIND)


@pytest.mark.parametrize("kind", sorted({*BEFORE, *BEHIND}))
def test_the_page_knows_which_layers_can_be_stepped(kind, tmp_path):
    """A model with a layer of this kind can be stepped where the page says "yes", and not where it says "no"."""
    layer = keras_layer(kind, "tried", **(BEFORE | BEHIND)[kind])
    lstm = lstm_config(3, return_sequences=kind in BEHIND)
    reads = 6 if kind in ("Bidirectional", "Permute") else 3
    layers = [lstm, layer] if kind in BEHIND else [lstm_config(3, "first", return_sequences=True), layer]
    if kind not in BEHIND and kind != "Flatten":
        layers.append(lstm)
    groups = {"layers/lstm/cell/vars": lstm_weights(3, 3)}
    if len([item for item in layers if item["class_name"] == "LSTM"]) > 1:
        groups["layers/lstm_1/cell/vars"] = lstm_weights(reads, 3)
    groups |= WEIGHTS.get(kind, {})
    model = model_of(
        write_zip(
            tmp_path / "a",
            sequential(input_config(time={"Permute": 6, "Cropping1D": 3}.get(kind, 2)), *layers),
            weights_file(groups),
        )
    )

    assert STEP[kind] == ("yes" if model.causal else "no"), model.step_obstacle


@pytest.mark.parametrize("kind", sorted(set(refusal_reasons.REASONS) & set(re.findall(r"\w+", PAGE))))
def test_what_the_page_refuses_is_refused_by_name(kind, tmp_path):
    """A layer that the page names as refused is refused with its own reason."""
    config = sequential(input_config(), keras_layer(kind, "tried"), lstm_config())

    assert f"layer 'tried' ({kind}) is of a kind that is not supported: {refusal_reasons.REASONS[kind]}" in refusal(
        write_zip(tmp_path / "a", config)
    )


def test_the_page_names_every_policy_and_no_other():
    """The policies on the page are those that are served."""
    table = PAGE.split("## Precision")[1].split("## ")[0]
    named = {name for row in re.findall(r"^\| ([a-z0-9_, ]+) \|", table, re.MULTILINE) for name in row.split(", ")}

    assert named - {"policy", "float32 and float64"} == set(precision.POLICIES)


def test_the_page_names_every_layer_that_may_be_an_activation():
    """The layers that are served as an activation of another are those on the page."""
    assert f"Layers as activations: {', '.join(LAYERS)}." in PAGE.replace("\n", " ")


def test_a_part_of_a_model_whose_rest_is_not_served(tmp_path):
    """--until serves a model as far as a layer, whatever follows it."""
    config = sequential(input_config(), lstm_config(4, "memory"), keras_layer("Lambda", "trick"))
    path = write_zip(tmp_path / "a", config, weights_file({"layers/lstm/cell/vars": lstm_weights()}))

    assert model_of(path, part=ModelSelection(until="memory")).outputs[0].shape == (4,)
    assert "--until no asks for a layer that the model does not have; it has memory, trick" in refusal(
        path, part=ModelSelection(until="no")
    )


@pytest.mark.slow
def test_two_activations_are_left_out():
    """Of the activations of Keras 3 all but two are served."""
    keras = pytest.importorskip("keras.src.activations", reason="the extra [shadow] has no TensorFlow for this Python")

    assert set(keras.ALL_OBJECTS_DICT) - set(names(KerasMajor.KERAS_3)) == {"glu", "threshold"}
