"""Parses the configuration of a Keras model into a list of layers in order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.store.limits import LoadLimits
from lstmserve_server.model.activations import KerasMajor

_KERAS_MODULES: Final = ("keras", "tf_keras", "tensorflow", "builtins")
_NAME_LENGTH: Final = 256
_FUNCTIONAL: Final = ("Functional", "Model")
_OPERATIONS_IN_HDF5: Final = (
    "Add Any Concatenate Divide ExpandDims LogicalOr Multiply Negative NotEqual OnesLike Subtract ZerosLike".split()
)
TENSORFLOW_OPERATIONS: Final = {
    "__operators__.add": "Add",
    "math.add": "Add",
    "math.multiply": "Multiply",
    "math.negative": "Negative",
    "math.subtract": "Subtract",
    "math.truediv": "TrueDivide",
}


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """A layer as the file configures it; nothing in `options` has been checked."""

    kind: str
    name: str
    options: Mapping[str, Any]

    nodes: tuple[Any, ...] = ()
    """Its calls in a functional model, each as the file has it."""

    operation: bool = False
    """Whether it is not a layer but an operation of Keras 3 on tensors, such as `a + b`."""

    inside: ModelConfig | None = None
    """The model that the layer is, if it is one."""

    outer: tuple[str, ...] = ()
    """The names of the models that the layer is nested in, outermost first."""

    @property
    def path(self) -> tuple[str, ...]:
        """The layer's own name after those of the models around it."""
        return (*self.outer, self.name)

    def __str__(self) -> str:
        """Names the layer in errors."""
        return f"layer {'/'.join(self.path)!r} ({self.kind})"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model as the file configures it."""

    layers: tuple[LayerConfig, ...]
    """All layers, in the order in which Keras numbers them and stores their weights."""

    functional: bool
    """Whether its layers form a graph, rather than a chain in the order of the list."""

    inputs: Any = None
    """Of a functional model where its inputs are in the graph, as the file has it."""

    outputs: Any = None
    """The same of its outputs."""

    declared_shape: tuple[int | None, ...] | None = None
    """Shape of the input with its batch axis, where a Sequential as a whole declares it."""


def era_of(keras_version: str) -> KerasMajor:
    """Returns the era of the Keras that wrote a file. Before Keras 2.0 files did not always say their version."""
    return (
        KerasMajor.KERAS_3
        if int(keras_version.split(".", maxsplit=1)[0]) >= KerasMajor.KERAS_3.value
        else KerasMajor.KERAS_2
    )


def is_standalone(keras_version: str) -> bool:
    """Returns whether a file was written by the Keras that was a package of its own, up to 2.3.1, not by tf.keras."""
    return tuple(int(part) for part in re.findall(r"\d+", keras_version)[:2]) < (2, 4) and "tf" not in keras_version


def is_before_sigmoid(keras_version: str) -> bool:
    """Returns whether the default of recurrent_activation was still hard_sigmoid: in standalone Keras up to 2.2, and in TF 1."""
    major, minor = (int(part) for part in re.findall(r"\d+", keras_version)[:2])
    return (major, minor) < (2, 3)


def merges_masks_by(keras_version: str) -> str:
    """Returns how a Keras made the mask of merged sequences.

    Up to Keras 2 a step is kept where all masks keep it ("and"), since 3.4 where one does ("or"); those between lost it
    ("none"). A Keras 3 that does not say which it is may be any of these ("unknown").
    """
    version = tuple(int(part) for part in re.findall(r"\d+", keras_version)[:2])
    if version == (KerasMajor.KERAS_3.value,):
        return "unknown"
    return "and" if version < (3, 0) else "none" if version < (3, 4) else "or"


def parse(config: Mapping[str, Any], limits: LoadLimits) -> ModelConfig:
    """Returns the layers of a model.

    Raises:
        UnsupportedModelError: the configuration is neither a Sequential nor a functional model of Keras' own.
    """
    kind = _text(config, "class_name", "the configuration")
    _require_of_keras(config, f"the model ({kind})")
    inner = config.get("config")
    if kind == "Sequential":
        layers = _layers(inner if isinstance(inner, list) else _mapping(inner, kind).get("layers"), kind, limits)
        declared = inner.get("build_input_shape") if isinstance(inner, dict) else None
        if declared is None and isinstance(config.get("build_config"), dict):
            declared = config["build_config"].get("input_shape")
        return ModelConfig(layers, functional=False, declared_shape=_shape(declared))
    if kind in _FUNCTIONAL:
        inner = _mapping(inner, kind)
        layers = _layers(inner.get("layers"), kind, limits)
        return ModelConfig(
            layers, functional=True, inputs=inner.get("input_layers"), outputs=inner.get("output_layers")
        )
    message = (
        f"the model is of class {kind!r}, whose code is not in the file. Only Sequential and functional models can be "
        "served. Serve one of its LSTM layers with --layer, or rebuild it as one of these two and copy the weights over"
    )
    raise UnsupportedModelError(message)


def inner_layer(entry: Any, what: str) -> LayerConfig:
    """Returns the layer that a wrapper such as TimeDistributed holds; `what` names the place in errors."""
    entry = _mapping(entry, what)
    kind = _text(entry, "class_name", what)
    options = _mapping(entry.get("config"), kind)
    layer = LayerConfig(kind, _name(entry, options, kind), options)
    _require_of_keras(entry, str(layer))
    return layer


def _layers(entries: Any, model_kind: str, limits: LoadLimits) -> tuple[LayerConfig, ...]:
    if not isinstance(entries, list) or not entries:
        message = f"the {model_kind} model lists no layers"
        raise UnsupportedModelError(message)
    if len(entries) > limits.layers:
        message = f"the model has {len(entries)} layers; expected at most {limits.layers}"
        raise UnsupportedModelError(message)
    layers = []
    for entry in entries:
        entry = _mapping(entry, "the list of layers")  # noqa: PLW2901 - the same value, checked
        kind = _text(entry, "class_name", "a layer")
        options = _mapping(entry.get("config"), kind)
        inside = parse(entry, limits) if kind in ("Sequential", *_FUNCTIONAL) else None
        name, operation = _name(entry, options, kind), is_operation(entry, options)
        if kind == "TFOpLambda" and str(options.get("function")) in TENSORFLOW_OPERATIONS:
            kind, operation = TENSORFLOW_OPERATIONS[options["function"]], True
        layer = LayerConfig(kind, name, options, _nodes(entry, name), operation, inside)
        if not operation:
            _require_of_keras(entry, str(layer))
        layers.append(layer)
    names = [layer.name for layer in layers]
    if len(set(names)) < len(names):
        message = f"two layers have the same name; the names are {', '.join(map(repr, names))}"
        raise UnsupportedModelError(message)
    return tuple(layers)


def _name(entry: Mapping[str, Any], options: Mapping[str, Any], kind: str) -> str:
    """Returns the name of a layer, which is in its options, and in a functional model alongside them too."""
    name = options.get("name", entry.get("name"))
    if not isinstance(name, str) or not 1 <= len(name) <= _NAME_LENGTH or not name.isprintable():
        message = f"a layer ({kind}) has the name {_short(name)}; expected 1 to {_NAME_LENGTH} printable characters"
        raise UnsupportedModelError(message)
    if entry.get("name", name) != name:
        message = f"a layer ({kind}) has two names, {_short(entry['name'])} and {name!r}"
        raise UnsupportedModelError(message)
    return name


def _nodes(entry: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    """Returns the calls of a layer; a Sequential has none."""
    nodes = entry.get("inbound_nodes") or []
    if not isinstance(nodes, list):
        message = f"layer {name!r} has inbound_nodes that are not list"
        raise UnsupportedModelError(message)
    return tuple(nodes)


def is_operation(entry: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Returns whether an entry is a tensor operation; in `.h5` files such entries lack their module."""
    module = entry.get("module")
    if module is not None:
        return str(module).startswith("keras.src.ops.")
    return "trainable" not in options and "dtype" not in options and str(entry.get("class_name")) in _OPERATIONS_IN_HDF5


def _require_of_keras(entry: Mapping[str, Any], what: str) -> None:
    """Refuses classes that are not Keras' own: their code is not in the file, whatever they are called."""
    module, registered = entry.get("module"), entry.get("registered_name")
    foreign = module is not None and str(module).split(".")[0] not in _KERAS_MODULES
    if foreign or (registered is not None and (module is None or registered != entry.get("class_name"))):
        message = f"{what} is the custom class {_short(registered or module)}; its code is not in the file"
        raise UnsupportedModelError(message)


def _shape(value: Any) -> tuple[int | None, ...] | None:
    if not isinstance(value, list) or not all(length is None or type(length) is int for length in value):
        return None
    return tuple(value)


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        message = f"{what} holds a {type(value).__name__} where its configuration should be"
        raise UnsupportedModelError(message)
    return value


def _text(value: Mapping[str, Any], key: str, what: str) -> str:
    text = value.get(key)
    if not isinstance(text, str) or not text.isprintable() or len(text) > _NAME_LENGTH:
        message = f"{what} has the {key} {_short(text)}; expected up to {_NAME_LENGTH} printable characters"
        raise UnsupportedModelError(message)
    return text


def _short(value: Any) -> str:
    """Returns what a stranger wrote, fit for an error."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."  # noqa: PLR2004 - a line
