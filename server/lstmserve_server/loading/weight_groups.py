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
    "LSTM CuDNNLSTM RNN Bidirectional Dense TimeDistributed Embedding BatchNormalization LayerNormalization Conv1D".split()
)
"""The kinds of layers that have weights."""

_FIRST_PLACES: Final = ("vars", "cell/vars", "forward_layer/cell/vars", "layer/vars")  # of the first weight of a layer


class NumberedGroups:
    """One group per layer, named after its class and numbered within it: the layer's own name plays no part.

    `layers/lstm`, `layers/lstm_1` ... are the LSTM layers in the order of the model, whatever they are called; a file with
    a layer named "lstm_1" in `layers/lstm` is usual.
    """

    def __init__(self, root: Group, config: ModelConfig) -> None:
        # Keras 2.12 to 2.14 had the other name, and 2.12 gave a layer with weights two numbers: so they are counted here.
        old = "_layer_checkpoint_dependencies"
        self._layers = root.group(old if old in root else "layers")
        found: dict[str, list[int]] = {}
        for name in self._layers.names():
            base, _, suffix = name.rpartition("_")
            if suffix.isdecimal() and base:
                found.setdefault(base, []).append(int(suffix))
            found.setdefault(name, []).append(0)
        counts: dict[str, int] = {}
        self._groups: dict[str, str] = {}
        for layer in config.chain or config.layers:  # Keras numbers them along the graph that it rebuilds
            kind, place = _snake_case(layer.kind), counts.get(layer.kind, 0)
            counts[layer.kind] = place + 1
            numbers = sorted(found.get(kind, []))
            number = numbers[place] if place < len(numbers) else place
            self._groups[layer.name] = f"{kind}_{number}" if number else kind

    def read(self, layer: LayerConfig, blocks: Sequence[Block], dtype: np.dtype[Any]) -> list[dict[str, NDArray[Any]]]:
        """Returns the weights of each block: see `build.Weights`."""
        return [self._read(layer, block, dtype) for block in blocks]

    def features_of(self, layer: LayerConfig) -> int:
        """Returns how many features a layer reads: see `build.Weights`."""
        for place in _FIRST_PLACES:
            if f"{self._groups[layer.name]}/{place}/0".replace("//", "/") in self._layers:
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
        return self._layers.group(f"{self._groups[layer.name]}/{place}")


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
    def of_weights_only(cls, weights: Group, config: ModelConfig) -> Self:
        """Returns the groups of a file that holds weights alone: by name if all agree, else in order (Keras' own rule)."""
        layers = [layer.name for layer in config.layers if layer.kind in WITH_WEIGHTS]
        groups = [name for name in weights.texts("layer_names") or [] if weights.group(name).texts("weight_names")]
        if set(layers) <= set(groups):
            return cls(weights, {name: name for name in layers})
        if len(layers) != len(groups):
            message = (
                f"the architecture has {len(layers)} layers with weights ({', '.join(layers)}), and the file {len(groups)} "
                f"({', '.join(groups)}). Do they belong together?"
            )
            raise ModelRefused(message)
        return cls(weights, dict(zip(layers, groups, strict=True)))

    def read(self, layer: LayerConfig, blocks: Sequence[Block], dtype: np.dtype[Any]) -> list[dict[str, NDArray[Any]]]:
        """Returns the weights of each block: see `build.Weights`."""
        group, paths = self._open(layer)
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
        group, paths = self._open(layer)
        shape = group.shape(paths[0]) if paths else ()
        if len(shape) < 2:  # noqa: PLR2004 - a kernel has at least two axes
            message = f"{layer} has no kernel in the file, and the model does not declare how many features it reads"
            raise ModelRefused(message)
        return shape[-2]

    def _open(self, layer: LayerConfig) -> tuple[Group, list[str]]:
        """Returns the group of a layer, and the path of each weight below it, in the order of Keras."""
        name = self._names.get(layer.name, layer.name)
        if "/" in name or name not in self._weights:
            message = f"{layer} has no weights in the file. The file is damaged, or was cut off while it was written"
            raise ModelRefused(message)
        group = self._weights.group(name)
        paths = group.texts("weight_names") or []
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
