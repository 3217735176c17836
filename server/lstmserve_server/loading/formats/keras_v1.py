"""Reads weights of Keras 1: other names, and an LSTM of twelve arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.build.rules.base import WeightBlock
from lstmserve_server.loading.config.keras_config import LayerConfig
from lstmserve_server.loading.formats.hdf5_weights import NamedGroups, Tree
from lstmserve_server.model.types import Array

_WEIGHT: Final = {
    "kernel": "W",
    "bias": "b",
    "embeddings": "W",
    "gamma": "gamma",
    "beta": "beta",
    "moving_mean": "running_mean",
    "moving_variance": "running_std",
}
"""The names of weights in Keras 1. What it called running_std is a variance."""

_GATES: Final = "icfo"  # the order in which it stored them
_TWELVE: Final = [f"{kind}_{gate}" for gate in _GATES for kind in "WUb"]
_THREE: Final = ["W", "U", "b"]  # of `consume_less="gpu"`, in the order i f c o


class Keras1Groups:
    """Groups of a Keras 1 file, read as those of Keras 2."""

    def __init__(self, groups: NamedGroups) -> None:
        self._groups = groups

    def read(self, layer: LayerConfig, blocks: Sequence[WeightBlock], dtype: np.dtype[Any]) -> list[dict[str, Array]]:
        """Returns the weights of each block: see `WeightSource`."""
        group, paths = self._groups.open(layer)
        share = len(paths) // len(blocks)
        parts = [paths[i * share : (i + 1) * share] for i in range(len(blocks))]
        if len(paths) != share * len(blocks):
            message = f"{layer} has {len(paths)} weights in the file, which is not a multiple of {len(blocks)}"
            raise UnsupportedModelError(message)
        return [_read(layer, group, part, block.shapes, dtype) for part, block in zip(parts, blocks, strict=True)]

    def features_of(self, layer: LayerConfig) -> int:
        """Returns the number of input features of a layer: see `WeightSource`."""
        return self._groups.features_of(layer)


def _read(
    layer: LayerConfig, group: Tree, paths: list[str], shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype[Any]
) -> dict[str, Array]:
    if "recurrent_kernel" not in shapes:
        _require_names(layer, paths, [_WEIGHT[name] for name in shapes])
        return {
            name: group.array(path, shape, dtype) for path, (name, shape) in zip(paths, shapes.items(), strict=True)
        }
    if len(paths) == len(_THREE):
        _require_names(layer, paths, _THREE)
        return {
            name: group.array(path, shape, dtype) for path, (name, shape) in zip(paths, shapes.items(), strict=True)
        }
    _require_names(layer, paths, _TWELVE)
    features, units = shapes["kernel"][0], shapes["recurrent_kernel"][0]
    each = {"W": (features, units), "U": (units, units), "b": (units,)}
    arrays = {name: group.array(path, each[name[0]], dtype) for name, path in zip(_TWELVE, paths, strict=True)}
    joined = {
        name: np.concatenate([arrays[f"{kind}_{gate}"] for gate in "ifco"], axis=-1)
        for name, kind in (("kernel", "W"), ("recurrent_kernel", "U"), ("bias", "b"))
    }
    for array in joined.values():
        array.flags.writeable = False
    return joined


def _require_names(layer: LayerConfig, paths: list[str], expected: list[str]) -> None:
    found = [path.split(":")[0] for path in paths]
    if len(found) != len(expected) or not all(
        path.endswith(f"_{name}") for path, name in zip(found, expected, strict=True)
    ):
        message = f"{layer} has the weights {', '.join(found) or 'none'} in the file; expected {', '.join(expected)}"
        raise UnsupportedModelError(message)
