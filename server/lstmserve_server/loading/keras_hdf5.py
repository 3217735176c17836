"""Whole-model `.h5`: configuration and weights in one HDF5 file, as Keras 2 and Keras 3 write it (`legacy_h5_format`)."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, BinaryIO

from lstmserve_server.description import Source
from lstmserve_server.errors import ModelRefused
from lstmserve_server.loading import config_text, keras_config
from lstmserve_server.loading.build import KerasFile
from lstmserve_server.loading.hdf5 import Group

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from lstmserve_server.loading.keras_config import LayerConfig
    from lstmserve_server.loading.limits import Limits


@contextlib.contextmanager
def read(file: BinaryIO, name: str, limits: Limits) -> Iterator[KerasFile]:
    """Opens the model in an HDF5 file.

    Raises:
        ModelRefused: it is no whole model of Keras 2 or 3.
    """
    with Group.open(file, limits) as root:
        text = root.text("model_config")
        if text is None:
            message = "the file holds weights without the model's configuration. Save the whole model: model.save('model.keras')"
            raise ModelRefused(message)
        version = root.text("keras_version") or "unknown"
        if not re.match(r"[23]\.", version):
            message = f"the file was written by Keras {version}; those of Keras 2 and 3 are served. Save it anew with one of them"
            raise ModelRefused(message)
        config = keras_config.parse(config_text.parse(text, "the attribute model_config", limits), limits)
        yield KerasFile(config, _LayerGroups(root.group("model_weights")), Source(name, "keras-hdf5", version))


class _LayerGroups:
    """One group per layer, under the layer's name, whose attribute `weight_names` lists paths below it."""

    def __init__(self, weights: Group) -> None:
        self._weights = weights

    def read(
        self, layer: LayerConfig, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype[Any]
    ) -> dict[str, NDArray[Any]]:
        group, paths = self._open(layer)
        if set(paths) != set(shapes):
            message = f"{layer} has the weights {', '.join(paths) or 'none'} in the file; expected {', '.join(shapes)}"
            raise ModelRefused(message)
        return {weight: group.array(paths[weight], shape, dtype) for weight, shape in shapes.items()}

    def features_of(self, layer: LayerConfig) -> int:
        group, paths = self._open(layer)
        if "kernel" not in paths:
            message = f"{layer} has the weights {', '.join(paths) or 'none'} in the file; expected a kernel"
            raise ModelRefused(message)
        shape = group.shape(paths["kernel"])
        return shape[0] if shape else 0

    def _open(self, layer: LayerConfig) -> tuple[Group, dict[str, str]]:
        """Returns the group of a layer, and the path of each weight below it by the weight's own name."""
        if "/" in layer.name or layer.name not in self._weights:
            message = f"{layer} has no weights in the file. The file is damaged, or was cut off while it was written"
            raise ModelRefused(message)
        group = self._weights.group(layer.name)
        paths = {_own_name(path): path for path in group.texts("weight_names") or []}
        return group, paths


def _own_name(path: str) -> str:
    """Returns "kernel" for "lstm_1/lstm_cell_3/kernel:0", for "kernel" and for all that lies between."""
    return path.rsplit("/", maxsplit=1)[-1].split(":", maxsplit=1)[0]
