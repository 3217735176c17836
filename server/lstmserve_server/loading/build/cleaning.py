"""Rebuilds the configuration that Keras is given, from a closed list of what we understand.

Deserialization in Keras may run code: a regularizer that is a serialized Lambda, a module imported by name, a TensorFlow
function that reads files. The rebuilt configuration leaves out options that no answer depends on. Classes are known ones in known
places, module names are ours, and everything else is plain numbers and texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.build.rules import activations, masks
from lstmserve_server.loading.build.rules.registry import RULES
from lstmserve_server.loading.config import keras_config, keras_v1

LEFT_OUT: Final = (
    frozenset(
        "kernel_regularizer recurrent_regularizer bias_regularizer embeddings_regularizer activity_regularizer "
        "beta_regularizer gamma_regularizer alpha_regularizer "
        "kernel_constraint recurrent_constraint bias_constraint embeddings_constraint beta_constraint gamma_constraint "
        "alpha_constraint build_config seed".split()
    )
    | keras_v1.DROPPED
)
"""Options that decide nothing of an answer, and whose values may be objects of any kind."""

INITIALIZERS: Final = frozenset(
    "kernel_initializer recurrent_initializer bias_initializer embeddings_initializer beta_initializer gamma_initializer "
    "moving_mean_initializer moving_variance_initializer alpha_initializer".split()
)
"""The same; but a layer without them would begin with random weights, which takes long and is not possible in every type."""

_RESERVED: Final = ("class_name", "config", "module", "registered_name")  # by which Keras knows an object

_ANY_INITIALIZER: Final = "zeros"  # the weights of the file follow

_MODELS: Final = ("Sequential", "Functional", "Model")
_CELLS: Final = ("LSTMCell", "StackedRNNCells")
_LAYERS: Final = frozenset(RULES)
_OPERATIONS: Final = masks.OPERATIONS | {"Add", "Subtract", "Multiply", "Negative", "Divide", "TrueDivide"}

_NESTED: Final[dict[str, frozenset[str]]] = {
    "layer": _LAYERS,
    "backward_layer": _LAYERS,
    "cell": frozenset(_CELLS),
    "activation": frozenset(activations.LAYERS),
    "recurrent_activation": frozenset(activations.LAYERS),
}
"""Options that may be a layer, and of which classes."""

_MODULE_OF_LAYERS: Final = "keras.layers"
_MODULE_OF_OPERATIONS: Final = "keras.src.ops.numpy"
_MODULES_OF_MODELS: Final = {"Sequential": "keras", "Functional": "keras.src.models.functional"}
# Of Keras 2.12 to 2.15, which tf_keras has under its own name.
_OLD_MODULE: Final = re.compile(r"(tf_)?keras\.(src\.)?engine\.functional")

_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,40}")  # of a type or policy
_MAX_SHOWN_CHARACTERS: Final = 100  # characters of a stranger's in an error
_MAX_TEXT_LENGTH: Final = 256
_MAX_DEPTH: Final = 8  # of lists in lists


def cleaned(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the configuration of a whole model, cleaned; to clean it once more changes nothing.

    Args:
        config: the configuration in the file; `keras_config.parse` has accepted it.

    Raises:
        UnsupportedModelError: there is something in it that is not known in its place, called by its name.
    """
    return _model(config)


def _model(entry: Mapping[str, Any]) -> dict[str, Any]:
    kind, inner = entry.get("class_name"), entry.get("config")
    if not isinstance(kind, str) or kind not in _MODELS:
        raise _unknown("the model", kind)
    if isinstance(inner, list):  # a Sequential of early Keras 2
        return _entry(entry, [_listed(layer) for layer in inner])
    inner = _mapping(inner, f"the {kind} model")
    layers = inner.get("layers")
    if not isinstance(layers, list):
        message = f"the {kind} model lists no layers"
        raise UnsupportedModelError(message)
    config = {
        key: _plain(inner[key], f"the {kind} model", key)
        for key in ("name", "trainable", "build_input_shape", "input_layers", "output_layers")
        if key in inner
    }
    return _entry(entry, {**config, "layers": [_listed(layer) for layer in layers]})


def _listed(entry: Any) -> dict[str, Any]:
    """Returns a layer, operation or model that a model lists."""
    entry = _mapping(entry, "the list of layers")
    kind, options = entry.get("class_name"), entry.get("config")
    if kind in _MODELS:
        made = _model(entry)
    elif isinstance(options, dict) and keras_config.is_operation(entry, options):
        made = _operation(entry, options)
    else:
        made = _layer(entry, _LAYERS)
    if "name" in entry:
        made["name"] = _plain(entry["name"], _called(entry), "name")
    if "inbound_nodes" in entry:
        nodes = entry["inbound_nodes"] or []
        if not isinstance(nodes, list):
            raise _not_plain(_called(entry), "inbound_nodes", nodes)
        made["inbound_nodes"] = [_node(node, _called(entry)) for node in nodes]
    return made


def _operation(entry: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    what, kind = _called(entry), entry.get("class_name")
    if not isinstance(kind, str) or kind not in _OPERATIONS:
        raise _unknown(what, kind)
    return _entry(
        entry, {key: _option(what, key, value) for key, value in options.items()}, module=_MODULE_OF_OPERATIONS
    )


def _layer(entry: Any, known: frozenset[str]) -> dict[str, Any]:
    """Returns a layer of one of some classes."""
    entry = _mapping(entry, "a layer")
    kind, what = entry.get("class_name"), _called(entry)
    options = _mapping(entry.get("config"), what)
    if kind == "TFOpLambda" and str(options.get("function")) in keras_config.TENSORFLOW_OPERATIONS:
        known |= {"TFOpLambda"}
    if not isinstance(kind, str) or kind not in known:
        raise _unknown(what, kind)
    return _entry(entry, {key: _option(what, key, value) for key, value in options.items() if key not in LEFT_OUT})


def _option(what: str, key: str, value: Any) -> Any:
    if key in INITIALIZERS:
        return _ANY_INITIALIZER
    if key in _RESERVED:
        raise _not_plain(what, key, value)
    if key == "dtype":
        return _policy(what, value)
    if key in _NESTED and isinstance(value, dict):
        return _layer(value, _NESTED[key])
    if key == "cells" and isinstance(value, list):
        return [_layer(cell, _NESTED["cell"]) for cell in value]
    return _plain(value, what, key)


def _policy(what: str, value: Any) -> str | None:
    """Returns the name of a dtype or policy, which a file may store as an object."""
    name = value
    if isinstance(value, dict):
        inner = value.get("config")
        name = inner.get("name") if isinstance(inner, dict) else None
        if value.get("class_name") not in ("DTypePolicy", "Policy", "FloatDTypePolicy"):
            raise _not_plain(what, "dtype", value)
    if value is None:
        return None
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise _not_plain(what, "dtype", value)


def _node(node: Any, what: str) -> Any:
    """Returns one call of a layer, as Keras 3 writes it or as those before do."""
    if isinstance(node, dict):
        return {
            "args": _arguments(node.get("args", []), what, _MAX_DEPTH),
            "kwargs": {
                _argument(key, what): _arguments(value, what, _MAX_DEPTH)
                for key, value in _mapping(node.get("kwargs") or {}, what).items()
            },
        }
    return _of_keras_2(node, what, _MAX_DEPTH)


def _arguments(value: Any, what: str, depth: int) -> Any:
    """Returns arguments of a call in Keras 3: tensors, and plain values."""
    if isinstance(value, list) and depth:
        return [_arguments(item, what, depth - 1) for item in value]
    if not isinstance(value, dict):
        return _plain(value, what, "inbound_nodes")
    inner = value.get("config")
    if value.get("class_name") != "__keras_tensor__" or not isinstance(inner, dict):
        raise _unknown(f"an argument of {what}", value.get("class_name"))
    tensor = {
        "shape": _plain(inner.get("shape"), what, "shape"),
        "dtype": _policy(what, inner.get("dtype")),
        "keras_history": _plain(inner.get("keras_history"), what, "keras_history"),
    }
    return {"class_name": "__keras_tensor__", "config": tensor}


def _of_keras_2(value: Any, what: str, depth: int) -> Any:
    """Returns a call before Keras 3: [name, node, tensor, {arguments}] in lists, all of it plain."""
    if isinstance(value, list) and depth:
        return [_of_keras_2(item, what, depth - 1) for item in value]
    if isinstance(value, dict):
        return {_argument(key, what): _plain(item, what, f"argument {key}") for key, item in value.items()}
    return _plain(value, what, "inbound_nodes")


def _argument(name: str, what: str) -> str:
    """Returns the name of an argument of a call; rejects names that mark a serialized object."""
    if name in _RESERVED:
        raise _not_plain(what, "inbound_nodes", name)
    return name


def _entry(entry: Mapping[str, Any], config: Any, *, module: str = _MODULE_OF_LAYERS) -> dict[str, Any]:
    """Returns an entry of a class; a module that the file names must be the one that we know."""
    kind = entry["class_name"]
    made: dict[str, Any] = {"class_name": kind, "config": config}
    if "module" in entry:
        ours = _MODULES_OF_MODELS.get(kind, module)
        if kind == "Functional" and _OLD_MODULE.fullmatch(str(entry["module"])):
            ours = "tf_keras.src.engine.functional"
        made |= {"module": ours, "registered_name": None}
    return made


def _plain(value: Any, what: str, option: str, depth: int = _MAX_DEPTH) -> Any:
    """Returns a value that consists of numbers, texts of a bounded length, and lists of such."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str) and len(value) <= _MAX_TEXT_LENGTH:
        return value
    again: Callable[[Any], Any] = lambda item: _plain(item, what, option, depth - 1)  # noqa: E731 - said twice
    if isinstance(value, list) and depth:
        return list(map(again, value))
    by_name = isinstance(value, dict) and depth == _MAX_DEPTH and option in ("input_layers", "output_layers")
    if by_name and all(isinstance(item, list) for item in value.values()):  # as Keras 3 may write them
        return {str(key): again(item) for key, item in value.items()}
    raise _not_plain(what, option, value)


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        message = f"{what} holds a {type(value).__name__} where its configuration should be"
        raise UnsupportedModelError(message)
    return value


def _called(entry: Mapping[str, Any]) -> str:
    options = entry.get("config")
    name = options.get("name") if isinstance(options, dict) else entry.get("name")
    return f"layer {str(name)[:_MAX_SHOWN_CHARACTERS]!r} ({str(entry.get('class_name'))[:_MAX_SHOWN_CHARACTERS]})"


def _unknown(what: str, kind: Any) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{what} is of the class {str(kind)[:_MAX_SHOWN_CHARACTERS]!r}, which is not known in this place. Serve a part of it "
        "with --layer or --until, or rebuild it with Keras' own layers"
    )


def _not_plain(what: str, option: str, value: Any) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{what} has {option}={repr(value)[:_MAX_SHOWN_CHARACTERS]}; expected numbers, or strings of at most {_MAX_TEXT_LENGTH} "
        "characters. Serialized objects are not accepted here, and never passed to Keras"
    )
