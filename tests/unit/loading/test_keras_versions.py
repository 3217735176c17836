"""What is just within and what is just beyond: versions of Keras, refusals alongside what must not be refused, sizes at their limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lstmserve_server.core.errors import UnsupportedModelError, WrongForModel
from lstmserve_server.loading import reader
from lstmserve_server.loading.build.rules import registry as kinds
from lstmserve_server.loading.build.rules.base import KerasVersion, LayerConfigReader, LayerInput, WeightBlock
from lstmserve_server.loading.config import keras_config
from lstmserve_server.loading.config.keras_config import LayerConfig
from lstmserve_server.loading.formats import architecture
from lstmserve_server.loading.formats.hdf5_weights import in_order_of_pieces
from lstmserve_server.loading.store.limits import LoadLimits
from lstmserve_server.model.activations import KerasMajor
from lstmserve_server.model.layers.pointwise import Normalization
from lstmserve_server.model.layers.recurrent import Bidirectional
from lstmserve_server.model.lstm import LSTMState
from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.model.numerics import ComputeConfig, Numerics, matmul_of
from lstmserve_server.model.spec import LayerSpec
from tests.support.builders import (
    activation,
    chain,
    dense_layer,
    lstm_config,
    lstm_layer,
    lstm_weights,
    numbers,
    weights_file,
    write_zip,
)
from tests.support.paths import ROOT

FIXTURES = ROOT / "tests" / "fixtures"

# Versions of Keras: the last before a rule changed, and the first after


@pytest.mark.parametrize(
    ("version", "merges"),
    [
        ("1.2.2", "and"),
        ("2.15.0", "and"),
        ("3.0.0", "none"),
        ("3.3.3", "none"),
        ("3.4.0", "or"),
        ("3.15.1", "or"),
        ("3", "unknown"),
    ],
)
def test_how_masks_are_merged_by_version(version, merges):
    """Up to Keras 2 all have to keep a step, from 3.4 on one; those between lost the mask."""
    assert keras_config.merges_masks_by(version) == merges


@pytest.mark.parametrize(
    ("version", "era", "standalone", "before_sigmoid"),
    [
        ("1.2.2", KerasMajor.KERAS_2, True, True),
        ("2.2.5", KerasMajor.KERAS_2, True, True),
        ("2.3.0", KerasMajor.KERAS_2, True, False),
        ("2.3.1", KerasMajor.KERAS_2, True, False),
        ("2.4.0", KerasMajor.KERAS_2, False, False),
        ("2.2.4-tf", KerasMajor.KERAS_2, False, True),
        ("2.15.0", KerasMajor.KERAS_2, False, False),
        ("3.0.0", KerasMajor.KERAS_3, False, False),
    ],
)
def test_what_a_version_says_of_its_writer(version, era, standalone, before_sigmoid):
    """Whether functions are those of Keras 3, whether it was a package of its own, and what recurrent_activation was by default."""
    assert keras_config.era_of(version) is era
    assert keras_config.is_standalone(version) is standalone
    assert keras_config.is_before_sigmoid(version) is before_sigmoid


@pytest.mark.parametrize("version", ["1.0.0", "2.2.4-tf", "3.0.0", "3", "3.15.1", "2.16.0.dev0"])
def test_versions_that_are_read(version):
    """Those of Keras 1, 2 and 3."""
    assert architecture.checked_version(version) == version


@pytest.mark.parametrize("version", ["0.3.3", "4.0.0", "", None, 3, "3.x", "2"])
def test_versions_that_are_not_read(version):
    """Others, and what is none."""
    with pytest.raises(UnsupportedModelError, match="expected Keras 1, 2 or 3"):
        architecture.checked_version(version)


def writer(version="3.15.1"):
    """Returns what is known of the Keras that wrote a file."""
    return KerasVersion(
        keras_config.era_of(version),
        keras_config.is_standalone(version),
        keras_config.merges_masks_by(version),
        time_major=False,
    )


MASKED = LayerInput((None, 3), ("Any", ("NotEqual", 0, 0.0)), 1)
PLAIN = LayerInput((None, 3), None, 2)


def reading(kind, *incomings, version="3.15.1", **options):
    """Returns the reading of a layer."""
    return LayerConfigReader(
        LayerConfig(kind, "it", {"name": "it", **options}), writer(version), incomings, LoadLimits()
    )


@pytest.mark.parametrize(
    ("version", "states", "masked_by_call", "heeds"),
    [
        ("3.15.1", 0, False, True),
        ("3.15.1", 2, False, False),
        ("3.15.1", 2, True, True),
        ("2.15.0", 2, False, True),
        ("2.15.0", 0, False, True),
    ],
)
def test_which_lstm_heeds_the_mask_of_its_input(version, states, masked_by_call, heeds):
    """Keras 3 forgets it for one that is given an initial state, unless it is called with the mask."""
    given = (MASKED, *[LayerInput((4,))] * states)
    r = dataclasses.replace(
        reading("LSTM", *given, version=version, units=4, recurrent_activation="sigmoid"),
        states=states,
        masked_by_call=masked_by_call,
    )
    options = kinds.plan(r).options

    assert options.get("ignores_mask", False) is not heeds


@pytest.mark.parametrize("kind", ["Multiply", "Maximum", "Minimum"])
def test_merges_that_alter_what_a_mask_passes_over(kind):
    """Keras 3.4 puts other numbers there: refused where there is a mask, and served where there is none, or an older Keras."""
    with pytest.raises(
        UnsupportedModelError, match=r"is given a mask\. Keras 3 then replaces the values at masked time steps"
    ):
        kinds.plan(reading(kind, MASKED, MASKED))
    assert kinds.plan(reading(kind, PLAIN, PLAIN)).kind == kind
    assert kinds.plan(reading(kind, MASKED, MASKED, version="3.3.3")).mask is None
    assert kinds.plan(reading(kind, MASKED, MASKED, version="2.15.0")).mask == MASKED.mask
    assert kinds.plan(reading("Add", MASKED, MASKED)).mask == MASKED.mask


def test_a_keras_3_that_does_not_say_which_cannot_merge_masks():
    """Every one does it in its own way; without masks there is nothing to ask."""
    with pytest.raises(UnsupportedModelError, match="the file does not say which wrote it"):
        kinds.plan(reading("Add", MASKED, PLAIN, version="3"))
    assert kinds.plan(reading("Add", PLAIN, PLAIN, version="3")).kind == "Add"


def test_a_recurrent_activation_that_is_not_stated():
    """Its default changed during Keras 2, so there it has to be; in Keras 3 it never changed."""
    with pytest.raises(UnsupportedModelError, match="does not say its recurrent_activation"):
        kinds.plan(reading("LSTM", PLAIN, version="2.15.0", units=4))
    stated = kinds.plan(reading("LSTM", PLAIN, version="2.15.0", units=4, recurrent_activation="hard_sigmoid"))
    assert stated.options["recurrent_activation"].name == "hard_sigmoid(x/5+1/2)"
    assert kinds.plan(reading("LSTM", PLAIN, units=4)).options["recurrent_activation"].name.startswith("sigmoid")


def test_weights_of_a_layer_that_is_frozen_in_part():
    """They are in another order, and are told apart by names; without names the layer is refused, unless it is frozen whole."""
    layer = LayerConfig("Bidirectional", "both", {})
    forward, backward = (
        WeightBlock({"kernel": (3, 4)}, labels=frozenset({label}), trainable=trainable)
        for label, trainable in (("forward_lstm", False), ("backward_lstm", True))
    )
    named = ["both/backward_lstm/kernel:0", "both/forward_lstm/kernel:0"]

    assert in_order_of_pieces(layer, named, (forward, backward)) == named[::-1]
    with pytest.raises(UnsupportedModelError, match="is partly frozen"):
        in_order_of_pieces(layer, ["kernel:0", "kernel_1:0"], (forward, backward))
    whole = [dataclasses.replace(block, trainable=True) for block in (forward, backward)]
    assert in_order_of_pieces(layer, ["kernel:0", "kernel_1:0"], whole) == ["kernel:0", "kernel_1:0"]


# Masks of an author's own


def functional(mask, axis=-1):
    """Returns a functional model of Keras 3 whose LSTM is called with a mask: that of its Masking, or another."""

    def tensor(name):
        return {
            "class_name": "__keras_tensor__",
            "config": {"shape": [], "dtype": "float32", "keras_history": [name, 0, 0]},
        }

    def entry(kind, name, options, *args, module="keras.layers", **kwargs):
        return {
            "module": module,
            "class_name": kind,
            "config": {"name": name, **options},
            "registered_name": None,
            "name": name,
            "inbound_nodes": [{"args": list(args), "kwargs": kwargs}] if args else [],
        }

    lstm = lstm_config()["config"]
    layers = [
        entry("InputLayer", "x", {"batch_shape": [None, None, 3]}),
        entry("Masking", "masking", {"mask_value": 0.0}, tensor("x")),
        entry("NotEqual", "other", {}, tensor("x"), mask, module="keras.src.ops.numpy"),
        entry("Any", "any", {"axis": axis, "keepdims": False}, tensor("other"), module="keras.src.ops.numpy"),
        entry("LSTM", "lstm", {**lstm, "name": "lstm"}, tensor("masking"), mask=tensor("any")),
    ]
    config = {"name": "m", "layers": layers, "input_layers": [["x", 0, 0]], "output_layers": [["lstm", 0, 0]]}
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": config,
        "registered_name": "Functional",
    }


def test_a_mask_that_is_the_one_that_flows_anyway_is_served_and_another_is_not(tmp_path):
    """Keras 3 spells masks out: the one that Masking makes is known, one that an author made is refused."""
    weights = weights_file({"layers/lstm/cell/vars": lstm_weights()})
    assert reader.load(write_zip(tmp_path / "good.keras", functional(0.0), weights)).layers[-1].kind == "LSTM"
    for other in (functional(1.0), functional(0.0, axis=1), functional(0.0, axis=[1])):
        with pytest.raises(UnsupportedModelError, match="is called with an explicit mask"):
            reader.load(write_zip(tmp_path / "bad.keras", other, weights))


# What can be stepped


STEPPED = {
    "keras3.15/lstm_stack_dense.keras",
    "keras3.15/lstm_seq_relu_hardsig_nobias.keras",
    "keras3.15/lstm_emb_mask.keras",
}


@pytest.mark.parametrize("kind", ["Add", "Concatenate", "Subtract", "Multiply", "Average", "Maximum", "Minimum"])
def test_a_merge_of_what_comes_at_every_step_can_be_stepped(kind):
    """Two branches of one input, joined step by step: Step is possible, and equals Forward to the byte."""
    lstm, dense = lstm_layer(3, 4, return_sequences=True), dense_layer(3, 4, sequence=True)
    shape = (None, 8) if kind == "Concatenate" else (None, 4)
    merge = LayerSpec("merge", kind, {"inputs": 2}, {}, (shape,), inputs=(1, 2))
    made = chain(lstm, dense, merge, features=3)
    layers = (
        made.layers[0],
        made.layers[1],
        dataclasses.replace(made.layers[2], inputs=(0,)),
        dataclasses.replace(made.layers[3], inputs=(1, 2)),
    )
    model = RecurrentModel(dataclasses.replace(made, layers=layers), Numerics.EXACT)
    x = numbers(2, 5, 3)

    assert model.step_obstacle == ""
    whole = model.forward((x,), model.zero_state(2), all_outputs=True)
    state = model.zero_state(2)
    for t in range(5):
        answer = model.step(np.ascontiguousarray(x[:, t]), state)
        state = answer.state
        assert answer.outputs[0].tobytes() == np.ascontiguousarray(whole.outputs[0][:, t]).tobytes()


@pytest.mark.parametrize("windows", [(3, 1), (1, 3)])
def test_a_layer_of_two_branches_waits_for_the_slower(windows):
    """Branches that are summed up over time may wait for different steps: the model answers when both have."""
    convolutions = [
        LayerSpec(
            f"conv{i}", "Conv1D",
            {"window": window, "strides": 1, "padding": "valid", "dilation_rate": 1, "filters": 4, "activation": activation("relu")},
            {"kernel": numbers(window, 3, 4, seed=i)}, ((None, 4),), inputs=(0,),
        )
        for i, window in enumerate(windows)
    ]  # fmt: skip
    lstms = [dataclasses.replace(lstm_layer(4, 2, name=f"lstm{i}"), inputs=(1 + i,)) for i in range(2)]
    merge = LayerSpec("merge", "Add", {"inputs": 2}, {}, ((2,),), inputs=(3, 4))
    made = chain(*convolutions, *lstms, merge, features=3)
    layers = tuple(
        dataclasses.replace(layer, inputs=inputs)
        for layer, inputs in zip(made.layers, [(), (0,), (0,), (1,), (2,), (3, 4)], strict=True)
    )
    model = RecurrentModel(dataclasses.replace(made, layers=layers), Numerics.EXACT)
    x, state, answers = numbers(1, 4, 3), model.zero_state(1), []
    for t in range(4):
        answer = model.step(np.ascontiguousarray(x[:, t]), state)
        state = answer.state
        answers.append(answer.output)

    assert model.step_obstacle == ""
    assert model.waiting_steps == 2
    assert [bool(np.isnan(output).any()) for output in answers] == [True, True, False, False]
    whole = model.forward((x,), model.zero_state(1))
    assert answers[-1].tobytes() == whole.output.tobytes()


def test_most_fixtures_can_be_stepped():
    """Those that cannot say why, and they are the few that look ahead."""
    can, cannot = set(), {}
    for path in sorted(FIXTURES.glob("keras3.15/*.keras")):
        try:
            model = RecurrentModel(reader.load(path), Numerics.EXACT)
        except UnsupportedModelError:
            continue
        name = f"{path.parent.name}/{path.name}"
        if model.causal:
            can.add(name)
        else:
            cannot[name] = model.step_obstacle

    assert can >= STEPPED
    assert len(can) >= 12
    assert all(cannot.values())


# Directions, numbers at the edge


def test_the_states_of_a_bidirectional_reach_their_own_direction():
    """H and c of the forward layer come first among the initial states, then those of the backward one."""
    ahead = lstm_layer(3, 2, name="ahead", seed=1)
    back = dataclasses.replace(
        lstm_layer(3, 2, name="back", seed=7, go_backwards=True), options=lstm_layer(3, 2, go_backwards=True).options
    )
    described = LayerSpec(
        "both",
        "Bidirectional",
        {"merge_mode": "concat"},
        {},
        ((4,),),
        inputs=(0,),
        initial_state=(1, 2, 3, 4),
        parts=(ahead, back),
    )
    compute_config = ComputeConfig(matmul_of(Numerics.EXACT), np.dtype(np.float32), Numerics.EXACT)
    layer = Bidirectional(described, compute_config)
    x = numbers(2, 4, 3, seed=3)
    states = [numbers(2, 2, seed=seed) for seed in (11, 12, 13, 14)]
    values = recurrent_values(x)
    made, _ = layer.run(given_of(values, states), ())
    forward, _ = layer.forward.advance(values, LSTMState(*states[:2]), np.zeros(2, bool), None)
    backward, _ = layer.backward.advance(values, LSTMState(*states[2:]), np.zeros(2, bool), None)

    expected = np.concatenate([forward.array[:, -1], backward.array[:, -1]], axis=-1)
    np.testing.assert_array_equal(made[0].array.reshape(2, 4), expected)


def recurrent_values(x):
    """Returns a sequence as it flows between layers."""
    from lstmserve_server.model.layers.base import Batch  # noqa: PLC0415 - a test's own

    return Batch(x, sequence=True)


def given_of(values, states):
    """Returns what a layer is given."""
    from lstmserve_server.model.layers.base import LayerInputs  # noqa: PLC0415 - a test's own

    return LayerInputs(
        (values,), np.zeros(len(values.array), bool), initial_state=tuple(states), every=False, recording=None
    )


def test_a_feature_that_never_varied_is_normalized_by_epsilon():
    """A variance of 0, as of a column that was constant in the training data, gives large numbers and no infinity."""
    weights = {"mean": np.float32([1, 2]), "variance": np.float32([0, 4])}
    described = LayerSpec("n", "Normalization", {"epsilon": 1e-7, "invert": False}, weights, ((None, 2),))
    layer = Normalization(described, ComputeConfig(matmul_of(Numerics.EXACT), np.dtype(np.float32), Numerics.EXACT))
    made = layer.compute(np.float32([[1, 2], [1 + 2**-20, 4]]))

    assert made[0].tolist() == [0, 0]
    np.testing.assert_allclose(made[1], [2**-20 / 1e-7, 1], rtol=1e-5)


def test_an_infinite_h_is_refused_behind_a_bounded_head():
    """The output is finite and the state is not: it would poison all that follows."""
    described = chain(
        lstm_layer(1, 2, inner="relu", recurrent="relu", return_sequences=True),
        dense_layer(2, 1, inner="tanh", sequence=True),
        features=1,
    )
    model = RecurrentModel(described, Numerics.EXACT)
    x = np.full((1, 1), 1e38, np.float32)
    state = tuple(type(part)(*(np.full_like(array, 1e30) for array in part)) for part in model.zero_state(1))
    with pytest.raises(WrongForModel, match=r"h of layer 'lstm' is no longer finite"):
        model.step(x, state)
