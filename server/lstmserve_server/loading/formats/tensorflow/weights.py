"""Finds the weights of a Keras layer in a TensorFlow checkpoint, along the attributes of the objects.

Neither the keys nor the names of variables suffice: `variables/7` says nothing, and in nested models three variables are called
"lstm/lstm_cell/kernel". What always holds is the path in the object graph: from a model to its K-th layer, then to `cell` and
`kernel`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lstmserve_server.core.errors import UnsupportedModelError, format_names
from lstmserve_server.loading.build.keras_file import features_of_kernel, read_listed
from lstmserve_server.loading.build.rules.base import WeightBlock
from lstmserve_server.loading.build.rules.registry import WITH_WEIGHTS
from lstmserve_server.loading.config import keras_graph
from lstmserve_server.loading.config.keras_config import LayerConfig, ModelConfig
from lstmserve_server.loading.formats.tensorflow.checkpoint import Checkpoint
from lstmserve_server.loading.formats.tensorflow.object_graph import ObjectGraph, Variable

# Of the first weight of a layer.
_PLACES: Final = ("", "cell", "forward_layer/cell", "forward_layer", "layer", "layer/cell", "cell/cells/0")
_FIRST: Final = ("kernel", "embeddings")  # the weights whose last axis but one is what a layer reads
_CELL: Final = re.compile(r"lstm_cell(?:_(\d+))?")
_SECOND_NAMES: Final = {"adapt_mean", "adapt_variance"}  # of tf.keras, for the mean and variance of a Normalization
_STATES: Final = ("seed_generator_state", "rnn_state")  # what Keras 3 exports among the weights


class TrackedWeights:
    """Weights of a model whose layers are reachable from the root object.

    tf.keras: `layer-K` is the K-th of `model.layers`, in which a Sequential does not count its InputLayer. Keras 3:
    `_operations/K`, in which it does, behind `_functional` in a Sequential. Below: `cell`, `forward_layer`, `layer` ... as in
    the new layout of HDF5, and a variable under its name, before which Keras 3 may put an underscore.
    """

    def __init__(
        self,
        bundle: Checkpoint,
        graph: ObjectGraph,
        config: ModelConfig,
        *,
        kept: Mapping[int, tuple[str, str]] | None = None,
        in_order: bool = True,
    ) -> None:
        """Finds all layers.

        Args:
            bundle: where the arrays are.
            graph: the object graph in the bundle.
            config: the layers.
            kept: class and name of the layer at a node, where the file says it.
            in_order: whether the position of a layer is enough, as for Keras itself; else the names have to agree too.
        """
        self._bundle = bundle
        self._graph = graph
        self._kept = kept or {}
        self._in_order = in_order
        self._nodes: dict[tuple[str, ...], int] = {}
        self._find(config, model_in(graph), ())

    def _find(self, config: ModelConfig, node: int, outer: tuple[str, ...]) -> None:
        """Finds the layers of a model, and of the models in it."""
        found = _matched(config, layers_of(self._graph, node), outer)
        for layer, child in found:
            kept = self._kept.get(child, (layer.kind, layer.name))
            if kept != (layer.kind, layer.name):
                message = f"{layer} is at the position where the file has {kept[1]!r} ({kept[0]}). The file is damaged"
                raise UnsupportedModelError(message)
            self._nodes[*outer, layer.name] = child
            if layer.inside is not None:
                self._find(layer.inside, child, (*outer, layer.name))

    def read(
        self, layer: LayerConfig, blocks: Sequence[WeightBlock], dtype: np.dtype[Any]
    ) -> list[dict[str, NDArray[Any]]]:
        """Returns the weights of each block: see `WeightSource`."""
        for block in blocks:
            self._require_no_others(layer, block)
        return [
            {
                weight: self._bundle.array(self._key(layer, block.place, weight), shape, dtype)
                for weight, shape in block.shapes.items()
                if weight not in block.idle
            }
            for block in blocks
        ]

    def features_of(self, layer: LayerConfig) -> int:
        """Returns the number of input features of a layer: see `WeightSource`."""
        for place in _PLACES:
            for weight in _FIRST:
                variable = self.find(layer, place, weight)
                if variable is not None:
                    shape = self._bundle.shape(variable.key)
                    return shape[-2] if len(shape) > 1 else 0
        return features_of_kernel(layer, ())

    def find(self, layer: LayerConfig, place: str, weight: str) -> Variable | None:
        """Returns a weight of a layer; None if the file has none of this name."""
        node = self._node(layer, place)
        if node is None:
            return None
        children = self._graph.children(node)
        found = {self._graph.variable(children[name]) for name in (weight, f"_{weight}") if name in children} - {None}
        if len(found) > 1:
            message = f"{layer} has both {weight} and _{weight}, so two readers may see two models"
            raise UnsupportedModelError(message)
        return next(iter(found), None)

    def _require_no_others(self, layer: LayerConfig, block: WeightBlock) -> None:
        """Rejects weights that are not in the configuration: without them Keras would compute something else."""
        node = self._node(layer, block.place)
        children = {} if node is None else self._graph.children(node)
        found = {name.removeprefix("_") for name, child in children.items() if self._graph.variable(child) is not None}
        if found - set(block.shapes) - _SECOND_NAMES:
            message = (
                f"{layer} has the weights {', '.join(sorted(found))} in the file; expected {', '.join(block.shapes)}"
            )
            raise UnsupportedModelError(message)

    def _node(self, layer: LayerConfig, place: str) -> int | None:
        node = self._nodes.get(layer.path)
        if node is None:
            return None
        return self._graph.walk(node, map(_attribute, place.split("/")) if place else ())

    def _key(self, layer: LayerConfig, place: str, weight: str) -> str:
        variable = self.find(layer, place, weight)
        if variable is None:
            where = f"{place}/{weight}" if place else weight
            message = (
                f"{layer} has no {where} in the file. Was it saved before the layer was built, or by Keras 3, which leaves the "
                "weights of StackedRNNCells out?"
            )
            raise UnsupportedModelError(message)
        if not self._in_order and layer.name not in variable.full_name.split("/"):
            message = (
                f"{layer} is at the position where the file has {variable.full_name}. Does the architecture belong to "
                "it? If so, say so with "
                "--architecture"
            )
            raise UnsupportedModelError(message)
        return variable.key


class ExportedWeights:
    """Weights that `model.export` wrote: a list without layers, `variables/0`, `variables/1` and so on.

    They are in the order of `model.variables`, layer by layer, and each has its full name. A layer gets the next ones of the
    list whose name leads through its own; so neither an order nor a name is believed alone.
    """

    def __init__(self, bundle: Checkpoint, graph: ObjectGraph, config: ModelConfig) -> None:
        self._bundle = bundle
        self._variables: dict[tuple[str, ...], list[Variable]] = {}
        self._rest = list(_exported(graph))
        for layer in keras_graph.leaves(config):
            taken = _run(self._rest, layer.path)
            if not taken and layer.kind in WITH_WEIGHTS:  # from here on, the next weights may be of any layer
                break
            self._variables[layer.path] = taken
            del self._rest[: len(taken)]

    @staticmethod
    def are_in(graph: ObjectGraph) -> bool:
        """Returns whether a SavedModel has its weights in this layout."""
        return graph.walk(graph.ROOT, ("variables", "0")) is not None

    def read(
        self, layer: LayerConfig, blocks: Sequence[WeightBlock], dtype: np.dtype[Any]
    ) -> list[dict[str, NDArray[Any]]]:
        """Returns the weights of each block: see `WeightSource`."""
        variables = self._variables.get(layer.path, [])
        expected = [weight for block in blocks for weight in block.shapes]
        if self._rest or [variable.own_name for variable in variables] != expected:
            found = ", ".join(variable.full_name for variable in variables) or "none"
            next_ones = (
                f"; then the file has {format_names(variable.full_name for variable in self._rest)}"
                if self._rest
                else ""
            )
            message = (
                f"{layer} has the weights {found} in the file; expected {', '.join(expected)}{next_ones}. What model.export writes "
                "does not say which weight is whose: save the model with model.save('model.keras')"
            )
            raise UnsupportedModelError(message)
        return read_listed(variables, blocks, lambda item, shape: self._bundle.array(item.key, shape, dtype))

    def features_of(self, layer: LayerConfig) -> int:
        """Returns the number of input features of a layer: see `WeightSource`."""
        variables = self._variables.get(layer.path, [])
        return features_of_kernel(layer, self._bundle.shape(variables[0].key) if variables else ())


@dataclass(frozen=True, slots=True)
class Layers:
    """Layers of a model in an object graph, by number."""

    nodes: Mapping[int, int]

    of_functional: bool
    """Whether these are the numbers of the configuration of a functional model of Keras 3, in which gaps are operations."""


def layers_of(graph: ObjectGraph, node: int) -> Layers:
    """Returns the layers of the model at a node, in order; none if it is not a model."""
    operations = graph.walk(node, ["_operations"])
    if operations is not None:
        return Layers(graph.numbered(operations), of_functional=True)
    operations = graph.walk(node, ["_functional", "_operations"])
    if operations is not None:
        return Layers(graph.numbered(operations), of_functional=False)
    return Layers(graph.numbered(node, "layer-"), of_functional=False)


def _attribute(name: str) -> str:
    """Returns the attribute for a part of a place, which counts cells: `cell/cells/lstm_cell_1` is `cell.cells[1]`."""
    cell = _CELL.fullmatch(name)
    return name if cell is None else cell[1] or "0"


def _matched(config: ModelConfig, found: Layers, outer: tuple[str, ...]) -> list[tuple[LayerConfig, int]]:
    """Returns each layer of a configuration that is in the file, with its node.

    Keras 3 computes masks by operations that stand among the layers and are not saved. A functional model configures them too,
    so numbers agree; a Sequential does not, so layers are counted. Whether an InputLayer counts depends on model and version.
    """
    first_is_input = config.layers[0].kind == "InputLayer"
    skipped = len(config.layers) - len(found.nodes)
    if found.of_functional and max(found.nodes, default=0) < len(config.layers):
        return [(config.layers[number], node) for number, node in found.nodes.items()]
    if not found.of_functional and skipped in (0, 1 if first_is_input else -1):
        nodes = list(found.nodes.values())[max(-skipped, 0) :]
        return list(zip(config.layers[max(skipped, 0) :], nodes, strict=True))
    where = f"the model {'/'.join(outer)!r}" if outer else "the model"
    message = (
        f"{where} has {len(found.nodes)} layers in the file, and {len(config.layers)} in the configuration. Do they "
        "belong together?"
    )
    raise UnsupportedModelError(message)


def model_in(graph: ObjectGraph) -> int:
    """Returns the one model in a checkpoint: its root, or what its root holds.

    Raises:
        UnsupportedModelError: there is none, or more than one.
    """
    if layers_of(graph, graph.ROOT).nodes:
        return graph.ROOT
    names = [name for name, child in graph.children(graph.ROOT).items() if layers_of(graph, child).nodes]
    if len({graph.children(graph.ROOT)[name] for name in names}) != 1:
        found = format_names(names or graph.children(graph.ROOT))
        message = (
            f"the checkpoint holds {'more than one model' if names else 'no Sequential and no functional model'}: {found}. "
            "Save the one that is wanted alone: model.save('model.keras')"
        )
        raise UnsupportedModelError(message)
    return graph.children(graph.ROOT)[names[0]]


def _exported(graph: ObjectGraph) -> Iterator[Variable]:
    """Yields the exported weights, in order."""
    every = graph.walk(graph.ROOT, ["variables"])
    for node in graph.numbered(every).values() if every is not None else ():
        variable = graph.variable(node)
        if variable is not None and variable.own_name not in _STATES:
            yield variable


def _run(variables: Sequence[Variable], path: tuple[str, ...]) -> list[Variable]:
    """Returns the leading variables that belong to one layer: their prefix ends with its name."""
    if not variables:
        return []
    name, parts = path[-1], variables[0].full_name.split("/")
    inner = parts[: min(len(path) + 1, len(parts) - 1)]  # the model's own name, those of the models in it, the layer's
    if name not in inner:
        return []
    # The last place, for a model may be called as its layer.
    prefix = parts[: len(inner) - inner[::-1].index(name)]
    taken: dict[str, Variable] = {}
    for variable in variables:
        if variable.full_name.split("/")[: len(prefix)] != prefix or variable.full_name in taken:
            break
        taken[variable.full_name] = variable
    return list(taken.values())
