"""Finds the weights of a layer in HDF5: in groups named after it, or numbered within its class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.build.keras_file import features_of_kernel, read_listed
from lstmserve_server.loading.build.rules.base import WeightBlock
from lstmserve_server.loading.build.rules.registry import WITH_WEIGHTS
from lstmserve_server.loading.config import keras_graph
from lstmserve_server.loading.config.keras_config import LayerConfig, ModelConfig

_CONTAINER: Final = "layers"
_OLD_CONTAINER: Final = "_layer_checkpoint_dependencies"  # of Keras 2.12 to 2.14
_FIRST_PLACES: Final = (
    "vars",
    "cell/vars",
    "forward_layer/cell/vars",
    "cell/cells/lstm_cell/vars",
    "layer/vars",
    "layer/cell/vars",
)  # of the first weight of a layer


_LSTM_WEIGHTS: Final = ("kernel", "recurrent_kernel", "bias")


class Tree(Protocol):
    """Groups and arrays of one HDF5 file, or of several as if they were one: see `hdf5.Group`."""

    @property
    def path(self) -> str:
        """Path in the file, for errors."""
        ...

    def __contains__(self, name: str) -> bool: ...

    def names(self) -> list[str]:
        """Returns the names of the members."""
        ...

    def attribute_names(self) -> list[str]:
        """Returns the names of the attributes."""
        ...

    def group(self, name: str) -> Tree:
        """Returns the group at `name`."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape that the array at `name` declares."""
        ...

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Returns the array at `name`."""
        ...

    def text(self, name: str) -> str | None:
        """Returns an attribute that is text."""
        ...

    def texts(self, name: str) -> list[str] | None:
        """Returns an attribute that is a list of texts."""
        ...


class NumberedGroups:
    """One group per layer, named after its class and numbered within it. The layer's own name is not used.

    `layers/lstm`, `layers/lstm_1` ... are the LSTM layers in the order of the model, whatever they are called; a file with
    a layer named "lstm_1" in `layers/lstm` is usual.
    """

    def __init__(self, root: Tree, config: ModelConfig) -> None:
        self._root = root
        self._container = _OLD_CONTAINER if _OLD_CONTAINER in root else _CONTAINER
        self._groups: dict[tuple[str, ...], str] = {}
        self._find(config, self._container, ())
        self._is_whole = False

    def _require_no_others(self, place: str) -> None:
        """Rejects weights that are not in the configuration: without them Keras would compute something else."""
        known = set(self._groups.values())
        for name in self._root.group(place).names() if place in self._root else []:
            holds = any(f"{place}/{name}/{first}/0" in self._root for first in _FIRST_PLACES)
            if holds and f"{place}/{name}" not in known:
                message = f"the file holds weights in {place}/{name}, and the model has no layer for them. Do they belong together?"
                raise UnsupportedModelError(message)

    @staticmethod
    def are_in(root: Tree) -> bool:
        """Returns whether a file has its weights in this layout."""
        return _CONTAINER in root or _OLD_CONTAINER in root

    @staticmethod
    def only_lstm(root: Tree) -> tuple[Tree, list[str]] | None:
        """Returns the group and the names of the weights of the one LSTM that a file holds, if that is all it holds."""
        if not NumberedGroups.are_in(root):
            return None
        container = root.group(_OLD_CONTAINER if _OLD_CONTAINER in root else _CONTAINER)
        full = [name for name in container.names() if any(f"{name}/{place}/0" in container for place in _FIRST_PLACES)]
        if full != ["lstm"] or "lstm/cell/vars/0" not in container:
            return None
        group = container.group("lstm/cell/vars")
        names = sorted(group.names())
        return (group, names) if are_of_an_lstm([group.shape(name) for name in names]) else None

    def _find(self, config: ModelConfig, place: str, outer: tuple[str, ...]) -> None:
        """Finds the groups of the layers of a model, and of the models in it."""
        # Keras 2.12 gave a layer with weights two numbers. So the groups of a class are counted, whatever their numbers.
        found: dict[str, list[int]] = {}
        for name in self._root.group(place).names():
            base, _, suffix = name.rpartition("_")
            if suffix.isdecimal() and base:
                found.setdefault(base, []).append(int(suffix))
            found.setdefault(name, []).append(0)
        counts: dict[str, int] = {}
        for layer in keras_graph.as_numbered(config):
            kind, count = _snake_case(layer.kind), counts.get(layer.kind, 0)
            counts[layer.kind] = count + 1
            numbers = sorted(found.get(kind, []))
            if len(set(numbers)) < len(numbers):
                message = f"{place} has two groups that are the first of their kind, {kind} and {kind}_0; Keras knows one of them"
                raise UnsupportedModelError(message)
            number = numbers[count] if count < len(numbers) else count
            group = f"{place}/{kind}_{number}" if number else f"{place}/{kind}"
            self._groups[*outer, layer.name] = group
            if layer.inside is not None:
                self._find(layer.inside, f"{group}/{self._container}", (*outer, layer.name))

    def read(
        self, layer: LayerConfig, blocks: Sequence[WeightBlock], dtype: np.dtype[Any]
    ) -> list[dict[str, NDArray[Any]]]:
        """Returns the weights of each block: see `WeightSource`."""
        read = [self._read(layer, block, dtype) for block in blocks]
        if not self._is_whole:
            self._require_no_others(self._container)
            self._is_whole = True
        return read

    def features_of(self, layer: LayerConfig) -> int:
        """Returns the number of input features of a layer: see `WeightSource`."""
        for place in _FIRST_PLACES:
            if f"{self._groups[layer.path]}/{place}/0" in self._root:
                shape = self._variables(layer, place).shape("0")
                return shape[-2] if len(shape) > 1 else 0
        message = f"{layer} has no weights in the file, and the model does not declare how many features it reads"
        raise UnsupportedModelError(message)

    def _read(self, layer: LayerConfig, block: WeightBlock, dtype: np.dtype[Any]) -> dict[str, NDArray[Any]]:
        group = self._variables(layer, f"{block.place}/vars" if block.place else "vars")
        found = group.names()
        if sorted(found) != sorted(str(i) for i in range(len(block.shapes))):
            names = ", ".join(block.shapes)
            message = f"{layer} has {len(found)} weights in {group.path}; expected {len(block.shapes)}: {names}"
            raise UnsupportedModelError(message)
        for i, (weight, shape) in enumerate(block.shapes.items()):
            if weight in block.idle and group.shape(str(i)) != shape:  # Keras reads it, if we do not
                message = f"{group.path}/{i} has the shape {group.shape(str(i))}; expected {shape}"
                raise UnsupportedModelError(message)
        return {
            weight: group.array(str(i), shape, dtype)
            for i, (weight, shape) in enumerate(block.shapes.items())
            if weight not in block.idle
        }

    def _variables(self, layer: LayerConfig, place: str) -> Tree:
        if self._groups[layer.path] not in self._root:
            message = (
                f"{layer} has no weights in the file; expected them in {self._groups[layer.path]}. The file was cut off, or "
                "belongs to another model"
            )
            raise UnsupportedModelError(message)
        return self._root.group(f"{self._groups[layer.path]}/{place}")


class NamedGroups:
    """One group per layer, under the layer's name, whose attribute `weight_names` lists paths below it."""

    def __init__(self, weights: Tree, names: Mapping[str, str]) -> None:
        self._weights = weights
        self._names = names
        """The group of each layer."""

    @classmethod
    def of_whole_model(cls, weights: Tree, config: ModelConfig) -> Self:
        """Returns the groups of a file that holds a whole model, in which the names agree."""
        listed = _layer_names(weights)
        known = [layer.name for layer in config.layers]
        full = [name for name in listed if name in weights and weights.group(name).texts("weight_names")]
        if [name for name in known if name in full] != full:
            message = (
                f"the file holds weights for {', '.join(full)}, and the model has the layers {', '.join(known)}: Keras would "
                "give them to others than we do. Do they belong together?"
            )
            raise UnsupportedModelError(message)
        return cls(weights, {name: name for name in known})

    @classmethod
    def of_weights_only(cls, weights: Tree, config: ModelConfig, *, in_order: bool) -> Self:
        """Returns the groups of a file that holds weights alone: by name if all agree, else `in_order` (Keras' own rule)."""
        layers = [layer.name for layer in config.layers if layer.kind in WITH_WEIGHTS]
        groups = [name for name in _layer_names(weights) if weights.group(name).texts("weight_names")]
        if set(layers) == set(groups):
            return cls(weights, {name: name for name in layers})
        if len(layers) != len(groups) or not in_order:
            message = (
                f"the architecture has {len(layers)} layers with weights ({', '.join(layers)}), and the file {len(groups)} "
                f"({', '.join(groups)}). Do they belong together?{'' if in_order else ' If so, say so with --architecture'}"
            )
            raise UnsupportedModelError(message)
        return cls(weights, dict(zip(layers, groups, strict=True)))

    @staticmethod
    def only_lstm(root: Tree) -> tuple[Tree, list[str]] | None:
        """Returns the group and the names of the weights of the one LSTM that a file holds, if that is all it holds."""
        full = [name for name in _layer_names(root) if root.group(name).texts("weight_names")]
        if len(full) != 1:
            return None
        group = root.group(full[0])
        names = group.texts("weight_names") or []
        if tuple(_own_name(name) for name in names) not in (_LSTM_WEIGHTS, _LSTM_WEIGHTS[:2]):
            return None
        return (group, names) if are_of_an_lstm([group.shape(name) for name in names]) else None

    def read(
        self, layer: LayerConfig, blocks: Sequence[WeightBlock], dtype: np.dtype[Any]
    ) -> list[dict[str, NDArray[Any]]]:
        """Returns the weights of each block: see `WeightSource`."""
        group, paths = self.open(layer)
        paths = in_order_of_pieces(layer, paths, blocks)
        expected = [weight for block in blocks for weight in block.shapes]
        if [_own_name(path) for path in paths] != expected:
            found = f"the weights {', '.join(map(_own_name, paths))}" if paths else "no weights"
            message = f"{layer} has {found} in the file; expected {', '.join(expected)}"
            raise UnsupportedModelError(message)
        return read_listed(paths, blocks, lambda path, shape: group.array(path, shape, dtype))

    def features_of(self, layer: LayerConfig) -> int:
        """Returns the number of input features of a layer: see `WeightSource`."""
        group, paths = self.open(layer)
        return features_of_kernel(layer, group.shape(paths[0]) if paths else ())

    def open(self, layer: LayerConfig) -> tuple[Tree, list[str]]:
        """Returns the group of a layer, and the path of each weight below it, in the order of Keras."""
        top = layer.path[0]
        name = self._names.get(top, top)
        if "/" in name or name not in self._weights:
            message = f"{layer} has no weights in the file. The file is damaged, or was cut off while it was written"
            raise UnsupportedModelError(message)
        group = self._weights.group(name)
        paths = group.texts("weight_names") or []
        if layer.outer:  # a model keeps the weights of all its layers in one list, those that are trained first
            paths = [path for path in paths if layer.name in path.split("/")]
        if len(set(paths)) < len(paths):
            message = (
                f"{layer} has two weights in one place. Keras 3.0 to 3.2 broke such files as it wrote them (Bidirectional, "
                "nested models): save the model again, as .keras"
            )
            raise UnsupportedModelError(message)
        return group, paths


def in_order_of_pieces(layer: LayerConfig, paths: list[str], blocks: Sequence[WeightBlock]) -> list[str]:
    """Returns the paths to the weights of a layer piece by piece, such as the directions of a Bidirectional.

    A list of weights has those first that are trained, so that a layer that is frozen in part lists its pieces in another order.

    Raises:
        UnsupportedModelError: it is frozen in part, and names do not tell the pieces apart.
    """
    if len(blocks) < 2:  # noqa: PLR2004 - one and another
        return paths
    of_pieces = [[path for path in paths if block.labels & set(path.split("/"))] for block in blocks]
    told_apart = [path for own in of_pieces for path in own]
    if len(told_apart) == len(paths) and set(told_apart) == set(paths):
        return told_apart
    require_all_or_none_frozen(layer, blocks)
    return paths


def require_all_or_none_frozen(layer: LayerConfig, blocks: Sequence[WeightBlock]) -> None:
    """Rejects a partly frozen layer whose weights are stored as an unnamed list."""
    if len({block.trainable for block in blocks}) > 1:
        message = (
            f"{layer} is partly frozen, and the file lists its weights in an order that is not known. Save the model again as "
            ".keras, or with all of the layer trainable"
        )
        raise UnsupportedModelError(message)


def are_of_an_lstm(shapes: Sequence[tuple[int, ...]]) -> bool:
    """Returns whether these are the shapes of kernel, recurrent kernel and perhaps bias of one LSTM."""
    if len(shapes) not in (2, 3) or len(shapes[0]) != 2 or len(shapes[1]) != 2:  # noqa: PLR2004 - matrices
        return False
    units = shapes[1][0]
    return shapes[0][1] == 4 * units == shapes[1][1] and (len(shapes) == 2 or shapes[2] == (4 * units,))  # noqa: PLR2004


def _layer_names(weights: Tree) -> list[str]:
    """Returns the names of the groups in the order in which Keras reads them.

    Raises:
        UnsupportedModelError: one stands twice.
    """
    names = weights.texts("layer_names") or []
    if len(set(names)) < len(names):
        message = f"two groups of weights have the same name; the names are {', '.join(map(repr, names))}"
        raise UnsupportedModelError(message)
    return names


def _own_name(path: str) -> str:
    """Returns "kernel" for "lstm_1/lstm_cell_3/kernel:0", for "kernel", for "kernel_1" of a second cell, and the like."""
    return re.sub(r"_\d+$", "", path.rsplit("/", maxsplit=1)[-1].split(":", maxsplit=1)[0])


def _snake_case(name: str) -> str:
    """Returns the name of a class as Keras spells it in paths (keras/src/utils/naming.py, `to_snake_case`)."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
