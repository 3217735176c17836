"""Models and files for the tests, made without Keras. All numbers differ by gate, unit and step."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lstmserve_server.model import activations
from lstmserve_server.model.activations import Activation, KerasMajor
from lstmserve_server.model.engines import select
from lstmserve_server.model.engines.base import LSTMKernel
from lstmserve_server.model.lstm import LSTMSpec, LSTMWeights
from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.model.numerics import ComputeConfig, Engine, Numerics, matmul_of
from lstmserve_server.model.spec import InputSpec, LayerSpec, ModelSpec, OutputSpec, Source
from lstmserve_server.runtime.registry import Registry, ServedModel

Array = NDArray[Any]


def cell_of(engine: Engine, spec: LSTMSpec, weights: LSTMWeights, numerics: Numerics = Numerics.EXACT) -> LSTMKernel:
    """Returns an LSTM layer as an engine computes it."""
    made, computed = select.select_kernel(
        "lstm", spec, weights, ComputeConfig(matmul_of(numerics), weights.kernel.dtype, numerics, engine)
    )
    assert computed.engine.startswith(engine.value)
    return made


def numbers(*shape: int, seed: int = 0, scale: float = 1.0, dtype: Any = np.float32) -> Array:
    """Returns numbers that all differ, normal around zero."""
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(dtype)


def activation(name: str, era: KerasMajor = KerasMajor.KERAS_3) -> Activation:
    """Returns an activation that exists."""
    found = activations.find(name, era)
    assert found is not None
    return found


def lstm_layer(
    features: int,
    units: int,
    *,
    name: str = "lstm",
    seed: int = 1,
    dtype: Any = np.float32,
    use_bias: bool = True,
    go_backwards: bool = False,
    return_sequences: bool = False,
    inner: str = "tanh",
    recurrent: str = "sigmoid",
) -> LayerSpec:
    """Returns an LSTM layer."""
    weights = {
        "kernel": numbers(features, 4 * units, seed=seed, scale=0.7, dtype=dtype),
        "recurrent_kernel": numbers(units, 4 * units, seed=seed + 1, scale=0.8 / units**0.5, dtype=dtype),
    }
    if use_bias:
        weights["bias"] = numbers(4 * units, seed=seed + 2, scale=0.5, dtype=dtype)
    options = {
        "units": units,
        "activation": activation(inner),
        "recurrent_activation": activation(recurrent),
        "use_bias": use_bias,
        "return_sequences": return_sequences,
        "go_backwards": go_backwards,
    }
    return LayerSpec(name, "LSTM", options, weights, ((None, units) if return_sequences else (units,),))


def dense_layer(
    features: int,
    units: int,
    *,
    name: str = "dense",
    dtype: Any = np.float32,
    inner: str = "linear",
    sequence: bool = False,
) -> LayerSpec:
    """Returns a Dense layer."""
    weights = {"kernel": numbers(features, units, seed=7, dtype=dtype), "bias": numbers(units, seed=8, dtype=dtype)}
    options = {"units": units, "activation": activation(inner), "use_bias": True}
    return LayerSpec(name, "Dense", options, weights, ((None, units) if sequence else (units,),))


def chain(*layers: LayerSpec, features: int = 1, vocabulary: int | None = None) -> ModelSpec:
    """Returns a model of layers, one after the other, on features or on token ids."""
    shape = (None, features) if vocabulary is None else (None,)
    dtype = next(layer for layer in layers if "kernel" in layer.weights).weights["kernel"].dtype
    source = LayerSpec("input", "InputLayer", {}, {}, (shape,))
    placed = tuple(dataclasses.replace(layer, inputs=(place,)) for place, layer in enumerate(layers))
    return ModelSpec(
        Source("made.keras", "keras-zip", "3.15.1"),
        (source, *placed),
        dtype,
        (InputSpec("input", shape, 0, vocabulary),),
        (OutputSpec(layers[-1].name, layers[-1].output_shapes[0], len(layers)),),
    )


def model(
    *layers: LayerSpec, features: int, numerics: Numerics = Numerics.EXACT, engine: Engine = Engine.NUMPY
) -> RecurrentModel:
    """Returns a model of layers, ready to compute."""
    return RecurrentModel(chain(*layers, features=features), numerics, engine)


def small_model(**rest: Any) -> RecurrentModel:
    """Returns two LSTMs of 5 and 4 units and a Dense head of 2, on 3 features."""
    first = lstm_layer(3, 5, name="first", return_sequences=True)
    second = lstm_layer(5, 4, name="second", seed=4)
    return model(first, second, dense_layer(4, 2), features=3, **rest)


def served(name: str = "small", of: RecurrentModel | None = None) -> ServedModel:
    """Returns a model as the server has it."""
    of = of or small_model()
    return ServedModel.prepare(name, of.description, of.numerics)


def registry(*models: ServedModel) -> Registry:
    """Returns a registry of models, or of the small one."""
    return Registry(models or [served()])


# Files, as the two generations of Keras write them.


def keras_layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
    """Returns a layer of a Sequential's configuration."""
    return {"class_name": kind, "config": {"name": name, "dtype": "float32", **config}}


def sequential(*layers: dict[str, Any]) -> dict[str, Any]:
    """Returns the configuration of a Sequential model."""
    return {"class_name": "Sequential", "config": {"name": "sequential", "layers": list(layers)}}


def lstm_config(units: int = 4, name: str = "lstm", **config: Any) -> dict[str, Any]:
    """Returns the configuration of an LSTM layer."""
    options = {
        "units": units,
        "activation": "tanh",
        "recurrent_activation": "sigmoid",
        "use_bias": True,
        "return_sequences": False,
    }
    return keras_layer("LSTM", name, **(options | config))


def input_config(features: int | None = 3, time: int | None = None) -> dict[str, Any]:
    """Returns the configuration of an InputLayer."""
    return keras_layer("InputLayer", "input_layer", batch_shape=[None, time, features])


def lstm_weights(features: int = 3, units: int = 4, seed: int = 1) -> list[Array]:
    """Returns kernel, recurrent kernel and bias."""
    return list(lstm_layer(features, units, seed=seed).weights.values())


SIMPLE = sequential(input_config(), lstm_config())
"""One LSTM of 4 units on 3 features."""


def weights_file(groups: Mapping[str, Sequence[Array]]) -> bytes:
    """Returns a `model.weights.h5` with arrays by group, such as "layers/lstm/cell/vars"."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for path, arrays in groups.items():
            for i, array in enumerate(arrays):
                file[f"{path}/{i}"] = array
    return buffer.getvalue()


def write_zip(
    path: Path,
    config: Any = SIMPLE,
    weights: bytes | None = None,
    *,
    version: str = "3.15.1",
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Writes a `.keras` archive."""
    if weights is None:
        weights = weights_file({"layers/lstm/cell/vars": lstm_weights()})
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": version, "date_saved": "2026-01-02@03:04:05"}))
        archive.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        archive.writestr("model.weights.h5", weights)
    return path


def write_hdf5(
    path: Path,
    config: Any = SIMPLE,
    weights: Mapping[str, Mapping[str, Array]] | None = None,
    *,
    version: str | None = "2.15.0",
) -> Path:
    """Writes a whole-model `.h5`: weights by layer name and weight name."""
    if weights is None:
        names = ("lstm/lstm_cell/kernel:0", "lstm/lstm_cell/recurrent_kernel:0", "lstm/lstm_cell/bias:0")
        weights = {"lstm": dict(zip(names, lstm_weights(), strict=True))}
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = config if isinstance(config, str) else json.dumps(config)
        if version is not None:
            file.attrs["keras_version"] = version
        root = file.create_group("model_weights")
        for layer, arrays in weights.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in arrays]
            for name, array in arrays.items():
                group[name] = array
    return path
