"""Loads the layers of the reference model: from the model file, or from what our loader read.

A reference model should share as little with our code as possible: a file that Keras itself loads shares only its configuration.
It is loaded after our loader has found only known layers in it, and in Keras' safe mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from keras.src.legacy.saving import legacy_h5_format
from keras.src.saving import serialization_lib
from tf_keras.src.saving import serialization_lib as old_serialization

from lstmserve.v1 import shadow_pb2
from lstmserve_server.model.activations import Activation
from lstmserve_server.model.spec import LayerSpec, ModelSpec
from lstmserve_server.shadow.reference import rebuilt_file
from lstmserve_server.shadow.reference.free_running import does_nothing
from lstmserve_server.shadow.reference.keras_model import ReferenceModel

_LOADABLE: Final = ("keras-zip", "keras-hdf5")

_OLD_HARD_SIGMOID: Final = "hard_sigmoid(x/5+1/2)"


def old_hard_sigmoid(x: Any) -> Any:
    """Returns what `hard_sigmoid` was up to Keras 2."""
    return tf.clip_by_value(0.2 * x + 0.5, 0.0, 1.0)


keras.saving.register_keras_serializable(package="lstmserve")(
    old_hard_sigmoid
)  # Bidirectional makes its layers again by name


class ModelFile(NamedTuple):
    """The file of a model."""

    copy: int | None
    """Descriptor of the copy that our loader has read; None where there is none."""
    whole: bool
    """Whether the model is all that is in it."""
    scratch: str
    """A folder in which this process may write."""


def witness_of(description: ModelSpec, file: ModelFile) -> ReferenceModel:
    """Returns the reference model of a model.

    Args:
        description: the model.
        file: the file that it is from.

    Raises:
        ValueError: there is no reference model.
    """
    try:
        return _from_file(description, file)
    except Exception as error:  # noqa: BLE001 - a library may fail on a file in any way; then there is the other witness
        reason = f"{type(error).__name__}: {error}".split("\n", maxsplit=1)[0][:200]
    layers = [_built(layer) for layer in description.layers]
    text = f"LSTM layers of Keras {keras.__version__}, built from what our loader found; not the file itself: {reason}"
    return ReferenceModel.of(shadow_pb2.REFERENCE_MODEL_KIND_KERAS_LAYERS, text, description, layers)


def _from_file(description: ModelSpec, file: ModelFile) -> ReferenceModel:
    source = description.source
    if not file.whole:
        raise ValueError("only a part of the model in it is served")
    if source.format not in _LOADABLE:
        message = f"no Keras loads a whole model from {source.format}"
        raise ValueError(message)
    if file.copy is None:
        raise ValueError("there is no copy of it that was checked")
    if source.keras_version.startswith("3"):
        library, kind, name = keras, shadow_pb2.REFERENCE_MODEL_KIND_KERAS_FILE, f"Keras {keras.__version__}"
    else:
        library, kind, name = (
            tf_keras,
            shadow_pb2.REFERENCE_MODEL_KIND_TF_KERAS_FILE,
            f"tf_keras {tf_keras.__version__}",
        )
    model = _load(library, file.copy, source.format, source.keras_version, file.scratch)
    if not model.built:
        model.build([None, *description.inputs[0].shape])
    layers = [_found(model, layer) for layer in description.layers]
    text = f"the file itself, written by Keras {source.keras_version} and loaded by {name}"
    return ReferenceModel.of(kind, text, description, layers, model)


def _load(library: Any, copy: int, form: str, version: str, scratch: str) -> Any:
    # tf_keras heeds its argument safe_mode for .keras files only; its scope holds for all that it deserializes.
    with old_serialization.SafeModeScope(True), serialization_lib.SafeModeScope(True):  # noqa: FBT003 - as they take it
        if form == "keras-zip":
            with rebuilt_file.archive(copy, version, scratch) as path:
                return library.models.load_model(path, compile=False, safe_mode=True)
        with rebuilt_file.hdf5(copy) as file:
            if library is keras:  # whose load_model takes no open file
                return legacy_h5_format.load_model_from_hdf5(file, compile=False, safe_mode=True)
            return library.models.load_model(file, compile=False)


def _found(model: Any, described: LayerSpec) -> Any:
    """Returns the layer of the file for a specification; None if it has no effect."""
    if does_nothing(described):
        return None
    inside, path = model, described.name.split("/")
    while path:
        if not hasattr(inside, "get_layer"):  # a layer that is called twice has the number of the call after its name
            return inside if path[0].isdecimal() else None
        for length in range(len(path), 0, -1):  # a name may have a slash in it
            try:
                inside = inside.get_layer("/".join(path[:length]))
            except ValueError:
                continue
            path = path[length:]
            break
        else:
            return None
    return inside


def _built(described: LayerSpec) -> Any:
    """Returns a Keras layer for a specification; None for a kind that needs no reference."""
    make = _MAKERS.get(described.kind)
    if make is None:
        return None
    layer = make(described)
    weights = [weight for part in described.parts or (described,) for weight in _ordered(part)]
    if weights:
        features = _features(described)
        layer.build((None, None, features) if described.kind != "Embedding" else (None, None))
        layer.set_weights(weights)
    return layer


def _ordered(described: LayerSpec) -> list[np.ndarray[Any, Any]]:
    return list(described.weights.values())


def _features(described: LayerSpec) -> int:
    part = (described.parts or (described,))[0]
    return int(next(iter(part.weights.values())).shape[0])


def _dtype(described: LayerSpec) -> str:
    part = (described.parts or (described,))[0]
    return str(next(iter(part.weights.values())).dtype) if part.weights else "float32"


def _lstm(described: LayerSpec) -> Any:
    options = described.options
    return keras.layers.LSTM(
        int(options["units"]),  # type: ignore[arg-type]  # the loader made it a number
        activation=_function(described.activations["activation"]),
        recurrent_activation=_function(described.activations["recurrent_activation"]),
        use_bias="bias" in described.weights,
        return_sequences=True,
        go_backwards=bool(options["go_backwards"]),
        zero_output_for_mask=bool(options.get("zero_output_for_mask", False)),
        use_cudnn=False,
        dtype=_dtype(described),
    )


def _bidirectional(described: LayerSpec) -> Any:
    ahead, back = (_lstm(part) for part in described.parts)
    mode = described.texts["merge_mode"]
    return keras.layers.Bidirectional(
        ahead, backward_layer=back, merge_mode=None if mode == "none" else mode, dtype=_dtype(described)
    )


def _dense(described: LayerSpec) -> Any:
    return keras.layers.Dense(
        int(described.options["units"]),  # type: ignore[arg-type]  # the loader made it a number
        activation=_function(described.activations["activation"]),
        use_bias="bias" in described.weights,
        dtype=_dtype(described),
    )


def _embedding(described: LayerSpec) -> Any:
    words, features = described.weights["embeddings"].shape
    return keras.layers.Embedding(words, features, dtype=_dtype(described))


def _activation(described: LayerSpec) -> Any:
    return keras.layers.Activation(_function(described.activations["activation"]))


_MAKERS: Final[dict[str, Callable[[LayerSpec], Any]]] = {
    "LSTM": _lstm,
    "Bidirectional": _bidirectional,
    "Dense": _dense,
    "Embedding": _embedding,
    "Activation": _activation,
}


def _function(activation: Activation) -> Any:
    """Returns a function of Keras by its definition; the old hard_sigmoid, which Keras 3 has no more, as it was."""
    if activation.name == _OLD_HARD_SIGMOID:
        return old_hard_sigmoid
    name = activation.name.partition("(")[0]
    return keras.activations.get(name)
