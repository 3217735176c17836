"""The configuration of a Keras model, as its file holds it, to a plain list of layers in order."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from lstmserve_server.activations import Era
from lstmserve_server.errors import ModelRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lstmserve_server.loading.limits import Limits

_KERAS_MODULES: Final = ("keras", "tf_keras", "tensorflow", "builtins")
_NAME_LENGTH: Final = 256
_FUNCTIONAL: Final = ("Functional", "Model")


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """A layer as the file configures it; nothing in `options` has been checked."""

    kind: str
    name: str
    options: Mapping[str, Any]

    inside: ModelConfig | None = None
    """The model that the layer is, if it is one."""

    outer: tuple[str, ...] = ()
    """The names of the models that the layer is nested in, outermost first."""

    @property
    def path(self) -> tuple[str, ...]:
        """The layer's own name behind those of the models around it."""
        return (*self.outer, self.name)

    def __str__(self) -> str:
        """Names the layer in errors."""
        return f"layer {'/'.join(self.path)!r} ({self.kind})"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model as the file configures it."""

    layers: tuple[LayerConfig, ...]
    """All layers, in the order in which Keras numbers them and stores their weights."""

    chain: tuple[LayerConfig, ...] | None
    """The layers in the order in which values pass through them; None where they form no chain."""

    not_a_chain: str
    """Why they form no chain; empty where they do."""

    declared_shape: tuple[int | None, ...] | None
    """Shape of the input with its batch axis, where the model as a whole declares it."""


def era_of(keras_version: str) -> Era:
    """Returns the era of the Keras that wrote a file. Before Keras 2.0 files did not always say their version."""
    return Era.KERAS_3 if int(keras_version.split(".", maxsplit=1)[0]) >= Era.KERAS_3.value else Era.KERAS_2


def is_standalone(keras_version: str) -> bool:
    """Returns whether a file was written by the Keras that was a package of its own, up to 2.3.1, not by tf.keras."""
    major, minor = (int(part) for part in re.findall(r"\d+", keras_version)[:2])
    return (major, minor) < (2, 4) and "tf" not in keras_version


def parse(config: Mapping[str, Any], limits: Limits) -> ModelConfig:
    """Returns the layers of a model.

    Raises:
        ModelRefused: the configuration is no Sequential and no functional model of Keras' own.
    """
    kind = _text(config, "class_name", "the configuration")
    _require_of_keras(config, f"the model ({kind})")
    inner = config.get("config")
    if kind == "Sequential":
        layers = _layers(inner if isinstance(inner, list) else _mapping(inner, kind).get("layers"), kind, limits)
        declared = inner.get("build_input_shape") if isinstance(inner, dict) else None
        if declared is None and isinstance(config.get("build_config"), dict):
            declared = config["build_config"].get("input_shape")
        return ModelConfig(layers, layers, "", _shape(declared))
    if kind in _FUNCTIONAL:
        inner = _mapping(inner, kind)
        entries: Any = inner.get("layers")
        layers = _layers(entries, kind, limits)
        chain, obstacle = _chain_of(entries, layers, inner)
        return ModelConfig(layers, chain, obstacle, None)
    message = (
        f"the model is of class {kind!r}, whose code is not in the file; only Sequential and functional models can be "
        "served. Serve one of its LSTM layers with --layer, or rebuild it as one of these two and copy the weights over"
    )
    raise ModelRefused(message)


def flat(config: ModelConfig, outer: tuple[str, ...] = ()) -> tuple[LayerConfig, ...]:
    """Returns the chain of a model, with the chains of the models in it in their places.

    Raises:
        ModelRefused: it is no chain, or one of the models in it is none.
    """
    if config.chain is None:
        where = f"the model {'/'.join(outer)!r} in it" if outer else "the model"
        message = f"{where} is no chain of layers: {config.not_a_chain}"
        raise ModelRefused(message)
    layers: list[LayerConfig] = []
    for layer in config.chain:
        if layer.inside is not None:
            layers += flat(layer.inside, (*outer, layer.name))
        elif not (outer and layer.kind == "InputLayer"):
            layers.append(replace(layer, outer=outer))
    return tuple(layers)


def inner_layer(entry: Any, what: str) -> LayerConfig:
    """Returns the layer that a wrapper such as TimeDistributed holds; `what` names the place in errors."""
    entry = _mapping(entry, what)
    kind = _text(entry, "class_name", what)
    options = _mapping(entry.get("config"), kind)
    layer = LayerConfig(kind, _name(entry, options, kind), options)
    _require_of_keras(entry, str(layer))
    return layer


def _layers(entries: Any, model_kind: str, limits: Limits) -> tuple[LayerConfig, ...]:
    if not isinstance(entries, list) or not entries:
        message = f"the {model_kind} model lists no layers"
        raise ModelRefused(message)
    if len(entries) > limits.layers:
        message = f"the model has {len(entries)} layers; expected at most {limits.layers}"
        raise ModelRefused(message)
    layers = []
    for entry in entries:
        entry = _mapping(entry, "the list of layers")  # noqa: PLW2901 - the same value, checked
        kind = _text(entry, "class_name", "a layer")
        options = _mapping(entry.get("config"), kind)
        inside = parse(entry, limits) if kind in ("Sequential", *_FUNCTIONAL) else None
        layer = LayerConfig(kind, _name(entry, options, kind), options, inside)
        _require_of_keras(entry, str(layer))
        layers.append(layer)
    names = [layer.name for layer in layers]
    if len(set(names)) < len(names):
        message = f"two layers have the same name; the names are {', '.join(map(repr, names))}"
        raise ModelRefused(message)
    return tuple(layers)


def _name(entry: Mapping[str, Any], options: Mapping[str, Any], kind: str) -> str:
    """Returns the name of a layer, which stands in its options, and in a functional model beside them too."""
    name = options.get("name", entry.get("name"))
    if not isinstance(name, str) or not 1 <= len(name) <= _NAME_LENGTH or not name.isprintable():
        message = f"a layer ({kind}) has the name {_short(name)}; expected 1 to {_NAME_LENGTH} printable characters"
        raise ModelRefused(message)
    if entry.get("name", name) != name:
        message = f"a layer ({kind}) has two names, {_short(entry['name'])} and {name!r}"
        raise ModelRefused(message)
    return name


def _chain_of(
    entries: list[Mapping[str, Any]], layers: tuple[LayerConfig, ...], model: Mapping[str, Any]
) -> tuple[tuple[LayerConfig, ...] | None, str]:
    """Returns the layers of a functional model from its input to its output, or None and why that is no chain."""
    try:
        models = {layer.name for layer in layers if layer.inside is not None}
        before = {layer.name: _inputs(entry, layer, models) for entry, layer in zip(entries, layers, strict=True)}
        inputs = _endpoints(model.get("input_layers"), models)
        outputs = _endpoints(model.get("output_layers"), models)
    except _NoChain as obstacle:
        return None, str(obstacle)
    if len(inputs) != 1 or len(outputs) != 1:
        return None, f"it has {len(inputs)} inputs and {len(outputs)} outputs"
    by_name = {layer.name: layer for layer in layers}
    name = outputs[0]
    chain: list[LayerConfig] = []
    while name in by_name and len(chain) < len(layers):
        chain.append(by_name[name])
        sources = before[name]
        if not sources:
            break
        if len(sources) > 1:
            return None, f"{by_name[name]} has {len(sources)} inputs: {', '.join(map(repr, sources))}"
        name = sources[0]
    if not chain or chain[-1].name != inputs[0] or len(chain) != len(layers):
        unused = ", ".join(str(layer) for layer in layers if layer not in chain)
        return None, f"the path from its output does not lead through {unused or 'its input'}"
    return tuple(reversed(chain)), ""


class _NoChain(Exception):
    """Why a functional model is no chain."""


def _inputs(entry: Mapping[str, Any], layer: LayerConfig, models: set[str]) -> list[str]:
    """Returns the names of the layers that a layer of a functional model is called on; some of them are models."""
    nodes = entry.get("inbound_nodes") or []
    if not isinstance(nodes, list):
        message = f"{layer} has inbound_nodes that are no list"
        raise ModelRefused(message)
    if len(nodes) > 1:
        message = f"{layer} is used {len(nodes)} times"
        raise _NoChain(message)
    if not nodes:
        return []
    try:
        histories, arguments = _keras_3_node(nodes[0]) if isinstance(nodes[0], dict) else _keras_2_node(nodes[0])
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        message = f"{layer} has inbound_nodes that cannot be read: {error!r}"
        raise ModelRefused(message) from error
    for argument, value in arguments.items():
        if argument == "training" and value:
            message = (
                f"{layer} was called with training=True (Monte-Carlo dropout), so Keras itself answers at random. Save the "
                "model anew without it"
            )
            raise ModelRefused(message)
        if value not in (None, False) and argument != "training":
            message = f"{layer} is called with {argument}={value!r}"
            raise _NoChain(message)
    for name, node, tensor in histories:
        if (node, tensor) != (0, 0) and not (name in models and (node, tensor) == (1, 0)):  # Keras 2 counts its making
            message = f"{layer} reads output {tensor} of node {node} of {name!r}"
            raise _NoChain(message)
    return [name for name, _, _ in histories]


def _keras_2_node(node: Any) -> tuple[list[tuple[str, int, int]], Mapping[str, Any]]:
    """Reads [[name, node, tensor, {arguments}], ...]."""
    arguments: dict[str, Any] = {}
    for item in node:
        arguments |= item[3] if len(item) > 3 else {}  # noqa: PLR2004 - the fourth, as in the docstring
    return [_history(item[:3]) for item in node], arguments


def _keras_3_node(node: Mapping[str, Any]) -> tuple[list[tuple[str, int, int]], Mapping[str, Any]]:
    """Reads {"args": [tensor, ...], "kwargs": {...}}, a tensor being {"config": {"keras_history": [name, node, tensor]}}."""
    tensors = [item for argument in node["args"] for item in (argument if isinstance(argument, list) else [argument])]
    plain = [tensor for tensor in tensors if isinstance(tensor, (int, float))]
    if plain:
        message = f"it computes with the number {plain[0]!r} on the way"
        raise _NoChain(message)
    histories = [_history(tensor["config"]["keras_history"]) for tensor in tensors]
    return histories, dict(node.get("kwargs") or {})


def _history(value: Any) -> tuple[str, int, int]:
    """Returns the layer, the node and the tensor that an edge comes from."""
    name, node, tensor = value
    if not isinstance(name, str) or type(node) is not int or type(tensor) is not int:
        message = f"{_short(value)} is no [name, node, tensor]"
        raise ValueError(message)
    return name, node, tensor


def _endpoints(value: Any, models: set[str]) -> list[str]:
    """Returns the layer names of `input_layers` or `output_layers`: one [name, node, tensor], or a list of such."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        value = [value]
    try:
        endpoints = [_history(item) for item in value]
    except (TypeError, ValueError) as error:
        message = f"input_layers or output_layers of the model cannot be read: {error}"
        raise ModelRefused(message) from error
    for name, node, tensor in endpoints:
        if (node, tensor) != (0, 0) and not (name in models and (node, tensor) == (1, 0)):
            message = f"its input or output is number {tensor} of node {node} of layer {name!r}"
            raise _NoChain(message)
    return [name for name, _, _ in endpoints]


def _require_of_keras(entry: Mapping[str, Any], what: str) -> None:
    """Refuses classes that are not Keras' own: their code is not in the file, whatever they are called."""
    module, registered = entry.get("module"), entry.get("registered_name")
    foreign = module is not None and str(module).split(".")[0] not in _KERAS_MODULES
    if foreign or (registered is not None and (module is None or registered != entry.get("class_name"))):
        message = (
            f"{what} is a class of its author's own ({_short(registered or module)}), whose code is not in the file"
        )
        raise ModelRefused(message)


def _shape(value: Any) -> tuple[int | None, ...] | None:
    if not isinstance(value, list) or not all(length is None or type(length) is int for length in value):
        return None
    return tuple(value)


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        message = f"{what} holds a {type(value).__name__} where its configuration should be"
        raise ModelRefused(message)
    return value


def _text(value: Mapping[str, Any], key: str, what: str) -> str:
    text = value.get(key)
    if not isinstance(text, str) or not text.isprintable() or len(text) > _NAME_LENGTH:
        message = f"{what} has the {key} {_short(text)}; expected up to {_NAME_LENGTH} printable characters"
        raise ModelRefused(message)
    return text


def _short(value: Any) -> str:
    """Returns what a stranger wrote, fit for an error."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."  # noqa: PLR2004 - a line
