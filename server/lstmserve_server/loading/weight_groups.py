"""Where files keep the weights of a layer: in groups that are named after it, or numbered within its class."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Self

from lstmserve_server.errors import ModelRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from lstmserve_server.loading.hdf5 import Group
    from lstmserve_server.loading.keras_config import LayerConfig, ModelConfig
    from lstmserve_server.loading.layer_rules import Block

WITH_WEIGHTS: Final = frozenset(
    "LSTM CuDNNLSTM RNN Bidirectional Dense TimeDistributed Embedding BatchNormalization LayerNormalization Conv1D "
    "Sequential Functional Model".split()
)
"""The kinds of layers that have weights."""

_CONTAINER: Final = "layers"
_OLD_CONTAINER: Final = "_layer_checkpoint_dependencies"  # of Keras 2.12 to 2.14
_FIRST_PLACES: Final = ("vars", "cell/vars", "forward_layer/cell/vars", "layer/vars")  # of the first weight of a layer


class NumberedGroups:
    """One group per layer, named after its class and numbered within it: the layer's own name plays no part.

    `layers/lstm`, `layers/lstm_1` ... are the LSTM layers in the order of the model, whatever they are called; a file with
    a layer named "lstm_1" in `layers/lstm` is usual.
    """

    def __init__(self, root: Group, config: ModelConfig) -> None:
        self._root = root
        self._container = _OLD_CONTAINER if _OLD_CONTAINER in root else _CONTAINER
        self._groups: dict[tuple[str, ...], str] = {}
        self._find(config, self._container, ())

    @staticmethod
    def are_in(root: Group) -> bool:
        """Returns whether a file has its weights in this layout."""
        return _CONTAINER in root or _OLD_CONTAINER in root

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
        for layer in config.chain or config.layers:  # Keras numbers them along the graph that it rebuilds
            kind, count = _snake_case(layer.kind), counts.get(layer.kind, 0)
            counts[layer.kind] = count + 1
            numbers = sorted(found.get(kind, []))
            number = numbers[count] if count < len(numbers) else count
            group = f"{place}/{kind}_{number}" if number else f"{place}/{kind}"
            self._groups[*outer, layer.name] = group
            if layer.inside is not None:
                self._find(layer.inside, f"{group}/{self._container}", (*outer, layer.name))

    def read(self, layer: LayerConfig, blocks: Sequence[Block], dtype: np.dtype[Any]) -> list[dict[str, NDArray[Any]]]:
        """Returns the weights of each block: see `build.Weights`."""
        return [self._read(layer, block, dtype) for block in blocks]

    def features_of(self, layer: LayerConfig) -> int:
        """Returns how many features a layer reads: see `build.Weights`."""
        for place in _FIRST_PLACES:
            if f"{self._groups[layer.path]}/{place}/0" in self._root:
                shape = self._variables(layer, place).shape("0")
                return shape[-2] if len(shape) > 1 else 0
        message = f"{layer} has no weights in the file, and the model does not declare how many features it reads"
        raise ModelRefused(message)

    def _read(self, layer: LayerConfig, block: Block, dtype: np.dtype[Any]) -> dict[str, NDArray[Any]]:
        group = self._variables(layer, f"{block.place}/vars" if block.place else "vars")
        found = group.names()
        if sorted(found) != sorted(str(i) for i in range(len(block.shapes))):
            names = ", ".join(block.shapes)
            message = f"{layer} has {len(found)} weights in {group.path}; expected {len(block.shapes)}: {names}"
            raise ModelRefused(message)
        return {weight: group.array(str(i), shape, dtype) for i, (weight, shape) in enumerate(block.shapes.items())}

    def _variables(self, layer: LayerConfig, place: str) -> Group:
        return self._root.group(f"{self._groups[layer.path]}/{place}")


class NamedGroups:
    """One group per layer, under the layer's name, whose attribute `weight_names` lists paths below it."""

    def __init__(self, weights: Group, names: Mapping[str, str]) -> None:
        self._weights = weights
        self._names = names
        """The group of each layer."""

    @classmethod
    def of_whole_model(cls, weights: Group, config: ModelConfig) -> Self:
        """Returns the groups of a file that holds a whole model, in which the names agree."""
        return cls(weights, {layer.name: layer.name for layer in config.layers})

    @classmethod
    def of_weights_only(cls, weights: Group, config: ModelConfig, *, in_order: bool) -> Self:
        """Returns the groups of a file that holds weights alone: by name if all agree, else `in_order` (Keras' own rule)."""
        layers = [layer.name for layer in config.layers if layer.kind in WITH_WEIGHTS]
        groups = [name for name in weights.texts("layer_names") or [] if weights.group(name).texts("weight_names")]
        if set(layers) <= set(groups):
            return cls(weights, {name: name for name in layers})
        if len(layers) != len(groups) or not in_order:
            message = (
                f"the architecture has {len(layers)} layers with weights ({', '.join(layers)}), and the file {len(groups)} "
                f"({', '.join(groups)}). Do they belong together?{'' if in_order else ' If so, say so with --architecture'}"
            )
            raise ModelRefused(message)
        return cls(weights, dict(zip(layers, groups, strict=True)))

    def read(self, layer: LayerConfig, blocks: Sequence[Block], dtype: np.dtype[Any]) -> list[dict[str, NDArray[Any]]]:
        """Returns the weights of each block: see `build.Weights`."""
        group, paths = self.open(layer)
        expected = [weight for block in blocks for weight in block.shapes]
        if [_own_name(path) for path in paths] != expected:
            found = ", ".join(map(_own_name, paths)) or "none"
            message = f"{layer} has the weights {found} in the file; expected {', '.join(expected)}"
            raise ModelRefused(message)
        rest = iter(paths)
        return [
            {weight: group.array(next(rest), shape, dtype) for weight, shape in block.shapes.items()}
            for block in blocks
        ]

    def features_of(self, layer: LayerConfig) -> int:
        """Returns how many features a layer reads: see `build.Weights`."""
        group, paths = self.open(layer)
        shape = group.shape(paths[0]) if paths else ()
        if len(shape) < 2:  # noqa: PLR2004 - a kernel has at least two axes
            message = f"{layer} has no kernel in the file, and the model does not declare how many features it reads"
            raise ModelRefused(message)
        return shape[-2]

    def open(self, layer: LayerConfig) -> tuple[Group, list[str]]:
        """Returns the group of a layer, and the path of each weight below it, in the order of Keras."""
        top = layer.path[0]
        name = self._names.get(top, top)
        if "/" in name or name not in self._weights:
            message = f"{layer} has no weights in the file. The file is damaged, or was cut off while it was written"
            raise ModelRefused(message)
        group = self._weights.group(name)
        paths = group.texts("weight_names") or []
        if layer.outer:  # a model keeps the weights of all its layers in one list, those that are trained first
            paths = [path for path in paths if layer.name in path.split("/")]
        if len(set(paths)) < len(paths):
            message = (
                f"{layer} has two weights in one place. Keras 3.0 to 3.2 broke such files as it wrote them (Bidirectional, "
                "nested models): save the model anew, as .keras"
            )
            raise ModelRefused(message)
        return group, paths


def _own_name(path: str) -> str:
    """Returns "kernel" for "lstm_1/lstm_cell_3/kernel:0", for "kernel" and for all that lies between."""
    return path.rsplit("/", maxsplit=1)[-1].split(":", maxsplit=1)[0]


def _snake_case(name: str) -> str:
    """Returns the name of a class as Keras spells it in paths (keras/src/utils/naming.py, `to_snake_case`)."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
