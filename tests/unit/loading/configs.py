"""Configurations and refusals that the tests of loading share."""

from __future__ import annotations

import pytest

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading import reader
from tests.support.builders import (
    input_config,
    lstm_config,
    sequential,
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
