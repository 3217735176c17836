"""Parses the calls of a layer as Keras 1, 2 and 3 write them (`inbound_nodes`) into one form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.config.keras_config import LayerConfig, ModelConfig

MAX_OUTPUTS: Final = 64
"""No layer that is served has as many outputs."""

_MAX_SHOWN_CHARACTERS: Final = 100  # characters of what a stranger wrote in an error


class Edge(NamedTuple):
    """One output of one call of a layer."""

    layer: str
    node: int
    output: int


@dataclass(frozen=True, slots=True)
class Node:
    """One call of a layer."""

    inputs: tuple[Edge, ...]
    numbers: tuple[float, ...] = ()
    number_first: bool = False
    mask: Edge | None = None
    initial_state: tuple[Edge, ...] = ()
    training: bool = False
    further: str = ""

    @property
    def edges(self) -> tuple[Edge, ...]:
        """All that it depends on."""
        return (*self.inputs, *self.initial_state, *((self.mask,) if self.mask is not None else ()))


Nodes = dict[tuple[str, int], tuple["LayerConfig", Node]]
"""The calls of all layers of a model, by name and number."""


def of_model(config: ModelConfig) -> tuple[Nodes, tuple[Edge, ...]]:
    """Returns the calls of all layers of a functional model, by layer and number, and its outputs.

    Raises:
        UnsupportedModelError: they cannot be read.
    """
    outputs = endpoints(config.outputs, "output_layers")
    parsed = {
        (layer.name, number): (layer, _node(layer, node))
        for layer in config.layers
        for number, node in enumerate(layer.nodes)
    }
    inner = [edge for _, node in parsed.values() for edge in node.edges]
    of_keras_3 = any(isinstance(node, dict) for layer in config.layers for node in layer.nodes)
    shifted = set() if of_keras_3 else _shifted([*inner, *outputs], config)
    nodes = {
        key: (
            layer,
            replace(
                node,
                inputs=_moved(node.inputs, shifted),
                initial_state=_moved(node.initial_state, shifted),
                mask=_moved([node.mask], shifted)[0] if node.mask is not None else None,
            ),
        )
        for key, (layer, node) in parsed.items()
    }
    return nodes, _moved(outputs, _shifted(outputs, config) if of_keras_3 else shifted)


def endpoints(value: Any, what: str) -> list[Edge]:
    """Returns the edges of `input_layers` or `output_layers`: one [name, node, tensor], or a list or mapping of such.

    Raises:
        UnsupportedModelError: it is something else.
    """
    try:
        return _endpoints(value)
    except (TypeError, ValueError) as error:
        message = f"{what} of the model cannot be read: {error}"
        raise UnsupportedModelError(message) from error


def _endpoints(value: Any) -> list[Edge]:
    if isinstance(value, dict):
        return [edge for item in value.values() for edge in _endpoints(item)]
    if isinstance(value, list) and value and isinstance(value[0], str):
        return [_edge(value)]
    if not isinstance(value, list):
        message = f"{_short(value)} is not a list of [name, node, tensor]"
        raise TypeError(message)
    return [edge for item in value for edge in _endpoints(item)]


def _shifted(edges: Sequence[Edge], config: ModelConfig) -> set[str]:
    """Returns the inner models whose calls are numbered from 1 (creating a model counts as call 0).

    Keras 2 numbers the calls of all inner models like this. Keras 3 does so for functional ones, where the outputs of the outer
    model refer to them.
    """
    models = {layer.name for layer in config.layers if layer.inside is not None}
    return {name for name in models if all(edge.node for edge in edges if edge.layer == name)}


def _moved(edges: Sequence[Edge], shifted: set[str]) -> tuple[Edge, ...]:
    return tuple(edge._replace(node=edge.node - 1) if edge.layer in shifted else edge for edge in edges)


def _node(layer: LayerConfig, node: Any) -> Node:
    try:
        return _keras_3_node(node) if isinstance(node, dict) else _keras_2_node(node)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError, RecursionError) as error:
        message = f"{layer} has inbound_nodes that cannot be read: {error!r}"
        raise UnsupportedModelError(message) from error


def _keras_2_node(node: Any) -> Node:
    """Reads [[name, node, tensor, {arguments}], ...]."""
    items = [node] if isinstance(node[0], str) else _without_nesting(node)
    arguments: dict[str, Any] = items[0][3] if len(items[0]) > 3 else {}  # noqa: PLR2004 - the fourth, as in the docstring
    first = items[0][2] if items[0][0] == "_CONSTANT_VALUE" else None  # of `2 * a`
    made = _with_arguments(Node(tuple(_edge(item[:3]) for item in items if first is None)), arguments, _keras_2_edge)
    other = arguments.get("y")  # of `a + b`, which TensorFlow calls with `y` for the second
    if isinstance(other, (int, float)):
        return replace(made, numbers=(float(other),))
    if other is not None:
        made = replace(made, inputs=(*made.inputs, _edge(other)))
    return made if first is None else replace(made, numbers=(float(first),), number_first=True)


def _without_nesting(node: list[Any]) -> list[Any]:
    """Returns the tensors of a call; those of the states of a stack of cells are in lists of their own."""
    return [inner for item in node for inner in ([item] if isinstance(item[0], str) else item)]


def _keras_3_node(node: Mapping[str, Any]) -> Node:
    """Reads {"args": [tensor, ...], "kwargs": {...}}, a tensor being {"config": {"keras_history": [name, node, tensor]}}."""
    flat = list(_flattened(node["args"]))
    numbers = tuple(float(item) for item in flat if isinstance(item, (int, float)))
    tensors = tuple(_keras_3_edge(item) for item in flat if not isinstance(item, (int, float)))
    made = Node(tensors, numbers, bool(numbers) and isinstance(flat[0], (int, float)))
    return _with_arguments(made, dict(node.get("kwargs") or {}), _keras_3_edge)


def _flattened(arguments: Any) -> Iterator[Any]:
    for argument in arguments:
        if isinstance(argument, list):
            yield from _flattened(argument)
        else:
            yield argument


def _keras_2_edge(value: Any) -> Edge:
    return _edge(value[:3])


def _keras_3_edge(value: Any) -> Edge:
    return _edge(value["config"]["keras_history"])


def _with_arguments(node: Node, arguments: Mapping[str, Any], edge: Any) -> Node:
    """Returns a node with what its keyword arguments say."""
    given = {name: value for name, value in arguments.items() if value not in (None, False, [])}
    for name, value in given.items():
        if name == "mask":
            node = replace(node, mask=edge(value))
        elif name == "initial_state":
            node = replace(node, initial_state=tuple(edge(item) for item in value))
        elif name == "training":
            node = replace(node, training=True)
        elif name not in ("y", "name"):
            node = replace(node, further=f"{name}={_short(value)}")
    return node


def _edge(value: Any) -> Edge:
    """Returns the layer, the node and the tensor that an edge comes from."""
    name, node, tensor = value
    if not isinstance(name, str) or type(node) is not int or type(tensor) is not int or node < 0 or tensor < 0:
        message = f"{_short(value)} is not [name, node, tensor]"
        raise ValueError(message)
    return Edge(name, node, tensor)


def _short(value: Any) -> str:
    """Returns what a stranger wrote, fit for an error."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[: _MAX_SHOWN_CHARACTERS - 3]}..."
