"""Graphs of layers that are made to harm: each is refused in a sentence (promise P7)."""

from __future__ import annotations

import json
import random
import time

import h5py
import pytest

from lstmserve_server.loading import reader
from tests.hostile.config_mutants import mutant
from tests.hostile.formats import outcome, refusal
from tests.support.builders import (
    SIMPLE,
    input_config,
    keras_layer,
    lstm_config,
    lstm_weights,
    sequential,
    write_hdf5,
)


def placed(kind, name, nodes, /, **options):
    """Returns a layer of a functional model."""
    return {
        "class_name": kind,
        "name": name,
        "config": {"name": name, "dtype": "float32", **options},
        "inbound_nodes": nodes,
    }


def functional(*layers, outputs, inputs=(("input", 0, 0),)):
    """Returns the configuration of a functional model."""
    return {
        "class_name": "Functional",
        "config": {
            "name": "m",
            "layers": list(layers),
            "input_layers": list(map(list, inputs)),
            "output_layers": outputs,
        },
    }


def tensor(name, output=0):
    """Returns a tensor as Keras 3 writes it among arguments."""
    return {"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, output]}}


def lstm_on(*nodes, name="lstm", **options):
    """Returns an LSTM with the calls that are given."""
    return placed("LSTM", name, list(nodes), **lstm_config(name=name, **options)["config"])


def on(name, call=0):
    """Returns a call as Keras 2 writes it."""
    return [[name, call, 0, {}]]


SOURCE = placed("InputLayer", "input", [], batch_shape=[None, None, 3])


DENSE = {"units": 3, "activation": "linear", "use_bias": True}


HOSTILE_GRAPHS = [
    (functional(SOURCE, lstm_on(on("lstm")), outputs=[["lstm", 0, 0]]), "the graph leads in a circle through 'lstm'"),
    (functional(SOURCE, placed("Dense", "d", [on("lstm")], **DENSE), lstm_on(on("d")), outputs=[["lstm", 0, 0]]), "in a circle through"),
    (functional(SOURCE, lstm_on(on("none")), outputs=[["lstm", 0, 0]]), "the graph leads to call 0 of 'none', which the model does not have"),
    (functional(SOURCE, lstm_on(on("input", 1 << 70)), outputs=[["lstm", 0, 0]]), "which the model does not have"),
    (functional(SOURCE, lstm_on(on("input", -1)), outputs=[["lstm", 0, 0]]), "has inbound_nodes that cannot be read"),
    (functional(SOURCE, lstm_on(on("input")), outputs=[["lstm", 0, 1 << 70]]), "reads output 1180591620717411303424 of 'lstm'"),
    (functional(SOURCE, lstm_on(on("input")), outputs=[["lstm", 0, 1]]), "the model has no output 1 of layer 'lstm' (LSTM)"),
    (functional(SOURCE, lstm_on(on("input")), outputs=[["lstm", 0, -1]]), "output_layers of the model cannot be read"),
    (functional(SOURCE, lstm_on(on("input")), outputs=[["lstm", 0, True]]), "output_layers of the model cannot be read"),
    (functional(SOURCE, lstm_on(on("input")), outputs="lstm"), "output_layers of the model cannot be read"),
    (functional(SOURCE, lstm_on(on("input")), outputs=[]), "the model has no LSTM layer"),
    (functional(SOURCE, lstm_on(on("input")), outputs=[["lstm", 0, 0]], inputs=[["lstm", 0, 0]]), "as an input, which is not an InputLayer"),
    (functional(SOURCE, lstm_on(on("input")), outputs=[["lstm", 0, 0]], inputs=[]), "the graph leads to call 0 of 'input'"),
    (functional(SOURCE, lstm_on({"args": [], "kwargs": {}}), outputs=[["lstm", 0, 0]]), "is called without an input"),
    (functional(SOURCE, lstm_on({"args": [tensor("input")], "kwargs": {"mask": tensor("input")}}), outputs=[["lstm", 0, 0]]), "with an explicit mask"),
    (functional(SOURCE, lstm_on({"args": [tensor("input")], "kwargs": {"training": True}}), outputs=[["lstm", 0, 0]]), "was called with training=True"),
    (functional(SOURCE, lstm_on({"args": [tensor("input")], "kwargs": {"evil": 1}}), outputs=[["lstm", 0, 0]]), "is called with evil=1, which is not supported"),
    (functional(SOURCE, lstm_on({"args": [tensor("input")], "kwargs": {"initial_state": [tensor("input")] * 3}}), outputs=[["lstm", 0, 0]]), "is given 3 initial states"),
    (functional(SOURCE, lstm_on(*[on("input"), *[on("lstm", call) for call in range(5000)]], return_sequences=True), outputs=[["lstm", 5000, 0]]), "are called more than"),
    (functional(SOURCE, SOURCE, lstm_on(on("input")), outputs=[["lstm", 0, 0]]), "two layers have the same name"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "reason"), HOSTILE_GRAPHS)
def test_hostile_graphs(tmp_path, config, reason):
    """A graph that is not a graph, or one of a thousand calls, is refused before a weight is read."""
    assert reason in refusal(write_hdf5(tmp_path / "a.h5", config))


@pytest.mark.parametrize("number", [10**400, -(10**400)])
@pytest.mark.parametrize(
    "node",
    [
        lambda n: {"args": [tensor("input"), n], "kwargs": {}},
        lambda n: [["input", 0, 0, {"y": n}]],
        lambda n: [["_CONSTANT_VALUE", -1, n, {"y": ["input", 0, 0]}]],
    ],
)
def test_numbers_of_operations_that_are_no_floats_are_refused(tmp_path, number, node):
    """JSON has whole numbers that no float can hold."""
    operation = {
        "class_name": "TFOpLambda",
        "name": "op",
        "config": {"name": "op", "function": "math.multiply"},
        "inbound_nodes": [node(number)],
    }
    config = functional(SOURCE, operation, lstm_on(on("op")), outputs=[["lstm", 0, 0]])

    assert refusal(write_hdf5(tmp_path / "a.h5", config))


def nested(levels, calls):
    """Returns a model that calls a model so many times, that calls a model so many times, and so on; the last does nothing."""
    if not levels:
        return functional(SOURCE, outputs=[["input", 0, 0]])
    inner = {
        **nested(levels - 1, calls),
        "name": "n",
        "inbound_nodes": [on("input"), *[on("n", call) for call in range(calls - 1)]],
    }
    inner["config"] = {**inner["config"], "name": "n"}
    return functional(SOURCE, inner, outputs=[["n", calls - 1, 0]])


@pytest.mark.parametrize(("levels", "calls"), [(14, 2), (3, 200), (2, 2000)])
def test_models_that_call_models_are_bounded(tmp_path, levels, calls):
    """A kilobyte that stands for millions of calls is refused when a thousand of them are counted."""
    config = nested(levels, calls)
    config["config"]["layers"].append(lstm_on(on("n", calls - 1)))
    config["config"]["output_layers"] = [["lstm", 0, 0]]
    began = time.process_time()

    assert "are called more than" in refusal(write_hdf5(tmp_path / "a.h5", config))
    assert time.process_time() - began < 3


FUNCTIONAL_2 = functional(
    SOURCE,
    placed("Masking", "mask", [on("input")], mask_value=0.0),
    lstm_on([["mask", 0, 0, {}]], name="one", return_sequences=True, return_state=True),
    lstm_on([["one", 0, 0, {"initial_state": [["one", 0, 1], ["one", 0, 2]]}]], name="two"),
    placed("Concatenate", "join", [[["one", 0, 1, {}], ["two", 0, 0, {}]]], axis=-1),
    {"class_name": "TFOpLambda", "name": "op", "config": {"name": "op", "function": "math.multiply"}, "inbound_nodes": [[["join", 0, 0, {"y": 2.0}]]]},
    outputs=[["join", 0, 0], ["op", 0, 0]],
)  # fmt: skip


FUNCTIONAL_3 = functional(
    SOURCE,
    lstm_on({"args": [tensor("input")], "kwargs": {"mask": None}}, name="one", return_sequences=True, return_state=True),
    lstm_on({"args": [tensor("one")], "kwargs": {"initial_state": [tensor("one", 1), tensor("one", 2)]}}, name="two"),
    placed("Add", "join", [{"args": [[tensor("one", 1), tensor("two")]], "kwargs": {}}]),
    {"module": "keras.src.ops.numpy", "class_name": "Multiply", "name": "op", "config": {"name": "op"}, "inbound_nodes": [{"args": [tensor("join"), 2.0], "kwargs": {}}]},
    outputs=[["join", 0, 0], ["op", 0, 0]],
)  # fmt: skip


@pytest.mark.parametrize(("config", "version"), [(FUNCTIONAL_2, "2.15.0"), (FUNCTIONAL_3, "3.15.1")])
@pytest.mark.parametrize("seed", range(4))
def test_mutants_of_a_graph_are_refused_or_read(tmp_path, config, version, seed):
    """Of graphs in which something is deleted, exchanged or of another type each is a model, or refused in a sentence."""
    chance = random.Random(seed)
    names = ("lstm_cell/kernel:0", "lstm_cell/recurrent_kernel:0", "lstm_cell/bias:0")
    weights = {name: dict(zip(names, lstm_weights(width), strict=True)) for name, width in (("one", 3), ("two", 4))}
    whole = write_hdf5(tmp_path / "whole.h5", config, weights, version=version)
    assert len(reader.load(whole).outputs) == 2
    path = tmp_path / "mutant.h5"
    for _ in range(150):
        write_hdf5(path, mutant(config, chance), weights, version=version)
        outcome(path)


WRAPPED = {"class_name": "LSTM", "config": lstm_config(return_sequences=True)["config"]}


OPTIONS = [
    ("LSTM", {**WRAPPED["config"], "time_major": False, "zero_output_for_mask": False, "return_state": False}),
    ("RNN", {"cell": {"class_name": "LSTMCell", "config": {**lstm_config()["config"]}}, "return_sequences": True}),
    ("Bidirectional", {"layer": WRAPPED, "backward_layer": None, "merge_mode": "concat"}),
    ("TimeDistributed", {"layer": keras_layer("Dense", "d", **DENSE)}),
    ("Dense", DENSE),
    ("Masking", {"mask_value": 0.0}),
    ("Activation", {"activation": "relu"}),
    ("ELU", {"alpha": 1.0}),
    ("LeakyReLU", {"negative_slope": 0.1}),
    ("ReLU", {"max_value": 1.0, "negative_slope": 0.1, "threshold": 0.1}),
    ("Softmax", {"axis": -1}),
    ("ThresholdedReLU", {"theta": 1.0}),
    ("PReLU", {"shared_axes": [1]}),
    ("BatchNormalization", {"axis": -1, "epsilon": 0.1, "center": True, "scale": True}),
    ("LayerNormalization", {"axis": -1, "epsilon": 0.1, "center": True, "scale": True, "rms_scaling": False}),
    ("Normalization", {"axis": -1, "mean": [1.0, 2.0, 3.0, 4.0], "variance": [1.0, 2.0, 3.0, 4.0], "invert": False}),
    ("Rescaling", {"scale": 1.0, "offset": 1.0}),
    (
        "Conv1D",
        {"filters": 3, "kernel_size": [2], "strides": [1], "padding": "causal", "dilation_rate": [1], "groups": 1},
    ),
    ("MaxPooling1D", {"pool_size": [2], "strides": [2], "padding": "valid", "data_format": "channels_last"}),
    ("AveragePooling1D", {"pool_size": 2, "strides": None, "padding": "valid"}),
    ("GlobalMaxPooling1D", {"keepdims": True, "data_format": "channels_last"}),
    ("GlobalAveragePooling1D", {"keepdims": True}),
    ("Flatten", {"data_format": "channels_last"}),
    ("Reshape", {"target_shape": [8, 3]}),
    ("Permute", {"dims": [2, 1]}),
    ("ZeroPadding1D", {"padding": [1, 1]}),
    ("Cropping1D", {"cropping": [1, 1]}),
    ("Concatenate", {"axis": -1}),
    ("Dropout", {"rate": 0.1}),
]


ODD = [
    None, True, -1, 0, 1 << 64, 10**400, -(10**400), 1e308, float("1e999"), 0.5, "x", "", "softmax", [], [[]], {}, [None], [1 << 70], [10**400],
    [1, 2], ["x"], [[1, 2], [3]], {"class_name": "x"}, {"class_name": []}, {"class_name": "LSTM", "config": {}}, {"config": {}},
    {"class_name": "ELU", "config": {"name": "r", "alpha": 10**400}}, {"class_name": "Softmax", "config": {"name": "r", "axis": {}}},
    {"class_name": "function", "config": "relu"}, {"class_name": "StackedRNNCells", "config": {"name": "s", "cells": [5]}},
    {"class_name": "StackedRNNCells", "config": {"name": "s", "cells": []}}, {"class_name": "LSTMCell", "config": {"name": "c", "units": "x"}},
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_options_of_every_type_are_refused_or_read(tmp_path, kind, options):
    """Whatever is in an option of whatever layer, it is understood or refused in a sentence."""
    path = write_hdf5(tmp_path / "a.h5", SIMPLE)
    for option in (*options, "unknown", "name", "dtype"):
        for value in ODD:
            layer = {"class_name": kind, "config": {"name": "k", **options, option: value}}
            config = sequential(input_config(3, 6), lstm_config(return_sequences=True), layer)
            text = json.dumps(config).replace("Infinity", "1e999")
            with h5py.File(path, "r+") as file:
                file.attrs["model_config"] = text
            outcome(path)
